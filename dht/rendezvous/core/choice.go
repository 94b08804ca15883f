package core

import (
	"slices"
	"sync"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// At QoS 2 a shared subscription's message stays with its choice [MQTT-4.8.2-4], whichever nodes take themselves for its rendezvous, one
// after another or at the same time. So a choice outlives its rendezvous: it is at another member before the message goes out, or
// on this node's disk where there is none. And the first choice stands: a rendezvous to which a message comes that others had before asks
// them, as far as it reaches them, and who is given a copy of another choice than it knows says so.

// chosen reports whether a message goes out only when its choice is safe. What comes behind such a message waits in the same way, and so
// stays behind it.
func (n *Node) chosen(e *entry) bool {
	return e.m.QoS == 2 && e.left > 0 && len(n.ordered) > 0 && (len(e.l.choosing) > 0 || slices.ContainsFunc(e.shares, share.grouped))
}

func (s share) grouped() bool { return len(s.groups) > 0 }

// choosing is a message on its way to a choice that is safe. It goes out when those before it do.
type choosing struct {
	done func() // nil: not yet
}

// choose calls done when the choices for a message are safe, and the first as far as anybody in reach knows. What may have been at others
// before is asked for there, and at the members. One that nobody else knows, not even who sent the message, is given up: another
// rendezvous is being sent the message, or will be.
func (n *Node) choose(e *entry, asks bool, except NodeID, done func()) {
	e.choosing++
	e.passed = false
	l, c, knows := e.l, new(choosing), func() bool { return true }
	l.choosing = append(l.choosing, c)
	out := func() {
		c.done = func() {
			e.choosing--
			if !e.gone && !e.copy && len(e.choices()) > 0 && (e.passed || !knows() || !n.safelyChosen(e)) {
				n.holdBack(e, except)
			}
			done()
		}
		for len(l.choosing) > 0 && l.choosing[0].done != nil { // in their order
			first := l.choosing[0]
			l.choosing = l.choosing[1:]
			first.done()
		}
	}
	keep := func() {
		if n.copyHolder(e.l) != "" {
			n.copyEntries(e.l, func(o *entry) bool { return o == e }, func() { n.noteChoice(e, out) })
			return
		}
		if !e.gone && !e.copy {
			e.written = true
			n.store(e)
		}
		n.safe(func() { n.noteChoice(e, out) })
	}
	groups := groupsToPB(e.shares)
	if !asks || len(groups) == 0 {
		keep()
		return
	}
	g := &gather{n: n, heard: map[NodeID]bool{n.self: true}}
	asked := map[NodeID]bool{n.self: true}
	for _, b := range append(slices.Clone(e.copies), e.l.set.Members...) {
		if !asked[b] && n.inReach(b) {
			asked[b] = true
			g.ask(b, func(op uint64) any { return &pb.Chosen{Op: op, Epoch: e.id.Epoch, Seq: e.id.Seq, Groups: groups} })
		}
	}
	knows = func() bool { // who was given a copy has said what it knows
		return n.knowsChoices(e, func(id NodeID) bool { return g.heard[id] || e.holder != nil && e.holder.id == id })
	}
	once := sync.OnceFunc(keep)
	g.wait(once)
	n.timers.set(n.now+2*LeaseTime, once) // one that does not know the question gives no answer
}

// noteChoice has who sent a message remember the choices for it, where no other member does: should this node be lost sight of, that says so
// to the rendezvous that it sends the message to next. It calls done in any case.
func (n *Node) noteChoice(e *entry, done func()) {
	choices := e.choices()
	e.noted = false
	if e.gone || e.copy || e.copied() || e.own != nil || len(choices) == 0 || len(choices) > proto.MaxChosen {
		done()
		return
	}
	f := &pb.Chosen{Epoch: e.id.Epoch, Seq: e.id.Seq}
	for _, c := range choices {
		f.Choices = append(f.Choices, &pb.Choice{Group: &pb.Group{Name: c.Group.Name, Filter: c.Group.Filter}, Node: []byte(c.Node),
			HoldS: uint32(c.Hold / time.Second), Turn: c.Turn}) //nolint:gosec // bounded by MaxHold
	}
	once := sync.OnceFunc(done)
	n.request(e.s.hop, func(op uint64) any { f.Op = op; return f }, func(ok bool) {
		e.noted = ok
		once()
	})
	n.timers.set(n.now+2*LeaseTime, once) // one that does not know of that gives no answer
}

// safelyChosen reports whether the choices for a message are known to another member, or to who sends it to another rendezvous, if anybody
// does.
func (n *Node) safelyChosen(e *entry) bool {
	return e.copied() || e.noted || e.own != nil && e.own.via == n.self
}

// choices returns whom a message is for of shared subscriptions.
func (e *entry) choices() (all []proto.Choice) {
	for i := range e.shares {
		s := &e.shares[i]
		for _, g := range s.groups {
			if g.Name != sessionGroup && s.turn == e.turn(g) {
				all = append(all, proto.Choice{Group: g, Node: string(s.node), Hold: s.hold, Turn: s.turn})
			}
		}
	}
	return all
}

// chosenFor returns whom a message that goes to another node is for of shared subscriptions, as far as this one knows: by itself, if it has
// been its rendezvous, and by what it was told.
func (n *Node) chosenFor(m *proto.Message, id Identity, told []proto.Choice) []proto.Choice {
	if m.QoS < 2 {
		return nil
	}
	e := n.entryOf(id)
	if e == nil || e.choosing > 0 {
		return told
	}
	all := e.choices()
	for _, c := range told {
		if !slices.ContainsFunc(all, func(a proto.Choice) bool { return a.Group == c.Group }) {
			all = append(all, c)
		}
	}
	return all[:min(len(all), proto.MaxChosen)]
}

// takeChosen has a message be for those who have been chosen for it before.
func (n *Node) takeChosen(e *entry, chosen []proto.Choice) {
	if len(chosen) == 0 {
		return
	}
	for _, c := range chosen {
		to := NodeID(c.Node)
		if c.Group.Name == sessionGroup || !to.valid() || to != n.self && n.peers[to] == nil || !topic.Match(c.Group.Filter, e.m.Topic) {
			continue
		}
		n.drain(e, "", c.Group)
		i := slices.IndexFunc(e.shares, func(s share) bool { return s.node == to && s.turn == c.Turn })
		if i < 0 {
			i = len(e.shares)
			e.shares = append(e.shares, share{node: to, hold: c.Hold, turn: c.Turn})
		}
		e.shares[i].groups = append(slices.Clip(e.shares[i].groups), c.Group)
	}
	e.shares = slices.DeleteFunc(e.shares, func(s share) bool { return !s.plain && len(s.groups) == 0 })
}

// leaveOpen has whoever is given a message choose for it: the choices here are not safe, and do not go out.
func leaveOpen(c *pb.Custody) {
	for _, s := range c.Shares {
		s.Groups = slices.DeleteFunc(slices.Clone(s.Groups), func(g *pb.Group) bool { return g.GetName() != sessionGroup })
	}
	c.Shares = slices.DeleteFunc(c.Shares, func(s *pb.Custody_Share) bool { return !s.GetPlain() && len(s.GetGroups()) == 0 })
	c.Unsettled = true
}

// mayChoose reports whether whoever may have chosen for a message can be asked: a choice is at two members at least, where two could
// be reached.
func (n *Node) mayChoose(e *entry) bool {
	return e.m.QoS < 2 || n.knowsChoices(e, n.inReach)
}

// knowsChoices reports whether this node knows of the choices for a message what there is to be known, where it has heard some nodes.
func (n *Node) knowsChoices(e *entry, heard func(NodeID) bool) bool {
	return n.majorityOf(e.l.set, heard) || !slices.ContainsFunc(e.copies, func(h NodeID) bool { return !heard(h) && !n.destroyed(h) })
}

// decided reports whether it is known whom a message is for. Else who has a copy may know of a choice that was taken back here, or that
// another rendezvous has made for a group which is not known here yet.
func (e *entry) decided() bool { return e.choosing == 0 && e.unset == nil }

// hold takes shared groups out of those that a message is for, and reports whether there were any.
func hold(groups []proto.Group) (rest []proto.Group, held bool) {
	for _, g := range groups {
		if g.Name == sessionGroup {
			rest = append(rest, g)
		} else {
			held = true
		}
	}
	return rest, held
}

// holdBack takes back what has not gone out of the choices for a message, until more is known.
func (n *Node) holdBack(e *entry, except NodeID) {
	for i := range e.shares {
		if s := &e.shares[i]; !s.done && !s.sent {
			s.groups, _ = hold(s.groups)
		}
	}
	if e.unset == nil {
		n.unsettle(e.l, e, except)
	}
	e.unset.held = true
	n.shareDrained(e, "")
}

// chooseLate gives what is not settled to members of groups that nobody is known to be chosen for.
func (n *Node) chooseLate(u *unsettled) {
	u.held = false
	n.chooseAgain(u.e, true, u.except, func() {
		dests := n.match(u.e.l, n.ancestors(u.e.l), u.e.m, u.e.id, u.except)
		u.held = n.leftOut(u.e)
		for _, d := range dests {
			s := share{node: d.node, hold: d.hold}
			for _, g := range d.groups {
				if !u.e.servedGroup(g) {
					s.groups = append(s.groups, g)
				}
			}
			n.addShare(u.e, s)
		}
	})
}

// chooseAgain has shares added to a message that has gone out already. They go out when they are safe.
func (n *Node) chooseAgain(e *entry, asks bool, except NodeID, add func()) {
	e.choosing++ // nothing goes out yet
	add()
	n.choose(e, asks, except, func() {
		for i := range e.shares {
			if s := &e.shares[i]; !e.gone && !s.sent && e.choosing == 0 {
				n.deliver(e, s)
			}
		}
		n.finish(e)
	})
	e.choosing--
}

// noteChosen has a message that is over remembered as one that was somebody's: nobody else is to get it.
func (e *entry) noteChosen() {
	if e.m.QoS < 2 {
		return
	}
	for _, c := range e.choices() {
		if e.s.chosen[c.Group] == nil {
			put(&e.s.chosen, c.Group, new(spans))
		}
		e.s.chosen[c.Group].add(e.id.Seq)
	}
}

// chose reports whether a message was somebody's, of a shared subscription, and is over here.
func (s *stream) chose(g proto.Group, seq uint64) bool {
	all := s.chosen[g]
	return all != nil && all.has(seq)
}

func groupsToPB(shares []share) (all []*pb.Group) {
	for _, s := range shares {
		for _, g := range s.groups {
			if g.Name == sessionGroup { // a session is where it is
				continue
			}
			all = append(all, &pb.Group{Name: g.Name, Filter: g.Filter})
		}
	}
	return all
}

// receiveChosen tells who was chosen here, or takes note of who was chosen there.
func (n *Node) receiveChosen(p *peer, f *pb.Chosen) {
	id := Identity{f.GetEpoch(), f.GetSeq()}
	if len(f.GetChoices()) > 0 {
		n.takeNote(p, id, f)
		return
	}
	for _, g := range f.GetGroups() {
		if g, ok := groupOf(g); ok {
			n.tellChoice(id, g, 0, "", p.id)
		} else {
			n.malformed("Chosen")
		}
	}
	n.ackSafe(p.id, f.GetOp())
}

// takeNote takes note of whom a rendezvous has chosen for a message of this node, if it is still for that to choose.
func (n *Node) takeNote(p *peer, id Identity, f *pb.Chosen) {
	e := n.pending(id)
	if e == nil || e.via != p.id {
		n.refuse(p.id, f.GetOp())
		return
	}
	for _, c := range f.GetChoices() {
		g, ok := groupOf(c.GetGroup())
		if !ok || !NodeID(c.GetNode()).valid() || len(f.GetChoices()) > proto.MaxChosen {
			n.malformed("Chosen")
			n.refuse(p.id, f.GetOp())
			return
		}
		e.chosen = slices.DeleteFunc(e.chosen, func(have proto.Choice) bool { return have.Group == g })
		e.chosen = append(e.chosen, proto.Choice{Group: g, Node: string(c.GetNode()), Hold: holdOf(c.GetHoldS()), Turn: c.GetTurn()})
	}
	n.ack(p.id, f.GetOp())
}

// tellChoice tells a node that has chosen for a message that another is chosen already, if this node knows that: one with no earlier turn,
// or one that is through with it.
func (n *Node) tellChoice(id Identity, g proto.Group, turn uint32, chosen, to NodeID) {
	s := n.streams[id.Epoch]
	if s == nil {
		return
	}
	known := share{node: n.self, groups: []proto.Group{g}, done: true}
	e := s.entries.get(id.Seq)
	switch {
	case e != nil && e.choosing > 0:
		return
	case e != nil && !e.gone:
		i := slices.IndexFunc(e.shares, func(s share) bool { return slices.Contains(s.groups, g) && s.turn == e.turn(g) })
		if i < 0 || e.shares[i].turn < turn || e.shares[i].node == chosen {
			return
		}
		known = e.shares[i]
	case id.Seq > s.low && !s.chose(g, id.Seq):
		return
	}
	known.turn = max(known.turn, turn) + 1
	n.send(to, &pb.CopyDone{Moved: []*pb.CopyDone_Moved{movedToPB(id, &known, g)}})
}

// contest compares the choices of a message that another gives or shows to this node with those known here. The first stands: what
// goes out only now gives way, of two that do the one of whom is further from the location.
func (n *Node) contest(l *location, c *pb.Custody, from NodeID, firm bool) {
	if c.GetMessage().GetQos() < 2 || n.peers[from] == nil {
		return
	}
	id := Identity{c.GetEpoch(), c.GetSeq()}
	var e *entry
	if s := n.streams[id.Epoch]; s != nil {
		e = s.entries.get(id.Seq)
	}
	yields := e != nil && e.choosing > 0 && !e.gone && (firm || l.at.Closer(n.peers[from].point, n.point))
	for _, p := range c.GetShares() {
		s, ok := shareOf(p)
		for _, g := range s.groups {
			switch {
			case !ok || g.Name == sessionGroup:
			case yields:
				to := s
				to.plain, to.stored, to.groups, to.turn = false, false, []proto.Group{g}, max(s.turn, e.turn(g))+1
				n.moved(e, g, to)
			case !s.done && !firm:
				n.tellChoice(id, g, s.turn, s.node, from)
			}
		}
	}
}
