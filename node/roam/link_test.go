package roam

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// simHost is as much of a libp2p host as sessions need, without a network: streams are pipes. What it embeds is nil.
type simHost struct {
	host.Host
	n *simNode

	mu      sync.Mutex
	handler network.StreamHandler
	streams map[*simStream]struct{}
	closed  bool
}

func (h *simHost) ID() peer.ID { return h.n.id }

func (h *simHost) SetStreamHandler(_ protocol.ID, f network.StreamHandler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handler = f
}

func (h *simHost) RemoveStreamHandler(protocol.ID) { h.SetStreamHandler("", nil) }

func (h *simHost) Network() network.Network { return &simNetwork{h: h} }

// close cuts all streams, as a crash does, and lets no more in.
func (h *simHost) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cut()
}

func (h *simHost) cut() {
	h.mu.Lock()
	all := h.streams
	h.streams = nil
	h.mu.Unlock()
	for s := range all {
		_ = s.Reset()
	}
}

func (h *simHost) add(s *simStream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	if h.streams == nil {
		h.streams = map[*simStream]struct{}{}
	}
	h.streams[s] = struct{}{}
	return true
}

func (h *simHost) remove(s *simStream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
}

var errNoLink = errors.New("there is no way to that node")

// NewStream opens a stream once the other node answers, which takes as long as the world has it.
func (h *simHost) NewStream(ctx context.Context, to peer.ID, _ ...protocol.ID) (network.Stream, error) {
	other, wait := h.n.w.link(h.n, to)
	if other == nil {
		return nil, errNoLink
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	there := other.host()
	if there == nil {
		return nil, errNoLink
	}
	there.mu.Lock()
	f := there.handler
	there.mu.Unlock()
	if f == nil {
		return nil, errNoLink
	}
	a, b := net.Pipe()
	mine, theirs := &simStream{pipe: a, h: h, with: to}, &simStream{pipe: b, h: there, with: h.n.id}
	if !h.add(mine) || !there.add(theirs) {
		_, _ = mine.Reset(), theirs.Reset()
		return nil, errNoLink
	}
	h.n.w.wg.Go(func() {
		time.Sleep(h.n.w.answers(other)) // a node that is slow
		f(theirs)
	})
	return mine, nil
}

// simNetwork is as much of libp2p's network.
type simNetwork struct {
	network.Network
	h *simHost
}

func (s *simNetwork) Peers() []peer.ID { return s.h.n.w.reach(s.h.n) }

func (s *simNetwork) Connectedness(p peer.ID) network.Connectedness {
	if other, _ := s.h.n.w.link(s.h.n, p); other == nil {
		return network.NotConnected
	}
	return network.Connected
}

// simStream is a stream. The other end finds out that it was reset as if it had ended, which sessions take for the same.
type simStream struct {
	network.Stream
	pipe net.Conn
	h    *simHost
	with peer.ID
}

func (s *simStream) Read(b []byte) (int, error)         { return s.pipe.Read(b) }
func (s *simStream) Write(b []byte) (int, error)        { return s.pipe.Write(b) }
func (s *simStream) Conn() network.Conn                 { return simConn{with: s.with} }
func (s *simStream) CloseWrite() error                  { return nil }
func (s *simStream) SetDeadline(t time.Time) error      { return s.pipe.SetDeadline(t) }
func (s *simStream) SetReadDeadline(t time.Time) error  { return s.pipe.SetReadDeadline(t) }
func (s *simStream) SetWriteDeadline(t time.Time) error { return s.pipe.SetWriteDeadline(t) }
func (s *simStream) Close() error                       { return s.Reset() }

func (s *simStream) Reset() error {
	s.h.remove(s)
	return s.pipe.Close()
}

type simConn struct {
	network.Conn
	with peer.ID
}

func (c simConn) RemotePeer() peer.ID { return c.with }
