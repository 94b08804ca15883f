package memory

import (
	"os"
	"runtime/debug"
	"time"
)

// How much garbage may gather before Go collects it (GOGC), in percent of what is alive: Go's 100 while it collects often,
// less while it does not, when memory counts for more than time. A node with ten thousand clients that do nothing is not
// to take twice what they need. Between the two rates it stays as it is: they are farther apart than what the one percentage
// makes of the other. When there has been something to do and there is no more, what is free is given back to the system,
// which costs one more collection; Go itself takes minutes over it.
const (
	busyGarbage, quietGarbage = 100, 25
	busyCycles, busyWindow    = 3, 500 * time.Millisecond // so many collections, or more, in that time
	quietCycles, quietWindow  = 1, time.Second            // so many, or fewer
	releaseAfter              = 3                         // collections
)

// pacer decides that.
type pacer struct {
	percent     int
	busy, quiet window
	released    uint64 // collections by when memory was last given back
}

// window is a time that began with so many collections behind it.
type window struct {
	cycles uint64
	began  time.Time
}

func newPacer(now time.Time) pacer {
	return pacer{percent: busyGarbage, busy: window{began: now}, quiet: window{began: now}}
}

// look takes note of how many collections there have been, and reports whether memory is to be given back.
func (p *pacer) look(cycles uint64, now time.Time) (release bool) {
	if now.Sub(p.busy.began) >= busyWindow {
		if cycles-p.busy.cycles >= busyCycles {
			p.percent = busyGarbage
			p.quiet = window{cycles, now}
		}
		p.busy = window{cycles, now}
	}
	if now.Sub(p.quiet.began) >= quietWindow {
		n := cycles - p.quiet.cycles
		if n <= quietCycles {
			p.percent = quietGarbage
		}
		if release = n == 0 && cycles-p.released >= releaseAfter; release {
			p.released = cycles + 1 // with the one that giving back takes
		}
		p.quiet = window{cycles, now}
	}
	return release
}

// keepPace carries out what a pacer decides, unless the environment says how much garbage there may be (GOGC).
type keepPace struct {
	pacer
	set int // percentage in force; 0: the environment's
}

func newPace(now time.Time) *keepPace {
	k := &keepPace{pacer: newPacer(now)}
	if os.Getenv("GOGC") == "" {
		k.set = busyGarbage
	}
	return k
}

func (k *keepPace) step(cycles uint64, now time.Time) {
	release := k.look(cycles, now)
	if k.set == 0 {
		return
	}
	if k.set != k.percent {
		k.set = k.percent
		debug.SetGCPercent(k.set)
	}
	if release {
		debug.FreeOSMemory()
	}
}

// end leaves the process as it was.
func (k *keepPace) end() {
	if k.set != 0 {
		debug.SetGCPercent(busyGarbage)
	}
}
