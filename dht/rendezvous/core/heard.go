package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
)

// Seat is what this node is to a location.
type Seat struct {
	// Members is the location's set, this node included; none where it is no member.
	Members []NodeID
	// Serving says that this node is the rendezvous, and that whoever was it before has no lease any more.
	Serving bool
}

// Seat tells what this node is to a location.
func (n *Node) Seat(at dht.Location) Seat {
	l := n.locations[at]
	if l == nil || l.phase < standby || !l.set.has(n.self) {
		return Seat{}
	}
	return Seat{Members: slices.Clone(l.set.Members), Serving: l.phase == serving && n.now >= l.since+LeaseTime}
}

// Heard tells how long ago a node was alive for certain, and has it connected to, and asked for a lease from now on, which tells
// that. ever is false where it was never heard of since this node was started.
func (n *Node) Heard(id NodeID) (ago time.Duration, ever bool) {
	n.need(id)
	p := n.peers[id]
	if p == nil {
		n.dialStranger(id)
		return 0, false
	}
	n.meet(id)
	if !p.lease.spoke {
		return 0, false
	}
	return n.now - p.lease.heard, true
}

// dialStranger connects to a node that others know. It is no peer before it has said who it is.
func (n *Node) dialStranger(id NodeID) {
	if at, ok := n.strangers[id]; ok && n.now-at <= lookupEvery {
		return
	}
	if len(n.strangers) >= n.cfg.Limits.Nodes {
		clear(n.strangers)
	}
	put(&n.strangers, id, n.now)
	n.out = append(n.out, Effect{Kind: Dial, To: MakeNodeID(0, id.Peer())})
}

// Backed reports whether this node holds leases from a majority of the set of a topic's location, itself included where it is a
// member, and has it ask for them from now on: what it publishes there is not of one that the others take for dead.
func (n *Node) Backed(topic string) bool {
	r := n.route(n.placeFor(topic))
	for _, m := range r.set.Members {
		n.need(m)
	}
	if !r.set.has(n.self) && n.large() && r.hop != "" { // which is not connected to everybody: the one that takes what it says is enough
		n.need(r.hop)
		return n.holds(r.hop)
	}
	return len(r.set.Members) > 0 && n.whole(r.set)
}
