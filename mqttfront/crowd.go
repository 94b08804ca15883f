package mqttfront

import (
	"sync"
	"sync/atomic"
	"time"
)

// crowd bounds what waits for the sockets of all clients together: many that do not read cost no more than
// Config.MaxTotalPendingBytes. How much may wait for one client is, beside its own limit, a part of what is still free, so
// that however many take all that they may, something is left for those that read (Choudhury and Hahne's dynamic
// thresholds, 1998). What counts is the memory of the buffers; small ones, which every connection may have, are left out.
type crowd struct {
	limit int64
	used  *atomic.Int64 // of Stats
	stuck time.Duration // crowdStuck

	hungry atomic.Int32  // len(list)
	more   chan struct{} // there is room, perhaps
	mu     sync.Mutex
	list   []*conn // have something queued for which there was no room, though nothing waits for their sockets
}

// shed is why a QoS 0 message is not sent to a client.
type shed byte

const (
	shedNot    shed = iota
	shedSlow        // too much waits for the client
	shedCrowd       // too much waits for all clients
	shedMemory      // the node has too little memory
	shedCauses
)

// sheds returns why a QoS 0 message of so many bytes is not sent. conn.mu is held.
func (c *conn) sheds(size int) shed {
	p := c.pendingLocked()
	switch {
	case p > 0 && p+size > c.b.cfg.MaxPendingBytes:
		return shedSlow
	case p > 0 && c.b.strain.tight():
		return shedMemory
	case !c.b.crowd.takes(p, size):
		return shedCrowd
	}
	return shedNot
}

// What is ours to tune:
const (
	// crowdShare is which part of what is free may wait for one client.
	crowdShare = 8
	// crowdFed is how many hungry clients are tried at a time.
	crowdFed = 32
	// crowdStuck is how long one write may take before the connection is given up for others that are hungry.
	crowdStuck = 10 * time.Second
)

func (g *crowd) free() int64 { return max(0, g.limit-g.used.Load()) }

// takes reports whether n more bytes may wait for a client for which p wait already.
func (g *crowd) takes(p, n int) bool {
	switch {
	case p+n <= smallBuffer:
		return true
	case p == 0:
		return int64(n) <= g.free()
	}
	return int64(p+n) <= g.free()/crowdShare
}

// claimLocked makes a buffer for n bytes where nothing waits for a client, if there is room: of those that ask at the same moment only as many get
// one as there is room for. conn.mu is held.
func (c *conn) claimLocked(n int) bool {
	g := &c.b.crowd
	if c.out != nil || n <= largeBuffer {
		return g.takes(0, n)
	}
	for {
		used := g.used.Load()
		if used+int64(n) > g.limit {
			return false
		}
		if g.used.CompareAndSwap(used, used+int64(n)) {
			c.out = &buffer{b: make([]byte, 0, n), crowd: g, charged: n}
			return true
		}
	}
}

// charge counts a buffer until it is freed.
func (g *crowd) charge(f *buffer) {
	f.crowd = g
	f.charged = cap(f.b)
	g.used.Add(int64(f.charged))
}

func (g *crowd) release(n int) {
	g.used.Add(-int64(n))
	if g.hungry.Load() > 0 {
		g.wake()
	}
}

func (g *crowd) wake() {
	select {
	case g.more <- struct{}{}:
	default:
	}
}

// starveLocked notes that a connection waits for room. conn.mu is held.
func (g *crowd) starveLocked(c *conn) {
	if c.hungry {
		return
	}
	c.hungry = true
	g.mu.Lock()
	g.list = append(g.list, c)
	g.hungry.Store(int32(len(g.list)))
	g.mu.Unlock()
}

func (g *crowd) next() (cs []*conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(crowdFed, len(g.list))
	cs = append(cs, g.list[:n]...)
	g.list = append(g.list[:0], g.list[n:]...)
	if len(g.list) == 0 {
		g.list = nil
	}
	g.hungry.Store(int32(len(g.list)))
	return cs
}

// runFeed lets hungry clients have what is queued for them, as far as there is room.
func (b *Broker) runFeed() {
	for {
		select {
		case <-b.stopped:
			return
		case <-b.crowd.more:
		}
		for _, c := range b.crowd.next() {
			c.mu.Lock()
			c.hungry = false
			if !c.closing {
				c.pump = true
				if !c.writing && !c.dirty && c.corked == nil {
					c.writing = true
					b.wg.Go(c.runWriter)
				}
			}
			c.mu.Unlock()
		}
	}
}

// relieve gives hungry clients another chance, and where there are some ends the connection that most waits for of those
// that have read nothing for long.
func (b *Broker) relieve(now time.Time) {
	if b.crowd.hungry.Load() == 0 {
		return
	}
	b.crowd.wake()
	var worst *conn
	most := 0
	b.reg.Lock()
	for c := range b.conns {
		c.mu.Lock()
		if n := c.inWrite + c.pendingLocked(); n > most && !c.closing && c.inWrite > 0 && now.Sub(c.writeFrom) > b.crowd.stuck {
			worst, most = c, n
		}
		c.mu.Unlock()
	}
	b.reg.Unlock()
	if worst != nil {
		b.stats.Unread.Add(1)
		worst.stop(refuse(ReasonQuotaExceeded, "%d bytes wait for the client, which does not read them, and others need the memory", most))
	}
}
