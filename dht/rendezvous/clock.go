package rendezvous

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime is a clock that never jumps and counts on while the machine sleeps, which Go's monotonic clock
// does not: a lease must not outlast a night's sleep.
func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Since(processStart)
	}
	return time.Duration(t.Nano())
}

var processStart = time.Now().Add(-time.Hour)
