package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// usage is what a process has used.
type usage struct {
	cpu time.Duration
	rss int64 // bytes, now
}

// clockTicks is how many ticks of /proc are a second: it is 100 on all that Go runs on.
const clockTicks = 100

// usageOf reads what a process has used from /proc.
func usageOf(pid int) (u usage, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, fmt.Errorf("ask what process %d uses: %w", pid, err)
	}
	// The second field is the program's name in brackets, which may hold anything; behind it come the third and on.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	number := func(field int) int64 {
		if i := field - 3; i < len(fields) {
			if n, convErr := strconv.ParseInt(string(fields[i]), 10, 64); convErr == nil {
				return n
			}
		}
		err = fmt.Errorf("ask what process %d uses: field %d of its stat in /proc cannot be read", pid, field)
		return 0
	}
	const utime, stime, rss = 14, 15, 24 // proc_pid_stat(5)
	u.cpu = time.Duration(number(utime)+number(stime)) * time.Second / clockTicks
	u.rss = number(rss) * int64(os.Getpagesize())
	return u, err
}

// ownCPU is the CPU time of this process.
func ownCPU() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0 // it does not fail
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
