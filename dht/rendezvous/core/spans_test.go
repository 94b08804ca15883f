package core

import (
	"math/rand/v2"
	"testing"
)

// TestSpans does the same to spans and to a map.
func TestSpans(t *testing.T) {
	const most = 40
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s spans
		has := map[uint64]bool{}
		for range 60 {
			from := 1 + rng.Uint64N(most)
			to := min(from+rng.Uint64N(6), most)
			switch rng.IntN(6) {
			case 0:
				s.remove(from)
				delete(has, from)
			case 1:
				s.cut(from, to)
				for seq := from; seq <= to; seq++ {
					delete(has, seq)
				}
			case 2:
				s.trim(from)
				for seq := uint64(1); seq <= from; seq++ {
					delete(has, seq)
				}
			case 3:
				if len(s) > 0 {
					from = min(from, s[0].from)
				}
				s.cover(from, to)
				for seq := from; seq <= max(from, to); seq++ {
					has[seq] = true
				}
			default:
				if s.add(from) == has[from] {
					t.Fatalf("seed %d: %d was missing, or was not, in %v", seed, from, s)
				}
				has[from] = true
			}
			for seq := uint64(0); seq <= most+1; seq++ {
				if s.has(seq) != has[seq] {
					t.Fatalf("seed %d: %v has %d: %v", seed, s, seq, s.has(seq))
				}
			}
			for i, e := range s {
				if e.from > e.to || i > 0 && s[i-1].to+1 >= e.from {
					t.Fatalf("seed %d: %v is not in order, or in more runs than it takes", seed, s)
				}
			}
		}
	}
}

// TestAdvance: what is forgotten ends before the first number that never came, is not over, is owed, or is not released.
func TestAdvance(t *testing.T) {
	for _, c := range []struct {
		name              string
		seen              spans
		open              []uint64
		owed              spans
		low, freed, wants uint64
	}{
		{name: "nothing came", freed: 5},
		{name: "all is over", seen: spans{{1, 5}}, freed: 5, wants: 5},
		{name: "not released", seen: spans{{1, 5}}, freed: 3, wants: 3},
		{name: "a gap", seen: spans{{1, 2}, {4, 5}}, freed: 5, wants: 2},
		{name: "a gap at the front", seen: spans{{2, 5}}, freed: 5},
		{name: "later", seen: spans{{3, 5}}, low: 2, freed: 5, wants: 5},
		{name: "one is not over", seen: spans{{1, 5}}, open: []uint64{4}, freed: 5, wants: 3},
		{name: "many are not over", seen: spans{{1, 5}}, open: []uint64{2, 3, 4, 5, 6}, freed: 5, wants: 1},
		{name: "the first is not over", seen: spans{{1, 5}}, open: []uint64{1}, freed: 5},
		{name: "owed", seen: spans{{1, 5}}, owed: spans{{3, 3}, {5, 5}}, freed: 5, wants: 2},
		{name: "more than there are", seen: spans{{1, 1<<64 - 1}}, open: []uint64{1 << 40}, freed: 1<<64 - 1, wants: 1<<40 - 1},
	} {
		s := &stream{low: c.low, freed: c.freed, seen: c.seen}
		for _, seq := range c.open {
			s.entries.put(seq, &entry{})
		}
		if c.owed != nil {
			s.owed = map[NodeID]*spans{"node": &c.owed}
		}
		if s.advance(); s.low != c.wants {
			t.Errorf("%s: forgotten up to %d, want %d", c.name, s.low, c.wants)
		}
		if len(s.seen) > 0 && s.seen[0].from <= s.low {
			t.Errorf("%s: forgotten up to %d, and %v is remembered", c.name, s.low, s.seen)
		}
	}
}
