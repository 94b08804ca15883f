package core

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// peer is what this node knows of another.
//
//	known ── Up ──> up, in reach ── Down ──> known, out of reach ── a minute ──> dead
//	                 │      ^
//	                 └ its lease ran out ┘ and came again
//
// A node that left politely, or that came back with another database, is gone: it is in no set from then on.
type peer struct {
	id        NodeID
	point     dht.Location
	addresses []string
	life      uint64
	up        bool // there is a stream in each direction
	reach     bool // up, and its lease has not run out
	left      bool // politely
	restored  bool // it was met in an earlier life of this node
	gone      bool // replaced by the same peer with another database, or forgotten for good: what it had is lost
	forgotten bool // for good: what stood and was kept for it is dropped
	ending    bool // it is gone for good when it goes down
	seen      bool // it has been up
	ups       int  // how often: a frame sent since the last time is not lost while it is up
	since     time.Duration

	ops     map[uint64]operation // that it has not answered
	acks    []uint64             // its operations that are to be acknowledged at the end of the batch
	refuses []uint64             // and those that this node cannot carry out
	taken   acks
	kept    acks
	written acks
	store   acks
	done    acks
	refused []*pb.Refusal
	open    opens
	dirty   bool

	lease      lease
	collecting bool // it has been asked to let go of what is over, and has not answered

	used    time.Duration // when it was last published through
	dialled time.Duration // when a connection was last asked for, beside what the host does by itself
	toldSet time.Duration // when it was last told that it asked the wrong node

	shares fifo[*entry] // in custody for it, oldest first; some are done
	owed   int          // of these, how many are not
	bytes  int          // of those
}

// dead reports whether p is to be replaced in the sets that it is in.
func (n *Node) dead(p *peer) bool {
	return p.gone || p.left || !p.reach && n.now-p.since >= deadAfter
}

// departed reports whether nobody will ever want what is kept for a node: it is forgotten, or it has lost its database or left politely,
// and hold is 0: no session waits there, to come back or to go on elsewhere.
func (n *Node) departed(id NodeID, hold time.Duration) bool {
	p := n.peers[id]
	return p != nil && (p.forgotten || (p.gone || p.left) && hold == 0) && !p.reach
}

// lapsed reports whether nobody wants any more what is registered. It is asked at every tick, of registrations with many filters too.
func (n *Node) lapsed(r *registration) bool {
	quiet := n.now - r.refreshed
	if p := n.peers[r.owner]; quiet <= MinHold && (p == nil || p.reach) {
		return false
	}
	hold := r.hold()
	return quiet > max(hold, MinHold) || n.departed(r.owner, hold)
}

// inReach reports whether a node can be talked to; this node can.
func (n *Node) inReach(id NodeID) bool {
	if id == n.self {
		return true
	}
	p := n.peers[id]
	return p != nil && p.reach
}

// Reaches reports whether a node is known to be there, as far as leases tell, by its peer ID in bytes: with a database, unless that is 0.
func (n *Node) Reaches(name string, db uint64) bool {
	return n.self.is(name, db) || slices.ContainsFunc(n.ordered, func(p *peer) bool { return p.reach && p.id.is(name, db) })
}

// Missing reports whether a node that is to come back is out of reach, or was until a moment ago: it may have something for this node that
// it sends only now, or is about to hear what all others know. In a swarm too large for all to know all nobody can tell.
func (n *Node) Missing() bool {
	return !n.large() && slices.ContainsFunc(n.ordered, func(p *peer) bool {
		return p.seen && !p.left && !p.gone && !p.forgotten && (!p.reach || n.now-p.since < missedFor)
	})
}

func (n *Node) addPeer(id NodeID) *peer {
	p := &peer{id: id, point: dht.PeerPoint(id.Peer()), since: n.now, ops: map[uint64]operation{}}
	p.gone = id.Peer() == n.self.Peer() // this node with an earlier database: nobody will come back under that name
	if s, is := n.leftBefore[id]; is && n.now-s.heard < MinHold {
		p.left, p.life = true, s.life
		delete(n.leftBefore, id)
	}
	n.peers[id] = p
	i, _ := slices.BinarySearchFunc(n.ordered, id, func(p *peer, id NodeID) int { return cmp.Compare(p.id, id) })
	n.ordered = slices.Insert(n.ordered, i, p)
	return p
}

// Hello returns the first frame for a stream to any node.
func (n *Node) Hello(life uint64, addresses []string) *pb.Hello {
	return &pb.Hello{Node: []byte(n.self), Version: proto.RouteVersion, Life: life, Addresses: addresses, Known: n.knownNodes(),
		Serves: n.serves(), Time: n.latest(), Clock: uint64(n.now)} //nolint:gosec // not below 0
}

// serves reports whether this node does not come with empty hands where it meets others: who has just come to a
// swarm that was there brings nothing that the swarm does not know, unless it has sets from before.
func (n *Node) serves() bool {
	return len(n.locations) > 0 && (n.brings || !n.joined || n.now-n.born > mergeTime)
}

// bridges reports whether a node that says Hello knows none of the others that this node has met, or has made sets
// with itself alone: they are of swarms that meet here.
func (n *Node) bridges(h *pb.Hello) bool {
	known := map[NodeID]bool{}
	for _, k := range h.GetKnown() {
		known[NodeID(k.GetNode())] = true
	}
	met := len(n.locations) > 0
	for _, p := range n.ordered {
		if p.seen && p.id != NodeID(h.GetNode()) {
			if known[p.id] {
				return false
			}
			met = true
		}
	}
	return met
}

// foundBy reports whether a node that says Hello knows others, and is the first that this one meets.
func (n *Node) foundBy(h *pb.Hello) bool {
	return !slices.ContainsFunc(n.ordered, func(p *peer) bool { return p.seen }) &&
		slices.ContainsFunc(h.GetKnown(), func(k *pb.Known) bool { return NodeID(k.GetNode()).Peer() != n.self.Peer() })
}

// maxKnown bounds the nodes that one frame tells of.
const maxKnown = 500

func (n *Node) knownNodes() []*pb.Known {
	var known []*pb.Known
	for _, p := range n.ordered {
		if !p.gone && len(known) < maxKnown {
			known = append(known, p.known())
		}
	}
	return known
}

func (p *peer) known() *pb.Known {
	return &pb.Known{Node: []byte(p.id), Addresses: p.addresses, Left: p.left, Life: p.life, Gone: p.forgotten || p.ending}
}

// Up tells that a node has said Hello and can be sent to.
func (n *Node) Up(h *pb.Hello) {
	id := NodeID(h.GetNode())
	if !id.valid() || id == n.self {
		return
	}
	p := n.peers[id]
	if p == nil {
		p = n.addPeer(id)
	}
	n.hearTime(h.GetTime())
	news := p.life < h.GetLife() || p.left
	p.life, p.left, p.gone, p.forgotten, p.ending = max(p.life, h.GetLife()), false, false, false, false
	if len(h.GetAddresses()) > 0 {
		p.addresses = bounded(h.GetAddresses())
	}
	for _, q := range n.ordered {
		if q != p && q.id.Peer() == id.Peer() && !q.gone {
			n.lose(q, false)
		}
	}
	if p.up {
		n.Down(id) // a new stream: what was on the way on the old one is lost
	}
	if (!p.seen || n.now-p.since > deadAfter) && (h.GetServes() && (n.serves() || n.bridges(h)) || n.serves() && n.foundBy(h)) {
		// Each may have made sets without the other: what stands at one is news at the other.
		n.merging = n.now + mergeTime
	}
	n.joined = n.joined || h.GetServes() && !n.serves()
	p.up, p.reach, p.seen, p.since = true, true, true, n.now
	n.savePeer(p)
	p.ups++
	p.lease = lease{granted: p.lease.granted, heard: p.lease.heard, spoke: p.lease.spoke} // it may still count on that one
	if c := h.GetClock(); c != 0 {
		p.lease.hearClock(n.now, time.Duration(c)) //nolint:gosec // whatever it is, it is compared alone
	}
	if news {
		n.spread(id, []*pb.Known{p.known()})
	}
	n.learnNodes(id, h.GetKnown())
	n.send(id, &pb.Nodes{Known: n.knownNodes(), Time: n.latest()}) // what was learnt since Hello was made
	n.peerInReach(p)
}

// lose marks a peer as replaced by itself with another database, or as forgotten: whatever it held is lost. What it wanted for sessions that
// outlive connections is kept: they go on from what others know of them, unless it is forgotten.
func (n *Node) lose(p *peer, forgotten bool) {
	n.Down(p.id)
	p.gone, p.forgotten = true, forgotten
	n.savePeer(p)
	for _, l := range n.sortedLocations() {
		if r := l.owners[p.id]; r != nil && n.lapsed(r) {
			n.dropRegistrations(l, p.id)
		}
		n.lapse(l)
	}
	for _, i := range n.inherited {
		if r := i.owners[p.id]; r != nil && n.lapsed(r) {
			i.drop(p.id)
		}
	}
	n.forgive(p.id)
	n.membersChanged()
}

// Down tells that a node cannot be sent to any more.
func (n *Node) Down(id NodeID) {
	p := n.peers[id]
	if p == nil || !p.up {
		return
	}
	p.up = false
	p.acks, p.refuses = p.acks[:0], nil
	p.taken, p.kept, p.written, p.store, p.done, p.refused, p.open = acks{}, acks{}, acks{}, acks{}, acks{}, nil, nil
	n.outOfReach(p)
	if p.ending {
		p.ending = false
		n.bury(p)
	}
}

// outOfReach marks a peer as unreachable and lets everything that waits for it go on without it.
func (n *Node) outOfReach(p *peer) {
	if p.reach {
		p.reach, p.since = false, n.now
	}
	ops := p.ops
	p.ops = map[uint64]operation{}
	for _, op := range sortedKeys(ops) {
		ops[op].done(false)
	}
	n.membersChanged()
}

func (n *Node) peerInReach(p *peer) {
	n.membersChanged()
	n.metLookup(p.id)
	n.foundMet()
	n.askFoundings(p.id)
	for _, s := range n.streams { // it may not have heard what is over
		if _, told := s.told[p.id]; told || s.owed[p.id] != nil {
			n.enliven(s)
		}
	}
	n.tellAgain(p)
	n.resendShares(p)
	n.resendRoutes(p)
	n.exchangeDigests(p)
	if n.leaving {
		n.send(p.id, &pb.Leaving{Node: []byte(n.self), Gone: n.forGood && n.left})
	}
}

// learnNodes takes in what another node says of nodes.
func (n *Node) learnNodes(from NodeID, known []*pb.Known) {
	var news []*pb.Known
	for _, k := range known {
		id := NodeID(k.GetNode())
		if !id.valid() {
			n.malformed("learnNodes")
			continue
		}
		if id == n.self || id.Peer() == n.self.Peer() {
			continue
		}
		p := n.peers[id]
		switch {
		case k.GetGone():
			if !n.cfg.Private || p == nil || p.forgotten || p.up || k.GetLife() < p.life { // one that is up tells by itself
				continue
			}
			n.bury(p)
		case p == nil && k.GetLeft():
			n.heardLeft(id, k.GetLife())
			continue
		case p == nil && n.successor(id, k.GetLife()):
			continue
		case p == nil && len(n.peers) >= min(4*n.cfg.Small, n.cfg.Limits.Nodes):
			n.stats.PeersFull++
			continue
		case p == nil:
			p = n.addPeer(id)
			p.addresses, p.life = bounded(k.GetAddresses()), k.GetLife()
			if !n.large() {
				n.out = append(n.out, Effect{Kind: Dial, To: id, Addresses: p.addresses})
			}
		case k.GetLife() > p.life:
			p.life, p.left = k.GetLife(), k.GetLeft()
			p.addresses = bounded(k.GetAddresses())
			if !p.up && !p.left {
				n.out = append(n.out, Effect{Kind: Dial, To: id, Addresses: p.addresses})
			}
		case k.GetLife() == p.life && k.GetLeft() && !p.left:
			p.left = true
			n.out = append(n.out, Effect{Kind: Forget, To: id})
		default:
			continue
		}
		n.savePeer(p)
		news = append(news, p.known())
	}
	if len(news) > 0 {
		n.spread(from, news)
		n.membersChanged()
	}
}

// leftNode is one that has left before this one could have met it. It may still be named in what others hand over.
type leftNode struct {
	life  uint64
	heard time.Duration
}

// heardLeft notes that a node has left, for as long as others remember it. They are not told: else it would go round for ever.
func (n *Node) heardLeft(id NodeID, life uint64) {
	maps.DeleteFunc(n.leftBefore, func(_ NodeID, s leftNode) bool { return n.now-s.heard > MinHold })
	if len(n.leftBefore) < n.cfg.Limits.Nodes {
		put(&n.leftBefore, id, leftNode{life, n.now})
	}
}

// successor reports whether a later life of the same peer, with another database, is known already.
func (n *Node) successor(id NodeID, life uint64) bool {
	for _, p := range n.ordered {
		if p.id.Peer() == id.Peer() && (p.up || p.life >= life) {
			return true
		}
	}
	return false
}

// forgetPeers forgets nodes that nobody waits for any more.
func (n *Node) forgetPeers() {
	n.ordered = slices.DeleteFunc(n.ordered, func(p *peer) bool {
		old := n.now-p.since > MaxHold || (p.left || p.forgotten) && n.now-p.since > MinHold
		if p.up || !old || p.owed > 0 {
			return false
		}
		delete(n.peers, p.id)
		n.forgive(p.id)
		n.cfg.Journal.Delete(peerKey(p.id))
		if !p.gone { // else the peer is here under another name
			n.out = append(n.out, Effect{Kind: Forget, To: p.id})
		}
		return true
	})
}

// bounded keeps a few addresses of a sane length.
func bounded(addresses []string) []string {
	var a []string
	for _, s := range addresses {
		if len(a) < 16 && len(s) < 256 {
			a = append(a, s)
		}
	}
	return a
}

// spread tells what is new to everybody but where it came from.
func (n *Node) spread(from NodeID, news []*pb.Known) {
	for _, p := range n.ordered {
		if p.up && p.id != from {
			n.send(p.id, &pb.Nodes{Known: news})
		}
	}
}

// membersChanged goes through everything that depends on who is there.
func (n *Node) membersChanged() {
	n.changed = true
	for _, l := range n.sortedLocations() {
		n.review(l)
	}
	for _, r := range n.sortedRoutes() {
		n.reroute(r)
	}
	n.reviewInherited()
}

// strangerTime is how long a node counts that others know and that has not been met: it may be long dead.
const strangerTime = 5 * time.Second

// candidates are the nodes that a first set is made of: known, not left, not dead.
func (n *Node) candidates(at dht.Location) []NodeID {
	return n.closest(at, func(p *peer) bool { return !n.dead(p) && (p.seen || n.now-p.since < strangerTime) })
}

// closest returns the nodes closest to a location, at most SetSize, of this node and those that fit.
func (n *Node) closest(at dht.Location, fits func(*peer) bool) []NodeID {
	type near struct {
		id    NodeID
		point dht.Location
	}
	var best []near
	consider := func(c near) {
		i := len(best)
		for i > 0 && at.Closer(c.point, best[i-1].point) {
			i--
		}
		if i < SetSize {
			best = slices.Insert(best, i, c)
			best = best[:min(len(best), SetSize)]
		}
	}
	if !n.leaving {
		consider(near{n.self, n.point})
	}
	for _, p := range n.ordered {
		if fits(p) {
			consider(near{p.id, p.point})
		}
	}
	ids := make([]NodeID, len(best))
	for i, b := range best {
		ids[i] = b.id
	}
	return ids
}

// dirtyPeer returns a peer that will be sent acknowledgements; nil when it is not up.
func (n *Node) dirtyPeer(id NodeID) *peer {
	p := n.peers[id]
	if p == nil || !p.up {
		return nil
	}
	if !p.dirty {
		p.dirty = true
		n.dirty = append(n.dirty, p)
	}
	return p
}

// flushAcks sends what has gathered since the last Take. It comes after everything else in the batch, so
// that an acknowledgement never overtakes what it follows from.
func (n *Node) flushAcks() {
	for _, p := range n.dirty {
		p.dirty = false
		if !p.up {
			continue
		}
		if taken, kept, written := p.taken.take(), p.kept.take(), p.written.take(); taken != nil || kept != nil || written != nil {
			n.send(p.id, &pb.PublishAck{Taken: taken, Kept: kept, Written: written})
		}
		stored, done, open := p.store.take(), p.done.take(), p.open.take("")
		for len(open) > 1 {
			n.send(p.id, &pb.DeliverAck{Stored: stored, Open: open[:1]})
			stored, open = nil, open[1:]
		}
		if stored != nil || done != nil || p.refused != nil || open != nil {
			n.send(p.id, &pb.DeliverAck{Stored: stored, Done: done, Refused: p.refused, Open: open})
			p.refused = nil
		}
		if len(p.acks)+len(p.refuses) > 0 {
			n.send(p.id, &pb.Ack{Ops: slices.Clone(p.acks), Refused: p.refuses})
			p.acks, p.refuses = p.acks[:0], nil
		}
	}
	n.dirty = n.dirty[:0]
}
