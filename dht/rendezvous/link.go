package rendezvous

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
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
	// maxUnkept is how many bytes may wait for a peer before QoS 0 messages to it are dropped.
	maxUnkept = 8 << 20
	// maxPending is how many bytes may wait for a peer at all. A peer that lets more gather does not read:
	// its link is broken, and what must not be lost is sent again on the next.
	maxPending = 128 << 20
	// writeTimeout is how long a peer may leave its stream unread.
	writeTimeout = 20 * time.Second
	// openTimeout bounds the opening of a stream and the wait for the peer's.
	openTimeout = 10 * time.Second
	// reopenFirst and reopenMax bound the wait before a stream that broke is opened again.
	reopenFirst = 50 * time.Millisecond
	reopenMax   = 5 * time.Second
	// keepBuffer is how large a write buffer is kept for the next burst, in bytes.
	keepBuffer = 256 << 10
)

// Stats counts what happens on the route streams.
type Stats struct {
	FramesIn, FramesOut, BytesIn, BytesOut, Writes atomic.Uint64
	DroppedQoS0                                    atomic.Uint64 // too much waited for the peer
	Broken                                         atomic.Uint64 // streams that ended other than by the peer's leaving
	Malformed                                      atomic.Uint64 // streams ended for what came on them
	Up                                             atomic.Int64  // peers with a stream in each direction, now
}

// Stats returns the counters.
func (s *Service) Stats() *Stats { return &s.stats }

// link is the pair of streams between this node and a connected peer: one that this node writes, one that it
// reads. It is up, and the core knows, when both are there and the peer has said Hello. When either breaks,
// both go, and new ones are opened while the peer stays connected.
type link struct {
	s    *Service
	id   peer.ID
	stop context.CancelFunc
	ctx  context.Context

	// Guarded by Service.mu.
	out   network.Stream
	in    *inbound
	up    bool
	node  core.NodeID
	dirty bool

	mu      sync.Mutex
	cond    sync.Cond // flushing: the writer has nothing left
	buf     []byte
	writing bool
	full    bool // too much waits: the streams are to be renewed
	wake    chan struct{}
	broken  chan struct{} // the streams in use are to be given up
}

// inbound is a stream that a peer has opened and said Hello on.
type inbound struct {
	stream network.Stream
	hello  *pb.Hello
	up     chan struct{} // closed when its frames may come
	gone   chan struct{} // closed when another has taken its place
}

// linkLocked returns the link to a connected peer. The caller holds Service.mu.
func (s *Service) linkLocked(id peer.ID) *link {
	l := s.links[id]
	if l == nil {
		l = &link{s: s, id: id, wake: make(chan struct{}, 1), broken: make(chan struct{}, 1)}
		l.cond.L = &l.mu
		l.ctx, l.stop = context.WithCancel(s.ctx)
		s.links[id] = l
		s.wg.Go(l.runLink)
	}
	return l
}

// end stops the link for good.
func (l *link) end() { l.stop() }

// runLink opens the stream to the peer and writes it, again and again while the peer is connected.
func (l *link) runLink() {
	wait := reopenFirst
	for l.ctx.Err() == nil {
		since := time.Now()
		err := l.runWriter()
		if l.ctx.Err() != nil {
			break
		}
		if time.Since(since) > reopenMax {
			wait = reopenFirst
		}
		l.s.stats.Broken.Add(1)
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

// open opens the stream to the peer and says Hello.
func (l *link) open() (network.Stream, error) {
	ctx, cancel := context.WithTimeout(l.ctx, openTimeout)
	defer cancel()
	stream, err := l.s.cfg.Host.NewStream(ctx, l.id, proto.RouteProtocol)
	if err != nil {
		return nil, err
	}
	addresses := l.s.cfg.Addresses()
	l.s.mu.Lock()
	hello := l.s.core.Hello(l.s.cfg.Life, addresses)
	l.s.mu.Unlock()
	_ = stream.SetWriteDeadline(time.Now().Add(openTimeout))
	if _, err := stream.Write(proto.AppendFrame(nil, hello, time.Now())); err != nil {
		_ = stream.Reset()
		return nil, err
	}
	return stream, nil
}

// runWriter writes what waits for the peer, all of it at once, until the stream breaks.
func (l *link) runWriter() error {
	stream, err := l.open()
	if err != nil {
		return err
	}
	select {
	case <-l.broken: // about the streams before
	default:
	}
	l.s.mu.Lock()
	l.out = stream
	l.s.bringUpLocked(l)
	l.s.finish()
	l.s.wg.Go(func() { l.runWatch(stream) })
	err = l.write(stream)
	_ = stream.Reset()
	l.s.mu.Lock()
	if l.out == stream { // else the reader was quicker
		l.s.dropLocked(l, err)
	}
	l.s.finish()
	return err
}

// runWatch gives the streams up when the peer has given up the one that is written: a write alone would notice
// that only when there is something to be written. It ends with the stream.
func (l *link) runWatch(stream network.Stream) {
	var b [1]byte
	_, _ = stream.Read(b[:]) // the peer never writes on it
	l.s.mu.Lock()
	if l.out == stream {
		l.s.dropLocked(l, errors.New("the peer gave the stream up"))
		l.breakUp()
	}
	l.s.finish()
}

func (l *link) write(stream network.Stream) error {
	var spare []byte
	for {
		select {
		case <-l.wake:
		case <-l.broken:
			return errors.New("the peer's stream ended")
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
		for {
			l.mu.Lock()
			b := l.buf
			l.buf = spare[:0]
			l.writing = len(b) > 0
			if !l.writing {
				l.cond.Broadcast()
			}
			l.mu.Unlock()
			if spare = nil; cap(b) <= keepBuffer {
				spare = b
			}
			if len(b) == 0 {
				break
			}
			_ = stream.SetWriteDeadline(time.Now().Add(writeTimeout))
			n, err := stream.Write(b)
			l.s.stats.BytesOut.Add(uint64(n)) //nolint:gosec // a count
			l.s.stats.Writes.Add(1)
			if err != nil {
				return err
			}
		}
	}
}

// flush returns when nothing waits for the peer, or its streams are gone.
func (l *link) flush(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		l.cond.Broadcast()
		l.mu.Unlock()
	})()
	l.mu.Lock()
	defer l.mu.Unlock()
	for (len(l.buf) > 0 || l.writing) && ctx.Err() == nil && l.ctx.Err() == nil {
		l.cond.Wait()
	}
	return ctx.Err()
}

// breakUp gives the streams in use up.
func (l *link) breakUp() { wake(l.broken) }

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
		_ = l.out.Reset()
		l.out = nil
	}
	if l.in != nil {
		close(l.in.gone)
		_ = l.in.stream.Reset()
		l.in = nil
	}
	l.mu.Lock()
	l.buf, l.full = nil, false
	l.writing = false
	l.cond.Broadcast()
	l.mu.Unlock()
}

// sendLocked encodes a frame into its peer's buffer.
func (s *Service) sendLocked(e *core.Effect, now time.Time) {
	l := s.byNode[e.To]
	if l == nil || !l.up {
		return
	}
	if s.cfg.Tap != nil {
		s.cfg.Tap(l.id, e.Frame)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buf) > maxUnkept && unkept(e.Frame) {
		s.stats.DroppedQoS0.Add(1)
		return
	}
	if len(l.buf) > maxPending { // nothing more on this stream: what follows must not pass what is left out
		l.full = true
		l.breakUp()
	}
	if l.full {
		return
	}
	l.buf = proto.AppendFrame(l.buf, e.Frame, now)
	s.stats.FramesOut.Add(1)
	if !l.dirty {
		l.dirty = true
		s.dirty = append(s.dirty, l)
	}
}

// unkept reports whether a frame is a message that nobody keeps.
func unkept(frame any) bool {
	switch f := frame.(type) {
	case *proto.Publish:
		return f.Epoch == 0
	case *proto.Deliver:
		return f.Epoch == 0
	}
	return false
}

// wakeLinksLocked has what was sent since the last call written.
func (s *Service) wakeLinksLocked() {
	for i, l := range s.dirty {
		l.dirty = false
		wake(l.wake)
		s.dirty[i] = nil
	}
	s.dirty = s.dirty[:0]
}

// read reads a stream that the peer has opened, until it ends.
func (l *link) read(stream network.Stream) {
	in := &inbound{stream: stream, up: make(chan struct{}), gone: make(chan struct{})}
	r := &reader{stream: stream, stats: &l.s.stats}
	_ = stream.SetReadDeadline(time.Now().Add(openTimeout))
	frames, err := r.next()
	if err == nil {
		err = l.greet(in, frames)
	}
	if err != nil {
		l.s.refuse(l.id, stream, err)
		return
	}
	_ = stream.SetReadDeadline(time.Time{})
	select {
	case <-in.up:
	case <-in.gone:
		return
	case <-l.ctx.Done():
		_ = stream.Reset()
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
		l.breakUp()
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
	_ = in.stream.Reset()
	s.mu.Lock()
	if l.in == in {
		s.dropLocked(l, err)
		l.breakUp()
	}
	s.finish()
}

func (s *Service) refuse(id peer.ID, stream network.Stream, err error) {
	_ = stream.Reset()
	if !errors.Is(err, context.Canceled) && !errors.Is(err, io.EOF) {
		s.stats.Malformed.Add(1)
		s.log.Debug("refused a route stream", "peer", id, "error", err)
	}
}
