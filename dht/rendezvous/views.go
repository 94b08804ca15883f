package rendezvous

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// View runs a function that looks at the core's state.
func (s *Service) View(look func(*core.Node)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.core.At(bootTime(), time.Now())
	look(s.core)
}

// Reaches reports whether a node is known to be there, as far as leases tell: with a database, unless that is 0.
func (s *Service) Reaches(id peer.ID, database uint64) (reaches bool) {
	s.View(func(n *core.Node) { reaches = n.Reaches(string(id), database) })
	return reaches
}

// Missing reports whether a node that is to come back is out of reach, or was until a moment ago.
func (s *Service) Missing() (is bool) {
	s.View(func(n *core.Node) { is = n.Missing() })
	return is
}

// Forgotten reports whether a node is known to be gone for good.
func (s *Service) Forgotten(id peer.ID) (is bool) {
	s.View(func(n *core.Node) { is = n.Forgotten(string(id)) })
	return is
}

// Gauges returns the sizes of what the node keeps.
func (s *Service) Gauges() (g core.Gauges) {
	s.View(func(n *core.Node) { g = n.Gauges() })
	return g
}

// CoreStats returns the counters of the core.
func (s *Service) CoreStats() (st core.Stats) {
	s.View(func(n *core.Node) { st = n.Stats() })
	return st
}

// Peers returns what this node knows of others.
func (s *Service) Peers() (p []core.PeerView) {
	s.View(func(n *core.Node) { p = n.Peers() })
	return p
}

// Merged reports whether who is asked now knows what all others in reach know; see core.Node.Merged.
func (s *Service) Merged() (merged bool) {
	s.View(func(n *core.Node) { merged = n.Merged() })
	return merged
}

// Expects reports whether this node knows of others that are to come back.
func (s *Service) Expects() (does bool) {
	s.View(func(n *core.Node) { does = n.Expects() })
	return does
}

// Seat tells what this node is to a location; see core.Node.Seat.
func (s *Service) Seat(at dht.Location) (seat core.Seat) {
	s.View(func(n *core.Node) { seat = n.Seat(at) })
	return seat
}

// Heard tells how long ago a node was alive, and has that be known from now on; see core.Node.Heard.
func (s *Service) Heard(id core.NodeID) (ago time.Duration, ever bool) {
	s.step(func(n *core.Node) { ago, ever = n.Heard(id) })
	return ago, ever
}

// Backed reports whether this node holds leases from a majority of the set of a topic's location; see core.Node.Backed.
func (s *Service) Backed(topic string) (backed bool) {
	s.step(func(n *core.Node) { backed = n.Backed(topic) })
	return backed
}

// Clock returns the time on a clock that goes on while the machine sleeps.
func (s *Service) Clock() time.Duration { return bootTime() }
