package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// TestManyQueued kills a node at which many messages wait for a session whose client is away. They cost little memory, before
// and after, the start takes seconds, the log says what is there, and the client gets all of them, in order. NIGHTLY, or
// MILLION=1, makes it a million.
func TestManyQueued(t *testing.T) {
	long(t)
	if runtime.GOOS != "linux" {
		t.Skip("what a process takes is read from /proc")
	}
	const most = 200 << 20 // bytes for a million
	queued, within := 50_000, 10*time.Second
	if nightly() || os.Getenv("MILLION") != "" {
		queued = 1_000_000
	}
	n := newNode(t, "node", "--set", "limits.receive_maximum=1000", "--set", "limits.max_inflight_messages=1000")
	n.program = static(t)
	n.start()
	n.ready()
	away := newRawClient(t, n.mqtt, "away")
	away.send(rawPacket(0x82, []byte{0, 1}, rawString("many/#"), []byte{1}))
	away.expect(0x90)
	away.close()
	n.until("the client is away", func(s admin.Status) bool { return s.Connections == 0 && s.Sessions == 1 })

	before := n.resident()
	publishMany(t, n, queued)
	n.costs(t, "queued", before, queued, most)

	n.kill()
	n.start()
	began := time.Now()
	n.ready()
	took := time.Since(began)
	t.Logf("ready %v after a kill", took.Round(time.Millisecond))
	if took > within {
		t.Errorf("the start took %v", took)
	}
	n.costs(t, "after the start", before, queued, most)
	text, err := os.ReadFile(n.log)
	if want := fmt.Sprintf(`msg="brought back what was here" sessions=2 subscriptions=1 queued=%d inflight=0`, queued); err != nil || !strings.Contains(string(text), want) {
		t.Errorf("the log does not say %s (%v)", want, err)
	}

	began = time.Now()
	away = newRawClient(t, n.mqtt, "away")
	next := 0
	for next < queued {
		body := away.expect(0x32)
		topic := 2 + int(binary.BigEndian.Uint16(body))
		away.send(rawPacket(0x40, body[topic:topic+2]))
		if got := string(body[topic+2:]); got != sixtyFour(next) {
			t.Fatalf("%q came, want message %d", got, next)
		}
		next++
	}
	t.Logf("%d messages delivered in %v", queued, time.Since(began).Round(time.Millisecond))
	t.Logf("%d MiB in all", n.resident()>>20)
}

// TestManyQueuedAcross has them published at another node: neither of the two takes much more.
func TestManyQueuedAcross(t *testing.T) {
	long(t)
	if runtime.GOOS != "linux" {
		t.Skip("what a process takes is read from /proc")
	}
	const most = 200 << 20 // bytes for a million
	queued := 50_000
	if nightly() || os.Getenv("MILLION") != "" {
		queued = 1_000_000
	}
	nodes := startSwarm(t, 2, setup{private: true, program: static(t)})
	at, from := nodes[0], nodes[1]
	away := newRawClient(t, at.mqtt, "away")
	away.send(rawPacket(0x82, []byte{0, 1}, rawString("many/#"), []byte{1}))
	away.expect(0x90)
	away.close()
	eventually(t, patience, func() error {
		if at.metric("mozzie_sessions_offline") < 1 {
			return notYet("the client is there")
		}
		return nil
	})
	var before []int64
	for _, n := range nodes {
		before = append(before, n.resident())
	}
	publishMany(t, from, queued)
	eventually(t, patience, func() error {
		if n := at.metric("mozzie_queued_messages"); int(n) != queued {
			return notYet("%v messages are queued, of %d", n, queued)
		}
		return nil
	})
	for i, n := range nodes {
		n.costs(t, n.name, before[i], queued, most)
	}
}

// publishMany publishes messages of 64 bytes at QoS 1 to many/x.
func publishMany(t *testing.T, n *node, messages int) {
	t.Helper()
	began := time.Now()
	pub := newRawClient(t, n.mqtt, "pub")
	go func() {
		w := bufio.NewWriterSize(pub.conn, 64<<10)
		for i := range messages {
			_, _ = w.Write(rawPublish(4, 1<<1, uint16(1+i%60_000), "many/x", sixtyFour(i))) //nolint:gosec // below 60,000
		}
		_ = w.Flush() // who reads the answers finds out
	}()
	for range messages {
		pub.expect(0x40)
	}
	t.Logf("%d messages published in %v", messages, time.Since(began).Round(time.Millisecond))
	pub.close()
}

// sixtyFour is a payload of 64 bytes.
func sixtyFour(i int) string { return fmt.Sprintf("%064d", i) }

// costs checks what a node has come to take for so many messages.
func (n *node) costs(t *testing.T, when string, before int64, messages int, most int64) {
	t.Helper()
	took := n.resident() - before
	t.Logf("%s: %d MiB more than before, %d MiB in all", when, took>>20, n.resident()>>20)
	if took > most {
		t.Errorf("%s: %d messages cost %d MiB", when, messages, took>>20)
	}
}

// resident returns how much of the process is in memory, in bytes.
func (n *node) resident() int64 {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.process.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		n.t.Fatal(err)
	}
	return kib << 10
}

// rawClient is an MQTT 3.1.1 client with a lasting session that does what a test says.
type rawClient struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func newRawClient(t *testing.T, address, id string) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &rawClient{t, conn, bufio.NewReaderSize(conn, 64<<10)}
	c.send(rawPacket(0x10, rawString("MQTT"), []byte{4, 0, 0, 0}, rawString(id)))
	if body := c.expect(0x20); body[1] != 0 {
		t.Fatalf("CONNACK %x", body)
	}
	return c
}

func (c *rawClient) send(packet []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(packet); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads a packet, which has to begin with a byte.
func (c *rawClient) expect(first byte) []byte {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	got, body, err := readRaw(c.in)
	if err != nil || got != first {
		c.t.Fatalf("0x%02x %x came, want 0x%02x: %v", got, body, first, err)
	}
	return body
}

func (c *rawClient) close() {
	c.send([]byte{0xe0, 0})
	c.conn.Close()
}
