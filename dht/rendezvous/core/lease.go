package core

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// lease is the pair of leases between this node and another. Who holds one counts from when it asked, who
// grants one from when it answered, so that the holder's always ends first.
type lease struct {
	needed  time.Duration // this node depends on the other until then
	first   time.Duration // when it was first asked for, since the stream came up; 0: never
	asked   time.Duration
	held    time.Duration // until when this node holds the other's lease
	granted time.Duration // until when the other may hold this node's
	renewed time.Duration // when another connection was asked for
	// What says when it was sent tells how long it was on its way, beside the quickest: ahead is by how much this node's clock was
	// ahead of the other's, at most, at met; 0: it is not known.
	ahead, met time.Duration
	counts     time.Duration // until when the other counts on this node, at most; 0: it is not known
	heard      time.Duration // when the other was alive, as its leases and questions tell
	spoke      bool          // it was heard at all
}

// hear notes that the other was alive at a time.
func (l *lease) hear(at time.Duration) {
	if !l.spoke || at > l.heard {
		l.heard, l.spoke = at, true
	}
}

// stalledAfter is how long a node that is out of reach, and not down, is asked for leases before the connection is given up. TCP waits
// longer and longer before it sends again what was lost in a cut: once that is over, it may wait as long as the cut was.
const stalledAfter = 2 * time.Second

// need says that this node depends on another for a while. The lease is asked for at once, ahead of
// whatever is sent next.
func (n *Node) need(id NodeID) {
	p := n.peers[id]
	if p == nil {
		return
	}
	p.lease.needed = n.now + 2*LeaseTime
	if p.up && p.lease.first == 0 {
		n.askLease(p)
	}
}

func (n *Node) askLease(p *peer) {
	p.lease.asked = n.now
	if p.lease.first == 0 {
		p.lease.first = max(n.now, 1)
	}
	n.send(p.id, &pb.Lease{Ask: uint64(n.now)}) //nolint:gosec // a clock that does not go below 0
}

// holds reports whether this node holds a node's lease; it always holds its own.
func (n *Node) holds(id NodeID) bool {
	if id == n.self {
		return true
	}
	p := n.peers[id]
	return p != nil && p.lease.held > n.now
}

func (n *Node) receiveLease(p *peer, f *pb.Lease) {
	if f.GetGranted() != 0 {
		asked := time.Duration(f.GetGranted()) //nolint:gosec // what was sent
		life := min(time.Duration(f.GetForMs())*time.Millisecond, LeaseTime)
		if asked <= n.now && asked+life > p.lease.held {
			p.lease.held = asked + life
			p.lease.hear(asked)
		}
		if p.up && !p.reach && p.lease.held > n.now {
			p.reach, p.since = true, n.now
			n.peerInReach(p)
		}
	}
	if f.GetAsk() != 0 {
		p.lease.hear(n.now)
		p.lease.hearAsk(n.now, time.Duration(f.GetAsk())) //nolint:gosec // whatever it is, it is compared alone
	}
	if f.GetAsk() != 0 && !n.left {
		p.lease.granted = n.now + LeaseTime
		n.send(p.id, &pb.Lease{Granted: f.GetAsk(), ForMs: uint32(LeaseTime / time.Millisecond)})
	}
}

// drift is how much one clock gains on another, at most: one in a thousand.
const drift = 1000

// hearClock hears what the other's clock showed when it sent something that has come now.
func (l *lease) hearClock(now, sent time.Duration) {
	ahead := now - sent
	if l.met != 0 {
		ahead = min(ahead, l.ahead+(now-l.met)/drift)
	}
	l.ahead, l.met = ahead, now
}

// hearAsk notes when the other asked for a lease, by its clock.
func (l *lease) hearAsk(now, asked time.Duration) {
	l.counts = now + LeaseTime - l.took(now, asked)
}

// took returns for how long what the other sent at a time, by its clock, was on its way beside what is quickest.
func (l *lease) took(now, sent time.Duration) time.Duration {
	l.hearClock(now, sent)
	return now - sent - l.ahead
}

// late reports whether what comes from the other now was sent to a node that it has taken for out of reach since: this
// node was stopped for a while, or the link was, and the other goes, or went, another way with what it must not lose.
func (l *lease) late(now time.Duration) bool { return l.counts != 0 && l.counts <= now }

// tickLeases asks for leases again, and counts as out of reach who has stopped granting them.
func (n *Node) tickLeases() {
	for _, p := range n.ordered {
		if !p.up {
			continue
		}
		l := &p.lease
		needed := l.needed > n.now || p.used != 0 && n.now-p.used < useFor
		switch {
		case !needed:
			l.first = 0
			if !p.reach {
				p.reach, p.since = true, n.now
				n.peerInReach(p)
			}
		case l.first == 0 || n.now-l.asked >= leaseEvery:
			n.askLease(p)
		}
		if p.reach && l.first != 0 && l.held <= n.now && n.now-l.first >= LeaseTime {
			n.outOfReach(p)
		}
		if !p.reach && n.now-max(p.since, l.renewed) >= stalledAfter {
			l.renewed = n.now
			n.out = append(n.out, Effect{Kind: Reconnect, To: p.id})
		}
	}
}

// whole reports whether this node holds leases from a majority of a set.
func (n *Node) whole(s Set) bool {
	held := 0
	for _, m := range s.Members {
		if n.holds(m) {
			held++
		}
	}
	return held >= n.majority(s)
}
