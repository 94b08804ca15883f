package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// init has the wall clock be as far ahead as the file says that CLOCK_SKEW names, whenever that changes.
func init() {
	f, err := os.Open(os.Getenv("CLOCK_SKEW"))
	if err == nil {
		var b []byte
		if b, err = syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ, syscall.MAP_SHARED); err == nil {
			time.Skew.Store((*atomic.Int64)(unsafe.Pointer(&b[0])))
			return
		}
	}
	fmt.Fprintln(os.Stderr, "clock:", err)
	os.Exit(1)
}
