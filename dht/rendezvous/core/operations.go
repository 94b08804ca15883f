package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Operations are requests that another node answers by Ack, or by an answer of their own.

// request sends a frame made for a new operation number, and has done called with whether it was
// acknowledged: false when the node cannot, has said nothing for opTime, or went out of reach first.
func (n *Node) request(to NodeID, frame func(op uint64) any, done func(ok bool)) {
	p := n.peers[to]
	if p == nil || !p.up {
		done(false)
		return
	}
	n.op++
	p.ops[n.op] = operation{done, n.now}
	n.send(to, frame(n.op))
}

// operation is a request that is waited for.
type operation struct {
	done func(ok bool)
	at   time.Duration
}

// answered ends an operation.
func (p *peer) answered(op uint64, ok bool) {
	if o, waits := p.ops[op]; waits {
		delete(p.ops, op)
		o.done(ok)
	}
}

// tickOperations ends what nodes in reach have left unanswered.
func (n *Node) tickOperations() {
	for _, p := range slices.Clone(n.ordered) {
		for _, op := range sortedKeys(p.ops) {
			if o, waits := p.ops[op]; waits && n.now-o.at > opTime {
				n.stats.Unanswered++
				p.answered(op, false)
			}
		}
	}
}

// ack acknowledges a request at the end of the batch.
func (n *Node) ack(to NodeID, op uint64) {
	if p := n.dirtyPeer(to); p != nil && op != 0 {
		p.acks = append(p.acks, op)
	}
}

// ackSafe is ack for what has to be on the disk before.
func (n *Node) ackSafe(to NodeID, op uint64) {
	if op != 0 {
		n.safe(func() { n.ack(to, op) })
	}
}

// refuse says that this node cannot do what was asked.
func (n *Node) refuse(to NodeID, op uint64) {
	if p := n.dirtyPeer(to); p != nil && op != 0 {
		p.refuses = append(p.refuses, op)
	}
}

func (n *Node) receiveAck(p *peer, f *pb.Ack) {
	for _, op := range f.GetOps() {
		p.answered(op, true)
	}
	for _, op := range f.GetRefused() {
		if _, waits := p.ops[op]; waits {
			n.stats.Refused++
			p.answered(op, false)
		}
	}
}
