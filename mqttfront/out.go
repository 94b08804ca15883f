package mqttfront

import (
	"sync"
	"time"
)

// buffer is what waits for a socket. Small and large ones are pooled, so that a connection owns one only while
// something waits.
type buffer struct {
	b       []byte
	crowd   *crowd // counts it
	charged int    // as so many bytes
}

const (
	smallBuffer = 2 << 10
	largeBuffer = 64 << 10
	// highWater is how much may wait for a socket before its session holds back what it has queued.
	highWater = 128 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, smallBuffer)} }}
	largeBuffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, largeBuffer)} }}
)

func (f *buffer) free() {
	if f.crowd != nil {
		f.crowd.release(f.charged)
		f.crowd, f.charged = nil, 0
	}
	f.b = f.b[:0]
	switch cap(f.b) {
	case smallBuffer:
		smallBuffers.Put(f)
	case largeBuffer:
		largeBuffers.Put(f)
	}
}

// writer is the state of a write without waiting.
type writer struct {
	f   func(fd uintptr) bool // made once
	b   []byte
	n   int
	err error
}

// reserveLocked makes room for n more bytes in c.out.
func (c *conn) reserveLocked(n int) {
	f := c.out
	switch {
	case f == nil && n <= smallBuffer:
		c.out = smallBuffers.Get().(*buffer)
	case f == nil && n <= largeBuffer:
		c.out = largeBuffers.Get().(*buffer)
		c.b.crowd.charge(c.out)
	case f == nil:
		c.out = &buffer{b: make([]byte, 0, n)}
		c.b.crowd.charge(c.out)
	case len(f.b)+n <= cap(f.b):
	case len(f.b)+n <= largeBuffer:
		c.out = largeBuffers.Get().(*buffer)
		c.b.crowd.charge(c.out)
		c.out.b = append(c.out.b, f.b...)
		f.free()
	default:
		c.out = &buffer{b: make([]byte, len(f.b), max(2*cap(f.b), len(f.b)+n))}
		c.b.crowd.charge(c.out)
		copy(c.out.b, f.b)
		f.free()
	}
}

// pendingLocked is how much waits, without what is being written.
func (c *conn) pendingLocked() int {
	if c.out == nil {
		return 0
	}
	return len(c.out.b)
}

// touchLocked sees to it that what was appended is written: at the end of u if there is one, else at once.
func (c *conn) touchLocked(u *burst) {
	switch {
	case c.dirty || c.writing || c.corked != nil:
	case u != nil:
		c.dirty = true
		u.touched = append(u.touched, c)
	default:
		c.writing = true
		c.b.wg.Go(c.runWriter)
	}
}

// flush writes what waits, as far as the socket takes it at once; a writer is started for the rest.
func (c *conn) flush() {
	c.mu.Lock()
	c.dirty = false
	if c.writing || c.corked != nil || c.out == nil {
		if c.pump && !c.writing && c.corked == nil {
			c.writing = true
			c.b.wg.Go(c.runWriter)
		}
		c.mu.Unlock()
		return
	}
	c.writing = true
	if c.in.raw == nil || c.in.over != nil {
		c.b.wg.Go(c.runWriter)
		c.mu.Unlock()
		return
	}
	f := c.out
	c.out = nil
	c.mu.Unlock()

	w := writers.Get().(*writer)
	w.b, w.n, w.err = f.b, 0, nil
	err := c.in.raw.Write(w.f)
	n := w.n
	if err == nil {
		err = w.err
	}
	w.b = nil
	writers.Put(w)
	c.b.stats.BytesSent.Add(uint64(n))
	if err != nil {
		c.broken(f)
		return
	}
	c.mu.Lock()
	if n < len(f.b) {
		c.unwriteLocked(f, n)
	} else {
		f.free()
	}
	c.wakeLocked()
	c.doneLocked()
	c.mu.Unlock()
}

var writers = sync.Pool{New: func() any {
	w := new(writer)
	w.f = w.tryWrite
	return w
}}

// unwriteLocked puts f, of which n bytes are written, back in front of what waits.
func (c *conn) unwriteLocked(f *buffer, n int) {
	f.b = f.b[:copy(f.b, f.b[n:])]
	if later := c.out; later != nil {
		c.out = f
		c.reserveLocked(len(later.b))
		c.out.b = append(c.out.b, later.b...)
		later.free()
		return
	}
	c.out = f
}

// doneLocked ends a flush: a writer goes on where there is more.
func (c *conn) doneLocked() {
	if c.out != nil || c.pump {
		c.b.wg.Go(c.runWriter)
		return
	}
	c.writing = false
	if c.closing {
		c.closeDrainedLocked()
	}
}

// runWriter writes until nothing waits. It owns c.writing.
func (c *conn) runWriter() {
	for {
		c.mu.Lock()
		if c.pump && c.mayPumpLocked() {
			c.pump = false
			c.mu.Unlock()
			c.sess.pumpNow()
			continue
		}
		c.wakeLocked() // something was written
		f := c.out
		c.out = nil
		c.inWrite = 0
		if f == nil {
			c.writing = false
			if c.closing {
				c.closeDrainedLocked()
			}
			c.mu.Unlock()
			return
		}
		c.inWrite, c.writeFrom = len(f.b), time.Now()
		c.mu.Unlock()
		n, err := c.nc.Write(f.b)
		c.b.stats.BytesSent.Add(uint64(n))
		if err != nil {
			c.broken(f)
			return
		}
		f.free()
	}
}

// mayPumpLocked reports whether more of the session's queue may wait for the socket.
func (c *conn) mayPumpLocked() bool {
	p := c.pendingLocked()
	return p == 0 || p < highWater && c.b.crowd.takes(p, 0)
}

// dropOutLocked forgets what waits, for good.
func (c *conn) dropOutLocked() {
	if c.out != nil {
		c.out.free()
	}
	c.out, c.pump = nil, false
}

// broken gives up a connection that can't be written to. The reading goroutine finds out.
func (c *conn) broken(f *buffer) {
	f.free()
	c.mu.Lock()
	c.closing = true
	c.dropOutLocked()
	c.writing, c.inWrite = false, 0
	c.wakeLocked()
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	c.closeDrainedLocked()
	c.mu.Unlock()
	c.nc.Close()
}
