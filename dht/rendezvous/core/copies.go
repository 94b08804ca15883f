package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// succeed makes what is to be done at a location this node's own duty: it is the rendezvous now.
func (n *Node) succeed(l *location) {
	l.phase, l.await, l.matched, l.nextDigest = serving, "", nil, 0 // the others are asked at once for what is not settled
	for _, s := range n.streamsOf(l) {
		if len(s.owed) > 0 { // to this node from now on
			n.enliven(s)
		}
	}
	n.promote(l)
	n.rematch(l, slices.DeleteFunc(slices.Clone(l.order.live()), func(e *entry) bool { return e.copy || e.unset == nil })) // registrations came while it did not serve
}

// promote makes this node's second copies its own duty: it is the rendezvous now.
func (n *Node) promote(l *location) {
	var mine []*entry
	for _, e := range slices.Clone(l.order.live()) {
		if e.gone || !e.copy {
			continue
		}
		e.copy, e.at, e.given = false, n.now, true
		e.acked = false // who still has it lets go when it is on another disk beside this one's
		n.tellToo(e)
		mine = append(mine, e)
	}
	n.redeliver(mine, "")
	n.rematch(l, mine)
	n.resumeAll(l, mine)
	for _, e := range mine {
		n.finish(e)
	}
}

// tickCustody has a second copy made of what its subscribers take their time with, and another where the one who had it is dead
// or no member any more.
func (n *Node) tickCustody(l *location, full bool) {
	n.relieve(l)
	n.ackCopied(l)
	if n.custodyFull(1) {
		return // publishers' nodes keep theirs, and their clients wait
	}
	n.copyEntries(l, func(e *entry) bool {
		return !e.copying && n.now-e.at >= copyAfter && (!e.copied() || full && n.holderLost(l, e.holder))
	}, nil)
}

// ackCopied tells who sent messages that they may let go of what another member has a copy of that this node did not give it: it had
// it from an earlier rendezvous, or from this node in an earlier life.
func (n *Node) ackCopied(l *location) {
	var batch []*entry
	for _, e := range l.order.live() {
		if !e.gone && !e.copy && !e.acked && !e.copying && e.copied() && !n.holderLost(l, e.holder) {
			if batch = append(batch, e); !e.stored {
				n.store(e)
			}
		}
	}
	n.ackAll(batch)
}

// ackAll tells who sent messages that they may let go of them, when what is known of them here is safe.
func (n *Node) ackAll(batch []*entry) {
	if len(batch) == 0 {
		return
	}
	n.safe(func() {
		for _, e := range batch {
			if !e.gone {
				n.ackKept(e)
			}
		}
	})
}

// holderLost reports whether what a node has copies of needs another: it is dead, or is not responsible for a location any more.
func (n *Node) holderLost(l *location, holder *peer) bool {
	return n.dead(holder) || !l.set.has(holder.id)
}

// copyEntries has the entries that are picked copied to another member, and calls done when they are, or
// cannot be.
func (n *Node) copyEntries(l *location, pick func(*entry) bool, done func()) {
	var batch []*entry
	for _, e := range l.order.live() {
		if !e.gone && !e.copy && pick(e) {
			batch = append(batch, e)
		}
	}
	n.copyBatch(l, n.copyHolder(l), batch, done)
}

// copyBatch has messages copied to another member, and calls done, which may be nil, when they are, or cannot be.
func (n *Node) copyBatch(l *location, to NodeID, batch []*entry, done func()) {
	if to == "" || len(batch) == 0 {
		if done != nil {
			done()
		}
		return
	}
	g := &gather{n: n}
	for _, e := range batch {
		e.copying = true
		n.mayHave(e, to)
		n.store(e) // the second copy is one only beside a first
	}
	n.sendCopies(l, to, batch, g, false, func(sent []*entry, ok bool) { n.copied(sent, to, ok) })
	g.wait(func() {
		if done != nil {
			done()
		}
	})
}

// relieve takes over what nodes that are leaving have published, and no other member can be given a copy of: this node's disk has
// to do. Else they would wait for subscribers that may be away for long, or who left before them.
func (n *Node) relieve(l *location) {
	if n.copyHolder(l) != "" {
		return
	}
	var batch []*entry
	for _, e := range l.order.live() {
		if p := n.peers[e.s.hop]; !e.gone && !e.copy && !e.acked && e.own == nil && p != nil && p.left && p.up {
			if batch = append(batch, e); !e.written {
				e.written = true
				n.store(e)
			}
		}
	}
	n.ackAll(batch)
}

// sendCopies sends messages in custody to another member, in as many frames as it takes.
func (n *Node) sendCopies(l *location, to NodeID, batch []*entry, g *gather, offered bool, each func(sent []*entry, ok bool)) {
	g.left++
	p := &pump{n: n, to: to, done: func(bool) {
		if len(batch) > 0 {
			each(batch, false) // these were not sent any more
		}
		g.one()
	}}
	p.next = func() (func(op uint64) any, func(bool)) {
		f := &pb.Copy{Place: l.place.pb(), Set: l.set.pb(), Offered: offered}
		var sent []*entry
		for size := 0; len(batch) > 0 && size < proto.SoftFrame; batch = batch[1:] {
			if e := batch[0]; !e.gone {
				f.Custody = append(f.Custody, n.custodyToPB(e))
				sent = append(sent, e)
				size += 128 + e.size
			}
		}
		if sent == nil {
			return nil, nil
		}
		return func(op uint64) any { f.Op = op; return f }, func(ok bool) { each(sent, ok) }
	}
	p.run()
}

// offerCopies shows the rendezvous the second copies that are kept here: a new one has them from here, and one
// that is done with them says so.
func (n *Node) offerCopies(l *location) {
	to := n.rendezvous(l.set)
	if to == "" || to == n.self {
		return
	}
	var batch []*entry
	for _, e := range l.order.live() {
		if !e.gone && e.copy {
			batch = append(batch, e)
			e.show(to)
			n.mayKeep(e, to)
		}
	}
	n.safe(func() { // the other may rely on that
		if l.phase == standby {
			n.sendCopies(l, to, batch, &gather{n: n}, true, func([]*entry, bool) {})
		}
	})
}

// takeOffered takes what another member has a copy of, unless it is over.
func (n *Node) takeOffered(l *location, c *pb.Custody, from NodeID) {
	s := n.stream(l, c.GetEpoch())
	switch seq := c.GetSeq(); {
	case s.entries.get(seq) != nil:
		n.tellMoved(s.entries.get(seq), c, from)
	case seq <= s.low:
		over := &pb.Ranges{Epoch: s.epoch, Ranges: []*pb.Range{{From: seq, To: seq}}}
		n.send(from, &pb.CopyDone{Over: []*pb.Ranges{over}})
		return
	case s.seen.has(seq):
		for _, h := range n.holders(c, from) {
			n.owedBy(s, seq, h)
		}
		return
	}
	n.takeCustody(l, c, from)
}

func (n *Node) copied(entries []*entry, to NodeID, ok bool) {
	for _, e := range entries {
		e.copying = false
		if !ok {
			continue
		}
		n.stats.Copies++
		e.holder = n.peers[to]
		if !e.gone {
			n.safe(func() { n.ackKept(e) })
		}
	}
}

// mayHave notes that another node has a message, or may have it.
func (n *Node) mayHave(e *entry, node NodeID) (news bool) {
	if node == n.self || slices.Contains(e.copies, node) || len(e.copies) >= maxHolders {
		return false
	}
	e.copies = append(e.copies, node)
	if e.l.phase == serving {
		n.tellToo(e)
	}
	return true
}

// mayKeep is mayHave, over a restart too where the message is kept over one.
func (n *Node) mayKeep(e *entry, nodes ...NodeID) {
	news := false
	for _, node := range nodes {
		news = n.mayHave(e, node) || news
	}
	if news {
		n.rewrite(e)
	}
}

// tellToo has those who may have a copy told what is over, like those that the messages went to.
func (n *Node) tellToo(e *entry) {
	for _, c := range e.copies {
		if _, told := e.s.told[c]; !told {
			put(&e.s.told, c, 0)
		}
	}
}

// maxHolders bounds how many nodes may be known to have a message: a few sets.
const maxHolders = 4 * SetSize

// holders are the other nodes that have or may have a message which a node has given or shown to this one.
func (n *Node) holders(c *pb.Custody, from NodeID) (ids []NodeID) {
	for _, h := range append(c.GetHolders(), []byte(from)) {
		if id := NodeID(h); id.valid() && id != n.self && len(ids) < maxHolders {
			ids = append(ids, id)
		}
	}
	return ids
}

// copyHolder is the member that keeps second copies: none that is leaving.
func (n *Node) copyHolder(l *location) NodeID {
	for _, m := range l.set.Members {
		if m != n.self && n.inReach(m) && !n.peers[m].left {
			return m
		}
	}
	return ""
}

func (n *Node) custodyToPB(e *entry) *pb.Custody {
	c := n.sharesToPB(e)
	c.Message = n.messageToPB(e.m)
	return c
}

// sharesToPB is what is to be known of a message in custody but for the message.
func (n *Node) sharesToPB(e *entry) *pb.Custody {
	c := &pb.Custody{Epoch: e.id.Epoch, Seq: e.id.Seq, Stamp: e.stamp, Holders: idsToBytes(e.copies)}
	if e.unset != nil {
		c.Unsettled, c.Except = true, []byte(e.unset.except)
	}
	for i := range e.shares {
		s := &e.shares[i]
		if s.done && e.unset == nil && !e.stands(s) {
			continue
		}
		p := &pb.Custody_Share{Node: []byte(s.node), Plain: s.plain, Stored: s.stored, Done: s.done,
			HoldS: uint32(s.hold / time.Second), Turn: s.turn, Partly: s.open != nil, Open: s.open.names()} //nolint:gosec // bounded by MaxHold
		for _, g := range s.groups {
			p.Groups = append(p.Groups, &pb.Group{Name: g.Name, Filter: g.Filter})
		}
		c.Shares = append(c.Shares, p)
	}
	return c
}

func (n *Node) messageToPB(m *proto.Message) *pb.Message {
	return &pb.Message{Topic: m.Topic, Payload: m.Payload, Properties: m.Properties, Qos: uint32(m.QoS), Retain: m.Retain,
		ExpiresMs: proto.ExpiresMillis(m.Expires, n.wall)}
}

// messageOf converts a message from the wire; nil where it is none.
func (n *Node) messageOf(p *pb.Message) *proto.Message {
	if p.GetQos() > 2 {
		return nil
	}
	m := &proto.Message{Topic: p.GetTopic(), Payload: p.GetPayload(), Properties: p.GetProperties(), Retain: p.GetRetain(),
		QoS: byte(p.GetQos()), Expires: proto.ExpiresAt(p.GetExpiresMs(), n.wall)} //nolint:gosec // 0 to 2
	if m.Validate() != nil {
		n.malformed("messageOf")
		return nil
	}
	return m
}

// takeCustody takes over a message that another node has, as a second copy.
func (n *Node) takeCustody(l *location, c *pb.Custody, from NodeID) {
	if m := n.messageOf(c.GetMessage()); m != nil {
		n.takeCopy(l, c, m, from)
	}
}

// takeCopy takes custody of a message as others have said; from is "" where this node has from an earlier life.
func (n *Node) takeCopy(l *location, c *pb.Custody, m *proto.Message, from NodeID) {
	if c.GetEpoch() == 0 || c.GetSeq() == 0 {
		return
	}
	s := n.stream(l, c.GetEpoch())
	if have := s.entries.get(c.GetSeq()); have != nil {
		if p := n.peers[from]; p != nil && (have.holder == nil || n.holderLost(l, have.holder)) {
			have.holder = p
		}
		n.mayKeep(have, n.holders(c, from)...)
		n.mergeShares(have, c)
		return // where it is settled here, it was matched by who knew enough, whatever another says
	}
	if c.GetSeq() <= s.low {
		return
	}
	if s.hop == "" {
		s.hop = from
	}
	e := &entry{l: l, s: s, id: Identity{c.GetEpoch(), c.GetSeq()}, m: m, size: m.Size(), at: n.now, stamp: c.GetStamp(),
		copy: true, acked: true, stored: from == ""}
	for _, p := range c.GetShares() {
		sh, ok := shareOf(p)
		if !ok {
			continue
		}
		e.shares = append(e.shares, sh)
		if !sh.done {
			e.left++
		}
	}
	if e.left == 0 && !c.GetUnsettled() {
		if from != "" { // they are to let go of it
			s.seen.add(e.id.Seq)
			for _, h := range n.holders(c, from) {
				n.owedBy(s, e.id.Seq, h)
			}
		}
		return
	}
	s.seen.add(e.id.Seq)
	for _, h := range n.holders(c, from) {
		n.mayHave(e, h)
	}
	if l.phase == serving { // offered: it stays there until it is over
		e.holder = n.peers[from]
	}
	e.shown = from == "" && len(e.copies) > 1
	n.enter(e)
	if c.GetUnsettled() {
		n.unsettle(l, e, NodeID(c.GetExcept()))
	}
	if from != "" && !e.gone {
		n.store(e)
	}
}

func (n *Node) receiveCopy(p *peer, f *pb.Copy) {
	place, ok := placeOf(f.GetPlace())
	l := n.memberOf(p, place, f.GetSet())
	if !ok || l == nil {
		n.refuse(p.id, f.GetOp()) // no member: the rendezvous finds another
		return
	}
	for _, c := range f.GetCustody() {
		n.contest(l, c, p.id, f.GetOffered())
		switch {
		case l.phase == serving:
			n.takeOffered(l, c, p.id)
		case l.phase == awaiting || !f.GetOffered(): // else it is offered to the rendezvous that is
			n.takeCustody(l, c, p.id)
		}
	}
	if l.phase == serving {
		n.promote(l)
		n.tellBehind(p.id, f.GetCustody())
	}
	n.ackSafe(p.id, f.GetOp())
}
