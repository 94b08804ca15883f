package core

import (
	"errors"
	"slices"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// A node is gone for good when it says so, having handed over, or when somebody who knows says so of one that is out of reach:
// from then on it is as one that has lost its database. It counts in no set, nobody waits for its leases or for its word that it has
// let go of something, and what stood or was kept for it is dropped. One that comes back all the same says Hello, and is there.

// Why a node can't be forgotten.
var (
	ErrInReach = errors.New("the node is connected: it is not gone")
	ErrUnknown = errors.New("no such node is known here")
)

// ForgetNode takes a node for gone for good, by its peer ID in bytes, and tells the others, who believe it in a private swarm.
func (n *Node) ForgetNode(peer string) error {
	var names []NodeID
	name := func(id NodeID) {
		if id.Peer() == peer && !slices.Contains(names, id) {
			names = append(names, id)
		}
	}
	for _, p := range n.ordered {
		name(p.id)
	}
	for _, l := range n.sortedLocations() { // where this node has forgotten it, but not what it is a member of
		for _, m := range l.set.Members {
			name(m)
		}
	}
	names = slices.DeleteFunc(names, func(id NodeID) bool { return id == n.self || n.peers[id] != nil && n.peers[id].forgotten })
	if len(names) == 0 {
		return ErrUnknown
	}
	lost := slices.DeleteFunc(slices.Clone(names), func(id NodeID) bool { return !n.destroyed(id) })
	for _, id := range names {
		if p := n.peers[id]; p != nil && p.up {
			if len(lost) == 0 {
				return ErrInReach
			}
			names = lost // it is there again, and what it was with another database is not
			break
		}
	}
	var news []*pb.Known
	for _, id := range names {
		p := n.peers[id]
		if p == nil {
			p = n.addPeer(id)
		}
		n.bury(p)
		news = append(news, p.known())
	}
	n.spread("", news)
	return nil
}

// bury takes a node for gone for good.
func (n *Node) bury(p *peer) {
	if !p.forgotten {
		n.lose(p, true)
		p.since = n.now                         // it is remembered for a while that it is
		for _, l := range n.sortedLocations() { // what could not be changed without it can be now
			if l.retry = 0; l.change != nil {
				n.abort(l)
				l.retry = 0
			}
			n.watch(l)
		}
		n.out = append(n.out, Effect{Kind: Forget, To: p.id})
	}
}

// LeaveForGood is Leave for a node that will not come back: when all is handed over, the others are told to forget it.
func (n *Node) LeaveForGood() {
	n.forGood = true
	for _, r := range n.sortedRoutes() {
		if r.own == nil {
			continue
		}
		for _, f := range sortedKeys(r.own.interests) {
			n.Register(f, Interest{}, nil)
		}
	}
	n.Leave()
}

// LeaveForNow makes LeaveForGood, where that is not done yet, a Leave: the node will come back.
func (n *Node) LeaveForNow() { n.forGood = false }
