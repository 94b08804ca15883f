package watch

import "time"

// What is ours to tune.
const (
	// settleTime is for how long this node has leases from a majority before it asks what became of its wills: what others have
	// sent it meanwhile has come then.
	settleTime = 3 * time.Second
	// patience is for how long it waits for a majority, where others may have taken it for dead.
	patience = 30 * time.Second
)

// trust says whether this node may send its clients' wills without asking: not where the others may have taken it for dead and
// have sent them. It is a state machine without clock and I/O.
//
//	asking ── answered ──> trusted ── no majority, or stopped for a while ──> lost ── a majority for a while ──> asking
//	                                                                           │                                   ^
//	                                                                           └── none for long: alone, after ────┘
//
// Alone it goes on by what it knows itself, until there is a majority again.
type trust struct {
	ticked  time.Duration
	started bool
	unsure  time.Duration // since when it is not trusted
	backed  time.Duration // since when there is a majority; where has is set
	has     bool
	trusted bool
	alone   bool
	asking  bool
	round   int // rises when an answer that is under way is not worth anything any more
}

// tick reports whether this node is to ask its location now; answered follows.
func (t *trust) tick(now time.Duration, backed bool) (asks bool) {
	stopped := t.started && now-t.ticked > hangs
	if !t.started || stopped || !backed && t.trusted {
		t.trusted, t.alone, t.has, t.unsure, t.asking = false, false, false, now, false
		t.round++
	}
	t.started, t.ticked = true, now
	switch {
	case !backed:
		t.has = false
	case !t.has:
		t.has, t.backed = true, now
		if t.alone { // others are back, and have watched, perhaps
			t.alone, t.unsure = false, now
		}
	}
	if t.trusted || t.alone || t.asking || !(t.has && now-t.backed >= settleTime || now-t.unsure >= patience) {
		return false
	}
	t.asking = true
	return true
}

// answered tells that what the location has said in a round was dealt with.
func (t *trust) answered(round int) {
	if !t.asking || round != t.round {
		return
	}
	t.asking = false
	t.trusted, t.alone = t.has, !t.has
}

// may reports whether a will is sent without asking.
func (t *trust) may() bool { return t.trusted || t.alone }
