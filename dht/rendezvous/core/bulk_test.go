package core_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// TestManyFilters registers more filters than a frame takes: they are promised, inherited, handed to who comes in, and
// stood by when their owner has to send them all again.
func TestManyFilters(t *testing.T) {
	s := newSim(t, *seed+1, time.Millisecond)
	for i := range 4 {
		v := s.add()
		if i > 0 {
			s.connect(v, s.nodes[0])
		}
	}
	s.run(3 * time.Second)
	pad := strings.Repeat("p", 100)
	owner := s.nodes[0]
	const many = 10_000
	promised := 0
	for i := range many {
		f := fmt.Sprintf("+/%d/%s", i, pad)
		owner.interests[f] = &standing{node: owner, filter: f, qos: 1, promised: true}
		owner.do(func() { owner.n.Register(f, core.Interest{Plain: true, QoS: 1}, func(local bool) { promised++ }) })
	}
	s.run(5 * time.Second)
	if promised != many {
		t.Fatalf("%d of %d filters are promised", promised, many)
	}
	heard := func(when string) {
		t.Helper()
		for i := 0; i < many; i += many / 97 {
			v := s.nodes[1+i%(len(s.nodes)-1)]
			p := v.publish(fmt.Sprintf("%s-%d/%d/%s", when, i%7, i, pad), 1, false, "v")
			s.run(50 * time.Millisecond)
			s.after(0, func() {})
			if s.run(5 * time.Second); owner.from[p] != 1 {
				s.fail("%s: %s came %d times", when, p.m.Topic[:20], owner.from[p])
			}
		}
	}
	heard("first")
	for range 4 {
		s.join(s.add())
		s.run(5 * time.Second)
	}
	heard("joined")
	s.disconnect(owner, s.nodes[1])
	s.run(time.Second)
	s.connect(owner, s.nodes[1])
	s.run(5 * time.Second)
	heard("again")
	s.checkSets()
	for kind, most := range s.longest {
		if most > 2*proto.SoftFrame {
			s.fail("a %v of %d bytes was sent", kind, most)
		}
	}
	s.report(*seed)
}

// TestMuchRetained hands more over to a node that comes in than goes in one window.
func TestMuchRetained(t *testing.T) {
	s := newSim(t, *seed+1, time.Millisecond)
	s.connect(s.add(), s.add())
	s.run(3 * time.Second)
	payload := strings.Repeat("r", 100<<10)
	const many = 200 // 20 MiB: several windows
	for i := range many {
		s.nodes[i%2].publish(fmt.Sprintf("kept/%d", i), 1, true, payload)
		s.run(10 * time.Millisecond)
	}
	for range 3 {
		s.join(s.add())
		s.run(10 * time.Second)
	}
	s.checkSets()
	s.checkRetained()
	for i, v := range s.nodes {
		found := 0
		v.do(func() { v.n.Retained("kept/#", func(ms []*proto.Message) { found += len(ms) }, func() {}) })
		if s.run(5 * time.Second); found != many {
			s.fail("node %d finds %d of %d retained messages", i, found, many)
		}
	}
	s.report(*seed)
}

// TestUnanswered asks for what a node cannot do, and for what it does not answer: neither is waited for for ever.
func TestUnanswered(t *testing.T) {
	s := newSim(t, 1, time.Millisecond)
	a, b := s.add(), s.add()
	s.connect(a, b)
	s.run(time.Second)
	s.mute = func(frame any) bool { _, is := frame.(*pb.RetainedReply); return is }
	asked, answered := 0, 0
	for i := range 20 {
		asked++
		a.do(func() { a.n.Retained(fmt.Sprintf("t%d/x", i), func([]*proto.Message) {}, func() { answered++ }) })
	}
	s.run(time.Minute)
	if answered != asked {
		t.Errorf("%d of %d questions have ended", answered, asked)
	}
	if open := a.n.Open(); open > 0 {
		t.Errorf("%d operations are still waited for", open)
	}
	if a.n.Stats().Unanswered == 0 {
		t.Error("no operation counts as unanswered: the test does not test")
	}
}
