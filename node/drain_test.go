package node

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/config"
)

// BenchmarkDrain has a client take what has waited for it, as fast as it can: at one node, which was started again meanwhile.
// It tells how many records were written at a time, at most, and how many bytes for each message that is taken.
func BenchmarkDrain(b *testing.B) {
	for _, size := range []int{64, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := newSwarm(b)
			s.also = func(c *config.Config) { c.Swarm.Listen = []string{"/ip4/127.0.0.1/tcp/0"} }
			s.start()
			queueMany(b, s, b.N, size)
			if err := s.nodes[0].close(); err != nil {
				b.Fatal(err)
			}
			s.again(0)
			disk := s.nodes[0].db.Stats()
			before := disk.Disk.Load()
			b.ResetTimer()
			began := time.Now()
			c := s.plain(b, "away")
			c.take(b.N)
			took := time.Since(began)
			b.StopTimer()
			c.leave()
			synced := make(chan error, 1)
			s.nodes[0].db.Sync(func(err error) { synced <- err })
			if err := <-synced; err != nil {
				b.Fatal(err)
			}
			written := disk.Disk.Load() - before
			b.ReportMetric(float64(b.N)/took.Seconds(), "messages/s")
			b.ReportMetric(float64(written)/float64(b.N), "B/message")
			b.ReportMetric(float64(disk.Largest.Load()), "records-at-once")
			b.ReportMetric(float64(s.nodes[0].broker.Load().Stats().Paused.Load()), "pauses")
		})
	}
}

// queueMany has messages of some size wait for the client "away".
func queueMany(t testing.TB, s *testSwarm, n, size int) {
	t.Helper()
	c := s.plain(t, "away")
	c.send(0x82, []byte{0, 1}, text("many/#"), []byte{1})
	c.expect(0x90)
	c.leave()
	pub := s.plain(t, "pub")
	go func() {
		payload := make([]byte, size)
		for i := range n {
			binary.BigEndian.PutUint64(payload, uint64(i)) //nolint:gosec // not negative
			pub.put(0x32, text("many/x"), binary.BigEndian.AppendUint16(nil, uint16(i%60_000+1)), payload)
		}
		_ = pub.w.Flush() // who reads the answers finds out
	}()
	for range n {
		pub.expect(0x40)
	}
	pub.leave()
}

// plainClient is an MQTT 3.1.1 client with a lasting session that does no more than it must.
type plainClient struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
}

func text(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) //nolint:gosec // short
}

func (s *testSwarm) plain(t testing.TB, id string) *plainClient {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.nodes[0].listeners[0].url, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &plainClient{t, conn, bufio.NewReaderSize(conn, 64<<10), bufio.NewWriterSize(conn, 64<<10)}
	c.send(0x10, text("MQTT"), []byte{4, 0, 0, 0}, text(id))
	c.expect(0x20)
	return c
}

// put has a packet wait to be sent.
func (c *plainClient) put(first byte, parts ...[]byte) {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	head := binary.AppendUvarint([]byte{first}, uint64(n)) // as MQTT has it
	_, _ = c.w.Write(head)
	for _, p := range parts {
		_, _ = c.w.Write(p) // an error stays, and is told by Flush
	}
}

func (c *plainClient) send(first byte, parts ...[]byte) {
	c.t.Helper()
	c.put(first, parts...)
	if err := c.w.Flush(); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads a packet, which has to begin with a byte. What it returns is good until the next.
func (c *plainClient) expect(first byte) []byte {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	got, err := c.r.ReadByte()
	if err != nil {
		c.t.Fatal(err)
	}
	n, err := binary.ReadUvarint(c.r)
	if err != nil || got != first {
		c.t.Fatalf("0x%02x came, want 0x%02x: %v", got, first, err)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.r, body); err != nil {
		c.t.Fatal(err)
	}
	return body
}

// take takes and acknowledges messages of queueMany, which have to come in order.
func (c *plainClient) take(n int) {
	c.t.Helper()
	for i := range n {
		body := c.expect(0x32)
		body = body[2+binary.BigEndian.Uint16(body):]
		if got := binary.BigEndian.Uint64(body[2:]); got != uint64(i) { //nolint:gosec // not negative
			c.t.Fatalf("message %d came, want %d", got, i)
		}
		c.put(0x40, body[:2])
		if c.r.Buffered() == 0 || i == n-1 {
			if err := c.w.Flush(); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

func (c *plainClient) leave() {
	c.send(0xe0)
	_, _ = c.r.ReadByte() // until the node has closed the connection
	c.conn.Close()
}
