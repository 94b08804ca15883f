package core_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// TestWeekAlone has one node of two be off for most of a week, while clients go on at the other: nothing waits there. When the other
// is back, what is for it comes, within the limits and in order, and the two are whole; when it is forgotten, the one that is left
// is whole by itself, and so are the two when it comes back after that.
func TestWeekAlone(t *testing.T) {
	const away, limit = 156 * time.Hour, 150
	eachSeed(t, (fewer()+4)/5, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder, s.diskTime, s.hold = true, true, 10*time.Millisecond, core.MaxHold
		s.awaited = s.rng.IntN(3) == 0
		limited := s.rng.IntN(2) == 0
		if limited {
			s.limit = func(l *core.Limits) { l.Away, l.Unsettled = limit, limit }
		}
		s.grow(2)
		s.run(12 * time.Second)
		on, off := s.nodes[0], s.nodes[1]
		off.subscribe("b/#", 2)
		on.subscribe("a/#", 2)
		on.subscribe("b/x", 1)
		s.run(8 * time.Second)
		off.crash()
		s.run(3 * time.Second) // for 2 s it may be a link that breaks
		until := func(what string, most time.Duration, ok func() bool) {
			began := s.now
			for !ok() && s.now-began < 10*time.Second {
				s.run(time.Millisecond)
			}
			if s.now-began > most {
				s.fail("%s took %v", what, s.now-began)
			}
		}
		var all []*published
		const rounds = 40
		some := func(round int) {
			for i := range 10 {
				p := on.publish([]string{"b/x", "a/x"}[i%2], byte(1+i/2%2), i >= 8, "v")
				all = append(all, p)
				until("a publish", 100*time.Millisecond, func() bool { return p.accepted })
				if s.awaited && i%2 == 0 && round < rounds && p.custody != core.CustodyNode {
					s.fail("%s was acknowledged by %d", p.id, p.custody)
				}
				s.run(2 * s.diskTime) // what is written is safe in its order
			}
			answered := false
			filter := fmt.Sprintf("c%d/#", round)
			on.do(func() { on.n.Register(filter, core.Interest{Plain: true, QoS: 1}, func(bool) { answered = true }) })
			until("a subscription", 100*time.Millisecond, func() bool { return answered })
			on.do(func() { on.n.Register(filter, core.Interest{}, nil) })
		}
		for round := range rounds {
			some(round)
			s.run(3 * time.Second)
			s.sparse = true
			s.run(away / rounds)
			s.sparse = false
			s.run(2 * time.Minute)
		}
		forget := s.rng.IntN(2) == 0
		if forget {
			if err := on.forget(off.id.Peer()); err != nil {
				s.fail("%v", err)
			}
			if err := on.forget("nobody"); !errors.Is(err, core.ErrUnknown) {
				s.fail("a node that is not known is forgotten: %v", err)
			}
			for _, st := range off.interests {
				st.promised = false
			}
			for _, p := range all { // what was for it is let go of
				p.due = slices.DeleteFunc(p.due, func(st *standing) bool { return st.node == off })
			}
			s.run(5 * time.Second)
			s.checkSets()
			local, answered := true, false
			on.do(func() {
				on.n.Register("d/#", core.Interest{Plain: true, QoS: 1}, func(l bool) { local, answered = l, true })
			})
			until("a subscription", 100*time.Millisecond, func() bool { return answered })
			if local {
				s.fail("alone for good, the node promises for itself alone")
			}
			on.do(func() { on.n.Register("d/#", core.Interest{}, nil) })
			some(rounds)
		}
		off.reboot()
		s.run(30 * time.Second)
		for _, st := range off.interests {
			st.promised = true
		}
		if err := on.forget(off.id.Peer()); !errors.Is(err, core.ErrInReach) {
			s.fail("a node that is there is forgotten: %v", err)
		}
		some(rounds + 1)
		s.run(90 * time.Second)
		if dropped := on.n.Stats().DroppedAway + on.n.Stats().DroppedUnsettled; limited && !forget && dropped == 0 || !limited && dropped > 0 {
			s.fail("%d messages were dropped", dropped)
		}
		if limited { // the newest are there
			n := 0
			for i := len(all) - 1; i >= 0 && n < limit/2; i-- {
				if p := all[i]; p.missing() != nil {
					s.fail("%s has not come, %d messages before the last", p.id, n)
				} else if len(p.due) > 0 {
					n++
				}
			}
			for _, p := range all {
				p.cut = true
			}
		}
		for _, v := range s.nodes {
			last := map[string]int{}
			for _, p := range v.came {
				key := fmt.Sprint(p.m.Topic, p.m.QoS, p.m.Retain)
				i := slices.Index(s.published, p)
				if i < last[key] {
					s.fail("node %d got %s (%s QoS %d) late", v.i, p.id, p.m.Topic, p.m.QoS)
				}
				last[key] = i
			}
		}
		s.check()
		s.checkSets()
		s.checkRetained()
		s.report(seed)
	})
}

// forget has a node take another for gone for good.
func (v *simNode) forget(peer string) (err error) {
	v.do(func() { err = v.n.ForgetNode(peer) })
	return err
}

// TestLeaveForGood has one node of three, or of five, leave for good while messages wait for sessions at it and at another: those for
// the other are on two disks, those for its own are let go of, and the others are whole at once, without waiting for it.
func TestLeaveForGood(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.diskTime, s.hold = 20*time.Millisecond, core.MaxHold
		s.loss, s.disorder = true, true
		s.grow(3 + 2*s.rng.IntN(2))
		s.run(12 * time.Second)
		leaver := s.pick()
		sleeper := s.nodes[(leaver.i+1)%len(s.nodes)]
		for _, v := range []*simNode{leaver, sleeper} {
			v.subscribe("#", 2)
		}
		s.run(8 * time.Second)
		leaver.asleep, sleeper.asleep = true, true
		for range 20 {
			s.pick().publish(pickTopic(s), byte(1+s.rng.IntN(2)), s.rng.IntN(4) == 0, "v")
			s.run(time.Duration(s.rng.Int64N(int64(200 * time.Millisecond))))
		}
		leaver.do(leaver.n.LeaveForGood)
		leaver.leaving = true
		for began := s.now; leaver.alive && s.now-began < 30*time.Second; {
			s.run(100 * time.Millisecond)
		}
		if leaver.alive {
			s.fail("node %d has not left: %s", leaver.i, leaver.n.WhyStill())
		}
		s.run(3 * time.Second)
		if seed%3 == 0 { // and that is known after a restart
			for _, v := range s.nodes {
				if v != leaver && v != sleeper {
					v.crash()
					s.run(time.Second)
					v.reboot()
					s.run(3 * time.Second)
				}
			}
			s.run(5 * time.Second)
		}
		for _, v := range s.nodes {
			if v == leaver {
				continue
			}
			if !slices.ContainsFunc(v.n.Peers(), func(p core.PeerView) bool { return p.ID == leaver.id }) {
				s.fail("node %d does not know node %d any more", v.i, leaver.i)
			}
			for _, p := range v.n.Peers() {
				if p.ID == leaver.id && !p.Gone {
					s.fail("node %d does not take node %d for gone", v.i, leaver.i)
				}
			}
			if kept := v.n.KeptFor(leaver.id); kept > 0 {
				s.fail("node %d keeps %d messages for node %d", v.i, kept, leaver.i)
			}
			answered, local := time.Duration(0), true
			v.do(func() {
				v.n.Register(fmt.Sprintf("n%d/#", v.i), core.Interest{Plain: true, QoS: 1}, func(l bool) { answered, local = s.now, l })
			})
			began := s.now
			s.run(3 * time.Second)
			if answered == 0 || local || answered-began > 2*time.Second {
				s.fail("node %d: a subscription was answered after %v, local %v", v.i, answered-began, local)
			}
			v.do(func() { v.n.Register(fmt.Sprintf("n%d/#", v.i), core.Interest{}, nil) })
		}
		s.checkCopies("after it has left")
		sleeper.wake()
		s.run(30 * time.Second)
		s.check()
		s.checkSets()
		s.checkRetained()
		s.report(seed)
	})
}

// TestForgetSpreads: in a private swarm others believe that a node is gone for good, unless it is there for them, and in an open one
// nobody does.
func TestForgetSpreads(t *testing.T) {
	for _, open := range []bool{false, true} {
		s := newSim(t, 1, time.Millisecond)
		s.open, s.disorder, s.loss = open, true, true
		s.grow(4)
		s.run(5 * time.Second)
		told, lost, there, hears := s.nodes[0], s.nodes[1], s.nodes[2], s.nodes[3]
		s.apart = func(v, w *simNode) bool { return (v == lost || w == lost) && v != there && w != there }
		s.disconnect(told, lost)
		s.disconnect(hears, lost)
		s.run(time.Second)
		if err := told.forget(lost.id.Peer()); err != nil {
			t.Fatal(err)
		}
		s.run(time.Second)
		for v, want := range map[*simNode]bool{told: true, there: false, hears: !open} {
			for _, p := range v.n.Peers() {
				if p.ID == lost.id && p.Gone != want {
					t.Errorf("open %v: node %d takes it for gone: %v, want %v", open, v.i, p.Gone, want)
				}
			}
		}
		s.apart = nil
		s.connect(told, lost)
		s.connect(hears, lost)
		s.run(time.Second)
		for _, v := range []*simNode{told, hears} {
			for _, p := range v.n.Peers() {
				if p.ID == lost.id && (p.Gone || !p.Up) {
					t.Errorf("open %v: node %d does not let it in again: %+v", open, v.i, p)
				}
			}
		}
	}
}

// TestLeaveForNow: a node that could not leave for good in time, and is stopped, is not taken for gone.
func TestLeaveForNow(t *testing.T) {
	s := newSim(t, 1, time.Millisecond)
	s.disorder, s.loss, s.diskTime = true, true, 10*time.Millisecond
	s.grow(3)
	s.run(8 * time.Second)
	v := s.nodes[1]
	v.subscribe("a/#", 1)
	s.run(8 * time.Second)
	s.mute = func(frame any) bool { _, sync := frame.(*pb.Sync); return sync }
	v.do(v.n.LeaveForGood)
	v.leaving = true
	s.run(time.Second)
	if !v.alive {
		t.Fatal("it has left, though nobody says that all is handed over")
	}
	v.do(v.n.LeaveForNow)
	s.mute = nil
	for began := s.now; v.alive && s.now-began < time.Minute; {
		s.run(100 * time.Millisecond)
	}
	s.run(time.Second)
	for _, w := range s.nodes {
		for _, p := range w.n.Peers() {
			if w != v && p.ID == v.id && (p.Gone || !p.Left || v.alive) {
				t.Errorf("node %d: %+v, alive %v", w.i, p, v.alive)
			}
		}
	}
}

// TestAloneRestarted: a node of two whose other is away has more messages that are not settled than its outbox may hold, and is
// started again. Its clients are not kept waiting, and all of it comes to the other when that is back.
func TestAloneRestarted(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder, s.diskTime, s.hold = true, true, 10*time.Millisecond, core.MaxHold
		s.limit = func(l *core.Limits) { l.Outbox = 20 }
		s.grow(2)
		s.run(12 * time.Second)
		on, off := s.nodes[0], s.nodes[1]
		off.subscribe("#", 2)
		s.run(8 * time.Second)
		off.crash()
		s.run(3 * time.Second)
		some := func() {
			for i := range 30 {
				p := on.publish([]string{"a/b", "b/c", "c/a"}[i%3], 1, false, "v")
				s.run(50 * time.Millisecond)
				if !p.accepted {
					s.fail("%s is not acknowledged", p.id)
				}
			}
		}
		some()
		for range 2 {
			on.crash()
			s.run(time.Second)
			on.reboot()
			s.run(time.Duration(3+s.rng.IntN(90)) * time.Second)
			some()
		}
		off.reboot()
		s.run(60 * time.Second)
		s.check()
		s.checkNothingLeft()
		s.report(seed)
	})
}
