package bench

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"
	"testing"
)

// testBroker is a broker that knows one topic, to which everybody subscribes, and treats its messages as a test says.
// Every message goes to every subscriber, at the QoS that it came with.
type testBroker struct {
	t *testing.T
	l net.Listener
	// treat gets the n-th message, a PUBLISH, and returns what subscribers get instead.
	treat func(n int, packet []byte) [][]byte
	// refuse ends a publisher's connection with its n-th message, if it is above 0.
	refuse int

	running sync.WaitGroup

	mu          sync.Mutex
	subscribers []*conn
	all         []*conn
	messages    int
}

func startBroker(t *testing.T, b *testBroker) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.t, b.l = t, l
	b.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in := &conn{Conn: c, buf: make([]byte, minReadBuffer)}
			b.mu.Lock()
			b.all = append(b.all, in)
			b.mu.Unlock()
			b.running.Go(func() { b.serve(in) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		b.mu.Lock()
		for _, c := range b.all {
			c.Close()
		}
		b.mu.Unlock()
		b.running.Wait()
	})
	return l.Addr().String()
}

func (b *testBroker) serve(c *conn) {
	defer c.Close()
	for c.fill() == nil {
		for {
			first, body, ok, err := c.next()
			if err != nil {
				b.t.Error(err)
			}
			if !ok {
				break
			}
			if !b.handle(c, first, body) {
				return
			}
		}
		_ = c.flush()
	}
}

func (b *testBroker) handle(c *conn, first byte, body []byte) (more bool) {
	id := func() uint16 { return binary.BigEndian.Uint16(body) }
	switch first & 0xf0 {
	case 0x10: // CONNECT
		_ = c.send([]byte{0x20, 2, 0, 0})
	case 0x80: // SUBSCRIBE of one filter
		b.mu.Lock()
		b.subscribers = append(b.subscribers, c)
		b.mu.Unlock()
		_ = c.send([]byte{0x90, 3, body[0], body[1], body[len(body)-1]})
	case publishFirst:
		at := 2 + int(id())
		switch first >> 1 & 3 {
		case 1:
			_ = c.acknowledge(pubackFirst, binary.BigEndian.Uint16(body[at:]))
		case 2:
			_ = c.acknowledge(pubrecFirst, binary.BigEndian.Uint16(body[at:]))
		}
		return b.publish(first, body)
	case pubrecFirst:
		_ = c.acknowledge(pubrelFirst, id())
	case pubrelFirst & 0xf0:
		_ = c.acknowledge(pubcompFirst, id())
	case disconnectFirst:
		return false
	}
	return true
}

func (b *testBroker) publish(first byte, body []byte) (more bool) {
	packet := append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
	b.mu.Lock()
	b.messages++
	n := b.messages
	if first&0x06 != 0 { // an identifier of its own, which is not used again soon
		at := len(packet) - len(body) + 2 + int(binary.BigEndian.Uint16(body))
		binary.BigEndian.PutUint16(packet[at:], uint16(n%0xffff+1))
	}
	out := [][]byte{packet}
	if b.treat != nil {
		out = b.treat(n, packet)
	}
	subscribers := b.subscribers
	b.mu.Unlock()
	for _, s := range subscribers {
		_ = s.send(bytes.Join(out, nil)) // it may be gone
	}
	return n != b.refuse
}
