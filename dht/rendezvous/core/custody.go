package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// share is what one node gets of a message.
type share struct {
	node   NodeID
	groups []proto.Group
	hold   time.Duration // how long it is kept for a node that is out of reach
	plain  bool
	sent   bool // from here, or its node was asked about it from here
	ups    int  // sent: peer.ups of then
	stored bool
	done   bool
	late   bool     // the node had been sent another one that was not done: what it says it is done with may be that alone
	turn   uint32   // how many nodes were picked for its groups before; see shared.go
	open   *openFor // for whom alone its plain part, or where it has none the whole, is still open there; nil: that is not known
}

// recentFor is for how long after it was matched a message is recent: what is not has been matched, it may be, before a registration that
// everybody knows of by now.
const recentFor = 2 * time.Second

// entry is a message in custody here.
type entry struct {
	l        *location
	s        *stream
	id       Identity
	m        *proto.Message
	size     int
	shares   []share
	few      [1]share // where shares are, if there are no more
	left     int      // shares that are not done
	at       time.Duration
	stamp    uint64
	own      *pending // this node's own message
	pinned   int      // what else it is kept for: settling, being retained elsewhere
	keeping  int      // at how many members it is not retained yet
	whenKept func()   // to be called when it is at all of them; nil: nobody waits
	unset    *unsettled
	copy     bool  // this is the second copy; another node serves it
	given    bool  // it was: who served it may have sent what this node has not
	holder   *peer // who is known to have a copy; nil: nobody
	written  bool  // it is to be on this node's disk, whoever else has it
	copying  bool
	shown    bool     // a copy that this node has shown to others than those it had it from, who may not know that they may have it
	choosing int      // choices that are not safe yet; it goes out when they are
	noted    bool     // who sent it has noted the choices for it
	passed   bool     // it was handed over before its choices here were safe: the other chooses
	copies   []NodeID // who may have one
	stored   bool     // it is on this node's disk, beside others'
	acked    bool     // who sent it was told that it may let go
	gone     bool
	matched  bool // here, when it came, by this process
	dated    bool // it is about to be written anew
	said     bool // those who have copies were told something of it
	refusals map[refusal]bool
}

func (e *entry) isGone() bool { return e.gone }

// copied reports whether another node is known to have a copy, or was.
func (e *entry) copied() bool { return e.holder != nil }

// show notes that a copy is shown to another node.
func (e *entry) show(to NodeID) {
	e.shown = e.shown || len(e.copies) > 0 && !slices.Contains(e.copies, to)
}

// over reports whether nobody needs the entry any more.
func (e *entry) over() bool { return e.gone || e.left == 0 && e.pinned == 0 }

// take takes custody of a message, if anybody is to get it.
func (n *Node) take(e *entry) {
	if e.left == 0 && e.stamp == 0 && e.pinned == 0 {
		return
	}
	n.store(e)
	n.enter(e)
}

// enter has a message that is stored in custody.
func (n *Node) enter(e *entry) {
	if e.own != nil && e.own.counted {
		n.uncount(e.own)
		n.acceptMore()
	}
	e.s.entries.put(e.id.Seq, e)
	e.l.order.compact((*entry).isGone)
	e.l.order.push(e)
	for i := range e.shares {
		if !e.shares[i].done { // of what is not settled those are known too that are through with it
			n.owe(e, e.shares[i].node)
		}
	}
}

// owe counts a share in custody for a node. What is kept for a node is limited: beyond that the oldest goes
// that the node has stored itself, or that waits for a node out of reach.
func (n *Node) owe(e *entry, node NodeID) {
	if node == n.self {
		return
	}
	p := n.meet(node)
	if p == nil {
		return
	}
	p.shares.compact(func(e *entry) bool { return e.gone || e.doneFor(node) })
	p.shares.push(e)
	p.owed++
	p.bytes += e.size
	lim := &n.cfg.Limits
	for p.shares.len() > 0 {
		switch first := p.shares.front(); {
		case first.gone || first.doneFor(node):
			p.shares.pop()
		case (p.owed > lim.Away || p.bytes > lim.AwayBytes || n.custodyOver()) && (!p.reach || first.storedAt(node)):
			n.stats.DroppedAway++
			n.shareDone(p.shares.pop(), node)
		default:
			return
		}
	}
}

// custodyOver reports whether more is in custody here than may be.
func (n *Node) custodyOver() bool {
	return n.cfg.Custody.Len() > n.cfg.Limits.Custody || n.cfg.Custody.Bytes() > n.cfg.Limits.CustodyBytes
}

// custodyFull reports whether as much is in custody here as may be, or some times that.
func (n *Node) custodyFull(times int) bool {
	lim := &n.cfg.Limits
	return n.cfg.Custody.Len()/times >= lim.Custody || n.cfg.Custody.Bytes()/times >= lim.CustodyBytes
}

// again answers a message that came before.
func (n *Node) again(s *stream, a *arrival) {
	n.stats.Duplicates++
	e := s.entries.get(a.id.Seq)
	switch {
	case a.own != nil && e != nil && !e.acked: // let go when it is over
		e.own, a.own.via = a.own, n.self
		n.uncount(a.own)
		return
	case a.own != nil:
		n.let(a.own, n.self)
		return
	}
	p := n.dirtyPeer(a.from)
	if p == nil {
		return
	}
	if a.echo {
		p.taken.add(a.id)
	}
	switch {
	case e == nil || e.acked || e.copied():
		p.kept.add(a.id)
	case a.awaited:
		n.hasten(e)
	}
}

// deliver sends a share, if its node can be reached; if not it goes when the node is back.
func (n *Node) deliver(e *entry, s *share) {
	if s.done || e.copy {
		return
	}
	if !s.sent {
		s.late = n.answersFor(e, s.node)
	}
	d := n.frames.Deliver()
	*d = proto.Deliver{Message: e.m, Location: e.l.at, Epoch: e.id.Epoch, Seq: e.id.Seq, Forget: e.s.low,
		Plain: s.plain, Groups: s.groups, Stamp: e.stamp, Recent: e.matched && !s.sent && n.now-e.at < recentFor}
	if s.node == n.self {
		s.sent = true
		n.deliverHere(n.self, d)
		return
	}
	if n.inReach(s.node) {
		s.sent, s.ups = true, n.peers[s.node].ups
		put(&e.l.sent, s.node, true)
		put(&e.s.told, s.node, e.s.low)
		n.send(s.node, d)
	}
}

// sendOnce sends a message that nobody keeps.
func (n *Node) sendOnce(l *location, a *arrival, d dest) {
	f := n.frames.Deliver()
	*f = proto.Deliver{Message: a.m, Location: l.at, Plain: d.plain, Groups: d.groups}
	switch {
	case d.node == n.self:
		n.deliverHere(n.self, f)
	case n.inReach(d.node):
		put(&l.sent, d.node, true)
		n.send(d.node, f)
	default:
		n.meet(d.node)
		n.stats.DroppedQoS0++
	}
}

// resendShares sends to a node that is back what it has not stored, and asks what became of the rest.
func (n *Node) resendShares(p *peer) {
	var all []*entry
	for _, e := range p.shares.live() {
		if !e.gone && !e.copy {
			all = append(all, e)
		}
	}
	n.redeliver(all, p.id)
}

// redeliver sends the shares of messages, those of one node or, with node "", of all. Where they are stored
// already, their node is asked to say when they are done: it may have said so to another, or in vain.
func (n *Node) redeliver(entries []*entry, node NodeID) {
	recall := map[NodeID]*acks{}
	for _, e := range entries {
		for i := range e.shares {
			s := &e.shares[i]
			switch {
			case s.done || node != "" && s.node != node:
			case s.sent && s.node != n.self && s.ups == n.peers[s.node].ups && n.peers[s.node].up:
				// Out of reach for a while, over streams that did not break: it is on its way, or there.
			case !s.stored || s.node == n.self:
				n.deliver(e, s)
			default:
				if recall[s.node] == nil {
					recall[s.node] = new(acks)
				}
				recall[s.node].add(e.id)
				if n.inReach(s.node) {
					s.sent, s.ups = true, n.peers[s.node].ups
				}
			}
		}
	}
	for _, to := range sortedKeys(recall) {
		if n.inReach(to) {
			n.send(to, &pb.Recall{Stored: recall[to].take()})
		}
	}
}

// entryOf returns a message in custody here; nil where it is not.
func (n *Node) entryOf(id Identity) *entry {
	if s := n.streams[id.Epoch]; s != nil {
		return s.entries.get(id.Seq)
	}
	return nil
}

// eachOf calls do with those of some messages that are in custody here.
func (n *Node) eachOf(messages []*pb.Ranges, do func(e *entry)) {
	for _, rs := range messages {
		if s := n.streams[rs.GetEpoch()]; s != nil {
			s.eachEntry(rs.GetRanges(), do)
		}
	}
}

func (n *Node) receiveDeliverAck(p *peer, f *pb.DeliverAck) {
	n.eachOf(f.GetStored(), func(e *entry) {
		for i := range e.shares {
			if s := &e.shares[i]; s.node == p.id && s.sent { // it speaks of what it was sent
				s.stored = true
			}
		}
	})
	for _, r := range f.GetRefused() {
		n.refused(Identity{r.GetEpoch(), r.GetSeq()}, proto.Group{Name: r.GetGroup().GetName(), Filter: r.GetGroup().GetFilter()}, p.id)
	}
	for _, o := range f.GetOpen() {
		n.receiveOpen(o, p.id, func(do func(*entry)) { n.eachOf(o.GetMessages(), do) })
	}
	n.eachOf(f.GetDone(), func(e *entry) { n.shareAcked(e, p.id) })
}

// shareDone notes that a node needs a message no more.
func (n *Node) shareDone(e *entry, node NodeID) { n.endShares(e, node, false) }

// shareAcked notes that a node is done with what was sent to it of a message.
func (n *Node) shareAcked(e *entry, node NodeID) {
	late := slices.ContainsFunc(e.shares, func(s share) bool { return s.node == node && s.late && !s.done })
	n.endShares(e, node, true)
	if !late || e.gone {
		return
	}
	next := true
	for i := range e.shares { // the node may not have had this when it said so; it is sent again, by who has custody then, and answers again
		if s := &e.shares[i]; s.node == node && s.late && !s.done {
			s.sent = false
			n.deliver(e, s)
			s.late, next = s.late && !next, false // what it says next is of the first of them
		}
	}
}

func (n *Node) endShares(e *entry, node NodeID, sent bool) {
	ended := false
	for i := range e.shares {
		s := &e.shares[i]
		if s.node != node || s.done || sent && (!s.sent || s.late) {
			continue
		}
		n.endShare(e, s)
		ended = true
	}
	if ended && e.stored && e.m.QoS == 2 && e.left > 0 {
		n.date(e)
	}
	if ended && !e.copy && e.left > 0 && e.doneFor(node) && e.decided() { // else it is still to get something of it
		n.tellCopies(e, node)
	}
	n.finish(e)
}

// endShare ends one share of a message, which may be over then.
func (n *Node) endShare(e *entry, s *share) {
	s.done = true
	e.left--
	if p := n.peers[s.node]; p != nil {
		p.owed--
		p.bytes -= e.size
		for p.shares.len() > 0 && (p.shares.front().gone || p.shares.front().doneFor(s.node)) {
			p.shares.pop()
		}
	}
}

func (e *entry) storedAt(node NodeID) bool {
	return slices.ContainsFunc(e.shares, func(s share) bool { return s.node == node && s.stored })
}

func (e *entry) doneFor(node NodeID) bool {
	for i := range e.shares {
		if e.shares[i].node == node && !e.shares[i].done {
			return false
		}
	}
	return true
}

// finish lets go of a message that is over, and tells whoever keeps it for this node.
func (n *Node) finish(e *entry) {
	if e.gone || !e.over() || e.copy && e.shown { // who is done with it asks to let go of it, and hears of the others then
		return
	}
	n.ackKept(e)
	if !e.copy {
		e.noteChosen()
	}
	n.letGoOf(e)
}

// letGoOf lets go of a message that is over. Others may still have it.
func (n *Node) letGoOf(e *entry) {
	for _, c := range e.copies {
		n.owedBy(e.s, e.id.Seq, c)
	}
	n.release(e)
}

// release takes a message out of custody.
func (n *Node) release(e *entry) {
	if e.gone {
		return
	}
	e.gone = true
	for i := range e.shares {
		if s := &e.shares[i]; !s.done {
			if p := n.peers[s.node]; p != nil {
				p.owed--
				p.bytes -= e.size
			}
		}
	}
	if e.unset != nil {
		e.unset = nil
		n.unsetBytes -= e.size
	}
	if e.s.entries.get(e.id.Seq) == e {
		e.s.entries.remove(e.id.Seq)
		if own := n.pending(e.id); own == nil {
			n.cfg.Custody.Delete(e.id)
		} else if e.stored {
			n.cfg.Custody.Put(e.id, e.m, n.ownRecord(own))
		}
		if e.stored {
			n.letGoHere(e)
		}
	}
	e.s.advance()
	n.enliven(e.s)
	for e.l.order.len() > 0 && e.l.order.front().gone {
		e.l.order.pop()
	}
	for e.l.unsettled.len() > 0 && e.l.unsettled.front().e.gone {
		e.l.unsettled.pop()
	}
}

// pending returns a message of this node's clients that nobody else keeps; nil where there is none.
func (n *Node) pending(id Identity) *pending {
	if s := n.mine[id.Epoch]; s != nil {
		return s.open.get(id.Seq)
	}
	return nil
}

// ackKept tells who sent a message that it may let go.
func (n *Node) ackKept(e *entry) {
	if e.acked {
		return
	}
	e.acked = true
	if e.own != nil {
		n.let(e.own, n.self)
		n.acceptKept(e.own)
		return
	}
	if e.copy {
		return
	}
	if e.stamp != 0 { // it lets go of what is retained here
		hop, id := e.s.hop, e.id
		n.safe(func() { n.keptFor(hop, id) })
		return
	}
	n.keptFor(e.s.hop, e.id)
}

func (n *Node) keptFor(hop NodeID, id Identity) {
	if p := n.dirtyPeer(hop); p != nil {
		p.kept.add(id)
	}
}

// ackTaken tells who sent a message that it has been passed on.
func (n *Node) ackTaken(e *entry) {
	if e.own != nil {
		n.taken(e.own)
		return
	}
	if p := n.dirtyPeer(e.s.hop); p != nil {
		p.taken.add(e.id)
	}
}

// lapse drops what was kept for nodes that have been out of reach for too long, or have left.
func (n *Node) lapse(l *location) {
	left := slices.ContainsFunc(n.ordered, func(p *peer) bool { return n.departed(p.id, 0) })
	for _, e := range slices.Clone(l.order.live()) {
		for i := 0; i < len(e.shares) && !e.gone && (left || n.now-e.at > MinHold); i++ {
			switch s := &e.shares[i]; {
			case s.done || n.inReach(s.node):
			case n.departed(s.node, s.hold) && !n.orphan(e, s.node):
				n.shareDone(e, s.node)
			case n.now-e.at > max(s.hold, MinHold):
				n.stats.DroppedAway++
				n.shareDone(e, s.node)
			}
		}
	}
}
