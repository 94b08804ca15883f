package core_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// TestAcknowledgeSwarm destroys any one node of five with its disk right when messages have been acknowledged that wait for a
// second disk: the publisher's, the rendezvous, a replica, or another. Subscribers, of whom one may be away, get all of them. Of
// the others, one may be down.
func TestAcknowledgeSwarm(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder, s.awaited = true, true, true
		s.diskTime = 100 * time.Millisecond
		s.grow(5)
		s.mixDisks()
		s.run(8 * time.Second)
		topic := []string{"a/b", "b/c", "c/a"}[s.rng.IntN(3)]
		place := core.Place{Prefix: topic[:2*s.depth-1], Depth: s.depth}
		members := s.membersOf(place)
		publisher := s.pick()
		others := slices.DeleteFunc(slices.Clone(s.nodes), func(v *simNode) bool { return v == publisher })
		slow, idle := others[s.rng.IntN(2)], others[2+s.rng.IntN(2)]
		slow.subscribe(topic[:2]+"#", 2)
		for _, v := range s.nodes {
			if v != slow && s.rng.IntN(3) == 0 {
				v.subscribe([]string{"#", topic, "+/" + topic[2:]}[s.rng.IntN(3)], 2)
			}
		}
		s.run(8 * time.Second)
		if s.rng.IntN(3) > 0 {
			slow.crash()
		}
		if s.rng.IntN(3) == 0 {
			idle.crash()
		}
		s.run(time.Duration(s.rng.Int64N(int64(8 * time.Second))))
		var all []*published
		for range 1 + s.rng.IntN(5) {
			all = append(all, publisher.publish(topic, byte(1+s.rng.IntN(2)), s.rng.IntN(4) == 0, "v"))
			s.run(time.Duration(s.rng.Int64N(int64(20 * time.Millisecond))))
		}
		wait := all[s.rng.IntN(len(all))]
		for end := s.now + 10*time.Second; !wait.accepted && s.now < end; {
			s.run(100 * time.Microsecond)
		}
		victim := append([]*simNode{publisher, publisher, s.pick()}, members...)[s.rng.IntN(6)]
		if victim != slow && victim != idle {
			s.destroy(victim)
		}
		s.run(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
		for _, v := range []*simNode{slow, idle} {
			if !v.alive {
				v.reboot()
			}
			s.run(time.Duration(s.rng.Int64N(int64(5 * time.Second))))
		}
		if !victim.alive {
			s.join(s.addPeer(victim.id.Peer()))
		}
		s.run(90 * time.Second)
		for _, p := range all {
			if p.accepted && (p.custody == core.CustodyUnasked || p.custody == core.CustodyAwaited) {
				s.fail("%s was acknowledged without a word of who has it", p.id)
			}
		}
		s.check()
		s.checkSets()
		s.report(seed)
	})
}

// TestAcknowledgeSwarmTime: the acknowledgement comes when the copy is made, not after a second, and says so; where nobody else
// can have a copy it comes at once, and says that; where the others do not answer, after 2 s.
func TestAcknowledgeSwarmTime(t *testing.T) {
	publish := func(s *sim, v *simNode) *published {
		p := v.publish("a/b", 1, false, "v")
		for begin := s.now; !p.accepted && s.now < begin+10*time.Second; {
			s.run(time.Millisecond)
		}
		return p
	}
	check := func(s *sim, what string, p *published, want core.CustodyAt, from, to time.Duration) {
		t.Helper()
		if took := s.now - p.at; !p.accepted || p.custody != want || took < from || took > to {
			t.Errorf("%s: acknowledged %v by %d after %v, want by %d after %v to %v", what, p.accepted, p.custody, took, want, from, to)
		}
	}
	for publisher := range 4 {
		s := newSim(t, uint64(publisher), time.Millisecond)
		s.awaited, s.disorder, s.loss, s.diskTime = true, true, true, 10*time.Millisecond
		s.grow(4)
		s.run(8 * time.Second)
		members := s.membersOf(core.Place{Prefix: "a", Depth: 1})
		outside := s.nodes[slices.IndexFunc(s.nodes, func(v *simNode) bool { return !slices.Contains(members, v) })]
		v := append(slices.Clone(members), outside)[publisher]
		w := s.nodes[(v.i+1)%4]
		check(s, "nobody wants it", publish(s, v), core.CustodySwarm, 0, 100*time.Millisecond)
		w.subscribe("a/#", 1)
		s.run(8 * time.Second)
		check(s, "all are there", publish(s, v), core.CustodySwarm, 0, 100*time.Millisecond)
		w.crash()
		s.run(100 * time.Millisecond)
		check(s, "the subscriber is away", publish(s, v), core.CustodySwarm, 0, 100*time.Millisecond)
		for _, x := range s.nodes {
			if x != v && x.alive {
				x.crash()
			}
		}
		check(s, "all others are away", publish(s, v), core.CustodyNode, 0, 20*time.Millisecond)
		for _, x := range s.nodes {
			if !x.alive {
				x.reboot()
			}
		}
		s.run(10 * time.Second)
		check(s, "they are back", publish(s, v), core.CustodySwarm, 0, 100*time.Millisecond)
		w.crash()
		s.run(100 * time.Millisecond)
		s.mute = func(any) bool { return true }
		check(s, "they are silent", publish(s, v), core.CustodyNode, custodyTime, custodyTime+2*tickEvery)
		if n := v.n.Stats().CustodyNode; n != 2 {
			t.Errorf("node %d counted %d messages that it alone has, want 2", publisher, n)
		}
		s.mute = nil
		s.run(20 * time.Second)
		w.reboot()
		s.run(60 * time.Second)
		s.check()
		s.report(uint64(publisher))
	}
}

// custodyTime is how long an acknowledgement waits.
const custodyTime = 2 * time.Second

// TestAcknowledgeWritten has the rendezvous be the only member in reach: its disk counts, and it says so at once, by way of
// another node too.
func TestAcknowledgeWritten(t *testing.T) {
	s := newSim(t, 1, time.Millisecond)
	s.awaited, s.disorder, s.loss, s.diskTime = true, true, true, 10*time.Millisecond
	s.grow(5)
	s.run(8 * time.Second)
	members := s.membersOf(core.Place{Prefix: "a", Depth: 1})
	others := slices.DeleteFunc(slices.Clone(s.nodes), func(v *simNode) bool { return slices.Contains(members, v) })
	v, w := others[0], others[1]
	w.subscribe("a/#", 1)
	s.run(8 * time.Second)
	w.crash()
	members[1].crash()
	members[2].crash()
	s.run(100 * time.Millisecond)
	p := v.publish("a/b", 1, false, "v")
	s.run(100 * time.Millisecond)
	if !p.accepted || p.custody != core.CustodySwarm {
		t.Fatalf("acknowledged %v by %d", p.accepted, p.custody)
	}
	s.destroy(v)
	members[0].crash()
	s.run(time.Second)
	for _, x := range []*simNode{members[0], members[1], members[2], w} {
		x.reboot()
	}
	s.run(60 * time.Second)
	s.check()
	s.report(1)
}
