package core_test

import (
	"fmt"
	"testing"
	"time"
)

// unsetClock has a node believe that it is 1970, give or take.
func (v *simNode) unsetClock() {
	v.behind = epochStart.Sub(time.Unix(0, 0)) - time.Duration(v.s.rng.Int64N(int64(10*24*time.Hour)))
}

// TestTimelessMeet has two swarms meet, in one of which no node knows what time it is: of what both have retained, the
// newer stands.
func TestTimelessMeet(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.merged, s.loss = false, true
		first := [2]int{}
		for swarm := range first {
			first[swarm] = len(s.nodes)
			for i := range 1 + s.rng.IntN(3) {
				v := s.add()
				v.swarm = swarm
				if swarm == 0 {
					v.unsetClock()
				}
				if i > 0 {
					s.connect(v, s.nodes[first[swarm]+s.rng.IntN(i)])
				}
			}
		}
		s.run(12 * time.Second)
		for round := range 2 {
			for i := range 20 {
				swarm := (round + i) % 2
				s.nodes[first[swarm]].publish(fmt.Sprintf("t%d/x", i), byte(1+s.rng.IntN(2)), true, fmt.Sprintf("of swarm %d", swarm))
			}
			s.run(time.Duration(2+s.rng.IntN(300)) * time.Second)
		}
		if seed%3 == 0 { // it gets the time by itself before
			for _, v := range s.nodes {
				v.behind = 0
			}
			s.run(time.Second)
		}
		s.connect(s.nodes[0], s.nodes[len(s.nodes)-1])
		s.run(70 * time.Second)
		s.merged, s.loss = true, false
		s.checkSets()
		s.checkRetained()
		s.report(seed)
	})
}

// TestTimeless has some nodes of a swarm not know what time it is, at first, while others do, and nodes join that become
// responsible for what is there: the last of what is retained stands.
func TestTimeless(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.depth = 1 + int(seed%2)
		publish := func() {
			for i := range 10 {
				s.pick().publish(fmt.Sprintf("t%d/x", i), byte(1+s.rng.IntN(2)), true, "v")
			}
			s.run(time.Duration(2+s.rng.IntN(10)) * time.Second)
		}
		for range 4 {
			v := s.add()
			if s.rng.IntN(4) > 0 {
				v.unsetClock()
			}
			if v.i > 0 {
				s.connect(v, s.nodes[s.rng.IntN(v.i)])
			}
			s.run(12 * time.Second)
			publish()
			publish()
			if lucky := s.pick(); s.rng.IntN(3) == 0 {
				lucky.behind = 0
			}
		}
		s.run(70 * time.Second)
		s.check()
		s.checkSets()
		s.checkRetained()
		s.report(seed)
	})
}
