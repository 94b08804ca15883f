package core

import (
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// serveUnkept passes on a QoS 0 message, and lets its publisher's node know where nobody wants such.
func (n *Node) serveUnkept(l *location, a *arrival, above ancestry, dests []dest, sure bool) {
	for _, d := range dests {
		n.sendOnce(l, a, d)
	}
	if len(dests) > 0 || a.hops > 0 || !sure || !a.served || n.interested(l, above, a.publisher) {
		return
	}
	put(&l.told, a.from, true)
	n.quiet[l.at] = l
	if a.from == n.self {
		n.out = append(n.out, Effect{Kind: Quiet, Place: l.place, Until: n.now + LeaseTime})
		return
	}
	n.send(a.from, &pb.NoInterest{Place: l.place.pb()})
}

// interested reports whether anybody wants anything of a location's topics that the plain subscribers of the
// publisher's own node have not got already.
func (n *Node) interested(l *location, above ancestry, publisher NodeID) bool {
	for _, t := range append(above.tables, &l.table) {
		for _, r := range t.owners {
			if len(r.interests) > 0 && (r.owner != publisher || r.groups()) {
				return true
			}
		}
	}
	return false
}

// awake has the driver forget what it was told by Quiet.
func (n *Node) awake() { n.out = append(n.out, Effect{Kind: Awake}) }

func (n *Node) receiveNoInterest(p *peer, f *pb.NoInterest) {
	place, ok := placeOf(f.GetPlace())
	if !ok {
		n.malformed("NoInterest")
		return
	}
	r := n.routes[place]
	if r == nil || r.hop != p.id || r.switching {
		return
	}
	r.quiet = true
	p.used = n.now
	if p.lease.held > n.now {
		n.out = append(n.out, Effect{Kind: Quiet, Place: place, Until: p.lease.held})
	}
}

func (n *Node) receiveWake(p *peer, f *pb.Wake) {
	for _, w := range f.GetPlaces() {
		if place, ok := placeOf(w); ok {
			if r := n.routes[place]; r != nil {
				r.quiet = false
			}
		}
	}
	n.out = append(n.out, Effect{Kind: Awake})
	n.ack(p.id, f.GetOp())
}
