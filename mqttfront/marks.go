package mqttfront

import (
	"slices"
	"sort"
)

// MarkRun is what a session has had of one epoch, in a row.
type MarkRun struct {
	Epoch, First, Last uint64
	Before             bool // at other nodes, before it came here
}

// marks are identities of messages, in little memory where many follow one another. Where they become too many, the epochs go
// that came first.
type marks struct {
	epochs map[uint64][]markSpan // rising, and apart
	order  []uint64              // epochs, as they came
	spans  int
}

type markSpan struct{ first, last uint64 }

// maxMarks bounds the spans of a session: 256 KiB. A span is at least all that came in a row from one node by one location.
const maxMarks = 16 << 10

func newMarks() *marks { return &marks{epochs: map[uint64][]markSpan{}} }

func (m *marks) has(k Mark) bool {
	if m == nil {
		return false
	}
	ss := m.epochs[k.Epoch]
	i := sort.Search(len(ss), func(i int) bool { return ss[i].last >= k.Seq })
	return i < len(ss) && ss[i].first <= k.Seq
}

// hasRun reports whether all of a run is there.
func (m *marks) hasRun(r MarkRun) bool {
	ss := m.epochs[r.Epoch]
	i := sort.Search(len(ss), func(i int) bool { return ss[i].last >= r.Last })
	return i < len(ss) && ss[i].first <= r.First
}

// add reports whether k is new.
func (m *marks) add(k Mark) bool {
	if m.has(k) {
		return false
	}
	m.addRun(MarkRun{Epoch: k.Epoch, First: k.Seq, Last: k.Seq})
	return true
}

func (m *marks) addRun(r MarkRun) {
	ss, known := m.epochs[r.Epoch]
	if !known {
		m.order = append(m.order, r.Epoch)
	}
	// Spans i to j touch the run, and become one with it.
	i := sort.Search(len(ss), func(i int) bool { return ss[i].last >= r.First || ss[i].last+1 == r.First })
	j := i
	for s := (markSpan{r.First, r.Last}); ; j++ {
		if j == len(ss) || ss[j].first > s.last && ss[j].first != s.last+1 {
			m.spans += 1 - (j - i)
			m.epochs[r.Epoch] = slices.Replace(ss, i, j, s)
			break
		}
		s = markSpan{min(s.first, ss[j].first), max(s.last, ss[j].last)}
	}
	for m.spans > maxMarks {
		m.forget()
	}
}

// forget lets go of the epoch that came first, or of half of the only one.
func (m *marks) forget() {
	first := m.order[0]
	n := len(m.epochs[first])
	if len(m.order) == 1 {
		m.epochs[first] = slices.Clone(m.epochs[first][n-n/2:])
		m.spans = n / 2
		return
	}
	m.spans -= n
	delete(m.epochs, first)
	m.order = m.order[1:]
}

// remove takes one away.
func (m *marks) remove(k Mark) {
	if !m.has(k) {
		return
	}
	ss := m.epochs[k.Epoch]
	i := sort.Search(len(ss), func(i int) bool { return ss[i].last >= k.Seq })
	var parts []markSpan
	if ss[i].first < k.Seq {
		parts = append(parts, markSpan{ss[i].first, k.Seq - 1})
	}
	if k.Seq < ss[i].last {
		parts = append(parts, markSpan{k.Seq + 1, ss[i].last})
	}
	m.spans += len(parts) - 1
	m.epochs[k.Epoch] = slices.Replace(ss, i, i+1, parts...)
}

// runs calls each with all that there is, the oldest epochs first.
func (m *marks) runs(each func(MarkRun)) {
	if m == nil {
		return
	}
	for _, e := range m.order {
		for _, s := range m.epochs[e] {
			each(MarkRun{Epoch: e, First: s.first, Last: s.last})
		}
	}
}
