package core

import "fmt"

// WhyStill says what keeps a node from leaving.
func (n *Node) WhyStill() string {
	var s string
	for _, l := range n.sortedLocations() {
		if l.set.has(n.self) || l.phase == relinquishing || l.phase == filling {
			s += fmt.Sprintf(" %q %v v%d", l.place.Prefix, l.phase, l.set.Version)
		}
	}
	for _, r := range n.sortedRoutes() {
		if len(r.held) > 0 || r.own != nil && r.own.flying {
			s += fmt.Sprintf(" route %q held %d switching %v hop %x own %+v", r.place.Prefix, len(r.held), r.switching, r.hop, r.own)
		}
	}
	return fmt.Sprintf("outbox %d%s", n.outCount, s)
}
