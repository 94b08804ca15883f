package mqttfront

import (
	"strings"
	"sync"
	"time"
)

// Where a delivery waits for few sessions alone, the swarm is told which: should this node be destroyed, the others, which were through with
// it, do not get it again where they go on. Most deliveries are over before it is time for that.

// What is ours to tune.
const (
	// MaxOpen is of how many sessions the swarm is told that a delivery waits for them alone.
	MaxOpen = 16
	// openAfter is after what time the swarm is told of a delivery.
	openAfter = time.Second
	// maxHeld is how many sessions of a delivery are known by name, and maxOpening how many deliveries wait to be told of. Of
	// more, nothing is.
	maxHeld, maxOpening = 4096, 1 << 17
)

// told is a receipt that a session is through with; s is nil where it is not known which, or is not. Where the delivery was for that alone, alone says so.
type told struct {
	Receipt
	s     *session
	alone bool
}

// opening are deliveries that some sessions are through with, and others not.
type opening struct {
	mu      sync.Mutex
	waiting []*tally
}

func (o *opening) put(b *Broker, t *tally) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) >= maxOpening {
		b.stats.OpeningFull.Add(1)
		return
	}
	o.waiting = append(o.waiting, t)
	if len(o.waiting) == 1 {
		time.AfterFunc(openAfter, func() { o.tell(b) })
	}
}

// tell tells the swarm of what still waits.
func (o *opening) tell(b *Broker) {
	o.mu.Lock()
	all := o.waiting
	o.waiting = nil
	o.mu.Unlock()
	select {
	case <-b.stopped:
		return
	default:
	}
	type open struct {
		keys  []string
		marks []Mark
	}
	var opens []*open
	bySessions := map[string]*open{}
	for _, t := range all {
		keys, ok := t.openFor()
		if !ok {
			continue
		}
		k := strings.Join(keys, "\xff") // which no key has
		if bySessions[k] == nil {
			bySessions[k] = &open{keys: keys}
			opens = append(opens, bySessions[k])
		}
		bySessions[k].marks = append(bySessions[k].marks, t.Mark())
	}
	for _, o := range opens {
		b.swarm.OpenFor(o.marks, o.keys)
	}
}

// tellThrough tells the swarm of sessions that are through with what they had on the disk, or what came for them alone, and others may not be.
func (u *burst) tellThrough() {
	if !u.b.roams() {
		return
	}
	var s *session
	var marks []Mark
	tell := func() {
		if len(marks) > 0 && s.lasts() {
			u.b.swarm.Through(marks, string(s.key))
		}
		marks = nil
	}
	for i := range u.receipts {
		r := &u.receipts[i]
		t, ok := r.Receipt.(*tally)
		if r.s == nil || !r.alone && !(ok && t.again) {
			continue
		}
		if r.s != s {
			tell()
			s = r.s
		}
		marks = append(marks, r.Mark())
	}
	tell()
}
