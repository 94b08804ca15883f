package core

import (
	"slices"
	"strings"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// keepRetained keeps a retained message at a location.
func (n *Node) keepRetained(l *location, k *Kept) {
	if k == nil {
		return
	}
	if prefix, depth := dht.Prefix(k.Message.Topic, l.place.Depth); prefix != l.place.Prefix || depth != l.place.Depth {
		n.malformed("keepRetained")
		return
	}
	full := n.cfg.Retained.Total() >= n.cfg.Limits.RetainedTopics || n.cfg.Retained.Bytes() >= n.cfg.Limits.RetainedBytes
	if full && !k.Cleared && n.cfg.Retained.Get(l.at, k.Message.Topic) == nil {
		n.stats.DroppedRetained++
		return
	}
	n.clock = max(n.clock, min(k.Stamp, n.furthest()))
	n.cfg.Retained.Set(l.at, k)
}

// furthest is how far another node's stamps may take this node's clock along: a clock that is a day ahead
// must not make every stamp of the swarm meaningless.
func (n *Node) furthest() uint64 {
	return uint64(max(0, n.wall.Add(24*time.Hour).UnixMilli())) << 16 //nolint:gosec // not negative
}

// retain keeps a message that has been stamped here, and has the other members keep it.
func (n *Node) retain(l *location, e *entry) {
	k := &Kept{Message: e.m, Stamp: e.stamp, ID: e.id, Cleared: len(e.m.Payload) == 0}
	if k.Cleared {
		k.Message = &proto.Message{Topic: e.m.Topic, Retain: true}
	}
	n.keepRetained(l, k)
	members := l.set.Members
	if l.change != nil {
		members = append(slices.Clone(members), l.change.members...)
	}
	asked := map[NodeID]bool{n.self: true}
	for _, m := range members {
		if asked[m] || !n.inReach(m) {
			continue
		}
		asked[m] = true
		e.pinned++
		n.request(m, func(op uint64) any {
			return &pb.Retain{Op: op, Place: l.place.pb(), Retained: []*pb.RetainedMessage{n.keptToPB(k)}}
		}, func(bool) {
			e.pinned--
			n.finish(e)
		})
	}
}

func (n *Node) receiveRetain(p *peer, f *pb.Retain) {
	place, ok := placeOf(f.GetPlace())
	l := n.locations[place.Location()]
	if !ok || l == nil {
		n.ack(p.id, f.GetOp())
		return
	}
	for _, k := range f.GetRetained() {
		n.keepRetained(l, n.keptOf(k))
	}
	n.ack(p.id, f.GetOp())
}

func (n *Node) keptToPB(k *Kept) *pb.RetainedMessage {
	return &pb.RetainedMessage{Message: n.messageToPB(k.Message), Stamp: k.Stamp, Epoch: k.ID.Epoch, Seq: k.ID.Seq, Cleared: k.Cleared}
}

func (n *Node) keptOf(p *pb.RetainedMessage) *Kept {
	m := n.messageOf(p.GetMessage())
	if m == nil || p.GetStamp() == 0 {
		return nil
	}
	return &Kept{Message: m, Stamp: p.GetStamp(), ID: Identity{p.GetEpoch(), p.GetSeq()}, Cleared: p.GetCleared()}
}

// sweepEvery is how often what is retained at a location is gone through.
const sweepEvery = 10 * time.Minute

// sweep forgets retained messages whose life is over, and tombstones that have served their time.
func (n *Node) sweep(l *location) {
	if n.now-l.swept < sweepEvery {
		return
	}
	l.swept = n.now
	old := uint64(max(0, n.wall.Add(-MaxHold).UnixMilli())) << 16 //nolint:gosec // not negative
	n.eachRetained(l, func(k *Kept) {
		if k.Cleared && k.Stamp < old || k.Message.Expired(n.wall) {
			n.cfg.Retained.Delete(l.at, k.Message.Topic)
		}
	})
}

func (n *Node) eachRetained(l *location, visit func(*Kept)) {
	var all []*Kept
	n.cfg.Retained.Match(l.at, "#", func(k *Kept) bool {
		all = append(all, k)
		return true
	})
	slices.SortFunc(all, func(a, b *Kept) int { return strings.Compare(a.Message.Topic, b.Message.Topic) })
	for _, k := range all {
		visit(k)
	}
}

// retainedSum is the same at two members that keep the same retained messages.
func (n *Node) retainedSum(l *location) uint64 {
	var sum uint64
	n.cfg.Retained.Match(l.at, "#", func(k *Kept) bool {
		sum += hash(Identity{k.Stamp, k.ID.Seq}, proto.Group{Name: k.Message.Topic}, "")
		return true
	})
	return sum
}

// sendRetained sends everything retained at a location to another member, which keeps what is newer.
func (n *Node) sendRetained(l *location, to NodeID) {
	var batch []*pb.RetainedMessage
	size := 0
	flush := func() {
		f := &pb.Retain{Place: l.place.pb(), Retained: batch}
		batch, size = nil, 0
		n.request(to, func(op uint64) any { f.Op = op; return f }, func(bool) {})
	}
	n.eachRetained(l, func(k *Kept) {
		batch = append(batch, n.keptToPB(k))
		if size += 64 + k.Message.Size(); size > n.cfg.Limits.RetainedReply {
			flush()
		}
	})
	if len(batch) > 0 {
		flush()
	}
}

// Listing: the place above a location keeps a list of those below that hold retained messages, so that a
// subscription with a wildcard finds them. A location is listed before its first one is acknowledged.

func (l *location) sortedChildren() []Place {
	c := make([]Place, 0, len(l.children))
	for p := range l.children {
		c = append(c, p)
	}
	slices.SortFunc(c, func(a, b Place) int { return strings.Compare(a.Prefix, b.Prefix) })
	return c
}

// whenListed calls f when the location is listed above, or cannot be for longer than a publisher waits.
func (n *Node) whenListed(l *location, m *proto.Message, f func()) {
	if l.listed || !m.Retain || len(m.Payload) == 0 || l.place.Depth == 0 {
		f()
		return
	}
	called := false
	once := func() {
		if !called {
			called = true
			f()
		}
	}
	l.onListed = append(l.onListed, once)
	n.timers.set(n.now+promiseTime, once)
	n.list(l)
}

// list has a location put on the list of the place above.
func (n *Node) list(l *location) {
	if l.listing || l.listed {
		return
	}
	l.listing = true
	parent := l.above[0].place
	n.listAt(parent, l.place, 0, func(ok bool) {
		l.listing = false
		if !ok {
			return
		}
		l.listed = true
		calls := l.onListed
		l.onListed = nil
		for _, call := range calls {
			call()
		}
	})
}

func (n *Node) tickListing(l *location) {
	if len(l.onListed) > 0 {
		n.list(l)
	}
}

// listAt puts a child on the list of a place, here or at the place's rendezvous.
func (n *Node) listAt(place, child Place, hops uint32, done func(ok bool)) {
	l := n.locate(place, place.Location())
	to := n.route(place).hop
	switch {
	case l == nil:
	case l.phase == founding || l.phase == awaiting:
		l.calls = append(l.calls, func() { n.listAt(place, child, hops, done) })
		return
	case l.phase == serving:
		n.listHere(l, child, done)
		return
	case l.phase == filling:
		to = l.filler
	default:
		to = n.rendezvous(l.set)
	}
	if to == "" || to == n.self || hops >= proto.MaxHops {
		done(false)
		return
	}
	n.need(to)
	n.request(to, func(op uint64) any {
		return &pb.Child{Op: op, Parent: place.pb(), Child: child.pb(), Hops: hops}
	}, done)
}

func (n *Node) listHere(l *location, child Place, done func(ok bool)) {
	l.children[child] = true
	g := &gather{n: n}
	for _, m := range l.set.Members {
		if m != n.self && n.inReach(m) {
			g.left++
			n.request(m, func(op uint64) any {
				return &pb.Replicate{Op: op, Place: l.place.pb(), Set: l.set.pb(), Children: []*pb.Place{child.pb()}}
			}, func(bool) { g.one() })
		}
	}
	g.wait(func() {
		if l.listed || l.place.Depth == 0 {
			done(true)
			return
		}
		l.onListed = append(l.onListed, func() { done(true) })
		n.list(l)
	})
}

func (n *Node) receiveChild(p *peer, f *pb.Child) {
	parent, ok := placeOf(f.GetParent())
	child, fits := placeOf(f.GetChild())
	if !ok || !fits || parent.Depth > 1 || child.Depth <= parent.Depth {
		n.malformed("Child")
		return
	}
	n.listAt(parent, child, f.GetHops()+1, func(ok bool) {
		if ok {
			n.ack(p.id, f.GetOp())
		}
	})
}

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
			if !ok {
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
		case l.phase == founding || l.phase == awaiting:
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
	if q == nil || p.ops[f.GetOp()] == nil {
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
