package core_test

import (
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// freeze stops a node's process for a while: it does nothing, and what is sent to it and by it comes when it goes on.
func (s *sim) freeze(v *simNode, d time.Duration) {
	s.note("node %d is frozen for %v", v.i, d)
	s.hang(v, d)
	v.frozen = s.now + d
}

// stop has a node stop politely.
func (v *simNode) stop() {
	v.s.note("node %d stops", v.i)
	v.leaving = true
	v.do(func() { v.n.WithdrawAll(); v.n.Leave() })
}

// checkStops lets nodes that stop politely do so: it ends, in the time that a service manager gives them.
func (s *sim) checkStops(most time.Duration) {
	began := s.now
	stopping := func() (all []*simNode) {
		for _, v := range s.nodes {
			if v.alive && v.leaving {
				all = append(all, v)
			}
		}
		return all
	}
	for s.now < began+most && len(stopping()) > 0 {
		s.run(100 * time.Millisecond)
	}
	for _, v := range stopping() {
		s.fail("node %d has not left after %v: %s%s", v.i, most, v.n.WhyStill(), v.n.Left())
	}
}

// TestStopsBesideFrozen freezes a node, the rendezvous of some of what is published meanwhile, for longer than a lease, and has others stop, or
// all, at about the time at which it goes on: they are done in time.
func TestStopsBesideFrozen(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder = true, true
		s.diskTime = []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond}[seed%3]
		s.grow(3 + s.rng.IntN(3))
		s.run(3 * time.Second)
		s.subscribeSome()
		s.run(8 * time.Second)
		victim := s.pick()
		others := func() *simNode {
			for {
				if v := s.pick(); v != victim {
					return v
				}
			}
		}
		for range 20 {
			s.publishOne(s.pick())
		}
		s.freeze(victim, time.Duration(s.rng.Int64N(int64(20*time.Second))))
		for s.now < victim.frozen {
			s.publishOne(others())
			s.run(time.Duration(s.rng.Int64N(int64(300 * time.Millisecond))))
		}
		for range s.rng.IntN(30) {
			s.publishOne(others())
		}
		s.run(time.Duration(s.rng.Int64N(int64(12*time.Second))) * time.Duration(s.rng.IntN(2)))
		how := s.rng.IntN(3)
		for _, v := range s.nodes {
			switch {
			case how == 0, how == 1 && v != victim, how == 2 && v != victim && s.alive() > len(s.nodes)-2:
				v.stop()
				s.run(time.Duration(s.rng.Int64N(int64(300 * time.Millisecond))))
			}
		}
		s.checkStops(9 * time.Second)
		s.report(seed)
	})
}

// TestStopsBesideLost stops a node while the only other is frozen for good: it waits for as long as a lease lasts, and no
// longer.
func TestStopsBesideLost(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.grow(2)
		s.run(3 * time.Second)
		for _, v := range s.nodes {
			v.subscribe("a/#", 1)
		}
		s.run(8 * time.Second)
		for range 20 {
			s.publishOne(s.pick())
		}
		s.freeze(s.nodes[1], time.Hour)
		s.apart = func(_, _ *simNode) bool { return true } // a process that hangs says no Hello
		s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
		s.nodes[0].stop()
		s.checkStops(core.LeaseTime + 1500*time.Millisecond)
		s.report(seed)
	})
}
