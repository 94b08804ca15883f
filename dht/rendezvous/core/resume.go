package core

import (
	"slices"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// A session may go on at another node than the one that it was at, which may be gone for good. What was sent to that one for it
// is still in custody, until it is done: the node that the session is at now says so with its registration, and gets it, for the
// session alone.

// resume serves what a node has not done with, at a place and below it, to the sessions behind some filters of another
// node's registration that have come from there.
func (n *Node) resume(place Place, owner NodeID, filters []string) {
	for _, f := range filters {
		i := n.standing(place, owner, f)
		if i == nil || len(i.Sessions) == 0 {
			continue
		}
		for _, l := range n.sortedLocations() {
			if l.place == place || l.isBelow(place) {
				n.resumeAt(l, owner, f, i, l.order.live())
			}
		}
	}
}

// standing returns what stands of a node at a place, own or inherited.
func (n *Node) standing(place Place, owner NodeID, filter string) *Interest {
	var t *table
	if l := n.locations[place.Location()]; l != nil {
		t = &l.table
	} else if in := n.inherited[place.Location()]; in != nil {
		t = &in.table
	}
	if t == nil || t.owners[owner] == nil {
		return nil
	}
	return t.owners[owner].interests[filter]
}

// resumeAll does that for messages that have just become this node's duty.
func (n *Node) resumeAll(l *location, entries []*entry) {
	for _, t := range append(slices.Clone(n.ancestors(l).tables), &l.table) {
		for _, o := range sortedKeys(t.owners) {
			for _, f := range sortedKeys(t.owners[o].interests) {
				if i := t.owners[o].interests[f]; len(i.Sessions) > 0 {
					n.resumeAt(l, o, f, i, entries)
				}
			}
		}
	}
}

func (n *Node) resumeAt(l *location, owner NodeID, filter string, i *Interest, entries []*entry) {
	if l.phase != serving {
		return
	}
	for _, e := range slices.Clone(entries) {
		if e.gone || e.copy || !topic.Match(filter, e.m.Topic) {
			continue
		}
		for _, s := range i.Sessions {
			if e.owedTo(s.From) && !e.servedGroup(s.group()) {
				n.addShare(e, share{node: owner, hold: i.Hold, groups: []proto.Group{s.group()}})
			}
		}
	}
}

// owedTo reports whether the plain subscribers of a node may not be through with a message.
func (e *entry) owedTo(peer string) bool {
	return slices.ContainsFunc(e.shares, func(s share) bool { return s.plain && !s.done && s.node.Peer() == peer })
}
