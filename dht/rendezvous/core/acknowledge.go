package core

import (
	"slices"
	"time"
)

// Where a node's setting is "acknowledge: swarm", its clients' acknowledgements wait until their messages are on two disks: the
// publisher's node's own, and that of another node. The publisher's node says so in Publish, and the rendezvous has the message
// copied at once, not after a second. Where it is the rendezvous itself, the copy is the second one; where it is not, there are
// two beside its own when it lets go. A message that is over before is acknowledged then.

// CustodyAt is what an acknowledgement says of a message, beside that its publisher's node has it.
type CustodyAt uint8

// Its values. Awaited: none is given before the message is on another disk as well, or can't be for a while.
const (
	CustodyUnasked CustodyAt = iota // the publisher's node alone was asked
	CustodyAwaited
	CustodyNode  // nobody else has it
	CustodySwarm // another has it, or it is with all that it was for
)

// What is ours to tune.
const (
	// custodyTime is how long an acknowledgement waits for another node's disk.
	custodyTime = 2 * time.Second
	// custodyRetry is after how long another member is tried, where one does not answer.
	custodyRetry = custodyTime / 4
)

// await has the acknowledgement of a message wait for another node. It is called when the message is on its way.
func (n *Node) await(e *pending) {
	switch {
	case e.custody != CustodyAwaited:
	case n.nobodyElse(e.r):
		n.acceptAlone(e)
	default:
		n.awaited.push(e)
	}
}

// tickAwaited acknowledges what has waited for long enough, or in vain.
func (n *Node) tickAwaited() {
	if n.awaited.len() == 0 {
		return
	}
	n.awaited.compact((*pending).answered)
	for n.awaited.len() > 0 && n.awaited.front().answered() {
		n.awaited.pop()
	}
	for _, e := range slices.Clone(n.awaited.live()) {
		if e.custody == CustodyAwaited && (n.now-e.at >= custodyTime || n.nobodyElse(e.r)) {
			n.acceptAlone(e)
		}
	}
}

// answered reports whether nothing waits for another node's custody any more.
func (e *pending) answered() bool { return e.custody != CustodyAwaited }

// nobodyElse reports whether it is known that no other node can take custody of what goes by a route.
func (n *Node) nobodyElse(r *route) bool {
	l := n.locations[r.at]
	switch {
	case r.switching:
		return false
	case l != nil && l.phase == serving:
		return n.copyHolder(l) == ""
	case l != nil && l.undecided():
		return !slices.ContainsFunc(n.ordered, func(p *peer) bool { return p.reach })
	}
	return r.hop == ""
}

// acceptAlone has the client's acknowledgement go though no other node is known to have the message.
func (n *Node) acceptAlone(e *pending) {
	e.custody = CustodyNode
	n.stats.CustodyNode++
	if e.m.Retain && e.detour && e.r.hop != "" {
		return // it has to be put in order first
	}
	n.acceptWhenRoom(e)
}

// acceptSafe has the client's acknowledgement go: another node has the message.
func (n *Node) acceptSafe(e *pending) {
	if e.custody == CustodyAwaited {
		e.custody = CustodySwarm
		n.acceptWhenRoom(e)
	}
}

// When a client is acknowledged.

// acceptWhenRoom lets the client's acknowledgement go, at once or when the outbox has room.
func (n *Node) acceptWhenRoom(e *pending) {
	if n.unaccepted.len() == 0 && n.outboxRoom() {
		n.accept1(e)
		return
	}
	n.unaccepted.push(e)
}

func (n *Node) outboxRoom() bool {
	lim := &n.cfg.Limits
	return n.outCount < lim.Outbox && n.outBytes < lim.OutboxBytes && n.waiting < lim.Waiting && n.waitBytes < lim.WaitingBytes
}

func (n *Node) acceptMore() {
	for n.unaccepted.len() > 0 && (n.outboxRoom() || n.unaccepted.front().accepted) {
		n.accept1(n.unaccepted.pop())
	}
}

func (n *Node) accept1(e *pending) {
	if e.accepted {
		return
	}
	e.accepted = true
	switch {
	case e.origin == nil || e.m.QoS == 0 && !e.firm:
	case !e.later():
		n.out = append(n.out, Effect{Kind: Accept, Delivery: Delivery{Origin: e.origin}, Packet: e.packet, Once: &e.once})
	case e.safe || e.m.QoS == 0:
		n.acknowledge(e)
	}
}

// later reports whether a message is accepted when it is known where it is, not as soon as it is in the outbox.
func (e *pending) later() bool { return e.m.Retain || e.firm || e.custody != CustodyUnasked }

// acknowledge has a client acknowledged at once, unless it was.
func (n *Node) acknowledge(e *pending) {
	n.out = append(n.out, Effect{Kind: AcceptKept, Delivery: Delivery{Origin: e.origin}, Packet: e.packet, Custody: e.custody, Once: &e.once})
}

// acceptWritten notes when a message that is accepted later is in the outbox for good, or was and is where it goes. The disk is at
// work on that while the message is on its way to its rendezvous, whose answer it waits for too.
func (n *Node) acceptWritten(e *pending) {
	n.safe(func() {
		if e.safe = true; e.accepted && e.origin != nil {
			n.acknowledge(e)
		}
	})
}

// acceptKept has a client that still waits for this node's disk wait no longer: others keep its message, or those that it is
// for have it. What is retained may be so by this node's disk.
func (n *Node) acceptKept(e *pending) {
	if e.origin != nil && e.m.QoS > 0 && !e.m.Retain && !e.firm {
		n.acknowledge(e)
	}
}

// The rendezvous' part.

// hasten has a message copied at the end of the batch of events: its publisher's client waits for that.
func (n *Node) hasten(e *entry) {
	if e.gone || e.acked || e.copied() || e.copying {
		return
	}
	if len(e.l.hasty) == 0 {
		n.hasty = append(n.hasty, e.l)
	}
	e.l.hasty = append(e.l.hasty, e)
}

// flushHasty has copied what publishers' clients wait for, of each location together.
func (n *Node) flushHasty() {
	for _, l := range n.hasty {
		batch := slices.DeleteFunc(l.hasty, func(e *entry) bool { return e.gone || e.copy || e.acked || e.copied() || e.copying })
		l.hasty = nil
		if len(batch) > 0 && l.phase == serving && !n.custodyFull(1) {
			n.copyHastily(l, batch)
		}
	}
	n.hasty = n.hasty[:0]
}

// copyHastily has messages copied to a member, and to another where that takes its time. Where there is none in reach, their
// publishers' nodes have one copy, and this node writes the other.
func (n *Node) copyHastily(l *location, batch []*entry) {
	to := n.copyHolder(l)
	if to == "" {
		n.writeAlone(batch)
		return
	}
	n.copyBatch(l, to, batch, nil)
	if n.otherHolder(l, to) == "" {
		return
	}
	n.timers.set(n.now+custodyRetry, func() {
		late := slices.DeleteFunc(batch, func(e *entry) bool { return e.gone || e.copy || e.copied() })
		if other := n.otherHolder(l, to); other != "" && len(late) > 0 && l.phase == serving && n.locations[l.at] == l {
			n.copyBatch(l, other, late, nil)
		}
	})
}

// otherHolder is the member that keeps second copies when one does not.
func (n *Node) otherHolder(l *location, but NodeID) NodeID {
	for _, m := range l.set.Members {
		if m != n.self && m != but && n.inReach(m) {
			return m
		}
	}
	return ""
}

// writeAlone writes messages that no other member can be given now, and says so to who sent them.
func (n *Node) writeAlone(batch []*entry) {
	batch = slices.DeleteFunc(batch, func(e *entry) bool { return e.own != nil })
	if len(batch) == 0 {
		return
	}
	for _, e := range batch {
		e.written = true
		n.store(e)
	}
	n.safe(func() {
		for _, e := range batch {
			if !e.gone {
				n.ackWritten(e)
			}
		}
	})
}

// ackWritten tells who sent a message that it is on this node's disk.
func (n *Node) ackWritten(e *entry) {
	if p := n.dirtyPeer(e.s.hop); p != nil {
		p.written.add(e.id)
	}
}
