package core_test

import (
	"testing"
	"time"
)

// TestRendezvousReturns crashes a rendezvous while messages come one after the other, and starts it again while they still do: what
// was acknowledged comes, once. Nobody asks for what is written on its disk before that is needed, as it is with clients without
// sessions.
func TestRendezvousReturns(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}[seed%3])
		s.loss, s.disorder = true, true
		s.diskTime = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond}[seed%2]
		s.unhurried, s.hold = true, -1
		s.lazy = time.Duration(s.rng.IntN(2)) * 500 * time.Millisecond
		s.grow(3 + s.rng.IntN(2))
		s.run(3 * time.Second)
		from, to := s.nodes[s.rng.IntN(len(s.nodes))], s.nodes[s.rng.IntN(len(s.nodes))]
		topics := []string{"a/b", "b/c", "c/d"}
		for _, name := range topics {
			to.subscribe(name, 2)
		}
		s.run(time.Duration(s.rng.Int64N(int64(8 * time.Second))))
		flow := func(d time.Duration) {
			for end := s.now + d; s.now < end; {
				for i := range topics {
					from.publish(topics[i], byte(1+s.rng.IntN(2)), false, "v")
				}
				s.run(time.Duration(s.rng.Int64N(int64(10 * time.Millisecond))))
			}
		}
		some := func(most time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(most))) }
		flow(300 * time.Millisecond)
		for range 2 {
			victim := s.pick()
			if victim == from || victim == to {
				continue
			}
			victim.crash()
			flow(some(2 * time.Second))
			victim.reboot()
			flow(some(2 * time.Second))
		}
		flow(100 * time.Millisecond)
		s.run(90 * time.Second)
		s.check()
		s.checkSets()
		s.checkNothingLeft()
		s.report(seed)
	})
}
