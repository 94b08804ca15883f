package core_test

import (
	"testing"
	"time"
)

// TestOrder has clients publish without a pause while nodes join and leave politely, over links of which some are
// much slower than others: what one node publishes on a topic at one QoS arrives in order, everywhere, once.
func TestOrder(t *testing.T) {
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 2*time.Millisecond)
		s.loss, s.uneven = true, true
		n := 3 + s.rng.IntN(4)
		s.grow(n)
		s.run(3 * time.Second)
		clients := s.nodes[:2] // they stay
		topics := []string{"a/x", "b/y", "c", "d"}
		for _, v := range clients {
			v.subscribe("#", 2)
			v.subscribe(topics[s.rng.IntN(len(topics))], 1)
		}
		s.run(time.Second)
		for range 4 {
			s.stream(clients, topics, 60)
			if rest := s.pickFrom(s.nodes[2:]); rest != nil && s.alive() > 2 && s.rng.IntN(2) == 0 {
				rest.leaving = true
				rest.do(func() { rest.n.WithdrawAll(); rest.n.Leave() })
			} else {
				s.join(s.add())
			}
			s.stream(clients, topics, 300)
		}
		s.run(80 * time.Second) // copies that nobody needs are found within a minute
		s.check()
		s.checkSets()
		s.report(seed)
	})
}

// stream has some nodes publish, each on all topics, every few milliseconds.
func (s *sim) stream(nodes []*simNode, topics []string, times int) {
	for range times {
		for _, v := range nodes {
			v.publish(topics[s.rng.IntN(len(topics))], byte(1+s.rng.IntN(2)), false, "v")
		}
		s.run(time.Duration(s.rng.Int64N(int64(2 * time.Millisecond))))
	}
}

// pickFrom returns some node of some that has peers and stays, nil where there is none.
func (s *sim) pickFrom(nodes []*simNode) *simNode {
	var fit []*simNode
	for _, v := range nodes {
		if v.alive && !v.leaving && len(v.up) > 0 {
			fit = append(fit, v)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[s.rng.IntN(len(fit))]
}
