package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// promote makes this node's second copies its own duty: it is the rendezvous now.
func (n *Node) promote(l *location) {
	var mine []*entry
	for _, e := range slices.Clone(l.order.live()) {
		if e.gone || !e.copy {
			continue
		}
		e.copy, e.at = false, n.now
		mine = append(mine, e)
	}
	n.redeliver(mine, "")
	n.rematch(l)
	for _, e := range mine {
		n.finish(e)
	}
}

// tickCustody has a second copy made of what its subscribers take their time with.
func (n *Node) tickCustody(l *location) {
	if n.custodyFull(1) {
		return // publishers' nodes keep theirs, and their clients wait
	}
	n.copyEntries(l, func(e *entry) bool { return !e.copied && !e.copying && n.now-e.at >= copyAfter }, nil)
}

// copyEntries has the entries that are picked copied to another member, and calls done when they are, or
// cannot be.
func (n *Node) copyEntries(l *location, pick func(*entry) bool, done func()) {
	to := n.copyHolder(l)
	var batch []*entry
	for _, e := range l.order.live() {
		if !e.gone && !e.copy && pick(e) {
			batch = append(batch, e)
		}
	}
	if to == "" || len(batch) == 0 {
		if done != nil {
			done()
		}
		return
	}
	g := &gather{n: n}
	for _, e := range batch {
		e.copying = true
	}
	n.sendCopies(l, to, batch, g, func(sent []*entry, ok bool) { n.copied(sent, to, ok) })
	g.wait(func() {
		if done != nil {
			done()
		}
	})
}

// sendCopies sends messages in custody to another member, in as many frames as it takes.
func (n *Node) sendCopies(l *location, to NodeID, batch []*entry, g *gather, each func(sent []*entry, ok bool)) {
	g.left++
	p := &pump{n: n, to: to, done: func(bool) {
		if len(batch) > 0 {
			each(batch, false) // these were not sent any more
		}
		g.one()
	}}
	p.next = func() (func(op uint64) any, func(bool)) {
		f := &pb.Copy{Place: l.place.pb(), Set: l.set.pb()}
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
	var batch []*entry
	for _, e := range l.order.live() {
		if !e.gone && e.copy {
			batch = append(batch, e)
		}
	}
	if to != "" && to != n.self {
		n.sendCopies(l, to, batch, &gather{n: n}, func([]*entry, bool) {})
	}
}

// takeOffered takes what another member has a copy of, unless it is over.
func (n *Node) takeOffered(l *location, c *pb.Custody, from NodeID) {
	s := n.stream(l, c.GetEpoch())
	if s.entries.get(c.GetSeq()) == nil && (c.GetSeq() <= s.low || s.seen.has(c.GetSeq())) {
		n.send(from, &pb.CopyDone{Place: l.place.pb(), Done: []*pb.CopyDone_Share{{Epoch: c.GetEpoch(), Seq: c.GetSeq()}}})
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
		e.copied = true
		e.copies = append(e.copies, to)
		put(&e.s.told, to, 0) // it is told what is over, like those that the messages went to
		if e.gone {
			n.tellCopies(e, "")
			continue
		}
		n.ackKept(e)
	}
}

// copyHolder is the member that keeps second copies.
func (n *Node) copyHolder(l *location) NodeID {
	for _, m := range l.set.Members {
		if m != n.self && n.inReach(m) {
			return m
		}
	}
	return ""
}

func (n *Node) custodyToPB(e *entry) *pb.Custody {
	c := &pb.Custody{Message: n.messageToPB(e.m), Epoch: e.id.Epoch, Seq: e.id.Seq, Stamp: e.stamp}
	if e.unset != nil {
		c.Unsettled, c.Except = true, []byte(e.unset.except)
	}
	for _, s := range e.shares {
		if s.done && e.unset == nil {
			continue
		}
		p := &pb.Custody_Share{Node: []byte(s.node), Plain: s.plain, Stored: s.stored, Done: s.done,
			HoldS: uint32(s.hold / time.Second)} //nolint:gosec // bounded by MaxHold
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
	m := n.messageOf(c.GetMessage())
	if m == nil || c.GetEpoch() == 0 || c.GetSeq() == 0 {
		return
	}
	s := n.stream(l, c.GetEpoch())
	if have := s.entries.get(c.GetSeq()); have != nil {
		have.copied = true
		put(&have.s.told, from, 0)
		if !slices.Contains(have.copies, from) {
			have.copies = append(have.copies, from)
		}
		if c.GetUnsettled() && have.unset == nil {
			n.unsettle(l, have, NodeID(c.GetExcept()))
		}
		return
	}
	if c.GetSeq() <= s.low {
		return
	}
	if s.hop == "" {
		s.hop = from
	}
	e := &entry{l: l, s: s, id: Identity{c.GetEpoch(), c.GetSeq()}, m: m, size: m.Size(), at: n.now, stamp: c.GetStamp(),
		copy: true, acked: true}
	for _, p := range c.GetShares() {
		sh := share{node: NodeID(p.GetNode()), plain: p.GetPlain(), stored: p.GetStored(), done: p.GetDone(),
			hold: max(MinHold, min(time.Duration(p.GetHoldS())*time.Second, MaxHold))}
		if !sh.node.valid() {
			continue
		}
		for _, g := range p.GetGroups() {
			if validGroup(g.GetName()) && topic.ValidFilter(g.GetFilter(), topic.Limits{}) == nil {
				sh.groups = append(sh.groups, proto.Group{Name: g.GetName(), Filter: g.GetFilter()})
			}
		}
		e.shares = append(e.shares, sh)
		if !sh.done {
			e.left++
		}
	}
	if e.left == 0 && !c.GetUnsettled() {
		return
	}
	s.seen.add(e.id.Seq)
	n.take(e)
	if c.GetUnsettled() {
		n.unsettle(l, e, NodeID(c.GetExcept()))
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
		if l.phase == serving {
			n.takeOffered(l, c, p.id)
		} else {
			n.takeCustody(l, c, p.id)
		}
	}
	if l.phase == serving {
		n.promote(l)
	}
	n.ack(p.id, f.GetOp())
}

// tellCopies tells the holders of second copies what need not be kept: one node's share, or, with node "",
// all of it.
func (n *Node) tellCopies(e *entry, node NodeID) {
	for _, c := range e.copies {
		if n.inReach(c) {
			n.send(c, &pb.CopyDone{Place: e.l.place.pb(), Done: []*pb.CopyDone_Share{
				{Epoch: e.id.Epoch, Seq: e.id.Seq, Node: []byte(node)}}})
		}
	}
}

func (n *Node) receiveCopyDone(_ *peer, f *pb.CopyDone) {
	for _, d := range f.GetDone() {
		s := n.streams[d.GetEpoch()]
		if s == nil {
			continue
		}
		e := s.entries.get(d.GetSeq())
		switch {
		case e == nil || !e.copy:
		case len(d.GetNode()) == 0:
			n.release(e)
		default:
			n.shareDone(e, NodeID(d.GetNode()))
		}
	}
}
