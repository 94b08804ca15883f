package core_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// TestSharedNodeDies has a node die, for long or for good, with messages of a shared subscription that its clients have not
// acknowledged, while the rendezvous, which may be that node, may crash: two minutes later others of the group have all of QoS 1.
// What is of QoS 2 stays with its choice, and comes once.
func TestSharedNodeDies(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder, s.diskTime = true, true, 20*time.Millisecond
		s.depth = 1 + int(seed%2)
		s.grow(5)
		s.run(8 * time.Second)
		pause := func(most time.Duration) { s.run(time.Duration(s.rng.Int64N(int64(most)))) }
		members := s.membersOf(core.Place{Prefix: "a/b"[:2*s.depth-1], Depth: s.depth})
		lost := s.nodes[s.rng.IntN(len(s.nodes))]
		if s.rng.IntN(3) == 0 {
			lost = members[s.rng.IntN(2)]
		}
		group := map[*simNode]bool{lost: true}
		for len(group) < 2+s.rng.IntN(2) {
			group[s.pick()] = true
		}
		for _, v := range s.nodes {
			if group[v] {
				v.subscribe("$share/g/a/#", 2)
			}
			if s.rng.IntN(3) == 0 {
				v.subscribe("a/+", 2) // some of what it has is for it alone
			}
		}
		s.run(8 * time.Second)
		lost.asleep = true
		how := s.rng.IntN(4)
		// mayLack has the group do without a message: where its session is over, nobody else may get it.
		mayLack := func(p *published) {
			if p.m.QoS == 2 && how > 0 {
				p.due = slices.DeleteFunc(p.due, func(st *standing) bool { return st.group != "" })
			}
		}
		some := func(n int) {
			for range n {
				if v := s.nodes[s.rng.IntN(5)]; v.alive && v != lost { // no new one: it may be a swarm of its own still
					p := v.publish("a/b", byte(1+s.rng.IntN(2)), false, "v")
					if !slices.ContainsFunc(s.nodes, func(v *simNode) bool { return group[v] && v.alive }) {
						mayLack(p) // any of those that are away is picked
					}
				}
				pause(20 * time.Millisecond)
			}
		}
		some(30)
		pause(3 * time.Second) // what nobody has acknowledged is copied
		if how == 1 || how == 2 {
			s.destroy(lost)
		} else {
			lost.crash()
		}
		began := s.now
		for _, p := range s.published {
			mayLack(p)
		}
		some(10)
		back := func() {
			if how == 2 {
				s.join(s.addPeer(lost.id.Peer()))
			}
		}
		if s.rng.IntN(2) == 0 {
			pause(5 * time.Second)
			back()
			back = func() {}
		}
		if how == 3 {
			pause(20 * time.Second)
			if by := s.pick(); by.forget(lost.id.Peer()) != nil {
				s.fail("node %d cannot forget node %d", by.i, lost.i)
			}
			s.run(time.Second) // who crashes before that is on its disk does not know it
		}
		if r := members[0]; s.rng.IntN(2) == 0 {
			if r == lost {
				r = members[1]
			}
			pause([]time.Duration{time.Second, 65 * time.Second}[s.rng.IntN(2)])
			if s.rng.IntN(2) == 0 { // just when it gives them to others
				s.run(max(0, began+time.Minute-s.now))
				pause(3 * time.Second)
			}
			r.crash()
			some(5)
			pause(10 * time.Second)
			r.reboot()
		}
		s.run(2 * time.Minute)
		for _, p := range s.published {
			if p.m.QoS == 1 && p.groups["g/a/#"] && p.took["g/a/#"] == 0 {
				s.fail("nobody of the group has %s, case %d", p.id, how)
			}
		}
		if back(); how == 0 {
			lost.reboot()
		}
		s.run(10 * time.Second)
		lost.wake()
		s.run(90 * time.Second)
		for _, p := range s.published {
			// A rendezvous that crashes while its choice is being copied, or is not settled, may come back with another's made meanwhile.
			if p.m.QoS == 2 && p.took["g/a/#"] > 1 && p.at < began-time.Second {
				s.fail("the group has %s %d times, case %d", p.id, p.took["g/a/#"], how)
			}
		}
		s.check()
		if how == 0 || how == 2 { // else what is for it waits, where somebody does not know that it is forgotten
			s.checkSets()
			s.checkNothingLeft()
		}
		s.report(seed)
	})
}

// sharing is a swarm with a shared subscription at nodes that are not responsible for its place, with clients that are away.
type sharing struct {
	*sim
	members, group []*simNode // the rendezvous first
	all            []*published
}

var sharedGroup = proto.Group{Name: "g", Filter: "a/#"}

func newSharing(t *testing.T, seed uint64) *sharing { return newSharingOf(t, seed, 3) }

// newSharingOf has members at some of the three nodes alone, until share is called with the others.
func newSharingOf(t *testing.T, seed uint64, members int) *sharing {
	s := &sharing{sim: newSim(t, seed, 3*time.Millisecond)}
	s.loss, s.disorder, s.diskTime = true, true, 20*time.Millisecond
	s.grow(6)
	s.run(8 * time.Second)
	s.members = s.membersOf(core.Place{Prefix: "a", Depth: 1})
	for _, v := range s.nodes {
		if !slices.Contains(s.members, v) {
			s.group = append(s.group, v)
		}
	}
	s.share(s.group[:members])
	return s
}

func (s *sharing) share(nodes []*simNode) {
	for _, v := range nodes {
		v.subscribe("$share/g/a/#", 2)
		v.asleep = true
	}
	s.run(8 * time.Second)
}

func (s *sharing) publish(n int, qos byte) {
	for range n {
		s.all = append(s.all, s.members[2].publish("a/b", qos, false, "v"))
		s.run(10 * time.Millisecond)
	}
	s.run(3 * time.Second) // they are copied
}

// chosenAt is how many messages a node has in custody for the group's members at another.
func (s *sharing) chosenAt(at, v *simNode) (n int) {
	at.n.Chosen(sharedGroup, func(_ *proto.Message, node core.NodeID) {
		if node == v.id {
			n++
		}
	})
	return n
}

// come checks that all messages have come, and no more often than they may.
func (s *sharing) come(most int) {
	for _, v := range s.group {
		v.wake()
	}
	s.run(30 * time.Second)
	for _, p := range s.all {
		if n := p.took["g/a/#"]; n < 1 || n > most {
			s.fail("the group has %s %d times", p.id, n)
		}
	}
}

// TestSharedMovesInCopies: who has second copies hears which other member gets a message, at once or, where it was away then, when it
// is back, so that a new rendezvous knows it.
func TestSharedMovesInCopies(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSharing(t, seed)
		lost, rendezvous, holder := s.group[0], s.members[0], s.members[1]
		s.publish(12, 1)
		was := s.chosenAt(holder, lost)
		if was == 0 || was == len(s.all) || s.chosenAt(rendezvous, lost) != was {
			return // it has no part, or all of it
		}
		lost.crash()
		away := s.rng.IntN(2) == 0
		if s.run(50 * time.Second); away {
			s.cut(holder)
		}
		s.run(20 * time.Second)
		if n := s.chosenAt(rendezvous, lost); n > 0 {
			s.fail("after a minute %d messages are still for who is dead", n)
		}
		if away {
			if n := s.chosenAt(holder, lost); n != was {
				s.fail("who cannot be told has %d messages for who is dead, not %d", n, was)
			}
			s.rejoin(holder)
			s.run(5 * time.Second)
		}
		if n := s.chosenAt(holder, lost); n > 0 {
			s.fail("%d copies are still for who is dead", n)
		}
		rendezvous.crash()
		s.run(5 * time.Second)
		if n, m := s.chosenAt(holder, s.group[1]), s.chosenAt(holder, s.group[2]); n+m != len(s.all) {
			s.fail("the new rendezvous has %d and %d messages for the others, not %d", n, m, len(s.all))
		}
		s.group = s.group[1:]
		most := 1
		if away { // for a moment it may have taken itself for the rendezvous, and have met one other
			most = 2
		}
		s.come(most)
		s.report(seed)
	})
}

// TestSharedMovesBeforeItsReturn has a rendezvous come back that was away while another gave messages to other members: it hears that from
// that one, or, where that has crashed, from a third, also of what they are through with.
func TestSharedMovesBeforeItsReturn(t *testing.T) {
	eachSeed(t, 2*fewer(), func(t *testing.T, seed uint64) {
		s := newSharing(t, seed)
		lost, rendezvous, second := s.group[0], s.members[0], s.members[1]
		lost.subscribe("a/+", 1) // so that the messages are not over
		s.run(3 * time.Second)
		s.publish(12, 1)
		if s.chosenAt(rendezvous, lost) == 0 {
			return
		}
		lost.crash()
		s.run(40 * time.Second)
		rendezvous.crash() // for less than a minute, so that it stays a member
		if s.rng.IntN(2) == 0 {
			s.group[1].wake()
			s.group[2].wake()
		}
		s.run(25 * time.Second)
		if n := s.chosenAt(second, lost); n > 0 {
			s.fail("after a minute %d messages are still for who is dead", n)
		}
		if s.rng.IntN(2) == 0 {
			second.crash()
		}
		rendezvous.reboot()
		s.run(5 * time.Second)
		if n := s.chosenAt(rendezvous, lost); n > 0 {
			s.fail("%d messages are for who is dead again", n)
		}
		s.group = s.group[1:]
		s.come(1)
		s.report(seed)
	})
}

// TestSharedGoesWithTheSession: where a session has been resumed that was at the node that is dead, what that was to have goes to where the
// session is now.
func TestSharedGoesWithTheSession(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSharing(t, seed)
		lost, heir := s.group[0], s.group[1+s.rng.IntN(2)]
		s.publish(20, 1)
		n, had := s.chosenAt(s.members[0], lost), s.chosenAt(s.members[0], heir)
		lost.crash()
		s.run(10 * time.Second)
		heir.do(func() {
			heir.n.Register("a/#", core.Interest{Groups: []core.GroupInterest{{Name: "g", Members: 1, QoS: 2, Online: true}}, Hold: time.Hour, QoS: 2,
				Sessions: []core.SessionInterest{{Name: "session/of", From: lost.id.Peer()}}}, nil)
		})
		s.run(65 * time.Second)
		if now := s.chosenAt(s.members[0], heir); now != had+n {
			s.fail("of %d messages %d are for where the session is", n, now-had)
		}
		s.group = s.group[1:]
		s.come(1)
		s.report(seed)
	})
}

// TestSharedQoS2Unsent [MQTT-4.8.2-5]: what nobody can have had at QoS 2 goes to another member when the node that was picked is gone for good, and
// not before; what was sent to it does not.
func TestSharedQoS2Unsent(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSharingOf(t, seed, 1)
		lost, r := s.group[0], s.members[0]
		s.publish(10, 2)
		sent := s.chosenAt(r, lost)
		lost.crash()
		s.publish(20, 2) // there is nobody to be sent it
		unsent := s.chosenAt(r, lost) - sent
		s.share(s.group[1:])
		s.run(2 * time.Minute)
		if n := s.chosenAt(r, lost); n != sent+unsent {
			s.fail("%d messages are for who may come back, not %d", n, sent+unsent)
		}
		if err := r.forget(lost.id.Peer()); err != nil {
			s.fail("%v", err)
		}
		s.run(5 * time.Second)
		for _, v := range s.group {
			if n, m := s.chosenAt(r, v), s.chosenAt(s.members[1], v); n != m {
				s.fail("for node %d there are %d messages and %d copies", v.i, n, m)
			}
		}
		for _, v := range s.group[1:] {
			v.wake()
		}
		s.run(30 * time.Second)
		lacks := 0
		for _, p := range s.all {
			switch n := p.took["g/a/#"]; {
			case n > 1:
				s.fail("the group has %s %d times", p.id, n)
			case n == 0:
				lacks++
			}
		}
		if lacks != sent {
			s.fail("the group lacks %d messages, of which %d were sent to who is gone", lacks, sent)
		}
		s.report(seed)
	})
}

// TestSharedNobodyThere: what is published at QoS 2 while no node with members is in reach is for one of those that come back, and none of it
// for one that does not.
func TestSharedNobodyThere(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSharing(t, seed)
		lost := s.group[0]
		for _, v := range s.group {
			v.crash()
		}
		s.publish(20, 2)
		for _, v := range s.group {
			if n := s.chosenAt(s.members[0], v); n > 0 {
				s.fail("%d messages are for node %d, which is out of reach", n, v.i)
			}
		}
		if s.rng.IntN(2) == 0 {
			s.members[0].crash()
			s.run(10 * time.Second)
			s.members[0].reboot()
			s.run(10 * time.Second)
		}
		for _, v := range s.group[1:] {
			v.reboot()
			s.run(time.Duration(s.rng.Int64N(int64(5 * time.Second))))
		}
		s.run(10 * time.Second)
		s.group = s.group[1:]
		s.come(1)
		lost.reboot()
		s.run(10 * time.Second)
		lost.wake()
		s.run(30 * time.Second)
		s.come(1)
		s.checkNothingLeft()
		s.report(seed)
	})
}

// TestSharedRefusedLate: who comes back, and has no member of the group any more, refuses what another has: nobody else gets it.
func TestSharedRefusedLate(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSharing(t, seed)
		lost, r := s.group[0], s.members[0]
		s.publish(12, 1)
		var receipts []*core.Receipt
		for k, open := range lost.disk.live.entries {
			if c := lost.n.Receipt(k.id); open && c != nil {
				receipts = append(receipts, c)
			}
		}
		s.cut(lost)
		s.run(70 * time.Second)
		n, m := s.chosenAt(r, s.group[1]), s.chosenAt(r, s.group[2])
		s.rejoin(lost)
		s.run(3 * time.Second)
		for _, c := range receipts {
			lost.do(func() { lost.n.Refuse(c, sharedGroup); lost.n.Done(c) })
		}
		s.run(3 * time.Second)
		if a, b := s.chosenAt(r, s.group[1]), s.chosenAt(r, s.group[2]); n+m != len(s.all) || a != n || b != m {
			s.fail("of %d messages %d and %d are for the others, and %d and %d when a third has refused %d", len(s.all), n, m, a, b, len(receipts))
		}
		s.group = s.group[1:]
		s.come(1)
		s.report(seed)
	})
}

// TestSharedMemberLeft: where a member goes away from its node while that is down, what waits for the node goes to another member when it
// is back, at QoS 2 too: nobody was sent it.
func TestSharedMemberLeft(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSharingOf(t, seed, 1)
		lost := s.group[0]
		lost.crash()
		s.publish(20, byte(1+seed%2))
		if s.chosenAt(s.members[0], lost) == 0 {
			s.fail("of 20 messages none is for node %d", lost.i)
		}
		s.share(s.group[1:])
		delete(lost.interests, "$share/g/a/#")
		lost.reboot()
		s.run(5 * time.Second)
		s.group = s.group[1:]
		s.come(1)
		s.checkNothingLeft()
		s.report(seed)
	})
}
