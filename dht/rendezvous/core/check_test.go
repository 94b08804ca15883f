package core_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// look checks what must hold at every moment: each message that was acknowledged and has not come to everybody whom it
// is due to is in somebody's custody; where nothing breaks, a place has one rendezvous by each version of its set, and
// the versions that a node knows rise.
func (s *sim) look() {
	s.owed = slices.DeleteFunc(s.owed, (*published).everywhere)
	if len(s.owed) > 0 {
		kept := map[string]bool{}
		for _, v := range s.nodes {
			if v.alive {
				v.n.Keeps(func(m *proto.Message) { kept[string(m.Properties)] = true })
			}
			v.disk.live.custody.Load(func(_ core.Identity, m *proto.Message, _ *pb.StoredCustody) { kept[string(m.Properties)] = true })
			for k, open := range v.disk.live.entries {
				if p := s.byID[k.id]; open && p != nil {
					kept[string(p.m.Properties)] = true
				}
			}
		}
		s.owed = slices.DeleteFunc(s.owed, func(p *published) bool {
			lost := p.accepted && p.node.alive && !kept[string(p.m.Properties)] && !s.forgets
			if lost {
				s.fail("nobody has custody of %s (%s QoS %d) of node %d, which %s has not got", p.id, p.m.Topic, p.m.QoS, p.node.i, p.missing())
			}
			return lost
		})
	}
	if s.disorder || s.forgets {
		return
	}
	type version struct {
		place   core.Place
		version uint64
	}
	serves := map[version]int{}
	for _, v := range s.nodes {
		if !v.alive {
			continue
		}
		v.n.Serves(func(place core.Place, set core.Set) {
			k := version{place, set.Version}
			if other, twice := serves[k]; twice && set.Version > 1 && s.merged {
				s.fail("nodes %d and %d both serve %q by version %d", other, v.i, place.Prefix, set.Version)
			}
			serves[k] = v.i
			if set.Version < v.versions[place] {
				s.fail("node %d serves %q by version %d after %d", v.i, place.Prefix, set.Version, v.versions[place])
			}
			v.versions[place] = set.Version
		})
	}
}

// everywhere reports whether a message has come to everybody whom it is due to, or nobody waits for it.
func (p *published) everywhere() bool { return p.missing() == nil }

// missing returns a subscription that a message is due to and has not come to.
func (p *published) missing() *standing {
	for _, st := range p.due {
		if st.over || !st.node.alive || st.node.leaving {
			continue
		}
		if st.group == "" && st.node.from[p] == 0 || st.group != "" && p.took[st.group+"/"+st.filter] == 0 && !p.mayHaveGone(st) {
			return st
		}
	}
	return nil
}

// mayHaveGone reports whether a QoS 2 message was sent for a group to a node that stops: its member's session ends there, and nobody else may
// get it [MQTT-4.8.2-5].
func (p *published) mayHaveGone(st *standing) bool {
	return p.m.QoS == 2 && slices.ContainsFunc(p.sent[st.group+"/"+st.filter], func(v *simNode) bool { return v.leaving })
}

func (st *standing) String() string {
	return fmt.Sprintf("node %d, subscribed to %s %s,", st.node.i, st.group, st.filter)
}

// check compares what came with what must have.
func (s *sim) check() {
	for _, p := range s.published {
		if p.cut {
			continue
		}
		if p.m.QoS > 0 && !p.accepted && p.node.alive {
			s.fail("%s (%s QoS %d retain %v) of node %d is not acknowledged", p.id, p.m.Topic, p.m.QoS, p.m.Retain, p.node.i)
		}
		if s.loss && p.m.QoS == 0 {
			continue
		}
		for _, st := range p.due {
			if st.over || !st.node.alive || st.node.leaving {
				continue
			}
			if st.group == "" && st.node.from[p] != 1 {
				s.fail("node %d, subscribed to %s, did not get %s (%s QoS %d) of node %d, published at %v",
					st.node.i, st.filter, p.id, p.m.Topic, p.m.QoS, p.node.i, p.at-time.Hour)
			}
			if key := st.group + "/" + st.filter; st.group != "" && p.took[key] != 1 && !(s.disorder && p.took[key] > 1) {
				s.fail("shared subscription %s got %s %d times", key, p.id, p.took[key])
			}
		}
	}
}

// forgetReplaced has the swarm forget the nodes that have come back with another database: nobody goes on with their sessions here.
func (s *sim) forgetReplaced() {
	forgotten := false
	for i, v := range s.nodes {
		replaced := slices.ContainsFunc(s.nodes[i+1:], func(w *simNode) bool { return w.alive && w.id.Peer() == v.id.Peer() })
		for _, w := range s.nodes { // each may be the only one that knows it
			if replaced && w.alive && w.forget(v.id.Peer()) == nil {
				forgotten = true
			}
		}
	}
	if forgotten {
		s.run(30 * time.Second)
	}
}

// checkSets checks that every member knows the same sets, and that they are the closest nodes.
func (s *sim) checkSets() {
	s.forgetReplaced()
	sets := map[core.Place]core.Set{}
	for _, v := range s.nodes {
		if !v.alive {
			continue
		}
		for _, w := range v.n.Views() {
			if w.Phase == "standby" && !slices.Contains(w.Set.Members, v.id) {
				s.fail("node %d keeps %q without being in its set", v.i, w.Place.Prefix)
			}
			if have, ok := sets[w.Place]; ok && (have.Version != w.Set.Version || !slices.Equal(have.Members, w.Set.Members)) {
				s.fail("two sets for %q: %v and %v (node %d, %s)", w.Place.Prefix, s.show(have), s.show(w.Set), v.i, w.Phase)
			}
			sets[w.Place] = w.Set
			if w.Phase != "standby" && w.Phase != "serving" {
				s.fail("node %d is still %s to %q", v.i, w.Phase, w.Place.Prefix)
			}
			if w.InCustody > 0 {
				s.fail("node %d still has %d messages of %q in custody (%s)", v.i, w.InCustody, w.Place.Prefix, w.Phase)
			}
		}
		v.n.Owed(func(by core.NodeID, id core.Identity) {
			if slices.ContainsFunc(s.nodes, func(w *simNode) bool { return w.alive && w.id == by }) {
				s.fail("node %d still waits for %s to let go of %v", v.i, by.Peer(), id)
			}
		})
		if g := v.n.Gauges(); g.Outbox > 0 || g.Custody > 0 || g.Unsettled > 0 {
			s.fail("node %d still has %d messages in its outbox, %d in its store, %d unsettled", v.i, g.Outbox, g.Custody, g.Unsettled)
		}
		if m := v.n.Stats().Malformed; m > 0 {
			s.fail("node %d counted %d malformed frames", v.i, m)
		}
	}
	var ids []core.NodeID
	for _, v := range s.nodes {
		if v.alive {
			ids = append(ids, v.id)
		}
	}
	for place, set := range sets {
		if want := closest(place, ids); !slices.Equal(want, set.Members) {
			s.fail("the set of %q is %v, the closest nodes are %v", place.Prefix, s.show(set), s.show(core.Set{Members: want}))
		}
	}
}

// checkRetained asks every node for all that is retained: they must agree, and have the last that came.
func (s *sim) checkRetained() {
	var first map[string]string
	for _, v := range s.nodes {
		if !v.alive {
			continue
		}
		found, done := map[string]string{}, false
		v.do(func() {
			v.n.Retained("#", func(ms []*proto.Message) {
				for _, m := range ms {
					if _, twice := found[m.Topic]; twice {
						s.fail("node %d finds %q retained twice", v.i, m.Topic)
					}
					found[m.Topic] = string(m.Properties)
				}
			}, func() { done = true })
		})
		s.run(2 * time.Second)
		if !done {
			s.fail("node %d got no answer for what is retained", v.i)
		}
		if first == nil {
			first = found
		}
		if !maps.Equal(first, found) {
			s.fail("node %d finds %q retained, another %q", v.i, found, first)
		}
	}
	if s.loss {
		return // who came last is not always clear while nodes come and go
	}
	for name, last := range s.lastRetained() {
		if want := string(last.m.Properties); len(last.m.Payload) > 0 && first[name] != want || len(last.m.Payload) == 0 && first[name] != "" {
			s.fail("%q holds %q retained, the last was %q with payload %q", name, first[name], want, last.m.Payload)
		}
	}
}

// lastRetained returns the last retained message of each topic, where it is clear which came last.
func (s *sim) lastRetained() map[string]*published {
	last := map[string]*published{}
	for _, p := range s.published {
		if !p.m.Retain {
			continue
		}
		if q := last[p.m.Topic]; p.cut || q != nil && (p.at-q.at < time.Second || q.cut) {
			p.unclear = true
		}
		last[p.m.Topic] = p
	}
	for name, p := range last {
		if p.unclear {
			delete(last, name)
		}
	}
	return last
}

func (s *sim) show(set core.Set) string {
	var m []string
	for _, id := range set.Members {
		m = append(m, fmt.Sprint(slices.IndexFunc(s.nodes, func(v *simNode) bool { return v.id == id })))
	}
	return fmt.Sprintf("v%d{%s}", set.Version, strings.Join(m, " "))
}

// closest is the slow and obvious way.
func closest(place core.Place, ids []core.NodeID) []core.NodeID {
	at := place.Location()
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b core.NodeID) int {
		if at.Closer(point(a), point(b)) {
			return -1
		}
		return 1
	})
	return ids[:min(len(ids), core.SetSize)]
}

// links describes who is connected to whom, for a failing seed.
func (s *sim) describe() string {
	var b strings.Builder
	for _, v := range s.nodes {
		fmt.Fprintf(&b, "node %d alive %v leaving %v up %v:", v.i, v.alive, v.leaving, v.up)
		for _, p := range v.n.Peers() {
			i := slices.IndexFunc(s.nodes, func(w *simNode) bool { return w.id == p.ID })
			fmt.Fprintf(&b, " %d(up %v reach %v left %v gone %v)", i, p.Up, p.InReach, p.Left, p.Gone)
		}
		b.WriteString(v.n.Kept())
		b.WriteString(v.n.Outbox())
		b.WriteByte('\n')
	}
	return b.String()
}
