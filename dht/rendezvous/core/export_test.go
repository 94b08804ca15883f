package core

import (
	"fmt"

	"github.com/mozzie-mqtt/mozzie/proto"
)

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

// Kept says what is in custody at a node and why.
func (n *Node) Kept() string {
	var s string
	for _, l := range n.sortedLocations() {
		if l.waiting.len() > 0 {
			s += fmt.Sprintf(" %q (%v, pulling %v): %d wait", l.place.Prefix, l.phase, l.pulling, l.waiting.len())
		}
		for _, e := range l.order.live() {
			if e.over() {
				continue
			}
			s += fmt.Sprintf(" %q: %q left %d pinned %d copy %v copied %v acked %v shares", l.place.Prefix, e.m.Properties, e.left, e.pinned, e.copy, e.copied(), e.acked)
			for _, h := range e.shares {
				s += fmt.Sprintf(" %s{plain %v groups %v stored %v done %v}", h.node.Peer(), h.plain, h.groups, h.stored, h.done)
			}
		}
	}
	return s
}

// Outbox lists the messages that nobody else keeps.
func (n *Node) Outbox() string {
	var s string
	for _, id := range sortedKeys(n.mine) {
		for _, seq := range n.mine[id].open.sorted() {
			e := n.mine[id].open.get(seq)
			s += fmt.Sprintf(" %q %x/%d via %q hop %q kept %v sent %v at %v in out %d switching %v waits %v", e.m.Properties, id, seq, e.via, e.r.hop, e.kept, e.sent, e.at, e.r.out.len(), e.r.switching, e.waits)
		}
	}
	return s
}

// Open is how many operations are waited for.
func (n *Node) Open() (open int) {
	for _, p := range n.ordered {
		open += len(p.ops)
	}
	return open
}

// Keeps calls visit with every message that this node has a duty not to lose.
func (n *Node) Keeps(visit func(*proto.Message)) {
	for _, s := range n.mine {
		for _, e := range s.open.values {
			visit(e.m)
		}
	}
	for _, s := range n.streams {
		for _, e := range s.entries.values {
			visit(e.m)
		}
	}
}

// Serves calls visit with every place that this node is the rendezvous of.
func (n *Node) Serves(visit func(Place, Set)) {
	for _, l := range n.locations {
		if l.phase == serving {
			visit(l.place, l.set)
		}
	}
}

// Unkept calls visit with the messages of this node's clients that nobody else is known to keep.
func (n *Node) Unkept(visit func(*proto.Message)) {
	for _, s := range n.mine {
		for _, e := range s.open.values {
			visit(e.m)
		}
	}
}

// Owed calls visit with what is owed to this node, as a rendezvous, for what is over.
func (n *Node) Owed(visit func(by NodeID, id Identity)) {
	for _, s := range n.streams {
		for node, owed := range s.owed {
			if s.l.phase == serving && n.locations[s.l.at] == s.l {
				visit(node, Identity{s.epoch, (*owed)[0].from})
			}
		}
	}
}

// KeptFor is how many messages are in custody for a node, and what it owes.
func (n *Node) KeptFor(id NodeID) (kept int) {
	for _, l := range n.locations {
		for _, e := range l.order.live() {
			for _, s := range e.shares {
				if s.node == id && !s.done && !e.gone {
					kept++
				}
			}
		}
		if l.owners[id] != nil {
			kept++
		}
	}
	for _, s := range n.streams {
		if s.owed[id] != nil {
			kept++
		}
	}
	return kept
}
