package core_test

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// fewer is for how many seeds a simulation is run that takes long: some of the others' number, unless that is given.
func fewer() int {
	if *seeds == manySeeds {
		return (manySeeds + 3) / 4
	}
	return *seeds
}

// TestDestroyed destroys one node of five with its disk, while one or two others crash, about then, and come back with theirs:
// what the rendezvous had custody of comes to everybody, and at QoS 2 once. Sessions at the node itself are lost here: the
// core has none.
func TestDestroyed(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder = true, true
		s.diskTime = 100 * time.Millisecond
		s.grow(5)
		s.mixDisks()
		s.run(3 * time.Second)
		focus := core.Place{Prefix: []string{"a", "b", "c"}[s.rng.IntN(3)], Depth: 1} // where the destroyed node has a part
		if s.depth == 2 {
			focus = core.Place{Prefix: focus.Prefix + "/" + []string{"a", "b", "c"}[s.rng.IntN(3)], Depth: 2}
		}
		victim := s.membersOf(focus)[s.rng.IntN(2)]
		for _, v := range s.nodes {
			for _, f := range []string{"#", "a/#", "+/b", "$share/g/a/+"} {
				if s.rng.IntN(2) == 0 && (v != victim || f[0] != '$') { // a shared subscription's message is with its choice
					v.subscribe(f, 2)
				}
			}
		}
		s.run(8 * time.Second)
		last := s.rng.IntN(3)
		for round := range 5 {
			destroyed := round == last
			s.crashSome(focus, victim, destroyed)
			if destroyed {
				s.run(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
				s.join(s.addPeer(victim.id.Peer()))
			}
			s.run(10 * time.Second)
		}
		s.run(90 * time.Second)
		s.checkAll()
		s.report(seed)
	})
}

// mixDisks gives the nodes disks of different speed.
func (s *sim) mixDisks() {
	for _, v := range s.nodes {
		v.disk.most = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, 3 * time.Second}[s.rng.IntN(4)]
	}
}

// TestComesBack has copies come back, from disks of nodes that crash before they have let go of them for good, when a
// subscriber's node has been told that it may forget, and has crashed too: at QoS 2 what came does not come again. The rendezvous,
// which would know, or who holds the copies, may be destroyed, or another may have become it meanwhile.
func TestComesBack(t *testing.T) {
	eachSeed(t, 3*fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder = true, true
		s.diskTime = 100 * time.Millisecond
		s.grow(5)
		s.mixDisks()
		s.run(8 * time.Second)
		pause := func(most time.Duration) { s.run(time.Duration(s.rng.Int64N(int64(most)))) }
		members := s.membersOf(core.Place{Prefix: "a", Depth: 1})
		var others []*simNode
		for _, v := range s.nodes {
			if !slices.Contains(members, v) {
				others = append(others, v)
			}
		}
		publisher, slow := others[0], others[1]
		if s.rng.IntN(4) == 0 {
			publisher = members[s.rng.IntN(3)]
		}
		slow.subscribe("a/#", 2)
		s.run(8 * time.Second)
		slow.crash()
		for range 1 + s.rng.IntN(4) {
			publisher.publish("a/b", 2, false, "v")
		}
		pause(3 * time.Second)  // what is for it is copied
		if s.rng.IntN(2) == 0 { // another serves them
			members[0].crash()
			pause(500 * time.Millisecond)
			if s.rng.IntN(2) == 0 {
				members[0].reboot()
				pause(2 * time.Second)
			}
		}
		slow.reboot()
		pause(4 * time.Second)
		if publisher.alive && s.rng.IntN(2) == 0 {
			publisher.publish("a/b", 2, false, "v") // which says what may be forgotten, too
			pause(2 * time.Second)
		}
		down := []*simNode{slow, members[0], members[1], members[2]}[:3+s.rng.IntN(2)]
		s.rng.Shuffle(len(down), func(i, j int) { down[i], down[j] = down[j], down[i] })
		lost := members[s.rng.IntN(2)]
		for _, v := range down {
			switch {
			case v == lost:
				s.destroy(v)
			case v.alive:
				v.crash()
			}
			pause([]time.Duration{10 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second}[s.rng.IntN(3)])
		}
		s.rng.Shuffle(len(down), func(i, j int) { down[i], down[j] = down[j], down[i] })
		for _, v := range down {
			if v != lost {
				v.reboot()
				pause(2 * time.Second)
			}
		}
		s.join(s.addPeer(lost.id.Peer()))
		s.run(90 * time.Second)
		s.check()
		s.checkNothingLeft()
		s.report(seed)
	})
}

// membersOf returns the nodes that a set is made of, the rendezvous first.
func (s *sim) membersOf(place core.Place) (all []*simNode) {
	var ids []core.NodeID
	for _, v := range s.nodes {
		ids = append(ids, v.id)
	}
	for _, id := range closest(place, ids) {
		all = append(all, s.nodes[slices.Index(ids, id)])
	}
	return all
}

// crashSome has clients publish, and one or two nodes crash that are not to be destroyed, while what they have had is being
// copied, or is over and being forgotten; another is destroyed before, between or after, and they come back. It is mostly about
// one place: its members, and a node that what is published there is for.
func (s *sim) crashSome(focus core.Place, victim *simNode, destroy bool) {
	var down []*simNode
	pause := func(most time.Duration) { s.run(time.Duration(s.rng.Int64N(int64(most)))) }
	soon := []time.Duration{50 * time.Millisecond, 300 * time.Millisecond, time.Second}[s.rng.IntN(3)]
	crash := func(v *simNode) {
		if v != victim && v.alive {
			v.crash()
			down = append(down, v)
		}
	}
	back := func() {
		for _, v := range down {
			v.reboot()
			pause(time.Second)
		}
		down = nil
	}
	some := func(n int) {
		for range n {
			if v := s.pick(); s.rng.IntN(2) == 0 {
				v.publish(focus.Prefix+"/b"[:2*(2-focus.Depth)], byte(1+s.rng.IntN(2)), false, "v")
			} else {
				s.publishOne(v)
			}
		}
	}
	slow, members := s.pick(), s.membersOf(focus) // what is for a slow one is copied
	crash(slow)
	pause(time.Second)
	some(20)
	pause(2500 * time.Millisecond)
	if s.rng.IntN(2) == 0 {
		back()
		pause(2500 * time.Millisecond) // it is over
	}
	some(s.rng.IntN(10))
	at := s.rng.IntN(3)
	for i := range 3 {
		switch {
		case i == at && destroy:
			s.destroy(victim)
		case i == at:
		case s.rng.IntN(3) == 0:
			crash(slow)
		case s.rng.IntN(3) > 0:
			crash(members[s.rng.IntN(len(members))])
		default:
			crash(s.pick())
		}
		pause(soon)
	}
	some(s.rng.IntN(20))
	pause(20 * time.Second)
	back()
}

// destroy ends a node with all that it had. What its clients have published and nobody else is known to keep may come or not,
// and what they subscribed to is over.
func (s *sim) destroy(v *simNode) {
	unkept := map[string]bool{}
	v.n.Unkept(func(m *proto.Message) { unkept[string(m.Properties)] = true })
	v.disk.live.custody.Load(func(_ core.Identity, m *proto.Message, r *pb.StoredCustody) {
		if r.GetOwn() {
			unkept[string(m.Properties)] = true
		}
	})
	v.crash()
	s.note("node %d is destroyed", v.i)
	for _, p := range s.published {
		if p.node == v && unkept[string(p.m.Properties)] && p.custody != core.CustodySwarm {
			p.cut = true
		}
	}
	for _, st := range v.interests {
		st.over = true
	}
	v.disk.safe = newStores()
	v.disk.revert()
}

// TestOwedHandedOver has the holder of copies away while what it has is over, and a rendezvous that has not made them take over.
// It knows who may still have what is over: the subscriber's node is not told that it may forget, until the holder is back.
func TestOwedHandedOver(t *testing.T) {
	eachSeed(t, min(*seeds, 40), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder, s.diskTime = true, true, 10*time.Millisecond
		s.grow(5)
		s.run(8 * time.Second)
		members := s.membersOf(core.Place{Prefix: "a", Depth: 1})
		first, holder := members[0], members[2]
		others := slices.DeleteFunc(slices.Clone(s.nodes), func(v *simNode) bool { return slices.Contains(members, v) })
		publisher, slow := others[0], others[1]
		slow.subscribe("a/#", 2)
		s.run(8 * time.Second)
		members[1].publish("a/b", 2, false, "v") // from now on it is known who serves what
		s.run(3 * time.Second)
		first.crash()
		slow.crash()
		publisher.publish("a/b", 2, false, "v")
		publisher.publish("a/b", 2, false, "v")
		s.run(3 * time.Second) // what is for the slow one is copied
		holder.crash()
		slow.reboot()
		s.run(3 * time.Second)
		first.reboot()
		s.run(3 * time.Second)
		publisher.publish("a/b", 2, false, "v")
		s.run(3 * time.Minute) // the epoch is over
		owed := 0
		first.n.Owed(func(by core.NodeID, _ core.Identity) {
			if by == holder.id {
				owed++
			}
		})
		if owed == 0 && holder.disk.live.custody.Len() > 0 {
			s.fail("node %d does not know that node %d may still have what is over", first.i, holder.i)
		}
		s.apart = func(v, w *simNode) bool { return (v == holder || w == holder) && v != slow && w != slow }
		holder.reboot()
		s.run(5 * time.Second)
		s.apart = nil
		s.connect(holder, first)
		s.run(30 * time.Second)
		s.check()
		s.report(seed)
	})
}

// TestReplaced has a node come in the place of one that is destroyed, as another node, while messages come all the time: they reach everybody
// whose subscription stood when they were published.
func TestReplaced(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}[seed%3])
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder = true, true
		s.diskTime = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond}[seed%2]
		s.unhurried = s.rng.IntN(2) == 0
		s.grow(4 + s.rng.IntN(4))
		s.run(3 * time.Second)
		for _, v := range s.nodes {
			for _, f := range []string{"#", "a/#", "+/b"} {
				if s.rng.IntN(2) == 0 {
					v.subscribe(f, 2)
				}
			}
		}
		s.run(8 * time.Second)
		old := len(s.nodes)
		flow := func(most, every time.Duration) {
			for end := s.now + time.Duration(s.rng.Int64N(int64(most))); s.now < end; {
				if v := s.nodes[s.rng.IntN(old)]; v.alive { // a new one may not have met the swarm yet
					s.publishOne(v)
				}
				s.run(time.Duration(s.rng.Int64N(int64(every))))
			}
		}
		flow(time.Second, 50*time.Millisecond)
		victim := s.nodes[s.rng.IntN(old)]
		s.destroy(victim)
		flow(10*time.Second, 200*time.Millisecond)
		v := s.add()
		v.subscribe("+/z", 2) // alone as it is, it makes sets of its own
		for _, w := range s.nodes {
			s.after(time.Duration(s.rng.Int64N(int64(2*time.Second))), func() { s.connect(v, w) })
		}
		flow(4*time.Second, 20*time.Millisecond)
		if s.rng.IntN(2) == 0 {
			s.run(time.Duration(s.rng.Int64N(int64(70 * time.Second))))
		}
		flow(3*time.Second, 20*time.Millisecond)
		s.run(80 * time.Second)
		if err := s.pick().forget(victim.id.Peer()); err != nil {
			s.fail("%v", err)
		}
		s.run(10 * time.Second)
		s.check()
		s.checkSets()
		s.checkRetained()
		s.report(seed)
	})
}

// cameFrom is a session that was at a node, as a registration names it.
func cameFrom(name string, id core.NodeID) core.SessionInterest {
	return core.SessionInterest{Name: name, From: id.Peer(), Database: binary.BigEndian.Uint64([]byte(id[:8]))}
}

// TestGoesOnWithout: what is for a session at a node that loses its database is kept, and comes to the session where that goes on, there or elsewhere,
// once. What came to it there is not owed by the node that was: it does not come when the session goes on once more.
func TestGoesOnWithout(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder = true, true
		s.diskTime = 100 * time.Millisecond
		s.grow(5)
		s.run(3 * time.Second)
		victim := s.pick()
		victim.subscribe("a/#", 2)
		s.run(8 * time.Second)
		others := slices.DeleteFunc(slices.Clone(s.nodes), func(v *simNode) bool { return v == victim })
		publishers := others
		publish := func(n int) (all []*published) {
			for range n {
				all = append(all, publishers[s.rng.IntN(len(publishers))].publish([]string{"a/x", "a/b/y"}[s.rng.IntN(2)], byte(1+s.rng.IntN(2)), false, "v"))
				s.run(time.Duration(s.rng.Int64N(int64(100 * time.Millisecond))))
			}
			return all
		}
		const name = "$session-00/s"
		goOn := func(v *simNode, without core.NodeID, long time.Duration) {
			from := cameFrom(name, without)
			stands := false
			for _, w := range s.nodes {
				w.session = ""
			}
			v.session = name
			v.do(func() {
				v.n.Register("a/#", core.Interest{Plain: true, QoS: 2, Hold: time.Hour, Sessions: []core.SessionInterest{from}}, func(bool) { stands = true })
				v.n.Arrived(name, []string{"a/#"}, true, nil)
			})
			for end := s.now + 20*time.Second; !stands && s.now < end; { // two that are lost within that time are too many
				s.run(time.Millisecond)
			}
			s.run(long)
		}
		came := func(all []*published, want int) {
			t.Helper()
			for _, p := range all {
				if n := p.took["session/"+name]; n != want {
					s.fail("%s of node %d, published at %v, came to the session %d times, want %d", p.id, p.node.i, p.at-time.Hour, n, want)
				}
			}
		}
		s.destroy(victim)
		missed := publish(20)
		s.run(time.Duration(s.rng.Int64N(int64(90 * time.Second))))
		if s.rng.IntN(2) == 0 {
			missed = append(missed, publish(20)...)
		}
		back := s.addPeer(victim.id.Peer())
		s.join(back)
		if v := s.membersOf(core.Place{Prefix: "a", Depth: 1})[0]; s.rng.IntN(2) == 0 && v != back && v != victim {
			s.run(time.Duration(s.rng.Int64N(int64(5 * time.Second))))
			v.crash()
			s.run(time.Duration(s.rng.Int64N(int64(5 * time.Second))))
			v.reboot()
		}
		missed = append(missed, publish(10)...)
		s.run(time.Duration(s.rng.Int64N(int64(30 * time.Second))))
		came(missed, 0)
		heir := back
		if s.rng.IntN(2) == 0 {
			heir = others[0]
		}
		if heir != back && s.rng.IntN(2) == 0 { // it is lost too, before it is through with that
			heir.asleep = s.rng.IntN(2) == 0
			goOn(heir, victim.id, time.Duration(s.rng.Int64N(int64(time.Second))))
			s.destroy(heir)
			publishers = publishers[1:]
			missed = slices.DeleteFunc(missed, func(p *published) bool { return p.node == heir && s.now-p.at < 5*time.Second }) // nobody else may have it
			if s.rng.IntN(2) == 0 {
				s.join(s.addPeer(heir.id.Peer()))
			}
			s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
			most := 2
			if next := others[1]; s.rng.IntN(2) == 0 { // and so is the one after it, for a while
				most = 3
				next.asleep = s.rng.IntN(2) == 0
				goOn(next, heir.id, time.Duration(s.rng.Int64N(int64(time.Second))))
				next.crash()
				s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
				goOn(others[2], next.id, time.Duration(s.rng.Int64N(int64(20*time.Second))))
				next.reboot() // which may be the only one by now to have some of it
				s.run(time.Minute)
			} else {
				goOn(next, heir.id, time.Minute)
			}
			for _, p := range missed {
				if n := p.took["session/"+name]; n < 1 || n > most {
					s.fail("%s of node %d, published at %v, came to the session %d times", p.id, p.node.i, p.at-time.Hour, n)
				}
			}
			s.report(seed)
			return
		}
		goOn(heir, victim.id, 30*time.Second)
		came(missed, 1)
		after := publish(10)
		s.run(10 * time.Second)
		goOn(others[1], heir.id, 30*time.Second)
		came(missed, 1)
		came(after, 1)
		s.report(seed)
	})
}
