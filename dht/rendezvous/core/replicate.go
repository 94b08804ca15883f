package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// receiveReplicate takes over registrations from another member, or from one of a place above.
func (n *Node) receiveReplicate(p *peer, f *pb.Replicate) {
	place, ok := placeOf(f.GetPlace())
	at := place.Location()
	set, fits := setOf(f.GetSet(), at)
	if !ok || !fits {
		n.malformed("Replicate")
		return
	}
	l := n.locations[at]
	if l == nil {
		if !set.has(n.self) {
			if i := n.inherited[at]; i != nil {
				n.pushed(i, p, set, f)
				return
			}
			n.ack(p.id, f.GetOp()) // nothing here depends on it
			return
		}
		if l = n.memberOf(p, place, f.GetSet()); l == nil {
			n.refuse(p.id, f.GetOp())
			return
		}
	}
	if l.set.beats(set, at) && !f.GetSync() {
		n.send(p.id, &pb.SetNews{Place: f.GetPlace(), Set: l.set.pb()})
	}
	if n.learnSet(place, set); n.locations[at] != l { // this node is no member any more
		n.receiveReplicate(p, f)
		return
	}
	concerned := &gather{n: n}
	asked := map[NodeID]bool{n.self: true, p.id: true}
	for _, m := range f.GetTold() {
		asked[NodeID(m)] = true
	}
	for _, r := range f.GetRegistrations() {
		if f.GetSync() {
			n.applySync(l, r)
			continue
		}
		v, added := n.apply(l, r)
		if v == unknown {
			// This member missed something: what the other has brings it level.
			if l.phase >= standby {
				n.send(p.id, n.digest(l, false))
			}
			n.ackWith(place, r, p.id, f.GetOp())
			return
		}
		n.inform(l, r, asked, len(added) > 0 || r.GetPart() > 0, false, concerned)
		n.resume(l.place, NodeID(r.GetOwner()), added) // at locations below
	}
	for _, c := range f.GetChildren() {
		if child, ok := placeOf(c); ok {
			n.addChild(l, child)
		}
	}
	lasting := len(f.GetChildren()) > 0
	for _, r := range f.GetRegistrations() {
		lasting = lasting || lasts(r)
	}
	if lasting { // it stands when it is on the disk
		concerned.left++
		n.safe(concerned.one)
	}
	concerned.wait(func() { n.ack(p.id, f.GetOp()) })
}

// lacking is an acknowledgement that waits for what came before the registration that it is for.
type lacking struct {
	place Place
	owner NodeID
	seq   uint64
	to    NodeID
	op    uint64
	at    time.Duration
}

// maxLacking bounds the acknowledgements that wait. Beyond it the asker is refused.
const maxLacking = 10_000

// ackWith acknowledges a registration when a table has come to it.
func (n *Node) ackWith(place Place, r *pb.Registration, to NodeID, op uint64) {
	if len(n.lacking) < maxLacking {
		n.lacking = append(n.lacking, lacking{place, NodeID(r.GetOwner()), r.GetSeq(), to, op, n.now})
		return
	}
	n.refuse(to, op)
}

// ackLacking acknowledges what a table has come to.
func (n *Node) ackLacking(place Place, t *table) {
	n.lacking = slices.DeleteFunc(n.lacking, func(k lacking) bool {
		r := t.owners[k.owner]
		if n.now-k.at > opTime { // nobody waits for it any more
			return true
		}
		if k.place != place || r == nil || r.seq < k.seq {
			return false
		}
		n.ackSafe(k.to, k.op)
		return true
	})
}

// memberOf returns a location that this node is a member of by a set that another member, p, knows, also where it
// has forgotten it because nothing was there. Where this node knows of a later set that it is not in, p is told: nodes
// that go by different sets would have it come and go for ever.
func (n *Node) memberOf(p *peer, place Place, s *pb.Set) *location {
	at := place.Location()
	if l := n.locations[at]; l != nil {
		l.touched = n.now
		return l
	}
	set, ok := setOf(s, at)
	if !ok || !set.has(n.self) {
		return nil
	}
	if r := n.routes[place]; r != nil && r.set.beats(set, at) && !r.set.has(n.self) {
		n.send(p.id, &pb.SetNews{Place: place.pb(), Set: r.set.pb()})
		return nil
	}
	l := n.newLocation(place, at)
	if l == nil {
		return nil
	}
	l.phase, l.set, l.blank = standby, set, map[NodeID]bool{}
	n.learnRoute(place, set)
	n.review(l)
	n.changed = true // catchUp follows with the next tick: not at once, lest members that disagree keep each other busy
	return l
}

// applySync takes over a registration that this node had missed: it was made at other members. What is not
// settled is matched against it.
func (n *Node) applySync(l *location, r *pb.Registration) {
	v, added := n.apply(l, r)
	n.ackLacking(l.place, &l.table)
	if v != applied && v != partly {
		return
	}
	asked := map[NodeID]bool{n.self: true} // members compare what they have among themselves
	for _, m := range l.set.Members {
		asked[m] = true
	}
	n.inform(l, r, asked, len(added) > 0, true, &gather{n: n})
	if len(added) > 0 {
		if missed(r) && !n.inheritedAs(l.at, r) {
			n.matchMissed(l.place, NodeID(r.GetOwner()), added)
		}
		n.resume(l.place, NodeID(r.GetOwner()), added)
	}
}

// exchangeDigests compares registrations with a member that has come back into reach.
func (n *Node) exchangeDigests(p *peer) {
	for _, l := range n.sortedLocations() {
		if l.phase >= standby && l.set.has(p.id) && l.set.has(n.self) {
			n.need(p.id)
			n.send(p.id, n.digest(l, false))
		}
	}
}

func (n *Node) digest(l *location, answer bool) *pb.Digest {
	return &pb.Digest{Place: l.place.pb(), Set: l.set.pb(), Have: l.have(), Answer: answer, Retained: n.retainedSum(l),
		Children: n.childrenSum(l)}
}

func (n *Node) receiveDigest(p *peer, f *pb.Digest) {
	place, ok := placeOf(f.GetPlace())
	at := place.Location()
	set, fits := setOf(f.GetSet(), at)
	if !ok || !fits {
		n.malformed("Digest")
		return
	}
	n.learnSet(place, set)
	l := n.locations[at]
	if l == nil && (p.left || len(f.GetHave()) > 0 || f.GetRetained() != 0 || f.GetChildren() != 0) {
		l = n.memberOf(p, place, f.GetSet()) // it was away when something came there for the first time, or has to let a member go
	}
	switch {
	case l != nil && l.phase < standby:
		return
	case l == nil || !l.set.has(p.id): // it missed that it is no member any more
		switch known := n.setOf(place); {
		case known.beats(set, at):
			n.send(p.id, &pb.SetNews{Place: f.GetPlace(), Set: known.pb()})
		case l == nil && set.has(n.self) && !f.GetAnswer(): // nothing is here
			n.send(p.id, &pb.Digest{Place: f.GetPlace(), Set: f.GetSet(), Answer: true})
		}
		return
	}
	missing, sent := n.missingAt(l, f.GetHave(), p.id)
	for _, m := range missing {
		n.request(p.id, func(op uint64) any {
			return &pb.Replicate{Op: op, Place: f.GetPlace(), Set: l.set.pb(), Registrations: m, Sync: true}
		}, func(bool) {})
	}
	sent()
	if f.GetRetained() != n.retainedSum(l) {
		n.sendRetained(l, p.id)
	}
	if f.GetChildren() != n.childrenSum(l) {
		n.sendChildren(l, p.id)
	}
	if !f.GetAnswer() {
		n.send(p.id, n.digest(l, true))
		return
	}
	if l.blank != nil {
		l.blank[p.id] = true
		n.catchUp(l)
	}
	n.settledBy(l, p.id)
}
