package core

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
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
	have := n.cfg.Retained.Get(l.at, k.Message.Topic)
	lim := &n.cfg.Limits
	bytes := n.cfg.Retained.Bytes() + k.Message.Size()
	switch {
	case k.Cleared:
	case have == nil || have.Cleared:
		if n.cfg.Retained.Total() >= lim.RetainedTopics || bytes > lim.RetainedBytes {
			n.stats.DroppedRetained++
			return
		}
	case bytes-have.Message.Size() > lim.RetainedBytes && k.Message.Size() > have.Message.Size():
		// What it replaces is not true any more.
		n.stats.DroppedRetained++
		k = &Kept{Message: &proto.Message{Topic: k.Message.Topic, Retain: true}, Stamp: k.Stamp, ID: k.ID, Cleared: true}
	}
	if k.Cleared && (have == nil || !have.Cleared) && n.tombstonesFull(k) {
		n.stats.DroppedRetained++ // what a member out of reach has may come back
		if have != nil && k.Newer(have) {
			n.cfg.Retained.Delete(l.at, k.Message.Topic)
		}
		return
	}
	n.seeStamp(k.Stamp)
	n.stands(l)
	n.cfg.Retained.Set(l.at, k)
}

func (n *Node) tombstonesFull(k *Kept) bool {
	number, bytes := n.cfg.Retained.Tombstones()
	return number >= n.cfg.Limits.RetainedTopics || bytes+k.Message.Size() > n.cfg.Limits.RetainedBytes
}

// retain keeps a message that has been stamped here, and has the other members keep it.
func (n *Node) retain(l *location, e *entry) {
	k := &Kept{Message: e.m, Stamp: e.stamp, ID: e.id, Cleared: len(e.m.Payload) == 0}
	if k.Cleared {
		k.Message = &proto.Message{Topic: e.m.Topic, Retain: true}
	}
	n.keepRetained(l, k)
	n.keepElsewhere(l, k, func() func(bool) {
		e.pinned++
		e.keeping++
		return func(bool) {
			e.pinned--
			if e.keeping--; e.keeping == 0 && e.whenKept != nil {
				e.whenKept()
			}
			n.finish(e)
		}
	})
}

// keepElsewhere has the other members of a location keep a retained message. each, which may be nil, is called before
// each of them is asked, and returns what is to be called when it has answered.
func (n *Node) keepElsewhere(l *location, k *Kept, each func() (answered func(bool))) {
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
		answered := func(bool) {}
		if each != nil {
			answered = each()
		}
		n.request(m, func(op uint64) any {
			return &pb.Retain{Op: op, Place: l.place.pb(), Retained: []*pb.RetainedMessage{n.keptToPB(k)}, Set: l.set.pb()}
		}, answered)
	}
}

func (n *Node) receiveRetain(p *peer, f *pb.Retain) {
	place, ok := placeOf(f.GetPlace())
	l := n.memberOf(p, place, f.GetSet())
	if !ok || l == nil {
		n.ack(p.id, f.GetOp())
		return
	}
	for _, k := range f.GetRetained() {
		n.keepRetained(l, n.keptOf(k))
	}
	n.ackSafe(p.id, f.GetOp())
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
	maps.DeleteFunc(l.children, func(child Place, at time.Duration) bool {
		old := n.now-at > MaxHold
		if old {
			n.cfg.Journal.Delete(childKey(l.at, child))
		}
		return old
	})
	old := (n.millis() - min(n.millis(), uint64(MaxHold/time.Millisecond))) << 16
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
	if l.feeding[to] {
		return // it is being sent already
	}
	put(&l.feeding, to, true)
	var topics []string
	n.eachRetained(l, func(k *Kept) { topics = append(topics, k.Message.Topic) })
	p := &pump{n: n, to: to, done: func(bool) { delete(l.feeding, to) }}
	p.next = func() (func(op uint64) any, func(bool)) {
		f := &pb.Retain{Place: l.place.pb(), Set: l.set.pb()}
		for size := 0; len(topics) > 0 && size < proto.SoftFrame; topics = topics[1:] {
			if k := n.cfg.Retained.Get(l.at, topics[0]); k != nil {
				f.Retained = append(f.Retained, n.keptToPB(k))
				size += 64 + k.Message.Size()
			}
		}
		if len(f.GetRetained()) == 0 {
			return nil, nil
		}
		return func(op uint64) any { f.Op = op; return f }, func(bool) {}
	}
	p.run()
}

// Listing: the place above a location keeps a list of those below that hold retained messages, so that a
// subscription with a wildcard finds them. A location is listed before its first one is acknowledged.

// relistEvery is how often a location says again that it holds retained messages, so that one that no longer does
// leaves the list: after MaxHold.
const relistEvery = 6 * time.Hour

// addChild puts a place on the list, unless there are too many.
func (n *Node) addChild(l *location, child Place) bool {
	if _, there := l.children[child]; !there && len(l.children) >= n.cfg.Limits.Locations {
		n.stats.DroppedRetained++
		return false
	}
	if _, there := l.children[child]; !there {
		n.stands(l)
		n.cfg.Journal.Put(childKey(l.at, child), &pb.StoredLocation{})
	}
	put(&l.children, child, n.now)
	return true
}

func (l *location) sortedChildren() []Place {
	c := make([]Place, 0, len(l.children))
	for p := range l.children {
		c = append(c, p)
	}
	slices.SortFunc(c, func(a, b Place) int { return strings.Compare(a.Prefix, b.Prefix) })
	return c
}

// freshChild is for how long a child that was heard of is one that members tell each other of: those that are about to leave the
// list must not come back to it from another member, over and over.
const freshChild = 4 * relistEvery

// freshChildren returns the children that were heard of not long ago, in order.
func (n *Node) freshChildren(l *location) []Place {
	return slices.DeleteFunc(l.sortedChildren(), func(c Place) bool { return n.now-l.children[c] > freshChild })
}

// childrenSum is the same at two members that have the same list of children.
func (n *Node) childrenSum(l *location) (sum uint64) {
	for c, heard := range l.children {
		if n.now-heard <= freshChild {
			sum += hash(Identity{Seq: uint64(c.Depth)}, proto.Group{Name: c.Prefix}, "") //nolint:gosec // a count of levels
		}
	}
	return sum
}

// sendChildren sends the list of children to another member.
func (n *Node) sendChildren(l *location, to NodeID) {
	children := n.freshChildren(l)
	p := &pump{n: n, to: to, done: func(bool) {}}
	p.next = func() (func(op uint64) any, func(bool)) {
		f := &pb.Replicate{Place: l.place.pb(), Set: l.set.pb(), Sync: true}
		for size := 0; len(children) > 0 && size < proto.SoftFrame; children = children[1:] {
			f.Children = append(f.Children, children[0].pb())
			size += 16 + len(children[0].Prefix)
		}
		if len(f.GetChildren()) == 0 {
			return nil, nil
		}
		return func(op uint64) any { f.Op = op; return f }, func(bool) {}
	}
	p.run()
}

// whenListed calls f when the location is listed above, or cannot be for longer than a publisher waits.
func (n *Node) whenListed(l *location, m *proto.Message, f func()) {
	if l.listed || !m.Retain || len(m.Payload) == 0 || l.place.Depth == 0 {
		f()
		return
	}
	n.awaitListed(l, func(bool) { f() })
}

// awaitListed has a location listed above, and calls f when it is, or cannot be for a while.
func (n *Node) awaitListed(l *location, f func(ok bool)) {
	w := &listWaiter{f}
	l.onListed = append(l.onListed, w)
	n.timers.set(n.now+promiseTime, func() { w.answer(false) })
	n.list(l)
}

// listWaiter waits until a location is listed. call is nil when it does no more.
type listWaiter struct{ call func(ok bool) }

func (w *listWaiter) answer(ok bool) {
	if call := w.call; call != nil {
		w.call = nil
		call(ok)
	}
}

// list has a location put on the list of the place above.
func (n *Node) list(l *location) {
	if l.listing || l.listed {
		return
	}
	l.listing = true
	parent := l.above[0].place
	n.listAt(parent, l.place, 0, func(ok bool) {
		l.listing, l.listedAt = false, n.now
		if !ok {
			return
		}
		l.listed = true
		waiters := l.onListed
		l.onListed = nil
		for _, w := range waiters {
			w.answer(true)
		}
	})
}

// relistAfter is how long after a location could not be listed that is tried again where nobody waits for it.
const relistAfter = 10 * time.Second

// tickListing has a location listed that holds retained messages, or lists some that do: who was its rendezvous before may not have come to it.
func (n *Node) tickListing(l *location, full bool) {
	l.onListed = slices.DeleteFunc(l.onListed, func(w *listWaiter) bool { return w.call == nil })
	waited := len(l.onListed) > 0
	if !waited && !full || l.place.Depth == 0 || n.cfg.Retained.Len(l.at) == 0 && len(l.children) == 0 {
		return
	}
	if since := n.now - l.listedAt; l.listed && since > relistEvery {
		l.listed = false
	} else if waited || since > relistAfter {
		n.list(l)
	}
}

// listAt puts a child on the list of a place, here or at the place's rendezvous.
func (n *Node) listAt(place, child Place, hops uint32, done func(ok bool)) {
	l := n.locate(place, place.Location())
	to := n.route(place).hop
	switch {
	case l == nil:
	case l.undecided():
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
	if !n.addChild(l, child) {
		done(false)
		return
	}
	g := &gather{n: n}
	members := slices.Clone(l.set.Members)
	if l.change != nil { // who comes in may have been sent the list already
		members = append(members, l.change.members...)
	}
	asked := map[NodeID]bool{n.self: true}
	for _, m := range members {
		if !asked[m] && n.inReach(m) {
			asked[m] = true
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
		n.awaitListed(l, done)
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
			n.ackSafe(p.id, f.GetOp())
		} else {
			n.refuse(p.id, f.GetOp())
		}
	})
}
