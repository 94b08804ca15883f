package watch

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio/pbio"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Protocol is what members of a set tell each other by how long they have not heard a node.
const Protocol = "/mozzie/watch/1.0.0"

// askTime is how long an answer is waited for, and maxAsked how long a message may be, in bytes.
const (
	askTime  = 2 * time.Second
	maxAsked = proto.MaxNodeSize + 16
)

// runAsk asks a member how long it has not heard a node.
func (w *Watch) runAsk(member, node core.NodeID) {
	silent, err := w.askMember(member, node)
	if err != nil {
		w.cfg.Log.Debug("a member can't be asked about a node", "error", err)
	}
	w.do(func() { w.watcher.answered(member, node, silent, err == nil) })
}

func (w *Watch) askMember(member, node core.NodeID) (time.Duration, error) {
	id, err := peer.IDFromBytes([]byte(member.Peer()))
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(network.WithNoDial(network.WithAllowLimitedConn(w.ctx, "watch"), "who is not connected is out of reach"), askTime)
	defer cancel()
	s, err := w.cfg.Host.NewStream(ctx, id, Protocol)
	if err != nil {
		return 0, err
	}
	defer s.Reset() //nolint:errcheck // it is over
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	_ = s.SetDeadline(time.Now().Add(askTime))
	if err := pbio.NewDelimitedWriter(s).WriteMsg(&pb.Ask{Node: []byte(node)}); err != nil {
		return 0, err
	}
	var a pb.Silence
	if err := pbio.NewDelimitedReader(s, maxAsked).ReadMsg(&a); err != nil {
		return 0, err
	}
	return spanOf(a.GetSilentMs()), nil
}

// runAnswer answers another member.
func (w *Watch) runAnswer(s network.Stream) {
	defer s.Reset() //nolint:errcheck // it is over
	if w.ctx.Err() != nil {
		return
	}
	stop := context.AfterFunc(w.ctx, func() { _ = s.Reset() })
	defer stop()
	_ = s.SetDeadline(time.Now().Add(askTime))
	var q pb.Ask
	if err := pbio.NewDelimitedReader(s, maxAsked).ReadMsg(&q); err != nil {
		w.cfg.Log.Debug("what is asked about a node can't be read", "error", err)
		return
	}
	node, ok := nodeOf(&q)
	if !ok {
		return
	}
	answer := make(chan time.Duration, 1)
	w.do(func() { answer <- w.watcher.silent(node) })
	select {
	case silent := <-answer:
		_ = pbio.NewDelimitedWriter(s).WriteMsg(&pb.Silence{SilentMs: silent.Milliseconds()})
		_ = s.CloseWrite()
		_ = s.SetReadDeadline(time.Now().Add(askTime))
		_, _ = s.Read(make([]byte, 1)) // it has been read
	case <-w.ctx.Done():
	case <-time.After(askTime):
	}
}

// nodeOf returns which node is asked about; false where it can be none.
func nodeOf(q *pb.Ask) (core.NodeID, bool) {
	n := len(q.GetNode())
	return core.NodeID(q.GetNode()), n >= proto.MinNodeSize && n <= proto.MaxNodeSize
}
