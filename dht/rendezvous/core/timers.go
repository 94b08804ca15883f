package core

import (
	"slices"
	"time"
)

// timer is something to be done at a time.
type timer struct {
	at time.Duration
	do func()
}

// timers are in order of their time, equal ones in the order in which they were set.
type timers []timer

func (t *timers) set(at time.Duration, do func()) {
	i, _ := slices.BinarySearchFunc(*t, at, func(e timer, at time.Duration) int {
		if e.at <= at {
			return -1
		}
		return 1
	})
	*t = slices.Insert(*t, i, timer{at, do})
}

// gather waits for a number of requests to be acknowledged, or to be as good as that: a node that goes out of
// reach counts once its lease from this node is over, or at once when it has left.
type gather struct {
	n     *Node
	left  int
	acks  int
	done  func()          // called when the last one is in, if wait was called
	heard map[NodeID]bool // not nil: who has said yes
}

func (g *gather) ask(to NodeID, frame func(op uint64) any) {
	g.left++
	g.n.request(to, frame, func(ok bool) {
		if ok {
			g.acks++
			if g.heard != nil {
				g.heard[to] = true
			}
			g.one()
			return
		}
		p := g.n.peers[to]
		if p == nil || p.left || p.gone || p.lease.granted <= g.n.now {
			g.one()
			return
		}
		g.n.timers.set(p.lease.granted, g.one)
	})
}

func (g *gather) one() {
	g.left--
	if g.left == 0 && g.done != nil {
		done := g.done
		g.done = nil
		done()
	}
}

// wait has done called when nothing is left to wait for, perhaps at once.
func (g *gather) wait(done func()) {
	if g.left == 0 {
		done()
		return
	}
	g.done = done
}

func (n *Node) tickTimers() {
	for len(n.timers) > 0 && n.timers[0].at <= n.now {
		t := n.timers[0]
		n.timers = slices.Delete(n.timers, 0, 1)
		t.do()
	}
}
