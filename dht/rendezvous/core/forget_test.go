package core_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// TestForgotten runs clients at nodes with little room, which forget locations as soon as nothing is kept there and find
// them again, while nodes join and leave: nothing acknowledged is lost, nothing comes twice, order is kept.
func TestForgotten(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss = true
		s.depth = 1 + int(seed%2)
		s.limit = func(l *core.Limits) { l.Locations = []int{0, 12, 60}[s.depth] } // there is always room for the few of clients
		s.grow(2 + s.rng.IntN(4))
		s.run(3 * time.Second)
		for range 6 {
			s.clients(15)
			s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
			if s.rng.IntN(4) == 0 {
				s.join(s.add())
				s.clients(5)
			}
			if s.rng.IntN(4) == 0 && s.alive() > 2 {
				v := s.pick()
				v.leaving = true
				v.do(func() { v.n.WithdrawAll(); v.n.Leave() })
				s.clients(5)
			}
		}
		s.run(80 * time.Second)
		for _, v := range s.nodes {
			if full := v.n.Stats().LocationsFull; full > 0 {
				s.fail("node %d had no room %d times", v.i, full)
			}
		}
		s.check()
		s.checkSets()
		s.checkRetained()
		s.report(seed)
	})
}

// TestEpochsForgotten has clients publish at all nodes what is heard at all nodes, those that serve it among them: when the
// epochs are over, nobody remembers one.
func TestEpochsForgotten(t *testing.T) {
	eachSeed(t, min(*seeds, 40), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.grow(1 + s.rng.IntN(5))
		s.run(20 * time.Second)
		for _, v := range s.nodes {
			v.subscribe("#", 2)
			v.subscribe("$share/g/#", 2)
		}
		s.run(time.Second)
		for i := range 60 {
			s.pick().publish(fmt.Sprintf("t%d/x", i%4), byte(i%3), i%7 == 0, "")
			s.run(time.Duration(s.rng.Int64N(int64(50 * time.Millisecond))))
		}
		s.run(3 * time.Minute)
		for _, v := range s.nodes {
			if g := v.n.Gauges(); g.Epochs > 0 || g.Streams > 0 {
				s.fail("node %d remembers %d epochs for its clients, %d as a rendezvous or a copy", v.i, g.Epochs, g.Streams)
			}
		}
		s.check()
		s.report(seed)
	})
}
