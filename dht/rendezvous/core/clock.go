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

// hasTime reports whether this node knows what time it is.
func (n *Node) hasTime() bool { return n.millis() >= unsetMillis }

// hearTime takes over the time that another node tells, where this one does not know it and has an earlier one.
func (n *Node) hearTime(millis uint64) {
	mine := n.millis()
	if n.hasTime() || millis < mine+sameTime || millis > uint64(maxHeard.UnixMilli()) { //nolint:gosec // positive
		return
	}
	n.ahead += time.Duration(millis-mine) * time.Millisecond //nolint:gosec // below maxHeard
	n.cfg.Log.Info("this machine's clock is not set: retained messages go by what another node says", "clock", n.wall.UTC(), "time", n.wall.Add(n.ahead).UTC())
	n.timeless = !n.hasTime()
	n.restamp(n.millis() - mine)
}

// tickClock notices that the machine's clock was set.
func (n *Node) tickClock() {
	behind := n.sinceBoot
	n.sinceBoot = int64(n.millis()) - n.now.Milliseconds() //nolint:gosec // far from overflow
	switch {
	case !n.hasTime():
		n.timeless = true
	case n.timeless:
		n.timeless = false
		n.restamp(uint64(n.sinceBoot - behind)) //nolint:gosec // it was before unsetBefore, and is not now
	}
}

// restamp gives what was stamped without the time later stamps, by so many milliseconds. It tells other nodes the time, and
// then what is retained at the locations that this node serves.
func (n *Node) restamp(by uint64) {
	for _, p := range n.ordered {
		if p.up {
			n.send(p.id, &pb.Nodes{Time: n.millis()})
		}
	}
	timeless, now := unsetMillis<<16, n.millis()<<16
	if n.clock < timeless {
		n.clock = min(n.clock+by<<16, now)
	}
	for _, l := range n.sortedLocations() {
		n.eachRetained(l, func(k *Kept) {
			if k.Stamp >= timeless {
				return
			}
			later := *k
			later.Stamp = min(k.Stamp+by<<16, now)
			n.cfg.Retained.Set(l.at, &later)
			n.clock = max(n.clock, later.Stamp)
			if l.phase == serving {
				n.keepElsewhere(l, &later, nil)
			}
		})
	}
}
