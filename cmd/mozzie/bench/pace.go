package bench

import (
	"runtime"
	"time"
)

// pace says when a publisher with a rate sends. A publisher that is late catches up.
type pace struct {
	run  *run
	gap  time.Duration
	next time.Duration // in the run
}

// pace returns the pace of a publisher, nil where there is no rate. Publishers take turns, so that their messages are
// spread evenly.
func (r *run) pace(publisher int) *pace {
	if r.Rate == 0 {
		return nil
	}
	gap := time.Duration(float64(time.Second) * float64(r.Publishers) / r.Rate)
	runtime.LockOSThread() // it sleeps in the kernel
	return &pace{run: r, gap: gap, next: r.now() + gap*time.Duration(publisher)/time.Duration(r.Publishers)}
}

// end must be called by the goroutine that got the pace.
func (p *pace) end() {
	if p != nil {
		runtime.UnlockOSThread()
	}
}

// longestNap is how soon a sleeping publisher notices that the run stops.
const longestNap = 100 * time.Millisecond

// wait waits until the next message is due, and reports whether the run still goes on.
func (p *pace) wait() bool {
	for !p.run.stopped.Load() {
		d := p.next - p.run.now()
		if d <= 0 {
			p.next += p.gap
			return true
		}
		nap(min(d, longestNap))
	}
	return false
}
