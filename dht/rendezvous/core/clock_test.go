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

// TestClocksApart has the clocks of a swarm be hours apart, and set while it runs, and its nodes hang one after another, so that others replace
// them and what is published waits: the last of what is retained stands.
func TestClocksApart(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.disorder = true
		s.depth = 1 + int(seed%2)
		s.grow(3 + s.rng.IntN(3))
		s.run(12 * time.Second)
		for range 8 {
			s.pick().behind = time.Duration(s.rng.Int64N(int64(22*time.Hour))) - 11*time.Hour
			v := s.pick()
			if s.rng.IntN(3) > 0 {
				s.hang(v, time.Duration(s.rng.Int64N(int64(15*time.Second))))
			} else {
				s.run(time.Second)
			}
			for i := range 10 {
				if from := s.pick(); from != v {
					from.publish(fmt.Sprintf("t%d/x", i), byte(1+s.rng.IntN(2)), true, fmt.Sprint("at ", s.now))
				}
			}
			s.run(time.Duration(15+s.rng.IntN(10)) * time.Second)
		}
		s.run(70 * time.Second)
		s.check()
		s.checkSets()
		s.checkRetained()
		s.report(seed)
	})
}

// TestNewestStands has clients publish retained messages all the time, while links hang, break and are cut in any shape, nodes freeze, and a clock is
// set, between that: the last of what is retained stands.
func TestNewestStands(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.disorder = true
		s.depth = 1 + int(seed%2)
		s.diskTime = []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond}[seed%3]
		s.grow(5)
		s.run(12 * time.Second)
		publishers, ends := s.nodes[:4], false
		var publish func()
		publish = func() {
			if v := s.pickFrom(publishers); !ends && s.now >= v.frozen {
				v.publish(fmt.Sprintf("t%d/x", s.rng.IntN(4)), byte(1+s.rng.IntN(2)), true, fmt.Sprint("at ", s.now))
			}
			s.after(time.Duration(s.rng.Int64N(int64(600*time.Millisecond))), publish)
		}
		publish()
		for range 8 {
			if s.rng.IntN(2) == 0 {
				s.nodes[0].behind = time.Duration(s.rng.Int64N(int64(22*time.Hour))) - 11*time.Hour
				s.run(3 * time.Second) // the others have to hear of it
			}
			v, d := s.pick(), time.Duration(s.rng.Int64N(int64(12*time.Second)))
			switch s.rng.IntN(5) {
			case 0:
				s.hang(v, d)
			case 1:
				s.oneWay(v, d)
			case 2:
				s.split()
			case 3:
				s.split(v)
			case 4:
				s.freeze(v, d)
			}
			s.run(d + 1)
			s.apart = nil
			s.meet()
			s.run(time.Duration(s.rng.IntN(15)) * time.Second)
		}
		ends = true
		s.run(70 * time.Second)
		s.check()
		s.checkSets()
		s.checkRetained()
		s.report(seed)
	})
}
