package core

import (
	"math/rand/v2"
	"testing"
)

// TestNumbered holds numbered against a map, and that it does not keep room for what was in it once.
func TestNumbered(t *testing.T) {
	var n numbered[int]
	want := map[uint64]int{}
	r := rand.New(rand.NewPCG(1, 2))
	for step := range 20_000 {
		seq := r.Uint64N(4000)
		if growing := step%10_000 < 5000; growing {
			n.put(seq, step)
			want[seq] = step
		} else {
			n.remove(seq)
			delete(want, seq)
		}
		if n.len() != len(want) || n.get(seq) != want[seq] {
			t.Fatalf("step %d: %d values, value %d; want %d, %d", step, n.len(), n.get(seq), len(want), want[seq])
		}
		if n.most > fewValues && n.most > 8*n.len()+8 {
			t.Fatalf("step %d: made for %d values, has %d", step, n.most, n.len())
		}
	}
	for i, seq := range n.sorted() {
		if n.get(seq) != want[seq] || i > 0 && seq <= n.sorted()[i-1] {
			t.Fatalf("value %d of number %d; want %d", n.get(seq), seq, want[seq])
		}
	}
}
