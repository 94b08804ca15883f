package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// route is how this node reaches a location: as a publisher, as one who registers, or to pass things on.
type route struct {
	place Place
	at    dht.Location
	set   Set    // agreed on by its members, or version 0: the closest nodes known
	hop   NodeID // the closest member that can be reached; "" while there is none

	// The publisher's side.
	epoch     *sending
	old       []*sending     // epochs that are not all kept by others yet
	out       fifo[*pending] // messages that nobody else is known to have, in order; some are over
	held      []*pending     // messages that wait for the change of hop
	switching bool           // what was sent to the old hop is being waited for
	detours   int            // messages on their way that this node's own subscribers get from the rendezvous
	quiet     bool           // the hop has said that nobody is interested

	own    *own
	used   time.Duration
	looked time.Duration // when its place was last looked up
	active bool          // it is looked after at every tick
	sentTo NodeID        // where the last message went, and when
	sentAt time.Duration
}

// sending is an epoch of this node at one location.
type sending struct {
	id      uint64
	seq     uint64 // the last number given
	born    time.Duration
	kept    spans // numbers that others keep, above released
	release uint64
	open    map[uint64]*pending
}

// pending is a message of this node that it must not lose.
type pending struct {
	m        *proto.Message
	r        *route
	epoch    *sending // nil: QoS 0
	seq      uint64
	origin   any
	packet   uint16
	via      NodeID // who it was sent to; "" when it must be sent (again)
	at       time.Duration
	sent     time.Duration
	served   bool
	detour   bool // this node's own subscribers get it from the rendezvous
	accepted bool
	kept     bool
}

func (e *pending) id() Identity {
	if e.epoch == nil {
		return Identity{}
	}
	return Identity{e.epoch.id, e.seq}
}

// route returns how to reach a place.
func (n *Node) route(place Place) *route {
	r := n.routes[place]
	if r == nil {
		at := place.Location()
		r = &route{place: place, at: at}
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

func (n *Node) sortedRoutes() []*route {
	all := make([]*route, 0, len(n.routes))
	for _, r := range n.routes {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *route) int { return cmpLocation(a.at, b.at) })
	return all
}

// learnRoute takes over a set that others say stands.
func (n *Node) learnRoute(place Place, set Set) {
	r := n.route(place)
	if set.beats(r.set, r.at) {
		r.set = set
		n.reroute(r)
	}
}

// reroute looks for the rendezvous again, and changes over to it in an order-preserving way: what was sent
// to the old one goes first, as long as it lives.
func (n *Node) reroute(r *route) {
	l := n.locations[r.at]
	switch {
	case l != nil && l.phase >= standby:
		r.set = l.set
	case r.set.Version == 0 || n.allDead(r.set):
		r.set = Set{0, n.candidates(r.at)}
	}
	hop := n.nextHop(r)
	if hop == r.hop && !r.switching {
		return
	}
	old := r.hop
	r.quiet = false
	switch {
	case r.switching && n.inReach(old) && old != "":
		return // the answer to Sync decides
	case old != "" && old != n.self && n.inReach(old) && n.unanswered(r, old):
		r.switching = true
		n.request(old, func(op uint64) any {
			return &pb.Sync{Op: op, Place: r.place.pb()}
		}, func(bool) { n.switched(r) })
	default:
		n.switched(r)
	}
}

// unanswered reports whether something may be on its way to a node that must not be overtaken.
func (n *Node) unanswered(r *route, to NodeID) bool {
	return r.sentTo == to && n.now-r.sentAt < useFor
}

// switched sends what waits to whoever is the rendezvous now.
func (n *Node) switched(r *route) {
	r.switching = false
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
	for _, e := range held {
		n.dispatch(e)
	}
}

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

// resend sends what must be sent again, in order.
func (n *Node) resend(r *route) {
	if r.hop == "" || r.switching {
		return
	}
	for _, e := range slices.Clone(r.out.live()) {
		if !e.kept && e.via == "" {
			n.transmit(e)
		}
	}
}

// retry sends again what has not been answered for long: views of a set may have differed for a moment, so
// that nobody took it.
func (n *Node) retry(r *route) {
	late := false
	for _, e := range r.out.live() {
		if !e.kept && e.via != "" && n.now-e.sent > retryAfter {
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

// Publication is a message from a client of this node.
type Publication struct {
	Message *proto.Message
	Origin  any    // given back in Accept and Delivery
	Packet  uint16 // given back in Accept
	Served  bool   // this node's own plain subscribers have it
}

// Detour reports whether a message, if published now, is to be served to this node's own subscribers only
// when it comes back: a retained one, and what follows one on its way.
func (n *Node) Detour(m *proto.Message) bool {
	if m.Retain {
		return true
	}
	r := n.routes[n.placeFor(m.Topic)]
	return r != nil && r.detours > 0
}

// Detours is the number of messages on their way that Detour was true for. While it is 0 it is true for
// retained messages alone.
func (n *Node) Detours() int { return n.detours }

func (n *Node) placeFor(name string) Place {
	prefix, depth := dht.Prefix(name, n.cfg.Depth)
	return Place{prefix, depth}
}

// Publish takes over a message. For QoS 1 and 2 the effect Accept follows, now or later.
func (n *Node) Publish(p Publication) {
	n.stats.Published++
	r := n.route(n.placeFor(p.Message.Topic))
	e := &pending{m: p.Message, r: r, origin: p.Origin, packet: p.Packet, served: p.Served, at: n.now, detour: !p.Served}
	if p.Message.QoS == 0 && !p.Message.Retain {
		if r.quiet && p.Served && n.holds(r.hop) {
			n.stats.Suppressed++
			if q := n.peers[r.hop]; q != nil {
				q.used = n.now
			}
			return
		}
		if e.detour = !p.Served && r.detours > 0; !e.detour {
			n.dispatch(e)
			return
		}
	}
	n.identify(r, e)
	if e.detour {
		r.detours++
		n.detours++
	}
	if !p.Message.Retain {
		n.acceptWhenRoom(e)
	}
	n.dispatch(e)
}

// identify gives a message its identity.
func (n *Node) identify(r *route, e *pending) {
	n.use(r)
	s := r.epoch
	if s == nil || n.now-s.born > epochLife || s.seq >= epochSize {
		if s != nil {
			r.old = append(r.old, s)
		}
		id := n.cfg.Rand.Uint64() | 1
		s = &sending{id: id, born: n.now, open: map[uint64]*pending{}}
		r.epoch = s
		n.mine[id] = s
	}
	s.seq++
	e.epoch, e.seq = s, s.seq
}

// acceptWhenRoom lets the client's acknowledgement go, at once or when the outbox has room.
func (n *Node) acceptWhenRoom(e *pending) {
	if n.unaccepted.len() == 0 && n.outboxRoom() {
		n.accept1(e)
		return
	}
	n.unaccepted.push(e)
}

func (n *Node) outboxRoom() bool {
	return n.outCount < n.cfg.Limits.Outbox && n.waiting < n.cfg.Limits.Waiting && n.cfg.Custody.Bytes() < n.cfg.Limits.OutboxBytes
}

func (n *Node) acceptMore() {
	for n.unaccepted.len() > 0 && (n.outboxRoom() || n.unaccepted.front().accepted) {
		n.accept1(n.unaccepted.pop())
	}
}

func (n *Node) accept1(e *pending) {
	if e.accepted {
		return
	}
	e.accepted = true
	if e.origin != nil && e.m.QoS > 0 {
		n.out = append(n.out, Effect{Kind: Accept, Delivery: Delivery{Origin: e.origin}, Packet: e.packet})
	}
}

// dispatch sends a message on its way, or lets it wait until it can go.
func (n *Node) dispatch(e *pending) {
	r := e.r
	switch {
	case r.switching:
		r.held = append(r.held, e)
	case r.hop == n.self:
		n.arriveAnywhere(r.place, r.at, n.ownArrival(e))
	default:
		n.transmit(e)
	}
}

// transmit sends a message to the hop. What must not be lost is in the outbox until somebody else keeps it.
func (n *Node) transmit(e *pending) {
	r := e.r
	if e.epoch != nil && e.epoch.open[e.seq] == nil {
		e.epoch.open[e.seq] = e
		n.outCount++
		n.cfg.Custody.Put(e.id(), e.m)
		r.out.push(e)
	}
	switch {
	case r.hop == "":
		if e.epoch == nil {
			n.stats.DroppedQoS0++
		}
		return
	case r.hop == n.self:
		n.arriveAnywhere(r.place, r.at, n.ownArrival(e))
		return
	}
	e.via, e.sent = r.hop, n.now
	r.sentTo, r.sentAt = r.hop, n.now
	f := &proto.Publish{Message: e.m, Location: r.at, Depth: r.place.Depth, Served: e.served, Echo: e.detour}
	if e.epoch != nil {
		f.Epoch, f.Seq, f.Released = e.epoch.id, e.seq, e.epoch.release
		if age := n.now - e.at; age > time.Second {
			f.Age = age
		}
	}
	if p := n.peers[r.hop]; p != nil {
		p.used = n.now
		if p.lease.first == 0 {
			n.askLease(p)
		}
	}
	n.send(r.hop, f)
}

func (n *Node) ownArrival(e *pending) *arrival {
	a := &arrival{m: e.m, from: n.self, publisher: n.self, served: e.served, echo: e.detour, own: e, age: n.now - e.at}
	if e.epoch != nil {
		a.id = e.id()
		a.released = e.seq // what is served here is not sent again
	}
	return a
}

// taken ends the detour of a message: this node's own subscribers have it, and it is stamped.
func (n *Node) taken(e *pending) {
	if e.detour {
		e.detour = false
		e.r.detours--
		n.detours--
	}
	n.accept1(e)
}

// let lets go of a message that others keep now.
func (n *Node) let(e *pending) {
	if e.kept || e.epoch == nil {
		return
	}
	e.kept = true
	n.taken(e)
	s := e.epoch
	if s.open[e.seq] != nil {
		delete(s.open, e.seq)
		n.outCount--
		n.cfg.Custody.Delete(e.id())
	}
	s.kept.add(e.seq)
	if s.kept[0].from == s.release+1 {
		s.release = s.kept[0].to
		s.kept = slices.Delete(s.kept, 0, 1)
	}
	for e.r.out.len() > 0 && e.r.out.front().kept {
		e.r.out.pop()
	}
	n.acceptMore()
}

func (n *Node) receivePublishAck(p *peer, f *pb.PublishAck) {
	n.ackRanges(p, f.GetTaken(), false)
	n.ackRanges(p, f.GetKept(), true)
}

func (n *Node) ackRanges(_ *peer, ranges []*pb.Ranges, kept bool) {
	for _, rs := range ranges {
		if to, ok := n.relayed[rs.GetEpoch()]; ok {
			n.relayAck(to, rs, kept)
			continue
		}
		s := n.mine[rs.GetEpoch()]
		if s == nil {
			continue
		}
		for _, g := range rs.GetRanges() {
			for seq := max(g.GetFrom(), s.release+1); seq <= min(g.GetTo(), s.seq); seq++ {
				e := s.open[seq]
				switch {
				case e == nil:
				case kept:
					n.let(e)
				default:
					n.taken(e)
				}
			}
		}
	}
}

// relayAck passes an acknowledgement back on the way that its message came.
func (n *Node) relayAck(to NodeID, rs *pb.Ranges, kept bool) {
	p := n.dirtyPeer(to)
	if p == nil {
		return
	}
	for _, g := range rs.GetRanges() {
		for seq := g.GetFrom(); seq <= g.GetTo() && seq-g.GetFrom() < epochSize; seq++ {
			if id := (Identity{rs.GetEpoch(), seq}); kept {
				p.kept.add(id)
			} else {
				p.taken.add(id)
			}
		}
	}
}

// tickRoutes ends epochs, refreshes registrations and lets go of routes that are not used.
func (n *Node) tickRoutes(full bool) {
	all := n.active
	if full {
		all = n.sortedRoutes()
	} else {
		slices.SortFunc(all, func(a, b *route) int { return cmpLocation(a.at, b.at) })
	}
	n.active = nil
	for _, r := range all {
		r.active = false
	}
	for _, r := range all {
		if n.routes[r.place] != r {
			continue
		}
		if full && r.set.Version == 0 && n.now-r.looked > lookupEvery && n.now-r.used < lookupEvery && n.large() {
			r.looked = n.now
			n.lookUp(r.place, nil)
		}
		n.tickRegistrant(r)
		n.tickEpochs(r)
		n.retry(r)
		for _, e := range r.out.live() {
			if !e.accepted && r.hop == "" && n.now-e.at > promiseTime {
				n.accept1(e) // nobody can put a retained message in order now
			}
		}
		if r.out.len() > 0 || len(r.held) > 0 || len(r.old) > 0 || r.own != nil && (r.own.flying || len(r.own.waiters) > 0) {
			n.use(r)
			continue
		}
		if full && r.own == nil && r.epoch == nil && n.now-r.used > idleTime && n.locations[r.at] == nil {
			delete(n.routes, r.place)
		}
	}
}

// use has a route looked after at every tick.
func (n *Node) use(r *route) {
	if !r.active {
		r.active = true
		n.active = append(n.active, r)
	}
}

// tickEpochs ends an epoch that has lasted, and tells when nothing of it can come again.
func (n *Node) tickEpochs(r *route) {
	if r.epoch != nil && n.now-r.epoch.born > epochLife {
		r.old = append(r.old, r.epoch)
		r.epoch = nil
	}
	r.old = slices.DeleteFunc(r.old, func(s *sending) bool {
		if len(s.open) > 0 || s.release < s.seq {
			return false
		}
		delete(n.mine, s.id)
		if r.hop != "" && r.hop != n.self {
			n.send(r.hop, &pb.Forget{Epochs: []*pb.Forget_Epoch{{Epoch: s.id, Upto: s.seq, Closed: true}}})
		} else if t := n.streams[s.id]; t != nil {
			t.closed = true
		}
		return true
	})
}
