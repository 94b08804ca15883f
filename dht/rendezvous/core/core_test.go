package core_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

var (
	seeds = flag.Int("seeds", manySeeds, "how many seeds to simulate")
	first = flag.Uint64("first", 1, "the first of the seeds")
	seed  = flag.Uint64("seed", 0, "simulate this seed alone")
)

func point(id core.NodeID) dht.Location { return dht.PeerPoint(id.Peer()) }

// report fails the test with the seed that shows the fault.
func (s *sim) report(seed uint64) {
	s.t.Helper()
	if len(s.errors) == 0 {
		return
	}
	if os.Getenv("SIM_TRACE") != "" {
		fmt.Print(s.describe())
	}
	for _, e := range s.errors {
		s.t.Error(e)
	}
	s.t.Fatalf("replay with: go test ./dht/rendezvous/core -run '%s$' -seed %d", strings.TrimSuffix(strings.Split(s.t.Name(), "/")[0], "/"), seed)
}

// eachSeed runs a simulation with many seeds, on all processors.
func eachSeed(t *testing.T, n int, run func(t *testing.T, seed uint64)) {
	if *seed != 0 {
		run(t, *seed)
		return
	}
	var next atomic.Uint64
	for range runtime.GOMAXPROCS(0) {
		t.Run("seeds", func(t *testing.T) {
			t.Parallel()
			for {
				i := next.Add(1) - 1
				if i >= uint64(n) { //nolint:gosec // not negative
					return
				}
				run(t, *first+i)
			}
		})
	}
}

// TestTwoNodes is the thinnest whole path: a subscription at one node hears a publish at another.
func TestTwoNodes(t *testing.T) {
	for qos := range byte(3) {
		s := newSim(t, 1+uint64(qos), time.Millisecond)
		a, b := s.add(), s.add()
		s.connect(a, b)
		s.run(time.Second)
		st := b.subscribe("doors/#", 2)
		s.run(time.Second)
		if !st.promised {
			t.Fatal("the subscription is not promised within a second")
		}
		p := a.publish("doors/1", qos, false, "open")
		s.run(5 * time.Second)
		s.check()
		s.checkSets()
		s.report(1)
		if b.from[p] != 1 {
			t.Fatalf("QoS %d: %d copies came", qos, b.from[p])
		}
	}
}

// TestStable runs clients at nodes that neither come nor go: nothing is lost at any QoS.
func TestStable(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.depth = 1 + int(seed%3)
		n := 1 + s.rng.IntN(8)
		s.grow(n)
		s.run(3 * time.Second)
		s.clients(60)
		s.run(15 * time.Second)
		s.checkAll()
		s.report(seed)
	})
}

// TestJoinAndLeave runs clients while nodes join and leave politely: nothing acknowledged is lost, nothing
// comes twice, order is kept.
func TestJoinAndLeave(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 5*time.Millisecond)
		s.loss = true
		s.depth = 1 + int(seed%2)
		n := 3 + s.rng.IntN(5)
		switch {
		case seed%100 == 0:
			n = 50
		case seed%20 == 0:
			n = 30
		}
		s.grow(n)
		s.run(3 * time.Second)
		for range 6 {
			s.clients(30)
			if s.rng.IntN(2) == 0 {
				s.join(s.add())
			} else if s.alive() > 2 {
				v := s.pick()
				v.leaving = true
				v.do(func() { v.n.WithdrawAll(); v.n.Leave() })
			}
			s.clients(30)
		}
		s.run(90 * time.Second) // for a minute a node may not be sure of a set that it founded without one that it could not meet
		for _, v := range s.nodes {
			if v.leaving && v.alive {
				s.fail("node %d has not left: %s", v.i, v.n.WhyStill())
			}
		}
		s.check()
		s.checkSets()
		s.checkRetained()
		s.report(seed)
	})
}

// TestMerge lets swarms that did not know each other meet: from then on they are one.
func TestMerge(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.merged, s.loss = false, true
		var sizes [2]int
		for swarm := range 2 {
			sizes[swarm] = 1 + s.rng.IntN(4)
			first := len(s.nodes)
			for i := range sizes[swarm] {
				v := s.add()
				v.swarm = swarm
				if i > 0 {
					s.connect(v, s.nodes[first+s.rng.IntN(i)])
				}
			}
		}
		s.run(3 * time.Second)
		s.clients(60)
		s.run(5 * time.Second)
		first, last := s.nodes[0], s.nodes[len(s.nodes)-1]
		if seed%3 == 0 { // they meet at a node that knows both
			bridge := s.add()
			s.connect(bridge, first)
			s.connect(bridge, last)
		} else {
			s.connect(first, last)
		}
		s.run(10 * time.Second) // a lease for those who served both, and some changes of sets
		s.merged = true
		s.clients(60)
		s.run(30 * time.Second)
		s.check()
		s.checkSets()
		s.checkRetained()
		s.report(seed)
	})
}

// TestStreamsBreak breaks links between nodes that live, for moments: what was acknowledged arrives all the
// same, once.
func TestStreamsBreak(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder = true, true
		n := 2 + s.rng.IntN(4)
		s.grow(n)
		s.run(3 * time.Second)
		s.clients(40)
		for range 12 {
			v, w := s.pick(), s.pick()
			s.disconnect(v, w)
			s.clients(s.rng.IntN(15))
			s.after(time.Duration(s.rng.Int64N(int64(300*time.Millisecond))), func() { s.connect(v, w) })
			s.clients(s.rng.IntN(15))
		}
		s.run(80 * time.Second)
		s.checkAll()
		s.report(seed)
	})
}

// TestRestart kills nodes and starts them again without their databases, most of a set at once: what is
// subscribed and published from then on arrives.
func TestRestart(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.disorder, s.forgets = true, true, true
		n := 2 + s.rng.IntN(3)
		s.grow(n)
		s.run(3 * time.Second)
		s.clients(40)
		s.run(5 * time.Second)
		for range 1 + s.rng.IntN(n-1) {
			dead := s.pick()
			dead.alive = false
			for _, v := range s.nodes {
				s.disconnect(dead, v)
			}
			s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
			s.join(s.addPeer(dead.id.Peer()))
			s.run(2 * time.Second)
		}
		hub := s.pick()
		for _, v := range s.nodes { // who has come back may have met only such as had, too
			s.connect(hub, v)
		}
		s.run(8 * time.Second)
		first := len(s.published)
		late := s.pick()
		st := late.subscribe("#", 2)
		s.run(12 * time.Second)
		if !st.promised {
			s.fail("node %d: a subscription is not promised 12 s after everybody is back", late.i)
		}
		s.clients(60)
		s.run(12 * time.Minute)
		s.published = s.published[first:]
		s.check()
		s.checkSets()
		s.report(seed)
	})
}

// TestLarge runs more nodes than each of them knows: sets come from lookups.
func TestLarge(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.small, s.loss = 6, true
		s.disorder = true // a message that nobody took while sets were being found is sent again, late
		for i := range 12 + s.rng.IntN(12) {
			v := s.add()
			if i > 0 {
				s.connect(v, s.nodes[s.rng.IntN(i)])
			}
			s.run(50 * time.Millisecond)
		}
		s.run(3 * time.Second)
		s.clients(100)
		s.run(30 * time.Second)
		s.check()
		s.checkRetained()
		s.report(seed)
	})
}

// TestRendezvousDies kills one node of some: what is published and subscribed from then on, at the others,
// arrives.
func TestRendezvousDies(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.depth = 1 + int(seed%2)
		s.loss, s.forgets = true, true
		n := 3 + s.rng.IntN(4)
		s.grow(n)
		s.run(3 * time.Second)
		s.clients(60)
		s.run(3 * time.Second)
		dead := s.pick()
		dead.alive = false
		for _, v := range s.nodes {
			s.disconnect(dead, v)
		}
		s.run(time.Second)
		s.clients(60)
		s.run(90 * time.Second) // it is replaced after a minute
		s.clients(60)
		s.run(12 * time.Minute) // what is kept for it is dropped after ten
		s.check()
		s.checkSets()
		s.checkRetained()
		s.report(seed)
	})
}

// join connects a node to some other, and to another yet if that one goes before they have met.
func (s *sim) join(v *simNode) {
	if len(v.up) == 0 && v.alive {
		s.connect(v, s.pick())
		s.after(time.Second, func() { s.join(v) })
	}
}

func (s *sim) alive() (n int) {
	for _, v := range s.nodes {
		if v.alive && !v.leaving {
			n++
		}
	}
	return n
}

// pick returns some node that stays. One that has no peers yet is a swarm of its own.
func (s *sim) pick() *simNode {
	for {
		if v := s.nodes[s.rng.IntN(len(s.nodes))]; v.alive && !v.leaving && (len(v.up) > 0 || len(s.nodes) == 1 || !s.merged || s.disorder) {
			return v
		}
	}
}

// clients lets clients subscribe, unsubscribe and publish at random.
func (s *sim) clients(steps int) {
	levels := []string{"a", "b", "c", ""}
	name := func() string {
		t := levels[s.rng.IntN(len(levels))]
		for range s.rng.IntN(3) {
			t += "/" + levels[s.rng.IntN(len(levels))]
		}
		if t == "" {
			t = "a"
		}
		return t
	}
	filter := func() string {
		switch s.rng.IntN(6) {
		case 0:
			return "#"
		case 1:
			return "+/" + levels[s.rng.IntN(len(levels))]
		case 2:
			return name() + "/#"
		case 3:
			return name() + "/+"
		}
		return name()
	}
	for range steps {
		v := s.pick()
		switch k := s.rng.IntN(20); {
		case k < 3:
			v.subscribe(filter(), byte(s.rng.IntN(3)))
		case k == 3:
			v.subscribe(fmt.Sprintf("$share/g%d/%s", s.rng.IntN(2), filter()), byte(s.rng.IntN(3)))
		case k == 4:
			for _, f := range sortedFilters(v.interests) {
				v.unsubscribe(f)
				break
			}
		default:
			v.publish(name(), byte(s.rng.IntN(3)), s.rng.IntN(8) == 0, []string{"", "v"}[s.rng.IntN(2)])
		}
		s.run(time.Duration(s.rng.Int64N(int64(20 * time.Millisecond))))
	}
}
