package core

import (
	"cmp"
	"slices"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// A session may go on at another node than the one that it was at, which may be gone for good. What was sent to that one for it
// is still in custody, until it is done: the node that the session is at now says so with its registration, and gets it, for the
// session alone. What it can bring with it, from a node that is there, it need not be sent: see carried.go.

// resume serves what a node has not done with, at a place and below it, to the sessions behind some filters of another
// node's registration that have come from there.
func (n *Node) resume(place Place, owner NodeID, filters []string) {
	for _, f := range filters {
		i := n.standing(place, owner, f)
		if i == nil || len(i.Sessions) == 0 {
			continue
		}
		for _, l := range n.sortedLocations() {
			if l.place == place || l.isBelow(place) {
				n.resumeAt(l, owner, f, i, l.order.live(), false)
			}
		}
	}
}

// standing returns what stands of a node at a place, own or inherited.
func (n *Node) standing(place Place, owner NodeID, filter string) *Interest {
	var t *table
	if l := n.locations[place.Location()]; l != nil {
		t = &l.table
	} else if in := n.inherited[place.Location()]; in != nil {
		t = &in.table
	}
	if t == nil || t.owners[owner] == nil {
		return nil
	}
	return t.owners[owner].interests[filter]
}

// resumeAll does that for messages that have just become this node's duty. A session may have gone on without its node several times, each
// time owed what the one before had been given: in which order nobody says here.
func (n *Node) resumeAll(l *location, entries []*entry) {
	tables := append(slices.Clone(n.ancestors(l).tables), &l.table)
	for pass, added := 0, true; added; pass++ {
		added = false
		for _, t := range tables {
			for _, o := range sortedKeys(t.owners) {
				for _, f := range sortedKeys(t.owners[o].interests) {
					if i := t.owners[o].interests[f]; len(i.Sessions) > 0 {
						added = n.resumeAt(l, o, f, i, entries, pass > 0) || added
					}
				}
			}
		}
	}
}

// resumeAt does that for one registration, and reports whether anything is owed to it. With once those who have been given a message for a session before
// are left out.
func (n *Node) resumeAt(l *location, owner NodeID, filter string, i *Interest, entries []*entry, once bool) (added bool) {
	if l.phase != serving {
		return false
	}
	for _, e := range slices.Clone(entries) {
		if e.gone || e.copy || e.m.QoS == 0 || !topic.Match(filter, e.m.Topic) {
			continue
		}
		for _, s := range i.Sessions {
			if e.owedTo(s) && !(once && e.wasGiven(owner, s.group())) {
				n.addShare(e, share{node: owner, hold: i.Hold, groups: []proto.Group{s.group()}, turn: e.turn(s.group()) + 1})
				added = true
			}
		}
	}
	return added
}

// wasGiven reports whether a message was meant for a group at a node.
func (e *entry) wasGiven(node NodeID, g proto.Group) bool {
	return slices.ContainsFunc(e.shares, func(s share) bool { return s.node == node && slices.Contains(s.groups, g) })
}

// owedTo reports whether the node that a session was at may not be through with a message for it, and nobody else was given that. Of nodes that were
// given it for the session one after another, the last counts.
func (e *entry) owedTo(i SessionInterest) (owed bool) {
	last := e.turn(i.group())
	for _, s := range e.shares {
		own := s.turn == last && slices.Contains(s.groups, i.group())
		switch open := !s.done && s.node.is(i.From, i.Database); {
		case open && (s.plain || own) && s.open.has(i.group()), open && s.plain && own:
			owed = true
		case own:
			return false
		}
	}
	return owed
}

// Arrived says that a session has come to this node, with the filters of its subscriptions, which are not shared. name is what a
// SessionInterest calls it. It gets what clients of this node have published and may still be to be matched: this node's own plain
// subscribers had it before the session came, and its rendezvous leaves them out. What is on its way to a rendezvous comes by where the
// session was, unless that is lost: then the session gets it here. What turns out to have taken long may have been matched when
// nothing was registered there any more: the session, which knows what it has had, gets that too. done,
// which may be nil, is called when everything that is on its way now has been passed on: the registration of where the session was is
// needed for it no more. It must not call the node.
func (n *Node) Arrived(name string, filters []string, lost bool, done func()) {
	g := SessionInterest{Name: name}.group()
	left := 1
	one := func() {
		if left--; left == 0 {
			n.call(done)
		}
	}
	defer one()
	wanted := func(e *pending) bool {
		return e.m.QoS > 0 && slices.ContainsFunc(filters, func(f string) bool { return topic.Match(f, e.m.Topic) })
	}
	note := func(e *pending) {
		a := newcomer{session: g, lost: lost}
		if !e.matched {
			left++
			a.matched = one
		}
		n.arrivals[e] = append(n.arrivals[e], a)
		n.arriving++
	}
	for _, t := range n.trailing.live() { // it waits for its turn, and has no number yet
		if e := t.held; e != nil && e.served && wanted(e) && n.arriving < maxArriving {
			note(e)
		}
	}
	for _, epoch := range sortedKeys(n.mine) {
		s, r := n.mine[epoch], n.epochs[epoch]
		due := func(e *pending) bool {
			had := s.served.has(e.seq) || r != nil && r.plain.has(e.seq) // by this node's own plain subscribers
			return had && wanted(e)
		}
		unmatched := n.unmatched(s)
		for _, e := range unmatched {
			if due(e) {
				n.deliverArrived(e, g)
			}
		}
		for _, seq := range s.open.sorted() {
			_, has := slices.BinarySearchFunc(unmatched, seq, func(e *pending, seq uint64) int { return cmp.Compare(e.seq, seq) })
			switch e := s.open.get(seq); {
			case has || !due(e):
			case n.arriving >= maxArriving: // it may come ahead of others, and does come
				n.deliverArrived(e, g)
			default:
				note(e)
			}
		}
	}
}

// passed notes that a message has been passed on to those that it is for.
func (n *Node) passed(e *pending) {
	e.matched = true
	for i := range n.arrivals[e] {
		if a := &n.arrivals[e][i]; a.matched != nil {
			a.matched()
			a.matched = nil
		}
	}
}

// newcomer is a session that has come while a message was on its way, and what is called when that has been passed on.
type newcomer struct {
	session proto.Group
	lost    bool   // the node that it was at is
	matched func() // nil: it has been called
}

// maxArriving is how many messages are noted for sessions that have come while those were on their way.
const maxArriving = 100_000

// lateMatch is after what time a message is taken for one that was held up on its way: all being well others keep it by then.
const lateMatch = 2 * copyAfter

// arriveLate gives a message that others keep from now on to the sessions that have come while it was on its way for long.
func (n *Node) arriveLate(e *pending) {
	n.passed(e)
	all := n.arrivals[e]
	delete(n.arrivals, e)
	n.arriving -= len(all)
	for _, a := range all {
		if a.lost || n.now-e.at > lateMatch {
			n.deliverArrived(e, a.session)
		}
	}
}

// unmatched are the messages of an epoch that may not have been matched by a rendezvous which knows all that stands, in order: they wait
// here, went to a node that is out of reach, or are not settled here. The others go to where the session was: that stands registered
// until this node does.
func (n *Node) unmatched(s *sending) (all []*pending) {
	t := n.streams[s.id]
	if t != nil {
		for _, seq := range t.entries.sorted() {
			if e := t.entries.get(seq); e.own != nil && !e.acked && e.unset != nil {
				all = append(all, e.own)
			}
		}
	}
	for _, seq := range s.open.sorted() {
		e, here := s.open.get(seq), t != nil && t.entries.get(seq) != nil
		if !here && (e.waits || e.via == "" || !n.inReach(e.via)) {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *pending) int { return cmp.Compare(a.seq, b.seq) })
	return all
}

func (n *Node) deliverArrived(e *pending, g proto.Group) {
	r := n.received(e.epoch.id)
	if !r.group(g).add(e.seq) {
		return
	}
	u := r.open.get(e.seq)
	u.left++
	r.open.put(e.seq, u)
	n.stats.Delivered++
	e.own()
	n.out = append(n.out, Effect{Kind: Deliver, Delivery: Delivery{Message: e.m, Groups: []proto.Group{g}, Origin: e.origin, Receipt: &Receipt{e.id()}}})
}
