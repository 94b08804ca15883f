package rendezvous

import (
	"errors"
	"io"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

const (
	// firstRead and maxRead bound the buffers that a stream is read into, in bytes: they grow while reads fill
	// them, and shrink when they do not. A frame that is longer gets a buffer of its own size.
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
	buf    []byte
	begin  int // of what was read and is not decoded yet, in buf
	end    int
	size   int  // of the next buffer
	shared bool // decoded frames share buf's memory before begin: it is not written to again
	need   int
	first  int // what the first frame may need, in bytes; 0: it has come
	frames []any
}

// next returns the frames that are there, at least one. Data frames share memory with the reader's buffers,
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
	rest := r.buf[r.begin:r.end]
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
	r.begin = r.end - len(rest)
	return nil
}

// room returns where to read to, behind what is not decoded yet. A buffer that frames share is read into until little of it is
// left; then another takes its place, as where a frame needs a larger one.
func (r *reader) room() []byte {
	if r.size == 0 {
		r.size = firstRead
	}
	rest := r.end - r.begin
	missing := max(1, min(r.need, rest+frameStep)-rest)
	if !r.shared && r.begin > 0 {
		r.end = copy(r.buf, r.buf[r.begin:r.end])
		r.begin = 0
	}
	enough := missing
	if r.shared {
		enough = max(missing, r.size/4)
	}
	if len(r.buf)-r.end < enough {
		b := make([]byte, max(r.size, rest+missing))
		r.end = copy(b, r.buf[r.begin:r.end])
		r.buf, r.begin, r.shared = b, 0, false
	}
	return r.buf[r.end:]
}

// fill reads more.
func (r *reader) fill() error {
	room := r.room()
	n, err := r.stream.Read(room)
	r.end += n
	r.stats.BytesIn.Add(uint64(n)) //nolint:gosec // a count
	switch {
	case n == len(room) && n >= r.size/4 && r.size < maxRead:
		r.size *= 2
	case n < r.size/8 && n < len(room) && r.size > firstRead:
		r.size /= 2
	}
	if n > 0 {
		return nil
	}
	return err
}
