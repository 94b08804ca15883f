package core_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// publishAs publishes a message under an identity that was given.
func (v *simNode) publishAs(p *published, epoch uint64, hold time.Duration) {
	v.s.note("node %d publishes %s as %x", v.i, p.id, epoch)
	v.do(func() {
		v.n.Publish(core.Publication{Message: p.m, Origin: p, Epoch: epoch, Hold: hold, Firm: true})
	})
}

// TestGivenIdentity has two nodes publish the same message under one identity, as they do with wills, while the first may be out of
// reach, or crash and come back: it comes once, at any QoS.
func TestGivenIdentity(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.disorder, s.loss = true, true
		s.grow(4 + s.rng.IntN(3))
		s.run(3 * time.Second)
		var stands []*standing
		for _, v := range s.nodes[1:] {
			stands = append(stands, v.subscribe("will/#", 2))
		}
		s.run(6 * time.Second)
		first, second := s.nodes[0], s.nodes[1+s.rng.IntN(len(s.nodes)-1)]
		var all []*published
		publish := func(v *simNode, i int, hold time.Duration) { v.publishAs(all[i], uint64(1001+2*i), hold) } //nolint:gosec // small
		for i := range 6 {
			p := &published{id: fmt.Sprintf("will %d", i), node: first, groups: map[string]bool{}, took: map[string]int{}, at: s.now}
			p.m = &proto.Message{Topic: fmt.Sprint("will/", i), QoS: byte(i % 3), Retain: i >= 3, Payload: []byte("gone"), Properties: userProperty(p.id)}
			all = append(all, p)
		}
		s.published = append(s.published, all...)
		publishAll := func(v *simNode, hold time.Duration) {
			for i := range all {
				publish(v, i, hold)
			}
		}
		what := s.rng.IntN(4)
		if what == 0 {
			s.cut(first)
		}
		publishAll(first, time.Minute)
		if s.rng.IntN(2) == 0 {
			publishAll(first, time.Minute)
		}
		s.run(time.Duration(s.rng.IntN(3000)) * time.Millisecond)
		switch what {
		case 1:
			s.cut(first)
		case 2:
			first.crash()
		}
		s.run(time.Duration(s.rng.IntN(20)) * time.Second)
		publishAll(second, core.MaxHold)
		s.run(time.Duration(1+s.rng.IntN(300)) * time.Second)
		switch what {
		case 0, 1:
			s.rejoin(first)
		case 2:
			first.reboot()
		}
		s.run(3 * time.Minute)
		for _, p := range all {
			for _, st := range stands {
				if !st.promised || st.node.from[p] != 1 {
					s.fail("node %d got %s %d times (promised %v)", st.node.i, p.id, st.node.from[p], st.promised)
				}
			}
			if !p.accepted {
				s.fail("%s is not accepted", p.id)
			}
		}
		for _, v := range s.nodes {
			if g := v.n.Gauges(); g.Outbox > 0 {
				s.fail("node %d keeps %d messages in its outbox", v.i, g.Outbox)
			}
		}
		s.report(seed)
	})
}

// TestFirm: a retained message that is to be firm is accepted when every member that can be reached has it.
func TestFirm(t *testing.T) {
	for _, qos := range []byte{0, 1} {
		s, a, b, c, level := limited(t, nil)
		a.publish(level+"/before", 1, true, "x") // the place above knows the location
		s.run(time.Second)
		s.slow = 30 * time.Millisecond
		p := &published{id: "firm", node: a, groups: map[string]bool{}, took: map[string]int{}}
		p.m = &proto.Message{Topic: level + "/x", QoS: qos, Retain: true, Payload: []byte("x"), Properties: userProperty("firm")}
		s.published = append(s.published, p)
		a.do(func() { a.n.Publish(core.Publication{Message: p.m, Origin: p, Firm: true}) })
		at := core.Place{Prefix: level, Depth: 1}.Location()
		for range 200_000 {
			s.run(10 * time.Microsecond)
			if !p.accepted {
				continue
			}
			for _, v := range []*simNode{a, b, c} {
				if (diskRetained{v.disk}).Get(at, p.m.Topic) == nil {
					t.Errorf("QoS %d: it is accepted, and node %d does not have it", qos, v.i)
				}
			}
			break
		}
		if !p.accepted {
			t.Errorf("QoS %d: it is not accepted within two seconds", qos)
		}
	}
}

// TestFirmWithoutOthers: a firm message does not wait for who is registered for it and is dead, also where there is nobody else.
func TestFirmWithoutOthers(t *testing.T) {
	s := newSim(t, 1, time.Millisecond)
	s.disorder = true
	a, b := s.add(), s.add()
	s.connect(a, b)
	s.run(time.Second)
	b.subscribe("firm/#", 1)
	s.run(time.Second)
	s.cut(b)
	s.run(20 * time.Second)
	p := &published{id: "firm", node: a, groups: map[string]bool{}, took: map[string]int{}}
	p.m = &proto.Message{Topic: "firm/x", QoS: 1, Retain: true, Payload: []byte("x"), Properties: userProperty("firm")}
	s.published = append(s.published, p)
	a.publishAs(p, 1001, time.Minute)
	s.run(5 * time.Second)
	if !p.accepted {
		t.Error("it is not accepted")
	}
	s.rejoin(b)
	s.run(30 * time.Second)
	b.want(t, []*published{p})
}

// TestFirmAway: a message that is to be firm is not accepted before its rendezvous has it.
func TestFirmAway(t *testing.T) {
	s, a, b, _, level := limited(t, nil)
	s.disorder = true
	a.publish(level+"/before", 1, false, "x")
	s.run(time.Second)
	p := &published{id: "firm", node: b, groups: map[string]bool{}, took: map[string]int{}}
	p.m = &proto.Message{Topic: level + "/x", QoS: 1, Payload: []byte("x"), Properties: userProperty("firm")}
	s.published = append(s.published, p)
	s.hang(a, 2*time.Second)
	b.publishAs(p, 1001, time.Minute)
	s.run(1900 * time.Millisecond)
	if p.accepted {
		t.Error("it is accepted, and its rendezvous hangs")
	}
	s.run(time.Second)
	if !p.accepted {
		t.Error("it is not accepted when its rendezvous goes on")
	}
}

// TestHeard: a node tells how long it has not heard another, whether that is cut off, hangs or has crashed, and who serves a location
// what it is to it.
func TestHeard(t *testing.T) {
	for name, lose := range map[string]func(s *sim, v *simNode){
		"cut": func(s *sim, v *simNode) { s.cut(v) }, "hangs": func(s *sim, v *simNode) { s.hang(v, time.Hour) },
		"crashes": func(_ *sim, v *simNode) { v.crash() },
	} {
		s, a, b, c, level := limited(t, nil)
		s.disorder = true
		at := core.Place{Prefix: level, Depth: 1}.Location()
		a.publish(level+"/x", 1, true, "x")
		heard := func(v *simNode) (ago time.Duration, ever bool) {
			v.do(func() { ago, ever = v.n.Heard(c.id) })
			return ago, ever
		}
		for range 20 {
			s.run(time.Second)
			for _, v := range []*simNode{a, b} {
				if ago, ever := heard(v); ever && ago > 3*time.Second {
					t.Errorf("%s: node %d has not heard a node that is well for %v", name, v.i, ago)
				}
			}
		}
		var backed bool
		if c.do(func() { backed = c.n.Backed(level + "/x") }); !backed {
			t.Errorf("%s: a node that is well has no majority", name)
		}
		if seat := a.n.Seat(at); !seat.Serving || len(seat.Members) != 3 {
			t.Errorf("%s: the rendezvous is %+v", name, seat)
		}
		if seat := b.n.Seat(at); seat.Serving || len(seat.Members) != 3 {
			t.Errorf("%s: a replica is %+v", name, seat)
		}
		lose(s, c)
		for range 20 {
			s.run(time.Second)
			heard(a)
			heard(b)
		}
		for _, v := range []*simNode{a, b} {
			if ago, ever := heard(v); !ever || ago < 19*time.Second || ago > 23*time.Second {
				t.Errorf("%s: after 20 s node %d has not heard it for %v", name, v.i, ago)
			}
		}
		if c.do(func() { backed = c.n.Backed(level + "/x") }); backed && c.alive {
			t.Errorf("%s: a node that reaches nobody has a majority", name)
		}
	}
}
