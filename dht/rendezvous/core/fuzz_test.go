package core_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Two of these are the nodes that the frames of proto's table tell of.
var fuzzedNodes = [3]core.NodeID{
	"\x21\x22\x23\x24\x25\x26\x27\x28peer-own", "\x01\x02\x03\x04\x05\x06\x07\x08peer-one", "\x11\x12\x13\x14\x15\x16\x17\x18peer-two",
}

// trio is a swarm of three that are connected without delay.
type trio struct {
	t     testing.TB
	now   time.Duration
	nodes [3]*core.Node
	sent  [][]byte // what went to the first node, when it is noted
	note  bool
	later []func() // what takes its time: lookups
}

func newTrio(t testing.TB) *trio {
	s := &trio{t: t, now: time.Hour}
	for i, id := range fuzzedNodes {
		s.nodes[i] = core.New(core.Config{Self: id, Depth: 1 + i%2, Small: 10, Limits: core.DefaultLimits(),
			Rand: rand.New(rand.NewPCG(uint64(i), 1)), Custody: storetest.NewCustody(), Retained: storetest.NewRetained(), Journal: storetest.NewJournal(), Received: storetest.NoneReceived{}, Log: simLog()})
		s.nodes[i].At(s.now, epochStart.Add(s.now))
	}
	for i, a := range s.nodes {
		for k := range s.nodes {
			if i != k {
				b := s.nodes[k]
				a.Up(b.Hello(1, []string{"/ip4/192.0.2.1/tcp/1"}))
			}
		}
	}
	return s
}

// pass lets time pass in steps of 100 ms.
func (s *trio) pass(d time.Duration) {
	for end := s.now + d; s.now < end; s.now += 100 * time.Millisecond {
		for _, n := range s.nodes {
			n.At(s.now, epochStart.Add(s.now))
			n.Tick()
		}
		later := s.later
		s.later = nil
		for _, f := range later {
			f()
		}
		s.settle()
	}
}

// settle carries out effects until there are none. What one frame leads to must end some time.
func (s *trio) settle() {
	const most = 20_000
	steps := 0
	var last []string // that were said, for whoever has to find out why
	for busy := true; busy; {
		busy = false
		for i, n := range s.nodes {
			for _, e := range n.Take(nil) {
				if steps++; steps > most-12 {
					last = append(last, fmt.Sprintf("%d, kind %d, to %.28q: %T %.300v", i, e.Kind, string(e.To), e.Frame, e.Frame))
				}
				if steps > most {
					s.t.Fatalf("nodes go on talking about what one of them heard: %s", strings.Join(last, "\n"))
				}
				busy = true
				s.carryOut(i, &e)
			}
		}
	}
}

func (s *trio) carryOut(from int, e *core.Effect) {
	n := s.nodes[from]
	switch e.Kind {
	case core.Send:
		wire := proto.AppendFrame(nil, e.Frame, epochStart.Add(s.now))
		kind, body, _, _, err := proto.Next(wire)
		if err != nil {
			s.t.Fatalf("node %d sends %T, which nobody can read: %v", from, e.Frame, err)
		}
		frame, err := new(proto.Decoder).Decode(kind, body, epochStart.Add(s.now))
		if err != nil {
			s.t.Fatalf("node %d sends %+v, which nobody takes: %v", from, e.Frame, err)
		}
		for i, id := range fuzzedNodes {
			if id == e.To && i != from {
				if i == 0 && s.note {
					s.sent = append(s.sent, wire)
				}
				s.nodes[i].Receive(fuzzedNodes[from], frame)
			}
		}
	case core.Deliver:
		if r := e.Delivery.Receipt; r != nil {
			n.Done(r)
		}
	case core.Call:
		e.Call()
	case core.Lookup:
		place := e.Place
		s.later = append(s.later, func() {
			n.LookedUp(place, []string{fuzzedNodes[0].Peer(), fuzzedNodes[1].Peer(), fuzzedNodes[2].Peer()})
		})
	}
}

// life has every node subscribe, publish and ask.
func (s *trio) life() {
	for i, n := range s.nodes {
		for _, filter := range []string{"a/#", "a/b", "+/x"} {
			n.Register(filter, core.Interest{QoS: byte(i), Plain: true, Groups: []core.GroupInterest{{Name: "g", Members: 1, QoS: 1, Online: true}}}, func(bool) {})
		}
		for qos := range byte(3) {
			n.Publish(core.Publication{Message: &proto.Message{Topic: "a/b", Payload: []byte{byte(i)}, QoS: qos, Retain: qos == 1}})
		}
		n.Retained("a/+", func([]*proto.Message) {}, func() {})
		s.settle()
	}
}

// tableFrames are the frames of proto's table.
func tableFrames(f testing.TB) (all [][]byte) {
	files, err := filepath.Glob("../../../proto/testdata/frames/*.hex")
	if err != nil || len(files) == 0 {
		f.Fatalf("no frames: %v", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		b, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// frameSeeds are the frames of proto's table, and what three nodes say to each other.
func frameSeeds(f *testing.F) [][]byte {
	all := tableFrames(f)
	s := newTrio(f)
	s.note = true
	s.pass(time.Second)
	s.life()
	s.pass(4 * time.Second)
	s.nodes[1].WithdrawAll()
	s.nodes[1].Leave()
	s.pass(4 * time.Second)
	seen := map[string]bool{}
	for i, wire := range s.sent {
		if i%8 == 0 && i+8 < len(s.sent) {
			var run []byte
			for _, w := range s.sent[i : i+8] {
				run = append(run, w...)
			}
			all = append(all, run)
		}
		if kind := string(wire[1:2]); !seen[kind] {
			seen[kind] = true
			all = append(all, wire)
		}
	}
	return all
}

// FuzzReceive lets a node of a swarm that is at work hear any frames from another: it must not panic, send what
// cannot be sent, nor talk for ever.
func FuzzReceive(f *testing.F) {
	for i, b := range frameSeeds(f) {
		f.Add(byte(i), b)
	}
	f.Fuzz(func(t *testing.T, how byte, b []byte) {
		s := newTrio(t)
		s.pass(300 * time.Millisecond)
		if how&1 != 0 {
			s.life()
			s.pass(time.Second)
		}
		from := fuzzedNodes[1+how>>1&1]
		for n := 0; len(b) > 0 && n < 64; n++ {
			kind, body, rest, _, err := proto.Next(b)
			if err != nil {
				break
			}
			b = rest
			frame, err := new(proto.Decoder).Decode(kind, body, epochStart.Add(s.now))
			if err != nil || frame == nil {
				continue
			}
			if h, ok := frame.(*pb.Hello); ok {
				h.Node = []byte(from) // the driver has made sure of that
				s.nodes[0].Up(h)
			} else {
				s.nodes[0].Receive(from, frame)
			}
			s.settle()
			if how&4 != 0 {
				s.pass(100 * time.Millisecond)
			}
		}
		s.pass(2 * time.Second)
		if how&1 == 0 {
			s.life()
		}
		if how&8 != 0 {
			s.nodes[0].WithdrawAll()
			s.nodes[0].Leave()
		}
		s.nodes[0].Down(from)
		s.pass(time.Second)
	})
}
