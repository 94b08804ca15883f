package bench

import (
	"math/bits"
	"time"
)

// A histogram's buckets: the first subBuckets hold one nanosecond each, and from there on each power of two is divided
// into subBuckets. So a bucket is at most 1/64 of its value wide, and 1.6 % is how exact a quantile is.
const (
	subBits    = 6
	subBuckets = 1 << subBits
	octaves    = 36 - subBits // up to 68 s; what is longer is in the last bucket
)

// histogram counts durations.
type histogram struct {
	buckets [(octaves + 1) * subBuckets]uint64
	count   uint64
	longest time.Duration
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.count++
	h.longest = max(h.longest, d)
	h.buckets[bucketOf(uint64(d))]++
}

// bucketOf returns the bucket of a number of nanoseconds.
func bucketOf(ns uint64) int {
	if ns < subBuckets {
		return int(ns)
	}
	octave := bits.Len64(ns) - subBits // 1 and up
	if octave > octaves {
		return octaves*subBuckets + subBuckets - 1
	}
	return octave*subBuckets + int(ns>>(octave-1))&(subBuckets-1)
}

// middleOf returns the middle of a bucket.
func middleOf(bucket int) time.Duration {
	octave, sub := bucket/subBuckets, bucket%subBuckets
	if octave == 0 {
		return time.Duration(sub)
	}
	return time.Duration((subBuckets+sub)<<(octave-1) + 1<<(octave-1)/2)
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
	h.longest = max(h.longest, other.longest)
}

// quantile returns how long the fastest part q of all took at most, 0 where nothing was counted.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.count))
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen > rank {
			return min(middleOf(i), h.longest)
		}
	}
	return h.longest
}
