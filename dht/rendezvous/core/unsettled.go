package core

import (
	"cmp"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// unsettled is a message that was matched by a rendezvous that knew too little: registrations may stand at
// members that it could not reach. It is kept until a majority has matched it, against registrations that
// come from other members; never against new ones, which were made after it.
type unsettled struct {
	e      *entry
	except NodeID  // whose plain subscribers have it
	held   bool    // nobody is chosen yet for shared groups
	by     matched // who handed it over
}

// matched says against which registrations of a place and those above it a rendezvous has matched what was not settled: what came to it later
// was made later, or it has not matched it. nil: not known.
type matched map[Place]map[NodeID]uint64

// matchedNow is what this node, which serves a location, has matched everything there against.
func (n *Node) matchedNow(l *location) matched {
	m := matched{}
	n.eachTable(l, func(place Place, t *table) {
		for o, r := range t.owners {
			if m[place] == nil {
				m[place] = map[NodeID]uint64{}
			}
			m[place][o] = max(m[place][o], r.seq)
		}
	})
	return m
}

// eachTable calls each with what is registered at a location and above it.
func (n *Node) eachTable(l *location, each func(Place, *table)) {
	each(l.place, &l.table)
	for _, up := range l.above {
		if here := n.locations[up.at]; here != nil {
			each(up.place, &here.table)
		}
		if i := n.inherited[up.at]; i != nil {
			each(up.place, &i.table)
		}
	}
}

// newTo reports whether something of what a node has registered is not known to have been matched.
func (n *Node) newTo(u *unsettled, node NodeID) (is bool) {
	if u.by == nil {
		return true
	}
	n.eachTable(u.e.l, func(place Place, t *table) {
		r := t.owners[node]
		is = is || r != nil && r.seq > u.by[place][node]
	})
	return is
}

func (m matched) pb() (all []*pb.Matched) {
	for place, have := range m {
		p := &pb.Matched{Place: place.pb()}
		for _, o := range sortedKeys(have) {
			p.Have = append(p.Have, &pb.Seq{Owner: []byte(o), Seq: have[o]})
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pb.Matched) int { return cmp.Compare(a.GetPlace().GetDepth(), b.GetPlace().GetDepth()) })
	return all
}

func matchedOf(all []*pb.Matched) matched {
	if len(all) == 0 {
		return nil
	}
	m := matched{}
	for _, p := range all {
		if place, ok := placeOf(p.GetPlace()); ok {
			m[place] = map[NodeID]uint64{}
			for _, s := range p.GetHave() {
				m[place][NodeID(s.GetOwner())] = s.GetSeq()
			}
		}
	}
	return m
}

// sure reports whether nothing can stand that this rendezvous does not know.
func (n *Node) sure(l *location) bool {
	return n.sureHere(l) && n.ancestors(l).sure
}

// sureHere reports that of a location alone, whatever may stand above it.
func (n *Node) sureHere(l *location) bool {
	return n.now >= n.merging && l.blank == nil && n.whole(l.set) && !n.cutOff()
}

// cutOff reports whether this node knows of others that are to come back, and reaches none. The sets that it makes meanwhile are its
// own alone, which the others, if they live, know nothing of.
func (n *Node) cutOff() bool {
	if n.now-n.cutAt >= time.Second/5 { // it is asked for each message
		n.cutAt, n.cut = n.now, false
		for _, p := range n.ordered {
			if p.reach {
				n.cut = false
				break
			}
			n.cut = n.cut || p.seen && !p.left && !p.gone
		}
	}
	return n.cut
}

func (n *Node) unsettle(l *location, e *entry, except NodeID) {
	e.unset = &unsettled{e: e, except: except}
	if e.pinned++; e.s.entries.get(e.id.Seq) == nil {
		n.take(e)
	}
	l.unsettled.compact(func(u *unsettled) bool { return u.e.gone })
	l.unsettled.push(e.unset)
	clear(l.synced)
	n.unsetBytes += e.size
	for l.unsettled.len() > n.cfg.Limits.Unsettled || l.unsettled.len() > 1 && n.unsetBytes > n.cfg.Limits.UnsettledBytes {
		n.stats.DroppedUnsettled++
		n.settleOne(l.unsettled.pop())
	}
}

func (n *Node) settleOne(u *unsettled) {
	if u.e.unset == nil {
		return // it is over
	}
	u.e.unset = nil
	n.unsetBytes -= u.e.size
	u.e.pinned--
	n.finish(u.e)
	n.rewrite(u.e)
}

// rematch matches what another rendezvous handed over unsettled against what is registered here. What this node has matched itself
// is not for those who have come since.
func (n *Node) rematch(l *location, handed []*entry) {
	for _, e := range handed {
		u := e.unset
		if u == nil || e.gone {
			continue
		}
		dests := n.match(l, n.ancestors(l), u.e.m, u.e.id, u.except)
		left := n.leftOut(u.e)
		for _, d := range dests {
			s := share{node: d.node, plain: d.plain && !u.e.servedPlain(d.node) && n.newTo(u, d.node), hold: d.hold}
			for _, g := range d.groups {
				switch {
				case u.e.servedGroup(g):
				case u.e.m.QoS == 2 && g.Name != sessionGroup:
					u.held = true
				default:
					s.groups = append(s.groups, g)
				}
			}
			n.addShare(u.e, s)
		}
		u.held = u.held || left
		n.tryHeld(u)
	}
}

// tryHeld chooses for the groups that were left out, where that can be.
func (n *Node) tryHeld(u *unsettled) {
	if u.held && !u.e.gone && !u.e.copy && u.e.choosing == 0 && n.mayChoose(u.e) && n.canChoose(u) {
		n.chooseLate(u)
	}
}

// canChoose reports whether there is somebody to be chosen for a group that was left out, or no such group any more.
func (n *Node) canChoose(u *unsettled) bool {
	for _, d := range n.match(u.e.l, n.ancestors(u.e.l), u.e.m, u.e.id, u.except) {
		if slices.ContainsFunc(d.groups, func(g proto.Group) bool { return !u.e.servedGroup(g) }) {
			return true
		}
	}
	return !n.leftOut(u.e)
}

// addShare gives a message to one more node, if there is anything for it.
func (n *Node) addShare(e *entry, s share) {
	if e.gone || !s.plain && len(s.groups) == 0 {
		return
	}
	e.left++
	at := e.put(s)
	n.owe(e, s.node)
	n.rewrite(e)
	if e.choosing == 0 && !s.stored {
		n.deliver(e, at)
	}
}

// answersFor reports whether another node has been sent something of a message, and is still to say that it is done with it.
func (n *Node) answersFor(e *entry, node NodeID) bool {
	return node != n.self && slices.ContainsFunc(e.shares, func(o share) bool { return o.node == node && o.sent && !o.done })
}

// put adds a share, in the place of one that is done and says nothing any more where there is one.
func (e *entry) put(s share) *share {
	for i := range e.shares {
		if o := &e.shares[i]; o.done && !o.plain && !slices.ContainsFunc(o.groups, func(g proto.Group) bool { return e.turn(g) <= o.turn }) {
			*o = s
			return o
		}
	}
	e.shares = append(e.shares, s)
	return &e.shares[len(e.shares)-1]
}

// matchMissed serves what is not settled at a place and below it to a node whose registration there was missed.
func (n *Node) matchMissed(place Place, owner NodeID, filters []string) {
	for _, l := range n.sortedLocations() {
		if l.unsettled.len() > 0 && (l.place == place || l.isBelow(place)) {
			n.matchUnsettled(l, owner, filters)
		}
	}
}

// matchUnsettled serves what is kept to a node whose registration was missed.
func (n *Node) matchUnsettled(l *location, owner NodeID, filters []string) {
	if l.phase != serving {
		return
	}
	for _, u := range slices.Clone(l.unsettled.live()) {
		s := share{node: owner}
		for _, f := range filters {
			i := n.interestAt(l, owner, f)
			if i == nil || !topic.Match(f, u.e.m.Topic) {
				continue
			}
			s.hold = max(s.hold, i.Hold)
			s.plain = s.plain || i.Plain && owner != u.except && n.newTo(u, owner)
			for _, g := range i.Groups {
				switch key := (proto.Group{Name: g.Name, Filter: f}); {
				case u.e.servedGroup(key):
				case u.e.m.QoS == 2:
					u.held = true
				default:
					s.groups = append(s.groups, key)
				}
			}
		}
		if s.plain && u.e.servedPlain(owner) {
			s.plain = false
		}
		n.addShare(u.e, s)
		n.tryHeld(u)
	}
}

// interestAt finds what a node wants of a filter, at a location or above it.
func (n *Node) interestAt(l *location, owner NodeID, filter string) *Interest {
	for _, t := range append(n.ancestors(l).tables, &l.table) {
		if i, ok := t.tree.Get(filter, owner); ok {
			return i
		}
	}
	return nil
}

func (e *entry) servedPlain(node NodeID) bool {
	return slices.ContainsFunc(e.shares, func(s share) bool { return s.node == node && s.plain })
}

// hasPlain reports whether a message is for all plain subscribers here that it is for elsewhere: it may have been matched here first.
func (e *entry) hasPlain(c *pb.Custody) bool {
	return !slices.ContainsFunc(c.GetShares(), func(p *pb.Custody_Share) bool { return p.GetPlain() && !e.servedPlain(NodeID(p.GetNode())) })
}

func (e *entry) servedGroup(g proto.Group) bool {
	if e.s.chose(g, e.id.Seq) { // it was over here, and has come back from where it was not
		return true
	}
	return slices.ContainsFunc(e.shares, func(s share) bool { return slices.Contains(s.groups, g) })
}

// settledBy notes that a member's registrations have all been matched.
func (n *Node) settledBy(l *location, member NodeID) {
	if l.unsettled.len() == 0 || l.phase != serving {
		return
	}
	put(&l.synced, member, true)
	have := 1
	for _, m := range l.set.Members {
		if l.synced[m] {
			have++
		}
	}
	if have < n.majority(l.set) || !n.sure(l) {
		return
	}
	for _, u := range l.unsettled.takeAll() {
		n.tryHeld(u)
		// One is about to be handed over to this node, and not matched here yet; for another somebody is still to be chosen.
		switch {
		case u.e.gone:
		case u.e.copy || u.held || u.e.choosing > 0:
			l.unsettled.push(u)
		default:
			n.settleOne(u)
		}
	}
}

// tickUnsettled asks the members in reach what they know, once there are enough of them.
func (n *Node) tickUnsettled(l *location) {
	if l.unsettled.len() == 0 || !n.sure(l) || n.now < l.nextDigest {
		return
	}
	if len(l.set.Members) == 1 {
		n.settledBy(l, n.self)
		return
	}
	l.nextDigest = n.now + leaseEvery
	for _, m := range l.set.Members {
		if m != n.self && n.inReach(m) && !l.synced[m] {
			n.send(m, n.digest(l, false))
		}
	}
	n.settledBy(l, "")
}
