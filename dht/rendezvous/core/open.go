package core

import (
	"slices"
	"strings"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// A node says that it is done with a message when all its subscribers are through with it. Where few sessions are not, which may be away
// for days, it says for which alone it keeps the message: should it be destroyed, the others, which go on elsewhere, do not get it again.

// openFor are the sessions that messages wait for alone. It does not change. nil is all that there may be.
type openFor struct {
	sessions []string // what SessionInterests call them
}

// MaxOpen is how many sessions a message may wait for alone: of more, nothing is said.
const MaxOpen = 16

// maxOpened is how many different sets of sessions are known of the messages of an epoch. What is forgotten is not told anybody
// who asks later.
const maxOpened = 64

// openOf converts names from the wire; nil where they can't be meant.
func openOf(names []string) *openFor {
	if len(names) > MaxOpen || slices.ContainsFunc(names, func(name string) bool { return topic.ValidName(name, topic.Limits{}) != nil }) {
		return nil
	}
	return &openFor{names}
}

func (o *openFor) names() []string {
	if o == nil {
		return nil
	}
	return o.sessions
}

func (o *openFor) has(g proto.Group) bool {
	return o == nil || g.Name == sessionGroup && slices.Contains(o.sessions, g.Filter)
}

// openHere are messages of an epoch that wait for few sessions alone at this node.
type openHere struct {
	sessions *openFor
	numbers  spans
}

// without returns the sessions but for one.
func (o *openFor) without(name string) *openFor {
	return &openFor{slices.DeleteFunc(slices.Clone(o.sessions), func(s string) bool { return s == name })}
}

// opens collects what another node is to be told of such messages.
type opens []*openTo

type openTo struct {
	key      string
	sessions *openFor
	through  bool
	messages acks
}

func (o *opens) add(id Identity, sessions *openFor, through bool) {
	key := strings.Join(sessions.sessions, "\x00")
	for i := len(*o) - 1; i >= 0; i-- {
		t := (*o)[i]
		if t.key == key && t.through == through {
			t.messages.add(id)
			return
		}
		if t.messages.has(id) {
			break // what is said last counts
		}
	}
	t := &openTo{key: key, sessions: sessions, through: through}
	t.messages.add(id)
	*o = append(*o, t)
}

// take returns what was collected, and begins anew. node is whose messages they are, where that is not clear.
func (o *opens) take(node NodeID) (all []*pb.Open) {
	for _, t := range *o {
		all = append(all, &pb.Open{Node: []byte(node), Sessions: t.sessions.sessions, Messages: t.messages.take(), Through: t.through})
	}
	*o = nil
	return all
}

// OpenFor says that messages of this node's broker wait for some sessions alone, by what SessionInterests call them, or for none that outlives
// its connection.
func (n *Node) OpenFor(ids []Identity, names []string) {
	if len(names) > MaxOpen {
		return
	}
	all := map[string]*openFor{}
	for _, id := range ids {
		r := n.epochs[id.Epoch]
		if r == nil {
			continue
		}
		left := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return r.isThrough(name, id.Seq) })
		key := strings.Join(left, "\x00")
		if all[key] == nil {
			all[key] = &openFor{left}
		}
		n.opened(r, id, all[key])
	}
}

func (n *Node) opened(r *received, id Identity, o *openFor) {
	u := r.open.get(id.Seq)
	if u.left == 0 {
		return
	}
	for i := range r.opened {
		if r.opened[i].sessions != o {
			r.opened[i].numbers.remove(id.Seq)
		}
	}
	r.opened = noteHere(r.opened, o, id.Seq)
	for _, node := range r.waiting(u) {
		n.tellOpen(node, id, o)
	}
}

// noteHere adds a message to those of some sessions.
func noteHere(all []openHere, o *openFor, seq uint64) []openHere {
	at := slices.IndexFunc(all, func(h openHere) bool { return h.sessions == o || slices.Equal(h.sessions.sessions, o.sessions) })
	if at < 0 {
		all = slices.DeleteFunc(all, func(h openHere) bool { return len(h.numbers) == 0 })
		if len(all) >= maxOpened {
			all = slices.Delete(all, 0, 1)
		}
		at = len(all)
		all = append(all, openHere{sessions: o})
	}
	all[at].numbers.add(seq)
	return all
}

// isThrough reports whether a session was through with a message before it was known for which sessions alone that waits.
func (r *received) isThrough(name string, seq uint64) bool {
	return slices.ContainsFunc(r.through, func(h openHere) bool { return h.sessions.sessions[0] == name && h.numbers.has(seq) })
}

// Through says that a session is through with messages that may wait for others here, which is said of each before Done.
func (n *Node) Through(ids []Identity, name string) {
	without, through := map[*openFor]*openFor{}, &openFor{[]string{name}}
	g := SessionInterest{Name: name}.group()
	for _, id := range ids {
		r := n.epochs[id.Epoch]
		if r == nil || r.open.get(id.Seq).left < 2 {
			continue
		}
		o := r.openedFor(id.Seq)
		if o == nil || r.cameFor(g, id.Seq) { // for whom else it waits is said later, or was before this node was started, or it came for the session alone
			r.through = noteHere(r.through, through, id.Seq)
			for _, node := range r.waiting(r.open.get(id.Seq)) {
				n.tellThrough(node, id, through)
			}
		}
		if o != nil && slices.Contains(o.sessions, name) {
			if without[o] == nil {
				without[o] = o.without(name)
			}
			n.opened(r, id, without[o])
		}
	}
}

func (n *Node) tellThrough(node NodeID, id Identity, through *openFor) {
	if node == n.self {
		n.receiveThrough(n.self, through.sessions, func(do func(*entry)) {
			if e := n.entryOf(id); e != nil {
				do(e)
			}
		})
	} else if p := n.dirtyPeer(node); p != nil {
		p.open.add(id, through, true)
	}
}

// openedFor returns for which sessions alone a message waits here; nil where that is not known.
func (r *received) openedFor(seq uint64) *openFor {
	for i := range r.opened {
		if r.opened[i].numbers.has(seq) {
			return r.opened[i].sessions
		}
	}
	return nil
}

func (r *received) trimOpened(upto uint64) {
	for _, all := range []*[]openHere{&r.opened, &r.through} {
		*all = slices.DeleteFunc(*all, func(h openHere) bool { return h.numbers.empty(upto) })
		for i := range *all {
			(*all)[i].numbers.trim(upto)
		}
	}
}

// answerOpen tells a node that asks for a message which is not done for whom it is not, as far as that is known.
func (n *Node) answerOpen(node NodeID, id Identity, r *received) {
	n.tellOpen(node, id, r.openedFor(id.Seq))
	for i := range r.through {
		if r.through[i].numbers.has(id.Seq) {
			n.tellThrough(node, id, r.through[i].sessions)
		}
	}
}

// tellOpen tells a node that waits to hear that a message is done for which sessions alone it is not; nil: nothing.
func (n *Node) tellOpen(node NodeID, id Identity, o *openFor) {
	switch {
	case o == nil:
	case node == n.self:
		if e := n.entryOf(id); e != nil && n.openAt(e, n.self, o) {
			n.tellCopiesOpen(n.self, &pb.Open{Sessions: o.sessions}, []*entry{e})
		}
	default:
		if p := n.dirtyPeer(node); p != nil {
			p.open.add(id, o, false)
		}
	}
}

// receiveOpen notes for whom alone a node keeps messages that are in custody here.
func (n *Node) receiveOpen(o *pb.Open, node NodeID, each func(do func(*entry))) {
	sessions := openOf(o.GetSessions())
	if sessions == nil {
		n.malformed("Open")
		return
	}
	if o.GetThrough() {
		n.receiveThrough(node, sessions.sessions, each)
		return
	}
	var told []*entry
	each(func(e *entry) {
		if n.openAt(e, node, sessions) {
			told = append(told, e)
		}
	})
	n.tellCopiesOpen(node, o, told)
}

// receiveThrough notes that messages wait for some sessions at a node no more: of what came there for its plain subscribers where it is known for which
// it waits, and of what came for these sessions alone.
func (n *Node) receiveThrough(node NodeID, names []string, each func(do func(*entry))) {
	without := map[*openFor]*openFor{}
	told := map[*openFor][]*entry{}
	var order []*openFor
	var alone []*entry
	each(func(e *entry) {
		if n.throughAlone(e, node, names) {
			alone = append(alone, e)
		}
		for i := range e.shares {
			s := &e.shares[i]
			if s.node != node || !s.plain || s.open == nil || !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(s.open.sessions, name) }) {
				continue
			}
			o := without[s.open]
			if o == nil {
				o = s.open
				for _, name := range names {
					o = o.without(name)
				}
				without[s.open] = o
				order = append(order, o)
			}
			if n.openAt(e, node, o) {
				told[o] = append(told[o], e)
			}
			break
		}
	})
	for _, o := range order {
		n.tellCopiesOpen(node, &pb.Open{Sessions: o.sessions}, told[o])
	}
	n.tellCopiesOpen(node, &pb.Open{Sessions: names, Through: true}, alone)
}

// throughAlone notes that some sessions are through with a message that was sent to a node for them alone, and reports whether that is news.
func (n *Node) throughAlone(e *entry, node NodeID, names []string) (news bool) {
	for i := range e.shares {
		s := &e.shares[i]
		if s.node != node || s.plain || s.done {
			continue
		}
		left := s.open
		if left == nil {
			left = new(openFor)
			for _, g := range s.groups {
				if g.Name == sessionGroup {
					left.sessions = append(left.sessions, g.Filter)
				}
			}
		}
		was := len(left.sessions)
		for _, name := range names {
			left = left.without(name)
		}
		if len(left.sessions) < was {
			s.open, news = left, true
		}
	}
	if news && e.m.QoS == 2 {
		n.rewrite(e)
	}
	return news
}

// openAt notes that of what a node was sent of a message it waits for some sessions alone, and reports whether that is news. At QoS 2 it is
// known over a restart too: a QoS 1 message may come again, and is not worth to be written once more.
func (n *Node) openAt(e *entry, node NodeID, o *openFor) (news bool) {
	for i := range e.shares {
		if s := &e.shares[i]; s.node == node && s.plain && !s.done && !s.late {
			news = news || s.open == nil || !slices.Equal(s.open.sessions, o.sessions)
			s.open = o
		}
	}
	if news && e.m.QoS == 2 {
		n.rewrite(e)
	}
	return news
}

// through returns the sessions that are through with what a node was sent for them alone.
func (s *share) through() (names []string) {
	for _, g := range s.groups {
		if g.Name == sessionGroup && !s.open.has(g) {
			names = append(names, g.Filter)
		}
	}
	return names
}
