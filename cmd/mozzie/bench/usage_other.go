//go:build !linux

package bench

import (
	"errors"
	"time"
)

// usage is what a process has used.
type usage struct {
	cpu time.Duration
	rss int64 // bytes, now
}

func usageOf(int) (usage, error) {
	return usage{}, errors.New("--pid: what a process uses can be told on Linux only")
}

func ownCPU() time.Duration { return 0 }
