package core_test

import (
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// hang has everything that is on the way to and from a node, and what is sent from now on, come when it goes on: a process
// that is stopped for a while, or a link that is cut and whose streams do not break.
func (s *sim) hang(v *simNode, d time.Duration) {
	for _, w := range s.nodes {
		for _, link := range [][2]int{{v.i, w.i}, {w.i, v.i}} {
			s.links[link] = max(s.links[link], s.now+d)
		}
	}
	s.silent = max(s.silent, s.now+d)
}

// TestHangsWithRetained has a rendezvous hang while retained messages are on their way to it, for longer than a lease. They
// go another way, and others replace them. When it goes on it reads what was sent to it, and must not take that for new.
func TestHangsWithRetained(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.disorder = true
		rendezvous, from, other := s.add(), s.add(), s.add()
		s.connect(rendezvous, from)
		s.connect(from, other)
		s.connect(rendezvous, other)
		s.run(time.Second)
		topic := s.levelOf(rendezvous, "hang") + "/x"
		from.publish(topic, 1, true, "oldest")
		s.run(time.Duration(1 + s.rng.Int64N(int64(3*time.Second))))
		end := s.now + time.Duration(9+s.rng.IntN(5))*time.Second
		s.hang(rendezvous, end-s.now)
		for range 3 {
			from.publish(topic, 1, true, "old")
			s.run(time.Duration(1 + s.rng.Int64N(int64(time.Second))))
		}
		s.run(end - s.now - 500*time.Millisecond)
		other.publish(topic, 1, true, "new")
		s.run(time.Minute)
		s.checkRetained()
		s.report(seed)
	})
}

// TestStalled has a link carry nothing, without a break, and then again: it is made anew, once, and not before it has been silent for
// a while.
func TestStalled(t *testing.T) {
	s := newSim(t, 1, time.Millisecond)
	a, b := s.add(), s.add()
	s.connect(a, b)
	s.run(time.Second)
	asked := 0
	s.reconnects = func(*simNode, *simNode) bool {
		asked++
		return true
	}
	a.publish(s.levelOf(b, "stalled")+"/x", 1, false, "")
	s.run(time.Second)
	for _, c := range []struct {
		hangs time.Duration
		want  int
	}{{core.LeaseTime - 2*time.Second, 0}, {core.LeaseTime + 3*time.Second, 1}} {
		asked = 0
		a.publish(s.levelOf(b, "stalled")+"/x", 1, false, "")
		s.hang(a, c.hangs)
		s.run(c.hangs + 10*time.Second)
		if asked != c.want {
			t.Errorf("silent for %v: asked for another connection %d times, want %d", c.hangs, asked, c.want)
		}
	}
	s.report(1)
}
