package watch

import (
	"flag"
	"slices"
	"testing"
	"time"
)

var (
	seeds = flag.Int("seeds", 300, "how many seeds to simulate")
	seed  = flag.Uint64("seed", 0, "simulate this seed alone")
)

// fault has something go wrong, or well again.
func (s *sim) fault() {
	i := 1 + s.rng.IntN(simMembers)
	c := s.clients[s.rng.IntN(len(s.clients))]
	switch s.rng.IntN(10) {
	case 0:
		s.killX()
	case 1:
		s.startX()
	case 2:
		s.xFrozen = s.xUp
	case 3, 4:
		s.heal()
	case 5:
		for j := range s.groups {
			s.groups[j] = s.rng.IntN(2)
		}
		s.meet()
	case 6:
		if s.members[i].up {
			s.killMember(i)
		}
	case 7:
		s.members[i].frozen = true
	case 8: // a client loses its connection
		if s.alive(simX) && c.connected {
			c.connected, c.lost = false, s.now
		}
	case 9: // or connects again
		if s.alive(simX) && !c.connected {
			c.connected = true
			s.held = slices.DeleteFunc(s.held, func(h *simClient) bool { return h == c })
			s.arm(c)
		}
	}
}

func eachSeed(t *testing.T, run func(t *testing.T, seed uint64)) {
	if *seed != 0 {
		run(t, *seed)
		return
	}
	for s := range uint64(*seeds) { //nolint:gosec // not negative
		run(t, s+1)
	}
}

// TestWills has a node with clients and the three that watch it crash, hang and lose each other. Whatever has happened, when all is
// well again the wills of clients that are gone have come, under the identity that they had, and those of clients that are
// connected stand as if nothing had happened; and where the node is dead, all have come. No node is taken for dead that two members
// reach.
func TestWills(t *testing.T) {
	dead, twice, right := 0, 0, 0
	eachSeed(t, func(t *testing.T, seed uint64) {
		s := newSim(t, seed)
		s.run(8 * time.Second)
		for range 2 + s.rng.IntN(12) {
			s.fault()
			s.run(time.Duration(s.rng.IntN(25_000)) * time.Millisecond)
		}
		if dies := s.rng.IntN(2) == 0; dies {
			s.startX()
			s.heal()
			s.run(90 * time.Second) // everybody is there again
			s.checkAlive()
			s.killX()
			dead++
		} else {
			s.startX()
		}
		s.heal()
		s.run(120 * time.Second)
		if s.xUp {
			s.checkAlive()
		} else {
			for _, c := range s.clients {
				if c.will != nil && s.came[c.will.record.Epoch] == 0 {
					s.fail("the will %d of %s did not come", c.will.record.Epoch, c.topic)
				}
			}
		}
		twice, right = twice+s.twice, right+s.right
	})
	if *seed == 0 && *seeds >= 100 && (dead == 0 || twice == 0 || right == 0) {
		t.Errorf("%d nodes died, %d wills were sent by two, %d false alarms: the schedules are too tame", dead, twice, right)
	}
	t.Logf("%d nodes died for good, %d wills were sent by two, %d false alarms were put right", dead, twice, right)
}

// checkAlive checks what must hold of clients of a node that is well.
func (s *sim) checkAlive() {
	for _, c := range s.clients {
		switch x, _ := s.members[s.head(simX)].stands[c.topic].value.(*will); {
		case c.connected && (x == nil || c.will == nil || x.record.Epoch != c.will.record.Epoch):
			s.fail("%s is connected, and its will does not stand", c.topic)
		case c.connected && s.came[c.will.record.Epoch] > 0:
			s.fail("%s is connected, and its will %d is the one that has come", c.topic, c.will.record.Epoch)
		case !c.connected && c.will != nil:
			s.fail("%s is gone, and its will %d waits", c.topic, c.will.record.Epoch)
		case !c.connected && s.came[c.last] == 0:
			s.fail("%s is gone, and its will %d did not come", c.topic, c.last)
		}
	}
}

// TestResumed: a client that goes on elsewhere before the others send its will leaves none.
func TestResumed(t *testing.T) {
	early := 0
	eachSeed(t, func(t *testing.T, seed uint64) {
		s := newSim(t, seed)
		s.run(8 * time.Second)
		s.killX()
		over := map[uint64]bool{}
		for _, c := range s.clients {
			s.after(time.Duration(s.rng.IntN(24_000))*time.Millisecond, func() {
				epoch := c.last
				s.write(2, c.topic, &will{resumed: true}, false, func() { over[epoch] = s.came[epoch] == 0 })
			})
		}
		s.run(20 * time.Second)
		if s.rng.IntN(2) == 0 {
			s.startX()
		}
		s.run(120 * time.Second)
		for epoch, resumed := range over {
			if resumed && s.came[epoch] > 0 {
				s.fail("the client of the will %d had gone on elsewhere", epoch)
			}
			if resumed {
				early++
			}
		}
	})
	if *seed == 0 && *seeds >= 100 && (early == 0 || early == *seeds*simWills) {
		t.Errorf("%d of %d clients went on in time", early, *seeds*simWills)
	}
}
