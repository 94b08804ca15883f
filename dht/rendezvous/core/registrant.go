package core

import (
	"maps"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// own is what this node's own subscribers want at one place.
type own struct {
	interests map[string]*Interest
	changed   map[string]bool      // since what was sent last
	seq       uint64               // of the last change
	sent      uint64               // what was sent last
	base      uint64               // what is known to stand
	stood     uint64               // what stood before this node was started, as that number: to those that it goes to it is no new one
	before    map[string]*Interest // that; nil when it is known to stand
	waiters   []waiter
	flying    bool // an answer is waited for
	whole     bool // the next one must say everything
	local     bool // what stands is promised for the nodes in reach only
	asked     time.Duration
	answered  time.Duration
	refreshed time.Duration
}

type waiter struct {
	seq  uint64
	at   time.Duration
	done func(local bool)
}

// Register tells what this node's subscribers want of a filter, all of them together; the zero Interest
// withdraws it. done, unless nil, is called once: when what anybody publishes reaches it, or, with local set,
// when no more than this node and those in reach can be promised.
func (n *Node) Register(filter string, interest Interest, done func(local bool)) {
	prefix, depth := topic.FirstLevel(filter)
	r := n.route(Place{prefix, depth})
	o := r.own
	if o == nil {
		if interest.zero() {
			if done != nil {
				n.call(func() { done(false) })
			}
			return
		}
		o = &own{interests: map[string]*Interest{}, changed: map[string]bool{}, whole: true, seq: 1}
		// So that numbers rise even where this place was registered at before, in this life or an earlier one.
		o.seq = max(n.cfg.Life<<20, n.seqs) + 1
		o.sent = o.seq
		r.own = o
	}
	have := o.interests[filter]
	switch {
	case (!o.local || done == nil) && (interest.zero() && have == nil || have != nil && equalInterest(have, &interest)): // else it is asked for anew
		if len(o.changed) == 0 && !o.flying && !o.whole {
			if local := o.local; done != nil {
				n.call(func() { done(local) })
			}
			return
		}
	case interest.zero():
		delete(o.interests, filter)
		o.seq++
		o.changed[filter] = true
	default:
		o.interests[filter] = &interest
		o.seq++
		o.changed[filter] = true
	}
	n.use(r)
	if done != nil {
		o.waiters = append(o.waiters, waiter{o.seq, n.now, done})
	}
	n.sendRegister(r)
}

func equalInterest(a, b *Interest) bool {
	if a.Plain != b.Plain || a.QoS != b.QoS || a.Hold != b.Hold || len(a.Groups) != len(b.Groups) || !slices.Equal(a.Sessions, b.Sessions) {
		return false
	}
	for i := range a.Groups {
		if a.Groups[i] != b.Groups[i] {
			return false
		}
	}
	return true
}

// Restored says that everything is registered that sessions from an earlier life want.
func (n *Node) Restored() {
	n.restoring = false
	for _, r := range n.sortedRoutes() {
		if r.own != nil {
			r.own.stood, r.own.before = r.own.seq, maps.Clone(r.own.interests)
			clear(r.own.changed)
		}
		n.sendRegister(r)
	}
}

// WithdrawAll takes back what this node registered for subscribers that will not come back. What stands for sessions with an
// expiry stands on.
func (n *Node) WithdrawAll() {
	for _, r := range n.sortedRoutes() {
		if r.own == nil {
			continue
		}
		for _, f := range sortedKeys(r.own.interests) {
			if r.own.interests[f].Hold == 0 {
				n.Register(f, Interest{}, nil)
			}
		}
	}
}

// sendRegister sends what has changed, one frame at a time: what changes meanwhile goes with the next.
func (n *Node) sendRegister(r *route) {
	o := r.own
	if o == nil || o.flying || o.seq == o.sent && !o.whole || r.hop == "" || n.restoring {
		return
	}
	change := &pb.Registration{Owner: []byte(n.self), Seq: o.seq, Base: o.base}
	if !o.whole {
		for _, f := range sortedKeys(o.changed) {
			i := o.interests[f]
			if i == nil {
				i = &Interest{}
			}
			change.Interests = append(change.Interests, i.pb(f))
		}
		o.whole = registrationSize(change) > proto.SoftFrame
	}
	parts := []*pb.Registration{change}
	switch {
	case o.before != nil: // what has changed since goes with the next
		o.sent, o.flying, o.asked = o.stood, true, n.now
		for _, p := range wholeRegistration(n.self, o.stood, o.stood, o.before) {
			n.sendRegistration(r, p)
		}
		return
	case o.whole:
		parts = wholeRegistration(n.self, o.seq, max(o.base, o.stood), o.interests)
	}
	o.sent = o.seq
	o.flying, o.asked = true, n.now
	clear(o.changed)
	for _, p := range parts {
		n.sendRegistration(r, p)
	}
}

func (n *Node) sendRegistration(r *route, reg *pb.Registration) {
	if r.hop == n.self {
		n.register(r.place, reg, n.self, 0)
		return
	}
	n.need(r.hop)
	n.send(r.hop, &pb.Register{Place: r.place.pb(), Registration: reg})
}

// refreshRegister asks the rendezvous whether what stood still stands, and whether it is a promise.
func (n *Node) refreshRegister(r *route) {
	o := r.own
	if o == nil || r.hop == "" || n.restoring {
		return
	}
	if o.seq != o.sent || o.sent != o.base || o.whole {
		o.flying, o.whole = false, true
		n.sendRegister(r)
		return
	}
	o.flying, o.asked, o.refreshed = true, n.now, n.now
	n.sendRegistration(r, &pb.Registration{Owner: []byte(n.self), Seq: o.seq, Base: o.seq})
}

func (n *Node) receiveRegisterAck(_ *peer, f *pb.RegisterAck) {
	place, ok := placeOf(f.GetPlace())
	if !ok {
		n.malformed("RegisterAck")
		return
	}
	if owner := NodeID(f.GetOwner()); owner != n.self {
		if p := n.peers[owner]; p != nil && p.up {
			n.send(owner, f) // this node passed its registration on
		}
		return
	}
	n.registerAnswered(place, f)
}

func (n *Node) registerAnswered(place Place, f *pb.RegisterAck) {
	at := place.Location()
	r := n.routes[place]
	if r == nil || r.own == nil {
		return
	}
	if set, ok := setOf(f.GetSet(), at); ok {
		n.learnSet(place, set)
	}
	o := r.own
	if !o.flying || f.GetSeq() != o.sent {
		return
	}
	o.flying, o.answered = false, n.now
	if f.GetResend() {
		o.whole = true
		n.sendRegister(r)
		return
	}
	o.before = nil
	o.whole, o.base, o.refreshed, o.local = false, f.GetSeq(), n.now, f.GetLocal() || f.GetFull()
	waiters := o.waiters
	o.waiters = nil
	for _, w := range waiters {
		if w.seq > o.base {
			o.waiters = append(o.waiters, w)
			continue
		}
		n.stats.Promised.observe(n.now - w.at)
		local := o.local
		n.call(func() { w.done(local) })
	}
	n.sendRegister(r)
}

// answerTime is for how long the answer to a registration is waited for. A rendezvous in reach gives one of its own in time; others
// may be reached by way of a node that is no member, or by nobody.
func (n *Node) answerTime(r *route) time.Duration {
	if n.memberless(r) {
		return promiseTime
	}
	return 2*LeaseTime + promiseTime
}

func (n *Node) tickRegistrant(r *route) {
	o := r.own
	if o == nil {
		return
	}
	switch {
	case len(o.waiters) > 0 && n.now-max(o.waiters[0].at, o.answered) > n.answerTime(r):
		waiters := o.waiters
		o.waiters = nil
		for _, w := range waiters {
			n.stats.PromisesLocal++
			n.call(func() { w.done(true) })
		}
	case o.flying && n.now-o.asked > 2*LeaseTime:
		o.flying, o.whole = false, true
		n.sendRegister(r)
	case !o.flying && o.seq == o.sent && len(o.interests) == 0 && n.now-o.refreshed > n.patience():
		n.seqs = max(n.seqs, o.seq)
		r.own = nil
	case !o.flying && o.seq == o.sent && len(o.interests) > 0 && n.now-o.refreshed > refreshEvery:
		n.refreshRegister(r)
	}
}
