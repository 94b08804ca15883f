package mqttfront_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

const totalPending = 32 << 20

// lazy connects a subscriber that does not read yet, and has a buffer of its own for little of what comes.
func lazy(t *testing.T, addr, id, to string, qos byte) *raw {
	t.Helper()
	r, _ := connect(t, addr, connectOpts{id: id})
	_ = r.nc.(*net.TCPConn).SetReadBuffer(64 << 10)
	r.subscribe(filter{to, qos})
	return r
}

// TestCrowd: many clients that do not read share what may wait for all. A client that reads gets everything meanwhile,
// large messages too.
func TestCrowd(t *testing.T) {
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxTotalPendingBytes, c.MaxPendingBytes = totalPending, 4<<20 })
	st := b.Stats()
	var all []*raw
	for i := range 40 {
		all = append(all, lazy(t, addr, fmt.Sprint("lazy", i), "flood", byte(i%2)))
	}
	reader, _ := connect(t, addr, connectOpts{id: "reader"})
	reader.subscribe(filter{"large", 1}, filter{"small", 0})
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	large := strings.Repeat("x", 300<<10)
	for i := range 100 {
		pub.publish("flood", large[:100<<10])
		if n := st.PendingMemory.Load(); n > totalPending {
			t.Fatalf("%d bytes wait, at most %d may", n, totalPending)
		}
		if i%20 > 0 {
			continue
		}
		reader.send(reader.publishPacket(0, 0, "small", fmt.Sprint(i)))
		reader.expectPublish(fmt.Sprint(i))
		pub.publish("large", large)
		reader.ack(packets.Puback, reader.expectPublish(large).PacketID)
	}
	if st.DropCrowd.Load() == 0 || st.PendingMemory.Load() < totalPending/2 {
		t.Errorf("%d were dropped, %d bytes wait", st.DropCrowd.Load(), st.PendingMemory.Load())
	}
	for _, r := range all {
		r.kill()
	}
	pub.bye()
	reader.bye()
	eventually(t, "nothing waits", func() bool { return st.PendingMemory.Load() == 0 })
}

// TestHungry: a message of which each copy is large goes to a few clients at a time, and to all in the end. At QoS 0 those
// that there is no room for do without.
func TestHungry(t *testing.T) {
	const clients, size = 24, 4 << 20
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxTotalPendingBytes = totalPending })
	st := b.Stats()
	var got sync.WaitGroup
	begin := make(chan struct{})
	for i := range clients {
		r := lazy(t, addr, fmt.Sprint("c", i), "large", 1)
		got.Go(func() {
			<-begin
			_ = r.nc.SetReadDeadline(time.Now().Add(4 * patience))
			if _, err := io.CopyN(io.Discard, r.br, size); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	pub.publish("large", strings.Repeat("x", size))
	if n := st.PendingMemory.Load(); n > totalPending || n < totalPending/2 {
		t.Errorf("%d bytes wait", n)
	}
	pub.send(pub.publishPacket(0, 0, "large", strings.Repeat("y", size)))
	pub.silent()
	if st.DropCrowd.Load() == 0 {
		t.Error("no message of QoS 0 was dropped")
	}
	close(begin)
	got.Wait()
}

// TestStuck: where clients that do not read have all the room, and another has something queued that does not fit, the
// worst of the former is given up.
func TestStuck(t *testing.T) {
	const size = 8<<20 - 100
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxTotalPendingBytes = totalPending })
	b.SetStuck(500 * time.Millisecond)
	st := b.Stats()
	for i := range 4 {
		lazy(t, addr, fmt.Sprint("lazy", i), "flood", 1)
	}
	reader, _ := connect(t, addr, connectOpts{id: "reader"})
	reader.subscribe(filter{"large", 1})
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	payload := strings.Repeat("x", size)
	pub.publish("flood", payload)
	eventually(t, "they have all the room", func() bool { return st.PendingMemory.Load() > totalPending-size })
	time.Sleep(600 * time.Millisecond) // nobody is hungry
	if n := st.Unread.Load(); n != 0 {
		t.Errorf("%d were given up for nobody", n)
	}
	pub.publish("large", payload)
	reader.expectPublish(payload)
	if n := st.Unread.Load(); n == 0 || n > 2 {
		t.Errorf("%d were given up", n)
	}
}
