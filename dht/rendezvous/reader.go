package rendezvous

import (
	"errors"
	"io"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

const (
	// firstRead and maxRead bound the buffer that a stream is read into, in bytes: it grows while reads fill
	// it, and shrinks when they do not. A frame that is longer gets a buffer of its own size.
	firstRead = 4 << 10
	maxRead   = 256 << 10
	// frameStep is how much is allocated at first for a long frame: the rest follows as its bytes come, so that
	// a header alone costs nothing.
	frameStep = 1 << 20
	// maxHello bounds the first frame: whoever sends it has not said who it is.
	maxHello = 4 << 20
)

// reader reads frames off a stream, as many at a time as one read brings.
type reader struct {
	stream io.Reader
	stats  *Stats
	buf    []byte // what was read and is not decoded yet, at the front
	have   int
	size   int
	shared bool // a decoded frame shares buf's memory: it is not written to again
	need   int
	first  int // what the first frame may need, in bytes; 0: it has come
	frames []any
}

// next returns the frames that are there, at least one. Data frames share memory with the reader's buffer,
// which is not written to again; the slice is good until the next call.
func (r *reader) next() ([]any, error) {
	clear(r.frames)
	r.frames = r.frames[:0]
	for {
		if err := r.decode(); err != nil {
			return nil, err
		}
		if len(r.frames) > 0 {
			return r.frames, nil
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// decode splits what is there into frames.
func (r *reader) decode() error {
	rest := r.buf[:r.have]
	now := time.Now()
	r.need = 0
	for len(rest) > 0 {
		kind, body, tail, need, err := proto.Next(rest)
		if errors.Is(err, proto.ErrShort) {
			if r.need = need; r.first != 0 && need > r.first {
				return proto.ErrTooLong
			}
			break
		}
		if err != nil {
			return err
		}
		f, err := proto.Decode(kind, body, now)
		if err != nil {
			return err
		}
		rest, r.first = tail, 0
		r.stats.FramesIn.Add(1)
		if f == nil {
			continue // of a newer node
		}
		switch f.(type) {
		case *proto.Publish, *proto.Deliver:
			r.shared = true
		}
		r.frames = append(r.frames, f)
	}
	r.keep(rest)
	return nil
}

// keep moves an unfinished frame to the front, of a new buffer where the old one is shared.
func (r *reader) keep(rest []byte) {
	if len(rest) == r.have && !r.shared {
		return
	}
	if r.shared {
		r.buf = make([]byte, max(r.size, len(rest)))
		r.shared = false
	}
	r.have = copy(r.buf, rest)
}

// fill reads more.
func (r *reader) fill() error {
	if r.size == 0 {
		r.size = firstRead
	}
	want := max(r.size, min(r.need, r.have+frameStep))
	if len(r.buf) < want {
		b := make([]byte, want)
		copy(b, r.buf[:r.have])
		r.buf = b
	}
	n, err := r.stream.Read(r.buf[r.have:])
	r.have += n
	r.stats.BytesIn.Add(uint64(n)) //nolint:gosec // a count
	switch {
	case r.have == len(r.buf) && r.size < maxRead:
		r.size *= 2
	case n < r.size/8 && r.size > firstRead:
		r.size /= 2
	}
	if n > 0 {
		return nil
	}
	return err
}
