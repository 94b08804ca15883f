package core_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// TestBridge has two swarms meet at a node that knows both, and then publishes to places that nobody has used: what
// was subscribed on either side hears of them, whoever serves them and inherits what was registered above. All may have been started a moment ago.
func TestBridge(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.merged, s.loss, s.uneven, s.disorder = false, true, true, true
		pause := []time.Duration{8 * time.Second, 500 * time.Millisecond}[seed%2]
		for swarm, size := range []int{1 + s.rng.IntN(3), 1 + s.rng.IntN(3)} {
			first := len(s.nodes)
			for i := range size {
				v := s.add()
				v.swarm = swarm
				if i > 0 {
					s.connect(v, s.nodes[first])
				}
			}
		}
		n := len(s.nodes)
		s.run(pause)
		for _, v := range s.nodes {
			v.subscribe("+/root", 2)
			v.subscribe("talk/#", 1)
		}
		for _, v := range s.nodes {
			s.run(pause / 8)
			for i := range 5 {
				v.publish(fmt.Sprintf("before-%d/root", i), 1, false, "v")
			}
		}
		s.run(time.Duration(s.rng.Int64N(int64(pause))))
		bridge := s.add()
		bridge.swarm = 2 // until they have met
		s.connect(bridge, s.nodes[0])
		s.after(time.Duration(s.rng.Int64N(int64(300*time.Millisecond))), func() { s.connect(bridge, s.nodes[n-1]) })
		for i := range 10 { // some topics are used while they meet
			s.pick().publish(fmt.Sprintf("meanwhile-%d/root", i%3), 1, false, "v")
			s.run(time.Duration(s.rng.Int64N(int64(300 * time.Millisecond))))
		}
		s.run(12 * time.Second)
		s.merged = true
		for i := range 30 {
			s.pick().publish(fmt.Sprintf("after-%d/root", i), byte(1+i%2), false, "v")
			s.pick().publish(fmt.Sprintf("meanwhile-%d/root", i%3), byte(1+i%2), false, "v")
			s.run(time.Duration(s.rng.Int64N(int64(20 * time.Millisecond))))
		}
		s.run(80 * time.Second) // who missed a set is told within a minute
		s.check()
		s.checkSets()
		s.report(seed)
	})
}

// TestNoLink has two nodes that only a third can reach: what one publishes for the other is kept until they are
// connected, and comes once.
func TestNoLink(t *testing.T) {
	s := newSim(t, 5, time.Millisecond)
	a, b, c := s.add(), s.add(), s.add()
	s.apart = func(v, w *simNode) bool { return v != a && w != a }
	s.connect(a, b)
	s.connect(a, c)
	s.run(3 * time.Second)
	for i := range 30 {
		b.subscribe(fmt.Sprintf("t%d/x", i), 1)
	}
	s.run(10 * time.Second)
	for i := range 30 {
		c.publish(fmt.Sprintf("t%d/x", i), byte(1+i%2), false, "v")
	}
	s.run(5 * time.Second)
	s.apart = nil
	s.connect(b, c)
	s.run(80 * time.Second)
	for _, p := range s.published {
		if b.from[p] != 1 {
			s.fail("%s came %d times", p.m.Topic, b.from[p])
		}
	}
	s.check()
	s.checkSets()
	s.report(5)
}

// TestHidden has two nodes that cannot connect to each other, both to a third, and clients at all of them from the first
// moment: what was promised is kept, at the latest when they are connected.
func TestHidden(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 5*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder = true, true
		n := 3
		open := s.add()
		for range n - 1 {
			s.add()
		}
		s.apart = func(v, w *simNode) bool { return v != open && w != open }
		for _, v := range s.nodes[1:] {
			s.connect(v, open)
			s.run(time.Duration(s.rng.Int64N(int64(200 * time.Millisecond))))
		}
		s.run(time.Duration(s.rng.Int64N(int64(2 * time.Second))))
		for i := range 20 {
			filter := fmt.Sprintf("t%d/x", i)
			if s.rng.IntN(4) == 0 {
				filter = "+/x"
			}
			st := s.pick().subscribe(filter, 1)
			for k := 0; k < 30 && !st.promised; k++ {
				s.run(100 * time.Millisecond)
			}
			s.pick().publish(fmt.Sprintf("t%d/x", i), byte(1+s.rng.IntN(2)), false, "v")
		}
		s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
		s.apart = nil
		for i, v := range s.nodes {
			for _, w := range s.nodes[:i] {
				s.connect(v, w)
			}
		}
		s.run(80 * time.Second)
		s.check()
		s.checkSets()
		s.report(seed)
	})
}

// TestFindsWhatIsRetained has a node come to a swarm, young or old, and look for something that is retained: where it has been told that it is registered for
// all and sees no merge, it finds it, though it may have made sets alone before it met anybody.
func TestFindsWhatIsRetained(t *testing.T) {
	eachSeed(t, max(*seeds, 1000), func(t *testing.T, seed uint64) {
		s := newSim(t, seed, []time.Duration{time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond}[seed%3])
		s.diskTime, s.disorder = 10*time.Millisecond, true
		s.grow(1 + s.rng.IntN(4))
		s.run(time.Duration(s.rng.Int64N(int64(4 * time.Second))))
		s.pick().publish("kept/x", 1, true, "v")
		s.run(2*time.Second + time.Duration(s.rng.Int64N(int64(4*time.Second))))
		if len(s.nodes) > 1 && s.rng.IntN(3) == 0 { // all are started again
			for _, v := range s.nodes {
				v.crash()
			}
			for _, v := range s.nodes {
				v.reboot()
				for _, w := range s.nodes[:v.i] {
					s.connect(v, w)
				}
			}
		}
		v := s.add()
		found, looks := 0, 0
		var look func()
		look = func() {
			v.do(func() {
				v.n.Register("kept/x", core.Interest{Plain: true, QoS: 1}, func(local bool) {
					before := found
					s.after(0, func() {
						v.do(func() {
							v.n.Retained("kept/x", func(ms []*proto.Message) { found += len(ms) }, func() {
								looks++
								if found == before && !local && v.n.Merged() {
									s.fail("nothing was found, and no doubt of it, at %v", s.now)
								}
								s.after(time.Duration(s.rng.Int64N(int64(300*time.Millisecond))), look)
							})
						})
					})
				})
			})
		}
		s.after(time.Duration(s.rng.Int64N(int64(time.Second))), look)
		for _, w := range s.nodes[:v.i] {
			if s.rng.IntN(3) > 0 || w.i == 0 {
				s.after(time.Duration(s.rng.Int64N(int64(4*time.Second))), func() { s.connect(v, w) })
			}
		}
		s.run(30 * time.Second)
		if found == 0 || looks < 3 {
			t.Errorf("found %d times in %d", found, looks)
		}
		s.report(seed)
	})
}
