package core

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// A message of QoS 2 that was sent to one node, and then to another because nothing was heard of the first, may be at both. The second
// knows of the first: that comes with the message. The first, or whoever it has passed the message on to, does not know of the second;
// it may be through with the message, and is to remember that for as long as the other may still give it to the same subscribers. So
// this node, which alone knows, tells those that the message was sent to who keeps it, and who keeps it of those that it was sent to
// later, and does not say before that it has let go of it. At QoS 1 it may come twice.

// untold is what is to be told to a node.
type untold struct {
	others map[NodeID]*spans // numbers that it may have had, by who else may
	asking bool
	next   time.Duration // not before then
}

// toTell has those that a message was sent to told who keeps it, before it is said to be let go of.
func (n *Node) toTell(e *pending, keeper NodeID) {
	if e.m.QoS < 2 {
		return
	}
	if keeper != n.self {
		if s := n.streams[e.epoch.id]; s != nil {
			n.mayHaveToo(s, e.seq, keeper)
		}
	}
	tell := func(node, other NodeID) {
		if node == "" || other == "" || node == other || node == n.self {
			return
		}
		u := e.epoch.untold[node]
		if u == nil {
			u = &untold{others: map[NodeID]*spans{}}
			put(&e.epoch.untold, node, u)
		}
		if u.others[other] == nil {
			u.others[other] = new(spans)
		}
		u.others[other].add(e.seq)
	}
	for _, node := range e.before {
		tell(NodeID(node), keeper)
	}
	tell(e.last, keeper)
	if len(e.before) > 0 { // else it was sent to one, and who keeps it has it from that
		tell(keeper, e.last)
	}
}

// firstUntold is the first number that a node is to be told of, or a higher one than any.
func (s *sending) firstUntold() uint64 {
	first := ^uint64(0)
	for _, u := range s.untold {
		for _, numbers := range u.others {
			first = min(first, (*numbers)[0].from)
		}
	}
	return first
}

// tellUntold tells nodes in reach what they are to be told of an epoch, and the rendezvous in the place of those that do not come back.
func (n *Node) tellUntold(r *route, s *sending) {
	for _, node := range sortedKeys(s.untold) {
		u, to := s.untold[node], node
		if p := n.peers[node]; p == nil || p.left || n.destroyed(node) {
			to = r.hop
		}
		if u.asking || n.now < u.next || to == "" || to != n.self && !n.inReach(to) {
			continue
		}
		seen := &pb.Seen{Epoch: s.id}
		for _, other := range sortedKeys(u.others) {
			seen.Owed = append(seen.Owed, &pb.Seen_Owed{Node: []byte(other), Ranges: u.others[other].pb()})
		}
		if to == n.self {
			n.takeConfided([]*pb.Seen{seen})
			delete(s.untold, node)
			n.releaseKept(s)
			continue
		}
		u.asking, u.next = true, n.now+leaseEvery
		n.request(to, func(op uint64) any { return &pb.CopyDone{Op: op, Place: r.pb, Seen: []*pb.Seen{seen}} }, func(ok bool) {
			if u.asking = false; !ok {
				return
			}
			for _, o := range seen.Owed {
				other := NodeID(o.Node)
				for _, g := range o.Ranges {
					u.others[other].cut(g.From, g.To)
				}
				if len(*u.others[other]) == 0 {
					delete(u.others, other)
				}
			}
			if len(u.others) == 0 {
				delete(s.untold, node)
			}
			n.releaseKept(s)
		})
	}
}

// tellOn has the rendezvous told who else may have what came to it by way of this node, which may have forgotten that, and reports
// whether that answers the question.
func (n *Node) tellOn(p *peer, f *pb.CopyDone, unknown []*pb.Seen) bool {
	place, ok := placeOf(f.GetPlace())
	if !ok {
		return false
	}
	to := n.rendezvous(n.setOf(place))
	switch to {
	case n.self, p.id: // it has nothing of that either
		return false
	case "":
		n.refuse(p.id, f.GetOp())
		return true
	}
	n.request(to, func(op uint64) any { return &pb.CopyDone{Op: op, Seen: unknown} }, func(ok bool) {
		if ok {
			n.ack(p.id, f.GetOp())
		} else {
			n.refuse(p.id, f.GetOp())
		}
	})
	return true
}
