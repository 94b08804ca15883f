package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// route is how this node reaches a location: as a publisher, as one who registers, or to pass things on.
type route struct {
	place    Place
	pb       *pb.Place // the same, for records
	at       dht.Location
	set      Set           // agreed on by its members, or version 0: the closest nodes known
	before   NodeID        // the rendezvous by the set that set has replaced
	replaced time.Duration // when it did
	stood    time.Duration // until then set is believed to stand, since another has said so, though all of it is dead to this node
	hop      NodeID        // the closest member that can be reached; "" while there is none

	// The publisher's side.
	epoch     *sending
	old       []*sending     // epochs that are not all kept by others yet
	out       fifo[*pending] // messages that nobody else is known to have, in order; some are over
	held      []func()       // what came while the hop changes, in order
	heldBytes int
	behind    map[NodeID]bool // whose Syncs are among what is held
	switching bool            // what was sent to the old hop is being waited for
	leaving   NodeID          // switching: the old hop
	toward    NodeID          // the new one, when the marker was sent
	token     uint64          // the marker's
	detours   int             // messages on their way that this node's own subscribers get from the rendezvous
	quiet     bool            // the hop has said that nobody is interested
	slow      time.Duration   // until then nothing waits for what was published to it

	own    *own
	used   time.Duration
	looked time.Duration // when its place was last looked up
	active bool          // it is looked after at every tick
	sentTo NodeID        // where the last message went, this node's or another's, and when
	sentAt time.Duration
}

// room reports whether this node may deal with a place: it does already, or there are not too many. The root is dealt with
// wherever anything is.
func (n *Node) room(place Place) bool {
	if len(n.routes) < n.cfg.Limits.Locations || place == root || n.routes[place] != nil {
		return true
	}
	n.stats.LocationsFull++
	n.changed = true // what holds nothing makes room at the next tick
	return false
}

// Room reports whether there is room for what clients of this node publish on a topic.
func (n *Node) Room(name string) bool { return n.room(n.placeFor(name)) }

// RoomToRegister reports whether there is room for a filter.
func (n *Node) RoomToRegister(filter string) bool {
	prefix, depth := topic.FirstLevel(filter)
	return n.room(Place{prefix, depth})
}

// Full reports whether there may be no room for some.
func (n *Node) Full() bool { return len(n.routes) >= n.cfg.Limits.Locations }

// setOf returns the set of a place, as far as this node knows, without dealing with it where there is no room.
func (n *Node) setOf(place Place) Set {
	if r := n.routes[place]; r != nil || n.room(place) {
		return n.route(place).set
	}
	return Set{0, n.candidates(place.Location())}
}

// route returns how to reach a place.
func (n *Node) route(place Place) *route {
	r := n.routes[place]
	if r == nil {
		at := place.Location()
		r = &route{place: place, pb: place.pb(), at: at}
		n.routes[place] = r
		if l := n.locations[at]; l != nil && l.phase >= standby {
			r.set = l.set
		} else {
			r.set = Set{0, n.candidates(at)}
		}
		r.hop = n.nextHop(r)
		if r.set.Version == 0 && n.large() {
			r.looked = n.now
			n.lookUp(place, nil)
		}
	}
	r.used = n.now
	return r
}

// nextHop returns the closest member that can be reached, or, where there is none, the closest node that can:
// it passes on what it gets.
func (n *Node) nextHop(r *route) NodeID {
	if hop := n.rendezvous(r.set); hop != "" {
		return hop
	}
	var hop *peer
	for _, p := range n.ordered {
		if p.reach && !p.left && (hop == nil || r.at.Closer(p.point, hop.point)) {
			hop = p
		}
	}
	if hop == nil {
		return ""
	}
	return hop.id
}

// memberless reports whether no member of a set that this node knows is in reach: at best another node passes on what it gets. Where
// nobody knows everybody that is the rule.
func (n *Node) memberless(r *route) bool {
	return r.hop == "" || !r.set.has(r.hop) && !n.large()
}

func (n *Node) sortedRoutes() []*route {
	all := make([]*route, 0, len(n.routes))
	for _, r := range n.routes {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *route) int { return cmpLocation(a.at, b.at) })
	return all
}

// learnRoute takes over a set that others say stands, where it is news: a set that is dead to this node is none.
func (n *Node) learnRoute(place Place, set Set) (news bool) {
	if !n.room(place) {
		return false
	}
	r := n.route(place)
	if news = set.beats(r.set, r.at) && !n.allDead(set); news {
		if r.set.Version > 0 {
			r.before, r.replaced = n.rendezvous(r.set), n.now
		}
		r.set = set
		n.reroute(r)
	}
	return news
}

// reroute looks for the rendezvous again, and changes over to it in an order-preserving way: what was sent
// to the old one goes first, as long as it lives, and what comes meanwhile waits, unless the old one sends it back.
func (n *Node) reroute(r *route) {
	l := n.locations[r.at]
	switch {
	case l != nil && l.phase >= standby:
		r.set = l.set
	case n.lost(r):
		r.set = Set{0, n.candidates(r.at)}
	}
	hop := n.nextHop(r)
	overtakes := r.sentTo != "" && r.sentTo != hop && n.now-r.sentAt < useFor && n.inReach(r.sentTo)
	if hop == r.hop && !r.switching && !overtakes {
		return
	}
	r.quiet = r.quiet && hop == r.hop
	switch {
	case r.switching && n.inReach(r.leaving):
		return // the answer to Sync decides
	case overtakes:
		r.switching, r.leaving = true, r.sentTo
		n.use(r)
		n.mark(r, hop)
	default:
		n.switched(r)
	}
}

// mark sends a marker after what is on its way by the old hop. When it has come to where that is, the hop may change,
// unless where to has changed as well: what is behind the first marker may have been passed on.
func (n *Node) mark(r *route, toward NodeID) {
	token := n.cfg.Rand.Uint64() | 1
	r.toward, r.token = toward, token
	n.request(r.leaving, func(op uint64) any {
		return &pb.Sync{Op: op, Place: r.place.pb(), Token: token}
	}, func(ok bool) {
		if r.token != token {
			return // it went on without that
		}
		if hop := n.nextHop(r); ok && hop != r.toward && hop != r.leaving && n.inReach(r.leaving) {
			n.mark(r, hop)
			return
		}
		n.switched(r)
	})
}

// behind has something done when the hop has changed, in its turn.
func (n *Node) behind(r *route, size int, do func()) {
	r.held = append(r.held, do)
	r.heldBytes += size
	n.waiting++
	n.waitBytes += size
}

// switched sends what waits to whoever is the rendezvous now.
func (n *Node) switched(r *route) {
	r.switching, r.leaving, r.sentTo, r.token, r.behind = false, "", "", 0, nil
	old := r.hop
	r.hop = n.nextHop(r)
	if r.hop != old || !n.inReach(old) {
		for _, e := range r.out.live() {
			if !e.kept && (e.via != "" && !n.inReach(e.via) || e.via == n.self) {
				e.via = ""
			}
		}
	}
	n.refreshRegister(r)
	n.resend(r)
	held := r.held
	r.held = nil
	n.waiting -= len(held)
	n.waitBytes -= r.heldBytes
	r.heldBytes = 0
	for _, do := range held {
		do()
	}
}

// lost reports whether nobody is left in the set that a route goes by: from now on it goes by the closest nodes, which
// may found another. What is dead to this node may live for others. So it asks them first, by founding, and where one of
// them says that the set stands, that holds until what nobody has answered for by then is sent again.
func (n *Node) lost(r *route) bool {
	return r.set.Version == 0 || n.now >= r.stood && n.allDead(r.set)
}

// allDead reports whether nobody in a set is known to live.
func (n *Node) allDead(s Set) bool {
	for _, m := range s.Members {
		if m == n.self {
			return false
		}
		if p := n.peers[m]; p != nil && !n.dead(p) {
			return false
		}
	}
	return true
}

// died reports whether all in a set are known, and dead.
func (n *Node) died(s Set) bool {
	return n.allDead(s) && !slices.ContainsFunc(s.Members, func(m NodeID) bool { return n.peers[m] == nil })
}

// resend sends what must be sent again, in order.
func (n *Node) resend(r *route) {
	if r.hop == "" || r.switching {
		return
	}
	for _, e := range slices.Clone(r.out.live()) {
		if !e.kept && e.via == "" && !e.waits {
			n.transmit(e)
		}
	}
}

// retry sends again what has not been answered for long: views of a set may have differed for a moment, so
// that nobody took it.
func (n *Node) retry(r *route) {
	late, patience := false, retryAfter
	if n.leaving { // the service manager has less
		patience = retryLeaving
	}
	for _, e := range r.out.live() {
		switch {
		case e.kept || e.waits || e.via == n.self:
		case e.via == "":
			late = true // from before this node was started
		case n.now-e.sent > patience:
			e.via, late = "", true
		}
	}
	if late {
		n.resend(r)
	}
}

// resendRoutes sends to a node that is back what may have been lost on the way to it.
func (n *Node) resendRoutes(p *peer) {
	for _, r := range n.sortedRoutes() {
		if r.hop != p.id {
			continue
		}
		for _, e := range r.out.live() {
			if !e.kept && e.via == p.id {
				e.via = ""
			}
		}
		n.resend(r)
		n.refreshRegister(r)
	}
}

// tickRoutes ends epochs, refreshes registrations and lets go of routes that are not used.
func (n *Node) tickRoutes(full bool) {
	all := n.active
	large, patience := full && n.large(), n.patience()
	if full {
		all = all[:0]
		for _, r := range n.routes {
			if r.active || r.own != nil || large || n.epochOver(r, patience) || n.now-r.used > patience || r.set.Version > 0 && n.lost(r) {
				all = append(all, r)
			}
		}
	}
	slices.SortFunc(all, func(a, b *route) int { return cmpLocation(a.at, b.at) })
	n.active = nil
	for _, r := range all {
		r.active = false
	}
	for _, r := range all {
		if n.routes[r.place] != r {
			continue
		}
		if full && r.set.Version > 0 && n.lost(r) { // the last of them has been out of reach for long enough: no event
			n.reroute(r)
		}
		if full && r.set.Version == 0 && n.now-r.looked > lookupEvery && n.now-r.used < lookupEvery && large {
			r.looked = n.now
			n.lookUp(r.place, nil)
		}
		n.tickRegistrant(r)
		n.tickEpochs(r, patience)
		n.retry(r)
		for _, e := range r.out.live() {
			if !e.accepted && e.custody != CustodyAwaited && n.memberless(r) && n.now-e.at > promiseTime {
				n.accept1(e) // nobody can put a retained message in order now
			}
		}
		if r.out.len() > 0 || len(r.held) > 0 || len(r.old) > 0 || r.own != nil && (r.own.flying || len(r.own.waiters) > 0) {
			n.use(r)
			continue
		}
		if full && n.now-r.used > patience && n.locations[r.at] == nil {
			n.forgetRoute(r)
		}
	}
}

// forgetRoute forgets a route that holds nothing.
func (n *Node) forgetRoute(r *route) {
	if !r.active && r.own == nil && r.epoch == nil && len(r.old)+len(r.held)+r.out.len()+r.detours == 0 && !r.switching {
		delete(n.routes, r.place)
	}
}

// use has a route looked after at every tick.
func (n *Node) use(r *route) {
	if !r.active {
		r.active = true
		n.active = append(n.active, r)
	}
}

// epochOver reports whether an epoch has lasted, or nothing was published in it for a while.
func (n *Node) epochOver(r *route, patience time.Duration) bool {
	return r.epoch != nil && (n.now-r.epoch.born > epochLife || n.now-r.epoch.used > min(epochIdle, patience))
}

// tickEpochs ends an epoch that is over, and tells when nothing of it can come again.
func (n *Node) tickEpochs(r *route, patience time.Duration) {
	if n.epochOver(r, patience) {
		r.old = append(r.old, r.epoch)
		r.epoch = nil
	}
	for _, s := range r.old {
		n.tellUntold(r, s)
	}
	if r.epoch != nil {
		n.tellUntold(r, r.epoch)
	}
	r.old = slices.DeleteFunc(r.old, func(s *sending) bool {
		if s.open.len() > 0 || s.release < s.seq || n.now < s.until {
			return false
		}
		delete(n.mine, s.id)
		if r.hop != "" && r.hop != n.self {
			n.send(r.hop, &pb.Forget{Epochs: []*pb.Forget_Epoch{{Epoch: s.id, Upto: s.seq, Closed: true}}, Released: true})
		} else if t := n.streams[s.id]; t != nil {
			t.release(s.seq)
			t.closed = true
			n.enliven(t)
		}
		return true
	})
}
