package rendezvous

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// hello is the Hello of a host whose database has this ID.
func hello(id peer.ID, database uint64) *pb.Hello {
	return &pb.Hello{Node: []byte(core.MakeNodeID(database, string(id))), Version: proto.RouteVersion, Life: 1}
}

func frame(f any) []byte { return proto.AppendFrame(nil, f, time.Now()) }

// openRoute opens a route stream as a node would, without saying anything.
func openRoute(t *testing.T, from, to host.Host) network.Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := from.NewStream(ctx, to.ID(), proto.RouteProtocol)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	return s
}

// TestBadPeer: a peer that breaks the protocol costs its own stream, which is counted, and nobody else's.
func TestBadPeer(t *testing.T) {
	nodes := swarm(t, 2)
	a, b := nodes[0], nodes[1]
	b.subscribe(t, "t/#")
	broken := a.Stats().Broken.Load() + b.Stats().Broken.Load()
	other := newHost(t)
	garbage := append([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), make([]byte, 500)...) // how TLS begins
	tooLong := []byte{0x81, 0x80, 0xc0, 0x08, byte(proto.KindAck)}
	badPublish := []byte{2, byte(proto.KindPublish), 0xff}
	for _, c := range []struct {
		name string
		send func(id peer.ID) []byte
	}{
		{"garbage", func(peer.ID) []byte { return garbage }},
		{"an overlong frame", func(peer.ID) []byte { return tooLong }},
		{"nothing in a frame", func(peer.ID) []byte { return []byte{0} }},
		{"no Hello first", func(peer.ID) []byte { return frame(&pb.Ack{Ops: []uint64{1}}) }},
		{"a message before Hello", func(id peer.ID) []byte { return append(frame(publishFrame(1, 10)), frame(hello(id, 1))...) }},
		{"Hello without a name", func(peer.ID) []byte { return frame(&pb.Hello{Version: 1}) }},
		{"Hello with a short name", func(peer.ID) []byte { return frame(&pb.Hello{Node: make([]byte, 15)}) }},
		{"Hello with a long name", func(peer.ID) []byte { return frame(&pb.Hello{Node: make([]byte, 81)}) }},
		{"another's name", func(peer.ID) []byte { return frame(hello(other.ID(), 1)) }},
		{"the name of the node it talks to", func(peer.ID) []byte { return frame(hello(a.host.ID(), 1)) }},
		{"the name of a node that is there", func(peer.ID) []byte { return frame(hello(b.host.ID(), 1)) }},
		{"garbage behind Hello", func(id peer.ID) []byte { return append(frame(hello(id, 1)), garbage...) }},
		{"an overlong frame behind Hello", func(id peer.ID) []byte { return append(frame(hello(id, 1)), tooLong...) }},
		{"a bad message behind Hello", func(id peer.ID) []byte { return append(frame(hello(id, 1)), badPublish...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := newHost(t)
			bad.SetStreamHandler(proto.RouteProtocol, func(s network.Stream) { // it may be needed for the link to come up
				_, _ = io.Copy(io.Discard, s)
				_ = s.Reset()
			})
			connect(t, bad, a.host)
			before := a.Stats().Malformed.Load()
			s := openRoute(t, bad, a.host)
			if _, err := s.Write(c.send(bad.ID())); err != nil {
				t.Fatal(err)
			}
			if n, err := s.Read(make([]byte, 1)); err == nil || n > 0 {
				t.Fatalf("the stream is not ended: %d bytes, %v", n, err)
			}
			eventually(t, "it is counted", func() bool { return a.Stats().Malformed.Load() == before+1 })
			crosses(t, a, b, "t/x", c.name)
			_ = bad.Network().ClosePeer(a.host.ID())
		})
	}
	if now := b.Stats().Broken.Load(); now > broken {
		t.Errorf("%d streams between the good nodes broke", now-broken)
	}
	if up := b.Stats().Up.Load(); up != 1 {
		t.Errorf("%d peers are up, want 1", up)
	}
}

// TestUnknownFrames: frames and fields of a newer version are skipped, and the link stays up.
func TestUnknownFrames(t *testing.T) {
	a := start(t, newHost(t))
	newer := newHost(t)
	got := make(chan any, 100)
	newer.SetStreamHandler(proto.RouteProtocol, func(s network.Stream) {
		r := &reader{stream: s, stats: new(Stats)}
		for {
			fs, err := r.next()
			if err != nil {
				return
			}
			for _, f := range fs {
				got <- f
			}
		}
	})
	connect(t, newer, a.host)
	s := openRoute(t, newer, a.host)
	b := frame(hello(newer.ID(), 7))
	b = append(b, 5, 0x7e, 1, 2, 3, 4)
	b = append(b, frame(&pb.Lease{Ask: 42})...)
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
	first := true
	for {
		select {
		case f := <-got:
			if _, ok := f.(*pb.Hello); ok != first {
				t.Fatalf("%T comes, first %v", f, first)
			}
			first = false
			if l, ok := f.(*pb.Lease); ok && l.GetGranted() == 42 {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the lease that was asked for behind an unknown frame is not granted")
		}
	}
}

// bare is a Service with a link to a peer that is not there, whose writer does not run.
func bare(t *testing.T) (*node, *link) {
	t.Helper()
	n := start(t, newHost(t))
	l := &link{s: n.Service, id: "nobody", wake: make(chan struct{}, 1), broken: make(chan struct{}, 1)}
	l.cond.L = &l.mu
	l.up, l.node = true, "01234567nobody-is-here"
	n.Service.mu.Lock()
	defer n.Service.mu.Unlock()
	n.byNode[l.node] = l
	return n, l
}

// TestSlowPeer: what waits for a peer that does not read is bounded: QoS 0 messages are dropped and counted
// first, then its link is broken.
func TestSlowPeer(t *testing.T) {
	n, l := bare(t)
	s := n.Service
	s.mu.Lock()
	defer s.mu.Unlock()
	defer delete(s.byNode, l.node)
	send := func(f any) { s.sendLocked(&core.Effect{Kind: core.Send, To: l.node, Frame: f}, time.Now()) }
	message := &proto.Message{Topic: "t", Payload: make([]byte, 1000)}
	unkept := []any{&proto.Publish{Message: message}, &proto.Deliver{Message: message}}
	kept := []any{&proto.Publish{Message: message, Epoch: 1, Seq: 1}, &proto.Deliver{Message: message, Epoch: 1, Seq: 1}, &pb.Lease{Ask: 1}}

	for _, f := range append(unkept, kept...) {
		before := len(l.buf)
		if send(f); len(l.buf) <= before {
			t.Errorf("%T is not sent to a peer that reads", f)
		}
	}
	l.buf = make([]byte, maxUnkept+1)
	for _, f := range unkept {
		dropped := s.stats.DroppedQoS0.Load()
		if send(f); len(l.buf) > maxUnkept+1 || s.stats.DroppedQoS0.Load() != dropped+1 {
			t.Errorf("%T at QoS 0 is not dropped and counted", f)
		}
	}
	for _, f := range kept {
		before := len(l.buf)
		if send(f); len(l.buf) <= before {
			t.Errorf("%T is dropped", f)
		}
	}
	select {
	case <-l.broken:
		t.Error("the link is broken too early")
	default:
	}
	l.buf = make([]byte, maxPending+1)
	if send(kept[0]); len(l.buf) > maxPending+1 {
		t.Error("more waits than may")
	}
	select {
	case <-l.broken:
	default:
		t.Error("the link is not broken")
	}
}

// TestSlowReader: a subscriber's node that does not read costs itself its QoS 0 messages, and nobody else
// anything.
func TestSlowReader(t *testing.T) {
	nodes := swarm(t, 2)
	a, b := nodes[0], nodes[1]
	b.subscribe(t, "t/#")
	slow := newHost(t)
	slow.SetStreamHandler(proto.RouteProtocol, func(network.Stream) {}) // takes the stream and does not read it
	connect(t, slow, a.host)
	name := core.MakeNodeID(9, string(slow.ID()))
	s := openRoute(t, slow, a.host)
	want := &pb.Register{Place: &pb.Place{Prefix: "t", Depth: 1}, Registration: &pb.Registration{Owner: []byte(name), Seq: 1,
		Interests: []*pb.Interest{{Filter: "t/#", Plain: true}}}}
	if _, err := s.Write(append(frame(hello(slow.ID(), 9)), frame(want)...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slow node is up", func() bool { return a.Stats().Up.Load() == 2 })
	payload := strings.Repeat("x", 100_000)
	sent := 0
	eventually(t, "QoS 0 messages are dropped", func() bool {
		for range 20 {
			a.publish("t/x", payload, 0, 0)
			sent++
		}
		return a.Stats().DroppedQoS0.Load() > 0
	})
	if sent*len(payload) < maxUnkept {
		t.Errorf("dropped after %d bytes, %d may wait", sent*len(payload), maxUnkept)
	}
	for qos := byte(1); qos <= 2; qos++ {
		p := fmt.Sprint("at QoS ", qos)
		a.publish("t/x", p, qos, 1)
		eventually(t, p+" arrives at the other node", func() bool { return b.count()[p] == 1 })
	}
	_ = slow.Network().ClosePeer(a.host.ID())
}

// TestCloseWithSilentPeer: a stream on which nothing is said holds nothing up, and nothing of it is left.
func TestCloseWithSilentPeer(t *testing.T) {
	a := start(t, newHost(t))
	silent := newHost(t)
	connect(t, silent, a.host)
	s := openRoute(t, silent, a.host)
	if _, err := s.Write([]byte{40}); err != nil { // so that the stream is there: it is negotiated lazily
		t.Fatal(err)
	}
	eventually(t, "the stream is read", func() bool { return strings.Contains(running(), "(*link).read(") })
	begun := time.Now()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > openTimeout/2 {
		t.Errorf("Close takes %v", took)
	}
	eventually(t, "no goroutine of the service is left", func() bool { return running() == "" })
}
