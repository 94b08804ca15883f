package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// A location's set changes from one version to the next by agreement of a majority of the members before:
// one round of Paxos for each version (Lamport, "Paxos made simple"), proposed by the rendezvous. Prepare
// binds the members to a ballot; the state goes to the nodes that come in; Accept asks for the set; when a
// majority has accepted it stands, and SetNews tells everybody. No registration is taken while it lasts.

// ballot orders proposals for one version.
type ballot struct {
	round uint64
	node  NodeID
}

func (b ballot) less(c ballot) bool {
	return b.round < c.round || b.round == c.round && b.node < c.node
}

func (b ballot) pb() *pb.Ballot { return &pb.Ballot{Round: b.round, Node: []byte(b.node)} }

func ballotOf(b *pb.Ballot) ballot { return ballot{b.GetRound(), NodeID(b.GetNode())} }

// proposal is what a member has accepted for the next version.
type proposal struct {
	ballot  ballot
	members []NodeID
}

// change is a proposal on its way, at the node that makes it.
type change struct {
	version  uint64
	ballot   ballot
	members  []NodeID
	best     proposal // the latest that a member had accepted before
	promises map[NodeID]bool
	accepts  map[NodeID]bool
	filled   bool // the state has been sent to who comes in
	proposed bool
	deadline time.Duration
}

// target is the set that a location should have by what this node knows: members stay until they leave or
// are dead, others come in when they are closer and can be reached.
func (n *Node) target(l *location) []NodeID {
	return n.closest(l.at, func(p *peer) bool {
		if l.set.has(p.id) {
			return !n.dead(p)
		}
		return p.reach && !p.left && !p.gone
	})
}

// tickChange begins a change where one is due, and gives one up that takes too long.
func (n *Node) tickChange(l *location) {
	if c := l.change; c != nil {
		if n.now >= c.deadline {
			n.abort(l)
		}
		return
	}
	if n.now < l.retry {
		return
	}
	if target := n.target(l); len(target) > 0 && !slices.Equal(target, l.set.Members) {
		n.propose(l, target)
	}
}

func (n *Node) abort(l *location) {
	l.change = nil
	l.retry = n.now + time.Second + time.Duration(n.cfg.Rand.Int64N(int64(time.Second)))
	n.timers.set(l.retry, func() { // one that holds nothing has its turn seldom
		if n.locations[l.at] == l {
			n.watch(l)
		}
	})
	n.settle(l)
}

func (n *Node) propose(l *location, target []NodeID) {
	c := &change{version: l.set.Version + 1, ballot: ballot{l.promised.round + 1, n.self}, members: target,
		promises: map[NodeID]bool{}, accepts: map[NodeID]bool{}, deadline: n.now + changeTime}
	l.change = c
	for _, m := range l.set.Members {
		if m != n.self && n.inReach(m) {
			n.send(m, &pb.Prepare{Place: l.place.pb(), Version: c.version, Ballot: c.ballot.pb()})
		}
	}
	l.promised = c.ballot
	n.saveLocation(l)
	c.best = l.accepted
	n.safe(func() {
		if l.change == c {
			n.promise(l, n.self)
		}
	})
}

// promise counts a member that is bound to this node's ballot.
func (n *Node) promise(l *location, from NodeID) {
	c := l.change
	c.promises[from] = true
	if len(c.promises) < n.majority(l.set) || c.filled {
		return
	}
	c.filled = true
	adopts := c.best.members != nil
	if adopts {
		c.members = c.best.members // somebody's proposal may stand already
	}
	// Such a proposal has to be carried through, whoever of those that are to come in has gone since: else the set could never
	// change again. One that comes back lacks the state: see catchUp.
	lost := func(m NodeID) bool { return adopts && !n.inReach(m) }
	var in gather
	in.n = n
	failed := false
	leaving := n.toBeCopied(l, c.members)
	for _, m := range c.members {
		if m != n.self && !l.set.has(m) && !lost(m) {
			in.left++
			copies := leaving
			leaving = nil
			n.transfer(l, m, copies, nil, func() { c.deadline = n.now + changeTime }, func(ok bool) {
				failed = failed || !ok && !lost(m)
				if ok { // who leaves the set lets go of what it has
					n.copied(copies, m, true)
				}
				in.one()
			})
		}
	}
	if i := slices.IndexFunc(c.members, func(m NodeID) bool { return m != n.self && l.set.has(m) && n.inReach(m) }); i >= 0 && len(leaving) > 0 {
		in.left++ // nobody comes in, who would be given them
		n.copyBatch(l, c.members[i], leaving, in.one)
	}
	in.wait(func() {
		switch {
		case l.change != c || n.locations[l.at] != l:
		case failed:
			n.abort(l)
		default:
			n.accept(l)
		}
	})
}

// toBeCopied returns the messages in custody of which nobody will be known to have a second copy when some nodes are the members.
func (n *Node) toBeCopied(l *location, members []NodeID) (all []*entry) {
	if n.custodyFull(1) {
		return nil
	}
	for _, e := range l.order.live() {
		if !e.gone && !e.copy && e.copied() && (n.dead(e.holder) || !slices.Contains(members, e.holder.id)) {
			all = append(all, e)
		}
	}
	return all
}

// accept asks the members for the proposed set.
func (n *Node) accept(l *location) {
	c := l.change
	c.proposed, c.deadline = true, n.now+changeTime
	for _, m := range l.set.Members {
		if m != n.self && n.inReach(m) {
			n.send(m, &pb.Accept{Place: l.place.pb(), Version: c.version, Ballot: c.ballot.pb(), Members: idsToBytes(c.members)})
		}
	}
	if !l.promised.less(c.ballot) && l.promised != c.ballot {
		n.abort(l)
		return
	}
	l.accepted = proposal{c.ballot, c.members}
	n.saveLocation(l)
	n.safe(func() {
		if l.change == c {
			n.acceptedBy(l, n.self)
		}
	})
}

func (n *Node) acceptedBy(l *location, from NodeID) {
	c := l.change
	c.accepts[from] = true
	if len(c.accepts) < n.majority(l.set) {
		return
	}
	next := Set{c.version, c.members}
	news := &pb.SetNews{Place: l.place.pb(), Set: next.pb(), Rendezvous: []byte(n.self)}
	told := map[NodeID]bool{n.self: true}
	for _, m := range append(slices.Clone(l.set.Members), next.Members...) {
		if !told[m] {
			told[m] = true
			n.send(m, news)
			if !next.has(m) && n.inReach(m) {
				put(&l.inheritors, m, true) // until it has heard that, it serves locations below with what stood when it was a member
			}
		}
	}
	for _, m := range sortedKeys(l.inheritors) {
		if !told[m] {
			n.send(m, news)
		}
	}
	n.adopt(l, next)
}

func (n *Node) receivePrepare(p *peer, f *pb.Prepare) {
	place, ok := placeOf(f.GetPlace())
	l := n.locations[place.Location()]
	b := ballotOf(f.GetBallot())
	if !ok || b.node != p.id {
		n.malformed("Prepare")
		return
	}
	answer := &pb.Promise{Place: f.GetPlace(), Version: f.GetVersion(), Ballot: f.GetBallot()}
	if set := n.setOf(place); l == nil && set.Version > 0 && set.Version+1 == f.GetVersion() {
		l = n.memberOf(p, place, set.pb()) // what held nothing was forgotten here; without this member it might never change
	}
	switch {
	case l == nil:
		if set := n.setOf(place); set.Version > 0 {
			answer.Set = set.pb()
		}
	case l.phase == founding || l.phase == filling:
	case l.set.Version+1 != f.GetVersion():
		answer.Set = l.set.pb()
	case b.less(l.promised):
		answer.Promised = l.promised.pb()
	default:
		l.promised = b
		n.saveLocation(l)
		answer.Ok = true
		if l.accepted.members != nil {
			answer.Accepted, answer.AcceptedMembers = l.accepted.ballot.pb(), idsToBytes(l.accepted.members)
		}
	}
	n.safe(func() { n.send(p.id, answer) }) // what it says is never taken back
}

func (n *Node) receivePromise(p *peer, f *pb.Promise) {
	place, ok := placeOf(f.GetPlace())
	l := n.locations[place.Location()]
	if !ok || l == nil || l.change == nil {
		return
	}
	c := l.change
	switch set, ok := setOf(f.GetSet(), l.at); {
	case ok && set.beats(l.set, l.at):
		n.learnSet(place, set)
		return
	case ok && l.set.beats(set, l.at): // a member that crashed may have missed it, or made one of its own
		n.send(p.id, &pb.SetNews{Place: f.GetPlace(), Set: l.set.pb()})
		return
	}
	if f.GetVersion() != c.version || ballotOf(f.GetBallot()) != c.ballot || !l.set.has(p.id) {
		return
	}
	if !f.GetOk() {
		if promised := ballotOf(f.GetPromised()); c.ballot.less(promised) {
			l.promised = promised // so that the next attempt goes beyond it
			n.abort(l)
		}
		return
	}
	if b := ballotOf(f.GetAccepted()); f.GetAccepted() != nil && c.best.ballot.less(b) {
		if members, ok := idsOf(f.GetAcceptedMembers(), l.at); ok {
			c.best = proposal{b, members}
		}
	}
	n.promise(l, p.id)
}

func (n *Node) receiveAccept(p *peer, f *pb.Accept) {
	place, ok := placeOf(f.GetPlace())
	l := n.locations[place.Location()]
	b := ballotOf(f.GetBallot())
	if !ok || b.node != p.id {
		n.malformed("Accept")
		return
	}
	answer := &pb.Accepted{Place: f.GetPlace(), Version: f.GetVersion(), Ballot: f.GetBallot()}
	members, fits := idsOf(f.GetMembers(), place.Location())
	if l != nil && fits && l.phase != founding && l.phase != filling &&
		l.set.Version+1 == f.GetVersion() && !b.less(l.promised) {
		l.promised, l.accepted = b, proposal{b, members}
		n.saveLocation(l)
		answer.Ok = true
	}
	n.safe(func() { n.send(p.id, answer) }) // what it says is never taken back
}

func (n *Node) receiveAccepted(p *peer, f *pb.Accepted) {
	place, ok := placeOf(f.GetPlace())
	l := n.locations[place.Location()]
	if !ok || l == nil || l.change == nil {
		return
	}
	c := l.change
	if !f.GetOk() || !c.proposed || f.GetVersion() != c.version || ballotOf(f.GetBallot()) != c.ballot || !l.set.has(p.id) {
		return
	}
	n.acceptedBy(l, p.id)
}

// receiveSetNews takes over a set that stands.
func (n *Node) receiveSetNews(p *peer, f *pb.SetNews) {
	place, ok := placeOf(f.GetPlace())
	at := place.Location()
	set, fits := setOf(f.GetSet(), at)
	if !ok || !fits {
		n.malformed("SetNews")
		return
	}
	if i := n.inherited[at]; i != nil {
		n.inheritBy(i, set)
	}
	if l := n.locations[at]; l != nil {
		same := set.equal(l.set)
		if NodeID(f.GetRendezvous()) == p.id && (set.beats(l.set, at) || l.phase == awaiting && same) {
			l.await, l.expect = p.id, 0
		}
		guess := l.phase == standby && l.founder == p.id && n.now < l.offered && set.Version == l.set.Version && !same
		if same || guess {
			l.offered = 0
		}
		if guess { // what it had offered
			n.adopt(l, set)
			return
		}
	}
	if known := n.setOf(place); len(f.GetRendezvous()) > 0 && known.Version > 0 && known.beats(set, at) {
		n.send(p.id, &pb.SetNews{Place: f.GetPlace(), Set: known.pb()})
	}
	n.learnSet(place, set)
}
