package rendezvous

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// What is ours to tune: how much may wait, in bytes. What waits is encoded, and counted until it is written.
const (
	// chunkSize is where what waits is continued in another buffer, so that it is let go of as it is written. A
	// link that has more than smallChunk at a time gets buffers of chunkCap from a pool, with room for a frame.
	chunkSize  = 256 << 10
	smallChunk = 32 << 10
	chunkCap   = chunkSize + smallChunk
	// writeTimeout is how long a peer may take for writeStep bytes of its stream.
	writeTimeout = 20 * time.Second
	writeStep    = 256 << 10
)

// Pending bounds what waits to be written to peers, in bytes.
type Pending struct {
	// Peer is how much may wait for one peer. Beyond it nothing more goes on its stream; what is there still does, so that
	// a peer that is only slow comes nearer to the end with every stream. A peer that was away needs an outbox at once
	// (core.Limits.OutboxBytes, and what surrounds its messages).
	Peer int
	// All is how much may wait for all peers: beyond it the streams of the one that most waits for are given up, and
	// opened again. What waits for one is not to reach it: Peer and a frame (proto.MaxFrame).
	All int
}

// DefaultPending returns limits that a Raspberry Pi 3 has the memory for.
func DefaultPending() Pending { return Pending{Peer: 96 << 20, All: 128 << 20} }

// unkept is how much may wait for a peer before QoS 0 messages to it are dropped, given how much waits for all: QoS 0
// is not to cost anybody a stream.
func (p Pending) unkept(all int64) int {
	if all > int64(p.All/2) {
		return p.Peer / 96
	}
	return p.Peer / 12
}

// outbound is a stream that this node writes, with what waits to be written. Those who send never wait.
type outbound struct {
	stream *routeStream
	all    *atomic.Int64 // what waits for all peers
	limit  int           // how much may wait for this one
	wake   chan struct{}

	mu      sync.Mutex
	cond    sync.Cond // nothing waits any more
	leases  []byte    // go ahead of all else but Hello
	begun   bool      // Hello is on its way
	chunks  [][]byte  // in order
	buf     []byte    // behind them, being filled
	spare   []byte    // a small one to be filled next
	pending int       // bytes in all these, and in what is being written
	full    bool      // nothing more goes on this stream
	over    bool      // nor what was waiting
}

func newOutbound(s *routeStream, all *atomic.Int64, limit int) *outbound {
	o := &outbound{stream: s, all: all, limit: limit, wake: make(chan struct{}, 1)}
	o.cond.L = &o.mu
	return o
}

var chunkPool = sync.Pool{New: func() any { return new([chunkCap]byte) }}

// growLocked makes sure that buf does not grow step by step while much waits.
func (o *outbound) growLocked() {
	switch {
	case o.buf == nil && len(o.chunks) == 0:
		o.buf, o.spare = o.spare, nil
	case cap(o.buf) < chunkCap && (len(o.chunks) > 0 || len(o.buf) > smallChunk/2):
		small := o.buf
		o.buf = append(chunkPool.Get().(*[chunkCap]byte)[:0], small...)
		o.reuseLocked(small)
	}
}

// reuseLocked takes back a buffer that is written.
func (o *outbound) reuseLocked(b []byte) {
	switch {
	case cap(b) == chunkCap:
		chunkPool.Put((*[chunkCap]byte)(b[:chunkCap]))
	case cap(b) <= 2*smallChunk && cap(b) > cap(o.spare):
		o.spare = b[:0]
	}
}

// outcome is what became of a frame.
type outcome uint8

const (
	queued     outcome = iota
	dropped            // nobody keeps it, and too much waits for the peer
	filled             // too much waits: it is left out, and everything after it
	leftOut            // as filled, which was before
	unsendable         // no peer would take it
)

// put encodes a frame behind what waits, a lease ahead of it: where seconds' worth of messages wait for a peer on a
// slow link, it is in reach all the same, and nothing relies on what a lease comes behind. A message that nobody keeps is dropped where more than so many bytes
// wait.
func (o *outbound) put(frame any, now time.Time, unkeptBytes int) outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.full: // nothing may pass what was left out
		return leftOut
	case o.pending > unkeptBytes && unkept(frame):
		return dropped
	case o.pending > o.limit:
		o.full = true
		return filled
	}
	if _, is := frame.(*pb.Lease); is {
		before := len(o.leases)
		o.leases = proto.AppendFrame(o.leases, frame, now)
		o.count(len(o.leases) - before)
		return queued
	}
	o.growLocked()
	before := len(o.buf)
	o.buf = proto.AppendFrame(o.buf, frame, now)
	n := len(o.buf) - before
	if n == 0 {
		return unsendable
	}
	o.count(n)
	if len(o.buf) >= chunkSize {
		o.chunks = append(o.chunks, o.buf)
		o.buf = nil
	}
	return queued
}

// count counts bytes that wait.
func (o *outbound) count(n int) {
	o.pending += n
	o.all.Add(int64(n))
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

// waiting returns how many bytes wait.
func (o *outbound) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pending
}

var (
	errFull    = errors.New("too much waited for the peer")
	errGivenUp = errors.New("the stream was given up")
)

// take returns what is to be written next; nothing when all is, with an error when nothing will follow.
func (o *outbound) take() ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.over:
		return nil, errGivenUp
	case len(o.leases) > 0 && (o.begun || len(o.chunks)+len(o.buf) == 0):
		b := o.leases
		o.leases = nil
		return b, nil
	case len(o.chunks) > 0:
		b := o.chunks[0]
		o.chunks[0] = nil
		o.chunks, o.begun = o.chunks[1:], true
		return b, nil
	case len(o.buf) > 0:
		b := o.buf
		o.buf, o.begun = nil, true
		return b, nil
	case o.full:
		return nil, errFull
	}
	return nil, nil
}

// written takes back what take returned.
func (o *outbound) written(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over {
		return
	}
	o.pending -= len(b)
	o.all.Add(-int64(len(b)))
	o.reuseLocked(b)
	if o.pending == 0 {
		o.cond.Broadcast()
	}
}

// giveUp gives the stream up at once, and lets go of what waits.
func (o *outbound) giveUp() {
	o.stream.cut()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.Add(-int64(o.pending))
	o.full, o.over, o.pending = true, true, 0
	o.leases, o.chunks, o.buf, o.spare = nil, nil, nil, nil
	o.cond.Broadcast()
}

// runWriter writes what waits, and what comes to wait, until the stream breaks or is full.
func (o *outbound) runWriter(stats *Stats) error {
	for {
		select {
		case <-o.wake:
		case <-o.stream.gone:
			return errGivenUp
		}
		for {
			b, err := o.take()
			if err != nil {
				return err
			}
			if len(b) == 0 {
				break
			}
			if err := o.writeOut(b, stats); err != nil {
				return err
			}
			o.written(b)
		}
	}
}

// runWatch gives the stream up when the peer has: a write alone would notice that only when there is something to
// be written.
func (o *outbound) runWatch() {
	var b [1]byte
	_, _ = o.stream.Read(b[:]) // the peer never writes on it
	o.stream.cut()
}

// writeOut writes in steps, so that what a peer must do within writeTimeout does not grow with what waits for it.
func (o *outbound) writeOut(b []byte, stats *Stats) error {
	for len(b) > 0 {
		_ = o.stream.SetWriteDeadline(time.Now().Add(writeTimeout))
		n, err := o.stream.Write(b[:min(len(b), writeStep)])
		stats.BytesOut.Add(uint64(n)) //nolint:gosec // a count
		stats.Writes.Add(1)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// flush returns when nothing waits, or the stream is gone.
func (o *outbound) flush(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		o.mu.Lock()
		o.cond.Broadcast()
		o.mu.Unlock()
	})()
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.pending > 0 && ctx.Err() == nil {
		o.cond.Wait()
	}
	return ctx.Err()
}

// sendLocked encodes a frame into its peer's buffer.
func (s *Service) sendLocked(e *core.Effect, now time.Time) {
	l := s.byNode[e.To]
	if l == nil {
		return
	}
	if s.cfg.Tap != nil {
		s.cfg.Tap(l.id, e.Frame)
	}
	switch l.out.put(e.Frame, now, s.cfg.Pending.unkept(s.stats.Pending.Load())) {
	case queued:
		s.stats.FramesOut.Add(1)
	case dropped:
		s.stats.DroppedQoS0.Add(1)
		return
	case filled: // the core is told when what waits is written and the streams are renewed: Down, never a gap
		s.stats.Full.Add(1)
	case leftOut:
		return
	case unsendable:
		s.unsendable(l, e.Frame)
		return
	}
	if !l.dirty {
		l.dirty = true
		s.dirty = append(s.dirty, l)
	}
	for s.stats.Pending.Load() > int64(s.cfg.Pending.All) && s.relieveLocked() {
	}
}

// relieveLocked gives up the streams of the peer that most waits for, and reports whether there is one. What was
// waiting is let go of now; the core is told when the writer has seen it, and until then nothing goes to that
// peer.
func (s *Service) relieveLocked() bool {
	var most *link
	bytes := 0
	for _, l := range s.byNode {
		if n := l.out.waiting(); n > bytes {
			most, bytes = l, n
		}
	}
	if most == nil {
		return false
	}
	s.stats.Crowded.Add(1)
	s.log.Debug("too much waits for all peers", "given up", most.id, "bytes", bytes)
	most.out.giveUp()
	return true
}

// unsendable notes that a frame is left out that no peer would take. The streams go on: a frame that was asked
// for again would be left out again. It is the core's part to make none.
func (s *Service) unsendable(l *link, frame any) {
	s.stats.Unsendable.Add(1)
	if kind := proto.KindOf(frame); !s.warned[kind] {
		s.warned[kind] = true
		s.log.Warn("a frame is left out that no node would take: it is too long, or holds text that is not UTF-8; others of its kind are only counted",
			"kind", uint64(kind), "peer", l.id)
	}
}

// wakeLinksLocked has what was sent since the last call written.
func (s *Service) wakeLinksLocked() {
	for i, l := range s.dirty {
		l.dirty = false
		if l.out != nil {
			wake(l.out.wake)
		}
		s.dirty[i] = nil
	}
	s.dirty = s.dirty[:0]
}
