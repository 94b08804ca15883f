package rendezvous

import (
	"context"
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
		{"a Hello that is too long", func(peer.ID) []byte { return []byte{0x81, 0x80, 0x80, 0x02, 1} }}, // 4 MiB and one byte: no more has to come
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

// TestCloseWithSilentPeer: a stream on which nothing is said holds nothing up, and ends with Close.
func TestCloseWithSilentPeer(t *testing.T) {
	a := start(t, newHost(t))
	silent := newHost(t)
	connect(t, silent, a.host)
	s := openRoute(t, silent, a.host)
	if _, err := s.Write([]byte{40}); err != nil { // so that the stream is there: it is negotiated lazily
		t.Fatal(err)
	}
	eventually(t, "the stream is read", func() bool { return strings.Contains(running(), "(*link).read(") })
	returns(t, "Close", func() { _ = a.Close() })
	if n, err := s.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Errorf("the stream is not ended: %d bytes, %v", n, err)
	}
	eventually(t, "no goroutine of the service is left", func() bool { return running() == "" })
	if m := a.Stats().Malformed.Load(); m > 0 {
		t.Error("the stream was held until the peer's time for Hello was over")
	}
}

// TestOneGreeting opens more streams and says nothing on them: a peer has one at a time before it says Hello.
func TestOneGreeting(t *testing.T) {
	a := start(t, newHost(t))
	mute := newHost(t)
	mute.SetStreamHandler(proto.RouteProtocol, func(s network.Stream) {
		_, _ = io.Copy(io.Discard, s)
		_ = s.Reset()
	})
	connect(t, mute, a.host)
	first := openRoute(t, mute, a.host)
	if _, err := first.Write([]byte{0x80}); err != nil { // so that it is opened
		t.Fatal(err)
	}
	eventually(t, "the first is read", func() bool { // libp2p may hand streams over in another order than they were opened in
		l := a.linkTo(mute)
		a.Service.mu.Lock()
		defer a.Service.mu.Unlock()
		return l != nil && l.greeting != nil
	})
	second := openRoute(t, mute, a.host)
	if _, err := second.Write(frame(hello(mute.ID(), 1))); err != nil {
		t.Fatal(err)
	}
	if n, err := first.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Fatalf("the first stream is not ended: %d bytes, %v", n, err)
	}
	eventually(t, "the second is taken", func() bool { return a.Stats().Up.Load() == 1 })
}
