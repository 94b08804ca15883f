package access

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// What is ours to tune about logins that fail:
const (
	// attempts is how many logins of one address are judged, or were wrong just now, at a time. Another one waits.
	attempts = 4
	// firstDelay is for how long a wrong one counts, and so does its answer wait. Each further one doubles that.
	firstDelay, maxDelay = 500 * time.Millisecond, 8 * time.Second
	// forgetAfter is when the wrong logins of an address are forgotten.
	forgetAfter = 10 * time.Minute
	// maxAddresses is how many addresses are remembered; each takes about 200 bytes.
	maxAddresses = 10_000
)

// slowdown holds up those who try passwords: of each address, few attempts are judged at a time, and one that was wrong
// keeps its place for a while that doubles with each. Who has the right password waits for nothing but a place.
type slowdown struct {
	mu      sync.Mutex
	by      map[string]*address
	waiting int
	most    int // may wait, of all addresses
}

// address is what is known of one. One without anything to remember is forgotten.
type address struct {
	failures int
	last     time.Time           // of the failures
	judged   int                 // attempts
	held     [attempts]time.Time // by failures, until then
	queue    []chan struct{}     // those that wait for a place, in turn
}

// addressKey is what stands for a remote address: all of an IPv4 address, the network of an IPv6 one, since one machine
// has 2^64 of these. What is no IP address (a Unix socket) is one for all.
func addressKey(remote string) string {
	host := remote
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		host = ap.Addr().String()
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, _ := a.Prefix(64)
	return p.Addr().String()
}

// enter waits for a place. Who has got one leaves it. It reports whether it had to wait.
func (s *slowdown) enter(ctx context.Context, key string) (waited bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.get(key)
	if len(a.queue) == 0 && a.free(time.Now()) > 0 {
		a.judged++
		return false, nil
	}
	if s.waiting >= s.most {
		return false, ErrBusy
	}
	turn := make(chan struct{}, 1)
	a.queue = append(a.queue, turn)
	s.waiting++
	defer func() { s.waiting-- }()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		if now := time.Now(); a.queue[0] == turn {
			if a.free(now) > 0 {
				a.quit(turn)
				a.judged++
				return true, nil
			}
			if next := a.next(now); next > 0 {
				timer.Reset(next)
				due = timer.C
			}
		}
		s.mu.Unlock()
		select {
		case <-turn:
		case <-due:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		s.mu.Lock()
		if err != nil {
			a.quit(turn)
			s.tidy(key, a)
			return true, err
		}
	}
}

// leave gives a place back. After a failure it stays taken for a while, which is returned.
func (s *slowdown) leave(key string, failed bool) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.get(key)
	a.judged--
	delay := time.Duration(0)
	if failed {
		now := time.Now()
		delay = min(firstDelay<<min(a.failures, 10), maxDelay)
		a.failures++
		a.last = now
		for i := range a.held {
			if !a.held[i].After(now) {
				a.held[i] = now.Add(delay)
				break
			}
		}
	}
	a.wake()
	s.tidy(key, a)
	return delay
}

// get returns what is known of an address.
func (s *slowdown) get(key string) *address {
	a := s.by[key]
	if a == nil {
		if s.by == nil {
			s.by = make(map[string]*address)
		}
		if len(s.by) >= maxAddresses {
			s.evict()
		}
		a = new(address)
		s.by[key] = a
	}
	if a.failures > 0 && time.Since(a.last) > forgetAfter {
		a.failures = 0
	}
	return a
}

// evict forgets, of some addresses that happen to come first, the one whose last failure is the longest ago.
func (s *slowdown) evict() {
	const some = 16
	var oldest *address
	at, looked := "", 0
	for key, a := range s.by {
		if a.judged > 0 || len(a.queue) > 0 {
			continue
		}
		if oldest == nil || a.last.Before(oldest.last) {
			at, oldest = key, a
		}
		if looked++; looked == some {
			break
		}
	}
	if oldest != nil { // else each has a connection that waits, and connections have a limit
		delete(s.by, at)
	}
}

// tidy forgets an address of which there is nothing to remember.
func (s *slowdown) tidy(key string, a *address) {
	if a.failures == 0 && a.judged == 0 && len(a.queue) == 0 {
		delete(s.by, key)
	}
}

// free is how many places are free.
func (a *address) free(now time.Time) int {
	n := attempts - a.judged
	for _, until := range a.held {
		if until.After(now) {
			n--
		}
	}
	return n
}

// next is when the next place is free of a failure; 0 where none is taken by one.
func (a *address) next(now time.Time) (next time.Duration) {
	for _, until := range a.held {
		if d := until.Sub(now); d > 0 && (next == 0 || d < next) {
			next = d
		}
	}
	return next
}

// quit takes somebody out of the queue, and has the next one look.
func (a *address) quit(turn chan struct{}) {
	for i, t := range a.queue {
		if t == turn {
			a.queue = append(a.queue[:i], a.queue[i+1:]...)
			break
		}
	}
	if len(a.queue) == 0 {
		a.queue = nil
	}
	a.wake()
}

// wake has the first in the queue look whether there is a place.
func (a *address) wake() {
	if len(a.queue) > 0 {
		select {
		case a.queue[0] <- struct{}{}:
		default:
		}
	}
}
