package time

import "sync/atomic"

// Skew is where it says how many nanoseconds the wall clock is ahead.
var Skew atomic.Pointer[atomic.Int64]

// skewed sets the wall clock; the monotonic one goes on as it did, as where a machine's clock is set.
func skewed(sec int64, nsec int32) (int64, int32) {
	p := Skew.Load()
	if p == nil {
		return sec, nsec
	}
	t := sec*1e9 + int64(nsec) + p.Load()
	return t / 1e9, int32(t % 1e9)
}
