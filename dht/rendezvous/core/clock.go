package core

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// A Raspberry Pi has no clock that counts while it is off: it boots in 1970 and learns the time later, from a time server
// or, where none can be reached, from the other nodes. Only the stamps of retained messages depend on it; everything
// else counts on a clock that never jumps. A stamp that was given in 1970 would lose against every other. So what a node
// has stamped without the time is stamped anew when it learns it, that much later. Nodes that meet without the time agree
// on the latest that one of them has, so that stamps mean the same at all of them until then, and are moved by the same
// afterwards.

// unsetBefore is older than this program: a clock that shows less has not been set since the machine booted.
var (
	unsetBefore = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)
	unsetMillis = uint64(unsetBefore.UnixMilli()) //nolint:gosec // positive
)

// sameTime is by how many milliseconds clocks may differ that are as good as the same: frames take a while.
const sameTime = 1000

// maxHeard bounds what is believed of other nodes: a time after this one is none.
var maxHeard = unsetBefore.AddDate(50, 0, 0)

// millis is the time that stamps are given by, in milliseconds since 1970.
func (n *Node) millis() uint64 {
	if n.wall.Before(unsetBefore) {
		return uint64(max(0, n.wall.Add(n.ahead).UnixMilli())) //nolint:gosec // not negative
	}
	return uint64(n.wall.UnixMilli()) //nolint:gosec // positive
}

// latest is the latest time that this node knows of: its own, or what another node or a stamp said, and what has passed since.
func (n *Node) latest() uint64 {
	now := n.millis()
	if n.hasTime() { // else it is told the time yet, and then everything is stamped anew
		now = max(now, uint64(n.now.Milliseconds()+n.lead)) //nolint:gosec // not negative
	}
	return now
}

// seeStamp takes this node's clock along with a stamp that another node, or this one, has given: a clock that is behind does not make what is
// stamped here look older than what was stamped before elsewhere.
func (n *Node) seeStamp(stamp uint64) {
	n.moveClock(min(stamp, n.furthest()))
}

func (n *Node) moveClock(stamp uint64) {
	n.clock = max(n.clock, stamp)
	n.lead = max(n.lead, int64(stamp>>16)-n.now.Milliseconds()) //nolint:gosec // 48 bits
}

// furthest is how far another node's stamps may take this node's clock along: a clock that is a day ahead
// must not make every stamp of the swarm meaningless.
func (n *Node) furthest() uint64 { return (n.millis() + uint64(24*time.Hour/time.Millisecond)) << 16 }

// stamp gives a retained message its place in time: a hybrid logical clock (Kulkarni et al. 2014), 48 bits of
// milliseconds and 16 of counting. One that has waited, or was long on its way, is stamped that much earlier, by the latest clock that was heard of; one
// that has not is newer than what is kept for its topic, whatever clock that was stamped by. Of one publisher's the later one is newer in any case.
func (n *Node) stamp(l *location, a *arrival) uint64 {
	now, kept := n.latest()<<16, n.cfg.Retained.Get(l.at, a.m.Topic)
	newer := kept != nil && kept.ID.Epoch == a.id.Epoch && a.id.Epoch != 0
	if newer && kept.ID.Seq >= a.id.Seq {
		return kept.Stamp
	}
	var stamp uint64
	if age := n.ageOf(a); age > time.Second {
		stamp = now - min(now, uint64(age.Milliseconds())<<16) //nolint:gosec // positive
	} else {
		n.moveClock(max(n.clock+1, now))
		stamp, newer = n.clock, true
	}
	if newer && kept != nil && kept.Stamp >= stamp && kept.Stamp+1 > kept.Stamp {
		return kept.Stamp + 1
	}
	return stamp
}

// hasTime reports whether this node knows what time it is.
func (n *Node) hasTime() bool { return n.millis() >= unsetMillis }

// hearTime hears of the latest time that another node knows of. A node that does not know the time takes it over.
func (n *Node) hearTime(millis uint64) {
	switch {
	case millis > uint64(maxHeard.UnixMilli()): //nolint:gosec // positive
		return
	case n.hasTime():
		n.seeStamp(millis << 16)
		return
	}
	mine := n.millis()
	if millis < mine+sameTime {
		return
	}
	n.ahead += time.Duration(millis-mine) * time.Millisecond //nolint:gosec // below maxHeard
	n.cfg.Log.Info("this machine's clock is not set: retained messages go by what another node says", "clock", n.wall.UTC(), "time", n.wall.Add(n.ahead).UTC())
	n.timeless = !n.hasTime()
	n.restamp(n.millis() - mine)
}

// tickClock notices that the machine's clock was set, and tells what is later than what was told.
func (n *Node) tickClock() {
	behind := n.sinceBoot
	n.sinceBoot = int64(n.millis()) - n.now.Milliseconds() //nolint:gosec // far from overflow
	switch {
	case !n.hasTime():
		n.timeless = true
	case n.timeless:
		n.timeless = false
		n.restamp(uint64(n.sinceBoot - behind)) //nolint:gosec // it was before unsetBefore, and is not now
	case int64(n.latest())-n.now.Milliseconds() > n.told+sameTime: //nolint:gosec // below maxHeard
		n.tellTime()
	}
}

// tellTime tells other nodes the time, so that all stamp by the same, even where they can't reach each other for a while.
func (n *Node) tellTime() {
	latest := n.latest()
	n.told = int64(latest) - n.now.Milliseconds() //nolint:gosec // below maxHeard
	for _, p := range n.ordered {
		if p.up {
			n.send(p.id, &pb.Nodes{Time: latest})
		}
	}
}

// restamp gives what was stamped without the time later stamps, by so many milliseconds. It tells other nodes the time, and
// then what is retained at the locations that this node serves.
func (n *Node) restamp(by uint64) {
	n.tellTime()
	timeless, now := unsetMillis<<16, n.millis()<<16
	if n.clock < timeless {
		n.moveClock(min(n.clock+by<<16, now))
	}
	for _, l := range n.sortedLocations() {
		n.eachRetained(l, func(k *Kept) {
			if k.Stamp >= timeless {
				return
			}
			later := *k
			later.Stamp = min(k.Stamp+by<<16, now)
			n.cfg.Retained.Set(l.at, &later)
			n.seeStamp(later.Stamp)
			if l.phase == serving {
				n.keepElsewhere(l, &later, nil)
			}
		})
	}
}
