package core_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// TestMatchedIsNotSettled cuts one node off, publishes at it, and joins it again: what it had matched with too
// few members reaches the subscriptions of the others that stood by then, once, and not those made later.
func TestMatchedIsNotSettled(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.depth = 1 + int(seed%2)
		n := 2 + s.rng.IntN(3)
		for i := range n {
			v := s.add()
			if i > 0 {
				s.connect(v, s.nodes[0])
			}
		}
		s.run(3 * time.Second)
		cut := s.nodes[s.rng.IntN(n)]
		other := s.nodes[(cut.i+1)%n]
		before := other.subscribe("a/#", 1)
		s.run(time.Second)
		if !before.promised {
			t.Fatal("no promise in a whole swarm")
		}
		for _, v := range s.nodes {
			s.disconnect(cut, v)
		}
		s.run(7 * time.Second)
		alone := cut.subscribe("a/+", 1)
		s.run(3 * time.Second)
		if alone.promised {
			s.fail("node %d, cut off, promises for the swarm", cut.i)
		}
		during := other.subscribe("a/b/#", 2)
		s.run(3 * time.Second)
		first := cut.publish("a/b", 1, false, "")
		second := cut.publish("a/b", 2, false, "")
		third := other.publish("a/b", 1, false, "")
		s.run(3 * time.Second)
		for _, v := range s.nodes {
			if v != cut {
				s.connect(cut, v)
			}
		}
		s.run(time.Second)
		late := s.nodes[(cut.i+2)%n]
		if late != cut {
			late.subscribe("+/b", 1)
		}
		s.run(80 * time.Second) // copies that are not needed are found within a minute
		for _, p := range []*published{first, second} {
			if other.from[p] != 1 {
				s.fail("%s, published while cut off, came %d times to subscriptions made before (promised: %v) and during it (%v)",
					p.id, other.from[p], before.promised, during.promised)
			}
		}
		// A majority has settled what was published there: it owes nothing to what was promised locally elsewhere.
		// Of two nodes, neither is one.
		if n == 2 && cut.from[third] != 1 {
			s.fail("%s came %d times to the node that was cut off", third.id, cut.from[third])
		}
		if late != cut && late.from[first]+late.from[second] > 0 {
			s.fail("what was published before reached a subscription made after the swarm was whole again")
		}
		s.checkSets()
		s.checkNothingLeft()
		s.report(seed)
	})
}

// TestSaysThatItHasIt cuts a node off that publishes, so that it takes custody of its own messages as far as it can tell whom they are
// for. Where it then sends them to the rendezvous of the others, it says that it has them: they may come from there as well.
func TestSaysThatItHasIt(t *testing.T) {
	var said atomic.Int64
	t.Cleanup(func() {
		if said.Load() == 0 && !t.Failed() && *seeds >= 200 { // it is seldom that there is a reason
			t.Error("nothing was said at all")
		}
	})
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder = true, true
		s.grow(3 + int(seed%2))
		s.run(3 * time.Second)
		for _, v := range s.nodes {
			v.subscribe("#", 2)
		}
		s.run(5 * time.Second)
		v := s.pick()
		v.publish("a/before", 2, false, "v")
		s.run(time.Second)
		s.cut(v)
		for i := range 10 {
			v.publish(fmt.Sprint("a/", i), 2, false, "v")
		}
		s.run(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
		s.mute = func(frame any) bool {
			f, is := frame.(*proto.Publish)
			if !is || f.Hops > 0 || !strings.Contains(v.n.Kept(), fmt.Sprintf("%q left", f.Message.Properties)) {
				return false
			}
			if said.Add(1); !slices.Contains(f.Before, string(v.id)) {
				s.fail("%q goes to another rendezvous, said to be at %q", f.Message.Properties, f.Before)
			}
			return false
		}
		s.rejoin(v)
		s.run(30 * time.Second)
		s.check()
		s.checkNothingLeft()
		s.report(seed)
	})
}
