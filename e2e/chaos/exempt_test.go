package chaos

import (
	"slices"
	"time"
)

// Excuse is why something that looks like a violation is none. All that are used are counted in the report.
type Excuse string

// What no design can avoid, or what was never promised.
const (
	// A SUBACK that says "local" holds at once for the nodes in reach only, and for the others from when they are.
	Local Excuse = "the SUBACK said local"
	// What a node had acknowledged and not handed over is lost with its disk: within a second in a connected swarm, and for as
	// long as it takes where the node, the network or those that it hands it to are not well.
	PublisherWiped Excuse = "the disk of the publisher's node was wiped before it could hand over"
	// A node that has lost its disk, or has never had one, is a swarm of its own until it meets another node, and what is published
	// in a swarm before it meets another stays there. So does what its SUBACKs say.
	SwarmOfItsOwn Excuse = "published at a new node that had not met the swarm yet"
	// A session that is over is owed nothing: MQTT says so.
	SessionOver  Excuse = "the session had ended"
	Unsubscribed Excuse = "the client had unsubscribed"
	// A member of a shared group had been given the message when its session ended, or lost what its node's disk had of it. At QoS 2
	// nobody else may get it [MQTT-4.8.2-5]; at QoS 1 others do, and this is no excuse.
	MemberOver Excuse = "the session of a member of the shared group had ended"
	// Order is promised while no node fails and no link breaks.
	OrderFault Excuse = "out of order, with a fault in the time between"
	// A session that went on at another node has a part at its old one until that is joined: what comes by the subscriptions that stand there,
	// and the client has no more, comes late.
	OrderUnasked Excuse = "out of order, of a message that the client was not subscribed to any more at the node where its session went on"
	// Whether a node has read the DISCONNECT of a client, or its CONNECT, before it crashed or hung, nobody can know.
	WillUnknown Excuse = "nobody knows whether the node had read CONNECT or DISCONNECT"
	// Where nodes do not reach each other two connections of a client may stand until they do.
	TwoHolders Excuse = "two connections of a client, with a fault in the time between"
	// What waited for up to a second, because a rendezvous was out of reach, is stamped as if it had not.
	WithinASecond Excuse = "an older retained message by up to a second, with a fault in the time between"
	// A clock that is set tells the others, which nobody can where they do not reach each other.
	ClockUnheard Excuse = "an older retained message, where a clock was set ahead with a fault in the time between"
	// Who can't be told from the dead has its clients' wills sent by others, and arms them anew.
	WillFalseAlarm Excuse = "the will of a client that was connected: its node was out of reach for so long that it was taken for dead"
	// A session that goes on at another node while its own can't be reached has two parts, which are joined later. The other does not
	// know what the first has had that nobody else could be told of, and at QoS 1 no identity tells what comes by both.
	JoinedParts Excuse = "twice in a session that went on at another node, with a fault in the time between"
	// A node says for which sessions alone it keeps a message after a second, where the network and those that it tells are well.
	Unreported Excuse = "twice, where the disk of its node was wiped before that could say that the client had it"
	// A session whose holder is out of reach is answered for by what the node itself has. What there is elsewhere is joined with it later.
	SessionFault Excuse = "no session present at another node, with a fault in the time between"
)

// What is not done yet. Each has a knob in Known, and goes with it.
const (
	KnownSharedTwice Excuse = "KNOWN: two members of a shared group have it at QoS 2, with a fault in the time between (Known.SharedTwice)"
)

// Known says what is known to be missing, and so is no violation. It is to be empty one day.
type Known struct {
	// SharedTwice: where links break, or a node hangs or crashes, two nodes may each take themselves for the rendezvous for a while, and choose
	// different members of a shared group.
	SharedTwice bool
}

// KnownNow is what is missing now.
var KnownNow = Known{SharedTwice: true}

const (
	// handOver is how long a publisher's node has to be well, with all others, until others have what it acknowledged: a
	// second, and what the machine takes.
	handOver = 3 * time.Second
	// ordinary is how long a message may take where nothing is broken.
	ordinary = 10 * time.Second
	// takeover is how long an old connection may be open after a new one of the same client.
	takeover = 10 * time.Second
	// settling is how long after all nodes have met a registration that was local may take to stand everywhere: it is made
	// again at the latest when a request has gone unanswered for 30 s.
	settling = 35 * time.Second
	// stamping is how much later than it was published a retained message may be stamped.
	stamping = time.Second
	// handingBack is how long after all nodes have met a rendezvous that took over meanwhile may take to hand back: a lease.
	handingBack = 5 * time.Second
	// silence is for how long a node has to be out of reach, about, until others send its clients' wills; taken is how long they, or the
	// node itself when it is back, may take, and how long all has to have been well before.
	silence = 10 * time.Second
	taken   = 40 * time.Second
	// unnoticed is for how long a node that is dead is sent messages, at most: a lease, and what the machine takes.
	unnoticed = 7 * time.Second
	// notice is how long a node may take to see that a connection is closed, or to fall after it is killed.
	notice = time.Second
)

// crash reports whether a fault of this kind has a node forget what it has not on disk.
func (k FaultKind) crash() bool { return k == Kill || k == Power || k == Wipe }

// harmless reports whether a fault of this kind is none for who is there.
func (k FaultKind) harmless() bool { return k == Join || k == Clock }

// calm reports whether no fault was going on at any time from one to another.
func (c *checker) calm(from, to time.Duration) bool {
	for _, s := range c.storms {
		if s.from <= to && s.to >= from {
			return false
		}
	}
	return true
}

// calmBut is calm where nothing but some wipes was going on.
func (c *checker) calmBut(wipes []wipe, from, to time.Duration) bool {
	other := func(f fault) bool {
		return !f.kind.harmless() && !(f.kind == Wipe && slices.ContainsFunc(wipes, func(w wipe) bool { return f.has(w.node) && f.from <= w.at && w.at <= f.gone }))
	}
	return !slices.ContainsFunc(c.storms, func(s span) bool {
		return s.from <= to && s.to >= from && slices.ContainsFunc(c.faults, func(f fault) bool { return f.from <= s.to && f.to >= s.from && other(f) })
	})
}

// calmFor reports whether no fault was going on for a stretch of time of this length between two times.
func (c *checker) calmFor(length, from, to time.Duration) bool {
	for _, s := range c.storms {
		if s.to < from {
			continue
		}
		if s.from > to {
			break
		}
		if s.from-from >= length {
			return true
		}
		from = max(from, s.to)
	}
	return to-from >= length
}

// clockUnheard reports whether a clock was set ahead before a time, and another time came before everybody can have heard of that.
func (c *checker) clockUnheard(before, at time.Duration) bool {
	return slices.ContainsFunc(c.faults, func(f fault) bool { return f.ahead && f.from <= before && !c.calmFor(handOver, f.from, at) })
}

// crashed reports whether a node, or any if it is 0, crashed between two times.
func (c *checker) crashed(node int, from, to time.Duration) bool {
	for _, f := range c.faults {
		if f.kind.crash() && (node == 0 || f.has(node)) && f.from >= from && f.from <= to {
			return true
		}
	}
	return false
}

// wiped returns when the disk of a node was wiped first after a time, if it was.
func (c *checker) wiped(node int, after time.Duration) (time.Duration, bool) {
	for _, f := range c.faults {
		if f.kind == Wipe && f.has(node) && f.gone >= after {
			return f.from, true
		}
	}
	return 0, false
}

// thawed returns when a node that hangs at a time goes on; the time itself, where it does not hang.
func (c *checker) thawed(node int, at time.Duration) time.Duration {
	for _, f := range c.faults {
		if f.kind == Freeze && f.has(node) && f.from <= at+notice && f.to > at {
			at = f.to
		}
	}
	return at
}

// alone returns when a node that is new at a time has met the swarm; 0 where it is not new.
func (c *checker) alone(node int, at time.Duration) time.Duration {
	for _, f := range c.faults {
		if (f.kind == Wipe || f.kind == Join) && f.has(node) && f.gone <= at && at <= f.to {
			return f.to
		}
	}
	return 0
}

// lostWithDisk reports whether what a node acknowledged at a time may have been lost with its disk.
func (c *checker) lostWithDisk(node int, acked time.Duration) bool {
	at, ok := c.wiped(node, acked)
	return ok && !c.calmFor(handOver, acked, at)
}
