package core_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// checkAll checks everything at the end of a simulation.
func (s *sim) checkAll() {
	s.check()
	s.checkSets()
	s.checkRetained()
	s.checkNothingLeft()
}

// checkNothingLeft lets a swarm whose nodes are all up be idle, and checks that nothing is left of what was published: not in
// memory, not on the disks. Then a node stops politely, which takes no time.
func (s *sim) checkNothingLeft() {
	s.forgetReplaced()
	s.run(3 * time.Minute)
	slow := time.Duration(0)
	for _, v := range s.nodes {
		if !v.alive {
			continue
		}
		if left := v.n.Left(); left != "" {
			s.fail("node %d, idle, still has%s", v.i, left)
		}
		if n := v.disk.safe.custody.Len(); n > 0 {
			s.fail("node %d, idle, still has %d messages on its disk", v.i, n)
		}
		slow = max(slow, v.disk.most)
	}
	s.pick().stop()
	s.checkStops(4*time.Second + 10*slow) // a refused proposal is made again after 1 to 2 s
}

// TestNothingLeft does all kinds of things to a swarm: nodes crash, freeze, stop politely and are started again, links break, and
// groups of nodes are cut off from one another. When it is whole again everything has come to everybody, and is gone.
func TestNothingLeft(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSubscribed(t, seed)
		for range 6 {
			s.trouble()
		}
		s.run(90 * time.Second)
		s.checkAll()
		s.report(seed)
	})
}

// TestNothingLeftOfTraffic does the same, several at once and links that hang among them, while clients publish all the time.
func TestNothingLeftOfTraffic(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSubscribed(t, seed)
		every, ends := []time.Duration{50 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second}[s.rng.IntN(3)], false
		var publish func()
		publish = func() {
			if ends {
				return
			}
			if v := s.nodes[s.rng.IntN(len(s.nodes))]; v.alive && !v.leaving && s.now >= v.frozen {
				s.publishOne(v)
			}
			s.after(time.Duration(s.rng.Int64N(int64(2*every))), publish)
		}
		publish()
		pause := func(most time.Duration) { s.run(time.Duration(s.rng.Int64N(int64(most)))) }
		for range 5 {
			for range 1 + s.rng.IntN(2) {
				if s.rng.IntN(4) == 0 {
					s.hang(s.nodes[s.rng.IntN(len(s.nodes))], time.Duration(s.rng.Int64N(int64(12*time.Second))))
				} else {
					s.fault()
				}
				pause([]time.Duration{300 * time.Millisecond, 8 * time.Second}[s.rng.IntN(2)])
			}
			pause(10 * time.Second)
			s.heal()
			pause(10 * time.Second)
		}
		ends = true
		s.run(100 * time.Second)
		s.checkAll()
		s.report(seed)
	})
}

// newSubscribed returns a small swarm with slow disks that has subscriptions of every kind.
func newSubscribed(t *testing.T, seed uint64) *sim {
	s := newSim(t, seed, 3*time.Millisecond)
	s.depth = 1 + int(seed%2)
	s.loss, s.disorder = true, true
	s.diskTime = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second}[seed%3]
	s.lazy = time.Duration(s.rng.IntN(2)) * 20 * time.Second
	s.grow(2 + s.rng.IntN(4))
	s.run(3 * time.Second)
	s.subscribeSome()
	s.run(8 * time.Second)
	return s
}

// subscribeSome has every node make some subscriptions, of every kind.
func (s *sim) subscribeSome() {
	for _, v := range s.nodes {
		for _, f := range []string{"#", "a/#", "+/b", "$share/g/a/+"} {
			if s.rng.IntN(2) == 0 {
				v.subscribe(f, 2)
			}
		}
	}
}

// trouble does something to the swarm while clients publish, and ends it.
func (s *sim) trouble() {
	some := func(n int, most time.Duration) {
		for range s.rng.IntN(n) {
			if v := s.nodes[s.rng.IntN(len(s.nodes))]; v.alive && s.now >= v.frozen {
				s.publishOne(v)
			}
			s.run(time.Duration(s.rng.Int64N(int64(most))))
		}
	}
	pause := func(most time.Duration) { s.run(time.Duration(s.rng.Int64N(int64(most)))) }
	some(20, time.Millisecond)
	pause([]time.Duration{time.Millisecond, 3 * time.Second}[s.rng.IntN(2)])
	s.fault()
	some(20, 200*time.Millisecond)
	if s.rng.IntN(3) == 0 {
		s.fault()
		some(20, 200*time.Millisecond)
	}
	pause([]time.Duration{time.Second, 20 * time.Second}[s.rng.IntN(2)])
	s.heal()
	some(20, 200*time.Millisecond)
	pause(10 * time.Second)
}

func (s *sim) fault() {
	v := s.nodes[s.rng.IntN(len(s.nodes))]
	switch s.rng.IntN(6) {
	case 0:
		if v.alive {
			v.crash()
		}
	case 1:
		if v.alive {
			s.freeze(v, time.Duration(s.rng.Int64N(int64(15*time.Second))))
		}
	case 2:
		if v.alive && s.now >= v.frozen {
			v.stop()
		}
	case 3:
		w := s.nodes[s.rng.IntN(len(s.nodes))]
		s.disconnect(v, w)
		s.after(time.Duration(s.rng.Int64N(int64(time.Second))), func() { s.connect(v, w) })
	case 4:
		s.split()
	case 5:
		s.oneWay(v, time.Duration(s.rng.Int64N(int64(20*time.Second))))
	}
}

// oneWay has nothing come to a node for a while, or nothing that it sends. It cannot connect to others meanwhile, and what was sent
// comes then, where the streams are the same still.
func (s *sim) oneWay(v *simNode, d time.Duration) {
	in, until := s.rng.IntN(2) == 0, s.now+d
	s.note("node %d hears nothing %v, or says nothing %v, for %v", v.i, in, !in, d)
	for _, w := range s.nodes {
		link := [2]int{v.i, w.i}
		if in {
			link = [2]int{w.i, v.i}
		}
		s.links[link] = max(s.links[link], until)
	}
	s.silent = max(s.silent, until)
	before := s.apart
	s.apart = func(a, b *simNode) bool {
		return s.now < until && (a == v || b == v) || before != nil && before(a, b)
	}
}

// split cuts the swarm in two. Some nodes may see both sides.
func (s *sim) split(both ...*simNode) {
	side := make([]bool, len(s.nodes))
	for i := range side {
		side[i] = s.rng.IntN(2) == 0
	}
	s.note("split %v", side)
	s.apart = func(v, w *simNode) bool {
		return side[v.i] != side[w.i] && !slices.Contains(both, v) && !slices.Contains(both, w)
	}
	for _, v := range s.nodes {
		for _, w := range s.nodes[:v.i] {
			if s.apart(v, w) {
				s.disconnect(v, w)
			}
		}
	}
}

// heal ends what is wrong. A node that stops while it can't reach a majority of a set that it is in can't do so before.
func (s *sim) heal() {
	s.run(max(0, s.silent-s.now))
	s.apart = nil
	for _, v := range s.nodes {
		s.run(max(0, v.frozen+1-s.now))
	}
	s.meet()
	slow := time.Duration(0)
	for _, v := range s.nodes {
		slow = max(slow, v.disk.most)
	}
	s.checkStops(9*time.Second + 20*slow) // sets change, one after another perhaps, and each step has to be safe
	for _, v := range s.nodes {
		if !v.alive {
			for _, p := range s.published { // its client has to publish it again
				p.cut = p.cut || p.node == v && !p.accepted
			}
			if v.leaving {
				v.disk.close()
			}
			v.leaving = false
			v.reboot()
			s.run(time.Duration(s.rng.Int64N(int64(time.Second))))
		}
	}
	s.meet()
}

// meet connects everybody to everybody.
func (s *sim) meet() {
	for _, v := range s.nodes {
		for _, w := range s.nodes[:v.i] {
			s.connect(v, w)
		}
	}
}

// TestRestartedWhileCut starts a node again that is cut off from the others, in the middle of what its clients publish: it is
// alone, and matches what they publish with the little that it knows. Its own subscribers at the root, whose set it may be no
// member of, get all that is acknowledged to them, and so do the others when it is back.
func TestRestartedWhileCut(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder = true, true
		s.diskTime = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond}[seed%2]
		s.unhurried = seed%5 == 0
		s.lazy = time.Duration(s.rng.IntN(2)) * 5 * time.Second
		s.grow(3 + s.rng.IntN(5))
		s.run(3 * time.Second)
		s.subscribeSome()
		v := s.pick()
		v.subscribe("+/+", 2)
		s.run(8 * time.Second)
		some := func(n int) {
			for range s.rng.IntN(n) {
				s.publishOne(v)
				s.run(time.Duration(s.rng.Int64N(int64(200 * time.Millisecond))))
			}
		}
		pause := func(most time.Duration) { s.run(time.Duration(s.rng.Int64N(int64(most)))) }
		some(10)
		s.cut(v)
		pause(7 * time.Second)
		some(20)
		for range 1 + s.rng.IntN(2) {
			v.crash()
			pause(5 * time.Second)
			v.reboot()
			pause([]time.Duration{time.Second, 10 * time.Second}[s.rng.IntN(2)])
			some(20)
			if s.rng.IntN(2) == 0 {
				v.subscribe([]string{"b/#", "+/c"}[s.rng.IntN(2)], 1)
			}
		}
		pause([]time.Duration{30 * time.Second, 3 * time.Minute}[s.rng.IntN(2)]) // after a minute it makes sets of its own
		some(10)
		s.rejoin(v)
		some(10)
		s.run(90 * time.Second)
		s.checkAll()
		s.report(seed)
	})
}

// TestStoppedThenCut has a rendezvous that stopped politely, or crashed, started again while it is cut off from the others, who go on without
// it: what its clients publish meanwhile, which it takes itself for the rendezvous of, comes to all who were subscribed when it is back among them, and
// takes its place again.
func TestStoppedThenCut(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder = true, true
		s.diskTime = 10 * time.Millisecond
		s.grow(7)
		s.run(3 * time.Second)
		v := s.membersOf(core.Place{Prefix: "a", Depth: 1})[0]
		for _, w := range s.nodes {
			if w != v && s.rng.IntN(2) == 0 {
				w.subscribe("a/#", 2)
			}
		}
		s.run(8 * time.Second)
		some := func(n int, own bool) {
			for range s.rng.IntN(n) {
				w := v
				if !own || s.rng.IntN(2) == 0 {
					w = s.pick()
				}
				if w.alive && s.now >= w.frozen {
					w.publish([]string{"a/x", "a/y", "a/z"}[s.rng.IntN(3)], byte(1+s.rng.IntN(2)), s.rng.IntN(4) > 0, []string{"v", ""}[s.rng.IntN(2)])
				}
				s.run(time.Duration(s.rng.Int64N(int64(200 * time.Millisecond))))
			}
		}
		pause := func(most time.Duration) { s.run(time.Duration(s.rng.Int64N(int64(most)))) }
		some(20, true)
		if s.rng.IntN(2) == 0 {
			v.stop()
			s.run(9 * time.Second)
			if v.alive {
				v.crash()
			}
			v.leaving = false
			pause(3 * time.Second)
			s.cut(v)
		} else {
			s.cut(v)
			pause(3 * time.Second)
			v.crash()
			pause(10 * time.Second)
		}
		some(20, false)
		v.reboot()
		for range s.rng.IntN(6) {
			some(15, true)
			switch w := s.pick(); s.rng.IntN(3) {
			case 0:
				if w.alive && w != v {
					w.crash()
					pause(3 * time.Second)
					w.reboot()
				}
			case 1:
				if s.now >= v.frozen && v.alive {
					s.freeze(v, time.Duration(s.rng.Int64N(int64(3*time.Second))))
				}
			}
			some(15, true)
		}
		s.run(max(0, v.frozen+1-s.now))
		s.rejoin(v)
		some(30, true)
		s.run(90 * time.Second)
		s.checkAll()
		s.report(seed)
	})
}
