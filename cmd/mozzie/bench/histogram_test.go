package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Every bucket holds its own middle, and they go up.
func TestBuckets(t *testing.T) {
	for i := range len(histogram{}.buckets) {
		if got := bucketOf(uint64(middleOf(i))); got != i {
			t.Fatalf("the middle of bucket %d, %v, is in bucket %d", i, middleOf(i), got)
		}
		if i > 0 && middleOf(i) <= middleOf(i-1) {
			t.Fatalf("bucket %d is below the one before", i)
		}
	}
	if got, last := bucketOf(1<<63), len(histogram{}.buckets)-1; got != last {
		t.Errorf("292 years are in bucket %d, want %d", got, last)
	}
}

// TestQuantiles holds quantiles against those of the sorted durations.
func TestQuantiles(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var both [2]histogram
		var all []time.Duration
		for range 1 + rnd.IntN(5000) {
			d := time.Duration(rnd.Uint64() >> (30 + rnd.IntN(34)))
			all = append(all, d)
			both[rnd.IntN(2)].add(d)
		}
		h := &both[0]
		h.merge(&both[1])
		slices.Sort(all)
		for _, q := range []float64{0, .5, .9, .99, .999} {
			want := all[int(q*float64(len(all)))]
			got := h.quantile(q)
			if diff := (got - want).Abs(); diff > want/subBuckets {
				t.Errorf("seed %d: quantile %v is %v, want %v", seed, q, got, want)
			}
		}
		if h.quantile(1) != all[len(all)-1] || h.longest != all[len(all)-1] {
			t.Errorf("seed %d: the longest is %v and %v, want %v", seed, h.quantile(1), h.longest, all[len(all)-1])
		}
	}
	if got := (&histogram{}).quantile(.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}
