package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// inherited is the registrations of a place above, at a node that serves a location below it and is no
// member of the set above. It is good while leases from a majority of that set are held; members push what
// changes, and a registration there is no promise before this node has acknowledged it.
type inherited struct {
	table
	place   Place
	at      dht.Location
	route   *route                     // its set is the one that is asked
	sources map[NodeID]bool            // members that push to this node
	lacking map[NodeID]map[NodeID]bool // owners, and members that have nothing of theirs
	asked   time.Duration
	again   time.Duration // when the members are asked again, whether they push or not
	retry   time.Duration // when those that do not push are asked again
	used    time.Duration
}

// ready reports whether what was inherited is all that stands.
func (n *Node) ready(i *inherited) bool {
	held := 0
	set := i.route.set
	for _, m := range set.Members {
		if i.sources[m] && n.holds(m) {
			held++
		}
	}
	return set.Version > 0 && held >= n.majority(set)
}

// ancestry is what is registered above a location.
type ancestry struct {
	tables []*table // good until the next call of ancestors
	ok     bool     // nothing is being asked for
	sure   bool     // it is all that stands: nothing was asked for in vain
}

// ancestors returns what is registered above a location, and has what is not here asked for.
func (n *Node) ancestors(l *location) ancestry {
	a := ancestry{n.tables[:0], true, true}
	for i := range l.above {
		up := &l.above[i]
		if here := n.locate(up.place, up.at); here != nil {
			a.tables = append(a.tables, &here.table)
			if i := n.inherited[up.at]; i != nil { // of another set, which this one is about to be joined with
				a.tables = append(a.tables, &i.table)
			}
			a.ok = a.ok && here.phase >= standby
			a.sure = a.sure && here.phase >= standby && here.blank == nil && here.set.has(n.self) && n.whole(here.set) // else others know more
			continue
		}
		i := n.inherited[up.at]
		if i == nil {
			i = n.inherit(up.place, up.at)
		}
		i.used = n.now
		a.tables = append(a.tables, &i.table)
		if !n.ready(i) {
			a.sure = false
			a.ok = a.ok && n.now-i.asked > promiseTime
		}
	}
	n.tables = a.tables
	return a
}

func (n *Node) inherit(place Place, at dht.Location) *inherited {
	i := &inherited{place: place, at: at, route: n.route(place), sources: map[NodeID]bool{}, asked: n.now, used: n.now,
		again: n.now + digestEvery}
	n.inherited[at] = i
	n.inheritFrom(i)
	return i
}

// keepAbove has what was registered at a place go on counting for the locations below it, where this node is no member any more. The others
// are asked for what is missing: what comes of that was missed, and what was known is not.
func (n *Node) keepAbove(l *location) {
	i := n.inherited[l.at]
	if i == nil {
		if len(l.owners) == 0 || !n.hasBelow(l.place) {
			return
		}
		i = &inherited{place: l.place, at: l.at, route: n.route(l.place), used: n.now, again: n.now + digestEvery}
		n.inherited[l.at] = i
	}
	i.merge(&l.table)
	i.asked, i.sources = n.now, map[NodeID]bool{} // a member is not told what those who inherit are
	n.inheritFrom(i)
}

// inheritedAs reports whether a registration came to this node before it was a member.
func (n *Node) inheritedAs(at dht.Location, r *pb.Registration) bool {
	i := n.inherited[at]
	if i == nil {
		return false
	}
	have := i.owners[NodeID(r.GetOwner())]
	return have != nil && have.seq >= r.GetSeq()
}

// lacks notes of which owners a member has nothing.
func (i *inherited) lacks(member NodeID, owners [][]byte) {
	for owner, by := range i.lacking {
		if delete(by, member); len(by) == 0 {
			delete(i.lacking, owner)
		}
	}
	for _, o := range owners {
		owner := NodeID(o)
		if i.owners[owner] == nil {
			continue
		}
		if i.lacking[owner] == nil {
			put(&i.lacking, owner, map[NodeID]bool{})
		}
		i.lacking[owner][member] = true
	}
}

// dropLacking drops the owners of whom no source has anything.
func (i *inherited) dropLacking() {
	for owner, by := range i.lacking {
		gone := true
		for m := range i.sources {
			gone = gone && by[m]
		}
		if gone {
			i.drop(owner)
			delete(i.lacking, owner)
		}
	}
}

// inheritFrom asks the members of the set above that do not push yet.
func (n *Node) inheritFrom(i *inherited) {
	for _, m := range i.route.set.Members {
		if !i.sources[m] || !n.holds(m) {
			n.askToInherit(i, m)
		}
	}
}

// inheritBy takes over a set that others say stands, and asks its members.
func (n *Node) inheritBy(i *inherited, set Set) {
	if n.learnRoute(i.place, set) {
		n.inheritFrom(i)
	}
}

// askToInherit asks a member for what it has and this node has not, and for changes from now on.
func (n *Node) askToInherit(i *inherited, m NodeID) {
	if m != n.self && n.inReach(m) {
		n.need(m)
		if here := n.locations[i.at]; here != nil { // what this node has as a member it does not lack
			i.merge(&here.table)
		}
		n.send(m, &pb.Inherit{Place: i.place.pb(), Have: i.have()})
	}
}

func (n *Node) receiveInherit(p *peer, f *pb.Inherit) {
	place, ok := placeOf(f.GetPlace())
	if !ok || place.Depth > 1 {
		n.malformed("Inherit")
		return
	}
	n.giveInheritance(p.id, place, f)
}

func (n *Node) giveInheritance(to NodeID, place Place, f *pb.Inherit) {
	l := n.locate(place, place.Location())
	switch {
	case l == nil:
		if set := n.setOf(place); set.Version > 0 {
			n.send(to, &pb.SetNews{Place: f.GetPlace(), Set: set.pb()})
		}
	case l.phase < standby:
		l.calls = append(l.calls, func() { n.giveInheritance(to, place, f) })
	default:
		put(&l.inheritors, to, true)
		n.need(to)
		parts, sent := n.missingAt(l, f.GetHave(), to)
		a := &pb.Inherited{Place: f.GetPlace(), Set: l.set.pb()}
		for _, p := range parts {
			if a.Registrations != nil {
				a.More = true
				n.send(to, a)
				a = &pb.Inherited{Place: f.GetPlace(), Set: l.set.pb()}
			}
			a.Registrations = p
		}
		for _, h := range f.GetHave() {
			if l.owners[NodeID(h.GetOwner())] == nil {
				a.Gone = append(a.Gone, h.GetOwner())
			}
		}
		n.send(to, a)
		sent()
	}
}

// disinherit tells those who count on this node for a place's registrations that they cannot any more.
func (n *Node) disinherit(l *location) {
	for _, i := range sortedKeys(l.inheritors) {
		n.send(i, &pb.Inherited{Place: l.place.pb(), Ended: true})
	}
	clear(l.inheritors)
}

func (n *Node) receiveInherited(p *peer, f *pb.Inherited) {
	place, ok := placeOf(f.GetPlace())
	at := place.Location()
	set, fits := setOf(f.GetSet(), at)
	i := n.inherited[at]
	switch {
	case !ok || !fits && !f.GetEnded():
		n.malformed("Inherited")
		return
	case i == nil:
		return
	case f.GetEnded():
		delete(i.sources, p.id)
		i.again = n.now // at the next tick: it may be about to be one again
		return
	}
	n.inheritBy(i, set)
	for _, r := range f.GetRegistrations() {
		n.applyInherited(i, r, &gather{n: n}, true)
	}
	if f.GetMore() {
		return
	}
	i.lacks(p.id, f.GetGone())
	n.ackLacking(place, &i.table)
	i.sources[p.id] = true
	if n.ready(i) {
		i.dropLacking() // another member may tell of an owner that one has not heard of yet
		n.inheritanceReady(place)
	}
}

// inheritanceReady carries on at the locations that waited for a place above.
func (n *Node) inheritanceReady(place Place) {
	if n.pulls == 0 {
		return
	}
	for _, l := range n.sortedLocations() {
		if l.pulling && l.isBelow(place) {
			n.drainPulled(l)
		}
	}
}

// drainPulled serves what waited for the registrations above, once they are there or it has waited enough.
func (n *Node) drainPulled(l *location) {
	if !n.ancestors(l).ok {
		return
	}
	l.pulling = false
	n.pulls--
	n.settle(l)
}

// pushed takes over a registration of a place above, and acknowledges it when everybody knows who was told,
// on the strength of its absence, that nobody is interested.
func (n *Node) pushed(i *inherited, p *peer, set Set, f *pb.Replicate) {
	n.inheritBy(i, set)
	g := &gather{n: n}
	for _, r := range f.GetRegistrations() {
		if n.applyInherited(i, r, g, f.GetSync()) == unknown {
			delete(i.sources, p.id)
			n.inheritFrom(i)
			n.ackWith(i.place, r, p.id, f.GetOp())
			return
		}
	}
	g.wait(func() { n.ack(p.id, f.GetOp()) })
}

// applyInherited takes over a registration of a place above. What is not settled is matched against it only if
// it comes late, and is one that was missed.
func (n *Node) applyInherited(i *inherited, r *pb.Registration, g *gather, late bool) verdict {
	delete(i.lacking, NodeID(r.GetOwner())) // one has something
	v, added := i.apply(r, n.cfg.Limits.Registrations, n.now)
	if (v == applied || v == partly) && len(added) > 0 {
		n.wakeBelow(i.place, g)
		if late && missed(r) {
			n.matchMissed(i.place, NodeID(r.GetOwner()), added)
		}
		n.resume(i.place, NodeID(r.GetOwner()), added)
	}
	return v
}

// reviewInherited drops sources that went out of reach.
func (n *Node) reviewInherited() {
	for _, i := range n.inherited {
		for m := range i.sources {
			if !n.inReach(m) {
				delete(i.sources, m)
			}
		}
	}
}

func (n *Node) tickInherited() {
	for _, i := range n.sortedInherited() {
		place, at := i.place, i.at
		if a := n.locations[at]; n.now-i.used > idleTime || a != nil && a.phase >= standby && a.set.has(n.self) && n.now >= n.merging {
			delete(n.inherited, at)
			continue
		}
		r := n.route(place) // it is i.route, which is in use
		for _, m := range r.set.Members {
			n.need(m)
		}
		if n.now >= i.again { // whatever was missed is found within a minute
			i.again = n.now + digestEvery
			for _, m := range r.set.Members {
				n.askToInherit(i, m)
			}
		}
		if n.now >= i.retry && !n.ready(i) {
			i.retry = n.now + time.Second
			n.inheritFrom(i)
		}
		for _, o := range sortedKeys(i.owners) {
			if n.lapsed(i.owners[o]) {
				i.table.drop(o)
			}
		}
	}
}

func (n *Node) sortedInherited() []*inherited {
	all := make([]*inherited, 0, len(n.inherited))
	for _, i := range n.inherited {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b *inherited) int { return cmpLocation(a.at, b.at) })
	return all
}
