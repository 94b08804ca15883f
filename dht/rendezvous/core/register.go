package core

import (
	"maps"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// registering is one registration on its way to being a promise, at the rendezvous.
type registering struct {
	owner    NodeID
	seq      uint64
	base     uint64          // it adds to what stood under that number; 0: it is the whole
	asker    NodeID          // where the answer goes
	told     []NodeID        // members that are asked by this node, and so by no other; this node is one
	took     map[NodeID]bool // of the others, who has it
	members  int             // questions to members that have not been answered
	concerns gather          // everybody else who must know before it is a promise
	until    time.Duration
	deadline time.Duration
	over     bool
}

func (n *Node) receiveRegister(p *peer, f *pb.Register) {
	place, ok := placeOf(f.GetPlace())
	owner := NodeID(f.GetRegistration().GetOwner())
	if !ok || !owner.valid() || f.GetHops() == 0 && owner != p.id || f.GetHops() > proto.MaxHops || place.Depth > 1 {
		n.malformed("Register")
		return
	}
	if !n.room(place) { // it is asked for again when it is refreshed
		if !f.GetRegistration().GetMore() {
			n.send(p.id, &pb.RegisterAck{Place: f.GetPlace(), Owner: f.GetRegistration().GetOwner(), Seq: f.GetRegistration().GetSeq(), Full: true})
		}
		return
	}
	n.register(place, f.GetRegistration(), p.id, f.GetHops())
}

// register takes a registration to where it stands: here, or at the rendezvous.
func (n *Node) register(place Place, r *pb.Registration, from NodeID, hops uint32) {
	at := place.Location()
	l := n.locate(place, at)
	again := func() { n.register(place, r, from, hops) }
	switch {
	case l == nil:
		n.passRegister(place, n.route(place).hop, r, from, hops)
	case l.undecided() || l.phase == serving && l.change != nil:
		l.calls = append(l.calls, again)
	case l.phase == serving:
		n.registerHere(l, r, from)
	case l.phase == filling:
		n.passRegister(place, l.filler, r, from, hops)
	default:
		n.passRegister(place, n.rendezvous(l.set), r, from, hops)
	}
}

func (n *Node) passRegister(place Place, to NodeID, r *pb.Registration, from NodeID, hops uint32) {
	if to == "" || to == n.self || hops >= proto.MaxHops {
		return // its owner asks again
	}
	n.need(to)
	n.send(to, &pb.Register{Place: place.pb(), Registration: r, Hops: hops + 1})
	if from != n.self && hops == 0 {
		if set := n.setOf(place); set.Version > 0 {
			n.send(from, &pb.SetNews{Place: place.pb(), Set: set.pb()})
		}
	}
}

// registerHere applies a registration at its rendezvous, and answers when it is a promise.
func (n *Node) registerHere(l *location, r *pb.Registration, from NodeID) {
	owner := NodeID(r.GetOwner())
	v, added := n.apply(l, r)
	if v == applied && owner != n.self {
		n.meet(owner)
	}
	switch v {
	case refused:
		n.malformed("registerHere")
		return
	case unknown:
		if !r.GetMore() { // else the last part is answered
			n.answerRegister(l, owner, r.GetSeq(), from, false, true)
		}
		return
	case partly:
		if missed(r) {
			n.matchMissed(l.place, owner, added)
		}
		n.resume(l.place, owner, added)
		n.pass(l, r) // the last part is coordinated
		return
	case known:
		if r.GetBase() == r.GetSeq() {
			n.pass(l, r)
		}
		waits := slices.ContainsFunc(l.registers, func(g *registering) bool { return g.owner == owner })
		if asks := r.GetBase() == r.GetSeq(); !waits && (asks || missed(r)) {
			n.answerRegister(l, owner, r.GetSeq(), from, !n.majorityInReach(l.set) || !n.inReach(owner), false)
			return
		}
		// An earlier one is on its way, and this one becomes a promise with it; or it is known from a rendezvous that has not promised it.
	}
	if l.owners[owner].full {
		n.stats.RegistrationsFull++
	}
	if missed(r) {
		n.matchMissed(l.place, owner, added)
	}
	n.resume(l.place, owner, added)
	n.coordinate(l, r, from, len(added) > 0 || r.GetPart() > 0)
}

// lasts reports whether a registration has to stand after a restart: there are sessions behind it that do.
func lasts(r *pb.Registration) bool {
	return slices.ContainsFunc(r.GetInterests(), func(i *pb.Interest) bool { return i.GetHoldS() > 0 })
}

// missed reports whether a registration stood already, elsewhere: what is not settled is matched against it.
func missed(r *pb.Registration) bool { return r.GetSeq() == r.GetStood() }

// pass lets the others who keep a registration have a part of it, or know that it still stands. Nobody waits for
// that.
func (n *Node) pass(l *location, r *pb.Registration) {
	f := &pb.Replicate{Place: l.place.pb(), Set: l.set.pb(), Registrations: []*pb.Registration{r}, Sync: r.GetBase() == 0 && missed(r)}
	for _, m := range l.set.Members {
		if m != n.self && n.inReach(m) {
			n.send(m, f)
		}
	}
	for _, i := range sortedKeys(l.inheritors) {
		if !l.set.has(i) && n.inReach(i) {
			n.send(i, f)
		}
	}
}

func (n *Node) majorityInReach(s Set) bool { return n.majorityOf(s, n.inReach) }

// majorityOf reports whether something holds for a majority of a set.
func (n *Node) majorityOf(s Set, holds func(NodeID) bool) bool {
	in := 0
	for _, m := range s.Members {
		if holds(m) {
			in++
		}
	}
	return in >= n.majority(s)
}

// coordinate has a registration taken over by the other members and told to everybody whom it concerns.
func (n *Node) coordinate(l *location, r *pb.Registration, from NodeID, wakes bool) {
	g := &registering{owner: NodeID(r.GetOwner()), seq: r.GetSeq(), base: r.GetBase(), asker: from, deadline: n.now + promiseTime}
	g.concerns.n = n
	if l.since+LeaseTime > n.now {
		g.until = l.since + LeaseTime
	}
	l.registers = append(l.registers, g)
	asked := map[NodeID]bool{}
	for _, m := range l.set.Members {
		asked[m] = true
		if n.need(m); n.inReach(m) {
			g.told = append(g.told, m)
		} else if p := n.peers[m]; p != nil && !p.left && !p.gone {
			g.until = max(g.until, p.lease.granted)
		}
	}
	n.replicate(l, g, r)
	n.inform(l, r, asked, wakes, missed(r), &g.concerns)
	if lasts(r) {
		g.concerns.left++
		n.safe(g.concerns.one)
	}
	g.concerns.wait(func() { n.tryPromise(l, g) })
	n.tryPromise(l, g)
}

// missingAt returns the registrations at a location that a node which has others lacks, as they fit into frames, and what is to be called when they
// have been sent. Where it lacks of a registration that is not promised yet no more than that adds, it is told so: it has missed
// nothing, and the promise waits for it.
func (n *Node) missingAt(l *location, have []*pb.Seq, to NodeID) (parts [][]*pb.Registration, sent func()) {
	var waiting []*registering
	parts = l.missing(have, func(owner NodeID, has uint64) bool {
		of := slices.DeleteFunc(slices.Clone(l.registers), func(g *registering) bool { return g.owner != owner || g.over })
		fresh := len(of) > 0 && of[0].base > 0 && has >= of[0].base
		if fresh {
			waiting = append(waiting, of...)
		}
		return fresh
	})
	return parts, func() {
		for _, g := range waiting {
			g.concerns.ask(to, func(op uint64) any {
				still := &pb.Registration{Owner: []byte(g.owner), Seq: g.seq, Base: g.seq}
				return &pb.Replicate{Op: op, Place: l.place.pb(), Set: l.set.pb(), Registrations: []*pb.Registration{still}, Told: idsToBytes(l.set.Members)}
			})
			g.concerns.wait(func() { n.tryPromise(l, g) })
		}
	}
}

// replicate has the other members take a registration over that are still to be told, or asks them once more.
func (n *Node) replicate(l *location, g *registering, r *pb.Registration) {
	told := idsToBytes(g.told)
	for _, m := range g.told {
		if m == n.self {
			continue
		}
		g.members++
		n.request(m, func(op uint64) any {
			return &pb.Replicate{Op: op, Place: l.place.pb(), Set: l.set.pb(), Registrations: []*pb.Registration{r}, Told: told,
				Sync: missed(r)}
		}, func(ok bool) {
			g.members--
			switch p := n.peers[m]; {
			case ok:
				put(&g.took, m, true)
			case slices.Contains(g.told, m):
				g.told = slices.DeleteFunc(slices.Clone(g.told), func(o NodeID) bool { return o == m })
				if p != nil && !p.left && !p.gone {
					g.until = max(g.until, p.lease.granted)
				}
				if !g.over {
					n.replicate(l, g, r) // the others took it for told, and may reach it, or have to wait for it
				}
			}
			n.tryPromise(l, g)
		})
	}
}

// inform tells those whom a registration concerns, beside the members: who inherits it, and who was told
// that nobody is interested. One that was missed is no new one: what is not settled is matched against it.
func (n *Node) inform(l *location, r *pb.Registration, asked map[NodeID]bool, wakes, sync bool, g *gather) {
	all := map[NodeID]bool{}
	maps.Copy(all, l.inheritors)
	for _, m := range l.set.Members {
		all[m] = true // one that the rendezvous does not reach may still serve locations below
	}
	for _, i := range sortedKeys(all) {
		if asked[i] {
			continue
		}
		if p := n.peers[i]; p == nil || p.gone || !p.reach && (p.left || p.lease.granted <= n.now) {
			delete(l.inheritors, i)
			continue
		}
		g.ask(i, func(op uint64) any {
			return &pb.Replicate{Op: op, Place: l.place.pb(), Set: l.set.pb(), Registrations: []*pb.Registration{r},
				Told: idsToBytes(l.set.Members), Sync: sync}
		})
	}
	if wakes {
		n.wakeBelow(l.place, g)
	}
}

// tryPromise answers a registration for which nothing is left to wait for.
func (n *Node) tryPromise(l *location, g *registering) {
	waits := g.members > 0 || g.concerns.left > 0
	majority := 1+len(g.took) >= n.majority(l.set)
	reach := n.inReach(g.owner) // else nothing can be delivered: it is being connected to, or cannot be
	switch {
	case g.over || n.locations[l.at] != l:
		return
	case !waits && !majority: // known already: a majority cannot be reached
	case !waits && n.now >= g.until && (reach || n.now >= g.deadline):
	case !majority && n.now >= g.deadline:
	default:
		return
	}
	g.over = true
	l.registers = slices.DeleteFunc(l.registers, func(o *registering) bool { return o == g })
	local := !majority || !reach
	if local {
		n.stats.PromisesLocal++
	}
	n.answerRegister(l, g.owner, g.seq, g.asker, local, false)
}

func (n *Node) tickRegisters(l *location) {
	for _, g := range slices.Clone(l.registers) {
		n.tryPromise(l, g)
	}
}

// answerRegister tells the owner, by way of who passed its registration on where there is no other.
func (n *Node) answerRegister(l *location, owner NodeID, seq uint64, asker NodeID, local, resend bool) {
	a := &pb.RegisterAck{Place: l.place.pb(), Owner: []byte(owner), Seq: seq, Set: l.set.pb(), Local: local, Resend: resend}
	if o := l.owners[owner]; o != nil {
		a.Full = o.full
	}
	if owner == n.self {
		n.registerAnswered(l.place, a)
		return
	}
	if p := n.peers[owner]; p == nil || !p.up {
		n.send(asker, a) // it passes the answer on
		return
	}
	n.send(owner, a)
}

// wake has everybody woken who was told that nobody is interested in a location.
func (n *Node) wake(l *location, g *gather) {
	for _, t := range sortedKeys(l.told) {
		if t == n.self {
			n.awake()
			continue
		}
		g.ask(t, func(op uint64) any { return &pb.Wake{Op: op, Places: []*pb.Place{l.place.pb()}} })
	}
	clear(l.told)
	delete(n.quiet, l.at)
}

// wakeBelow wakes those who were told so of a place, or of any place below it, by this node.
func (n *Node) wakeBelow(place Place, g *gather) {
	if l := n.locations[place.Location()]; l != nil {
		n.wake(l, g)
	}
	if place.Depth > 1 {
		return
	}
	var below []*location
	for _, l := range n.quiet {
		if l.isBelow(place) {
			below = append(below, l)
		}
	}
	slices.SortFunc(below, func(a, b *location) int { return cmpLocation(a.at, b.at) })
	for _, l := range below {
		n.wake(l, g)
	}
}
