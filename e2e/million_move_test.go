package e2e

import (
	"bufio"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// TestManyMove has a client go to another node, where very many messages wait for it at the one that it had before: it is
// connected before they have come, and gets all of them, in order, with what is published meanwhile behind them. NIGHTLY, or
// MILLION=1, makes it a million.
func TestManyMove(t *testing.T) {
	long(t)
	queued := 20_000
	if raceEnabled { // which makes the nodes ten times slower, beside other tests
		queued = 4_000
	}
	if nightly() || os.Getenv("MILLION") != "" {
		queued = 999_999 // one more is the limit
	}
	nodes := startSwarm(t, 3, setup{private: true, flags: []string{"--set", "limits.receive_maximum=1000", "--set", "limits.max_inflight_messages=1000"}})
	away := newRawClient(t, nodes[0].mqtt, "away")
	away.send(rawPacket(0x82, []byte{0, 1}, rawString("many/#"), []byte{1}))
	away.expect(0x90)
	away.close()
	nodes[0].until("the client is away", func(s admin.Status) bool { return s.Connections == 0 })
	pub := newRawClient(t, nodes[0].mqtt, "pub")
	published := make(chan struct{})
	go func() {
		defer close(published)
		w := bufio.NewWriterSize(pub.conn, 64<<10)
		for i := range queued {
			_, _ = w.Write(rawPublish(4, 1<<1, uint16(1+i%60_000), "many/x", sixtyFour(i))) //nolint:gosec // below 60,000
		}
		_ = w.Flush() // who reads the answers finds out
	}()
	for range queued {
		pub.expect(0x40)
	}
	<-published

	began := time.Now()
	away = newRawClient(t, nodes[1].mqtt, "away") // and has its CONNACK
	t.Logf("%d messages: the client is connected after %v", queued, time.Since(began).Round(time.Millisecond))
	pub.send(rawPublish(4, 1<<1, 1, "many/x", sixtyFour(queued)))
	pub.expect(0x40)
	for next := 0; next <= queued; next++ {
		body := away.expect(0x32)
		topic := 2 + int(binary.BigEndian.Uint16(body))
		away.send(rawPacket(0x40, body[topic:topic+2]))
		if got := string(body[topic+2:]); got != sixtyFour(next) {
			t.Fatalf("%q came, want message %d", got, next)
		}
		if next == 0 {
			t.Logf("the first message comes after %v", time.Since(began).Round(time.Millisecond))
		}
	}
	t.Logf("all have come after %v", time.Since(began).Round(time.Millisecond))
	for _, n := range nodes {
		n.until("has nothing in custody", func(s admin.Status) bool { return s.Custody == 0 })
		t.Logf("%s: %d MiB", n.name, n.resident()>>20)
	}
}
