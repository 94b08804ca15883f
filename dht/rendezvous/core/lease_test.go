package core_test

import (
	"testing"
	"time"
)

// hang has everything that is on the way to and from a node, and what is sent from now on, come when it goes on: a process
// that is stopped for a while, or a link that is cut and whose streams do not break.
func (s *sim) hang(v *simNode, d time.Duration) {
	for _, w := range s.nodes {
		s.links[[2]int{v.i, w.i}], s.links[[2]int{w.i, v.i}] = s.now+d, s.now+d
	}
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
