package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// phase is what this node is to a location.
//
//	          ┌ filling ┐ (being made a member)
//	          │         v
//	founding ─┼──> standby <──────────────┐
//	          │      │  ^                 │
//	          │      v  │                 │
//	          │   awaiting ──> serving ──> relinquishing ──> (forgotten, when it is no member any more)
//	          └─────────────────^
//
// Publishes and registrations wait while founding and awaiting, and are passed on from standby, filling and
// relinquishing.
type phase uint8

const (
	founding      phase = iota // asking the others whether a set stands
	filling                    // given the state of a location whose set it will be in
	standby                    // a member; another is the rendezvous
	awaiting                   // the rendezvous, once the one before has handed over
	serving                    // the rendezvous
	relinquishing              // the rendezvous no more, but what it sent has not all arrived
)

func (p phase) String() string {
	return [...]string{"founding", "filling", "standby", "awaiting", "serving", "relinquishing"}[p]
}

// location is what a node keeps for a location of whose set it is a member. There may be many where little is kept: a map in
// it is made when something is put into it.
type location struct {
	table
	place Place
	at    dht.Location
	above []ancestor // nearest first
	set   Set
	phase phase

	asking  map[NodeID]bool // founding: who has not answered
	meeting bool            // founding: nobody is asked before others may have been met
	founder NodeID          // whose offer the set is; until it says that it stands, or offered is over, another may replace it
	offered time.Duration
	blank   map[NodeID]bool // not nil: this node is a member that may have missed what came before; who has told it
	head    NodeID          // the rendezvous, when it was last looked
	filler  NodeID          // filling: who fills it
	route   *route
	await   NodeID        // awaiting: who hands over
	expect  time.Duration // awaiting: for how long it is believed that it will; 0: it has said so
	since   time.Duration // serving: no subscription is promised before this, plus a lease
	waiting fifo[*arrival]
	markers []func() // what comes behind what waits
	calls   []func() // what waits beside publishes until the phase settles

	feeding  map[NodeID]bool         // members that are being sent what is retained
	children map[Place]time.Duration // places below that hold retained messages, and when they last said so
	listed   bool                    // the places above know that this one does
	matched  matched                 // against what, of what was not settled when it was given up
	listedAt time.Duration           // when that was told them, or could not be
	listing  bool
	onListed []*listWaiter

	order      fifo[*entry] // in custody, as they came; some are over
	hasty      []*entry     // of these, to be copied before the effects are taken
	choosing   []*choosing  // that go out when their choices are safe, in order
	streams    int          // epochs that are remembered of it
	sent       map[NodeID]bool
	told       map[NodeID]bool // nodes that drop QoS 0 messages because nobody is interested
	inheritors map[NodeID]bool
	registers  []*registering
	pulling    bool // its ancestors' registrations are being asked for

	unsettled fifo[*unsettled]
	synced    map[NodeID]bool // members that have matched what is unsettled

	change     *change
	promised   ballot
	accepted   proposal
	retry      time.Duration // no change is tried before
	nextDigest time.Duration // the other members are not asked before what they have
	swept      time.Duration // when what is retained was last gone through
	made       time.Duration
	touched    time.Duration
	busy       bool // it is looked after at every tick
	stands     bool // it is in the journal
}

// ancestor is a place above a location.
type ancestor struct {
	place Place
	at    dht.Location
}

// undecided reports whether it is being found out who serves a location: what comes for it waits.
func (l *location) undecided() bool { return l.phase == founding || l.phase == awaiting }

// hasBelow reports whether this node has a location below a place.
func (n *Node) hasBelow(place Place) bool {
	for _, l := range n.locations {
		if l.isBelow(place) {
			return true
		}
	}
	return false
}

// isBelow reports whether a location is below a place.
func (l *location) isBelow(place Place) bool {
	return slices.ContainsFunc(l.above, func(a ancestor) bool { return a.place == place })
}

// locate returns the location of a place, beginning its founding where this node knows nothing of it and
// would be in its first set; nil where it would not be, or where there are too many.
func (n *Node) locate(place Place, at dht.Location) *location {
	if l := n.locations[at]; l != nil {
		l.touched = n.now
		n.watch(l)
		return l
	}
	if !n.room(place) {
		return nil
	}
	r := n.route(place)
	if r.set.Version > 0 && !r.set.has(n.self) {
		return nil
	}
	members := n.candidates(at)
	if r.set.Version > 0 { // it is named as a member, and has nothing: the others know more
		members = r.set.Members
	}
	if !slices.Contains(members, n.self) {
		return nil
	}
	l := n.newLocation(place, at)
	if l == nil {
		return nil
	}
	l.phase = founding
	if n.large() {
		l.set = Set{1, members}
		n.lookUp(place, func() { n.foundLooked(l) })
		return l
	}
	if n.mayMeet() {
		l.set, l.meeting = Set{1, members}, true
		n.timers.set(n.born+promiseTime, n.foundMet)
		return l
	}
	n.foundSet(l, members)
	return l
}

func (n *Node) newLocation(place Place, at dht.Location) *location {
	if place.Location() != at {
		return nil
	}
	if !n.room(place) {
		return nil
	}
	l := &location{place: place, at: at, route: n.route(place), made: n.now, touched: n.now}
	for _, up := range place.above() {
		l.above = append(l.above, ancestor{up, up.Location()})
	}
	n.locations[at] = l
	n.watch(l)
	return l
}

// learnSet takes over a set that others say stands, where it replaces the one known.
func (n *Node) learnSet(place Place, set Set) {
	n.learnRoute(place, set)
	l := n.locations[place.Location()]
	if l == nil || !set.beats(l.set, l.at) || n.died(set) || l.phase == filling && !set.has(n.self) {
		return // one that is being filled is about to be in the next set
	}
	n.expectHandOver(l, set)
	switch l.phase {
	case founding: // and so it has nothing, whatever those said who were to found it too
		l.phase, l.asking, l.blank = standby, nil, map[NodeID]bool{}
		n.changed = true // catchUp follows
	case filling:
		l.phase = standby
	}
	n.adopt(l, set)
}

// expectHandOver has this node, if it is the rendezvous by a new set that somebody else told it of, wait for a while
// for the one before: that it hands over may be on its way, and what it has sent may not have arrived.
func (n *Node) expectHandOver(l *location, set Set) {
	before := NodeID("")
	switch r := l.route; l.phase {
	case founding: // it founds the set that another has just given way to
		if n.now-r.replaced < 2*promiseTime {
			before = r.before
		}
	case filling:
		before = l.filler
	case standby, relinquishing:
		before = n.rendezvous(l.set)
	}
	if l.await != "" || before == "" || before == n.self || !n.inReach(before) || n.rendezvous(set) != n.self {
		return
	}
	l.await, l.expect = before, n.now+2*promiseTime
	n.send(before, &pb.SetNews{Place: l.place.pb(), Set: set.pb()})
}

// adopt puts a set in the place of a location's.
func (n *Node) adopt(l *location, set Set) {
	old := l.set
	l.set = set
	if settled := n.now-l.made > 2*promiseTime; old.Version > 0 && (n.rendezvous(old) == n.self || settled && old.Version >= set.Version) {
		// They are told already by who proposed the set, unless it comes from others than they know.
		for _, m := range old.Members {
			if m != n.self && !set.has(m) && n.inReach(m) {
				n.send(m, &pb.SetNews{Place: l.place.pb(), Set: set.pb()})
			}
		}
	}
	l.change = nil
	l.promised, l.accepted = ballot{}, proposal{}
	if l.stands || len(l.owners) > 0 || len(l.children) > 0 || n.cfg.Retained.Len(l.at) > 0 {
		l.stands = true
		n.saveLocation(l)
	}
	n.stats.SetChanges++
	for _, m := range set.Members {
		n.need(m)
	}
	l.route.set = set
	n.reroute(l.route)
	n.review(l)
	n.settle(l)
}

// review decides anew what this node is to a location, after its set or somebody's reach has changed.
func (n *Node) review(l *location) {
	if n.locations[l.at] != l {
		return
	}
	n.watch(l)
	if l.phase == founding || l.phase == filling {
		if l.phase == filling && (!n.inReach(l.filler) || n.now-l.since > 2*changeTime) {
			n.drop(l)
		}
		return
	}
	head := n.rendezvous(l.set)
	if l.head != head {
		l.head = head
		defer func() {
			if l.phase == standby && n.locations[l.at] == l {
				n.offerCopies(l)
			}
		}()
	}
	switch {
	case l.phase == serving && head != n.self && head != "":
		n.relinquish(l)
	case l.phase == serving:
	case l.phase == relinquishing && head == n.self && n.awaits(l):
		l.phase = awaiting // who took over hands back already
	case l.phase == relinquishing && head == n.self:
		l.since = n.now
		n.succeed(l) // who was to take over is out of reach; it may have given copies already
	case l.phase == relinquishing:
	case l.phase == awaiting && head != n.self && l.onDuty():
		n.relinquish(l) // it was giving it up when it seemed to be its turn again
	case !l.set.has(n.self):
		n.drop(l)
	case head == n.self && n.awaits(l):
		l.phase = awaiting
	case head == n.self:
		n.takeOver(l)
	case l.phase == awaiting:
		l.phase = standby
	}
	if head != n.self {
		l.await = ""
	}
	n.settle(l)
}

// onDuty reports whether there is something to be done that nobody was handed.
func (l *location) onDuty() bool {
	return slices.ContainsFunc(l.order.live(), func(e *entry) bool { return !e.gone && !e.copy })
}

// awaits reports whether the rendezvous before this node will hand over.
func (n *Node) awaits(l *location) bool {
	return l.await != "" && l.await != n.self && n.inReach(l.await) && (l.expect == 0 || n.now < l.expect)
}

// takeOver makes this node the rendezvous. Where the one before did not hand over, it may still believe that
// it is: for as long as a lease lasts, no subscription is promised.
func (n *Node) takeOver(l *location) {
	if l.set.Members[0] != n.self || l.await != "" {
		l.since = n.now
		n.stats.Failovers++
	} else {
		l.since = n.now - LeaseTime
	}
	n.succeed(l)
}

// settle carries on what waited for the phase to be decided.
func (n *Node) settle(l *location) {
	if l.undecided() {
		return
	}
	if l.place.Depth <= 1 && l.phase >= standby {
		n.inheritanceReady(l.place)
	}
	if l.change == nil && len(l.calls) > 0 {
		calls := l.calls
		l.calls = nil
		for _, call := range calls {
			call()
		}
	}
	markers := l.markers
	l.markers = nil
	if l.pulling && l.phase != serving { // what waits is for the rendezvous, and goes before what comes now
		l.pulling = false
		n.pulls--
	}
	if !l.pulling && l.waiting.len() > 0 {
		all := n.takeWaiting(l)
		for _, a := range all {
			n.arrive(l, a)
		}
		n.acceptMore()
	}
	for _, mark := range markers {
		mark()
	}
}

// takeWaiting returns the messages that wait at a location, which no longer do.
func (n *Node) takeWaiting(l *location) []*arrival {
	all := l.waiting.takeAll()
	n.waiting -= len(all)
	for _, a := range all {
		n.waitBytes -= a.m.Size()
	}
	return all
}

// drop forgets a location that this node is no member of any more.
func (n *Node) drop(l *location) {
	n.wake(l, &gather{n: n})
	n.disinherit(l)
	n.forgetLocation(l)
	delete(n.locations, l.at)
	if l.pulling {
		n.pulls--
	}
	for _, e := range l.order.takeAll() {
		if !e.over() {
			e.s.seen.remove(e.id.Seq) // others have it still to deliver: nobody may hear from here that it is over
		}
		n.release(e)
	}
	n.cfg.Retained.Drop(l.at)
	calls, waiting, markers := l.calls, n.takeWaiting(l), l.markers
	l.calls, l.markers = nil, nil
	for _, r := range l.registers {
		r.over = true
	}
	if r := n.routes[l.place]; r != nil {
		n.reroute(r)
	}
	n.keepAbove(l)
	for _, a := range waiting {
		n.arriveAnywhere(l.place, l.at, a)
	}
	for _, mark := range markers {
		mark()
	}
	for _, call := range calls {
		call()
	}
}

// What is ours to tune: after how long a location that holds nothing is forgotten, and after how long where there is little
// room and this node is alone in its set. Its set, found again, is the same; where it has more members they have to forget it
// at about the same time, before who they are changes.
const (
	idleTime    = 20 * time.Minute
	crowdedTime = 2 * time.Second
)

// patience is for how long what holds nothing and is not used is kept.
func (n *Node) patience() time.Duration {
	if len(n.routes) > n.cfg.Limits.Locations/4 {
		return crowdedTime
	}
	return idleTime
}

// bare reports whether a location holds nothing.
func (n *Node) bare(l *location) bool {
	return !l.waits() && len(l.owners) == 0 && len(l.children) == 0 && n.cfg.Retained.Len(l.at) == 0
}

func (n *Node) tickLocation(l *location, full bool) {
	if l.phase == serving {
		n.tickRegisters(l)
		n.tickCustody(l, full)
		n.tickChange(l)
		n.tickListing(l, full)
		n.tickUnsettled(l)
		if l.pulling {
			n.drainPulled(l)
		}
		if len(l.told) > 0 && !n.whole(l.set) {
			n.wake(l, &gather{n: n}) // others may promise what this node does not hear of
		}
	}
	if l.phase == filling || l.phase == awaiting && !n.awaits(l) {
		n.review(l)
	}
	if l.phase == standby && (full || n.leaving) && n.now >= l.nextDigest {
		n.askRendezvous(l)
	}
	if !full {
		return
	}
	if l.blank != nil && l.phase >= standby {
		n.catchUp(l)
	}
	n.lapse(l)
	n.sweep(l)
	for _, m := range l.set.Members {
		n.need(m)
	}
	for _, o := range sortedKeys(l.owners) {
		if n.lapsed(l.owners[o]) {
			n.dropRegistrations(l, o) // what is kept for it may be for one above, which stands longer: see lapse
		}
	}
	if idle := n.now - l.touched; (idle > idleTime || idle > n.patience() && l.streams == 0 && len(l.set.Members) == 1) && n.bare(l) {
		n.wake(l, &gather{n: n}) // they ask again, and are told again
		n.disinherit(l)
		n.forgetLocation(l)
		delete(n.locations, l.at)
		if n.now-l.route.used > n.patience() {
			n.forgetRoute(l.route)
		}
	}
}

// askRendezvous makes sure that a member that was told nothing for long is still one.
func (n *Node) askRendezvous(l *location) {
	l.nextDigest = n.now + digestEvery
	if n.leaving {
		l.nextDigest = n.now + time.Second
	}
	if to := n.rendezvous(l.set); to != "" && to != n.self {
		n.send(to, n.digest(l, false))
		n.offerCopies(l)
	}
}

// catchUp asks the members in reach for what a member lacks that has come to a set without being given its state. Until
// a majority, itself included, has been compared with, it does not know enough.
func (n *Node) catchUp(l *location) {
	if len(l.blank)+1 >= n.majority(l.set) {
		l.blank = nil
		return
	}
	for _, m := range l.set.Members {
		if m != n.self && n.inReach(m) && !l.blank[m] {
			n.send(m, n.digest(l, false))
		}
	}
}

func (n *Node) dropRegistrations(l *location, owner NodeID) {
	n.forgetOwner(l, owner)
	l.table.drop(owner)
}

// attended returns the locations to be gone through at a full tick. Of those that hold nothing, which may be many, it is
// some each time.
func (n *Node) attended() []*location {
	n.fulls++
	var all []*location
	members := map[NodeID]bool{}
	for _, l := range n.locations {
		if l.busy || l.blank != nil || len(l.told) > 0 || uint64(l.at[0])%bareTurns == n.fulls%bareTurns || !n.bare(l) {
			all = append(all, l)
			continue
		}
		for _, m := range l.set.Members {
			members[m] = true
		}
	}
	for _, m := range sortedKeys(members) {
		n.need(m)
	}
	return all
}
