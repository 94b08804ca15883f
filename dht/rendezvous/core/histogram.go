package core

import "time"

// Buckets are the upper bounds of Histogram's buckets.
var Buckets = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
	20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
}

// Histogram counts how long something took. It is copied with the Stats that it is in.
type Histogram struct {
	Counts [len(Buckets)]uint64 // up to each bound, and not up to the one before
	Count  uint64               // all, those beyond the last bound too
	Sum    time.Duration
}

func (h *Histogram) observe(d time.Duration) {
	h.Count++
	h.Sum += d
	for i, b := range Buckets {
		if d <= b {
			h.Counts[i]++
			return
		}
	}
}
