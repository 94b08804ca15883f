package core

import (
	"slices"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// What those who have second copies of messages are told of them by who serves them.

// tellCopies tells the holders of second copies that one node's share need not be kept.
func (n *Node) tellCopies(e *entry, node NodeID) {
	for _, c := range e.copies {
		e.said = true
		if n.inReach(c) {
			n.send(c, &pb.CopyDone{Place: e.l.place.pb(), Done: []*pb.CopyDone_Share{
				{Epoch: e.id.Epoch, Seq: e.id.Seq, Node: []byte(node)}}})
		}
	}
}

// retelling is what a node is told once more of messages that it may have copies of: who is done with them, and for whom alone they are kept.
type retelling struct {
	n    *Node
	to   NodeID
	f    *pb.CopyDone
	open map[string]*opens // by the node that keeps them
	told int
}

func (n *Node) retell(to NodeID) *retelling {
	return &retelling{n: n, to: to, f: new(pb.CopyDone), open: map[string]*opens{}}
}

// add adds what there is to say of a message, but for what the other knows; nil: nothing.
func (r *retelling) add(e *entry, knows func(*share) bool) {
	if !e.said || e.gone || e.copy || !e.decided() {
		return
	}
	for i := range e.shares {
		s := &e.shares[i]
		switch {
		case s.done && !e.doneFor(s.node), !s.done && s.open == nil, knows != nil && knows(s):
			continue
		case s.done:
			r.f.Done = append(r.f.Done, &pb.CopyDone_Share{Epoch: e.id.Epoch, Seq: e.id.Seq, Node: []byte(s.node)})
		default:
			o := s.open
			if !s.plain {
				o = &openFor{s.through()}
			}
			if r.open[string(s.node)] == nil {
				r.open[string(s.node)] = new(opens)
			}
			r.open[string(s.node)].add(e.id, o, !s.plain)
		}
		r.told++
	}
	if r.told >= maxMoved {
		r.send()
	}
}

func (r *retelling) send() {
	for _, node := range sortedKeys(r.open) {
		r.f.Open = append(r.f.Open, r.open[node].take(NodeID(node))...)
	}
	if r.told > 0 {
		r.n.send(r.to, r.f)
	}
	r.f, r.told = new(pb.CopyDone), 0
	clear(r.open)
}

// tellAgain tells a node that is in reach again what was said while it was not, or by a stream that broke: it has not heard that.
func (n *Node) tellAgain(p *peer) {
	r := n.retell(p.id)
	for _, l := range n.sortedLocations() {
		for _, e := range l.order.live() {
			if slices.Contains(e.copies, p.id) {
				r.add(e, nil)
			}
		}
	}
	r.send()
}

// tellBehind tells a node that offers copies what it did not take in while it served the messages itself, and those that it had given copies then
// what they were never told.
func (n *Node) tellBehind(to NodeID, all []*pb.Custody) {
	told := map[NodeID]*retelling{to: n.retell(to)}
	for _, c := range all {
		e := n.entryOf(Identity{c.GetEpoch(), c.GetSeq()})
		if e == nil {
			continue
		}
		told[to].add(e, func(s *share) bool {
			return slices.ContainsFunc(c.GetShares(), func(p *pb.Custody_Share) bool {
				return NodeID(p.GetNode()) == s.node && p.GetPlain() == s.plain && (p.GetDone() || !s.done && p.GetPartly())
			})
		})
		for _, h := range n.holders(c, to) {
			if h == to || !n.inReach(h) {
				continue
			}
			if told[h] == nil {
				told[h] = n.retell(h)
			}
			told[h].add(e, nil)
		}
	}
	for _, h := range sortedKeys(told) {
		told[h].send()
	}
}

func (n *Node) receiveCopyDone(p *peer, f *pb.CopyDone) {
	open := false
	for _, rs := range f.GetOver() {
		s := n.streams[rs.GetEpoch()]
		switch {
		case s == nil && f.GetOp() != 0 && n.confideHanded(p, rs):
			open = true
		case s == nil:
		case f.GetOp() != 0 && n.confide(p, s, rs.GetRanges()): // else the other has forgotten it, and could not ask again
			open = true
		default:
			s.eachEntry(rs.GetRanges(), func(e *entry) {
				if open = open || !e.copy; e.copy {
					e.noteChosen()
					n.letGoOf(e)
				}
			})
		}
	}
	unknown := n.takeConfided(f.GetSeen())
	for _, m := range f.GetMoved() {
		n.receiveMoved(m)
	}
	for _, o := range f.GetOpen() {
		n.receiveOpen(o, NodeID(o.GetNode()), func(do func(*entry)) {
			n.eachOf(o.GetMessages(), func(e *entry) {
				if e.copy {
					do(e)
				}
			})
		})
	}
	for _, d := range f.GetDone() {
		if e := n.entryOf(Identity{d.GetEpoch(), d.GetSeq()}); e != nil && e.copy {
			n.shareDone(e, NodeID(d.GetNode()))
		}
	}
	if open { // this node serves it, for its own part, or the other did not know who else may have it
		n.refuse(p.id, f.GetOp())
		return
	}
	if len(unknown) > 0 && f.GetOp() != 0 && n.tellOn(p, f, unknown) {
		return
	}
	n.ackSafe(p.id, f.GetOp())
}

// tellCopiesOpen tells those who have second copies for whom alone a node keeps messages.
func (n *Node) tellCopiesOpen(node NodeID, o *pb.Open, entries []*entry) {
	to := map[NodeID]*acks{}
	for _, e := range entries {
		if e.copy {
			continue
		}
		for _, c := range e.copies {
			e.said = true
			if c != node && n.inReach(c) {
				if to[c] == nil {
					to[c] = new(acks)
				}
				to[c].add(e.id)
			}
		}
	}
	for _, c := range sortedKeys(to) {
		n.send(c, &pb.CopyDone{Open: []*pb.Open{{Node: []byte(node), Sessions: o.GetSessions(), Through: o.GetThrough(), Messages: to[c].take()}}})
	}
}
