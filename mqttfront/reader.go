package mqttfront

import (
	"net"
	"sync"
	"syscall"
)

// Scratch buffers are held only while they have something in them, so their number follows the connections that are
// being served at the moment, not those that exist. That can be thousands, when all come back after a power cut: so a
// connection gets a large one, which is how much one read takes at most, only while it has much to say.
const (
	scratchSize      = 64 << 10
	smallScratchSize = 4 << 10
)

// ownSize is the size of the buffer that a connection of another kind (WebSocket) has of its own. It waits with it,
// and takes a scratch buffer when that is full: most of what seldom comes is short.
const ownSize = 512

var (
	scratches      = sync.Pool{New: func() any { b := make([]byte, scratchSize); return &b }}
	smallScratches = sync.Pool{New: func() any { b := make([]byte, smallScratchSize); return &b }}
)

// scratch returns a buffer with room for more than n bytes, n being at most scratchSize.
func scratch(n int) *[]byte {
	if n < smallScratchSize {
		return smallScratches.Get().(*[]byte)
	}
	return scratches.Get().(*[]byte)
}

func freeScratch(b *[]byte) {
	if len(*b) == smallScratchSize {
		smallScratches.Put(b)
	} else {
		scratches.Put(b)
	}
}

// reader gets bytes from a connection. Between packets it owns no buffer where the connection is a socket of
// the operating system, or TLS over one: it waits for the socket to be readable, and takes a scratch buffer then.
type reader struct {
	nc   net.Conn
	over *tlsConn        // what is read from the socket goes through it; nil: it does not
	raw  syscall.RawConn // nil: nc.Read is used
	need int             // length of the packet that rest begins; 0: unknown
	late bool            // rest has not been looked at
	rest []byte          // the start of a packet
	held *[]byte         // the scratch buffer that data of the last fill is in
	last int             // how much the last fill returned
	big  []byte          // a packet larger than a scratch buffer, as far as it came

	small []byte // where nc.Read is used: a buffer of its own
	grow  int    // the length of the buffer that the last read filled; 0: it did not

	ready func(fd uintptr) bool // made once
	n     int
	err   error
}

func (r *reader) init(nc net.Conn) {
	r.nc = nc
	if t, ok := nc.(*tlsConn); ok {
		r.over, nc = t, t.beneath.Conn
	}
	if sc, ok := nc.(syscall.Conn); ok && rawIO {
		if raw, err := sc.SyscallConn(); err == nil {
			r.raw = raw
			r.ready = r.readReady
		}
	}
}

// fill returns what has come, at least one byte more than keep left; it is good until keep.
func (r *reader) fill(c *conn) ([]byte, error) {
	if r.need > scratchSize {
		return r.fillBig(c)
	}
	if r.late {
		r.late = false
		r.held = scratch(len(r.rest))
		return (*r.held)[:copy(*r.held, r.rest)], nil
	}
	if r.raw != nil {
		r.n, r.err = 0, nil
		if err := r.raw.Read(r.ready); err != nil {
			return nil, err
		}
		if r.held == nil {
			return nil, r.err
		}
	} else {
		r.held = &r.small
		if want := max(r.grow, len(r.rest)); want >= ownSize { // by what has come, not by what a packet says of its length
			r.held = scratch(want)
		} else if r.small == nil {
			r.small = make([]byte, ownSize)
		}
		at := copy(*r.held, r.rest)
		r.n, r.err = r.nc.Read((*r.held)[at:])
		r.grow = 0
		if at+r.n == len(*r.held) {
			r.grow = len(*r.held)
		}
	}
	if r.n <= 0 {
		return nil, r.err
	}
	c.b.stats.BytesReceived.Add(uint64(r.n))
	r.last = len(r.rest) + r.n
	return (*r.held)[:r.last], nil
}

// fillBig collects a large packet. The buffer grows with what really comes.
func (r *reader) fillBig(c *conn) ([]byte, error) {
	if r.big == nil {
		r.big = append(make([]byte, 0, scratchSize), r.rest...)
		r.rest = nil
	}
	for len(r.big) < r.need {
		if len(r.big) == cap(r.big) {
			c.ease()
			bigger := make([]byte, len(r.big), min(2*cap(r.big), r.need))
			copy(bigger, r.big)
			r.big = bigger
		}
		n, err := r.nc.Read(r.big[len(r.big):min(cap(r.big), r.need)])
		if err != nil {
			return nil, err
		}
		c.seen()
		c.b.stats.BytesReceived.Add(uint64(n))
		r.big = r.big[:len(r.big)+n]
	}
	return r.big, nil
}

// keep remembers what of the last data was not used, and gives the buffer back.
func (r *reader) keep(rest []byte) error {
	if r.big != nil { // exactly one packet
		r.big, r.need = nil, 0
		return nil
	}
	if len(rest) == 0 {
		r.rest, r.need = nil, 0
	} else {
		r.rest = append(make([]byte, 0, len(rest)), rest...)
	}
	r.giveBack()
	return nil
}

// keepUnread is keep for bytes that are to be the start of what the next fill returns, without reading.
func (r *reader) keepUnread(rest []byte) error {
	r.late = len(rest) > 0 && r.big == nil
	return r.keep(rest)
}

func (r *reader) giveBack() {
	if r.held != nil && r.held != &r.small {
		freeScratch(r.held)
	}
	r.held = nil
}

func (r *reader) release() {
	r.giveBack()
	r.rest, r.big = nil, nil
}
