package rendezvous

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// deaf is a stream to nobody.
type deaf struct{ network.Stream }

func (deaf) SetDeadline(time.Time) error { return nil }
func (deaf) Reset() error                { return nil }

// bare is a Service with a link to a peer that is not there, whose writer does not run.
func bare(t *testing.T) (*node, *link) {
	t.Helper()
	n := start(t, newHost(t))
	l := addBare(n, "nobody")
	return n, l
}

func addBare(n *node, id peer.ID) *link {
	n.Service.mu.Lock()
	defer n.Service.mu.Unlock()
	l := &link{s: n.Service, id: id, up: true, node: core.MakeNodeID(1, string(id)), stop: func() {}}
	l.out = newOutbound(newRouteStream(deaf{}), &n.stats.Pending, n.Service.cfg.Pending.Peer)
	n.links[id], n.byNode[l.node] = l, l
	return l
}

// stock has so many bytes wait for a peer.
func (o *outbound) stock(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.Add(int64(n - o.pending))
	o.pending = n
}

func (s *Service) sendTo(l *link, f any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(&core.Effect{Kind: core.Send, To: l.node, Frame: f}, time.Now())
}

// TestSlowPeer: what waits for a peer that does not read is bounded: QoS 0 messages are dropped and counted
// first; then nothing more goes on its stream, and what is there still does.
func TestSlowPeer(t *testing.T) {
	n, l := bare(t)
	o := l.out
	message := &proto.Message{Topic: "t", Payload: make([]byte, 1000)}
	unkept := []any{&proto.Publish{Message: message}, &proto.Deliver{Message: message}}
	kept := []any{&proto.Publish{Message: message, Epoch: 1, Seq: 1}, &proto.Deliver{Message: message, Epoch: 1, Seq: 1}, &pb.Lease{Ask: 1}}
	sent := func(f any) bool {
		before := o.waiting()
		n.sendTo(l, f)
		return o.waiting() > before
	}
	for _, f := range append(unkept, kept...) {
		if !sent(f) {
			t.Errorf("%T is not sent to a peer that reads", f)
		}
	}
	o.stock(DefaultPending().unkept(0) + 1)
	for _, f := range unkept {
		dropped := n.Stats().DroppedQoS0.Load()
		if sent(f) || n.Stats().DroppedQoS0.Load() != dropped+1 {
			t.Errorf("%T at QoS 0 is not dropped and counted", f)
		}
	}
	for _, f := range kept {
		if !sent(f) {
			t.Errorf("%T is dropped", f)
		}
	}
	if n.Stats().Full.Load() > 0 {
		t.Error("the stream is full too early")
	}
	o.stock(DefaultPending().Peer + 1)
	for range 2 {
		if sent(kept[0]) {
			t.Error("more waits than may")
		}
	}
	o.stock(0)
	if sent(kept[2]) {
		t.Error("a frame passes one that was left out")
	}
	if full := n.Stats().Full.Load(); full != 1 {
		t.Errorf("%d streams are counted as full, want 1", full)
	}
	for {
		b, err := o.take()
		if errors.Is(err, errFull) {
			break
		}
		if err != nil || len(b) == 0 {
			t.Fatalf("the stream does not end when all is written: %d bytes, %v", len(b), err)
		}
	}
	select {
	case <-o.stream.gone:
		t.Error("what waited for a slow peer is thrown away")
	default:
	}
}

// TestSlowPeers: what waits for all peers is bounded: the streams go of the one that most waits for, and what
// waits for the others stays.
func TestSlowPeers(t *testing.T) {
	n, a := bare(t)
	b, c := addBare(n, "another"), addBare(n, "a third")
	gone := func(l *link) bool {
		select {
		case <-l.out.stream.gone:
			return true
		default:
			return false
		}
	}
	message := &proto.Message{Topic: "t", Payload: make([]byte, 1000)}
	kept, unkept := &proto.Publish{Message: message, Epoch: 1, Seq: 1}, &proto.Publish{Message: message}

	a.out.stock(DefaultPending().All / 4)
	b.out.stock(DefaultPending().All/2 - 100)
	c.out.stock(DefaultPending().All / 4)
	if n.sendTo(a, kept); !gone(b) || gone(a) || gone(c) {
		t.Fatalf("given up: %v %v %v, want the one that most waits for", gone(a), gone(b), gone(c))
	}
	if crowded := n.Stats().Crowded.Load(); crowded != 1 {
		t.Errorf("%d are counted, want 1", crowded)
	}
	if now, want := n.Stats().Pending.Load(), int64(a.out.waiting()+c.out.waiting()); now != want || b.out.waiting() > 0 {
		t.Errorf("%d bytes wait, and %d of what was given up, want %d", now, b.out.waiting(), want)
	}
	if n.sendTo(b, kept); b.out.waiting() > 0 {
		t.Error("a frame passes those that were thrown away")
	}

	c.out.stock(DefaultPending().Peer/96 + 1)
	a.out.stock(DefaultPending().All / 2)
	before := c.out.waiting()
	if n.sendTo(c, unkept); c.out.waiting() > before || n.Stats().DroppedQoS0.Load() != 1 {
		t.Error("QoS 0 goes on when what may wait is short")
	}
	c.out.stock(0)
	if n.sendTo(c, unkept); c.out.waiting() == 0 {
		t.Error("QoS 0 to a peer that reads is dropped for others that do not")
	}
}

// notReading adds a host to a swarm that opens its stream to a node, registers for everything below a level, and
// then does not read, nor says anything but that it grants its lease: without that it is out of reach after 5 s.
func notReading(t *testing.T) (h host.Host, join func(to *node, level string) (grant func())) {
	t.Helper()
	h = newHost(t)
	h.SetStreamHandler(proto.RouteProtocol, func(network.Stream) {})
	return h, func(to *node, level string) func() {
		t.Helper()
		connect(t, h, to.host)
		s := openRoute(t, h, to.host)
		name := core.MakeNodeID(9, string(h.ID()))
		want := &pb.Register{Place: &pb.Place{Prefix: level, Depth: 1}, Registration: &pb.Registration{Owner: []byte(name), Seq: 1,
			Interests: []*pb.Interest{{Filter: level + "/#", Plain: true, Qos: 1}}}}
		if _, err := s.Write(append(frame(hello(h.ID(), 9)), frame(want)...)); err != nil {
			t.Fatal(err)
		}
		return func() { // until its streams are given up
			_ = s.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = s.Write(frame(&pb.Lease{Granted: uint64(bootTime()), ForMs: 5000})) //nolint:gosec // not negative
		}
	}
}

// TestSlowReader: a subscriber's node that does not read costs itself its QoS 0 messages, and nobody else
// anything.
func TestSlowReader(t *testing.T) {
	nodes := swarm(t, 2)
	a, b := nodes[0], nodes[1]
	slow, join := notReading(t)
	level := levelOf(a, b.host, slow)
	b.subscribe(t, level+"/#")
	grant := join(a, level)
	eventually(t, "the slow node is registered", func() bool { return a.Gauges().Registrations == 2 })
	payload := strings.Repeat("x", 100_000)
	sent := 0
	eventually(t, "QoS 0 messages are dropped", func() bool {
		grant()
		for range 20 {
			a.publish(level+"/x", payload, 0, 0)
			sent++
		}
		return a.Stats().DroppedQoS0.Load() > 0
	})
	if may := DefaultPending().unkept(0); sent*len(payload) < may {
		t.Errorf("dropped after %d bytes, %d may wait", sent*len(payload), may)
	}
	for qos := byte(1); qos <= 2; qos++ {
		p := fmt.Sprint("at QoS ", qos)
		a.publish(level+"/x", p, qos, 1)
		eventually(t, p+" arrives at the other node", func() bool { return b.count()[p] == 1 })
	}
	_ = slow.Network().ClosePeer(a.host.ID())
}

// TestCrowd: peers that do not read cost themselves their streams when too much waits for all of them, and nobody
// else anything. The core is told that they are out of reach.
func TestCrowd(t *testing.T) {
	// More than four times what is on its way at once to who keeps second copies, so that it is never the good node that most
	// waits for, however late it reads: on a machine that is too busy, copies are made of what is not done in a second.
	const bound = 32 << 20
	nodes := swarm(t, 2, func(c *Config) { c.Pending.All = bound })
	a, b := nodes[0], nodes[1]
	const peers = 3
	var joins []func(*node, string) func()
	others := []host.Host{b.host}
	for range peers {
		slow, join := notReading(t)
		others, joins = append(others, slow), append(joins, join)
	}
	level := levelOf(a, others...)
	b.subscribe(t, level+"/#")
	var grants []func()
	for _, join := range joins {
		grants = append(grants, join(a, level))
	}
	eventually(t, "the slow nodes are registered", func() bool { return a.Gauges().Registrations == 1+peers })
	payload := strings.Repeat("x", 200_000)
	const count = 80 // for the slow peers a little of it is under way, the rest waits
	for i := range count {
		for _, grant := range grants {
			grant()
		}
		a.publish(level+"/x", fmt.Sprint(i, payload), 1, uint16(i+1))
		if waits := a.Stats().Pending.Load(); waits > bound {
			t.Fatalf("%d bytes wait, %d may", waits, bound)
		}
		eventually(t, "the good node reads", func() bool { return len(b.count()) == i+1 })
	}
	if a.Stats().Crowded.Load() == 0 {
		t.Fatal("nobody's streams were given up")
	}
	for p, times := range b.count() {
		if times != 1 {
			t.Errorf("%.10s... came %d times", p, times)
		}
	}
	eventually(t, "those given up are out of reach", func() bool {
		return slices.ContainsFunc(a.Peers(), func(p core.PeerView) bool { return !p.Up })
	})
	if broken := b.Stats().Broken.Load(); broken > 0 {
		t.Errorf("%d streams of the good node broke", broken)
	}
}

// TestFull: what is left out of a stream on which too much waits comes on the next, in order and once.
func TestFull(t *testing.T) {
	nodes := swarm(t, 2)
	a, b := nodes[0], nodes[1]
	level := levelOf(b, a.host)
	b.subscribe(t, level+"/#")
	const count = 50
	for i := range count {
		if i == count/2 {
			a.Service.mu.Lock()
			o := a.links[b.host.ID()].out
			o.mu.Lock()
			o.full = true
			o.mu.Unlock()
			wake(o.wake)
			a.Service.mu.Unlock()
		}
		a.publish(level+"/x", fmt.Sprint(i), 1+byte(i%2), uint16(i+1))
	}
	eventually(t, "all have come", func() bool { return len(b.count()) == count })
	settled(t, a, b)
	if a.Stats().Broken.Load() == 0 {
		t.Error("the streams were not renewed")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, p := range b.order {
		if p != fmt.Sprint(i) {
			t.Fatalf("%q comes where %d is next", p, i)
		}
	}
}

// TestUnsendable: a frame that no peer would take is left out, counted, and told of once; what is before and behind
// it goes on.
func TestUnsendable(t *testing.T) {
	var told warnings
	nodes := swarm(t, 2, func(c *Config) { c.Log = slog.New(&told) })
	a, b := nodes[0], nodes[1]
	b.subscribe(t, "t/#")
	crosses(t, a, b, "t/x", "before")
	l := a.linkTo(b.host)
	long := &proto.Message{Topic: "t/x", Payload: make([]byte, proto.MaxFrame)}
	for _, f := range []any{
		&proto.Publish{Message: long, Epoch: 1, Seq: 1}, &proto.Publish{Message: long, Epoch: 1, Seq: 2},
		&pb.Nodes{Known: []*pb.Known{{Addresses: []string{"\xff"}}}},
	} {
		a.sendTo(l, f)
	}
	crosses(t, a, b, "t/x", "after")
	if n := a.Stats().Unsendable.Load(); n != 3 {
		t.Errorf("%d are counted, want 3", n)
	}
	if n := told.count.Load(); n != 2 {
		t.Errorf("%d warnings, want one for each kind", n)
	}
	if n := a.Stats().Broken.Load() + b.Stats().Broken.Load(); n > 0 {
		t.Errorf("%d streams broke", n)
	}
}

// warnings counts them.
type warnings struct{ count atomic.Int32 }

func (w *warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (w *warnings) Handle(context.Context, slog.Record) error    { w.count.Add(1); return nil }
func (w *warnings) WithAttrs([]slog.Attr) slog.Handler           { return w }
func (w *warnings) WithGroup(string) slog.Handler                { return w }

// TestLeasesGoFirst has a lease behind many messages: it is written before them, and they keep their order.
func TestLeasesGoFirst(t *testing.T) {
	var all atomic.Int64
	o := newOutbound(nil, &all, DefaultPending().Peer)
	o.put(hello("peer", 1), time.Now(), DefaultPending().Peer)
	for i := range 3 {
		o.put(publishFrame(i, 2*chunkSize), time.Now(), DefaultPending().Peer)
	}
	o.put(&pb.Lease{Ask: 7}, time.Now(), DefaultPending().Peer)
	o.put(publishFrame(3, 10), time.Now(), DefaultPending().Peer)
	var came []string
	for {
		b, err := o.take()
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			break
		}
		for rest := b; len(rest) > 0; {
			kind, body, tail, _, err := proto.Next(rest)
			if err != nil {
				t.Fatal(err)
			}
			f, err := new(proto.Decoder).Decode(kind, body, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if p, is := f.(*proto.Publish); is {
				came = append(came, fmt.Sprint(p.Seq))
			} else {
				came = append(came, fmt.Sprintf("%T", f))
			}
			rest = tail
		}
		o.written(b)
	}
	if got := fmt.Sprint(came); got != "[*pb.Hello 1 *pb.Lease 2 3 4]" {
		t.Errorf("what was written is %s", got)
	}
	if o.waiting() != 0 || all.Load() != 0 {
		t.Errorf("%d bytes wait for the peer, %d for all", o.waiting(), all.Load())
	}
}

// BenchmarkOutbound puts messages on a stream that is written meanwhile: what waits in one buffer is written while the next is
// filled. In the steady state it allocates nothing.
func BenchmarkOutbound(b *testing.B) {
	for _, size := range []int{64, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			o := newOutbound(nil, new(atomic.Int64), DefaultPending().Peer)
			frame, now := publishFrame(1, size), time.Now()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if o.put(frame, now, chunkCap<<5) != queued {
					b.Fatal("not queued")
				}
				if i%1000 > 0 {
					continue
				}
				for {
					chunk, err := o.take()
					if err != nil {
						b.Fatal(err)
					}
					if len(chunk) == 0 {
						break
					}
					o.written(chunk)
				}
			}
		})
	}
}
