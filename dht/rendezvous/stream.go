package rendezvous

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// routeStream is a stream that can be given up at any moment, under any lock. libp2p's Reset is not like that:
// it puts its word to the peer behind what is to be sent on the connection already, and while the peer takes
// nothing off that (a machine that is frozen, a cable that is cut) it waits for up to 10 s.
type routeStream struct {
	network.Stream
	gone chan struct{} // closed when it is given up

	mu    sync.Mutex
	isCut bool
}

func newRouteStream(s network.Stream) *routeStream {
	return &routeStream{Stream: s, gone: make(chan struct{})}
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// cut gives the stream up. Reads and writes that are under way return. It does not wait for the peer to be told.
func (s *routeStream) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isCut {
		return
	}
	s.isCut = true
	close(s.gone)
	_ = s.Stream.SetDeadline(past)
	go s.runReset()
}

// runReset tells the peer that the stream is given up, and has libp2p let go of it.
func (s *routeStream) runReset() { _ = s.Reset() }

// SetReadDeadline implements network.Stream. Once the stream is given up the deadline stays over.
func (s *routeStream) SetReadDeadline(t time.Time) error {
	return s.setDeadline(s.Stream.SetReadDeadline, t)
}

// SetWriteDeadline implements network.Stream. Once the stream is given up the deadline stays over.
func (s *routeStream) SetWriteDeadline(t time.Time) error {
	return s.setDeadline(s.Stream.SetWriteDeadline, t)
}

func (s *routeStream) setDeadline(set func(time.Time) error, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isCut {
		return network.ErrReset
	}
	return set(t)
}

// open opens a stream to the peer, on a connection that is there. It returns when ctx ends, also where libp2p
// takes longer.
func (l *link) open(ctx context.Context) (*routeStream, error) {
	// A link follows the connection: a stream that dialled would bring peers back that are to be gone.
	ctx = network.WithNoDial(ctx, "links do not dial")
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	opened := make(chan *routeStream)
	failed := make(chan error, 1)
	go l.runOpen(ctx, opened, failed)
	select {
	case s := <-opened:
		return s, nil
	case err := <-failed:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// runOpen opens a stream for whoever waits for it, until ctx ends.
func (l *link) runOpen(ctx context.Context, opened chan<- *routeStream, failed chan<- error) {
	stream, err := l.s.cfg.Host.NewStream(ctx, l.id, proto.RouteProtocol)
	if err != nil {
		failed <- err
		return
	}
	s := newRouteStream(stream)
	select {
	case opened <- s:
	case <-ctx.Done():
		s.cut()
	}
}
