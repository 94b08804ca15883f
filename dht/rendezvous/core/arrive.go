package core

import (
	"strings"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// arrival is a message that has come to a location, from this node or another.
type arrival struct {
	m         *proto.Message
	id        Identity
	from      NodeID // who sent it here
	publisher NodeID // the publisher's node, where this node may know it
	released  uint64
	version   uint64        // of the set that its publisher's node knows
	age       time.Duration // when it came here
	since     time.Duration // when it began to wait here; 0: it did not
	hops      int
	before    []string       // nodes that it was sent to before, and that may have it
	chosen    []proto.Choice // who has been chosen for shared subscriptions
	served    bool
	echo      bool
	awaited   bool     // its publisher's client waits until it is on two disks
	own       *pending // this node's own
}

// keep gives the message memory that is its own, where it has none: it outlives the buffer that it came in.
func (a *arrival) keep() {
	if a.own == nil {
		a.m = a.m.Clone()
		return
	}
	a.own.own()
	a.m = a.own.m
}

func (n *Node) receivePublish(p *peer, f *proto.Publish) {
	prefix, depth := dht.Prefix(f.Message.Topic, f.Depth)
	if depth != f.Depth || depth == 0 {
		n.malformed("Publish")
		return
	}
	if f.Epoch != 0 && p.lease.late(n.now) {
		n.stats.Late++ // nobody knows how long it took, and it comes again
		return
	}
	a := n.newArrival()
	*a = arrival{m: f.Message, id: Identity{f.Epoch, f.Seq}, from: p.id, publisher: p.id, released: f.Released,
		version: f.Version, age: f.Age, hops: f.Hops, served: f.Served, echo: f.Echo, awaited: f.Awaited,
		before: f.Before, chosen: f.Chosen}
	if f.Sent != 0 {
		a.age += p.lease.took(n.now, f.Sent)
	}
	if f.Hops > 0 {
		a.publisher = NodeID(f.Origin)
	}
	n.arriveFrom(p, f, a, prefix)
	n.arrived(a)
}

// newArrival returns memory for an arrival, which arrived takes back where the message went on at once.
func (n *Node) newArrival() *arrival {
	a := n.spareArrival
	if n.spareArrival = nil; a == nil {
		a = new(arrival)
	}
	return a
}

func (n *Node) arrived(a *arrival) {
	if a.since == 0 {
		*a = arrival{}
		n.spareArrival = a
	}
}

// ageOf returns how long ago a message came to its publisher's node.
func (n *Node) ageOf(a *arrival) time.Duration {
	if a.since == 0 {
		return a.age
	}
	return a.age + n.now - a.since
}

// arriveFrom takes a message from another node to its location.
func (n *Node) arriveFrom(p *peer, f *proto.Publish, a *arrival, prefix string) {
	depth := f.Depth
	if l := n.locations[f.Location]; l != nil && l.place.Prefix == prefix && l.place.Depth == depth {
		l.touched = n.now
		n.watch(l)
		if l.phase >= standby {
			n.tellSet(p, a, l.place, l.set)
		}
		if n.heldBack(l.route, p, a) {
			n.hold(l.route, a)
			return
		}
		n.arrive(l, a)
		return
	}
	place := Place{strings.Clone(prefix), depth} // tables outlive the message
	at := place.Location()
	if at != f.Location {
		n.malformed("Publish")
		return
	}
	if !n.room(place) { // its publisher's node keeps it, and sends it again
		if f.Epoch == 0 {
			n.stats.DroppedQoS0++
		}
		return
	}
	if r := n.routes[place]; r != nil && n.heldBack(r, p, a) {
		n.hold(r, a)
		return
	}
	n.arriveAnywhere(place, at, a)
}

// tellSet tells a publisher's node of the set that it publishes to, where it knows none or an older one: when it
// loses the rendezvous it goes to the next member.
func (n *Node) tellSet(p *peer, a *arrival, place Place, set Set) {
	if a.hops == 0 && a.version < set.Version && n.now-p.toldSet > time.Second/2 {
		p.toldSet = n.now
		n.send(p.id, &pb.SetNews{Place: place.pb(), Set: set.pb()})
	}
}

// heldBack reports whether a message has to wait until this node's hop has changed: not one that comes back from the
// old hop, or that is this node's own and has come back another way.
func (n *Node) heldBack(r *route, p *peer, a *arrival) bool {
	return r.switching && p.id != r.leaving && n.mine[a.id.Epoch] == nil
}

// hold keeps a message back until this node's hop has changed.
func (n *Node) hold(r *route, a *arrival) {
	if n.mayWait(len(r.held), a) {
		n.behind(r, a.m.Size(), func() { n.arriveAnywhere(r.place, r.at, a) })
	}
}

// arriveAnywhere takes a message to its location, here or elsewhere.
func (n *Node) arriveAnywhere(place Place, at dht.Location, a *arrival) {
	if l := n.locate(place, at); l != nil {
		n.arrive(l, a)
		return
	}
	n.passOn(place, n.route(place).hop, a)
}

// arrive deals with a message according to what this node is to its location.
func (n *Node) arrive(l *location, a *arrival) {
	if a.own != nil {
		if a.own.waits = false; a.own.kept { // it waited here, and went another way meanwhile
			return
		}
	}
	switch l.phase {
	case serving:
		if !l.pulling {
			if above := n.ancestors(l); above.ok {
				n.serve(l, a, above)
				return
			}
			l.pulling = true
			n.pulls++
		}
		n.wait(l, a)
	case founding, awaiting:
		n.wait(l, a)
	case filling:
		n.passOn(l.place, l.filler, a)
	default:
		n.passOn(l.place, n.rendezvous(l.set), a)
	}
}

func (n *Node) wait(l *location, a *arrival) {
	if n.mayWait(l.waiting.len(), a) {
		l.waiting.push(a)
		n.waiting++
		n.waitBytes += a.m.Size()
	}
}

// mayWait readies a message for waiting here, unless too many do. What its publisher's node keeps is sent again.
func (n *Node) mayWait(already int, a *arrival) bool {
	lim := &n.cfg.Limits
	full := func(times int) bool { return already/times >= lim.Waiting || n.waitBytes/times >= lim.WaitingBytes }
	if full(1) && a.id.Epoch == 0 || full(2) && a.own == nil {
		n.stats.DroppedWaiting++
		return false
	}
	if a.since == 0 {
		a.since = n.now
		a.keep()
	}
	if a.own != nil {
		n.linger(a.own)
	}
	return true
}

// passOn sends a message to whoever can deal with it.
func (n *Node) passOn(place Place, to NodeID, a *arrival) {
	if a.own != nil {
		if to == n.self { // its location is not served here, and nobody else is there
			to = ""
		}
		e := a.own
		if e.via, e.waits = "", false; e.r.hop == n.self {
			e.r.hop = to
		}
		n.transmit(e)
		return
	}
	if to == "" || to == n.self || a.hops >= proto.MaxHops {
		if a.id.Epoch == 0 {
			n.stats.DroppedQoS0++
		}
		return // its publisher's node keeps it, and sends it again
	}
	n.stats.Forwarded++
	r := n.route(place)
	f := n.frames.Publish()
	*f = proto.Publish{Message: a.m, Location: r.at, Depth: place.Depth, Epoch: a.id.Epoch, Seq: a.id.Seq,
		Released: a.released, Version: a.version, Served: a.served, Echo: a.echo, Awaited: a.awaited, Hops: a.hops + 1, Age: n.ageOf(a),
		Before: n.withHolders(a.before, a.id, to), Sent: n.sentNow(a.m), Chosen: n.chosenFor(a.m, a.id, a.chosen)}
	switch {
	case !a.served:
	case r.set.has(to): // only members of the set may know
		f.Origin = string(a.publisher)
	case a.id.Epoch == 0: // the publisher's own subscribers would get it again
		n.stats.DroppedQoS0++
		return
	}
	if a.id.Epoch != 0 && n.mine[a.id.Epoch] == nil { // a message of this node's own may have come back
		n.relay(a)
	}
	if a.m.QoS == 2 {
		n.noteHanded(a.id.Epoch, to)
	}
	if p := n.peers[a.from]; p != nil {
		n.tellSet(p, a, place, r.set)
	}
	r.sentTo, r.sentAt = to, n.now
	n.need(to)
	n.send(to, f)
}

// relayed is the way back of an epoch that was passed on.
type relayed struct {
	to   NodeID
	hops int // of what came that way
}

// relay notes which way acknowledgements of a message that is passed on go back: the shortest that messages of its epoch have come.
// Where nodes have different views of who is the rendezvous, a message may come by a second time; if what came last decided,
// acknowledgements would go round between them for as long as these live.
func (n *Node) relay(a *arrival) {
	known, ok := n.relayed[a.id.Epoch]
	if ok && a.hops > known.hops && n.inReach(known.to) {
		return
	}
	if !ok && len(n.relayed) >= n.cfg.Limits.UnknownEpochs {
		clear(n.relayed)
	}
	n.relayed[a.id.Epoch] = relayed{a.from, a.hops}
}

// receiveSync answers when everything that came before it is where it belongs, in order.
func (n *Node) receiveSync(p *peer, f *pb.Sync) {
	if f.GetOp() == 0 {
		n.passProbe(p.id, f)
		return
	}
	n.passSync(p.id, f, func() { n.ack(p.id, f.GetOp()) })
}

// passSync has done called when everything that came from a node, which may be this one, before a Sync is where it
// belongs, in order: at the rendezvous, and with an epoch also at the nodes that its messages were for.
func (n *Node) passSync(from NodeID, f *pb.Sync, done func()) {
	place, ok := placeOf(f.GetPlace())
	if !ok {
		done() // about deliveries: they are with the broker
		return
	}
	if !n.room(place) {
		done() // nothing came from it
		return
	}
	r := n.route(place)
	if r.token != 0 && r.token == f.GetToken() {
		done() // this node's own
		return
	}
	if r.switching && from != r.leaving {
		n.behind(r, 0, func() { n.passSync(from, f, done) })
		put(&r.behind, from, true)
		n.probe(r.leaving, from, f)
		return
	}
	if l := n.locations[r.at]; l != nil && (l.undecided() || l.pulling) { // behind what waits here, and may go on from here
		l.markers = append(l.markers, func() { n.passSync(from, f, done) })
		return
	}
	to := n.syncHop(r)
	if to == n.self || to == "" || to == from || f.GetHops() >= proto.MaxHops {
		n.delivered(f.GetEpoch(), done)
		return
	}
	n.request(to, func(op uint64) any {
		return &pb.Sync{Op: op, Place: f.GetPlace(), Hops: f.GetHops() + 1, Token: f.GetToken(), Epoch: f.GetEpoch()}
	}, func(bool) { done() })
}

// syncHop is where what comes for a place goes on from here.
func (n *Node) syncHop(r *route) NodeID {
	l := n.locations[r.at]
	switch {
	case l == nil:
		return r.hop
	case l.phase == serving:
		return n.self
	case l.phase == filling:
		return l.filler
	}
	return n.rendezvous(l.set)
}

// probe goes after what a Sync that is held back here waits for. Where nodes have different views of who is the rendezvous, each of
// some may wait for the Sync of the next: a probe that comes back to the node whose Sync it is for has found such a circle.
func (n *Node) probe(to, from NodeID, f *pb.Sync) {
	if f.GetToken() != 0 && to != "" && to != n.self && to != from && f.GetHops() < proto.MaxHops {
		n.send(to, &pb.Sync{Place: f.GetPlace(), Hops: f.GetHops() + 1, Token: f.GetToken()})
	}
}

func (n *Node) passProbe(from NodeID, f *pb.Sync) {
	place, _ := placeOf(f.GetPlace())
	r := n.routes[place]
	switch {
	case r == nil:
	case r.switching && r.token == f.GetToken():
		if r.behind[from] { // who waits for this node, which waits for it
			n.switched(r)
		}
	case r.switching && r.behind[from]:
		n.probe(r.leaving, from, f)
	case !r.switching:
		n.probe(n.syncHop(r), from, f)
	}
}

// delivered has done called when what was sent of an epoch from here is with the subscribers' nodes.
func (n *Node) delivered(epoch uint64, done func()) {
	g := &gather{n: n}
	if s := n.streams[epoch]; s != nil {
		for _, t := range sortedKeys(s.told) {
			if n.inReach(t) {
				g.left++
				n.request(t, func(op uint64) any { return &pb.Sync{Op: op} }, func(bool) { g.one() })
			}
		}
	}
	g.wait(done)
}
