package core_test

import (
	"testing"
	"time"
)

// splitLinks breaks some of the links, which may be all or none, whatever was broken before, and mends the others.
func (s *sim) splitLinks() {
	broken := map[[2]int]bool{}
	chance := 1 + s.rng.IntN(4)
	for _, v := range s.nodes {
		for _, w := range s.nodes[:v.i] {
			broken[[2]int{v.i, w.i}] = s.rng.IntN(chance) == 0
		}
	}
	s.note("split links %v", broken)
	s.apart = func(v, w *simNode) bool { return broken[[2]int{max(v.i, w.i), min(v.i, w.i)}] }
	for _, v := range s.nodes {
		for _, w := range s.nodes[:v.i] {
			if s.apart(v, w) {
				s.disconnect(v, w)
			} else {
				s.connect(v, w)
			}
		}
	}
}

// TestPower has all nodes crash at once, while links are broken, and come back one after the other, some without seeing others:
// what was acknowledged comes to everybody, and at QoS 2 once.
func TestPower(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder = true, true
		s.diskTime = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second}[seed%3]
		s.unhurried = seed%5 == 0
		s.lazy = time.Duration(s.rng.IntN(2)) * 5 * time.Second
		s.grow(3 + s.rng.IntN(3))
		s.run(3 * time.Second)
		s.subscribeSome()
		s.run(8 * time.Second)
		some := func(most time.Duration) {
			for range s.rng.IntN(20) {
				if v := s.nodes[s.rng.IntN(len(s.nodes))]; v.alive {
					s.publishOne(v)
				}
				s.run(time.Duration(s.rng.Int64N(int64(most))))
			}
		}
		for range 4 {
			some(200 * time.Millisecond)
			if s.rng.IntN(3) > 0 {
				s.splitLinks()
				some(500 * time.Millisecond)
			}
			for _, v := range s.nodes {
				v.crash()
			}
			if s.rng.IntN(2) == 0 {
				s.splitLinks()
			}
			for _, i := range s.rng.Perm(len(s.nodes)) {
				s.run(time.Duration(s.rng.Int64N(int64(3 * time.Second))))
				s.nodes[i].reboot()
				some(50 * time.Millisecond)
			}
			if s.rng.IntN(2) == 0 {
				s.splitLinks()
			}
			some(time.Second)
			if s.rng.IntN(2) == 0 {
				s.heal()
				s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
			}
		}
		s.heal()
		some(100 * time.Millisecond)
		s.run(90 * time.Second)
		s.checkAll()
		s.report(seed)
	})
}

// TestLinks breaks and mends links again and again, so that nodes serve the same location without seeing each other while a third sees
// now one and now the other, and has nodes crash one at a time: what was acknowledged comes to everybody, and at QoS 2 once.
func TestLinks(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder = true, true
		s.diskTime = []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}[seed%3]
		s.lazy = time.Duration(s.rng.IntN(2)) * time.Second
		s.grow(4 + s.rng.IntN(3))
		s.run(3 * time.Second)
		for _, v := range s.nodes {
			for _, f := range []string{"#", "a/#", "+/b"} {
				if s.rng.IntN(3) == 0 {
					v.subscribe(f, 2)
				}
			}
		}
		s.run(8 * time.Second)
		for range 20 {
			for range s.rng.IntN(10) {
				s.publishOne(s.pick())
				s.run(time.Duration(s.rng.Int64N(int64(50 * time.Millisecond))))
			}
			switch s.rng.IntN(4) {
			case 0:
				s.apart = nil
				s.meet()
			case 1:
				v := s.pick()
				v.crash()
				v.reboot()
			default:
				s.splitLinks()
			}
			s.run(time.Duration(s.rng.Int64N([]int64{1e7, 3e8, 3e9, 1e10}[s.rng.IntN(4)])))
		}
		s.heal()
		s.run(90 * time.Second)
		s.checkAll()
		s.report(seed)
	})
}
