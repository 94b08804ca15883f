package core_test

import (
	"encoding/binary"
	"reflect"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"

	"testing"
)

// carriedName is what the swarm calls the session of these tests.
const carriedName = "$session-00/c"

var carriedGroup = proto.Group{Name: "session", Filter: carriedName}

// carry has another node take over what waits at a node, as a session does that goes there.
func (v *simNode) carry(to *simNode) { v.carryAs(to, carriedName) }

func (v *simNode) carryAs(to *simNode, name string) {
	session := proto.Group{Name: "session", Filter: name}
	var ids []core.Identity
	for _, k := range v.disk.live.sortedEntries() {
		if !v.disk.live.entries[k] || k.g != (proto.Group{}) && k.g != session {
			continue
		}
		ids = append(ids, k.id)
		to.do(func() { to.n.TakeUp(k.id, name) })
		p, live := v.s.byID[k.id], to.disk.live.entries
		take := func() {
			if c := to.n.Receipt(k.id); c != nil {
				to.n.Done(c)
			}
		}
		if live[entryKey{k.id, proto.Group{}}] || live[entryKey{k.id, session}] { // it has come there by itself too
			to.do(take)
			continue
		}
		to.queue(p, k.id, []proto.Group{session}, take)
	}
	if len(ids) == 0 {
		return
	}
	life, lifeOf := v.life, to.life
	to.disk.sync(func() {
		if to.life != lifeOf {
			return
		}
		v.doIn(life, func() {
			v.n.Carried(ids, to.id.Peer(), name, time.Hour, func() {
				for _, id := range ids {
					for _, g := range []proto.Group{{}, session} {
						if k := (entryKey{id, g}); v.disk.live.entries[k] {
							v.disk.write(func(to *stores) { to.entries[k] = false })
							if c := v.n.Receipt(id); c != nil {
								v.s.after(0, func() { v.doIn(life, func() { v.n.Done(c) }) })
							}
						}
					}
				}
			})
		})
	})
}

// TestCarried: what waits for a session goes with it to another node, and on to a third. It comes to the session there, once; and where the
// session's node is destroyed, it comes where the session goes on, whatever crashed while it was on its way.
func TestCarried(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder = true, true
		s.diskTime = 100 * time.Millisecond
		s.grow(6)
		s.run(3 * time.Second)
		nodes := slices.Clone(s.nodes)
		s.rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		from, to, last, publishers := nodes[0], nodes[1], nodes[2], nodes[3:]
		pause := func(most time.Duration) { s.run(time.Duration(s.rng.Int64N(int64(most)))) }
		var sent []*published
		publish := func() {
			for range 10 {
				sent = append(sent, publishers[s.rng.IntN(len(publishers))].publish([]string{"a/x", "a/b/y"}[s.rng.IntN(2)], byte(1+s.rng.IntN(2)), false, "v"))
				pause(100 * time.Millisecond)
			}
		}
		from.asleep = true
		from.subscribe("a/#", 2)
		s.run(8 * time.Second)
		publish()
		pause(3 * time.Second)
		for range 1 + s.rng.IntN(2) {
			publish()
			to.asleep = true
			to.subscribe("a/#", 2)
			s.stands = s.stands[:len(s.stands)-1] // what it gets may come by the other
			pause(200 * time.Millisecond)
			if s.rng.IntN(2) == 0 {
				publish()
			}
			from.carry(to)
			pause(200 * time.Millisecond)
			if v := s.membersOf(core.Place{Prefix: "a", Depth: 1})[s.rng.IntN(2)]; s.rng.IntN(2) == 0 && v != to {
				v.crash()
				pause(10 * time.Second)
				v.reboot()
			}
			s.run(12 * time.Second)
			from.unsubscribe("a/#")
			s.run(8 * time.Second)
			from.carry(to) // what has come meanwhile, or had not been taken
			s.run(20 * time.Second)
			from, to = to, from
		}
		to = from
		if s.rng.IntN(2) == 0 {
			to.wake()
			s.run(30 * time.Second)
			for _, p := range sent {
				if n := to.from[p] + p.took["session/"+carriedName]; n != 1 {
					s.fail("%s of node %d (QoS %d), published at %v, came to the session %d times", p.id, p.node.i, p.m.QoS, p.at-time.Hour, n)
				}
			}
			s.checkNothingLeft()
			s.report(seed)
			return
		}
		s.destroy(to)
		pause(90 * time.Second)
		last.subscribe("a/#", 2)
		with := core.SessionInterest{Name: carriedName, From: to.id.Peer(), Database: binary.BigEndian.Uint64([]byte(to.id[:8]))}
		last.do(func() {
			last.n.Register("a/#", core.Interest{Plain: true, QoS: 2, Hold: time.Hour, Sessions: []core.SessionInterest{with}}, nil)
			last.n.Arrived(carriedName, []string{"a/#"}, true, nil)
		})
		s.run(time.Minute)
		for _, p := range sent {
			if n := last.from[p] + p.took["session/"+carriedName]; n != 1 {
				s.fail("%s of node %d (QoS %d), published at %v, came to the session %d times", p.id, p.node.i, p.m.QoS, p.at-time.Hour, n)
			}
		}
		s.report(seed)
	})
}

// TestCrossed: of two sessions that a message waits for each goes to where the other was, while the message is kept for a node that is away. Both nodes
// tell where a session has gone whenever they are asked about the message; that is no reason to ask the other one again.
func TestCrossed(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.diskTime = 100 * time.Millisecond
		s.grow(6)
		s.run(3 * time.Second)
		s.pick().publish("a/x", 1, false, "v")
		s.run(3 * time.Second)
		in, out := s.members(core.Place{Prefix: "a", Depth: 1})
		a, b, away := out[0], out[1], out[2]
		for _, v := range []*simNode{a, b, away} {
			v.asleep = true
			v.subscribe("a/#", 2)
		}
		s.stands = nil // what one gets may come by another
		s.run(8 * time.Second)
		away.crash()
		for range 10 {
			in[0].publish("a/x", byte(1+s.rng.IntN(2)), false, "v")
		}
		s.run(5 * time.Second)
		a.carryAs(b, carriedName)
		s.run(10 * time.Second)
		b.carryAs(a, "$session-00/d")
		s.run(10 * time.Second)
		for _, v := range []*simNode{a, b} { // who has custody asks anew
			s.cut(v)
			s.run(time.Second)
			s.rejoin(v)
			s.run(5 * time.Second)
		}
		told := reflect.TypeFor[*pb.Carried]()
		before := s.frames[told]
		a.wake()
		b.wake()
		s.run(2 * time.Minute)
		if n := s.frames[told] - before; n > 40 {
			s.fail("two nodes have told %d times where 10 messages have gone", n)
		}
		away.reboot()
		away.wake()
		s.run(30 * time.Second)
		s.checkNothingLeft()
		s.report(seed)
	})
}

// TestMovesWhileCutOff: a session goes to another node while both are out of reach of the rendezvous. The node that it was at takes what is
// for it as long as nodes are missing: what was published meanwhile comes to one of the two.
func TestMovesWhileCutOff(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder, s.uneven = true, true, seed%2 == 0
		s.diskTime = 100 * time.Millisecond
		s.grow(6)
		s.run(3 * time.Second)
		s.pick().publish("a/x", 1, false, "v")
		s.run(3 * time.Second)
		in, out := s.members(core.Place{Prefix: "a", Depth: 1})
		s.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
		from, to := out[0], out[1]
		publishers := append(in, out[2:]...)
		from.subscribe("a/#", 2)
		from.session = carriedName
		s.run(8 * time.Second)
		side := func(v *simNode) bool { return v == from || v == to }
		s.apart = func(v, w *simNode) bool { return side(v) != side(w) }
		for _, v := range publishers {
			s.disconnect(v, from)
			s.disconnect(v, to)
		}
		var sent []*published
		publish := func() {
			for range 10 {
				p := publishers[s.rng.IntN(len(publishers))].publish([]string{"a/x", "a/b/y"}[s.rng.IntN(2)], byte(1+s.rng.IntN(2)), false, "v")
				p.due = nil // either of the two
				sent = append(sent, p)
				s.run(time.Duration(s.rng.Int64N(int64(100 * time.Millisecond))))
			}
		}
		publish()
		s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
		register := func(v *simNode, i core.Interest, done func()) {
			var again func(bool)
			again = func(local bool) {
				if !local {
					done()
					return
				}
				s.after(2*time.Second, func() { v.do(func() { v.n.Register("a/#", i, again) }) })
			}
			v.do(func() { v.n.Register("a/#", i, again) })
		}
		to.do(func() { to.n.Arrived(carriedName, []string{"a/#"}, false, nil) })
		to.session = carriedName
		register(to, core.Interest{Plain: true, QoS: 2, Hold: time.Hour}, func() {
			delete(from.interests, "a/#")
			var end func()
			end = func() {
				if from.n.Missing() {
					s.after(5*time.Second, end)
					return
				}
				from.session = ""
			}
			register(from, core.Interest{}, func() { s.after(time.Second, end) })
		})
		publish()
		s.run(time.Duration(s.rng.Int64N(int64(3 * time.Minute))))
		publish()
		s.apart = nil
		s.meet()
		s.run(time.Minute)
		for _, p := range sent {
			if p.took["session/"+carriedName] == 0 {
				s.fail("%s of node %d (QoS %d), published at %v, did not come to the session", p.id, p.node.i, p.m.QoS, p.at-time.Hour)
			}
		}
		s.checkNothingLeft()
		s.report(seed)
	})
}
