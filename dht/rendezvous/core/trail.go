package core

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

const (
	// trailLimit is how long a message waits at most for one that its client published before, at another location.
	trailLimit = 100 * time.Millisecond
	// trailPause is for how long nothing waits for messages to a location where one had to be given up, or of a client
	// that publishes without waiting for acknowledgements.
	trailPause = 10 * time.Second
)

// trail is what a client has published last. A client that waits for an acknowledgement before it publishes the next
// message expects every subscriber to hear the two in this order, as it would at one broker, and so they do where the
// two go to different locations: the second waits until the first is with the subscribers' nodes. A client that
// publishes on, without its acknowledgement, does not care: then nothing of it waits.
type trail struct {
	r     *route
	epoch *sending
	seq   uint64
	held  *pending      // waits for the last one
	hasty time.Duration // until then the client is taken for one that does not wait for acknowledgements
}

func (t *trail) over() bool { return t.held == nil }

// settled reports whether the last message, and what went there before it, is with all that it was for.
func (t *trail) settled() bool { return t.epoch == nil || t.epoch.release >= t.seq }

// follow has a message wait for what its client published before, where it has to, and otherwise returns the client's
// trail, nil where it leaves none.
func (n *Node) follow(e *pending) (t *trail, waits bool) {
	if n.trailing.len() > 0 {
		if t := n.trails[e.origin]; t != nil && t.held != nil {
			t.hasty = n.now + trailPause
			n.goOn(t)
		}
	}
	if e.m.QoS == 0 || e.origin == nil || len(n.ordered) == 0 {
		return nil, false
	}
	if t = n.trails[e.origin]; t == nil {
		t = &trail{}
		n.trails[e.origin] = t
	}
	if t.r == nil || t.r == e.r || t.settled() || n.now < max(t.hasty, t.r.slow) || n.leaving {
		return t, false
	}
	if last := t.epoch.open.get(t.seq); last != nil && !last.accepted {
		t.hasty = n.now + trailPause
		return t, false
	}
	n.holdBehind(t, e)
	return t, true
}

// holdBehind keeps a message until the last one of its client is with the subscribers' nodes, or for trailLimit.
func (n *Node) holdBehind(t *trail, e *pending) {
	n.stats.Held++
	t.held = e
	n.trailing.compact((*trail).over)
	n.trailing.push(t)
	n.waiting++
	n.waitBytes += e.m.Size()
	last := t.r
	n.timers.set(n.now+trailLimit, func() {
		if t.held == e {
			n.stats.GivenUp++
			last.slow = n.now + trailPause
			n.goOn(t)
		}
	})
	n.passSync(n.self, &pb.Sync{Place: last.place.pb(), Epoch: t.epoch.id}, func() {
		if t.held == e {
			n.goOn(t)
		}
	})
}

// goOn publishes what waits for its turn.
func (n *Node) goOn(t *trail) {
	e := t.held
	t.held = nil
	n.waiting--
	n.waitBytes -= e.m.Size()
	n.publish(e, t)
	for n.trailing.len() > 0 && n.trailing.front().over() {
		n.trailing.pop()
	}
}

// endTrails publishes everything that waits for its turn: this node is about to leave.
func (n *Node) endTrails() {
	for _, t := range n.trailing.takeAll() {
		if t.held != nil {
			n.goOn(t)
		}
	}
}

// tickTrails forgets trails that nothing has to wait for.
func (n *Node) tickTrails() {
	for origin, t := range n.trails {
		if t.held == nil && t.settled() && n.now >= t.hasty {
			delete(n.trails, origin)
		}
	}
}
