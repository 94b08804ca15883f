package core

import (
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Leave begins to leave politely: what this node is responsible for is handed to others, what it has published
// is taken over by others, and nobody waits for it afterwards. The effect Left says when that is done; a node
// with nobody to hand to has left at once.
func (n *Node) Leave() {
	if n.leaving {
		return
	}
	n.leaving, n.leavingSince = true, n.now
	n.endTrails()
	for _, p := range n.ordered {
		if p.up {
			n.send(p.id, &pb.Leaving{Node: []byte(n.self)})
		}
	}
	n.reviewRoutes() // this node founds no sets any more: what it was to put in one goes to others
	for _, l := range n.locations {
		l.nextDigest = n.now // a rendezvous that does not know that this node is a member would not let it go
	}
	n.tickLeave()
}

func (n *Node) receiveLeaving(p *peer, f *pb.Leaving) {
	if NodeID(f.GetNode()) != p.id {
		return
	}
	if f.GetGone() && !p.ending {
		p.ending = true // what it has sent before is dealt with
		n.spread(p.id, []*pb.Known{p.known()})
	}
	if p.left {
		return
	}
	p.left = true
	n.savePeer(p)
	n.spread(p.id, []*pb.Known{p.known()})
	n.out = append(n.out, Effect{Kind: Forget, To: p.id})
	for _, l := range n.sortedLocations() {
		l.retry = 0
		if l.phase == serving {
			// What it published need not wait for its second copy.
			n.copyEntries(l, func(e *entry) bool { return !e.copied() && !e.copying && e.s.hop == p.id }, nil)
			n.relieve(l)
			n.tickChange(l)
		}
	}
	n.reviewRoutes()
}

func (n *Node) reviewRoutes() {
	for _, r := range n.sortedRoutes() {
		n.reroute(r)
	}
}

// tickLeave reports when nothing is left that others need.
func (n *Node) tickLeave() {
	if !n.leaving || n.left {
		return
	}
	n.changed = true // the next tick is a full one
	alone, waits := true, n.now-n.leavingSince < LeaseTime
	for _, p := range n.ordered { // who was lost sight of just now may be back at once
		if !p.left && (p.reach || waits && p.ups > 0 && !p.gone && n.now-p.since < LeaseTime) {
			alone = false
		}
	}
	if !alone && (n.member() || n.owing()) {
		return
	}
	if !n.parting { // what others have sent here before they heard where to is still passed on
		n.parting = true
		g := &gather{n: n}
		for _, p := range n.ordered {
			if p.reach {
				g.left++
				n.request(p.id, func(op uint64) any { return &pb.Sync{Op: op} }, func(bool) { g.one() })
			}
		}
		g.wait(func() { n.parted = true })
	}
	if n.parted {
		n.left = true
		for _, p := range n.ordered {
			if n.forGood && p.up {
				n.send(p.id, &pb.Leaving{Node: []byte(n.self), Gone: true})
			}
		}
		n.out = append(n.out, Effect{Kind: Left})
	}
}

// member reports whether this node is still in a set that others count on, and can leave.
func (n *Node) member() bool {
	for _, l := range n.locations {
		if l.set.has(n.self) && !n.abandoned(l.set) || l.phase == relinquishing || l.phase == filling {
			return true
		}
	}
	return false
}

// abandoned reports whether so many members have left that the others can't agree on the next set: those saw nobody to hand over to.
func (n *Node) abandoned(set Set) bool {
	stay := 0
	for _, m := range set.Members {
		if p := n.peers[m]; p == nil || !p.left || p.reach || n.now-p.since < LeaseTime {
			stay++
		}
	}
	return stay < n.majority(set)
}

// owing reports whether a message of this node's, or one that waits here, has not been taken over. Its registrations
// nobody keeps when it has left, whether or not they were withdrawn everywhere.
func (n *Node) owing() bool {
	if n.outCount > 0 {
		return true
	}
	for _, r := range n.routes {
		if len(r.held) > 0 {
			return true
		}
	}
	return false
}
