package core

import (
	"math"
	"slices"
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
	version   uint64 // of the set that its publisher's node knows
	age       time.Duration
	since     time.Duration // when it began to wait here; 0: it did not
	hops      int
	served    bool
	echo      bool
	own       *pending // this node's own
}

func (n *Node) receivePublish(p *peer, f *proto.Publish) {
	prefix, depth := dht.Prefix(f.Message.Topic, f.Depth)
	if depth != f.Depth || depth == 0 {
		n.malformed("Publish")
		return
	}
	a := &arrival{m: f.Message, id: Identity{f.Epoch, f.Seq}, from: p.id, publisher: p.id, released: f.Released,
		version: f.Version, age: f.Age, hops: f.Hops, served: f.Served, echo: f.Echo}
	if f.Hops > 0 {
		a.publisher = NodeID(f.Origin)
	}
	if l := n.locations[f.Location]; l != nil && l.place.Prefix == prefix && l.place.Depth == depth {
		l.touched = n.now
		n.watch(l)
		if l.phase >= standby {
			n.tellSet(p, a, l.place, l.set)
		}
		if l.route.switching && p.id != l.route.leaving {
			n.hold(l.route, a)
			return
		}
		n.arrive(l, a)
		return
	}
	place := Place{prefix, depth}
	at := place.Location()
	if at != f.Location {
		n.malformed("Publish")
		return
	}
	if r := n.routes[place]; r != nil && r.switching && p.id != r.leaving {
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
		a.own.waits = false
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
	full := func(times int) bool { return already >= times*lim.Waiting || n.waitBytes >= times*lim.WaitingBytes }
	if full(1) && a.id.Epoch == 0 || full(2) && a.own == nil {
		n.stats.DroppedWaiting++
		return false
	}
	if a.since == 0 {
		a.since = n.now
		if a.own == nil {
			a.m = a.m.Clone() // it outlives the buffer that it came in
		}
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
	f := &proto.Publish{Message: a.m, Location: r.at, Depth: place.Depth, Epoch: a.id.Epoch, Seq: a.id.Seq,
		Released: a.released, Version: a.version, Served: a.served, Echo: a.echo, Hops: a.hops + 1, Age: a.age}
	if a.since != 0 {
		f.Age += n.now - a.since
	}
	switch {
	case !a.served:
	case r.set.has(to): // only members of the set may know
		f.Origin = string(a.publisher)
	case a.id.Epoch == 0: // the publisher's own subscribers would get it again
		n.stats.DroppedQoS0++
		return
	}
	if a.id.Epoch != 0 && n.mine[a.id.Epoch] == nil { // a message of this node's own may have come back
		if len(n.relayed) >= n.cfg.Limits.UnknownEpochs {
			clear(n.relayed)
		}
		n.relayed[a.id.Epoch] = a.from
	}
	if p := n.peers[a.from]; p != nil {
		n.tellSet(p, a, place, r.set)
	}
	r.sentTo, r.sentAt = to, n.now
	n.need(to)
	n.send(to, f)
}

// dest is a node that a message is for.
type dest struct {
	node   NodeID
	groups []proto.Group
	hold   time.Duration
	plain  bool
	qos    byte
}

// candidate is a node that has members in a shared subscription.
type candidate struct {
	node    NodeID
	members int
	hold    time.Duration
	qos     byte
	online  bool
}

// matching gathers who a message is for. It is used again for each message.
type matching struct {
	dests  []dest
	groups map[proto.Group][]candidate
	keys   []proto.Group
	m      *proto.Message
	except NodeID // whose plain subscribers have it
}

func (s *matching) reset(m *proto.Message, except NodeID) {
	s.dests, s.keys = s.dests[:0], s.keys[:0]
	clear(s.groups)
	s.m, s.except = m, except
}

func (s *matching) dest(node NodeID) *dest {
	for i := range s.dests {
		if s.dests[i].node == node {
			return &s.dests[i]
		}
	}
	s.dests = append(s.dests, dest{node: node})
	return &s.dests[len(s.dests)-1]
}

func (s *matching) add(filter string, node NodeID, i *Interest) {
	if i.Plain && node != s.except {
		d := s.dest(node)
		d.plain = true
		d.qos, d.hold = max(d.qos, i.QoS), max(d.hold, i.Hold)
	}
	for _, g := range i.Groups {
		key := proto.Group{Name: g.Name, Filter: filter}
		if s.groups == nil {
			s.groups = map[proto.Group][]candidate{}
		}
		if s.groups[key] == nil {
			s.keys = append(s.keys, key)
		}
		s.groups[key] = append(s.groups[key], candidate{node, g.Members, i.Hold, g.QoS, g.Online})
	}
}

// match finds the nodes that a message is for. The result is good until the next call.
func (n *Node) match(l *location, above ancestry, m *proto.Message, id Identity, except NodeID) []dest {
	s := &n.scratch
	s.reset(m, except)
	l.tree.Match(m.Topic, s.add)
	for _, t := range above.tables {
		t.tree.Match(m.Topic, s.add)
	}
	slices.SortFunc(s.keys, func(a, b proto.Group) int {
		if a.Filter != b.Filter {
			if a.Filter < b.Filter {
				return -1
			}
			return 1
		}
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	turn := id
	if id.Epoch == 0 {
		n.turn++
		turn.Seq = n.turn
	}
	for _, k := range s.keys {
		c := n.pick(k, s.groups[k], turn)
		d := s.dest(c.node)
		d.groups = append(d.groups, k)
		d.qos, d.hold = max(d.qos, c.qos), max(d.hold, c.hold)
	}
	slices.SortFunc(s.dests, func(a, b dest) int {
		if a.node < b.node {
			return -1
		}
		return 1
	})
	n.stats.Matched++
	return s.dests
}

// pick chooses the node of a shared subscription that gets a message: weighted rendezvous hashing (Thaler
// and Ravishankar 1998) of the message's identity, so that every rendezvous that knows the same members
// chooses the same one, and a retry goes where the message went. Members with a connection, at nodes in
// reach, come first.
func (n *Node) pick(g proto.Group, cs []candidate, id Identity) candidate {
	rank := func(c candidate) int {
		switch {
		case c.online && n.inReach(c.node):
			return 2
		case n.inReach(c.node):
			return 1
		}
		return 0
	}
	best, score, top := cs[0], math.Inf(-1), -1
	for _, c := range cs {
		h := hash(id, g, c.node)
		s := -float64(max(c.members, 1)) / math.Log((float64(h>>11)+0.5)/(1<<53))
		if r := rank(c); r > top || r == top && s > score {
			best, score, top = c, s, r
		}
	}
	return best
}

// hash mixes an identity, a group and a node into a number (FNV-1a, finished as in MurmurHash3).
func hash(id Identity, g proto.Group, node NodeID) uint64 {
	h := uint64(14695981039346656037)
	mix := func(s string) {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	mix(g.Name)
	mix(g.Filter)
	mix(string(node))
	h ^= id.Epoch
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h ^= id.Seq * 0x9e3779b97f4a7c15
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// serve does the rendezvous' part for one message.
func (n *Node) serve(l *location, a *arrival, above ancestry) {
	keep := a.id.Epoch != 0
	var s *stream
	if keep {
		s = n.stream(l, a.id.Epoch)
		s.hop = a.from
		s.release(a.released)
		if a.id.Seq <= s.low || s.seen.has(a.id.Seq) {
			n.again(s, a)
			return
		}
		if a.own == nil && n.custodyFull(2) {
			n.stats.DroppedCustody++ // its publisher's node keeps it, and sends it again
			return
		}
		if a.own == nil {
			a.m = a.m.Clone() // it outlives the buffer that it came in
		}
	}
	var stamp uint64
	if a.m.Retain {
		stamp = n.stamp(a.age)
	}
	except := NodeID("")
	if a.served {
		except = a.publisher
	}
	dests := n.match(l, above, a.m, a.id, except)
	sure := above.sure && n.whole(l.set) && n.now >= n.merging
	if !keep {
		n.serveUnkept(l, a, above, dests, sure)
		return
	}
	s.seen.add(a.id.Seq)
	e := &entry{l: l, s: s, id: a.id, m: a.m, size: a.m.Size(), at: n.now, stamp: stamp, own: a.own}
	for _, d := range dests {
		e.shares = append(e.shares, share{node: d.node, plain: d.plain, groups: d.groups, hold: max(d.hold, MinHold)})
	}
	e.left = len(e.shares)
	n.take(e)
	if !sure {
		n.unsettle(l, e, except)
	}
	out := func() {
		for i := range e.shares {
			if !e.gone {
				n.deliver(e, &e.shares[i])
			}
		}
		if a.echo {
			n.whenListed(l, a.m, func() { n.ackTaken(e) })
		}
	}
	if stamp != 0 {
		n.retain(l, e)
	}
	if !n.chosen(e) {
		out()
		n.finish(e)
		return
	}
	l.choosing++
	n.copyEntries(l, func(o *entry) bool { return o == e }, func() {
		l.choosing--
		out()
		n.finish(e)
	})
}

// chosen reports whether a message has to be copied before it goes out: at QoS 2 a shared subscription's message
// stays with its choice [MQTT-4.8.2-4], so that the choice has to outlive this node. What comes behind such a
// message waits in the same way, and so stays behind it.
func (n *Node) chosen(e *entry) bool {
	return e.m.QoS == 2 && e.left > 0 && n.copyHolder(e.l) != "" &&
		(e.l.choosing > 0 || slices.ContainsFunc(e.shares, func(s share) bool { return len(s.groups) > 0 }))
}

// serveUnkept passes on a QoS 0 message, and lets its publisher's node know where nobody wants such.
func (n *Node) serveUnkept(l *location, a *arrival, above ancestry, dests []dest, sure bool) {
	for _, d := range dests {
		n.sendOnce(l, a, d)
	}
	if len(dests) > 0 || a.hops > 0 || !sure || !a.served || n.interested(l, above, a.publisher) {
		return
	}
	l.told[a.from] = true
	n.quiet[l.at] = l
	if a.from == n.self {
		n.out = append(n.out, Effect{Kind: Quiet, Place: l.place, Until: n.now + LeaseTime})
		return
	}
	n.send(a.from, &pb.NoInterest{Place: l.place.pb()})
}

// interested reports whether anybody wants anything of a location's topics that the plain subscribers of the
// publisher's own node have not got already.
func (n *Node) interested(l *location, above ancestry, publisher NodeID) bool {
	for _, t := range append(above.tables, &l.table) {
		for _, r := range t.owners {
			if len(r.interests) > 0 && (r.owner != publisher || r.groups()) {
				return true
			}
		}
	}
	return false
}

// awake has the driver forget what it was told by Quiet.
func (n *Node) awake(Place) { n.out = append(n.out, Effect{Kind: Awake}) }

func (n *Node) receiveNoInterest(p *peer, f *pb.NoInterest) {
	place, ok := placeOf(f.GetPlace())
	if !ok {
		n.malformed("NoInterest")
		return
	}
	r := n.routes[place]
	if r == nil || r.hop != p.id || r.switching {
		return
	}
	r.quiet = true
	p.used = n.now
	if p.lease.held > n.now {
		n.out = append(n.out, Effect{Kind: Quiet, Place: place, Until: p.lease.held})
	}
}

func (n *Node) receiveWake(p *peer, f *pb.Wake) {
	for _, w := range f.GetPlaces() {
		if place, ok := placeOf(w); ok {
			if r := n.routes[place]; r != nil {
				r.quiet = false
			}
		}
	}
	n.out = append(n.out, Effect{Kind: Awake})
	n.ack(p.id, f.GetOp())
}

// receiveSync answers when everything that came before it is where it belongs, in order.
func (n *Node) receiveSync(p *peer, f *pb.Sync) {
	place, ok := placeOf(f.GetPlace())
	if !ok {
		n.ack(p.id, f.GetOp()) // about deliveries: they are with the broker
		return
	}
	r := n.route(place)
	if r.switching && p.id != r.leaving {
		n.behind(r, 0, func() { n.receiveSync(p, f) })
		return
	}
	to := r.hop
	if l := n.locations[r.at]; l != nil {
		switch l.phase {
		case founding, awaiting: // where what waits here belongs is not decided
			l.markers = append(l.markers, func() { n.receiveSync(p, f) })
			return
		case serving:
			to = n.self
		case filling:
			to = l.filler
		default:
			to = n.rendezvous(l.set)
		}
	}
	if to == n.self || to == "" || to == p.id || f.GetHops() >= proto.MaxHops {
		n.ack(p.id, f.GetOp())
		return
	}
	n.request(to, func(op uint64) any {
		return &pb.Sync{Op: op, Place: f.GetPlace(), Hops: f.GetHops() + 1}
	}, func(bool) { n.ack(p.id, f.GetOp()) })
}

// stamp gives a retained message its place in time: a hybrid logical clock (Kulkarni et al. 2014), 48 bits of
// milliseconds and 16 of counting. One that has waited is stamped that much earlier.
func (n *Node) stamp(age time.Duration) uint64 {
	wall := uint64(max(0, n.wall.UnixMilli())) << 16 //nolint:gosec // not negative
	if age > time.Second {
		return wall - min(wall, uint64(age.Milliseconds())<<16) //nolint:gosec // positive
	}
	n.clock = max(n.clock+1, wall)
	return n.clock
}
