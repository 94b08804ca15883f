package mqttfront

import (
	"math/rand/v2"
	"testing"
)

// TestMarks holds marks against a map: what was added is there, what was taken away is not, and it is in the fewest runs.
func TestMarks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	m, want := newMarks(), map[Mark]bool{}
	for range 20_000 {
		k := Mark{Epoch: rng.Uint64N(3), Seq: rng.Uint64N(200)}
		switch rng.IntN(10) {
		case 0:
			m.remove(k)
			delete(want, k)
		case 1:
			r := MarkRun{Epoch: k.Epoch, First: k.Seq, Last: k.Seq + rng.Uint64N(20)}
			m.addRun(r)
			for s := r.First; s <= r.Last; s++ {
				want[Mark{Epoch: r.Epoch, Seq: s}] = true
			}
		default:
			if m.add(k) == want[k] {
				t.Fatalf("%v: new where it was there, or the other way round", k)
			}
			want[k] = true
		}
	}
	n, runs := 0, 0
	last := MarkRun{Epoch: ^uint64(0)}
	m.runs(func(r MarkRun) {
		if runs++; r.Epoch == last.Epoch && r.First <= last.Last+1 {
			t.Errorf("%v comes behind %v", r, last)
		}
		last = r
		for s := r.First; s <= r.Last; s++ {
			if n++; !want[Mark{Epoch: r.Epoch, Seq: s}] {
				t.Errorf("%d of %d was not added", s, r.Epoch)
			}
		}
	})
	if n != len(want) || runs != m.spans {
		t.Errorf("%d marks in %d runs, want %d; %d are counted", n, runs, len(want), m.spans)
	}
}

// TestMarksAreBounded: what came first goes first.
func TestMarksAreBounded(t *testing.T) {
	m := newMarks()
	for i := range uint64(3 * maxMarks) {
		m.add(Mark{Epoch: i / 1000, Seq: 2 * (i % 1000)})
	}
	if m.spans > maxMarks || m.spans < maxMarks/2 {
		t.Errorf("%d spans", m.spans)
	}
	if m.has(Mark{Epoch: 0, Seq: 0}) || !m.has(Mark{Epoch: (3*maxMarks - 1) / 1000, Seq: 0}) {
		t.Error("the last went before the first")
	}
	one := newMarks()
	for i := range uint64(3 * maxMarks) {
		one.add(Mark{Epoch: 1, Seq: 2 * i})
	}
	if one.spans > maxMarks || one.has(Mark{Epoch: 1}) || !one.has(Mark{Epoch: 1, Seq: 6*maxMarks - 2}) {
		t.Errorf("%d spans of one epoch", one.spans)
	}
}
