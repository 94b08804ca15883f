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

// tellAgain tells a node that is in reach again, of messages that it may have copies of, who is done with them and for whom alone they are kept: what
// was said of that while it was not, or by a stream that broke, it has not heard.
func (n *Node) tellAgain(p *peer) {
	f := new(pb.CopyDone)
	open := map[string]*opens{} // by the node that keeps them
	told := 0
	flush := func() {
		for _, node := range sortedKeys(open) {
			f.Open = append(f.Open, open[node].take(NodeID(node))...)
		}
		if told > 0 {
			n.send(p.id, f)
		}
		f, told = new(pb.CopyDone), 0
		clear(open)
	}
	for _, l := range n.sortedLocations() {
		for _, e := range l.order.live() {
			if !e.said || e.gone || e.copy || !e.decided() || !slices.Contains(e.copies, p.id) {
				continue
			}
			for i := range e.shares {
				s := &e.shares[i]
				switch {
				case s.done && !e.doneFor(s.node), !s.done && s.open == nil:
					continue
				case s.done:
					f.Done = append(f.Done, &pb.CopyDone_Share{Epoch: e.id.Epoch, Seq: e.id.Seq, Node: []byte(s.node)})
				default:
					o := s.open
					if !s.plain {
						o = &openFor{s.through()}
					}
					if open[string(s.node)] == nil {
						open[string(s.node)] = new(opens)
					}
					open[string(s.node)].add(e.id, o, !s.plain)
				}
				told++
			}
			if told >= maxMoved {
				flush()
			}
		}
	}
	flush()
}

func (n *Node) receiveCopyDone(p *peer, f *pb.CopyDone) {
	open := false
	for _, rs := range f.GetOver() {
		s := n.streams[rs.GetEpoch()]
		switch {
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
