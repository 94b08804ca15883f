package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// sending is an epoch of this node at one location.
type sending struct {
	id      uint64
	seq     uint64 // the last number given
	born    time.Duration
	used    time.Duration // when the last number was given
	kept    spans         // numbers that others keep, above released
	release uint64
	until   time.Duration // it is not said to be over before
	open    numbered[*pending]
	served  spans // numbers that this node's own plain subscribers had from it
	untold  map[NodeID]*untold
}

// pending is a message of this node that it must not lose.
type pending struct {
	m         *proto.Message
	r         *route
	epoch     *sending // nil: QoS 0
	seq       uint64
	origin    any
	packet    uint16
	via       NodeID         // who it was sent to; "" when it must be sent (again)
	last      NodeID         // who it was sent to last, whether or not it must be sent again
	before    []string       // others that it was sent to before: they may have it, and it may come from them as well
	chosen    []proto.Choice // whom a rendezvous without another member has chosen for shared subscriptions
	restored  bool           // it is from before this node was started: nobody knows who has it
	at        time.Duration
	sent      time.Duration
	note      func() // what has to be safe with it, before it goes out
	here      bool   // with note: this node's own plain subscribers want it then
	served    bool
	matched   bool // it has been passed on to those that it is for
	detour    bool // this node's own subscribers get it from the rendezvous
	waits     bool // here, until it is known where to
	custody   CustodyAt
	accepted  bool
	safe      bool // it was in the outbox on the disk: of those that are not accepted at once
	kept      bool
	counted   bool   // in Node.outCount: it is in the outbox, and not in custody here
	lent      bool   // m is good during the event only
	once      Once   // its client was told that it is kept
	given     uint64 // the epoch that it is published under, where that was given; 0: it was not
	givenHold time.Duration
	firm      bool // it is accepted when it is where it goes
}

// own gives a message that was lent memory of its own.
func (e *pending) own() {
	if e.lent {
		e.m, e.lent = e.m.Clone(), false
	}
}

func (e *pending) id() Identity {
	if e.epoch == nil {
		return Identity{}
	}
	return Identity{e.epoch.id, e.seq}
}

// Publication is a message from a client of this node.
type Publication struct {
	Message *proto.Message
	Origin  any    // given back in Accept and Delivery
	Packet  uint16 // given back in Accept
	Served  bool   // this node's own plain subscribers have it
	// Note, which may be nil, notes in the node's stores what tells the message, of QoS 1 or 2, from one that comes again after
	// a crash. It is kept with the message, as a whole; the message goes to nobody before both are safe. It must not block.
	Note func()
	// Here has this node's own plain subscribers get a message of QoS 1 or 2 by a Delivery at once, and not when it comes back from its
	// rendezvous. That keeps it for them nevertheless, until they are done with it.
	Here bool
	// Awaited says that the acknowledgement of a message of QoS 1 or 2 waits until another node has it on its disk, or until it is
	// with all that it is for; see CustodyAt.
	Awaited bool
	// Lent says that Message, but for its Topic, is good only until the effects of this event are carried out. It is for
	// messages of QoS 0 that are not retained and Served, of which nearly all go into a frame at once.
	Lent bool
	// Epoch, where it is not 0, and 1 are the message's identity, at any QoS: who publishes another under the same, from whatever
	// node, publishes the same one, which comes once. That is remembered for Hold at least after the last of them.
	Epoch uint64
	Hold  time.Duration
	// Firm has Accept follow at any QoS, and not before the message is passed on by its rendezvous and, if it is to be retained,
	// kept by all members in reach.
	Firm bool
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
	place := n.placeFor(p.Message.Topic)
	if p.Message.QoS == 0 && p.Epoch == 0 && !n.room(place) {
		n.stats.DroppedQoS0++
		return
	}
	r := n.route(place)
	e := n.sparePending
	if n.sparePending = nil; e == nil {
		e = new(pending)
	}
	*e = pending{m: p.Message, r: r, origin: p.Origin, packet: p.Packet, served: p.Served, at: n.now,
		detour: !p.Served && !p.Here, lent: p.Lent, note: p.Note, here: p.Here, given: p.Epoch, givenHold: p.Hold, firm: p.Firm}
	if n.mine[e.given] != nil { // it is on its way from here already, or was
		n.publishedAlready(e)
		return
	}
	if p.Awaited && p.Message.QoS > 0 && p.Origin != nil {
		e.custody = CustodyAwaited
	}
	if e.detour {
		r.detours++
		n.detours++
	}
	t, waits := n.follow(e)
	if waits {
		return
	}
	n.publish(e, t)
	if e.epoch == nil && !e.waits { // it went on at once
		*e = pending{}
		n.sparePending = e
	}
}

// publishedAlready takes over a message that this node has published under the same identity: it is where that one is.
func (n *Node) publishedAlready(e *pending) {
	if e.note != nil {
		n.cfg.Custody.Together(e.note)
	}
	n.accept1(e)
	if e.later() && e.m.QoS > 0 {
		n.acceptWritten(e)
	}
}

// publish sends a message of this node's clients on its way, in its turn.
func (n *Node) publish(e *pending, t *trail) {
	r := e.r
	if e.m.QoS == 0 && !e.m.Retain && e.given == 0 {
		if r.quiet && e.served && n.holds(r.hop) {
			n.stats.Suppressed++
			if q := n.peers[r.hop]; q != nil {
				q.used = n.now
				n.out = append(n.out, Effect{Kind: Quiet, Place: r.place, Until: q.lease.held})
			}
			return
		}
		if !e.detour {
			n.dispatch(e)
			return
		}
	}
	n.identify(r, e)
	if t != nil {
		t.r, t.epoch, t.seq = r, e.epoch, e.seq
	}
	if !e.later() {
		n.acceptWhenRoom(e)
	} else if e.m.QoS > 0 {
		defer n.acceptWritten(e) // with what becomes of it in this event
	}
	if e.note != nil {
		n.stage(e)
	} else {
		n.setOut(e)
	}
	n.await(e)
}

// stage keeps a message here until it is safe together with what was to be noted of it.
func (n *Node) stage(e *pending) {
	n.cfg.Custody.Together(func() {
		n.linger(e)
		e.note()
	})
	e.note = nil
	n.safe(func() {
		e.waits = false
		n.setOut(e)
	})
}

// setOut gives a message to this node's own plain subscribers, where it is not to come back to them, and sends it on its way.
func (n *Node) setOut(e *pending) {
	if e.here {
		n.deliverOwn(e)
	}
	n.dispatch(e)
}

// identify gives a message its identity.
func (n *Node) identify(r *route, e *pending) {
	n.use(r)
	if e.given != 0 {
		s := &sending{id: e.given, born: n.now, used: n.now, seq: 1, until: n.now + e.givenHold}
		r.old = append(r.old, s)
		n.mine[s.id] = s
		e.epoch, e.seq = s, 1
		if e.served {
			s.served.add(1)
		}
		return
	}
	s := r.epoch
	if s == nil || n.now-s.born > epochLife || s.seq >= epochSize {
		if s != nil {
			r.old = append(r.old, s)
		}
		id := n.cfg.Rand.Uint64() | 1
		s = &sending{id: id, born: n.now}
		r.epoch = s
		n.mine[id] = s
	}
	s.seq++
	s.used = n.now
	e.epoch, e.seq = s, s.seq
	if e.served {
		s.served.add(e.seq)
	}
}

// dispatch sends a message on its way, or lets it wait until it can go.
func (n *Node) dispatch(e *pending) {
	r := e.r
	l := n.locations[r.at]
	switch {
	case r.switching:
		e.own()
		n.linger(e)
		n.behind(r, e.m.Size(), func() { n.dispatch(e) })
	case l != nil && l.undecided(), r.hop == n.self: // undecided: behind those that wait there
		n.arriveOwn(e)
	default:
		n.transmit(e)
	}
}

// transmit sends a message to the hop. What must not be lost is in the outbox until somebody else keeps it.
func (n *Node) transmit(e *pending) {
	r := e.r
	e.waits = false
	if e.kept { // it waited here, and went another way meanwhile
		return
	}
	n.keep(e)
	switch {
	case r.hop == "":
		if e.epoch == nil {
			n.stats.DroppedQoS0++
		}
		return
	case r.hop == n.self:
		n.arriveOwn(e)
		return
	}
	r.sentTo, r.sentAt = r.hop, n.now
	n.transmitTo(e, r.hop)
}

// transmitTo sends a message to a node, and depends on it from then on.
func (n *Node) transmitTo(e *pending, to NodeID) {
	r := e.r
	if p := n.peers[to]; p != nil {
		p.used = n.now
		if p.lease.first == 0 {
			n.askLease(p) // first: what comes without is left alone
		}
	}
	before := n.before(e, to)
	e.via, e.sent = to, n.now
	f := n.frames.Publish()
	*f = proto.Publish{Message: e.m, Location: r.at, Depth: r.place.Depth, Served: e.served, Echo: e.detour, Version: r.set.Version,
		Awaited: e.custody == CustodyAwaited, Before: before, Sent: n.sentNow(e.m), Chosen: n.chosenFor(e.m, e.id(), e.chosen)}
	if e.epoch != nil {
		f.Epoch, f.Seq, f.Released = e.epoch.id, e.seq, e.epoch.release
		if age := n.now - e.at; age > time.Second {
			f.Age = age
		}
	}
	n.send(to, f)
}

// sentNow is what Publish says of when it was sent: the place in time of what is retained depends on how long it was on its way.
func (n *Node) sentNow(m *proto.Message) time.Duration {
	if !m.Retain {
		return 0
	}
	return n.now
}

// before notes that a message goes to a node, and returns the others that it may have been sent to before.
func (n *Node) before(e *pending, to NodeID) []string {
	add := func(node NodeID) {
		if node != "" && node != n.self && !slices.Contains(e.before, string(node)) && len(e.before) < proto.MaxBefore {
			e.before = append(e.before, string(node))
		}
	}
	switch {
	case e.restored:
		e.restored = false
		for _, m := range e.r.set.Members {
			add(m)
		}
	case e.last == "":
		e.last = to
		return nil
	}
	if e.last != to {
		add(e.last)
		e.last = to
	}
	before := e.before
	if slices.Contains(before, string(to)) {
		before = slices.DeleteFunc(slices.Clone(before), func(node string) bool { return node == string(to) })
	}
	return n.withHolders(before, e.id(), to)
}

// withHolders adds to the nodes that a message was sent to before it goes to another one those that have it in custody, as
// this one knows: itself among them.
func (n *Node) withHolders(before []string, id Identity, to NodeID) []string {
	s := n.streams[id.Epoch]
	if s == nil || to == n.self {
		return before
	}
	e := s.entries.get(id.Seq)
	if e == nil {
		return before
	}
	before = slices.Clone(before)
	for _, node := range append([]NodeID{n.self}, e.copies...) {
		if node != to && len(before) < proto.MaxBefore && !slices.Contains(before, string(node)) {
			before = append(before, string(node))
		}
	}
	return before
}

// arriveOwn takes a message of this node to its location, which this node deals with.
func (n *Node) arriveOwn(e *pending) {
	a := n.newArrival()
	*a = arrival{m: e.m, from: n.self, publisher: n.self, served: e.served, echo: e.detour, own: e, age: n.now - e.at,
		awaited: e.custody == CustodyAwaited}
	if e.epoch != nil {
		a.id = e.id()
		a.released = e.epoch.release
		a.before, a.chosen = n.before(e, n.self), e.chosen
	}
	n.arriveAnywhere(e.r.place, e.r.at, a)
	n.arrived(a)
}

// taken ends the detour of a message: this node's own subscribers have it, and it is stamped.
func (n *Node) taken(e *pending) {
	n.passed(e)
	if e.detour {
		e.detour = false
		e.r.detours--
		n.detours--
	}
	if e.custody != CustodyAwaited {
		n.accept1(e)
	}
}

// let lets go of a message that others keep now, one above all.
func (n *Node) let(e *pending, keeper NodeID) {
	if e.kept || e.epoch == nil {
		return
	}
	e.kept = true
	n.toTell(e, keeper)
	n.arriveLate(e)
	n.stats.Kept.observe(n.now - e.at)
	n.taken(e)
	n.acceptSafe(e)
	s := e.epoch
	if s.open.get(e.seq) != nil {
		s.open.remove(e.seq)
		n.uncount(e)
		n.unstore(e.id())
	}
	n.letGo(s, e.seq)
	for e.r.out.len() > 0 && e.r.out.front().kept {
		e.r.out.pop()
	}
	n.acceptMore()
}

func (n *Node) receivePublishAck(p *peer, f *pb.PublishAck) {
	n.ackRanges(p, f.GetTaken(), n.taken, func(p *peer) *acks { return &p.taken })
	n.ackRanges(p, f.GetWritten(), n.acceptSafe, func(p *peer) *acks { return &p.written })
	n.ackRanges(p, f.GetKept(), func(e *pending) {
		n.let(e, p.id)
		n.acceptKept(e)
	}, func(p *peer) *acks { return &p.kept })
}

// ackRanges calls each with this node's own messages that a node has acknowledged, and passes on what is said of others', as what by
// names.
func (n *Node) ackRanges(from *peer, ranges []*pb.Ranges, each func(*pending), by func(*peer) *acks) {
	for _, rs := range ranges {
		s := n.mine[rs.GetEpoch()]
		if s == nil {
			if back, ok := n.relayed[rs.GetEpoch()]; ok && back.to != from.id {
				n.relayAck(back.to, rs, by)
			}
			continue
		}
		for _, g := range rs.GetRanges() {
			for seq := max(g.GetFrom(), s.release+1); seq <= min(g.GetTo(), s.seq); seq++ {
				if e := s.open.get(seq); e != nil {
					each(e)
				}
			}
		}
	}
}

// relayAck passes an acknowledgement back on the way that its message came.
func (n *Node) relayAck(to NodeID, rs *pb.Ranges, by func(*peer) *acks) {
	p := n.dirtyPeer(to)
	if p == nil {
		return
	}
	budget := epochSize
	for _, g := range rs.GetRanges() {
		for seq := g.GetFrom(); seq <= g.GetTo() && budget > 0; seq++ {
			budget--
			by(p).add(Identity{rs.GetEpoch(), seq})
		}
	}
}
