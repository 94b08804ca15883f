package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// flood is something that clients do to a node, in bad faith or by a fault.
type flood struct {
	name string
	// run does it for some time; it is to end with ctx, at the latest, and may leave things to be checked.
	run func(t *testing.T, f *flooded)
	// counters are metrics of which one at least must tell of it.
	counters []string
}

// flooded is the node that a flood is let loose on.
type flooded struct {
	*node
	beside *beside
	ctx    context.Context // its end is the end of the flood
	before footprint
}

const (
	floodTime = 2 * time.Second  // how long each goes on
	floodLong = 15 * time.Second // with NIGHTLY=1
	lullTime  = floodTime / 3    // how long it is quiet before and after
	lullLong  = floodLong / 3
	// floodConnectTime is how long connections may be silent at first. It is longer than most floods.
	floodConnectTime = 5 * time.Second
)

var floods = []flood{
	{"10,000 half-open connections", halfOpen, []string{`mozzie_connection_errors_total{cause="connect_timeout"}`}},
	{"connections to the swarm's port that say nothing, or noise", strangers, nil},
	{"slow CONNECTs", slowConnects, []string{`mozzie_connection_errors_total{cause="connect_timeout"}`}},
	{"40 headers that claim 256 MiB", claims, []string{`mozzie_connection_errors_total{cause="packet_too_large"}`}},
	{"40 headers that claim what is allowed", claimsAllowed, nil},
	{"a client that never reads", neverReads, []string{`mozzie_dropped_messages_total{cause="slow"}`}},
	{"a client that reads a byte a second", readsSlowly, []string{`mozzie_dropped_messages_total{cause="slow"}`}},
	{"topics of 65 KB of slashes", slashes, []string{`mozzie_connection_errors_total{cause="topic"}`, `mozzie_refused_subscriptions_total{cause="filter"}`}},
	{"takeovers of one client ID", takeovers, []string{"mozzie_takeovers_total"}},
	{"SUBSCRIBEs whose answers are not read", subscribes, []string{"mozzie_reads_held_total"}},
	{"PINGREQs whose answers are not read", pings, []string{`mozzie_connection_errors_total{cause="unread"}`}},
}

// TestFloods lets one flood after another loose on a node, which serves its other clients all the while: nothing of theirs
// is lost, and afterwards the node is what it was before. How long their messages took is in the test's log.
func TestFloods(t *testing.T) {
	long(t)
	n := newNode(t, "node", "--open")
	n.env = append(n.env, "MOZZIE_ADMIN_PPROF=true", fmt.Sprint("MOZZIE_LIMITS_CONNECT_TIMEOUT=", floodConnectTime))
	if !nightly() {
		n.env = append(n.env, "MOZZIE_LIMITS_MAX_PENDING_BYTES=512KiB") // it takes less long to meet that
	}
	n.start()
	n.ready()
	b := startBeside(t, n)
	for _, f := range floods {
		t.Run(f.name, func(t *testing.T) { f.let(t, n, b) })
	}
	b.end()
	n.quietLog()
}

// let lets the flood loose.
func (f *flood) let(t *testing.T, n *node, b *beside) {
	lasts, lull := floodTime, lullTime
	if nightly() {
		lasts, lull = floodLong, lullLong
	}
	quiet := b.during("before")
	quiet.while(lull)
	ctx, cancel := context.WithTimeout(context.Background(), lasts)
	defer cancel()
	counted := make([]float64, len(f.counters))
	for i, c := range f.counters {
		counted[i] = n.metric(c)
	}
	before := n.footprint()
	meanwhile := b.during("meanwhile")
	f.run(t, &flooded{node: n, beside: b, ctx: ctx, before: before})
	b.caughtUp()
	after := b.during("after")
	now := n.recovers(before)
	after.while(lull)
	b.caughtUp()
	for _, p := range []*phase{quiet, meanwhile, after} {
		t.Log(p)
		p.served(t)
	}
	t.Logf("before: %v; after: %v", before, now)
	for i, c := range f.counters {
		if v := n.metric(c) - counted[i]; v <= 0 {
			t.Errorf("%s has not grown", c)
		} else {
			t.Logf("%s: %.0f more", c, v)
		}
	}
}

// dialFrom connects to the node from the i-th of some addresses of this machine.
func (f *flooded) dialFrom(t *testing.T, i int) net.Conn {
	t.Helper()
	return dialTo(t, i, f.mqtt)
}

func dialTo(t *testing.T, i int, address string) net.Conn {
	t.Helper()
	const addresses = 50
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%addresses))}
	conn, err := (&net.Dialer{LocalAddr: from, Timeout: patience}).Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// login is a connection past CONNECT, in MQTT 5 where version is 5.
func (f *flooded) login(t *testing.T, i int, id string, version byte) net.Conn {
	t.Helper()
	conn := f.dialFrom(t, i)
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(connectPacket(id, version)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 2)
	if _, err := io.ReadFull(conn, head); err != nil || head[0] != 0x20 {
		t.Fatalf("CONNECT is answered with %x, %v", head, err)
	}
	rest := make([]byte, head[1])
	if _, err := io.ReadFull(conn, rest); err != nil || rest[1] != 0 {
		t.Fatalf("CONNECT is answered with %x, %v", rest, err)
	}
	_ = conn.SetDeadline(time.Time{})
	return conn
}

// loginDeaf is login for a client that is not going to read: the system is not to keep much for it.
func (f *flooded) loginDeaf(t *testing.T, i int, id string) net.Conn {
	t.Helper()
	conn := f.login(t, i, id, 4)
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	return conn
}

// sized is a packet with what its body needs in front.
func sized(first byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func connectPacket(id string, version byte) []byte {
	var props []byte
	if version == 5 {
		props = []byte{0}
	}
	return sized(0x10, text("MQTT"), []byte{version, 2, 0, 60}, props, text(id))
}

func subscribePacket(filters ...string) []byte {
	parts := [][]byte{{0, 1}}
	for _, f := range filters {
		parts = append(parts, text(f), []byte{0})
	}
	return sized(0x82, parts...)
}

// closed waits until the node has closed a connection, and says how many bytes came before.
func closed(conn net.Conn) (int64, error) {
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	n, err := io.Copy(io.Discard, conn)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		return n, err
	}
	return n, nil
}

// closedAll closes connections, when the node has or without waiting for that.
func closedAll(t *testing.T, conns []net.Conn, byNode bool) {
	t.Helper()
	for i, c := range conns {
		if byNode {
			if _, err := closed(c); err != nil {
				t.Errorf("connection %d is not closed by the node: %v", i, err)
			}
		}
		c.Close()
	}
}

// halfOpen opens connections that say nothing.
func halfOpen(t *testing.T, f *flooded) {
	const many = 10_000
	silent := `mozzie_connection_errors_total{cause="connect_timeout"}`
	before := f.metric(silent)
	conns := make([]net.Conn, 0, many)
	for i := range many {
		conns = append(conns, f.dialFrom(t, i))
	}
	t.Logf("%.0f connections at once", f.metric("mozzie_connections"))
	closedAll(t, conns, true)
	if v := f.metric(silent) - before; v < many {
		t.Errorf("%.0f of %d connections were closed for their silence", v, many)
	}
}

// strangers opens connections to where other nodes do, and says nothing there or what makes no sense.
func strangers(t *testing.T, f *flooded) {
	const many = 1_000
	noise := bytes.Repeat([]byte("\x13/multistream/1.0.0\n\xff\xff\xff\x7f"), 100)
	var conns []net.Conn
	for i := range many {
		c := dialTo(t, i, loopback(f.swarm))
		if i%2 == 0 {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = c.Write(noise[i%20:])
		}
		conns = append(conns, c)
	}
	f.holds(t, 64)
	<-f.ctx.Done()
	closedAll(t, conns, false)
}

// slowConnects sends CONNECTs a byte a second.
func slowConnects(t *testing.T, f *flooded) {
	const many = 200
	var all sync.WaitGroup
	for i := range many {
		conn := f.dialFrom(t, i)
		all.Go(func() {
			defer conn.Close()
			for _, c := range connectPacket(fmt.Sprint("slow-", i, strings.Repeat("x", 100)), 4) {
				if _, err := conn.Write([]byte{c}); err != nil {
					return
				}
				_ = conn.SetReadDeadline(time.Now().Add(time.Second))
				if _, err := conn.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
					return // the node has lost its patience
				}
			}
			t.Error("a CONNECT took longer than the node's patience and was read to its end")
		})
	}
	all.Wait()
}

const manyClaims = 40

// claims announces packets of 256 MiB, before CONNECT and after, and sends some of them.
func claims(t *testing.T, f *flooded) {
	for ok := true; ok; ok = f.ctx.Err() == nil {
		var conns []net.Conn
		for i := range manyClaims {
			first := f.dialFrom(t, i)
			_, _ = first.Write([]byte{0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4, 'M', 'Q', 'T', 'T', 5})
			later := f.login(t, i, fmt.Sprint("claims-", i), byte(4+i%2))
			_, _ = later.Write(append([]byte{0x32, 0xff, 0xff, 0xff, 0x7f, 0, 1, 'a', 0, 1, 0}, make([]byte, 60_000)...))
			conns = append(conns, first, later)
		}
		closedAll(t, conns, true)
	}
	f.holds(t, 16)
}

// claimsAllowed announces the largest packets that are taken, and sends little of them: that is all that they may cost.
func claimsAllowed(t *testing.T, f *flooded) {
	var conns []net.Conn
	const size = 8<<20 - 16
	for i := range manyClaims {
		c := f.login(t, i, fmt.Sprint("claims-", i), 4)
		head := append(binary.AppendUvarint([]byte{0x30}, size), 0, 1, 'a')
		if _, err := c.Write(append(head, make([]byte, 100_000)...)); err != nil {
			t.Error(err)
		}
		conns = append(conns, c)
	}
	f.holds(t, 40)
	<-f.ctx.Done()
	closedAll(t, conns, false)
}

// holds checks that the node's heap has not grown by more than some MiB.
func (f *flooded) holds(t *testing.T, most float64) {
	t.Helper()
	if now := f.footprint(); now.heap > f.before.heap+most {
		t.Errorf("the node holds %.0f MiB more, want %.0f at most", now.heap-f.before.heap, most)
	} else {
		t.Logf("the heap is %.1f MiB, %.1f before", now.heap, f.before.heap)
	}
}

// firehose publishes to a topic until the flood is over, but some thousand messages at least, at QoS 0. It returns how many.
func (f *flooded) firehose(t *testing.T, topic string) (sent int64) {
	conn := f.login(t, 0, "firehose", 4)
	defer conn.Close()
	packet := sized(0x30, text(topic), make([]byte, 8<<10))
	for f.ctx.Err() == nil || sent < 2_000 {
		_ = conn.SetWriteDeadline(time.Now().Add(patience))
		if _, err := conn.Write(packet); err != nil {
			t.Errorf("who publishes is slowed down by who does not read: %v", err)
			return sent
		}
		sent++
		time.Sleep(200 * time.Microsecond) // so that there is something of the machine left
	}
	return sent
}

// neverReads has clients subscribe to much and read nothing, at QoS 0 and 2.
func neverReads(t *testing.T, f *flooded) {
	var conns []net.Conn
	for i := range 4 {
		c := f.loginDeaf(t, i, fmt.Sprint("never-", i))
		p := subscribePacket("fire/#", "beside/#")
		p[len(p)-1] = byte(i % 3)
		if _, err := c.Write(p); err != nil {
			t.Error(err)
		}
		conns = append(conns, c)
	}
	t.Logf("%d messages of 8 KiB", f.firehose(t, "fire/hose"))
	f.holds(t, 4*40) // MaxQueuedBytes and MaxPendingBytes, for each
	closedAll(t, conns, false)
}

// readsSlowly has clients that read a byte a second.
func readsSlowly(t *testing.T, f *flooded) {
	var all sync.WaitGroup
	over := make(chan struct{})
	for i := range 4 {
		c := f.loginDeaf(t, i, fmt.Sprint("slowly-", i))
		if _, err := c.Write(subscribePacket("fire/#")); err != nil {
			t.Error(err)
		}
		all.Go(func() {
			defer c.Close()
			for {
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Errorf("who reads slowly is cut off: %v", err)
					return
				}
				select {
				case <-time.After(time.Second):
				case <-over:
					return
				}
			}
		})
	}
	t.Logf("%d messages of 8 KiB", f.firehose(t, "fire/hose"))
	close(over)
	all.Wait()
	f.holds(t, 4*40)
}

// slashes publishes and subscribes to the longest and deepest topics there are, and to as deep ones as are allowed.
func slashes(t *testing.T, f *flooded) {
	const deepest = 128 // limits.max_topic_levels
	deep := strings.Repeat("/", 65_535)
	allowed := strings.Repeat("/", deepest-1)
	var all sync.WaitGroup
	var refused atomic.Int64
	for w := range 4 {
		all.Go(func() {
			for i := 0; f.ctx.Err() == nil || i < 5; i++ {
				c := f.login(t, w, fmt.Sprint("slashes-", w), 4)
				_, _ = c.Write(subscribePacket(deep, "a"+deep[1:], allowed, allowed[:i%deepest]+"+", allowed[:i%deepest]+"#"))
				_, _ = c.Write(sized(0x30, text(allowed), []byte("x")))
				_, _ = c.Write(sized(0x30, text(deep), []byte("x")))
				if _, err := closed(c); err != nil {
					t.Errorf("a topic of %d levels is taken: %v", len(deep)+1, err)
				}
				refused.Add(1)
				c.Close()
			}
		})
	}
	all.Wait()
	t.Logf("%d times", refused.Load())
}

// takeovers has many connections fight for one session.
func takeovers(t *testing.T, f *flooded) {
	var all sync.WaitGroup
	var times atomic.Int64
	for w := range 8 {
		all.Go(func() {
			for i := 0; f.ctx.Err() == nil || i < 50; i++ {
				c := f.dialFrom(t, w)
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = c.Write(bytes.Join([][]byte{connectPacket("everybody", byte(4+w%2)), sized(0x32, text("x"), []byte{0, 1}, []byte{0})}, nil))
				if _, err := c.Read(make([]byte, 64)); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
					t.Errorf("a takeover is not answered: %v", err)
				}
				times.Add(1)
				c.Close()
			}
		})
	}
	all.Wait()
	t.Logf("%d connections", times.Load())
}

// subscribes sends SUBSCRIBEs without reading their answers.
func subscribes(t *testing.T, f *flooded) {
	var packets []byte
	for i := range 4000 {
		packets = append(packets, subscribePacket(fmt.Sprint("many/", i, "/+"))...)
	}
	held := "mozzie_reads_held_total"
	before := f.metric(held)
	f.unread(t, packets, func() bool { return f.metric(held) > before && f.ctx.Err() != nil })
}

// pings sends PINGREQs without reading their answers.
func pings(t *testing.T, f *flooded) {
	f.unread(t, bytes.Repeat([]byte{0xc0, 0}, 32<<10), func() bool { return false }) // until all are cut off
}

// unread sends the same again and again over some connections and reads nothing, until it is enough or the node has hung
// up. The node may stop reading meanwhile.
func (f *flooded) unread(t *testing.T, packets []byte, enough func() bool) {
	var all sync.WaitGroup
	var sent, cut atomic.Int64
	end := time.Now().Add(patience)
	over := make(chan struct{})
	const many = 4
	for i := range many {
		c := f.loginDeaf(t, i, fmt.Sprint("unread-", i))
		all.Go(func() {
			defer c.Close()
			for rest := packets; ; {
				select {
				case <-over:
					return
				default:
				}
				_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
				n, err := c.Write(rest)
				sent.Add(int64(n))
				if rest = rest[n:]; len(rest) == 0 {
					rest = packets
				}
				var timeout net.Error
				if err != nil && (!errors.As(err, &timeout) || !timeout.Timeout()) {
					cut.Add(1)
					return
				}
			}
		})
	}
	for !enough() && cut.Load() < many {
		if time.Now().After(end) {
			t.Errorf("after %v the node still takes what it is sent", patience)
			break
		}
		time.Sleep(poll)
	}
	close(over)
	all.Wait()
	f.holds(t, many*16)
	t.Logf("%d KiB were taken, %d of %d cut off", sent.Load()>>10, cut.Load(), many)
}
