package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// stream is a publisher's epoch at a location, where this node is or was its rendezvous, or holds second
// copies. It knows which numbers came, until nobody can send them again.
type stream struct {
	epoch   uint64
	l       *location
	hop     NodeID // who sent the last one, and gets the acknowledgements
	low     uint64 // everything up to here is over, for everybody
	freed   uint64 // the publisher has let go of everything up to here
	seen    spans  // numbers that came, above low
	entries map[uint64]*entry
	told    map[NodeID]uint64 // what the subscribers' nodes were told they may forget
	closed  bool              // nothing will follow
}

// release notes what the publisher has let go of.
func (s *stream) release(upto uint64) { s.freed = max(s.freed, upto) }

// advance forgets the numbers that the publisher and everybody it went to have let go of.
func (s *stream) advance() {
	low := s.low
	for s.low < s.freed && s.entries[s.low+1] == nil {
		s.low++
	}
	if s.low > low {
		s.seen.trim(s.low)
	}
}

// share is what one node gets of a message.
type share struct {
	node   NodeID
	groups []proto.Group
	hold   time.Duration // how long it is kept for a node that is out of reach
	plain  bool
	stored bool
	done   bool
}

// entry is a message in custody here.
type entry struct {
	l       *location
	s       *stream
	id      Identity
	m       *proto.Message
	size    int
	shares  []share
	left    int // shares that are not done
	at      time.Duration
	stamp   uint64
	own     *pending // this node's own message
	pinned  int      // what else it is kept for: settling, being retained elsewhere
	copy    bool     // this is the second copy; another node serves it
	copied  bool     // another node has a copy
	copying bool
	copies  []NodeID
	acked   bool // who sent it was told that it may let go
	gone    bool
}

// over reports whether nobody needs the entry any more.
func (e *entry) over() bool { return e.gone || e.left == 0 && e.pinned == 0 }

func (n *Node) stream(l *location, epoch uint64) *stream {
	s := n.streams[epoch]
	if s == nil {
		s = &stream{epoch: epoch, l: l, entries: map[uint64]*entry{}, told: map[NodeID]uint64{}}
		n.streams[epoch] = s
	}
	if s.l != l { // it came when the location was another's, or its place was forgotten and found again
		s.l = l
	}
	return s
}

func (n *Node) streamsOf(l *location) []*stream {
	var all []*stream
	for _, epoch := range sortedKeys(n.streams) {
		if s := n.streams[epoch]; s.l == l {
			all = append(all, s)
		}
	}
	return all
}

// take takes custody of a message, if anybody is to get it.
func (n *Node) take(e *entry) {
	if e.left == 0 && e.stamp == 0 && e.pinned == 0 {
		return
	}
	e.s.entries[e.id.Seq] = e
	e.l.order.push(e)
	n.cfg.Custody.Put(e.id, e.m)
	for i := range e.shares {
		n.owe(e, e.shares[i].node)
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
	p.shares.push(e)
	p.owed++
	for p.shares.len() > 0 {
		switch first := p.shares.front(); {
		case first.gone || first.doneFor(node):
			p.shares.pop()
		case p.owed > n.cfg.Limits.Away && (!p.reach || first.storedAt(node)):
			n.stats.DroppedAway++
			n.shareDone(p.shares.pop(), node)
		default:
			return
		}
	}
}

// again answers a message that came before.
func (n *Node) again(s *stream, a *arrival) {
	n.stats.Duplicates++
	if a.own != nil {
		n.let(a.own)
		return
	}
	e := s.entries[a.id.Seq]
	p := n.dirtyPeer(a.from)
	if p == nil {
		return
	}
	if a.echo {
		p.taken.add(a.id)
	}
	if e == nil || e.acked || e.copied {
		p.kept.add(a.id)
	}
}

// deliver sends a share, if its node can be reached; if not it goes when the node is back.
func (n *Node) deliver(e *entry, s *share) {
	if s.done || e.copy {
		return
	}
	d := &proto.Deliver{Message: e.m, Location: e.l.at, Epoch: e.id.Epoch, Seq: e.id.Seq, Forget: e.s.low,
		Plain: s.plain, Groups: s.groups, Stamp: e.stamp}
	if s.node == n.self {
		n.deliverHere(n.self, d)
		return
	}
	if n.inReach(s.node) {
		e.l.sent[s.node] = true
		e.s.told[s.node] = e.s.low
		n.send(s.node, d)
	}
}

// sendOnce sends a message that nobody keeps.
func (n *Node) sendOnce(l *location, a *arrival, d dest) {
	f := &proto.Deliver{Message: a.m, Location: l.at, Plain: d.plain, Groups: d.groups}
	switch {
	case d.node == n.self:
		n.deliverHere(n.self, f)
	case n.inReach(d.node):
		l.sent[d.node] = true
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
			case !s.stored || s.node == n.self:
				n.deliver(e, s)
			default:
				if recall[s.node] == nil {
					recall[s.node] = new(acks)
				}
				recall[s.node].add(e.id)
			}
		}
	}
	for _, to := range sortedKeys(recall) {
		if n.inReach(to) {
			n.send(to, &pb.Recall{Stored: recall[to].take()})
		}
	}
}

func (n *Node) receiveDeliverAck(p *peer, f *pb.DeliverAck) {
	each := func(ranges []*pb.Ranges, do func(e *entry)) {
		for _, rs := range ranges {
			s := n.streams[rs.GetEpoch()]
			if s == nil {
				continue
			}
			for _, g := range rs.GetRanges() {
				for seq := max(g.GetFrom(), s.low+1); seq <= min(g.GetTo(), g.GetFrom()+epochSize); seq++ {
					if e := s.entries[seq]; e != nil {
						do(e)
					}
				}
			}
		}
	}
	each(f.GetStored(), func(e *entry) {
		for i := range e.shares {
			if e.shares[i].node == p.id {
				e.shares[i].stored = true
			}
		}
	})
	each(f.GetDone(), func(e *entry) { n.shareDone(e, p.id) })
}

// shareDone notes that a node needs a message no more.
func (n *Node) shareDone(e *entry, node NodeID) {
	for i := range e.shares {
		s := &e.shares[i]
		if s.node != node || s.done {
			continue
		}
		s.done = true
		e.left--
		if p := n.peers[node]; p != nil {
			p.owed--
			for p.shares.len() > 0 && (p.shares.front().gone || p.shares.front().doneFor(node)) {
				p.shares.pop()
			}
		}
		if e.copied && e.left > 0 {
			n.tellCopies(e, node)
		}
	}
	n.finish(e)
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
	if e.gone || !e.over() {
		return
	}
	n.ackKept(e)
	if e.copied {
		n.tellCopies(e, "")
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
			}
		}
	}
	if e.s.entries[e.id.Seq] == e {
		delete(e.s.entries, e.id.Seq)
		if n.mine[e.id.Epoch] == nil || n.mine[e.id.Epoch].open[e.id.Seq] == nil {
			n.cfg.Custody.Delete(e.id)
		}
	}
	e.s.advance()
	for e.l.order.len() > 0 && e.l.order.front().gone {
		e.l.order.pop()
	}
}

// ackKept tells who sent a message that it may let go.
func (n *Node) ackKept(e *entry) {
	if e.acked {
		return
	}
	e.acked = true
	if e.own != nil {
		n.let(e.own)
		return
	}
	if p := n.dirtyPeer(e.s.hop); p != nil && !e.copy {
		p.kept.add(e.id)
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

// cancelShares drops what was kept for a node that wants nothing any more.
func (n *Node) cancelShares(l *location, node NodeID) {
	for _, e := range slices.Clone(l.order.live()) {
		if !e.gone && e.l == l {
			n.shareDone(e, node)
		}
	}
}

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
	for _, e := range mine {
		n.finish(e)
	}
}

// tickCustody has a second copy made of what its subscribers take their time with.
func (n *Node) tickCustody(l *location) {
	if n.cfg.Custody.Len() >= n.cfg.Limits.Custody {
		return // publishers' nodes keep theirs, and their clients wait
	}
	n.copyEntries(l, func(e *entry) bool { return !e.copied && !e.copying && n.now-e.at >= copyAfter }, nil)
}

// lapse drops what was kept for nodes that have been out of reach for too long.
func (n *Node) lapse(l *location) {
	for _, e := range slices.Clone(l.order.live()) {
		for i := 0; i < len(e.shares) && !e.gone && n.now-e.at > MinHold; i++ {
			if s := &e.shares[i]; !s.done && n.now-e.at > s.hold && !n.inReach(s.node) {
				n.stats.DroppedAway++
				n.shareDone(e, s.node)
			}
		}
	}
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
	for len(batch) > 0 {
		f := &pb.Copy{Place: l.place.pb()}
		size, k := 0, 0
		for ; k < len(batch) && size < proto.SoftFrame; k++ {
			if c := n.custodyToPB(batch[k]); c != nil {
				f.Custody = append(f.Custody, c)
				size += 128 + batch[k].size
			}
			batch[k].copying = true
		}
		sent := batch[:k]
		batch = batch[k:]
		g.left++
		n.request(to, func(op uint64) any { f.Op = op; return f }, func(ok bool) {
			n.copied(sent, to, ok)
			g.one()
		})
	}
	g.wait(func() {
		if done != nil {
			done()
		}
	})
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
		e.s.told[to] = 0 // it is told what is over, like those that the messages went to
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
	for _, s := range e.shares {
		if s.done {
			continue
		}
		p := &pb.Custody_Share{Node: []byte(s.node), Plain: s.plain, Stored: s.stored,
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
	m := &proto.Message{Topic: p.GetTopic(), Payload: p.GetPayload(), Properties: p.GetProperties(), QoS: byte(p.GetQos()),
		Retain: p.GetRetain(), Expires: proto.ExpiresAt(p.GetExpiresMs(), n.wall)}
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
	if have := s.entries[c.GetSeq()]; have != nil {
		have.copied = true
		if !slices.Contains(have.copies, from) {
			have.copies = append(have.copies, from)
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
		sh := share{node: NodeID(p.GetNode()), plain: p.GetPlain(), stored: p.GetStored(),
			hold: max(MinHold, min(time.Duration(p.GetHoldS())*time.Second, MaxHold))}
		if !sh.node.valid() {
			continue
		}
		for _, g := range p.GetGroups() {
			if topic.ValidFilter(g.GetFilter(), topic.Limits{}) == nil {
				sh.groups = append(sh.groups, proto.Group{Name: g.GetName(), Filter: g.GetFilter()})
			}
		}
		e.shares = append(e.shares, sh)
		e.left++
	}
	if e.left == 0 {
		return
	}
	s.seen.add(e.id.Seq)
	n.take(e)
}

// takeSeen takes over which numbers of an epoch came to a rendezvous before.
func (n *Node) takeSeen(l *location, f *pb.Seen) {
	if f.GetEpoch() == 0 {
		return
	}
	s := n.stream(l, f.GetEpoch())
	s.low = max(s.low, f.GetUpto())
	for _, g := range f.GetRanges() {
		for seq := max(g.GetFrom(), s.low+1); seq <= min(g.GetTo(), g.GetFrom()+epochSize); seq++ {
			s.seen.add(seq)
		}
	}
	s.seen.trim(s.low)
}

func (n *Node) receiveCopy(p *peer, f *pb.Copy) {
	place, ok := placeOf(f.GetPlace())
	l := n.locations[place.Location()]
	if !ok || l == nil {
		return // no member: the rendezvous finds another
	}
	for _, c := range f.GetCustody() {
		n.takeCustody(l, c, p.id)
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
		e := s.entries[d.GetSeq()]
		switch {
		case e == nil || !e.copy:
		case len(d.GetNode()) == 0:
			n.release(e)
		default:
			n.shareDone(e, NodeID(d.GetNode()))
		}
	}
}

// receiveForget closes an epoch, or forgets what is over in it.
func (n *Node) receiveForget(p *peer, f *pb.Forget) {
	for _, e := range f.GetEpochs() {
		if s := n.streams[e.GetEpoch()]; s != nil && (s.hop == p.id || s.hop == n.self) {
			s.release(e.GetUpto())
			s.closed = s.closed || e.GetClosed()
			n.releaseCopies(s, e.GetUpto())
			continue
		}
		if to, ok := n.relayed[e.GetEpoch()]; ok && to == p.id && e.GetClosed() {
			delete(n.relayed, e.GetEpoch())
		}
		n.forgetReceived(e)
	}
}

// releaseCopies lets go of second copies that their rendezvous says are over.
func (n *Node) releaseCopies(s *stream, upto uint64) {
	for _, seq := range sortedKeys(s.entries) {
		if e := s.entries[seq]; seq <= upto && e.copy {
			n.release(e)
		}
	}
}

// tickStreams tells the subscribers' nodes what is over, and forgets epochs that are.
func (n *Node) tickStreams() {
	news := map[NodeID][]*pb.Forget_Epoch{}
	for _, epoch := range sortedKeys(n.streams) {
		s := n.streams[epoch]
		s.advance()
		over := s.closed && len(s.entries) == 0
		if n.locations[s.l.at] != s.l && len(s.entries) == 0 {
			delete(n.streams, epoch)
			continue
		}
		for _, t := range sortedKeys(s.told) {
			if s.told[t] < s.low || over {
				s.told[t] = s.low
				news[t] = append(news[t], &pb.Forget_Epoch{Epoch: epoch, Upto: s.low, Closed: over})
			}
		}
		if over {
			delete(n.streams, epoch)
		}
	}
	for _, t := range sortedKeys(news) {
		if n.inReach(t) {
			n.send(t, &pb.Forget{Epochs: news[t]})
		}
	}
}
