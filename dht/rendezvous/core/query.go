package core

import (
	"slices"
	"strings"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// query is a search for retained messages.
type query struct {
	filter string
	each   func([]*proto.Message)
	done   func()
	tries  map[Place]uint32
	ops    map[uint64][]Place // asked of other nodes, and not answered in full
	local  int                // places of this node's own that are not decided yet
	until  time.Duration
	over   bool
}

// queryTime bounds how long a subscription waits for retained messages.
const queryTime = 5 * time.Second

// Retained asks for the retained messages that match a filter: each is called with some at a time, then done.
func (n *Node) Retained(filter string, each func([]*proto.Message), done func()) {
	prefix, depth := topic.FirstLevel(filter)
	q := &query{filter: filter, each: each, done: done, tries: map[Place]uint32{}, ops: map[uint64][]Place{}, until: n.now + queryTime}
	n.asked = append(n.asked, q)
	n.askRetained(q, []Place{{prefix, depth}})
	n.endQuery(q)
}

// askRetained asks the rendezvous of some places, node by node.
func (n *Node) askRetained(q *query, places []Place) {
	q.local++ // not over before all of them have been asked
	defer func() { q.local-- }()
	byNode := map[NodeID][]Place{}
	for _, p := range places {
		if q.tries[p]++; q.tries[p] > 4 {
			continue
		}
		r := n.route(p)
		if r.set.Version == 0 && q.tries[p] == 1 && n.large() {
			q.local++
			n.lookUp(p, func() {
				q.local--
				n.askRetained(q, []Place{p})
				n.endQuery(q)
			})
			continue
		}
		if r.hop != "" {
			byNode[r.hop] = append(byNode[r.hop], p)
		}
	}
	for _, to := range sortedKeys(byNode) {
		ps := byNode[to]
		tries := uint32(0)
		f := &pb.RetainedQuery{Filter: q.filter}
		for _, p := range ps {
			f.Places = append(f.Places, p.pb())
			tries = max(tries, q.tries[p]-1)
		}
		f.Tries = tries
		if to == n.self {
			q.local++
			n.answerRetained(q.filter, ps, tries, func(r *pb.RetainedReply) { n.retainedReply(q, r, true) })
			continue
		}
		n.need(to)
		n.request(to, func(op uint64) any {
			f.Op = op
			q.ops[op] = ps
			n.queries[op] = q
			return f
		}, func(ok bool) {
			if !ok && !q.over {
				delete(q.ops, f.Op)
				delete(n.queries, f.Op)
				n.askRetained(q, ps)
				n.endQuery(q)
			}
		})
	}
}

// answerRetained answers for the places that this node serves, in as many replies as it takes, when it is
// decided for each of them whether it does.
func (n *Node) answerRetained(filter string, places []Place, tries uint32, reply func(*pb.RetainedReply)) {
	r := &pb.RetainedReply{}
	size := 0
	for i, place := range places {
		l := n.locate(place, place.Location())
		switch {
		case l == nil || l.phase == filling || l.phase == relinquishing && tries == 0 || l.phase == standby && tries == 0:
			set := n.route(place).set
			if l != nil && l.set.Version > 0 {
				set = l.set
			}
			r.Elsewhere = append(r.Elsewhere, &pb.SetNews{Place: place.pb(), Set: set.pb()})
			continue
		case l.undecided():
			l.calls = append(l.calls, func() { n.answerRetained(filter, places[i:], tries, reply) })
			if i > 0 {
				reply(r)
			}
			return
		}
		for _, c := range l.sortedChildren() {
			if topic.MayMatchBelow(filter, c.Prefix) {
				r.Children = append(r.Children, c.pb())
			}
		}
		var found []*Kept
		n.cfg.Retained.Match(l.at, filter, func(k *Kept) bool {
			found = append(found, k)
			return true
		})
		slices.SortFunc(found, func(a, b *Kept) int { return strings.Compare(a.Message.Topic, b.Message.Topic) })
		for _, k := range found {
			if k.Cleared || k.Message.Expired(n.wall) {
				continue
			}
			r.Retained = append(r.Retained, n.keptToPB(k))
			if size += 64 + k.Message.Size(); size > n.cfg.Limits.RetainedReply {
				reply(r)
				r, size = &pb.RetainedReply{}, 0
			}
		}
	}
	r.Last = true
	reply(r)
}

func (n *Node) receiveRetainedQuery(p *peer, f *pb.RetainedQuery) {
	if topic.ValidFilter(f.GetFilter(), topic.Limits{}) != nil {
		n.malformed("RetainedQuery")
		return
	}
	var places []Place
	for _, q := range f.GetPlaces() {
		if place, ok := placeOf(q); ok {
			places = append(places, place)
		}
	}
	op := f.GetOp()
	n.answerRetained(f.GetFilter(), places, f.GetTries(), func(r *pb.RetainedReply) {
		r.Op = op
		n.send(p.id, r)
	})
}

func (n *Node) receiveRetainedReply(p *peer, f *pb.RetainedReply) {
	q := n.queries[f.GetOp()]
	if _, waits := p.ops[f.GetOp()]; q == nil || !waits {
		return
	}
	if f.GetLast() {
		delete(p.ops, f.GetOp())
		delete(q.ops, f.GetOp())
		delete(n.queries, f.GetOp())
	}
	n.retainedReply(q, f, false)
}

func (n *Node) retainedReply(q *query, f *pb.RetainedReply, local bool) {
	if local && f.GetLast() {
		q.local--
	}
	var found []*proto.Message
	for _, k := range f.GetRetained() {
		if m := n.messageOf(k.GetMessage()); m != nil {
			m.Retain = true
			found = append(found, m)
		}
	}
	if len(found) > 0 && !q.over {
		n.call(func() { q.each(found) })
	}
	var next []Place
	for _, c := range f.GetChildren() {
		if place, ok := placeOf(c); ok && q.tries[place] == 0 {
			next = append(next, place)
		}
	}
	for _, e := range f.GetElsewhere() {
		place, ok := placeOf(e.GetPlace())
		if !ok {
			continue
		}
		if set, ok := setOf(e.GetSet(), place.Location()); ok {
			n.learnSet(place, set)
		}
		next = append(next, place)
	}
	n.askRetained(q, next)
	n.endQuery(q)
}

func (n *Node) endQuery(q *query) {
	if q.over || len(q.ops) > 0 || q.local > 0 {
		return
	}
	q.over = true
	n.asked = slices.DeleteFunc(n.asked, func(o *query) bool { return o == q })
	n.call(q.done)
}

func (n *Node) tickQueries() {
	for _, q := range slices.Clone(n.asked) {
		if n.now < q.until {
			continue
		}
		for op := range q.ops {
			delete(n.queries, op)
		}
		clear(q.ops)
		q.local = 0
		n.endQuery(q)
	}
}
