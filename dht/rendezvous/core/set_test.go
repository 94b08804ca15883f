package core_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// members returns the nodes that are in the set of a place, and the others.
func (s *sim) members(place core.Place) (in, out []*simNode) {
	set := s.nodes[0].n.ViewOf(place).Set
	for _, v := range s.nodes {
		if slices.Contains(set.Members, v.id) {
			in = append(in, v)
		} else {
			out = append(out, v)
		}
	}
	return in, out
}

// TestSetDies kills all of a set at once, a first level's or the root's. A minute later the others make another one, though
// nothing else happens: what they subscribe to there is promised, and reaches them, by way of those who inherit it too.
func TestSetDies(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.forgets = true, true
		s.grow(7)
		s.run(3 * time.Second)
		place, filter := core.Place{}, "+/%s"
		if seed%2 == 0 {
			place, filter = core.Place{Prefix: "p0", Depth: 1}, "p0/%s"
		}
		use := func(name string) {
			var made []*standing
			for _, v := range s.nodes {
				if v.alive {
					made = append(made, v.subscribe(fmt.Sprintf(filter, name), 1))
				}
			}
			s.run(20 * time.Second)
			for i, st := range made {
				if !st.promised {
					s.fail("node %d: %q is not promised", st.node.i, st.filter)
				}
				st.node.publish(fmt.Sprintf("p0/%s", name), 1, false, "v")
				st.node.publish(fmt.Sprintf("p%d/%s", i, name), 1, false, "v")
			}
			s.run(20 * time.Second)
		}
		use("before")
		in, _ := s.members(place)
		for _, v := range in {
			v.alive = false
			for _, w := range s.nodes {
				s.disconnect(v, w)
			}
		}
		s.run(deadAfter + 10*time.Second)
		use("after")
		s.check()
		s.report(seed)
	})
}

// deadAfter is how long a node is out of reach before others replace it.
const deadAfter = time.Minute

// TestSeesNoMember has a node reach nobody of a set, and one node that does. The set is dead to it, but the other says that it
// stands. So what it publishes goes by way of that one, it makes no set of its own, and does not go on asking.
func TestSeesNoMember(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder = true, true
		s.grow(5)
		s.run(3 * time.Second)
		for _, v := range s.nodes {
			v.subscribe("a/#", 1)
		}
		s.run(3 * time.Second)
		in, out := s.members(core.Place{Prefix: "a", Depth: 1})
		far, near := out[0], out[1]
		s.apart = func(v, w *simNode) bool { return (v == far || w == far) && v != near && w != near }
		for _, v := range in {
			s.disconnect(far, v)
		}
		s.run(deadAfter + 10*time.Second)
		asked := s.frames[reflect.TypeFor[*pb.Found]()]
		for range 60 {
			far.publish("a/x", 1, false, "v")
			s.run(time.Second)
		}
		if asked = s.frames[reflect.TypeFor[*pb.Found]()] - asked; asked > 60 {
			s.fail("a set was asked for %d times in a minute", asked)
		}
		s.run(20 * time.Second)
		for _, p := range s.published {
			for _, v := range in {
				if v.from[p] != 1 {
					s.fail("node %d got %s %d times", v.i, p.id, v.from[p])
				}
			}
		}
		s.apart = nil
		for _, v := range in {
			s.connect(far, v)
		}
		s.run(80 * time.Second)
		s.check()
		s.checkSets()
		s.report(seed)
	})
}

// TestAnswersWhileCut cuts two nodes off from all who would be in the set of a place where nothing is yet. They reach one another,
// and each takes the other to be nearer to the set. Their clients are answered nevertheless: what they subscribe to holds for the nodes
// in reach, what they publish waits.
func TestAnswersWhileCut(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder = true, true
		s.grow(5)
		s.run(3 * time.Second)
		in, out := s.members(core.Place{Prefix: "a", Depth: 1})
		side := map[*simNode]bool{out[0]: true, out[1]: true}
		s.apart = func(v, w *simNode) bool { return side[v] != side[w] }
		for _, v := range in {
			s.disconnect(out[0], v)
			s.disconnect(out[1], v)
		}
		s.run(time.Duration(s.rng.Int64N(int64(30 * time.Second))))
		answered := 0
		for _, v := range out {
			v.subscribe("a/#", 1)
			v.do(func() {
				v.n.Register("a/+", core.Interest{Plain: true, QoS: 1}, func(local bool) {
					if answered++; !local {
						s.fail("node %d promises what it can't", v.i)
					}
				})
			})
			v.publish("a/x", 2, true, "v")
		}
		s.run(3 * time.Second)
		if answered != len(out) {
			s.fail("%d of %d subscriptions are answered", answered, len(out))
		}
		for _, p := range s.published {
			if !p.accepted {
				s.fail("what node %d published is not acknowledged", p.node.i)
			}
		}
		s.apart = nil
		s.meet()
		s.run(80 * time.Second)
		s.check()
		s.checkSets()
		s.report(seed)
	})
}

// TestProposalOfOneGone has members accept a set with a node that is gone for good before anybody can say that it stands. It may
// stand, so it has to be carried through, and replaced in its turn: a place must not be left with a set that nothing can change.
func TestProposalOfOneGone(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.forgets, s.disorder = true, true, true
		s.grow(6)
		s.run(3 * time.Second)
		for _, v := range s.nodes {
			v.subscribe("a/#", 1)
		}
		s.run(8 * time.Second)
		place := core.Place{Prefix: "a", Depth: 1}
		in, _ := s.members(place)
		s.mute = func(f any) bool { _, is := f.(*pb.Accepted); return is }
		away := in[s.rng.IntN(len(in))]
		away.crash()
		s.run(deadAfter + 5*time.Second)
		for _, v := range s.nodes { // who was to come in
			if v.alive && v.n.ViewOf(place).Phase == "filling" {
				s.note("node %d is gone", v.i)
				v.crash()
			}
		}
		s.run(time.Second)
		s.mute = nil
		s.run(2*deadAfter + 10*time.Second)
		for _, v := range s.nodes { // other sets may have no majority
			set := v.n.ViewOf(place).Set
			for _, w := range s.nodes {
				if v.alive && !w.alive && slices.Contains(set.Members, w.id) {
					s.fail("node %d still has node %d in %s", v.i, w.i, s.show(set))
				}
			}
		}
		s.report(seed)
	})
}

// TestPromiseWhileSetChanges subscribes at the root's rendezvous, and publishes as soon as that is promised, while nodes join that take the
// place of others in the root's set: those serve locations still, and have to know of it.
func TestPromiseWhileSetChanges(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.loss, s.uneven = true, true
		s.grow(4)
		s.run(3 * time.Second)
		k := 0
		for range 6 {
			s.join(s.add())
			for range 12 {
				st := s.pick().subscribe(fmt.Sprintf("+/%d", k), 1)
				for end := s.now + time.Second; !st.promised && s.now < end; {
					s.run(200 * time.Microsecond)
				}
				for i := range 3 {
					s.pick().publish(fmt.Sprintf("%c/%d", 'a'+i, k), 1, false, "")
				}
				k++
			}
			s.run(2 * time.Second)
		}
		s.run(20 * time.Second)
		s.check()
		s.checkSets()
		s.report(seed)
	})
}
