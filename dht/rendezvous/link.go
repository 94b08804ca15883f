package rendezvous

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// What is ours to tune.
const (
	// openTimeout bounds the opening of a stream and the wait for the peer's.
	openTimeout = 10 * time.Second
	// reopenFirst and reopenMax bound the wait before a stream that broke is opened again.
	reopenFirst = 50 * time.Millisecond
	reopenMax   = 5 * time.Second
)

// Stats counts what happens on the route streams.
type Stats struct {
	FramesIn, FramesOut, BytesIn, BytesOut, Writes atomic.Uint64
	DroppedQoS0                                    atomic.Uint64 // too much waited for the peer
	Broken                                         atomic.Uint64 // streams that ended while the peer was connected
	Full                                           atomic.Uint64 // of these, because too much waited for the peer
	Crowded                                        atomic.Uint64 // and because too much waited for all peers
	Unsendable                                     atomic.Uint64 // frames left out because no peer would take them
	Malformed                                      atomic.Uint64 // streams ended for what came on them
	Up                                             atomic.Int64  // peers with a stream in each direction, now
	Pending                                        atomic.Int64  // bytes that wait for all peers, now
}

// Stats returns the counters.
func (s *Service) Stats() *Stats { return &s.stats }

// link is the pair of streams between this node and a connected peer: one that this node writes, one that it
// reads. It is up, and the core knows, when both are there and the peer has said Hello. When either breaks,
// both go, and new ones are opened while the peer stays connected.
//
// A link is made when OnPeer tells of the peer, or when a stream comes from one that is connected: libp2p knows
// earlier than OnPeer's caller. It ends when OnPeer tells that the peer is lost. Where OnPeer has not told of
// the peer yet, and so may never tell that it is lost, the link ends by itself when it finds it unconnected.
// (A link that OnPeer told of does not: a peer that is lost and back at once is told of neither time.)
type link struct {
	s    *Service
	id   peer.ID
	stop context.CancelFunc
	ctx  context.Context

	// Guarded by Service.mu.
	told     bool         // of, by OnPeer
	greeting *routeStream // that the peer has opened and not said Hello on yet
	out      *outbound
	in       *inbound
	up       bool
	node     core.NodeID
	dirty    bool
}

// inbound is a stream that a peer has opened and said Hello on.
type inbound struct {
	stream *routeStream
	hello  *pb.Hello
	up     chan struct{} // closed when its frames may come
}

// linkLocked returns the link to a connected peer. The caller holds Service.mu, and the Service is not closed.
func (s *Service) linkLocked(id peer.ID) *link {
	l := s.links[id]
	if l == nil {
		l = &link{s: s, id: id}
		l.ctx, l.stop = context.WithCancel(s.ctx)
		s.links[id] = l
		s.wg.Go(l.runLink)
	}
	return l
}

// end stops the link for good.
func (l *link) end() { l.stop() }

func (s *Service) connected(id peer.ID) bool {
	return s.cfg.Host.Network().Connectedness(id) == network.Connected
}

// runLink opens the stream to the peer and writes it, again and again while the peer is connected.
func (l *link) runLink() {
	wait := reopenFirst
	for l.ctx.Err() == nil {
		since := time.Now()
		err := l.useStream()
		if !l.goesOn() {
			break
		}
		if time.Since(since) > reopenMax {
			wait = reopenFirst
		}
		l.s.log.Debug("route stream broke; opening it again", "peer", l.id, "in", wait, "error", err)
		select {
		case <-time.After(wait):
		case <-l.ctx.Done():
		}
		wait = min(2*wait, reopenMax)
	}
	l.s.mu.Lock()
	l.s.dropLocked(l, context.Canceled)
	if l.s.links[l.id] == l {
		delete(l.s.links, l.id)
	}
	l.s.finish()
}

// goesOn reports whether the link is needed after its stream broke. Where not, it is a link no more when goesOn
// returns: whoever tells of the peer from then on makes another.
func (l *link) goesOn() bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	switch {
	case l.ctx.Err() != nil:
		return false
	case l.s.connected(l.id):
		l.s.stats.Broken.Add(1)
		return true
	case l.told:
		return true
	}
	delete(l.s.links, l.id)
	l.end()
	return false
}

// useStream opens the stream to the peer, and has what waits written until the stream breaks.
func (l *link) useStream() error {
	stream, err := l.open(l.ctx)
	if err != nil {
		return err
	}
	defer stream.cut()
	defer context.AfterFunc(l.ctx, stream.cut)()
	o := newOutbound(stream, &l.s.stats.Pending, l.s.cfg.Pending.Peer)
	if err := l.begin(o); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- o.runWriter(&l.s.stats) }()
	go o.runWatch()
	select {
	case err = <-ended:
	case <-stream.gone:
		err = errGivenUp
	}
	l.s.mu.Lock()
	if l.out == o { // else the reader was quicker
		l.s.dropLocked(l, err)
	}
	l.s.finish()
	return err
}

// begin makes a stream the one that is written, with Hello as its first frame.
func (l *link) begin(o *outbound) error {
	addresses := l.s.cfg.Addresses()
	l.s.mu.Lock()
	l.s.core.At(bootTime(), time.Now())
	hello := l.s.core.Hello(l.s.cfg.Life, addresses)
	if o.put(hello, time.Now(), o.limit) != queued {
		l.s.unsendable(l, hello)
		l.s.mu.Unlock()
		return errors.New("no node would take this one's Hello")
	}
	wake(o.wake)
	l.out = o
	l.s.bringUpLocked(l)
	l.s.finish()
	return nil
}

// bringUpLocked tells the core of a peer when both streams are there.
func (s *Service) bringUpLocked(l *link) {
	if l.up || l.out == nil || l.in == nil || s.closed {
		return
	}
	l.up = true
	l.node = core.NodeID(l.in.hello.GetNode())
	s.byNode[l.node] = l
	s.stats.Up.Add(1)
	s.core.At(bootTime(), time.Now())
	s.core.Up(l.in.hello)
	close(l.in.up)
}

// dropLocked gives up the streams of a link.
func (s *Service) dropLocked(l *link, why error) {
	if l.up {
		l.up = false
		delete(s.byNode, l.node)
		s.stats.Up.Add(-1)
		s.core.At(bootTime(), time.Now())
		s.core.Down(l.node)
		s.log.Debug("peer out of reach", "peer", l.id, "why", why)
	}
	if l.out != nil {
		l.out.giveUp()
		l.out = nil
	}
	if l.in != nil {
		l.in.stream.cut()
		l.in = nil
	}
}

// read reads a stream that the peer has opened, until it ends.
func (l *link) read(stream *routeStream) {
	defer stream.cut()
	defer context.AfterFunc(l.ctx, stream.cut)()
	in := &inbound{stream: stream, up: make(chan struct{})}
	r := &reader{stream: stream, stats: &l.s.stats, first: maxHello}
	l.s.mu.Lock()
	before := l.greeting
	l.greeting = stream
	l.s.mu.Unlock()
	if before != nil {
		before.cut() // a peer that opens its stream anew has given it up
	}
	_ = stream.SetReadDeadline(time.Now().Add(openTimeout))
	frames, err := r.next()
	if err == nil {
		err = l.greet(in, frames)
	}
	l.s.mu.Lock()
	if l.greeting == stream {
		l.greeting = nil
	}
	l.s.mu.Unlock()
	if err != nil {
		l.refuse(stream, err)
		return
	}
	_ = stream.SetReadDeadline(time.Time{})
	select {
	case <-in.up:
	case <-stream.gone:
		return
	}
	frames = frames[1:]
	for {
		if len(frames) > 0 {
			l.receive(in, frames)
		}
		if frames, err = r.next(); err != nil {
			break
		}
	}
	l.ended(in, err)
}

// greet takes the peer's Hello. A stream that comes while another is in use means that the peer has given the
// other up.
func (l *link) greet(in *inbound, frames []any) error {
	hello, ok := frames[0].(*pb.Hello)
	if !ok {
		return fmt.Errorf("%w: the first frame is a %T, want Hello", proto.ErrMalformed, frames[0])
	}
	node := hello.GetNode()
	if len(node) < proto.MinNodeSize || len(node) > proto.MaxNodeSize || core.NodeID(node).Peer() != string(l.id) {
		return fmt.Errorf("%w: Hello of another node", proto.ErrMalformed)
	}
	in.hello = hello
	s := l.s
	s.mu.Lock()
	if s.links[l.id] != l || s.closed {
		s.mu.Unlock()
		return context.Canceled
	}
	if l.in != nil {
		s.dropLocked(l, errors.New("the peer opened its stream anew"))
	}
	l.in = in
	s.bringUpLocked(l)
	s.finish()
	return nil
}

func (l *link) receive(in *inbound, frames []any) {
	s := l.s
	s.mu.Lock()
	if l.in != in || !l.up || s.closed {
		s.mu.Unlock()
		return
	}
	s.core.At(bootTime(), time.Now())
	for _, f := range frames {
		s.core.Receive(l.node, f)
	}
	s.finish()
}

// ended gives the link's streams up when the one that is read has ended.
func (l *link) ended(in *inbound, err error) {
	s := l.s
	if errors.Is(err, proto.ErrMalformed) || errors.Is(err, proto.ErrTooLong) {
		s.stats.Malformed.Add(1)
		s.log.Warn("ended the stream of a peer that breaks the protocol", "peer", l.id, "error", err)
	}
	s.mu.Lock()
	if l.in == in {
		s.dropLocked(l, err)
	}
	s.finish()
}

// refuse notes that a stream ends before the peer has said Hello.
func (l *link) refuse(stream *routeStream, err error) {
	select {
	case <-stream.gone: // this node's doing
		return
	default:
	}
	if !errors.Is(err, context.Canceled) && !errors.Is(err, io.EOF) {
		l.s.stats.Malformed.Add(1)
		l.s.log.Debug("refused a route stream", "peer", l.id, "error", err)
	}
}
