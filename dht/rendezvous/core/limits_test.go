package core_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// The tests of limits run three nodes that know each other, with limits of five of a thing, and ask for twenty. What has to
// go goes in the order that docs/limits.md says and is counted; all else arrives, once.
const few, many = 5, 20

// limited runs three nodes. The first is the rendezvous of the level that is returned.
func limited(t *testing.T, limit func(*core.Limits)) (s *sim, a, b, c *simNode, level string) {
	t.Helper()
	s = newSim(t, 1, time.Millisecond)
	s.limit = limit
	a, b, c = s.add(), s.add(), s.add()
	s.connect(a, b)
	s.connect(b, c)
	s.connect(a, c)
	s.run(time.Second)
	return s, a, b, c, s.levelOf(a, "x")
}

// levelOf returns a first level that a node is the rendezvous of.
func (s *sim) levelOf(v *simNode, name string) string {
	for i := 0; ; i++ {
		if level := fmt.Sprint(name, i); v.n.Locate(level).Rendezvous == v.id {
			return level
		}
	}
}

// publishMany publishes at QoS 1 below a level.
func (v *simNode) publishMany(level string) (all []*published) {
	for i := range many {
		all = append(all, v.publish(fmt.Sprintf("%s/%d", level, i), 1, false, "v"))
		v.s.run(time.Millisecond)
	}
	return all
}

// cut breaks the links of a node; rejoin makes them again.
func (s *sim) cut(v *simNode) {
	s.apart = func(x, y *simNode) bool { return x == v || y == v }
	for _, w := range s.nodes {
		s.disconnect(v, w)
	}
}

func (s *sim) rejoin(v *simNode) {
	s.apart = nil
	for _, w := range s.nodes {
		s.connect(v, w)
	}
}

// want checks that a node got exactly these messages.
func (v *simNode) want(t *testing.T, all []*published) {
	t.Helper()
	for _, p := range all {
		if v.from[p] != 1 {
			t.Errorf("node %d got %s %d times", v.i, p.m.Topic, v.from[p])
		}
	}
	if len(v.got) != len(all) {
		t.Errorf("node %d got %d messages, want %d", v.i, len(v.got), len(all))
	}
}

func accepted(all []*published) (n int) {
	for _, p := range all {
		if p.accepted {
			n++
		}
	}
	return n
}

func count(t *testing.T, what string, have, want uint64) {
	t.Helper()
	if have != want {
		t.Errorf("%s: counted %d, want %d", what, have, want)
	}
}

// TestAwayLimit: of what is kept for a node that is out of reach the oldest goes.
func TestAwayLimit(t *testing.T) {
	for name, limit := range map[string]func(*core.Limits){
		"messages": func(l *core.Limits) { l.Away = few },
		"custody":  func(l *core.Limits) { l.Custody = few },
	} {
		t.Run(name, func(t *testing.T) {
			s, a, _, c, level := limited(t, limit)
			c.subscribe(level+"/#", 1)
			s.run(time.Second)
			s.cut(c)
			s.run(10 * time.Second)
			all := a.publishMany(level)
			count(t, "away", a.n.Stats().DroppedAway, many-few)
			if n := accepted(all); n != many {
				t.Errorf("%d are accepted", n)
			}
			s.rejoin(c)
			s.run(10 * time.Second)
			c.want(t, all[many-few:])
		})
	}
}

// TestCustodyLimit: a rendezvous that has twice what it may have takes no more from other nodes, which keep theirs and send
// it again.
func TestCustodyLimit(t *testing.T) {
	s, a, b, c, level := limited(t, func(l *core.Limits) { l.Custody = few })
	c.subscribe(level+"/#", 1)
	s.run(time.Second)
	s.mute = func(f any) bool { _, is := f.(*pb.DeliverAck); return is }
	all := b.publishMany(level)
	s.run(time.Second)
	count(t, "custody", a.n.Stats().DroppedCustody, many-2*few)
	if g := b.n.Gauges(); g.Outbox != many || accepted(all) != many {
		t.Errorf("the publisher's node has %d, %d are accepted", g.Outbox, accepted(all))
	}
	s.mute = nil
	s.disconnect(a, c)
	s.connect(a, c)
	s.run(30 * time.Second)
	c.want(t, all)
	for _, v := range s.nodes {
		if g := v.n.Gauges(); g.Custody != 0 || g.Outbox != 0 {
			t.Errorf("node %d still has %d, %d in its outbox", v.i, g.Custody, g.Outbox)
		}
	}
}

// TestOutboxLimit: acknowledgements wait while the outbox is full.
func TestOutboxLimit(t *testing.T) {
	s, _, b, c, level := limited(t, func(l *core.Limits) { l.Outbox = few })
	c.subscribe(level+"/#", 1)
	s.run(time.Second)
	s.mute = func(f any) bool { _, is := f.(*pb.PublishAck); return is }
	all := b.publishMany(level)
	s.run(time.Second)
	if n := accepted(all); n != few {
		t.Errorf("%d are accepted, %d have room", n, few)
	}
	s.mute = nil
	s.run(30 * time.Second)
	if n := accepted(all); n != many {
		t.Errorf("%d are accepted", n)
	}
	c.want(t, all)
}

// TestWaitingLimit: of what waits until a location can be served QoS 0 goes first, then, from twice the limit, what other
// nodes keep and send again. This node's own waits with its acknowledgements.
func TestWaitingLimit(t *testing.T) {
	s, a, b, c, level := limited(t, func(l *core.Limits) { l.Waiting = few })
	c.subscribe("#", 1)
	s.run(10 * time.Second)
	s.mute = func(f any) bool { _, is := f.(*pb.FoundAck); return is }
	theirs := b.publishMany(level)
	s.run(100 * time.Millisecond)
	count(t, "theirs", a.n.Stats().DroppedWaiting, many-2*few)
	for range many {
		a.publish(level+"/unkept", 0, false, "v")
	}
	count(t, "QoS 0", a.n.Stats().DroppedWaiting, 2*many-2*few)
	own := a.publishMany(level)
	if n := accepted(own); n != 0 {
		t.Errorf("%d of this node are accepted", n)
	}
	s.mute = nil
	s.run(30 * time.Second)
	if n := accepted(own); n != many {
		t.Errorf("%d of this node are accepted", n)
	}
	count(t, "in the end", a.n.Stats().DroppedWaiting, 2*many-2*few)
	c.want(t, append(theirs, own...))
	if n := a.n.Gauges().Waiting; n != 0 {
		t.Errorf("%d still wait", n)
	}
}

// TestUnsettledLimit: of what a rendezvous keeps because it lacks a majority the oldest goes.
func TestUnsettledLimit(t *testing.T) {
	s, a, b, _, level := limited(t, func(l *core.Limits) { l.Unsettled = few })
	a.subscribe(level+"/#", 1)
	s.run(time.Second)
	s.cut(a)
	s.run(10 * time.Second)
	late := b.subscribe(level+"/#", 1)
	s.run(10 * time.Second)
	if !late.promised {
		t.Fatal("two of three promise nothing")
	}
	all := a.publishMany(level)
	count(t, "unsettled", a.n.Stats().DroppedUnsettled, many-few)
	a.want(t, all)
	s.rejoin(a)
	s.run(80 * time.Second)
	b.want(t, all[many-few:])
}

// TestEpochLimit: of the epochs that are remembered those go that were unused for longest.
func TestEpochLimit(t *testing.T) {
	s, a, b, c, _ := limited(t, func(l *core.Limits) { l.UnknownEpochs = few })
	c.subscribe("#", 1)
	s.run(10 * time.Second)
	var all []*published
	for i := range many {
		all = append(all, b.publish(s.levelOf(a, fmt.Sprint("e", i, "-")), 1, false, "v"))
		s.run(time.Second)
	}
	s.run(2 * time.Second)
	c.want(t, all)
	if st := c.n.Stats(); st.ForgottenEpochs == 0 {
		t.Error("none is counted")
	}
	if g := c.n.Gauges(); g.Epochs > 2*few {
		t.Errorf("%d epochs are remembered", g.Epochs)
	}
}

// TestFilterLimit: what a node registers beyond the limit at a place does not stand, and is not promised.
func TestFilterLimit(t *testing.T) {
	s, a, b, c, level := limited(t, func(l *core.Limits) { l.Registrations = few })
	var all []*standing
	for i := range many {
		all = append(all, c.subscribe(fmt.Sprintf("%s/%d", level, i), 1))
		s.run(time.Second)
	}
	for i, st := range all {
		if st.promised != (i < few) {
			t.Errorf("filter %d: promised %v", i, st.promised)
		}
	}
	count(t, "filters", a.n.Stats().RegistrationsFull, many-few)
	msgs := b.publishMany(level)
	s.run(5 * time.Second)
	c.want(t, msgs[:few])
}

// TestNodesLimit: nodes that others tell of are not remembered beyond the limit.
func TestNodesLimit(t *testing.T) {
	s := newSim(t, 1, time.Millisecond)
	s.limit = func(l *core.Limits) { l.Nodes = 1 }
	s.grow(4)
	s.run(5 * time.Second)
	var full uint64
	for _, v := range s.nodes {
		full += v.n.Stats().PeersFull
	}
	if full == 0 {
		t.Error("none is counted")
	}
}

// TestRetainedLimits: what is retained beyond the limits is not, and is delivered all the same.
func TestRetainedLimits(t *testing.T) {
	for name, limit := range map[string]func(*core.Limits){
		"messages": func(l *core.Limits) { l.RetainedTopics = few },
		"bytes":    func(l *core.Limits) { l.RetainedBytes = few * len("x0/10v") },
	} {
		t.Run(name, func(t *testing.T) {
			s, a, b, c, level := limited(t, limit)
			c.subscribe(level+"/#", 1)
			s.run(time.Second)
			var all []*published
			for i := range many {
				all = append(all, b.publish(fmt.Sprintf("%s/%d", level, 10+i), 1, true, "v"))
			}
			s.run(5 * time.Second)
			if st := a.n.Stats(); st.DroppedRetained == 0 {
				t.Error("none is counted")
			}
			if n := accepted(all); n != many {
				t.Errorf("%d are accepted", n)
			}
			c.want(t, all)
		})
	}
}

// TestTombstoneLimit: of what is cleared no more is remembered than may be retained.
func TestTombstoneLimit(t *testing.T) {
	s, a, b, _, level := limited(t, func(l *core.Limits) { l.RetainedTopics = few })
	for i := range many {
		for _, payload := range []string{"v", ""} {
			b.publish(fmt.Sprintf("%s/%d", level, i), 1, true, payload)
			s.run(time.Second)
		}
	}
	count(t, "tombstones", a.n.Stats().DroppedRetained, many-few)
	var kept []*proto.Message
	b.do(func() { b.n.Retained(level+"/#", func(m []*proto.Message) { kept = append(kept, m...) }, func() {}) })
	s.run(time.Second)
	if len(kept) > 0 {
		t.Errorf("%d are still retained", len(kept))
	}
}

// TestLocationsLimit: who publishes to ever new first levels makes a node deal with no more of them than it may. What holds
// nothing makes room; what there is no room for is refused, and all that was accepted arrives.
func TestLocationsLimit(t *testing.T) {
	const most = 50
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			s := newSim(t, 1, time.Millisecond)
			s.limit = func(l *core.Limits) { l.Locations = most }
			s.grow(nodes)
			s.run(time.Second)
			a, last := s.nodes[0], s.nodes[nodes-1]
			last.subscribe("#", 1)
			stays := a.subscribe("stays/#", 1)
			s.run(10 * time.Second)
			var all []*published
			refused := 0
			for i := range 20 * most {
				if name := fmt.Sprintf("l%d/x", i); a.n.Room(name) {
					all = append(all, a.publish(name, 1, false, "v"))
				} else {
					refused++
				}
				s.run(20 * time.Millisecond)
				for _, v := range s.nodes {
					if g := v.n.Gauges(); g.Routes > most+1 || g.Locations > most+1 { // the root has always room
						t.Fatalf("node %d deals with %d locations, and is a member of %d", v.i, g.Routes, g.Locations)
					}
				}
			}
			s.run(25 * time.Minute) // what other members know is forgotten after twenty
			if refused == 0 || a.n.Stats().LocationsFull == 0 {
				t.Errorf("%d are refused, %d counted", refused, a.n.Stats().LocationsFull)
			}
			if want := map[int]int{1: 3 * most, 3: most / 2}[nodes]; len(all) < want {
				t.Errorf("only %d found room", len(all))
			}
			if n := accepted(all); n != len(all) {
				t.Errorf("%d of %d are accepted", n, len(all))
			}
			last.want(t, all)
			if !a.n.Room("another") || !a.n.RoomToRegister("stays/#") || !stays.promised {
				t.Error("there is no room in the end")
			}
			if kept := slices.ContainsFunc(a.n.Views(), func(v core.View) bool { return v.Place.Prefix == "stays" }); nodes == 1 && !kept {
				t.Error("a location where something is registered was forgotten")
			}
			s.report(1)
		})
	}
}

// TestLocationsFull: where all locations hold something, what other nodes register at new ones is promised by nobody, and
// what they publish stays with them until there is room.
func TestLocationsFull(t *testing.T) {
	s, _, b, _, _ := limited(t, nil)
	full := s.addLimited(func(l *core.Limits) { l.Locations = few })
	s.rejoin(full)
	s.run(2 * time.Second)
	for i := range few {
		full.subscribe(s.levelOf(full, fmt.Sprint("own", i, "-")), 1)
	}
	s.run(10 * time.Second)
	if full.n.Room("x") || full.n.RoomToRegister("x") || !full.n.RoomToRegister("#") {
		t.Fatal("there is room")
	}
	level := s.levelOf(full, "x")
	theirs := b.subscribe(level+"/#", 1)
	s.run(time.Second)
	if theirs.promised {
		t.Error("a registration is promised that does not stand")
	}
	p := b.publish(level+"/1", 1, false, "v")
	s.run(15 * time.Second)
	if full.n.Stats().LocationsFull == 0 {
		t.Error("nothing is counted")
	}
	for f := range full.interests {
		full.unsubscribe(f)
		break
	}
	s.run(40 * time.Minute) // what is withdrawn is remembered for ten, and the location for twenty more
	if !p.accepted {
		t.Error("it is not accepted")
	}
	if g := b.n.Gauges(); g.Outbox != 0 {
		t.Errorf("%d are still in the outbox", g.Outbox)
	}
}
