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
	// shrinkAfter is how many reads in a row bring little before the buffer is made smaller.
	shrinkAfter = 64
	// maxFrames is how many are taken at a time.
	maxFrames = 512
	// frameStep is how much is allocated at first for a long frame: the rest follows as its bytes come, so that
	// a header alone costs nothing.
	frameStep = 1 << 20
	// maxHello bounds the first frame: whoever sends it has not said who it is.
	maxHello = 4 << 20
)

// reader reads frames off a stream, as many at a time as one read brings, into memory that it uses again.
type reader struct {
	stream  io.Reader
	stats   *Stats
	decoder proto.Decoder
	buf     []byte
	begin   int // of what was read and is not decoded yet, in buf
	end     int
	size    int // that buf is to have
	little  int // reads in a row that brought little
	need    int
	first   int // what the first frame may need, in bytes; 0: it has come
	frames  []any
}

// next returns the frames that are there, at least one. They are good until the next call, messages included.
func (r *reader) next() ([]any, error) {
	if poison {
		for i := range r.buf[:r.begin] {
			r.buf[i] = '#'
		}
	}
	clear(r.frames)
	r.frames = r.frames[:0]
	r.decoder.Reset()
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
	for len(rest) > 0 && len(r.frames) < maxFrames {
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
		f, err := r.decoder.Decode(kind, body, now)
		if err != nil {
			return err
		}
		rest, r.first = tail, 0
		r.stats.FramesIn.Add(1)
		if f != nil { // else it is of a newer node
			r.frames = append(r.frames, f)
		}
	}
	r.begin = r.end - len(rest)
	return nil
}

// room returns where to read to, behind what is not decoded yet.
func (r *reader) room() []byte {
	if r.size == 0 {
		r.size = firstRead
	}
	rest, size := r.end-r.begin, r.size
	if rest == len(r.buf) { // the next frame is longer than that
		size = max(size, rest+max(1, min(r.need-rest, frameStep)))
	}
	to := r.buf
	if len(to) < size || len(to) > 2*size && rest < size {
		to = make([]byte, size)
	}
	r.end = copy(to, r.buf[r.begin:r.end])
	r.buf, r.begin = to, 0
	return to[r.end:]
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
	case n >= r.size/8 || n == len(room):
		r.little = 0
	case r.size > firstRead:
		if r.little++; r.little == shrinkAfter {
			r.size, r.little = r.size/2, 0
		}
	}
	if n > 0 {
		return nil
	}
	return err
}
