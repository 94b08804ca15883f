package core_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// TestArrived: a session that comes to a node which is cut off gets what clients there have published before, once, for itself; and
// nothing of what somebody has taken over.
func TestArrived(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.loss, s.disorder = true, true
		s.grow(3)
		s.run(3 * time.Second)
		v := s.pick()
		for _, w := range s.nodes {
			w.subscribe("a/#", 2)
		}
		s.run(20 * time.Second)
		arrive := func(name string, filters ...string) (got []string) {
			v.do(func() { v.n.Arrived(name, filters, false, nil) })
			for _, e := range v.effects {
				if e.Kind != core.Deliver || e.Delivery.Plain || e.Delivery.Receipt == nil {
					continue
				}
				for _, g := range e.Delivery.Groups {
					if g.Filter == name {
						got = append(got, string(e.Delivery.Message.Payload))
					}
				}
			}
			return got
		}
		v.publish("a/b", 2, false, "taken over")
		s.run(20 * time.Second)
		s.cut(v)
		v.publish("a/b", 0, false, "QoS 0")
		v.publish("a/b", 2, false, "first")
		v.publish("c", 2, false, "other")
		v.publish("a/b", 2, false, "second")
		s.run(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
		want := func(got []string, texts ...string) {
			if len(got) != len(texts) {
				s.fail("the session gets %q, want %q", got, texts)
				return
			}
			for i := range texts {
				if got[i] != texts[i] {
					s.fail("the session gets %q, want %q", got, texts)
				}
			}
		}
		want(arrive("s/1", "b/#"))
		want(arrive("s/1", "b/#", "+/b"), "first", "second")
		want(arrive("s/1", "a/#", "+/b"))
		want(arrive("s/2", "a/#", "+/b"), "first", "second")
		s.rejoin(v)
		s.run(60 * time.Second)
		want(arrive("s/3", "a/#"))
		s.check()
		s.report(seed)
	})
}

// TestArrivedLate: a session that comes to a node while what a client there has published is held up on its way gets that when others
// keep it, for where the session was may have withdrawn by then; and not what is on its way for as long as it takes, which that gets, if it
// does not withdraw before it is told.
func TestArrivedLate(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3*time.Millisecond)
		s.grow(3)
		s.run(3 * time.Second)
		v, hop, was := s.nodes[0], s.nodes[1], s.nodes[2]
		v.subscribe("#", 2)
		hop.subscribe("#", 2)
		s.run(8 * time.Second)
		topic := s.levelOf(hop, "late") + "/x"
		got := func(p *published) (n int) {
			for key, times := range p.took {
				if strings.HasSuffix(key, "/s/1") {
					n += times
				}
			}
			return n
		}
		for _, held := range []time.Duration{time.Duration(s.rng.IntN(1000)) * time.Millisecond, time.Duration(2500+s.rng.IntN(1000)) * time.Millisecond} {
			was.subscribe(topic, 2)
			s.run(10 * time.Second)
			s.hang(hop, held)
			p := v.publish(topic, 2, false, "v")
			s.run(held / 2)
			v.do(func() { v.n.Arrived("s/1", []string{"+/x"}, false, func() { was.unsubscribe(topic) }) })
			if n := got(p); n != 0 {
				s.fail("held up for %v: it came %d times at once", held, n)
			}
			s.run(20 * time.Second)
			if n, want := got(p), int(held/(2*time.Second)); n != want {
				s.fail("held up for %v: it came %d times, want %d", held, n, want)
			}
			if was.from[p] == 0 || was.interests[topic] != nil {
				s.fail("held up for %v: where the session was %d came, and it stands registered: %v", held, was.from[p], was.interests[topic] != nil)
			}
		}
		s.check()
		s.report(seed)
	})
}
