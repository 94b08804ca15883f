package bench

import (
	"net"
	"testing"
	"time"
)

// repeater is a connection that brings the same bytes again and again.
type repeater struct {
	net.Conn
	bytes []byte
}

func (r repeater) Read(p []byte) (int, error) { return copy(p, r.bytes), nil }

// path is one publisher and one subscriber without a broker in between.
func path() (*run, *stream, *subscriber) {
	l := DefaultLoad()
	l.Topics = 1
	r := &run{Load: l, began: time.Now()}
	r.plan()
	return r, r.streams[0], r.subscribers[0]
}

func encodeBatch(r *run, s *stream, to []byte) []byte {
	for range writeBatch {
		to = s.next(to, 0, r.now())
	}
	return to
}

// BenchmarkMessage is what the generator needs for a message, both ends, but for the system calls.
func BenchmarkMessage(b *testing.B) {
	r, st, s := path()
	r.measuring.Store(true)
	in := &repeater{}
	s.conn = &conn{Conn: in, version: r.Client.Version, buf: make([]byte, maxReadBuffer)}
	b.Run("publish", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for range b.N/writeBatch + 1 {
			buf = encodeBatch(r, st, buf[:0])
		}
	})
	b.Run("both", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N/writeBatch + 1 {
			in.bytes = encodeBatch(r, st, in.bytes[:0])
			if err := s.receiveBatch(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestNoAllocation holds that a message costs the generator no memory: it would measure its own garbage collector.
func TestNoAllocation(t *testing.T) {
	r, st, s := path()
	r.measuring.Store(true)
	in := &repeater{}
	s.conn = &conn{Conn: in, version: r.Client.Version, buf: make([]byte, maxReadBuffer)}
	allocs := testing.AllocsPerRun(100, func() {
		in.bytes = encodeBatch(r, st, in.bytes[:0])
		if err := s.receiveBatch(); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for %d messages", allocs, writeBatch)
	}
	if f := s.flows[0]; f.tally.Unique != st.sent || f.tally.Late+f.tally.Duplicates != 0 || f.took.count != st.sent {
		t.Errorf("%d sent; %+v", st.sent, f.tally)
	}
}
