package bench

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestTally(t *testing.T) {
	for _, tc := range []struct {
		name                     string
		come                     []uint64
		unique, duplicates, late uint64
	}{
		{"in order", []uint64{0, 1, 2, 3}, 4, 0, 0},
		{"the first are missing", []uint64{5, 6}, 2, 0, 0},
		{"twice", []uint64{0, 0, 1, 0}, 2, 2, 0},
		{"swapped", []uint64{1, 0, 2}, 3, 0, 1},
		{"one behind many", []uint64{0, 2, 3, 4, 1, 5}, 6, 0, 1},
		{"late and twice", []uint64{0, 3, 1, 1, 2, 2, 3}, 4, 3, 2},
		{"backwards", []uint64{4, 3, 2, 1, 0}, 5, 0, 4},
		{"a gap is filled from the middle", []uint64{9, 4, 4, 5, 3, 0, 8}, 6, 1, 5},
		{"the largest number", []uint64{1<<64 - 2, 0, 1<<63 - 1, 1<<64 - 2}, 3, 1, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c tally
			for _, n := range tc.come {
				c.add(n)
			}
			if c.Unique != tc.unique || c.Duplicates != tc.duplicates || c.Late != tc.late {
				t.Errorf("%d unique, %d twice, %d late; want %d, %d, %d", c.Unique, c.Duplicates, c.Late, tc.unique, tc.duplicates, tc.late)
			}
		})
	}
}

// plainTally counts the same as tally in the obvious way, and remembers everything.
type plainTally struct {
	came                     map[uint64]bool
	highest                  uint64
	unique, duplicates, late uint64
}

func (p *plainTally) add(n uint64) bool {
	if p.came[n] {
		p.duplicates++
		return false
	}
	if n < p.highest {
		p.late++
	}
	p.came[n], p.highest = true, max(p.highest, n)
	p.unique++
	return true
}

// TestTallyOracle holds a tally against the obvious one, on flows that lose, double and reorder.
func TestTallyOracle(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var flow []uint64
		for n := range uint64(200) {
			switch rnd.IntN(10) {
			case 0: // lost
			case 1:
				flow = append(flow, n, n)
			default:
				flow = append(flow, n)
			}
		}
		for range rnd.IntN(100) {
			i, j := rnd.IntN(len(flow)), rnd.IntN(len(flow))
			flow[i], flow[j] = flow[j], flow[i]
		}
		var c tally
		p := plainTally{came: map[uint64]bool{}}
		for _, n := range flow {
			if c.add(n) != p.add(n) {
				t.Fatalf("seed %d: whether %d is new", seed, n)
			}
		}
		if got, want := fmt.Sprint(c.Unique, c.Duplicates, c.Late), fmt.Sprint(p.unique, p.duplicates, p.late); got != want {
			t.Fatalf("seed %d: have %s, want %s", seed, got, want)
		}
		missing := uint64(0)
		for i, g := range c.gaps {
			missing += g.to - g.from
			if g.from >= g.to || i > 0 && g.from <= c.gaps[i-1].to {
				t.Fatalf("seed %d: gaps %v", seed, c.gaps)
			}
		}
		if missing+c.Unique != c.next {
			t.Fatalf("seed %d: %d missing and %d unique of %d", seed, missing, c.Unique, c.next)
		}
	}
}

// A flow that loses every second message does not use up the memory: the oldest gaps are forgotten, and what fills them
// later counts as coming twice, which is no better.
func TestTallyIsBounded(t *testing.T) {
	var c tally
	const n = 3 * maxGaps
	for i := uint64(0); i < n; i++ {
		c.add(2*i + 1)
		if len(c.gaps) > maxGaps {
			t.Fatalf("%d gaps", len(c.gaps))
		}
	}
	if c.add(0) || !c.add(2*(n-1)) {
		t.Error("the oldest gap is known, or the newest is not")
	}
	if c.Unique != n+1 || c.Duplicates != 1 || c.Late != 1 {
		t.Errorf("%d unique, %d twice, %d late", c.Unique, c.Duplicates, c.Late)
	}
}

func TestShares(t *testing.T) {
	for _, tc := range []struct {
		topics, clients int
		want            [][]int // the topics of each client
	}{
		{1, 3, [][]int{{0}, {0}, {0}}},
		{3, 1, [][]int{{0, 1, 2}}},
		{3, 3, [][]int{{0}, {1}, {2}}},
		{4, 2, [][]int{{0, 2}, {1, 3}}},
		{2, 3, [][]int{{0}, {1}, {0}}},
	} {
		var got [][]int
		for i := range tc.clients {
			var topics []int
			for topic := range tc.topics {
				if shares(tc.topics, topic, tc.clients, i) {
					topics = append(topics, topic)
				}
			}
			got = append(got, topics)
		}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%d topics, %d clients: %v, want %v", tc.topics, tc.clients, got, tc.want)
		}
	}
}
