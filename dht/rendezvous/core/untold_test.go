package core_test

import (
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// TestServedTwice has a message come to one rendezvous, which gives it to a subscriber's node and is lost sight of before it can
// say so, and to another, which does not see the subscriber's node. The publisher's node, which sees both, now the one and now
// the other, has let go of the message then. The subscriber's node crashes: it comes once nevertheless.
func TestServedTwice(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.loss, s.disorder = true, true
		s.diskTime = 10 * time.Millisecond
		s.grow(6)
		s.run(3 * time.Second)
		place := core.Place{Prefix: "a", Depth: 1}
		s.pick().publish("a/b", 1, false, "v")
		s.run(3 * time.Second)
		in := s.membersOf(place)
		_, out := s.members(place)
		p, x := out[0], out[1]
		x.subscribe("a/b", 2)
		s.run(2 * time.Second)
		links := func(apart func(v, w *simNode) bool) {
			s.apart = func(v, w *simNode) bool { return apart(v, w) || apart(w, v) }
			for _, v := range s.nodes {
				for _, w := range s.nodes[:v.i] {
					if s.apart(v, w) {
						s.disconnect(v, w)
					}
				}
			}
			s.meet()
		}
		alone := func(v, w *simNode) bool { return v == in[0] && w == in[1] }
		blind := func(v, w *simNode) bool { return v == x && w == in[1] }
		links(func(v, w *simNode) bool { return alone(v, w) || blind(v, w) })
		s.run(time.Duration(s.rng.Int64N(int64(3 * time.Second))))
		m := p.publish("a/b", 2, false, "v")
		for x.from[m] == 0 && s.now-m.at < 2*time.Second {
			s.run(100 * time.Microsecond)
		}
		links(func(v, w *simNode) bool { return alone(v, w) || blind(v, w) || v == p && w == in[0] })
		s.run(time.Duration(s.rng.Int64N(int64(5 * time.Second))))
		links(func(v, w *simNode) bool { return alone(v, w) || blind(v, w) })
		for range 10 {
			p.publish("a/b", 2, false, "v")
			s.run(time.Duration(s.rng.Int64N(int64(2 * time.Second))))
		}
		x.crash() // it knows from now on only what it has not been told to forget
		x.reboot()
		s.heal()
		s.run(90 * time.Second)
		s.check()
		s.checkSets()
		s.checkNothingLeft()
		s.report(seed)
	})
}
