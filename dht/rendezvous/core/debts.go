package core

import (
	"maps"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// A message that is over may come back: from the disk of a node that crashed before it was safe there that it had let go, or
// that has not heard that it may. This node may be one, and the others that have or had a copy are. So its number is remembered,
// here and by that at the subscribers' nodes, until each of them has said that it has let go for good. Until then the node owes
// that for the number: to be over is one thing, to be forgotten another.
//
// The rendezvous collects what is owed, by CopyDone; who takes over from it takes over the debts. A debt ends with the database
// of the node that owes it, and when the node itself is forgotten.

// owedBy has a number remembered until a node has let go of it for good.
func (n *Node) owedBy(s *stream, seq uint64, node NodeID) {
	if seq <= s.low || node != n.self && (n.destroyed(node) || n.meet(node) == nil) {
		return
	}
	owed := s.owed[node]
	if owed == nil {
		owed = new(spans)
		put(&s.owed, node, owed)
	}
	owed.add(seq)
	n.enliven(s)
}

// paid notes that a node has let go of numbers for good.
func (n *Node) paid(s *stream, node NodeID, ranges []*pb.Range) {
	owed := s.owed[node]
	if owed == nil {
		return
	}
	for _, g := range ranges {
		owed.cut(g.GetFrom(), g.GetTo())
	}
	if len(*owed) == 0 {
		delete(s.owed, node)
	}
	n.enliven(s)
}

// trimOwed ends what is owed for numbers up to one.
func (s *stream) trimOwed(upto uint64) {
	for node, owed := range s.owed {
		if owed.trim(upto); len(*owed) == 0 {
			delete(s.owed, node)
		}
	}
}

// firstOwed is the first number that a node has not let go of for good, or a higher one than any.
func (s *stream) firstOwed() uint64 {
	first := ^uint64(0)
	for _, owed := range s.owed {
		first = min(first, (*owed)[0].from)
	}
	return first
}

// forgive ends what a node owes: what it had is lost, or it has been away for too long.
func (n *Node) forgive(node NodeID) {
	for _, s := range n.streams {
		if s.owed[node] != nil {
			delete(s.owed, node)
			n.enliven(s)
		}
	}
}

// destroyed reports whether a node has lost its database.
func (n *Node) destroyed(id NodeID) bool {
	if id.Peer() == n.self.Peer() {
		return id != n.self // this one, before it lost its own
	}
	if p := n.peers[id]; p != nil {
		return p.gone
	}
	for _, p := range n.ordered {
		if p.up && p.id.Peer() == id.Peer() {
			return true
		}
	}
	return false
}

// letGoHere has the number of a message remembered whose record on this node's disk has just been deleted, until that is safe.
func (n *Node) letGoHere(e *entry) {
	n.owedBy(e.s, e.id.Seq, n.self)
	n.deleted = append(n.deleted, deleted{e.s, e.id.Seq})
}

// deleted is a message whose record is deleted from this node's disk.
type deleted struct {
	s   *stream
	seq uint64
}

// flushDeleted has what was deleted since the effects were last taken counted as let go of when that is safe.
func (n *Node) flushDeleted() {
	if len(n.deleted) == 0 {
		return
	}
	batch := n.deleted
	n.deleted = nil
	n.safe(func() {
		for _, d := range batch {
			n.paid(d.s, n.self, []*pb.Range{{From: d.seq, To: d.seq}})
		}
	})
}

// maxCollected is how many epochs are asked about in one frame.
const maxCollected = 10_000

// debtors gathers what is to be collected: by node, and by epoch.
type debtors map[NodeID][]*pb.Ranges

// add has what is owed of a stream collected. Who is asked already is asked for the rest when it has answered.
func (c debtors) add(n *Node, s *stream) {
	if s.l.phase != serving || n.locations[s.l.at] != s.l {
		return // the rendezvous does it
	}
	for _, node := range sortedKeys(s.owed) {
		switch {
		case node == n.self || !n.inReach(node):
		case n.peers[node].collecting, len(c[node]) >= maxCollected:
			n.enliven(s)
		default:
			c[node] = append(c[node], &pb.Ranges{Epoch: s.epoch, Ranges: s.owed[node].pb()})
		}
	}
}

// collect asks nodes to let go of what is over, and to say when they have.
func (n *Node) collect(all debtors) {
	for _, node := range sortedKeys(all) {
		p, over := n.peers[node], all[node]
		p.collecting = true
		n.request(node, func(op uint64) any { return &pb.CopyDone{Op: op, Over: over} }, func(ok bool) {
			p.collecting = false
			for _, rs := range over {
				s := n.streams[rs.GetEpoch()]
				switch {
				case s == nil:
				case ok:
					n.paid(s, node, rs.GetRanges())
				case p.reach: // it has something that is not over there
					n.enliven(s)
				}
			}
		})
	}
}

// confidence is which numbers a peer was told of others for, as long as nothing of that can be lost: while a stream to it is up.
type confidence struct {
	ups     int
	numbers spans
}

// confide tells who asks this node to let go of messages that others may have them too, from here perhaps. It reports whether there
// is something that the other did not know: then this node lets go when it is asked again.
func (n *Node) confide(p *peer, s *stream, ranges []*pb.Range) bool {
	told := s.confided[p.id]
	if told == nil || told.ups != p.ups {
		told = &confidence{ups: p.ups}
	}
	news := &stream{}
	note := func(seq uint64, node NodeID) {
		if node == p.id || node == n.self || n.destroyed(node) || told.numbers.has(seq) {
			return
		}
		owed := news.owed[node]
		if owed == nil {
			owed = new(spans)
			put(&news.owed, node, owed)
		}
		owed.add(seq)
	}
	s.eachEntry(ranges, func(e *entry) {
		for _, c := range e.copies {
			note(e.id.Seq, c)
		}
	})
	budget := epochSize
	for node, owed := range s.owed {
		for _, have := range *owed {
			for _, g := range ranges {
				if budget--; budget <= 0 {
					break
				}
				for seq := max(have.from, g.GetFrom()); seq <= min(have.to, g.GetTo()) && budget > 0; seq++ {
					budget--
					note(seq, node)
				}
			}
		}
	}
	if len(news.owed) == 0 {
		return false
	}
	for _, owed := range news.owed {
		for _, g := range *owed {
			for seq := g.from; seq <= g.to; seq++ {
				told.numbers.add(seq)
			}
		}
	}
	put(&s.confided, p.id, told)
	n.send(p.id, &pb.CopyDone{Seen: []*pb.Seen{{Epoch: s.epoch, Owed: news.owedToPB()}}})
	return true
}

// handed is where an epoch went from here, of which others may still have something.
type handed struct {
	to   []NodeID
	at   time.Duration
	told map[NodeID]int // who asked, and over how many streams to it
}

// maxHanded bounds how many epochs are remembered that went elsewhere.
const maxHanded = 10_000

// noteHanded remembers for a while that another node has from here what came of an epoch, and knows what is owed of it.
func (n *Node) noteHanded(epoch uint64, to NodeID) {
	h := n.handed[epoch]
	if h == nil {
		if len(n.handed) >= maxHanded {
			maps.DeleteFunc(n.handed, func(_ uint64, h *handed) bool { return n.now-h.at > MinHold })
		}
		if len(n.handed) >= maxHanded {
			return
		}
		h = &handed{}
		put(&n.handed, epoch, h)
	}
	if h.at = n.now; !slices.Contains(h.to, to) && len(h.to) < maxHolders {
		h.to = append(h.to, to)
		clear(h.told)
	}
}

// confideHanded is confide of an epoch that is not here any more: whom this node gave it may have all of it.
func (n *Node) confideHanded(p *peer, over *pb.Ranges) bool {
	h := n.handed[over.GetEpoch()]
	if h == nil || n.now-h.at > MinHold || h.told[p.id] == p.ups {
		return false
	}
	seen := &pb.Seen{Epoch: over.GetEpoch()}
	for _, to := range h.to {
		if to != p.id && !n.destroyed(to) {
			seen.Owed = append(seen.Owed, &pb.Seen_Owed{Node: []byte(to), Ranges: over.GetRanges()})
		}
	}
	if len(seen.GetOwed()) == 0 {
		return false
	}
	put(&h.told, p.id, p.ups)
	n.send(p.id, &pb.CopyDone{Seen: []*pb.Seen{seen}})
	return true
}

// takeConfided notes who else may have what came here, and returns what is said of epochs of which nothing did.
func (n *Node) takeConfided(all []*pb.Seen) (unknown []*pb.Seen) {
	budget := epochSize
	for _, c := range all {
		s := n.streams[c.GetEpoch()]
		if s == nil {
			unknown = append(unknown, c)
			continue
		}
		for _, o := range c.GetOwed() {
			node := NodeID(o.GetNode())
			if !node.valid() || node == n.self {
				continue
			}
			for _, g := range o.GetRanges() {
				for seq := max(g.GetFrom(), s.low+1); seq <= g.GetTo() && budget > 0; seq++ {
					budget--
					n.mayHaveToo(s, seq, node)
				}
			}
		}
	}
	return unknown
}

// owedToPB tells another rendezvous what is owed of an epoch.
func (s *stream) owedToPB() []*pb.Seen_Owed {
	var all []*pb.Seen_Owed
	for _, node := range sortedKeys(s.owed) {
		all = append(all, &pb.Seen_Owed{Node: []byte(node), Ranges: s.owed[node].pb()})
	}
	return all
}

// takeOwed takes over what is owed of an epoch from the rendezvous before.
func (n *Node) takeOwed(s *stream, all []*pb.Seen_Owed) {
	budget := epochSize
	for _, o := range all {
		node := NodeID(o.GetNode())
		if !node.valid() {
			continue
		}
		for _, g := range o.GetRanges() {
			for seq := max(g.GetFrom(), s.low+1); seq <= g.GetTo() && budget > 0; seq++ {
				budget--
				if node != n.self {
					n.owedBy(s, seq, node)
				}
				if e := s.entries.get(seq); e != nil && e.copy { // it is over, though others may have given it
					n.letGoOf(e)
				}
			}
		}
	}
}

// owedSize is about how long owedToPB is.
func (s *stream) owedSize() (size int) {
	for _, owed := range s.owed {
		size += 64 + 16*len(*owed)
	}
	return size
}
