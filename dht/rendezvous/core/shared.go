package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// A message of a shared subscription is for the node that was picked for it. Another of the group gets it, at QoS 1, where that one
// has no member left, or has been out of reach for a minute, or is gone for good: it may have reached a client, as QoS 1 allows. At
// QoS 2 it may not, and nobody else gets what may have been sent.
//
// Each choice for a message and a group has a turn, one more than the choice before. Whoever has the message in custody goes by the
// highest that it has heard of.

// tickShared gives what is in custody for members of groups, at nodes that do not come back or not soon, to other members.
func (n *Node) tickShared() {
	found := map[groupAt][]candidate{}
	for _, p := range n.ordered {
		if p.owed == 0 || p.reach || !p.gone && !p.left && n.now-p.since < deadAfter {
			continue
		}
		for _, e := range slices.Clone(p.shares.live()) {
			if !e.gone && !e.copy && e.l.phase == serving {
				n.giveOn(e, p, found)
			}
		}
	}
}

// groupAt is a shared subscription at a location.
type groupAt struct {
	l *location
	g proto.Group
}

// giveOn gives what a node is to have of a message for groups to other members.
func (n *Node) giveOn(e *entry, p *peer, found map[groupAt][]candidate) {
	for i := 0; i < len(e.shares) && !e.gone; i++ {
		s := e.shares[i]
		over := n.destroyed(p.id) || n.departed(p.id, s.hold)
		if s.node != p.id || s.done || !over && n.now-p.since < deadAfter {
			continue
		}
		for _, g := range s.groups {
			if !n.movable(e, &s, g) {
				continue
			}
			at := groupAt{e.l, g}
			all, asked := found[at]
			if !asked {
				all = n.groupMembers(e.l, g)
				found[at] = all
			}
			switch others := n.successors(all, p); {
			case len(others) > 0:
				turn := e.turn(g) + 1
				n.drain(e, p.id, g)
				n.move(e, g, turn, n.pick(g, others, e.id))
			case n.departed(p.id, s.hold) && n.sure(e.l) && !slices.ContainsFunc(all, func(c candidate) bool { return c.node != p.id }):
				n.stats.NoMember++
				n.drain(e, p.id, g)
			}
		}
		if i := &e.shares[i]; !i.plain && len(i.groups) == 0 {
			n.shareDrained(e, p.id)
		}
	}
}

// movable reports whether another node may get what one was to have of a message for a group: at QoS 2 only what was never sent to it,
// though its session is over [MQTT-4.8.2-5].
func (n *Node) movable(e *entry, s *share, g proto.Group) bool {
	switch {
	case g.Name == sessionGroup: // it is the session's alone
		return false
	case e.copy: // the rendezvous knows
		return true
	case e.m.QoS == 2:
		return !s.sent && !e.given && n.destroyed(s.node)
	}
	return true
}

// groupMembers returns the nodes with members of a shared subscription, in no order; none while it is being found out.
func (n *Node) groupMembers(l *location, g proto.Group) (all []candidate) {
	above := n.ancestors(l)
	if !above.ok {
		return nil
	}
	for _, t := range append(slices.Clone(above.tables), &l.table) {
		for _, r := range t.owners {
			i := r.interests[g.Filter]
			if i == nil {
				continue
			}
			for _, m := range i.Groups {
				if m.Name == g.Name {
					all = append(all, candidate{r.owner, m.Members, i.Hold, m.QoS, m.Online, i.Sessions})
				}
			}
		}
	}
	return all
}

// successors are those of a group's nodes that may take the place of one that is away: where sessions that were there have been
// resumed, else any that can be reached.
func (n *Node) successors(all []candidate, p *peer) (others []candidate) {
	resumed := false
	for _, c := range all {
		if c.node == p.id || !n.inReach(c.node) {
			continue
		}
		of := slices.ContainsFunc(c.sessions, func(s SessionInterest) bool { return p.id.is(s.From, s.Database) })
		if of && !resumed {
			resumed, others = true, nil
		}
		if of || !resumed {
			others = append(others, c)
		}
	}
	return others
}

// move has another node get what one was to have of a message for a group.
func (n *Node) move(e *entry, g proto.Group, turn uint32, to candidate) {
	s := share{node: to.node, groups: []proto.Group{g}, hold: to.hold, turn: turn}
	n.stats.SharesMoved++
	n.addShare(e, s)
	for _, c := range e.copies {
		if n.inReach(c) {
			n.send(c, &pb.CopyDone{Place: e.l.place.pb(), Moved: []*pb.CopyDone_Moved{movedToPB(e.id, &s, g)}})
		}
	}
}

// drain takes a group out of what a node is to have of a message; "" is any node.
func (n *Node) drain(e *entry, node NodeID, g proto.Group) (had bool) {
	for i := range e.shares {
		s := &e.shares[i]
		if (node == "" || s.node == node) && !s.done && slices.Contains(s.groups, g) {
			s.groups = slices.DeleteFunc(slices.Clone(s.groups), func(o proto.Group) bool { return o == g })
			had = true
		}
	}
	return had
}

// shareDrained ends the shares of a node that nothing is left of, "" for all nodes. Who has copies has heard what became of them.
func (n *Node) shareDrained(e *entry, node NodeID) {
	for i := range e.shares {
		if s := &e.shares[i]; (node == "" || s.node == node) && !s.done && !s.plain && len(s.groups) == 0 {
			n.endShare(e, s)
		}
	}
	n.finish(e)
}

// turn is that of the last choice for a group that is known.
func (e *entry) turn(g proto.Group) (turn uint32) {
	for i := range e.shares {
		if s := &e.shares[i]; s.turn > turn && slices.Contains(s.groups, g) {
			turn = s.turn
		}
	}
	return turn
}

// stands reports whether a share is the last choice for a group, which stands against those before.
func (e *entry) stands(s *share) bool {
	return s.turn > 0 && slices.ContainsFunc(s.groups, func(g proto.Group) bool { return s.turn == e.turn(g) })
}

// orphan leaves of what a node that is gone was to have of a message what others of its groups may get, and reports whether
// there is anything.
func (n *Node) orphan(e *entry, node NodeID) bool {
	stays := func(s *share) bool {
		return s.node == node && !s.done && slices.ContainsFunc(s.groups, func(g proto.Group) bool { return n.movable(e, s, g) })
	}
	if !slices.ContainsFunc(e.shares, func(s share) bool { return stays(&s) }) {
		return false
	}
	for i := range e.shares {
		if s := &e.shares[i]; s.node == node && !s.done {
			s.plain = false
			s.groups = slices.DeleteFunc(slices.Clone(s.groups), func(g proto.Group) bool { return !n.movable(e, s, g) })
		}
	}
	n.shareDrained(e, node)
	return true
}

// refused gives a shared subscription's message to another node of the group: the one that had it has no member left that it was sent
// to, or will be. Where no other is known the message is dropped, though its member may be on the way to a node that is not known yet.
func (n *Node) refused(id Identity, g proto.Group, by NodeID) {
	s := n.streams[id.Epoch]
	if s == nil || s.entries.get(id.Seq) == nil {
		return
	}
	e := s.entries.get(id.Seq)
	if e.copy {
		n.drain(e, by, g)
		return
	}
	put(&e.refusals, refusal{by, g}, true)
	n.giveAgain(e, g, by, n.now+retryAfter)
}

// refusal is that a node had no member of a group left for a message.
type refusal struct {
	node NodeID
	g    proto.Group
}

// giveAgain gives a shared subscription's message to another node of the group than the one that has refused it, unless another has it already. Where no
// other is known, and some may not be known yet, as when this node has just become the rendezvous, it looks again, until a time.
func (n *Node) giveAgain(e *entry, g proto.Group, than NodeID, until time.Duration) {
	others := slices.DeleteFunc(n.groupMembers(e.l, g), func(c candidate) bool { return c.node == than })
	if len(others) == 0 && n.now < until && !n.sure(e.l) {
		n.setAside(e, than, g)
		n.timers.set(n.now+queryPause, func() {
			if !e.gone && !e.copy {
				n.giveAgain(e, g, than, until)
			}
		})
		return
	}
	if rest := slices.DeleteFunc(slices.Clone(others), func(c candidate) bool { return e.refusals[refusal{c.node, g}] }); len(rest) > 0 {
		others = rest // whose registrations may be behind
	}
	turn := e.turn(g) + 1
	switch had := n.drain(e, than, g); {
	case !had:
		return
	case len(others) == 0:
		n.stats.NoMember++
	case e.m.QoS < 2:
		n.move(e, g, turn, n.pick(g, others, e.id))
	default:
		n.stats.SharesMoved++
		to := n.pick(g, others, e.id)
		n.chooseAgain(e, false, "", func() {
			n.addShare(e, share{node: to.node, groups: []proto.Group{g}, hold: to.hold, turn: turn})
		})
	}
	for i := range e.shares { // of what was sent to it it is still to say that it is done
		if s := &e.shares[i]; s.node == than && !s.done && !s.sent && !s.plain && len(s.groups) == 0 {
			n.endShare(e, s)
		}
	}
	n.finish(e)
}

// setAside has what a node has refused of a message remain in custody as that node's, whatever it says of the rest: who is handed the
// message meanwhile sends it there, and is refused again.
func (n *Node) setAside(e *entry, node NodeID, g proto.Group) {
	for i := range e.shares {
		if s := &e.shares[i]; s.node == node && s.sent && !s.done && slices.Contains(s.groups, g) {
			s.groups = slices.DeleteFunc(slices.Clone(s.groups), func(o proto.Group) bool { return o == g })
			e.left++
			e.put(share{node: node, groups: []proto.Group{g}, hold: s.hold, turn: s.turn})
			n.owe(e, node)
			return
		}
	}
}

func movedToPB(id Identity, s *share, g proto.Group) *pb.CopyDone_Moved {
	return &pb.CopyDone_Moved{Epoch: id.Epoch, Seq: id.Seq, Group: &pb.Group{Name: g.Name, Filter: g.Filter}, Node: []byte(s.node),
		HoldS: uint32(s.hold / time.Second), Turn: s.turn, Done: s.done} //nolint:gosec // bounded by MaxHold
}

// receiveMoved takes over what of a message that is in custody here is for another node now.
func (n *Node) receiveMoved(m *pb.CopyDone_Moved) {
	s := n.streams[m.GetEpoch()]
	if s == nil {
		return
	}
	e := s.entries.get(m.GetSeq())
	g, ok := groupOf(m.GetGroup())
	to := share{node: NodeID(m.GetNode()), groups: []proto.Group{g}, hold: holdOf(m.GetHoldS()), turn: m.GetTurn(), done: m.GetDone()}
	switch {
	case !ok || !to.node.valid() || to.turn == 0:
		n.malformed("CopyDone")
	case e != nil && n.moved(e, g, to):
		n.rewrite(e)
	}
}

// moved takes over a later choice for a group than is known, and at QoS 2 the first for what is not settled here, and reports whether it is one.
func (n *Node) moved(e *entry, g proto.Group, to share) bool {
	switch {
	case e.gone:
		return false
	case !e.servedGroup(g) && g.Name != sessionGroup:
		if e.unset == nil || e.m.QoS < 2 {
			return false
		}
	case to.turn <= e.turn(g):
		return false
	}
	n.drain(e, "", g)
	if to.done {
		e.put(to)
	} else {
		n.addShare(e, to)
	}
	n.shareDrained(e, "")
	return true
}

// mergeShares takes over from another's copy of a message what is for other nodes now than is known here.
func (n *Node) mergeShares(e *entry, c *pb.Custody) {
	news := false
	for _, p := range c.GetShares() {
		s, ok := shareOf(p)
		if ok && s.open != nil {
			n.mergeOpen(e, &s)
		}
		for _, g := range s.groups {
			to := s
			to.plain, to.stored, to.groups = false, false, []proto.Group{g}
			news = ok && n.moved(e, g, to) || news
		}
	}
	if news {
		n.rewrite(e)
	}
}

// mergeOpen takes over for whom alone a node keeps what it was sent. What is left of that holds for the share's groups.
func (n *Node) mergeOpen(e *entry, s *share) {
	if s.plain {
		n.openAt(e, s.node, s.open)
		s.open = nil
		return
	}
	n.throughAlone(e, s.node, s.through())
}

// tellMoved tells a node what of a message that it has a copy of is for other nodes now than it knows.
func (n *Node) tellMoved(e *entry, c *pb.Custody, to NodeID) {
	known := map[proto.Group]uint32{}
	for _, p := range c.GetShares() {
		for _, g := range p.GetGroups() {
			k := proto.Group{Name: g.GetName(), Filter: g.GetFilter()}
			known[k] = max(known[k], p.GetTurn())
		}
	}
	for i := range e.shares {
		for _, g := range e.shares[i].groups {
			if s := &e.shares[i]; s.turn > known[g] && s.turn == e.turn(g) {
				n.send(to, &pb.CopyDone{Place: e.l.place.pb(), Moved: []*pb.CopyDone_Moved{movedToPB(e.id, s, g)}})
			}
		}
	}
}

// shareOf converts a share from the wire; ok is false where it is none.
func shareOf(p *pb.Custody_Share) (s share, ok bool) {
	s = share{node: NodeID(p.GetNode()), plain: p.GetPlain(), stored: p.GetStored(), done: p.GetDone(), hold: holdOf(p.GetHoldS()),
		turn: p.GetTurn()}
	if p.GetPartly() {
		s.open = openOf(p.GetOpen())
	}
	for _, g := range p.GetGroups() {
		if g, ok := groupOf(g); ok {
			s.groups = append(s.groups, g)
		}
	}
	return s, s.node.valid()
}

func holdOf(seconds uint32) time.Duration { return min(time.Duration(seconds)*time.Second, MaxHold) }

func groupOf(p *pb.Group) (g proto.Group, ok bool) {
	return proto.Group{Name: p.GetName(), Filter: p.GetFilter()},
		validGroup(p.GetName()) && topic.ValidFilter(p.GetFilter(), topic.Limits{}) == nil
}
