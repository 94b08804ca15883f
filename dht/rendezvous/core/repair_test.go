package core_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// repairTime is within which there are as many copies again as there were: a minute, until a node counts as dead, and what changes
// of sets take.
const repairTime = 75 * time.Second

// TestRepair has one node of five die for good, by a crash or politely, while messages wait for subscribers that are away and
// others are retained. A minute later, registrations, retained messages and lists of children, those of sessions too, are on
// three disks again, and custody is on two; and when another node dies then, again.
func TestRepair(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder = true, true
		s.diskTime = 100 * time.Millisecond
		s.grow(5)
		s.run(8 * time.Second)
		sleeper := s.pick()
		for _, v := range s.nodes {
			v.subscribe([]string{"a/#", "b/#", "+/b"}[s.rng.IntN(3)], 2)
		}
		sleeper.subscribe("#", 2)
		sleeper.subscribe("$session-07/+", 1) // as a node that has a session
		s.run(8 * time.Second)
		sleeper.asleep = true
		publish := func() {
			for range 12 {
				if v := s.pick(); v.alive {
					v.publish(pickTopic(s), byte(1+s.rng.IntN(2)), s.rng.IntN(3) == 0, "v")
					v.publish(fmt.Sprint("$session-07/", s.rng.IntN(4)), 1, true, "claim")
				}
				s.run(time.Duration(s.rng.Int64N(int64(300 * time.Millisecond))))
			}
		}
		publish()
		s.run(8 * time.Second)
		s.checkCopies("before")
		for round := range 2 {
			victims := slices.DeleteFunc(slices.Clone(s.nodes), func(v *simNode) bool { return v == sleeper || !v.alive })
			victim := victims[s.rng.IntN(len(victims))]
			if s.rng.IntN(3) == 0 {
				victim.leaving = true
				victim.do(victim.n.Leave)
			} else {
				victim.crash()
			}
			if s.rng.IntN(2) == 0 {
				publish()
			}
			s.run(repairTime)
			s.checkCopies(fmt.Sprintf("after node %d, %d,", victim.i, round))
			if len(s.errors) > 0 {
				break
			}
		}
		sleeper.wake()
		s.run(30 * time.Second)
		for _, p := range s.published { // what only the dead had may be lost: they do not come back
			p.cut = p.cut || !p.node.alive
		}
		s.check()
		s.report(seed)
	})
}

func pickTopic(s *sim) string {
	return []string{"a/b", "a/c", "b/b", "b/c", "c/b", "c/c"}[s.rng.IntN(6)]
}

// checkCopies counts on the disks of the nodes that live: three of each registration, retained message and child of a list, two of
// what waits for somebody.
func (s *sim) checkCopies(when string) {
	var alive []*simNode
	for _, v := range s.nodes {
		if v.alive {
			alive = append(alive, v)
		}
	}
	three := map[string]int{} // what is to be there three times
	places := map[dht.Location]core.Place{}
	for _, v := range alive {
		for _, w := range v.n.Views() {
			places[w.At] = w.Place
		}
	}
	for _, v := range alive {
		v.disk.safe.journal.Load(func(key string, _ []byte) {
			if key[0] == 'i' || key[0] == 'c' { // interests and children
				at := dht.Location([]byte(key[1 : 1+len(dht.Location{})]))
				three[fmt.Sprintf("%c of %q: %q", key[0], places[at].Prefix, key[1+len(at):])]++
			}
		})
		for at, place := range places {
			v.disk.safe.retained.Match(at, "#", func(k *core.Kept) bool {
				three[fmt.Sprintf("retained of %q: %s %x", place.Prefix, k.Message.Topic, k.Stamp)]++
				return true
			})
		}
	}
	for what, n := range three {
		if want := min(core.SetSize, len(alive)); n < want {
			s.fail("%s there are %d copies of %s, want %d", when, n, what, want)
		}
	}
	for _, p := range s.published {
		if p.m.QoS == 0 || !p.accepted || !p.node.alive || p.missing() == nil {
			continue
		}
		n := 0
		for _, v := range alive {
			v.disk.safe.custody.Load(func(_ core.Identity, m *proto.Message, r *pb.StoredCustody) {
				if string(m.Properties) == string(p.m.Properties) && r != nil {
					n++
				}
			})
		}
		if want := min(2, len(alive)); n < want {
			s.fail("%s %d disks have %s (%s QoS %d retain %v) of node %d, which %s has not got; want %d", when, n, p.id, p.m.Topic, p.m.QoS, p.m.Retain, p.node.i, p.missing(), want)
		}
	}
}
