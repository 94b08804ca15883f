package core_test

import (
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// TestStopsInTheMiddle has a node stop politely that gets no further than to say so. It has registered two filters that match a
// message: one at the message's location for as long as its clients are connected, and one above that is held. What is
// published while it is away comes when it is back.
func TestStopsInTheMiddle(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.loss, s.disorder, s.diskTime = true, true, 10*time.Millisecond
		s.grow(3 + s.rng.IntN(3))
		s.run(3 * time.Second)
		stops, from := s.nodes[0], s.nodes[1]
		level := s.levelOf(s.nodes[2], "middle")
		held := stops.subscribe("+/x", 1)
		stops.do(func() { stops.n.Register(level+"/#", core.Interest{Plain: true, QoS: 1}, nil) })
		s.run(2 * time.Second)
		if !held.promised {
			t.Fatal("no promise")
		}
		stops.do(stops.n.Leave)
		s.run(time.Duration(s.rng.Int64N(int64(100 * time.Millisecond))))
		stops.crash()
		p := from.publish(level+"/x", 1, false, "")
		s.run(time.Duration(5+s.rng.IntN(30)) * time.Second)
		stops.reboot()
		s.run(time.Minute)
		if stops.from[p] != 1 {
			s.fail("node %d got it %d times", stops.i, stops.from[p])
		}
		s.checkNothingLeft()
		s.report(seed)
	})
}

// TestLeavesForgotten has a node stop politely that is a member for a place of which the others, started again since, know nothing any
// more: they let it go.
func TestLeavesForgotten(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.loss, s.disorder = true, true
		s.grow(4)
		s.run(3 * time.Second)
		place := core.Place{Prefix: "a", Depth: 1}
		members := s.membersOf(place)
		members[0].publish("a/x", 1, false, "")
		s.run(3 * time.Second)
		for _, v := range members[:2] {
			v.crash()
			v.reboot()
		}
		s.meet()
		s.run(10 * time.Second)
		if v := members[2].n.ViewOf(place); v.Phase != "standby" {
			return // they have it still
		}
		members[2].stop()
		s.checkStops(4 * time.Second)
		s.report(seed)
	})
}
