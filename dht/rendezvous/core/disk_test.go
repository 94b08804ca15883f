package core_test

import (
	"testing"
	"time"
)

// TestPublishersCrash crashes nodes of publishers and rendezvous, one at a time, and starts them again with their disks: what
// was acknowledged comes to everybody, once.
func TestPublishersCrash(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder = true, true
		s.diskTime = time.Duration(seed%3) * 20 * time.Millisecond
		s.grow(3 + s.rng.IntN(3))
		s.run(3 * time.Second)
		for _, v := range s.nodes[:2] {
			for _, f := range []string{"#", "a/#", "+/b"} {
				v.subscribe(f, 2)
			}
		}
		s.run(8 * time.Second)
		for range 5 {
			v := s.nodes[2+s.rng.IntN(len(s.nodes)-2)]
			for range 20 {
				s.publishOne(v)
			}
			v.crash()
			for range s.rng.IntN(20) {
				s.publishOne(s.pick())
			}
			s.run(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
			v.reboot()
			for range 20 {
				s.publishOne(v)
			}
			s.run(10 * time.Second)
		}
		s.run(90 * time.Second)
		s.checkAll()
		s.report(seed)
	})
}

// TestCrashes crashes one or two nodes of five at a time, whatever they are, publishers' and subscribers' nodes, rendezvous and
// replicas, and starts them again with their disks: what was acknowledged comes to everybody, and at QoS 2 once.
func TestCrashes(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder = true, true
		s.diskTime = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second}[seed%3]
		s.unhurried = seed%5 == 0
		s.grow(5)
		s.run(3 * time.Second)
		s.subscribeSome()
		s.run(8 * time.Second)
		for range 6 {
			for range 20 {
				s.publishOne(s.pick())
			}
			if s.rng.IntN(2) == 0 { // when second copies are made
				s.run(time.Duration(s.rng.Int64N(int64(2500 * time.Millisecond))))
			}
			down := []*simNode{s.pick()}
			if s.rng.IntN(2) == 0 {
				if other := s.pick(); other != down[0] {
					down = append(down, other)
				}
			}
			for _, v := range down {
				v.crash()
			}
			for range s.rng.IntN(20) {
				s.publishOne(s.pick())
			}
			s.run(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
			for _, v := range down {
				v.reboot()
				for s.rng.IntN(2) == 0 { // and again, while it takes up what it had
					s.run(time.Duration(s.rng.Int64N(int64(500 * time.Millisecond))))
					v.crash()
					v.reboot()
				}
				s.run(time.Duration(s.rng.Int64N(int64(3 * time.Second))))
			}
			s.run(10 * time.Second)
		}
		s.run(90 * time.Second)
		s.checkAll()
		s.report(seed)
	})
}

func (s *sim) publishOne(v *simNode) {
	levels := []string{"a", "b", "c"}
	v.publish(levels[s.rng.IntN(3)]+"/"+levels[s.rng.IntN(3)], byte(1+s.rng.IntN(2)), s.rng.IntN(8) == 0, "v")
	s.run(time.Duration(s.rng.Int64N(int64(5 * time.Millisecond))))
}

// TestKeptBeforeDisk has a disk that takes for ever: what the subscriber has is acknowledged all the same, and nothing else is.
func TestKeptBeforeDisk(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		s := newSim(t, seed, time.Millisecond)
		s.diskTime = time.Millisecond
		a, b := s.add(), s.add()
		s.connect(a, b)
		s.run(5 * time.Second)
		b.subscribe("#", 1)
		s.run(5 * time.Second)
		a.disk.most = 1000 * time.Hour
		for _, level := range []string{"doors", "windows", "roofs", "walls"} { // with their rendezvous here and there
			had := a.publish(level+"/1", 1, false, "open")
			retained := a.publish(level+"/2", 1, true, "open")
			s.run(time.Second)
			if !had.accepted || b.from[had] != 1 {
				t.Errorf("seed %d: %s/1 was delivered %d times; acknowledged: %v", seed, level, b.from[had], had.accepted)
			}
			if retained.accepted {
				t.Errorf("seed %d: %s/2 is acknowledged, and may be retained nowhere", seed, level)
			}
		}
		s.cut(b)
		away := a.publish("doors/3", 1, false, "open")
		s.run(time.Second)
		if away.accepted {
			t.Errorf("seed %d: a message that nobody has is acknowledged", seed)
		}
	}
}
