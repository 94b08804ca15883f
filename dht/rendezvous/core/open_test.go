package core_test

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// TestKeptForOthers: a node has messages that wait for one of two sessions, or, of some, for both. When it is destroyed, each session gets
// where it goes on what it was not through with, whichever others were restarted or destroyed before that, or had it in custody.
func TestKeptForOthers(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder = true, true
		s.diskTime = 100 * time.Millisecond
		s.grow(5)
		s.run(3 * time.Second)
		victim := s.pick()
		victim.subscribe("a/#", 2)
		victim.asleep = true
		s.run(8 * time.Second)
		others := slices.DeleteFunc(slices.Clone(s.nodes), func(v *simNode) bool { return v == victim })
		first, publishers := others[3], others[:3]
		const had, away = "$session-00/had", "$session-00/away"
		wants := map[*published][2]int{} // by had, and by away
		publish := func(n int, had int) (ids []core.Identity) {
			all := map[*published]bool{}
			for range n {
				p := publishers[s.rng.IntN(len(publishers))].publish([]string{"a/x", "a/b/y"}[s.rng.IntN(2)], byte(1+s.rng.IntN(2)), false, "v")
				all[p], wants[p] = true, [2]int{had, 1}
				s.run(time.Duration(s.rng.Int64N(int64(100 * time.Millisecond))))
			}
			s.run(3 * time.Second) // two have it on their disks
			for id, p := range s.byID {
				if all[p] {
					ids = append(ids, id)
				}
			}
			slices.SortFunc(ids, func(a, b core.Identity) int { return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq)) })
			if len(ids) != n {
				s.fail("%d of %d messages wait at node %d", len(ids), n, victim.i)
			}
			return ids
		}
		publish(10, 1)
		ids := publish(10, 0)
		victim.do(func() { victim.n.OpenFor(ids, []string{away}) })
		ids = publish(10, 0)
		victim.do(func() { // it was through with them before anything was said
			for _, id := range ids {
				victim.n.More(victim.n.Receipt(id))
			}
			victim.n.Through(ids, had)
			for _, id := range ids {
				victim.n.Done(victim.n.Receipt(id))
			}
			victim.n.OpenFor(ids, []string{had, away})
		})
		publish(5, 1)
		first.asleep = true
		first.subscribe("a/#", 2)
		s.run(8 * time.Second)
		ids = publish(10, 0)
		victim.do(func() { // it comes with them from another node, and is through
			for _, id := range ids {
				victim.n.TakeUp(id, had)
			}
		})
		first.do(func() {
			first.n.Carried(ids, victim.id.Peer(), had, time.Hour, func() {
				for _, id := range ids {
					s.after(0, func() { first.do(func() { first.n.Done(first.n.Receipt(id)) }) })
				}
			})
		})
		s.run(time.Duration(s.rng.Int64N(int64(5 * time.Second))))
		victim.do(func() {
			if s.rng.IntN(2) == 0 {
				victim.n.OpenFor(ids, []string{away})
			}
			victim.n.Through(ids, had)
			for _, id := range ids {
				victim.n.Done(victim.n.Receipt(id))
			}
		})
		s.run(3 * time.Second)
		first.unsubscribe("a/#")
		s.run(8 * time.Second)
		ids = publish(10, 0)
		victim.do(func() { // both have them on their disks
			victim.n.OpenFor(ids, []string{had, away})
			for _, id := range ids {
				victim.n.More(victim.n.Receipt(id))
			}
		})
		s.run(time.Second + time.Duration(s.rng.Int64N(int64(3*time.Second))))
		restarts := s.rng.IntN(2) == 0
		if restarts { // and does not know itself what it has said
			victim.crash()
			s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
			victim.reboot()
			victim.asleep = true
			s.run(20 * time.Second)
			victim.do(func() {
				for _, id := range ids {
					victim.n.More(victim.n.Receipt(id))
				}
			})
		}
		victim.do(func() {
			victim.n.Through(ids, had)
			for _, id := range ids {
				victim.n.Done(victim.n.Receipt(id))
			}
		})
		s.run(time.Second)
		members := slices.DeleteFunc(s.membersOf(core.Place{Prefix: "a", Depth: 1}), func(v *simNode) bool { return v == victim })
		member, crashes := members[s.rng.IntN(len(members))], s.rng.IntN(3)
		if crashes == 1 { // and asks, when it is back
			member.crash()
			s.run(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
			member.reboot()
			s.run(20 * time.Second)
		}
		s.destroy(victim)
		if crashes == 2 { // others know
			s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
			member.crash()
		}
		s.run(time.Duration(s.rng.Int64N(int64(60 * time.Second))))
		if s.rng.IntN(2) == 0 {
			s.join(s.addPeer(victim.id.Peer()))
			s.run(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
		}
		if crashes == 2 { // else the victim may have had the only other copy
			member.reboot()
			s.run(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
		}
		goOn := func(v *simNode, name string) {
			from := cameFrom(name, victim.id)
			v.do(func() {
				v.n.Register("a/#", core.Interest{Plain: true, QoS: 2, Hold: time.Hour, Sessions: []core.SessionInterest{from}}, nil)
				v.n.Arrived(name, []string{"a/#"}, true, nil)
			})
			s.run(30 * time.Second)
		}
		others = slices.DeleteFunc(others, func(v *simNode) bool { return v == member })
		goOn(others[0], had)
		goOn(others[1], away)
		for p, want := range wants {
			for i, name := range []string{had, away} {
				if n := p.took["session/"+name]; n != want[i] && !((crashes == 2 || restarts) && p.m.QoS == 1 && n == 1) { // that is not written
					s.fail("%s of node %d, published at %v, came to %s %d times, want %d", p.id, p.node.i, p.at-time.Hour, name, n, want[i])
				}
			}
		}
		s.report(seed)
	})
}

// TestOpenBesideFrozen: what a node says of the sessions that are through with a message, or that all are, is known where one goes on without it, though
// members of the location's set, or publishers, were frozen or cut off when it came, or when that was said.
func TestOpenBesideFrozen(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder = true, true
		s.diskTime = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond}[s.rng.IntN(2)]
		s.grow(6)
		s.run(3 * time.Second)
		victim := s.pick()
		victim.subscribe("a/#", 2)
		done := s.rng.IntN(2) == 0 // with all, which wait for another node
		if victim.asleep = !done; done {
			keeper := s.pickFrom(slices.DeleteFunc(slices.Clone(s.nodes), func(v *simNode) bool { return v == victim }))
			keeper.subscribe("a/#", 2)
			keeper.asleep = true
		}
		s.run(8 * time.Second)
		members := s.membersOf(core.Place{Prefix: "a", Depth: 1})
		others := slices.DeleteFunc(slices.Clone(s.nodes), func(v *simNode) bool { return v == victim })
		const had, away = "$session-00/had", "$session-00/away"
		wait := func(most time.Duration) { s.run(time.Duration(s.rng.Int64N(int64(most)))) }
		all := map[*published]bool{}
		publish := func() {
			for range 5 {
				all[others[s.rng.IntN(len(others))].publish("a/x", 2, false, "v")] = true
				wait(100 * time.Millisecond)
			}
		}
		publish()
		frozen, long := members[0], time.Second+time.Duration(s.rng.Int64N(int64(7*time.Second)))
		switch s.rng.IntN(4) {
		case 0:
			frozen = members[1+s.rng.IntN(2)]
		case 1:
			frozen = others[s.rng.IntN(len(others))]
		}
		switch {
		case frozen == victim:
		case s.rng.IntN(2) == 0:
			s.freeze(frozen, long)
		default:
			s.apart = func(v, w *simNode) bool { return v == frozen || w == frozen }
			for _, v := range s.nodes {
				s.disconnect(v, frozen)
			}
			s.after(long, func() {
				s.apart = nil
				s.meet()
			})
		}
		until := s.now + long
		publish()
		wait(long)
		var ids []core.Identity
		var through []*published
		tell := func() {
			ids, through = nil, nil
			for id, p := range s.byID {
				if all[p] {
					ids, through = append(ids, id), append(through, p)
				}
			}
			slices.SortFunc(ids, func(a, b core.Identity) int { return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq)) })
			if !done {
				victim.do(func() { victim.n.OpenFor(ids, []string{away}) })
			}
		}
		tell()
		wait(2 * time.Second)
		s.run(max(0, until-s.now))
		wait(2 * time.Second)
		if s.rng.IntN(2) == 0 {
			publish()
			tell()
		}
		s.run(10 * time.Second)
		s.destroy(victim)
		wait(60 * time.Second)
		heir := s.addPeer(victim.id.Peer())
		s.join(heir)
		wait(10 * time.Second)
		for _, goes := range []struct {
			name string
			to   *simNode
		}{{had, heir}, {away, others[0]}} {
			from := cameFrom(goes.name, victim.id)
			goes.to.do(func() {
				goes.to.n.Register("a/#", core.Interest{Plain: true, QoS: 2, Hold: time.Hour, Sessions: []core.SessionInterest{from}}, nil)
				goes.to.n.Arrived(goes.name, []string{"a/#"}, true, nil)
			})
			s.run(30 * time.Second)
		}
		for _, p := range through {
			if a, b := p.took["session/"+had], p.took["session/"+away]; a != 0 || !done && b != 1 || done && b != 0 {
				s.fail("%s of node %d, published at %v, came to the session that was through %d times, and to the other %d times", p.id, p.node.i, p.at-time.Hour, a, b)
			}
		}
		s.report(seed)
	})
}

// TestDoneOverRestart: that a node is done with a QoS 2 message, which waits for another one, is known to those who have it in custody though they are
// restarted: a session that was there and goes on elsewhere does not get it again.
func TestDoneOverRestart(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder = true, true
		s.diskTime = 100 * time.Millisecond
		s.grow(6)
		s.run(3 * time.Second)
		_, others := s.members(core.Place{Prefix: "a", Depth: 1})
		members := s.membersOf(core.Place{Prefix: "a", Depth: 1})
		done, away, publisher, next := others[0], members[s.rng.IntN(3)], others[1], others[2]
		const name = "$session-00/s"
		done.subscribe("a/#", 2)
		done.asleep = s.rng.IntN(2) == 0
		away.subscribe("a/#", 2)
		away.asleep = true
		s.run(8 * time.Second)
		var all []*published
		for range 10 {
			all = append(all, publisher.publish("a/x", 2, false, "v"))
			s.run(time.Duration(s.rng.Int64N(int64(100 * time.Millisecond))))
		}
		s.run(time.Second + time.Duration(s.rng.Int64N(int64(5*time.Second))))
		var deaf *simNode // does not hear of it at first
		if s.rng.IntN(2) == 0 {
			deaf = members[1+s.rng.IntN(2)]
			if d := 10 * time.Second; s.rng.IntN(2) == 0 {
				s.freeze(deaf, d)
			} else {
				s.links[[2]int{members[0].i, deaf.i}], s.links[[2]int{deaf.i, members[0].i}] = s.now+d, s.now+d
			}
			s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
		}
		done.wake()
		s.run(3 * time.Second)
		if deaf != nil {
			s.run(20 * time.Second)
			members[0].crash()
		}
		done.crash()
		s.run(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
		next.do(func() {
			next.n.Register("a/#", core.Interest{Plain: true, QoS: 2, Hold: time.Hour, Sessions: []core.SessionInterest{cameFrom(name, done.id)}}, nil)
			next.n.Arrived(name, []string{"a/#"}, true, nil)
		})
		s.run(10 * time.Second)
		if s.rng.IntN(2) == 0 {
			done.reboot()
			s.run(10 * time.Second)
		}
		for _, v := range members {
			if v.alive && s.rng.IntN(3) > 0 {
				v.crash()
				s.run(time.Duration(s.rng.Int64N(int64(3 * time.Second))))
				v.reboot()
				s.run(time.Duration(s.rng.Int64N(int64(3 * time.Second))))
			}
		}
		s.run(40 * time.Second)
		for _, p := range all {
			if n := p.took["session/"+name]; n != 0 {
				s.fail("%s, published at %v, came to the session again", p.id, p.at-time.Hour)
			}
		}
		s.report(seed)
	})
}
