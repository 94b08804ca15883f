package core

import (
	"fmt"
	"slices"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
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

// Left says what is left of what was published.
func (n *Node) Left() string {
	s := n.Kept() + n.Outbox()
	add := func(what string, number int) {
		if number > 0 {
			s += fmt.Sprintf(" %s %d", what, number)
		}
	}
	add("outbox", n.outCount)
	add("outbox bytes", n.outBytes)
	add("custody", n.cfg.Custody.Len())
	n.cfg.Custody.Load(func(id Identity, m *proto.Message, r *pb.StoredCustody) {
		s += fmt.Sprintf(" %x/%d %q %v", id.Epoch, id.Seq, m.Topic, r)
	})
	add("waiting", n.waiting)
	add("waiting bytes", n.waitBytes)
	add("unsettled bytes", n.unsetBytes)
	add("detours", n.detours)
	add("unaccepted", n.unaccepted.len())
	add("unstored", n.unstored.len())
	for _, l := range n.sortedLocations() {
		add(fmt.Sprintf("unsettled at %q", l.place.Prefix), l.unsettled.len())
		add(fmt.Sprintf("choosing at %q", l.place.Prefix), len(l.choosing))
	}
	for _, r := range n.sortedRoutes() {
		if r.epoch != nil {
			add(fmt.Sprintf("open epoch at %q", r.place.Prefix), 1)
		}
		add(fmt.Sprintf("old epochs at %q", r.place.Prefix), len(r.old))
		add(fmt.Sprintf("held at %q", r.place.Prefix), len(r.held))
		add(fmt.Sprintf("detours at %q", r.place.Prefix), r.detours)
	}
	for _, p := range n.ordered {
		add(fmt.Sprintf("shares for %s", p.id.Peer()), p.owed)
		add(fmt.Sprintf("bytes for %s", p.id.Peer()), p.bytes)
	}
	for _, epoch := range sortedKeys(n.mine) {
		x := n.mine[epoch]
		s += fmt.Sprintf(" own epoch %x seq %d release %d kept %v", epoch, x.seq, x.release, x.kept)
	}
	for _, epoch := range sortedKeys(n.streams) {
		x := n.streams[epoch]
		add(fmt.Sprintf("entries of %x at %q (%v, closed %v, low %d)", epoch, x.l.place.Prefix, x.l.phase, x.closed, x.low), x.entries.len())
		if x.l.phase == serving {
			for _, node := range sortedKeys(x.owed) {
				s += fmt.Sprintf(" owed %x at %q by %s %v", epoch, x.l.place.Prefix, node.Peer(), *x.owed[node])
			}
		}
	}
	for _, epoch := range sortedKeys(n.epochs) {
		add(fmt.Sprintf("receipts of %x", epoch), n.epochs[epoch].open.len())
	}
	return s
}

// Epochs says what is remembered of epochs.
func (n *Node) Epochs() (s string) {
	for _, epoch := range sortedKeys(n.streams) {
		x := n.streams[epoch]
		s += fmt.Sprintf(" stream %x of %q (%v) low %d freed %d seen %v entries %d closed %v lively %v", epoch, x.l.place.Prefix, x.l.phase, x.low, x.freed, x.seen, x.entries.len(), x.closed, x.lively)
		for _, node := range sortedKeys(x.owed) {
			s += fmt.Sprintf(" owed by %s %v", node.Peer(), *x.owed[node])
		}
		for _, node := range sortedKeys(x.told) {
			s += fmt.Sprintf(" told %s %d", node.Peer(), x.told[node])
		}
	}
	for _, epoch := range sortedKeys(n.epochs) {
		x := n.epochs[epoch]
		s += fmt.Sprintf(" received %x low %d plain %v groups %v open %d closed %v", epoch, x.low, x.plain, x.groups, x.open.len(), x.closed)
	}
	return s
}

// Chosen calls visit with the messages in custody for members of a shared subscription, and the nodes that they are for.
func (n *Node) Chosen(g proto.Group, visit func(*proto.Message, NodeID)) {
	for _, s := range n.streams {
		for _, e := range s.entries.values {
			for _, h := range e.shares {
				if !h.done && slices.Contains(h.groups, g) {
					visit(e.m, h.node)
				}
			}
		}
	}
}

// OwnerKey and InterestKey are where a registration is in the journal.
func OwnerKey(p Place, owner NodeID) string { return ownerKey(p.Location(), owner) }

func InterestKey(p Place, owner NodeID, filter string) string {
	return interestKey(p.Location(), owner, filter)
}
