package core

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// received is an epoch of messages for subscribers at this node: which numbers came for whom, until the
// rendezvous says that they cannot come again.
type received struct {
	low     uint64
	plain   spans
	groups  map[proto.Group]*spans
	open    numbered[undone]
	from    [][]NodeID // who may wait for one of open; undone has their numbers
	closed  bool       // nothing will follow
	touched time.Duration
	carried []*carriedTo // what is not done, but at another node
	opened  []openHere   // what is known to wait for few sessions alone
	through []openHere   // what some sessions are through with, before that was known, or that came for them alone
}

// Receipt stands for a message that this node's broker has and has not dealt with yet. The core keeps none: very many messages
// may wait in the queues of sessions.
type Receipt struct{ id Identity }

// undone is what the core keeps of such a message.
type undone struct {
	left   int32  // deliveries to the broker that are not done; 0: there is no such message
	from   uint16 // who waits to hear that it is done: their number in received.from
	stored bool   // they were told that it need not be sent again
}

// Identity returns the message's.
func (c *Receipt) Identity() Identity { return c.id }

// Receipt returns one of a message that the broker has; nil where it has none.
func (n *Node) Receipt(id Identity) *Receipt {
	if r := n.epochs[id.Epoch]; r != nil && r.open.get(id.Seq).left > 0 {
		return &Receipt{id}
	}
	return nil
}

// waiting returns who waits to hear that a message is done.
func (r *received) waiting(u undone) []NodeID {
	if len(r.from) == 0 {
		return nil
	}
	return r.from[u.from]
}

// maxWaiting bounds how many different groups of nodes wait for messages of an epoch: rendezvous and who may become one.
const maxWaiting = 1000

// willTell has a node hear when a message is done, and reports whether that is news.
func (n *Node) willTell(r *received, u *undone, node NodeID) bool {
	if len(r.from) == 0 {
		r.from = append(r.from, nil) // the first group is nobody
	}
	old := r.from[u.from]
	if slices.Contains(old, node) {
		return false
	}
	for i, group := range r.from {
		if len(group) == len(old)+1 && group[len(old)] == node && slices.Equal(group[:len(old)], old) {
			u.from = uint16(i) //nolint:gosec // maxWaiting
			return true
		}
	}
	if len(r.from) >= maxWaiting {
		n.stats.WaitersFull++
		return false // it asks again when its link is made anew
	}
	r.from = append(r.from, append(slices.Clone(old), node))
	u.from = uint16(len(r.from) - 1) //nolint:gosec // maxWaiting
	return true
}

// group returns the numbers that came for a shared subscription.
func (r *received) group(g proto.Group) *spans {
	s := r.groups[g]
	if s == nil {
		s = new(spans)
		put(&r.groups, g, s)
	}
	return s
}

// cameFor reports whether a message came for a group.
func (r *received) cameFor(g proto.Group, seq uint64) bool {
	s := r.groups[g]
	return s != nil && s.has(seq)
}

// nothing reports whether no number is remembered: what was said to close the epoch knows all of it.
func (r *received) nothing() bool {
	for _, s := range r.groups {
		if len(*s) > 0 {
			return false
		}
	}
	return len(r.plain) == 0
}

func (n *Node) received(epoch uint64) *received {
	r := n.epochs[epoch]
	if r == nil {
		r = &received{}
		n.epochs[epoch] = r
	}
	r.touched = n.now
	return r
}

func (n *Node) forgetUpto(epoch uint64, r *received, upto uint64) {
	if upto <= r.low {
		return
	}
	r.low = upto
	n.cfg.Received.Forget(epoch, upto)
	r.plain.trim(upto)
	r.trimCarried(upto)
	r.trimOpened(upto)
	for g, s := range r.groups {
		if s.trim(upto); len(*s) == 0 {
			delete(r.groups, g)
		}
	}
}

func (n *Node) receiveDeliver(p *peer, f *proto.Deliver) {
	if f.Epoch != 0 {
		f.Message = f.Message.Clone() // it outlives the buffer that it came in
	}
	n.deliverHere(p.id, f)
}

// deliverHere gives a message to this node's broker, once for each addressee, whoever sends it however often.
func (n *Node) deliverHere(from NodeID, f *proto.Deliver) {
	if f.Epoch == 0 {
		n.stats.Delivered++
		n.out = append(n.out, Effect{Kind: Deliver, Delivery: Delivery{Message: f.Message, Plain: f.Plain, Groups: f.Groups}})
		return
	}
	id := Identity{f.Epoch, f.Seq}
	r := n.received(f.Epoch)
	n.forgetUpto(f.Epoch, r, f.Forget)
	if f.Seq <= r.low {
		n.stats.Duplicates++
		n.answerDone(from, r, id)
		return
	}
	plain := f.Plain && r.plain.add(f.Seq)
	if s := n.mine[f.Epoch]; s != nil && s.served.has(f.Seq) {
		plain = false // on its way it came by a node that was not to be told who published it
	}
	groups := f.Groups[:0:0]
	for _, g := range f.Groups {
		if r.group(g).add(f.Seq) {
			groups = append(groups, g)
		}
	}
	u := r.open.get(f.Seq)
	if !plain && len(groups) == 0 {
		n.stats.Duplicates++
		if u.left == 0 {
			n.answerDone(from, r, id)
			return
		}
		if n.willTell(r, &u, from) {
			u.stored = false
			r.open.put(f.Seq, u)
			n.unstored.push(id)
		}
		n.answerOpen(from, id, r)
		return
	}
	n.willTell(r, &u, from)
	u.left++
	r.open.put(f.Seq, u)
	n.unstored.push(id)
	n.stats.Delivered++
	d := Delivery{Message: f.Message, Plain: plain, Groups: groups, Receipt: &Receipt{id}, Recent: f.Recent}
	if s := n.mine[f.Epoch]; s != nil {
		if e := s.open.get(f.Seq); e != nil {
			d.Origin = e.origin
		} else if from == n.self {
			d.Origin = n.ownOrigin(id)
		}
	}
	n.out = append(n.out, Effect{Kind: Deliver, Delivery: d})
}

// deliverOwn gives a message of this node's clients to its own plain subscribers before it goes to its rendezvous, which
// sends it here again: for the case that this node crashes before what they have is safe.
func (n *Node) deliverOwn(e *pending) {
	r := n.received(e.epoch.id)
	if !r.plain.add(e.seq) {
		return
	}
	r.open.put(e.seq, undone{left: 1})
	n.stats.Delivered++
	n.out = append(n.out, Effect{Kind: Deliver, Delivery: Delivery{Message: e.m, Plain: true, Origin: e.origin, Receipt: &Receipt{e.id()}, Recent: n.now-e.at < recentFor}})
}

// receiveRecall tells another rendezvous, or the same one after its link broke, what became of messages that
// were stored here.
func (n *Node) receiveRecall(p *peer, f *pb.Recall) {
	for _, rs := range f.GetStored() {
		r := n.epochs[rs.GetEpoch()]
		budget := epochSize
		for _, g := range rs.GetRanges() {
			for seq := g.GetFrom(); seq <= g.GetTo() && budget > 0; seq++ {
				budget--
				var u undone
				if r != nil {
					u = r.open.get(seq)
				}
				if u.left == 0 {
					n.answerDone(p.id, r, Identity{rs.GetEpoch(), seq})
				} else {
					if n.willTell(r, &u, p.id) {
						r.open.put(seq, u)
					}
					n.answerOpen(p.id, Identity{rs.GetEpoch(), seq}, r)
				}
			}
		}
	}
}

// ownOrigin finds the client of a message that this node publishes and serves itself.
func (n *Node) ownOrigin(id Identity) any {
	if e := n.entryOf(id); e != nil && e.own != nil {
		return e.own.origin
	}
	return nil
}

// Done tells that the broker needs a delivered message no more.
func (n *Node) Done(c *Receipt) {
	r := n.epochs[c.id.Epoch]
	if r == nil {
		return
	}
	u := r.open.get(c.id.Seq)
	if u.left == 0 {
		return
	}
	if u.left--; u.left > 0 {
		r.open.put(c.id.Seq, u)
		return
	}
	from := r.waiting(u)
	r.open.remove(c.id.Seq)
	if r.open.len() == 0 {
		r.from = nil
		if r.closed {
			n.forgetEpoch(c.id.Epoch)
		}
	}
	for _, node := range from {
		n.answerDone(node, r, c.id)
	}
}

// More tells that Done will come once more for a delivered message.
func (n *Node) More(c *Receipt) {
	if r := n.epochs[c.id.Epoch]; r != nil {
		if u := r.open.get(c.id.Seq); u.left > 0 {
			u.left++
			r.open.put(c.id.Seq, u)
		}
	}
}

// Refuse tells that no member of a shared subscription is left here that can take a delivered message, so that
// another node's may. Done is still to be called.
func (n *Node) Refuse(c *Receipt, g proto.Group) {
	r := n.epochs[c.id.Epoch]
	if r == nil {
		return
	}
	if r.groups[g] != nil {
		r.groups[g].remove(c.id.Seq) // it may come back, when a member does
	}
	for _, from := range r.waiting(r.open.get(c.id.Seq)) {
		if from == n.self {
			n.refused(c.id, g, n.self)
		} else if p := n.dirtyPeer(from); p != nil {
			p.refused = append(p.refused, &pb.Refusal{Epoch: c.id.Epoch, Seq: c.id.Seq, Group: &pb.Group{Name: g.Name, Filter: g.Filter}})
		}
	}
}

func (n *Node) doneWith(from NodeID, id Identity) {
	if from == n.self {
		if e := n.entryOf(id); e != nil {
			n.shareAcked(e, n.self)
		}
		return
	}
	if p := n.dirtyPeer(from); p != nil {
		p.done.add(id)
	}
}

// forgetReceived forgets what came of an epoch, up to a number, and that there was such an epoch when it is closed and the
// broker is through with it.
func (n *Node) forgetReceived(epoch, upto uint64, closed bool) {
	r := n.epochs[epoch]
	if r == nil {
		return
	}
	n.forgetUpto(epoch, r, upto)
	if r.closed = r.closed || closed && r.nothing(); r.closed && r.open.len() == 0 {
		n.forgetEpoch(epoch)
	}
}

// forgetEpoch forgets that there was an epoch.
func (n *Node) forgetEpoch(epoch uint64) {
	delete(n.epochs, epoch)
	n.cfg.Received.Forget(epoch, math.MaxUint64)
}

// tickReceived tells who sent messages that they are stored, where they are not done yet, and forgets epochs
// that nobody has said are over.
func (n *Node) tickReceived() {
	if n.unstored.len() > 0 {
		waiting := slices.Clone(n.unstored.takeAll())
		n.safe(func() { n.tellStored(waiting) })
	}
	if n.now < n.nextForget {
		return
	}
	n.nextForget = n.now + forgetEvery
	n.tickStreams()
	if limit := n.cfg.Limits.UnknownEpochs; n.now >= n.nextSweep || len(n.epochs) > 2*limit || len(n.streams) > 2*limit {
		n.nextSweep = n.now + time.Minute
		n.sweepEpochs()
	}
}

func (n *Node) tellStored(waiting []Identity) {
	for _, id := range waiting {
		r := n.epochs[id.Epoch]
		if r == nil {
			continue
		}
		u := r.open.get(id.Seq)
		if u.left == 0 || u.stored {
			continue
		}
		u.stored = true
		r.open.put(id.Seq, u)
		for _, from := range r.waiting(u) {
			if p := n.dirtyPeer(from); p != nil && from != n.self {
				p.store.add(id)
			}
		}
	}
}

// sweepEpochs forgets the epochs that have not been used for identityTime, and, beyond the limit, those that have not
// been for longest.
func (n *Node) sweepEpochs() {
	idle := map[uint64]time.Duration{}
	for epoch, r := range n.epochs {
		if r.open.len() == 0 {
			idle[epoch] = r.touched
		}
	}
	for _, epoch := range n.forgettable(idle, len(n.epochs)) {
		n.forgetEpoch(epoch)
	}
	clear(idle)
	for epoch, s := range n.streams {
		switch {
		case s.entries.len() > 0:
		case n.locations[s.l.at] != s.l:
			n.dropStream(s)
		default:
			idle[epoch] = s.touched
		}
	}
	for _, epoch := range n.forgettable(idle, len(n.streams)) {
		n.dropStream(n.streams[epoch])
	}
}

// forgettable picks from epochs that are not in use, by when they were last used, those to be forgotten.
func (n *Node) forgettable(idle map[uint64]time.Duration, all int) []uint64 {
	epochs := sortedKeys(idle)
	slices.SortStableFunc(epochs, func(a, b uint64) int { return cmp.Compare(idle[a], idle[b]) })
	for i, epoch := range epochs {
		if all-i <= n.cfg.Limits.UnknownEpochs && n.now-idle[epoch] <= identityTime {
			n.stats.ForgottenEpochs += uint64(i) //nolint:gosec // a count
			return epochs[:i]
		}
	}
	n.stats.ForgottenEpochs += uint64(len(epochs))
	return epochs
}
