package bench

import (
	"syscall"
	"time"
)

// nap sleeps. It asks the kernel, because a timer of Go's can be up to a millisecond late when nothing else goes on.
func nap(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // a signal may end it early, and then it is called again
}
