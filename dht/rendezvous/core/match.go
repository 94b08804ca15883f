package core

import (
	"math"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// dest is a node that a message is for.
type dest struct {
	node   NodeID
	groups []proto.Group
	hold   time.Duration
	plain  bool
	qos    byte
}

// candidate is a node that has members in a shared subscription.
type candidate struct {
	node    NodeID
	members int
	hold    time.Duration
	qos     byte
	online  bool

	sessions []SessionInterest // see successors
}

// matching gathers who a message is for. It is used again for each message.
type matching struct {
	dests  []dest
	groups map[proto.Group][]candidate
	keys   []proto.Group
	out    []proto.Group // that nobody is picked for now: see match
	m      *proto.Message
	except NodeID // whose plain subscribers have it
}

func (s *matching) reset(m *proto.Message, except NodeID) {
	s.dests, s.keys, s.out = s.dests[:0], s.keys[:0], s.out[:0]
	clear(s.groups)
	s.m, s.except = m, except
}

func (s *matching) dest(node NodeID) *dest {
	for i := range s.dests {
		if s.dests[i].node == node {
			return &s.dests[i]
		}
	}
	s.dests = append(s.dests, dest{node: node})
	return &s.dests[len(s.dests)-1]
}

func (s *matching) add(filter string, node NodeID, i *Interest) {
	if i.Plain && node != s.except {
		d := s.dest(node)
		d.plain = true
		d.qos, d.hold = max(d.qos, i.QoS), max(d.hold, i.Hold)
	}
	for _, g := range i.Groups {
		key := proto.Group{Name: g.Name, Filter: filter}
		if s.groups == nil {
			s.groups = map[proto.Group][]candidate{}
		}
		if s.groups[key] == nil {
			s.keys = append(s.keys, key)
		}
		s.groups[key] = append(s.groups[key], candidate{node, g.Members, i.Hold, g.QoS, g.Online, nil})
	}
}

// match finds the nodes that a message is for. The result is good until the next call. At QoS 2 nobody is picked for a shared subscription
// while none of several nodes that have members is in reach, since the choice will stand, whether that node comes back or not.
func (n *Node) match(l *location, above ancestry, m *proto.Message, id Identity, except NodeID) []dest {
	s := &n.scratch
	s.reset(m, except)
	l.tree.Match(m.Topic, s.add)
	for _, t := range above.tables {
		t.tree.Match(m.Topic, s.add)
	}
	slices.SortFunc(s.keys, func(a, b proto.Group) int {
		if a.Filter != b.Filter {
			if a.Filter < b.Filter {
				return -1
			}
			return 1
		}
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	turn := id
	if id.Epoch == 0 {
		n.turn++
		turn.Seq = n.turn
	}
	for _, k := range s.keys {
		c := n.pick(k, s.groups[k], turn)
		if m.QoS == 2 && k.Name != sessionGroup && !n.inReach(c.node) &&
			slices.ContainsFunc(s.groups[k], func(o candidate) bool { return o.node != c.node }) { // a node can be in two tables
			s.out = append(s.out, k)
			for _, o := range s.groups[k] { // whoever comes into reach
				n.meet(o.node)
			}
			continue
		}
		d := s.dest(c.node)
		d.groups = append(d.groups, k)
		d.qos, d.hold = max(d.qos, c.qos), max(d.hold, c.hold)
	}
	slices.SortFunc(s.dests, func(a, b dest) int {
		if a.node < b.node {
			return -1
		}
		return 1
	})
	n.stats.Matched++
	return s.dests
}

// leftOut reports whether the last match picked nobody for a group that nobody is chosen for yet.
func (n *Node) leftOut(e *entry) bool {
	return slices.ContainsFunc(n.scratch.out, func(g proto.Group) bool { return !e.servedGroup(g) })
}

// pick chooses the node of a shared subscription that gets a message: weighted rendezvous hashing (Thaler
// and Ravishankar 1998) of the message's identity, so that every rendezvous that knows the same members
// chooses the same one, and a retry goes where the message went. Members with a connection, at nodes in
// reach, come first.
func (n *Node) pick(g proto.Group, cs []candidate, id Identity) candidate {
	rank := func(c candidate) int {
		switch {
		case c.online && n.inReach(c.node):
			return 2
		case n.inReach(c.node):
			return 1
		}
		return 0
	}
	best, score, top := cs[0], math.Inf(-1), -1
	for _, c := range cs {
		h := hash(id, g, c.node)
		s := -float64(max(c.members, 1)) / math.Log((float64(h>>11)+0.5)/(1<<53))
		if r := rank(c); r > top || r == top && s > score {
			best, score, top = c, s, r
		}
	}
	return best
}

// hash mixes an identity, a group and a node into a number (FNV-1a, finished as in MurmurHash3).
func hash(id Identity, g proto.Group, node NodeID) uint64 {
	h := uint64(14695981039346656037)
	mix := func(s string) {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	mix(g.Name)
	mix(g.Filter)
	mix(string(node))
	h ^= id.Epoch
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h ^= id.Seq * 0x9e3779b97f4a7c15
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
