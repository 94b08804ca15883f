package rendezvous

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// pieces is a stream whose reads bring so many bytes at most, one after another.
type pieces struct {
	b     []byte
	sizes func() int
	reads int
}

func (p *pieces) Read(b []byte) (int, error) {
	p.reads++
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), max(1, p.sizes()))], p.b)
	p.b = p.b[n:]
	return n, nil
}

func always(n int) func() int { return func() int { return n } }

func newReader(b []byte, sizes func() int) *reader {
	return &reader{stream: &pieces{b: b, sizes: sizes}, stats: new(Stats)}
}

// all reads until the stream ends.
func (r *reader) all(t *testing.T) (frames []any) {
	t.Helper()
	for {
		fs, err := r.next()
		if errors.Is(err, io.EOF) {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(fs) == 0 {
			t.Fatal("next returns nothing")
		}
		frames = append(frames, kept(fs)...)
	}
}

// kept are frames that stay when the reader reads on.
func kept(frames []any) []any {
	all := slices.Clone(frames)
	for i, f := range all {
		switch f := f.(type) {
		case *proto.Publish:
			p := *f
			p.Message = f.Message.Clone()
			all[i] = &p
		case *proto.Deliver:
			d := *f
			d.Message = f.Message.Clone()
			all[i] = &d
		}
	}
	return all
}

// payload has n bytes that tell where they are and of which message.
func payload(message, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(message*31 + i) //nolint:gosec // wraps
	}
	return b
}

func publishFrame(message, n int) *proto.Publish {
	return &proto.Publish{Message: &proto.Message{Topic: fmt.Sprint("t/", message), Payload: payload(message, n), QoS: 1},
		Epoch: 1, Seq: uint64(message) + 1, Location: [32]byte{1}, Depth: 1} //nolint:gosec // small
}

// checkPublish says whether a frame is publishFrame(message, n).
func checkPublish(t *testing.T, frame any, message, n int) {
	t.Helper()
	p, ok := frame.(*proto.Publish)
	if !ok {
		t.Fatalf("message %d comes as a %T", message, frame)
	}
	if p.Message.Topic != fmt.Sprint("t/", message) || !bytes.Equal(p.Message.Payload, payload(message, n)) || p.Seq != uint64(message)+1 { //nolint:gosec // small
		t.Fatalf("message %d is not what was sent: topic %q, %d bytes", message, p.Message.Topic, len(p.Message.Payload))
	}
}

// TestReaderSplit: frames come out whole wherever the stream is cut.
func TestReaderSplit(t *testing.T) {
	now := time.Now()
	unknown := append([]byte{5, 0x7e}, "junk"...) // a kind of a newer version
	var b []byte
	b = proto.AppendFrame(b, &pb.Ack{Ops: []uint64{1, 2, 3}}, now)
	b = proto.AppendFrame(b, publishFrame(0, 5), now)
	b = append(b, unknown...)
	b = proto.AppendFrame(b, publishFrame(1, 300), now)
	b = proto.AppendFrame(b, &pb.Lease{Ask: 7}, now)
	check := func(t *testing.T, r *reader) {
		t.Helper()
		fs := r.all(t)
		if len(fs) != 4 {
			t.Fatalf("%d frames, want 4", len(fs))
		}
		if !gproto.Equal(fs[0].(*pb.Ack), &pb.Ack{Ops: []uint64{1, 2, 3}}) || !gproto.Equal(fs[3].(*pb.Lease), &pb.Lease{Ask: 7}) {
			t.Fatalf("got %v and %v", fs[0], fs[3])
		}
		checkPublish(t, fs[1], 0, 5)
		checkPublish(t, fs[2], 1, 300)
		if in, bytes := r.stats.FramesIn.Load(), r.stats.BytesIn.Load(); in != 5 || bytes != uint64(len(b)) {
			t.Errorf("counted %d frames, %d bytes", in, bytes)
		}
	}
	for n := 1; n <= len(b); n++ {
		check(t, newReader(b, always(n)))
	}
	for cut := 1; cut < len(b); cut++ { // one cut, anywhere
		first := true
		check(t, newReader(b, func() int {
			if first {
				first = false
				return cut
			}
			return len(b)
		}))
	}
}

// TestReaderMessages: messages come as they were sent, for buffers and messages of all sizes.
func TestReaderMessages(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // the same every time
	var sizes []int
	var b []byte
	for i := range 400 {
		n := rng.IntN(200)
		switch rng.IntN(20) {
		case 0:
			n = rng.IntN(maxRead)
		case 1:
			n = firstRead - rng.IntN(80)
		case 2:
			b = proto.AppendFrame(b, &pb.Ack{Ops: []uint64{uint64(i)}}, time.Now()) //nolint:gosec // small
		}
		sizes = append(sizes, n)
		b = proto.AppendFrame(b, publishFrame(i, n), time.Now())
	}
	for _, c := range []struct {
		name string
		next func() int
	}{
		{"all that fits", always(1 << 30)}, {"a packet", always(1460)},
		{"random", func() int { return 1 + rng.IntN(1<<rng.IntN(20)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []any
			for _, f := range newReader(b, c.next).all(t) {
				if _, ok := f.(*proto.Publish); ok {
					got = append(got, f)
				}
			}
			if len(got) != len(sizes) {
				t.Fatalf("%d messages, want %d", len(got), len(sizes))
			}
			for i, f := range got {
				checkPublish(t, f, i, sizes[i])
			}
		})
	}
}

// TestReaderLarge: a long frame comes whole, and its buffer grows with its bytes: an announcement alone costs
// little.
func TestReaderLarge(t *testing.T) {
	const n = 5<<20 + 7
	b := proto.AppendFrame(nil, publishFrame(1, n), time.Now())
	b = proto.AppendFrame(b, publishFrame(2, 10), time.Now())
	fs := newReader(b, always(60_000)).all(t)
	if len(fs) != 2 {
		t.Fatalf("%d frames, want 2", len(fs))
	}
	checkPublish(t, fs[0], 1, n)
	checkPublish(t, fs[1], 2, 10)
	r := newReader(b[:1000], always(100))
	if _, err := r.next(); !errors.Is(err, io.EOF) {
		t.Fatalf("a frame that is cut short: %v", err)
	}
	if len(r.buf) > frameStep+maxRead {
		t.Errorf("%d bytes are kept for a frame of which 1000 came", len(r.buf))
	}
}

// TestReaderBuffer: the buffer is small for a trickle, large for a flood, and small again.
func TestReaderBuffer(t *testing.T) {
	var flood, trickle []byte
	for i := range 3000 {
		flood = proto.AppendFrame(flood, publishFrame(i, 1000), time.Now())
	}
	const drops = 8 * shrinkAfter
	for range drops {
		trickle = proto.AppendFrame(trickle, publishFrame(1, 20), time.Now())
	}
	step := len(trickle) / drops
	r := &reader{stream: &pieces{b: trickle, sizes: always(step)}, stats: new(Stats)}
	r.all(t)
	if len(r.buf) > firstRead {
		t.Errorf("after a trickle the buffer has %d bytes", len(r.buf))
	}
	p := &pieces{b: flood, sizes: always(1 << 30)}
	r.stream = p
	r.all(t)
	if p.reads > 60 {
		t.Errorf("%d reads for %d bytes", p.reads, len(flood))
	}
	if len(r.buf) > maxRead {
		t.Errorf("after a flood the buffer has %d bytes", len(r.buf))
	}
	r.stream = &pieces{b: trickle, sizes: always(step)}
	r.all(t)
	if len(r.buf) > 2*firstRead {
		t.Errorf("after another trickle the buffer has %d bytes", len(r.buf))
	}
}

func TestReaderErrors(t *testing.T) {
	broken := errors.New("broken")
	good := proto.AppendFrame(nil, &pb.Ack{Ops: []uint64{1}}, time.Now())
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, io.EOF},
		{"half a frame", good[:2], io.EOF},
		{"too long", []byte{0x81, 0x80, 0xc0, 0x08}, proto.ErrTooLong},
		{"no length", bytes.Repeat([]byte{0xff}, 20), proto.ErrTooLong},
		{"no kind", []byte{0}, proto.ErrMalformed},
		{"no protobuf", []byte{3, 4, 0xff, 0xff}, proto.ErrMalformed},
		{"no message", []byte{1, 5}, proto.ErrMalformed},
	} {
		for _, step := range []int{1, 100} {
			fs, err := newReader(c.b, always(step)).next()
			if !errors.Is(err, c.want) || len(fs) > 0 {
				t.Errorf("%s: %v, %v, want %v", c.name, fs, err, c.want)
			}
		}
	}
	r := &reader{stream: io.MultiReader(bytes.NewReader(good), failing{broken}), stats: new(Stats)}
	if fs, err := r.next(); err != nil || len(fs) != 1 {
		t.Errorf("before the stream breaks: %v, %v", fs, err)
	}
	if _, err := r.next(); !errors.Is(err, broken) {
		t.Errorf("a stream that breaks: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// FuzzReader reads a stream in pieces of some size: it brings the frames that are in it, or fails, as if it had come
// at once, and keeps no more than what came.
func FuzzReader(f *testing.F) {
	var some []byte
	for _, frame := range []any{publishFrame(1, 10), &pb.Lease{}, publishFrame(2, 5000), &pb.Leaving{Node: []byte("12345678peer-one")}} {
		some = proto.AppendFrame(some, frame, time.Now())
	}
	f.Add(some, uint16(1))
	f.Add(some, uint16(100))
	f.Add(some[:len(some)-3], uint16(4096))
	f.Add([]byte{0xff, 0xff, 0xff, 0x07, 5}, uint16(2))
	f.Add([]byte{0x02, 0x7f, 0x00, 0x03, 0x22, 0x0a, 0x05}, uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		want, wantErr := allAtOnce(b)
		r := newReader(b, always(int(size)))
		var got []any
		for {
			frames, err := r.next()
			got = append(got, kept(frames)...)
			if most := 2*len(b) + frameStep + maxRead; len(r.buf) > most {
				t.Fatalf("%d bytes are kept of %d", len(r.buf), len(b))
			}
			if err == nil {
				continue
			}
			if errors.Is(err, io.EOF) != (wantErr == nil) {
				t.Fatalf("%x ends with %v, at once with %v", b, err, wantErr)
			}
			break
		}
		if wantErr == nil && len(got) != len(want) || len(got) > len(want) {
			t.Fatalf("%x has %d frames, at once %d", b, len(got), len(want))
		}
		for i := range got {
			if a, b := fmt.Sprintf("%T %v", got[i], got[i]), fmt.Sprintf("%T %v", want[i], want[i]); a != b && !hasTime(got[i]) {
				t.Fatalf("frame %d is %s, at once %s", i, a, b)
			}
		}
	})
}

// hasTime says that a frame's text has pointers or points in time in it.
func hasTime(frame any) bool {
	switch frame.(type) {
	case *proto.Publish, *proto.Deliver:
		return true
	}
	return false
}

// allAtOnce decodes what is in b.
func allAtOnce(b []byte) (frames []any, err error) {
	for {
		kind, body, rest, _, err := proto.Next(b)
		if errors.Is(err, proto.ErrShort) || len(b) == 0 {
			return frames, nil
		}
		if err != nil {
			return frames, err
		}
		frame, err := new(proto.Decoder).Decode(kind, body, time.Now())
		if err != nil {
			return frames, err
		}
		if frame != nil {
			frames = append(frames, frame)
		}
		b = rest
	}
}

// BenchmarkReader reads messages of 64 B and 1 KiB as they come off a fast stream. It allocates nothing for them.
func BenchmarkReader(b *testing.B) {
	for _, size := range []int{64, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var flood []byte
			const messages = 1000
			for i := range messages {
				flood = proto.AppendFrame(flood, publishFrame(i, size), time.Now())
			}
			b.SetBytes(int64(len(flood) / messages))
			b.ReportAllocs()
			p := &pieces{sizes: always(64 << 10)}
			r := &reader{stream: p, stats: new(Stats)}
			n := 0
			for b.Loop() {
				for n == 0 {
					if len(p.b) == 0 {
						p.b = flood
					}
					frames, err := r.next()
					if err != nil {
						b.Fatal(err)
					}
					n = len(frames)
				}
				n--
			}
		})
	}
}
