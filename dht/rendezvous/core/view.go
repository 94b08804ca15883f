package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
)

// View is what a node believes of a location.
type View struct {
	Place      Place
	At         dht.Location
	Set        Set    // version 0: the closest nodes known; nobody has agreed on it
	Rendezvous NodeID // "" where no member can be reached
	Phase      string // what this node is to it; "" where it is no member
	Filters    int    // registered there, at this node
	InCustody  int
}

// Locate returns where a topic is and who is responsible for it.
func (n *Node) Locate(name string) View {
	return n.view(n.placeFor(name))
}

// ViewOf returns what this node believes of a place.
func (n *Node) ViewOf(place Place) View { return n.view(place) }

func (n *Node) view(place Place) View {
	at := place.Location()
	v := View{Place: place, At: at}
	if l := n.locations[at]; l != nil {
		v.Set, v.Phase, v.Filters = l.set, l.phase.String(), l.tree.Len()
		for _, e := range l.order.live() {
			if !e.over() {
				v.InCustody++
			}
		}
	} else if r := n.routes[place]; r != nil {
		v.Set = r.set
	} else {
		v.Set = Set{0, n.candidates(at)}
	}
	v.Rendezvous = n.rendezvous(v.Set)
	return v
}

// Views returns what this node believes of all locations that it keeps state for.
func (n *Node) Views() []View {
	var all []View
	for _, l := range n.sortedLocations() {
		all = append(all, n.view(l.place))
	}
	return all
}

// Gauges are the sizes of what a node keeps.
type Gauges struct {
	Nodes, InReach, Leases                      int
	Locations, Serving, Registrations, Routes   int
	Outbox, Custody, Unsettled, Epochs, Streams int
	Waiting, CustodyBytes                       int
}

// Gauges returns the sizes of what the node keeps.
func (n *Node) Gauges() Gauges {
	g := Gauges{Nodes: 1, Locations: len(n.locations), Routes: len(n.routes), Outbox: n.outCount,
		Custody: n.cfg.Custody.Len(), Epochs: len(n.epochs), Streams: len(n.streams), Waiting: n.waiting, CustodyBytes: n.cfg.Custody.Bytes()}
	for _, p := range n.ordered {
		if !p.gone && !p.left {
			g.Nodes++
		}
		if p.reach {
			g.InReach++
		}
		if p.lease.held > n.now {
			g.Leases++
		}
	}
	for _, l := range n.locations {
		if l.phase == serving {
			g.Serving++
		}
		g.Registrations += l.tree.Len()
		g.Unsettled += l.unsettled.len()
	}
	return g
}

// PeerView is what a node knows of another.
type PeerView struct {
	ID        NodeID
	Addresses []string
	Up        bool
	InReach   bool
	Left      bool
	Gone      bool
	Since     time.Duration // for how long that is so
}

// Peers returns what this node knows of others.
func (n *Node) Peers() []PeerView {
	var all []PeerView
	for _, p := range n.ordered {
		all = append(all, PeerView{p.id, p.addresses, p.up, p.reach, p.left, p.gone, n.now - p.since})
	}
	return all
}

// Merged reports whether this node reaches others, and did not meet them just now as another swarm: then what they know may not be known yet
// to those that it asks.
func (n *Node) Merged() bool {
	return n.now >= n.merging && n.meetsAny()
}

// Expects reports whether this node knows of others that are to come, or to come back.
func (n *Node) Expects() bool {
	return slices.ContainsFunc(n.ordered, func(p *peer) bool { return !p.left && !p.gone })
}

// Forgotten reports whether a node is known, by its peer ID in bytes, to be gone for good.
func (n *Node) Forgotten(name string) (is bool) {
	for _, p := range n.ordered {
		if p.id.is(name, 0) {
			if !p.forgotten && !p.gone {
				return false
			}
			is = is || p.forgotten
		}
	}
	return is
}

// InReach reports whether a node can be talked to; this node can.
func (n *Node) InReach(id NodeID) bool { return n.inReach(id) }
