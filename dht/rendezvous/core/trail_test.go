package core_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// simClient is a client that publishes more than one message.
type simClient struct {
	node *simNode
	sent []*published
	free func() // called when the last one is acknowledged
}

func (c *simClient) publish(name string, qos byte) *published {
	return c.node.publishFrom(c, name, qos, false, "v")
}

func (c *simClient) accept(packet uint16) {
	if c.sent[packet].accepted = true; int(packet) == len(c.sent)-1 && c.free != nil {
		c.node.s.after(50*time.Microsecond, c.free)
	}
}

// oneAtATime has the client publish on topics by turns, each message when the one before is acknowledged.
func (c *simClient) oneAtATime(topics []string, times int) {
	c.free = func() {
		if times--; times >= 0 {
			c.publish(topics[c.node.s.rng.IntN(len(topics))], byte(1+c.node.s.rng.IntN(2)))
		}
	}
	c.free()
}

// inOrder checks that every node got what it got of the client's messages in the order in which they were published.
func (s *sim) inOrder(c *simClient) {
	for _, v := range s.nodes {
		last := -1
		for _, p := range v.got {
			if i := slices.Index(c.sent, p); i >= 0 {
				if i < last {
					s.fail("node %d got %s (%s) after %s (%s)", v.i, p.id, p.m.Topic, c.sent[last].id, c.sent[last].m.Topic)
				}
				last = i
			}
		}
	}
}

// TestOneAtATime has clients wait for each acknowledgement before they publish the next message, on topics at many
// locations: every subscriber hears each of them in order.
func TestOneAtATime(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.depth = 1 + int(seed%2)
		if seed%3 == 0 { // links take up to 31 times that
			s.uneven, s.slow = true, 200*time.Microsecond
		}
		s.grow(2 + s.rng.IntN(5))
		s.run(3 * time.Second)
		var topics []string
		for i := range 6 {
			topics = append(topics, fmt.Sprintf("t%d/x", i), fmt.Sprintf("same/%d/x", i))
		}
		for _, v := range s.nodes {
			v.subscribe([]string{"#", "+/+/x", "same/#", "+/x"}[s.rng.IntN(4)], byte(1+s.rng.IntN(2)))
		}
		s.run(2 * time.Second)
		first := &simClient{node: s.nodes[0]} // places are founded by the first message, which may take long
		for _, name := range topics {
			first.publish(name, 1)
		}
		s.run(5 * time.Second)
		clients := []*simClient{{node: s.nodes[0]}, {node: s.nodes[1]}, {node: s.nodes[0]}}
		for _, c := range clients {
			c.oneAtATime(topics, 200)
		}
		s.run(90 * time.Second)
		for _, c := range clients {
			if s.inOrder(c); len(c.sent) != 200 {
				s.fail("a client of node %d got %d messages off", c.node.i, len(c.sent))
			}
		}
		var held, givenUp uint64
		for _, v := range s.nodes {
			held, givenUp = held+v.n.Stats().Held, givenUp+v.n.Stats().GivenUp
		}
		if held == 0 || givenUp > 0 {
			s.fail("%d messages waited for others, %d in vain", held, givenUp)
		}
		s.check()
		s.checkSets()
		s.report(seed)
	})
}

// oneClient makes a swarm with a client at its first node, and subscribers to everything at the others.
func oneClient(t *testing.T, nodes int) (*sim, *simClient) {
	s := newSim(t, 1, time.Millisecond)
	s.grow(nodes)
	s.run(3 * time.Second)
	for _, v := range s.nodes[1:] {
		v.subscribe("#", 2)
	}
	s.run(time.Second)
	return s, &simClient{node: s.nodes[0]}
}

// TestHasty has a client publish without waiting for acknowledgements: nothing of it waits, but for the message that
// shows it.
func TestHasty(t *testing.T) {
	s, c := oneClient(t, 3)
	for i := range 100 {
		c.publish(fmt.Sprintf("t%d/x", i%7), byte(i%3))
	}
	if st := s.nodes[0].n.Stats(); st.Held != 1 || st.GivenUp > 0 {
		t.Errorf("%d messages waited for others, %d in vain", st.Held, st.GivenUp)
	}
	s.run(30 * time.Second)
	s.check()
	s.checkSets()
	s.report(1)
}

// TestHastyRetained has a client publish behind a retained message that is not acknowledged: it does not wait.
func TestHastyRetained(t *testing.T) {
	s, c := oneClient(t, 3)
	first := c.node.publishFrom(c, "a/x", 1, true, "v")
	c.publish("b/x", 1)
	if first.accepted || c.node.n.Stats().Held > 0 {
		t.Errorf("the first is acknowledged: %v, %d messages waited for others", first.accepted, c.node.n.Stats().Held)
	}
	s.run(30 * time.Second)
	s.check()
	s.checkSets()
	s.report(1)
}

// TestHeldThenLeave has a node leave while a message of a client of it waits for its turn: it arrives.
func TestHeldThenLeave(t *testing.T) {
	s, c := oneClient(t, 3)
	v := c.node
	c.publish("a/x", 1)
	last := c.publish("b/x", 1)
	if last.accepted || v.n.Stats().Held != 1 {
		t.Fatal("the second message does not wait for the first")
	}
	v.leaving = true
	v.do(func() { v.n.WithdrawAll(); v.n.Leave() })
	s.run(30 * time.Second)
	if v.alive || s.nodes[1].from[last] != 1 {
		t.Errorf("the node has left: %v, the message came %d times", !v.alive, s.nodes[1].from[last])
	}
	s.check()
	s.report(1)
}

// TestHeldByMute has a subscriber's node hang: a client that publishes elsewhere is kept waiting once, and not for long.
func TestHeldByMute(t *testing.T) {
	s, c := oneClient(t, 4)
	s.mute = func(frame any) bool {
		_, acks := frame.(*pb.DeliverAck)
		mark, marks := frame.(*pb.Sync)
		return acks || marks && mark.GetEpoch() == 0
	}
	c.oneAtATime([]string{"a/x", "b/x"}, 50)
	s.run(4 * time.Second)
	if st := s.nodes[0].n.Stats(); len(c.sent) != 50 || st.GivenUp == 0 || st.GivenUp > 2 {
		t.Errorf("%d messages are off, %d waited, %d in vain", len(c.sent), st.Held, st.GivenUp)
	}
	s.report(1)
}
