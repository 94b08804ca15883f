package core

import (
	"slices"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// foundLooked goes on with a founding when those closest to the location are known.
func (n *Node) foundLooked(l *location) {
	if n.locations[l.at] != l || l.phase != founding {
		return
	}
	members := n.candidates(l.at)
	if !slices.Contains(members, n.self) {
		n.drop(l)
		return
	}
	l.meeting = false
	n.foundSet(l, members)
}

// mayMeet reports whether nodes may be about to be met that have something of a location, which must not be missed: those that had left where
// all were stopped and are started again now, and those of a swarm that this node joins.
func (n *Node) mayMeet() bool {
	return n.now < n.born+promiseTime && (n.cfg.Joins && !n.meetsAny() || slices.ContainsFunc(n.ordered, func(p *peer) bool { return p.left && p.restored }))
}

// meetsAny reports whether another node is in reach.
func (n *Node) meetsAny() bool {
	return slices.ContainsFunc(n.ordered, func(p *peer) bool { return p.reach })
}

// foundMet goes on with the foundings that waited for others to be met.
func (n *Node) foundMet() {
	if n.mayMeet() {
		return
	}
	for _, l := range n.sortedLocations() {
		if l.phase == founding && l.meeting {
			n.foundLooked(l)
		}
	}
}

// foundSet asks the others of a first set whether another stands.
func (n *Node) foundSet(l *location, members []NodeID) {
	l.set = Set{1, members}
	n.saveLocation(l)
	l.asking, l.blank = map[NodeID]bool{}, map[NodeID]bool{}
	for _, m := range members {
		if p := n.peers[m]; m != n.self && (p.reach || n.now-p.since < promiseTime) {
			l.asking[m] = true
		}
	}
	for _, m := range members {
		if l.asking[m] && n.inReach(m) {
			n.askFounding(l, m)
		}
	}
	if len(l.asking) == 0 {
		n.founded(l)
		return
	}
	n.timers.set(n.now+promiseTime, func() {
		if l.phase != founding || n.locations[l.at] != l {
			return
		}
		// Who has not answered by now is out of reach. Who has never been met may not be there at all, or may make a
		// set of its own.
		met := slices.DeleteFunc(slices.Clone(l.set.Members), func(m NodeID) bool {
			p := n.peers[m]
			return m != n.self && (p == nil || !p.seen)
		})
		if len(met) < len(l.set.Members) {
			n.merging = max(n.merging, n.now+deadAfter)
		}
		l.set.Members = met
		n.founded(l)
	})
}

// askFounding asks a member of a first set whether it may stand. Those who are about to be connected to are
// asked when they are.
func (n *Node) askFounding(l *location, m NodeID) {
	n.need(m)
	n.request(m, func(op uint64) any {
		return &pb.Found{Op: op, Place: l.place.pb(), Set: l.set.pb()}
	}, func(ok bool) {
		if ok && l.phase == founding {
			l.blank[m] = true
		}
		if delete(l.asking, m); len(l.asking) == 0 && l.phase == founding {
			n.founded(l)
		}
	})
}

// askFoundings asks a node that has come into reach about the locations whose founding waits for it.
func (n *Node) askFoundings(m NodeID) {
	for _, l := range n.sortedLocations() {
		if l.phase == founding && l.asking[m] {
			n.askFounding(l, m)
		}
	}
}

// founded ends the founding: everybody who could be asked has answered.
func (n *Node) founded(l *location) {
	n.expectHandOver(l, l.set)
	l.phase = standby
	n.brings = n.brings || len(l.set.Members) == 1
	if len(l.blank)+1 >= n.majority(l.set) { // else another set may stand, at those who could not be asked
		l.blank = nil
	}
	for _, m := range l.set.Members { // from now on no other offer replaces it
		if m != n.self && n.inReach(m) {
			n.send(m, &pb.SetNews{Place: l.place.pb(), Set: l.set.pb()})
		}
	}
	n.review(l)
	n.settle(l)
}

func (n *Node) receiveFound(p *peer, f *pb.Found) {
	place, ok := placeOf(f.GetPlace())
	at := place.Location()
	offered, fits := setOf(f.GetSet(), at)
	if !ok || !fits || !offered.has(n.self) {
		n.malformed("Found")
		return
	}
	n.need(p.id)
	l, known := n.locations[at], n.setOf(place)
	stood := l != nil && l.phase != founding && n.now >= l.offered
	switch {
	case l == nil && known.Version > 0 && !n.allDead(known) && !known.equal(offered): // else others have heard of it first, and said so
		n.send(p.id, &pb.FoundAck{Op: f.GetOp(), Place: f.GetPlace(), Set: known.pb()})
		return
	case l == nil:
		if l = n.newLocation(place, at); l == nil {
			n.refuse(p.id, f.GetOp())
			return
		}
		l.phase, l.set = standby, offered
		n.saveLocation(l)
		l.founder, l.offered = p.id, n.now+2*promiseTime
		n.learnRoute(place, offered)
		n.review(l)
	case offered.beats(l.set, at) && (l.phase == founding || l.phase == standby && n.now < l.offered):
		l.asking = nil
		l.phase = standby
		l.founder, l.offered = p.id, n.now+2*promiseTime
		n.adopt(l, offered)
	case l.phase == filling:
		l.set = offered
		n.saveLocation(l)
		l.phase = standby
		n.adopt(l, offered)
	}
	n.send(p.id, &pb.FoundAck{Op: f.GetOp(), Place: f.GetPlace(), Set: l.set.pb(), Stood: stood})
}

func (n *Node) receiveFoundAck(p *peer, f *pb.FoundAck) {
	place, ok := placeOf(f.GetPlace())
	set, fits := setOf(f.GetSet(), place.Location())
	if !ok || !fits {
		n.malformed("FoundAck")
		return
	}
	if l := n.locations[place.Location()]; l != nil && l.phase == founding && (f.GetStood() || !set.equal(l.set)) {
		// What was offered was a guess; this is what stands, or what another guessed better. Who has taken the
		// offer is told. It may be the same set, which this node knew before it crashed.
		for _, m := range l.set.Members {
			if m != n.self && m != p.id && n.inReach(m) {
				n.send(m, &pb.SetNews{Place: f.GetPlace(), Set: set.pb()})
			}
		}
		n.expectHandOver(l, set)
		l.phase, l.asking, l.blank = standby, nil, map[NodeID]bool{}
		l.route.stood = n.now + retryAfter
		n.adopt(l, set)
		if l = n.locations[l.at]; l != nil && l.blank != nil {
			n.catchUp(l)
		}
	} else {
		n.learnSet(place, set)
	}
	p.answered(f.GetOp(), true)
}
