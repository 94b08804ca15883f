package core

import (
	"math"
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
	until  time.Duration      // the next answer comes by then
	again  time.Duration      // what nobody could be asked about is tried again until then
	over   bool
}

// What is ours to tune.
const (
	// queryTime bounds how long a search waits for the next answer.
	queryTime = 5 * time.Second
	// maxQueries bounds the searches at a time, and queryPage how many bytes of retained messages a node sends for
	// one question: so much may come at once.
	maxQueries = 8
	queryPage  = 4 << 20
	// queryTries is how often a place is asked for in a row, where others are responsible than was thought, and queryPause how
	// long until it is tried again, as where nobody responsible can be reached: at a start, or while a set changes.
	queryTries = 4
	queryPause = 200 * time.Millisecond
	// blankPauses is how many pauses a node that was away waits at most for what it missed, before it answers.
	blankPauses = 10
)

// Retained asks for the retained messages that match a filter: each is called with some at a time, then done.
func (n *Node) Retained(filter string, each func([]*proto.Message), done func()) {
	n.toAsk.push(&query{filter: filter, each: each, done: done, tries: map[Place]uint32{}, ops: map[uint64][]Place{}})
	n.startQueries()
}

func (n *Node) startQueries() {
	for n.toAsk.len() > 0 && len(n.asked) < maxQueries {
		q := n.toAsk.pop()
		q.until, q.again = n.now+queryTime, n.now+queryTime
		n.asked = append(n.asked, q)
		prefix, depth := topic.FirstLevel(q.filter)
		n.askRetained(q, []Place{{prefix, depth}})
		n.endQuery(q)
	}
}

// askRetained asks the rendezvous of some places, node by node.
func (n *Node) askRetained(q *query, places []Place) {
	q.local++ // not over before all of them have been asked
	defer func() { q.local-- }()
	byNode := map[NodeID][]Place{}
	for _, p := range places {
		r := n.route(p)
		if q.tries[p]++; q.tries[p] > queryTries {
			n.askLater(q, p)
			continue
		}
		if r.set.Version == 0 && q.tries[p] == 1 && n.large() {
			q.local++
			n.lookUp(p, func() {
				q.local--
				n.askRetained(q, []Place{p})
				n.endQuery(q)
			})
			continue
		}
		if r.hop == "" {
			n.askLater(q, p)
			continue
		}
		byNode[r.hop] = append(byNode[r.hop], p)
	}
	for _, to := range sortedKeys(byNode) {
		if to == n.self {
			q.local++
			n.answerRetained(question{q.filter, byNode[to], "", q.tried(byNode[to]), math.MaxInt, 0},
				func(r *pb.RetainedReply) { n.retainedReply(q, r, n.self) })
			continue
		}
		n.askNode(q, to, byNode[to], "")
	}
}

// askLater asks for a place again in a while.
func (n *Node) askLater(q *query, p Place) {
	if q.over || n.now >= q.again {
		return
	}
	q.local++
	n.timers.set(n.now+queryPause, func() {
		if q.over {
			return
		}
		q.local--
		q.tries[p] = 1 // those that were responsible before answer too
		n.askRetained(q, []Place{p})
		n.endQuery(q)
	})
}

// tried is how often places were asked for before.
func (q *query) tried(places []Place) (tries uint32) {
	for _, p := range places {
		tries = max(tries, q.tries[p]-1)
	}
	return tries
}

// askNode asks a node for what is retained at some places, at the first of them behind a topic.
func (n *Node) askNode(q *query, to NodeID, places []Place, after string) {
	f := &pb.RetainedQuery{Filter: q.filter, After: after, Tries: q.tried(places)}
	for _, p := range places {
		f.Places = append(f.Places, p.pb())
	}
	n.need(to)
	n.request(to, func(op uint64) any {
		f.Op = op
		q.ops[op] = places
		n.queries[op] = q
		return f
	}, func(ok bool) {
		if !ok && !q.over {
			delete(q.ops, f.Op)
			delete(n.queries, f.Op)
			n.askRetained(q, places)
			n.endQuery(q)
		}
	})
}

// question is what a node asks another, or itself.
type question struct {
	filter string
	places []Place
	after  string // at the first place, topics behind this one
	tries  uint32
	page   int // how many bytes may be answered
	waited int // times queryPause, for this node to have what it missed
}

// answerRetained answers for the places that this node serves, in as many replies as it takes, when it is
// decided for each of them whether it does.
func (n *Node) answerRetained(q question, reply func(*pb.RetainedReply)) {
	r := &pb.RetainedReply{}
	size := 0
	for i, place := range q.places {
		after := ""
		if i == 0 {
			after = q.after
		}
		l := n.locate(place, place.Location())
		switch {
		case l == nil || l.phase == filling || l.phase == relinquishing && q.tries == 0 || l.phase == standby && q.tries == 0:
			set := n.setOf(place)
			if l != nil && l.set.Version > 0 {
				set = l.set
			}
			r.Elsewhere = append(r.Elsewhere, &pb.SetNews{Place: place.pb(), Set: set.pb()})
			continue
		case l.undecided():
			rest := question{q.filter, q.places[i:], after, q.tries, q.page, q.waited}
			l.calls = append(l.calls, func() { n.answerRetained(rest, reply) })
			if i > 0 {
				reply(r)
			}
			return
		}
		if l.blank != nil && q.waited < blankPauses { // it was away, and what it has may not be true any more
			rest := question{q.filter, q.places[i:], after, q.tries, q.page, q.waited + 1}
			n.timers.set(n.now+queryPause, func() { n.answerRetained(rest, reply) })
			if i > 0 {
				reply(r)
			}
			return
		}
		for _, c := range l.sortedChildren() {
			if after == "" && topic.MayMatchBelow(q.filter, c.Prefix) {
				r.Children = append(r.Children, c.pb())
				if size += 16 + len(c.Prefix); size > n.cfg.Limits.RetainedReply {
					reply(r)
					r, size = &pb.RetainedReply{}, 0
				}
			}
		}
		var found []*Kept
		n.cfg.Retained.Match(l.at, q.filter, func(k *Kept) bool {
			if k.Message.Topic > after {
				found = append(found, k)
			}
			return true
		})
		slices.SortFunc(found, func(a, b *Kept) int { return strings.Compare(a.Message.Topic, b.Message.Topic) })
		for _, k := range found {
			if k.Cleared || k.Message.Expired(n.wall) {
				continue
			}
			r.Retained = append(r.Retained, n.keptToPB(k))
			by := 64 + k.Message.Size()
			if q.page -= by; q.page <= 0 {
				r.Last, r.After = true, k.Message.Topic
				for _, p := range q.places[i:] {
					r.Rest = append(r.Rest, p.pb())
				}
				reply(r)
				return
			}
			if size += by; size > n.cfg.Limits.RetainedReply {
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
	n.answerRetained(question{f.GetFilter(), places, f.GetAfter(), f.GetTries(), queryPage, 0}, func(r *pb.RetainedReply) {
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
	n.retainedReply(q, f, p.id)
}

func (n *Node) retainedReply(q *query, f *pb.RetainedReply, from NodeID) {
	if from == n.self && f.GetLast() {
		q.local--
	}
	q.until = n.now + queryTime
	var rest []Place
	for _, c := range f.GetRest() {
		if place, ok := placeOf(c); ok {
			rest = append(rest, place)
		}
	}
	if len(rest) > 0 && from != n.self && !q.over {
		n.askNode(q, from, rest, f.GetAfter())
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
	n.startQueries()
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
