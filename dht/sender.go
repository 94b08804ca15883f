package dht

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	kadpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio/pbio"
)

// maxKadMessage bounds a Kademlia message: k nodes with their addresses take some 10 kB.
const maxKadMessage = 256 << 10

// maxIdleStreams is how many streams to one peer are kept for the next request.
const maxIdleStreams = 2

// sender sends Kademlia requests. It exists because kad-dht's own waits 10 s for an answer, asks again and
// waits another 10 s, and sends one request at a time to a peer: a node that hangs held every lookup that
// meets it for 20 s.
type sender struct {
	host   host.Host
	protos []protocol.ID

	mu   sync.Mutex
	idle map[peer.ID][]*kadStream
}

// kadStream is a stream between requests. The other side closes it after a minute.
type kadStream struct {
	network.Stream
	r pbio.ReadCloser
}

var _ kadpb.MessageSenderWithDisconnect = (*sender)(nil)

func newSender(h host.Host, protos []protocol.ID) *sender {
	return &sender{host: h, protos: protos, idle: make(map[peer.ID][]*kadStream)}
}

// OnDisconnect forgets the streams of a peer that is gone.
func (s *sender) OnDisconnect(_ context.Context, p peer.ID) {
	s.mu.Lock()
	streams := s.idle[p]
	delete(s.idle, p)
	s.mu.Unlock()
	for _, st := range streams {
		_ = st.Reset()
	}
}

// SendRequest asks p and returns its answer, within requestTimeout.
func (s *sender) SendRequest(ctx context.Context, p peer.ID, m *kadpb.Message) (*kadpb.Message, error) {
	answer := new(kadpb.Message)
	if err := s.do(ctx, p, m, answer); err != nil {
		return nil, err
	}
	return answer, nil
}

// SendMessage sends p a message that has no answer.
func (s *sender) SendMessage(ctx context.Context, p peer.ID, m *kadpb.Message) error {
	return s.do(ctx, p, m, nil)
}

// do tries a kept stream, which the other side may have closed meanwhile, and then a new one.
func (s *sender) do(ctx context.Context, p peer.ID, m, answer *kadpb.Message) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if st := s.take(p); st != nil {
		err := s.exchange(ctx, p, st, m, answer)
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	raw, err := s.host.NewStream(ctx, p, s.protos...)
	if err != nil {
		return fmt.Errorf("opening a Kademlia stream to %s: %w", p, err)
	}
	st := &kadStream{Stream: raw, r: pbio.NewDelimitedReader(raw, maxKadMessage)}
	return s.exchange(ctx, p, st, m, answer)
}

// exchange uses up st, or keeps it for the next time.
func (s *sender) exchange(ctx context.Context, p peer.ID, st *kadStream, m, answer *kadpb.Message) error {
	deadline, _ := ctx.Deadline()
	_ = st.SetDeadline(deadline)
	// The stream's deadline ends an exchange in time; a lookup that is cancelled resets it at once.
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	err := writeMessage(st, m)
	if err == nil && answer != nil {
		err = st.r.ReadMsg(answer)
	}
	if !stop() {
		return errors.Join(ctx.Err(), err)
	}
	if err != nil {
		_ = st.Reset()
		return err
	}
	_ = st.SetDeadline(time.Time{})
	s.keep(p, st)
	return nil
}

func (s *sender) take(p peer.ID) *kadStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	streams := s.idle[p]
	if len(streams) == 0 {
		return nil
	}
	st := streams[len(streams)-1]
	s.idle[p] = streams[:len(streams)-1]
	return st
}

func (s *sender) keep(p peer.ID, st *kadStream) {
	s.mu.Lock()
	kept := len(s.idle[p]) < maxIdleStreams && s.host.Network().Connectedness(p) == network.Connected
	if kept {
		s.idle[p] = append(s.idle[p], st)
	}
	s.mu.Unlock()
	if !kept {
		_ = st.Close()
	}
}

// writeMessage writes m, length-prefixed, in one piece.
func writeMessage(w io.Writer, m *kadpb.Message) error {
	b := bufio.NewWriter(w)
	if err := pbio.NewDelimitedWriter(b).WriteMsg(m); err != nil {
		return err
	}
	return b.Flush()
}
