package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// TestMemoryFlood floods a node that has little memory and limits that are far too high for it: clients that do not read,
// at QoS 0, and sessions without a connection, at QoS 1. It stays within its memory, serves its other clients, refuses new
// ones, and is as before when those that cost memory are gone. NIGHTLY makes it long.
func TestMemoryFlood(t *testing.T) {
	const limit = 128 << 20
	if runtime.GOOS != "linux" {
		t.Skip("what a process takes is read from /proc")
	}
	length := 12 * time.Second
	if os.Getenv("NIGHTLY") != "" {
		length = 5 * time.Minute
	}
	n := newNode(t, "small", "--set", "limits.memory=128MiB", "--set", "limits.max_total_pending_bytes=2GiB",
		"--set", "limits.max_total_queued_bytes=2GiB", "--set", "limits.max_pending_bytes=64MiB", "--set", "limits.max_queued_bytes=1GiB")
	n.program = static(t)
	n.start()
	n.ready()
	if m := n.status().Memory; m == nil || m.Limit != limit || m.Level != "ok" {
		t.Fatalf("memory: %+v", m)
	}
	idle := n.taken()

	const slow, away = 20, 20
	var gone []func()
	for i := range slow {
		gone = append(gone, deaf(t, n, fmt.Sprint("slow", i), "flood/x"))
	}
	for i := range away {
		c := connect(t, n.mqtt, keeping, named(fmt.Sprint("away", i)))
		c.subscribe(1, "keep/#")
		c.bye()
	}
	probe := connect(t, n.mqtt)
	probe.subscribe(1, "probe")

	var stop atomic.Bool
	var done sync.WaitGroup
	for i := range 4 {
		topic, qos := "flood/x", byte(0)
		if i%2 > 0 {
			topic, qos = "keep/x", 1
		}
		pub := connect(t, n.mqtt)
		done.Go(func() {
			for payload := strings.Repeat("x", 60<<10); !stop.Load(); {
				if token := pub.mqtt.Publish(topic, qos, false, payload); qos > 0 {
					token.WaitTimeout(patience)
				}
			}
		})
	}
	var most int64
	var took []time.Duration
	refused, critical := 0, false
	for began := time.Now(); time.Since(began) < length; {
		sent := time.Now()
		probe.publish("probe", fmt.Sprint(len(took)), 1)
		probe.wait(t, len(took)+1)
		took = append(took, time.Since(sent))
		most = max(most, n.taken())
		if s := n.status(); s.Memory.Level == "critical" && refused == 0 {
			critical = true
			if mayConnect(n) {
				continue // it has just passed
			}
			refused++
		}
	}
	stop.Store(true)
	done.Wait()
	slices.Sort(took)
	t.Logf("%d MiB at rest, %d MiB at most, of %d; %d probes took %v, %v at most", idle>>20, most>>20, limit>>20, len(took), took[len(took)/2], took[len(took)-1])
	if !critical || refused == 0 {
		t.Errorf("memory was critically scarce: %v; connections were refused: %v", critical, refused > 0)
	}
	if most > limit*3/2 { // what comes until it is noticed, which is more the faster the machine is
		t.Errorf("it took %d MiB", most>>20)
	}
	if worst := took[len(took)*95/100]; worst > 10*time.Second {
		t.Errorf("a client that reads waited for %v", worst)
	}
	for _, g := range gone {
		g()
	}
	eventually(t, patience, func() error {
		if !mayConnect(n) {
			return errors.New("connections are still refused")
		}
		return nil
	})
	for i := range away {
		connect(t, n.mqtt, named(fmt.Sprint("away", i))).bye() // ends the session
	}
	n.until("has memory again", func(s admin.Status) bool { return s.Memory.Level == "ok" })
	probe.publish("probe", "after", 1)
	probe.wait(t, len(took)+1)
	if n.metric("mozzie_queued_memory_bytes") > 1<<20 || n.metric("mozzie_pending_memory_bytes") > 1<<20 {
		t.Error("something is still counted")
	}
}

// deaf connects a client that subscribes at QoS 0 and reads nothing from then on. It returns what ends it.
func deaf(t *testing.T, n *node, id, filter string) (end func()) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", n.mqtt, patience)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	text := func(s string) string { return string([]byte{0, byte(len(s))}) + s }
	packet := func(first byte, body string) string { return string([]byte{first, byte(len(body))}) + body }
	_, err = io.WriteString(conn, packet(0x10, text("MQTT")+"\x04\x02\x00\x00"+text(id))+packet(0x82, "\x00\x01"+text(filter)+"\x00"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 4+5)); err != nil { // CONNACK and SUBACK
		t.Fatal(err)
	}
	end = func() { _ = conn.Close() } // it may have been closed
	t.Cleanup(end)
	return end
}

// mayConnect reports whether the node takes a new client.
func mayConnect(n *node) bool {
	conn, err := net.DialTimeout("tcp", n.mqtt, patience)
	if err != nil {
		return false
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02me"); err != nil {
		return false
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	var connack [4]byte
	_, err = io.ReadFull(conn, connack[:])
	return err == nil && connack[3] == 0
}

// taken is how many bytes of memory the node's process has of its own.
func (n *node) taken() int64 {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.process.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		n.t.Fatal(err)
	}
	return kib << 10
}
