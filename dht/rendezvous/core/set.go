package core

import (
	"slices"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Set is the nodes responsible for a location, closest first, in one version. Version 0 is a guess: the
// closest of the nodes known, which nobody has agreed on.
type Set struct {
	Version uint64
	Members []NodeID
}

func (s Set) has(id NodeID) bool { return slices.Contains(s.Members, id) }

func (s Set) equal(t Set) bool { return s.Version == t.Version && slices.Equal(s.Members, t.Members) }

// beats reports whether s replaces t at a location. Versions that a majority agreed on rise; two sets of
// one version come from swarms that did not know each other, and the one with closer members stays.
func (s Set) beats(t Set, at dht.Location) bool {
	if s.Version != t.Version {
		return s.Version > t.Version
	}
	for i := range min(len(s.Members), len(t.Members)) {
		a, b := s.Members[i], t.Members[i]
		if a != b {
			x, y := dht.PeerPoint(a.Peer()), dht.PeerPoint(b.Peer())
			return at.Closer(x, y) || x == y && a > b
		}
	}
	return len(s.Members) > len(t.Members)
}

func (s Set) pb() *pb.Set {
	return &pb.Set{Version: s.Version, Members: idsToBytes(s.Members)}
}

func idsToBytes(ids []NodeID) [][]byte {
	b := make([][]byte, len(ids))
	for i, id := range ids {
		b[i] = []byte(id)
	}
	return b
}

// setOf converts a set from the wire, its members put in order of their distance.
func setOf(s *pb.Set, at dht.Location) (Set, bool) {
	if s == nil {
		return Set{}, false
	}
	members, ok := idsOf(s.GetMembers(), at)
	return Set{s.GetVersion(), members}, ok && s.GetVersion() > 0
}

// idsOf converts the members of a set from the wire; ok is false where they cannot be one.
func idsOf(members [][]byte, at dht.Location) (ids []NodeID, ok bool) {
	if len(members) == 0 || len(members) > SetSize {
		return nil, false
	}
	for _, m := range members {
		id := NodeID(m)
		if !id.valid() || slices.Contains(ids, id) {
			return nil, false
		}
		ids = append(ids, id)
	}
	sortByDistance(ids, at)
	return ids, true
}

func sortByDistance(ids []NodeID, at dht.Location) {
	slices.SortFunc(ids, func(a, b NodeID) int {
		x, y := dht.PeerPoint(a.Peer()), dht.PeerPoint(b.Peer())
		switch {
		case at.Closer(x, y):
			return -1
		case at.Closer(y, x):
			return 1
		}
		return 0
	})
}

// majority is how many members of a set have to agree. A member whose database is known to be lost, because its
// peer has come back with another, can neither agree nor disagree ever again, and does not count.
func (n *Node) majority(s Set) int {
	live := 0
	for _, m := range s.Members {
		if p := n.peers[m]; m == n.self || m.Peer() != n.self.Peer() && (p == nil || !p.gone) {
			live++
		}
	}
	return live/2 + 1
}

// rendezvous returns the closest member that can be reached, "" if none can.
func (n *Node) rendezvous(s Set) NodeID {
	for _, m := range s.Members {
		if n.inReach(m) {
			return m
		}
	}
	return ""
}
