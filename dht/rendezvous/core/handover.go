package core

import (
	"slices"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// transfer sends the state of a location to a node, in as many frames as it takes, and tells whether all of
// it arrived; each is called whenever some has. With it go messages in custody, and identities of those that are over.
func (n *Node) transfer(l *location, to NodeID, entries []*entry, streams []*stream, each func(), done func(ok bool)) {
	t := &transferring{n: n, l: l, to: to, children: l.sortedChildren(), entries: entries, streams: streams}
	for _, o := range sortedKeys(l.owners) {
		t.registrations = append(t.registrations, l.owners[o].pb()...)
	}
	n.eachRetained(l, func(k *Kept) { t.retained = append(t.retained, k.Message.Topic) })
	p := &pump{n: n, to: to, done: done}
	p.next = func() (func(op uint64) any, func(bool)) {
		f := t.next()
		if f == nil {
			return nil, nil
		}
		return func(op uint64) any { f.Op = op; return f }, func(bool) { each() }
	}
	p.run()
}

// transferring is what is left of a location's state to be sent.
type transferring struct {
	n             *Node
	l             *location
	to            NodeID
	registrations []*pb.Registration
	retained      []string // topics
	children      []Place
	entries       []*entry
	streams       []*stream
	begun         bool

	unsettled, unmatched bool // of what is in the frame: some, and some that this node has not matched
}

// next makes the next frame, at least one; nil when all is sent.
func (t *transferring) next() *pb.Transfer {
	f := &pb.Transfer{Place: t.l.place.pb()}
	size := 0
	for size < proto.SoftFrame {
		by := t.put(f)
		if by == 0 {
			break
		}
		size += by
	}
	if size == 0 && t.begun {
		return nil
	}
	t.begun = true
	if t.unsettled && !t.unmatched {
		f.Matched = t.l.matched.pb()
	}
	t.unsettled, t.unmatched = false, false
	return f
}

// put puts one thing more into a frame and returns about how long it is; 0 when nothing is left.
func (t *transferring) put(f *pb.Transfer) int {
	switch {
	case len(t.registrations) > 0:
		r := t.registrations[0]
		t.registrations = t.registrations[1:]
		f.Registrations = append(f.Registrations, r)
		return registrationSize(r)
	case len(t.retained) > 0:
		k := t.n.cfg.Retained.Get(t.l.at, t.retained[0])
		if t.retained = t.retained[1:]; k != nil {
			f.Retained = append(f.Retained, t.n.keptToPB(k))
			return 64 + k.Message.Size()
		}
	case len(t.children) > 0:
		c := t.children[0]
		t.children = t.children[1:]
		f.Children = append(f.Children, c.pb())
		return 16 + len(c.Prefix)
	case len(t.entries) > 0:
		e := t.entries[0]
		if t.entries = t.entries[1:]; !e.over() {
			t.n.mayKeep(e, t.to)
			t.unsettled = t.unsettled || e.unset != nil
			t.unmatched = t.unmatched || e.unset != nil && e.copy
			c := t.n.custodyToPB(e)
			if e.choosing > 0 {
				e.passed = true
				leaveOpen(c)
			}
			f.Custody = append(f.Custody, c)
			return 128 + e.size
		}
	case len(t.streams) > 0:
		s := t.streams[0]
		t.streams = t.streams[1:]
		f.Seen = append(f.Seen, &pb.Seen{Epoch: s.epoch, Upto: s.low, Ranges: s.seen.pb(), Owed: s.owedToPB()})
		return 32 + 16*len(s.seen) + s.owedSize()
	default:
		return 0
	}
	return 1 // what it was is over
}

func (n *Node) receiveTransfer(p *peer, f *pb.Transfer) {
	place, ok := placeOf(f.GetPlace())
	if !ok {
		n.malformed("Transfer")
		return
	}
	at := place.Location()
	l := n.locations[at]
	if l == nil {
		if l = n.newLocation(place, at); l == nil {
			n.refuse(p.id, f.GetOp())
			return
		}
		l.phase, l.filler, l.since = filling, p.id, n.now
	}
	if l.phase == founding {
		l.phase, l.filler, l.since, l.asking = filling, p.id, n.now, nil
		l.set = Set{}
		n.disinherit(l) // they ask again, and hear when it is filled
		n.settle(l)     // what waited goes to who fills it
	}
	if l.phase == filling {
		l.since = n.now
	}
	n.need(p.id)
	for _, r := range f.GetRegistrations() {
		n.applySync(l, r)
	}
	for _, k := range f.GetRetained() {
		n.keepRetained(l, n.keptOf(k))
	}
	for _, c := range f.GetChildren() {
		if child, ok := placeOf(c); ok {
			n.addChild(l, child)
		}
	}
	for _, s := range f.GetSeen() {
		n.takeSeen(l, s)
	}
	by := matchedOf(f.GetMatched())
	for _, c := range f.GetCustody() {
		n.contest(l, c, p.id, true)
		n.takeCustody(l, c, p.id)
		if e := n.entryOf(Identity{c.GetEpoch(), c.GetSeq()}); by != nil && c.GetUnsettled() && e != nil && e.unset != nil && e.hasPlain(c) {
			e.unset.by = by
		}
	}
	if l.phase == serving { // the other may not come to hand over
		n.promote(l)
	}
	n.ackSafe(p.id, f.GetOp())
}

// relinquish gives a location up to another rendezvous. From now on publishes are passed on to it, where
// they wait; once everything that this node has sent has arrived, so that nothing can be overtaken, it is
// handed what is left to do.
func (n *Node) relinquish(l *location) {
	if l.phase == serving && l.unsettled.len() > 0 {
		l.matched = n.matchedNow(l)
	}
	l.phase = relinquishing
	n.stats.HandOvers++
	l.change = nil
	in := &gather{n: n}
	for _, s := range sortedKeys(l.sent) {
		in.left++
		n.request(s, func(op uint64) any { return &pb.Sync{Op: op} }, func(bool) { in.one() })
	}
	clear(l.sent)
	told := map[NodeID]bool{n.self: true}
	for _, s := range n.streamsOf(l) { // who sends here goes to the other from now on
		if !told[s.hop] {
			told[s.hop] = true
			n.send(s.hop, &pb.SetNews{Place: l.place.pb(), Set: l.set.pb()})
		}
	}
	n.wake(l, in) // who was told of no interest was told under this node's lease
	in.wait(func() { n.handOver(l) })
	n.settle(l)
}

func (n *Node) handOver(l *location) {
	if l.phase != relinquishing || n.locations[l.at] != l {
		return
	}
	to := n.rendezvous(l.set)
	switch to {
	case n.self:
		n.review(l)
		return
	case "": // all of them are out of reach, for a while perhaps
		n.timers.set(n.now+leaseEvery/10, func() { n.handOver(l) })
		return
	}
	after := func(ok bool) {
		switch {
		case l.phase != relinquishing || n.locations[l.at] != l:
		case !ok:
			n.timers.set(n.now+leaseEvery/10, func() { n.handOver(l) })
		default:
			n.handedOver(l, to)
		}
	}
	n.transfer(l, to, slices.Clone(l.order.live()), n.streamsOf(l), func() {}, func(ok bool) {
		if !ok {
			after(false)
			return
		}
		n.request(to, func(op uint64) any {
			return &pb.HandOver{Op: op, Place: l.place.pb(), Set: l.set.pb(),
				Inheritors: idsToBytes(sortedKeys(l.inheritors))}
		}, after)
	})
}

// handedOver lets go of what another has: as a member this node keeps its copies, else it forgets all.
func (n *Node) handedOver(l *location, to NodeID) {
	for _, r := range l.registers {
		r.over = true // its owner asks again where the rendezvous is now
	}
	l.registers, l.matched = nil, nil
	for _, e := range l.order.live() {
		if !e.over() {
			own, hop, id, acked := e.own, e.s.hop, e.id, e.acked
			e.copy, e.acked = true, true
			n.store(e)
			if acked {
				continue
			}
			n.safe(func() { // the other may be destroyed now
				if own != nil {
					n.let(own, n.self)
				} else {
					n.keptFor(hop, id)
				}
			})
		}
	}
	for _, s := range n.streamsOf(l) {
		if s.entries.len() == 0 {
			n.noteHanded(s.epoch, to)
			n.dropStream(s)
		}
	}
	l.phase, l.head = standby, "" // what is kept is offered: the other is to know that it is here
	n.review(l)
	n.settle(l)
}

func (n *Node) receiveHandOver(p *peer, f *pb.HandOver) {
	place, ok := placeOf(f.GetPlace())
	set, fits := setOf(f.GetSet(), place.Location())
	if !ok || !fits {
		n.malformed("HandOver")
		return
	}
	n.learnSet(place, set)
	l := n.locations[place.Location()]
	if l == nil {
		n.refuse(p.id, f.GetOp()) // the other will see who the rendezvous is, and try there
		return
	}
	for _, i := range f.GetInheritors() {
		if id := NodeID(i); id.valid() && id != n.self && l.set.Version > 0 {
			put(&l.inheritors, id, true)
			n.need(id)
		}
	}
	if l.phase == awaiting && l.await == p.id {
		l.since = n.now - LeaseTime // the one before has stopped
		n.succeed(l)
	} else if l.phase == serving {
		n.promote(l)
	} else if l.phase == awaiting && l.expect == 0 { // who is waited for may have handed over to this one meanwhile
		l.expect = n.now + 2*promiseTime
	}
	// Where swarms have met, what it brings is news to the other members.
	for _, m := range l.set.Members {
		if m != n.self && m != p.id && n.inReach(m) {
			n.send(m, n.digest(l, false))
		}
	}
	if l.phase == standby { // the other took this node for the rendezvous: it goes to the one that is
		n.offerCopies(l)
	}
	// The other lets go when this is acknowledged: a second copy comes first.
	n.copyEntries(l, func(e *entry) bool { return !e.copied() }, func() { n.ackSafe(p.id, f.GetOp()) })
	n.settle(l)
}
