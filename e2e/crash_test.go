package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// durable is an MQTT 3.1.1 client whose side of its session outlives connections. It connects again whenever it has to.
type durable struct {
	t       *testing.T
	address string
	id      string
	filters map[uint16]string // to be subscribed to at QoS 2, by packet ID

	mu       sync.Mutex
	conn     net.Conn
	next     uint16
	flying   []*flight       // published, in order
	received map[uint16]bool // QoS 2 packet IDs that wait for PUBREL
	got      map[string]int  // payloads
	there    bool            // the server has a session
	closed   bool
	life     *life // the connection that it has or makes, if any
	left     int   // connections that it has left to the server to end
	connects int
	ended    chan struct{}
}

// flight is a message that is published and not through yet.
type flight struct {
	topic, payload string
	qos            byte
	id             uint16
	released       bool
}

func newDurable(t *testing.T, address, id string, filters ...string) *durable {
	d := &durable{t: t, address: address, id: id, filters: map[uint16]string{}, received: map[uint16]bool{}, got: map[string]int{}, ended: make(chan struct{})}
	for i, f := range filters {
		d.filters[uint16(60_001+i)] = f //nolint:gosec // a few
	}
	go d.run()
	t.Cleanup(d.close)
	return d
}

func (d *durable) close() {
	d.mu.Lock()
	d.closed = true
	if d.conn != nil {
		d.conn.Close()
	}
	d.mu.Unlock()
	<-d.ended
}

// life is one connection, from before it is made.
type life struct {
	address string
	moved   chan struct{} // closed when the client is to connect somewhere else
	over    chan struct{} // closed when it has ended, with err
	err     error
}

func (d *durable) run() {
	defer close(d.ended)
	for {
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			return
		}
		l := &life{address: d.address, moved: make(chan struct{}), over: make(chan struct{})}
		d.life = l
		d.mu.Unlock()
		go func() {
			defer close(l.over)
			l.err = d.live(l)
		}()
		select {
		case <-l.over:
		case <-l.moved:
			continue
		}
		d.mu.Lock()
		if d.life == l {
			d.life, d.conn = nil, nil
		}
		d.mu.Unlock()
		if errors.Is(l.err, errAmnesia) {
			d.t.Errorf("%s: %v", d.id, l.err)
			return
		}
		time.Sleep(50 * time.Millisecond) // as clients do
	}
}

func (d *durable) connected() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == nil {
		return fmt.Errorf("%s has no connection", d.id)
	}
	return nil
}

// pause has the client vanish until it is to connect somewhere else.
func (d *durable) pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.address = ""
	if d.conn != nil {
		d.conn.Close()
	}
}

// moveTo has the client connect somewhere else. It hears nothing more of its old connection, which is left to the server to end.
func (d *durable) moveTo(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.life
	d.address, d.conn, d.life = address, nil, nil
	if l == nil {
		return // it is about to connect
	}
	close(l.moved)
	d.left++
	go func() {
		<-l.over
		d.mu.Lock()
		defer d.mu.Unlock()
		d.left--
	}()
}

var (
	errAmnesia = errors.New("the server has forgotten the session")
	errMoved   = errors.New("it has moved on")
)

// live makes a connection and serves it until it ends.
func (d *durable) live(l *life) error {
	if l.address == "" {
		return errMoved
	}
	conn, err := net.DialTimeout("tcp", l.address, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(rawPacket(0x10, rawString("MQTT"), []byte{4, 0, 0, 0}, rawString(d.id))); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	first, body, err := readRaw(conn)
	if err != nil || first != 0x20 || len(body) != 2 || body[1] != 0 {
		return fmt.Errorf("CONNACK 0x%02x %x: %w", first, body, err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	d.mu.Lock()
	if d.closed || d.life != l || d.address != l.address {
		d.mu.Unlock()
		return errMoved
	}
	if d.there && body[0] == 0 {
		d.mu.Unlock()
		return errAmnesia
	}
	d.connects++
	d.there = true
	d.conn = conn
	for id, f := range d.filters {
		d.write(rawPacket(0x82, binary.BigEndian.AppendUint16(nil, id), rawString(f), []byte{2}))
	}
	for _, f := range d.flying {
		d.send(f, 8)
	}
	d.mu.Unlock()
	for {
		first, body, err := readRaw(conn)
		if err != nil {
			return err
		}
		d.mu.Lock()
		if d.conn == conn {
			d.handle(first, body)
		}
		d.mu.Unlock()
	}
}

func (d *durable) write(b []byte) {
	if d.conn != nil {
		_, _ = d.conn.Write(b) // the reader finds out
	}
}

func (d *durable) send(f *flight, dup byte) {
	if f.released {
		d.write(rawPacket(0x62, binary.BigEndian.AppendUint16(nil, f.id)))
		return
	}
	d.write(rawPublish(4, f.qos<<1|dup, f.id, f.topic, f.payload))
}

func (d *durable) handle(first byte, body []byte) {
	id := uint16(0)
	if len(body) >= 2 {
		id = binary.BigEndian.Uint16(body)
	}
	at := slices.IndexFunc(d.flying, func(f *flight) bool { return f.id == id })
	switch first >> 4 {
	case 3:
		n := 2 + int(id)
		qos := first >> 1 & 3
		if qos > 0 {
			id = binary.BigEndian.Uint16(body[n:])
			n += 2
		}
		if qos < 2 || !d.received[id] {
			d.got[string(body[n:])]++
		}
		switch qos {
		case 1:
			d.write(rawPacket(0x40, binary.BigEndian.AppendUint16(nil, id)))
		case 2:
			d.received[id] = true
			d.write(rawPacket(0x50, binary.BigEndian.AppendUint16(nil, id)))
		}
	case 4, 7: // PUBACK, PUBCOMP
		if at >= 0 {
			d.flying = slices.Delete(d.flying, at, at+1)
		}
	case 5: // PUBREC
		if at >= 0 {
			d.flying[at].released = true
			d.send(d.flying[at], 0)
		}
	case 6: // PUBREL
		delete(d.received, id)
		d.write(rawPacket(0x70, binary.BigEndian.AppendUint16(nil, id)))
	case 9:
		delete(d.filters, id) // it stands
	}
}

// publish publishes a message when fewer than 20 are on their way.
func (d *durable) publish(topic, payload string, qos byte) {
	eventually(d.t, patience, func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.flying) >= 20 {
			return errors.New("20 messages are on their way")
		}
		d.next = d.next%60_000 + 1
		f := &flight{topic: topic, payload: payload, qos: qos, id: d.next}
		d.flying = append(d.flying, f)
		d.send(f, 0)
		return nil
	})
}

// through fails while a QoS 2 message waits for its PUBREL.
func (d *durable) through() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.received) > 0 {
		return fmt.Errorf("%s has %d exchanges open", d.id, len(d.received))
	}
	return nil
}

func (d *durable) idle() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.flying) > 0 || len(d.filters) > 0 {
		return fmt.Errorf("%s: %d messages are on their way, %d filters do not stand", d.id, len(d.flying), len(d.filters))
	}
	return nil
}

// readRaw reads a packet.
func readRaw(r io.Reader) (first byte, body []byte, err error) {
	var b [1]byte
	if _, err = io.ReadFull(r, b[:]); err != nil {
		return 0, nil, err
	}
	first = b[0]
	n := 0
	for shift := 0; ; shift += 7 {
		if _, err = io.ReadFull(r, b[:]); err != nil {
			return 0, nil, err
		}
		n |= int(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			break
		}
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return first, body, err
}

// TestCrashes kills nodes one after another, as power cuts do, while clients with lasting sessions publish and receive, and
// starts them again: what was acknowledged comes, and at QoS 2 once, whichever node crashes at whatever moment.
func TestCrashes(t *testing.T) {
	long(t)
	nodes := startSwarm(t, 3, setup{})
	var subs []*durable
	for i, n := range nodes[:2] {
		subs = append(subs, newDurable(t, n.mqtt, fmt.Sprint("sub", i), "crash/#", "crash1/+", "crash2/+", "crash3/+"))
	}
	pub := newDurable(t, nodes[0].mqtt, "pub")
	for _, s := range subs {
		eventually(t, patience, s.idle)
	}
	topics := []string{"crash/x", "crash1/x", "crash2/x", "crash3/x"}
	const rounds, each = 12, 150
	sent := 0
	for range rounds {
		victim := nodes[rand.IntN(len(nodes))] //nolint:gosec // whichever
		at := rand.IntN(each)                  //nolint:gosec // whenever
		for i := range each {
			qos := byte(1 + sent%2)
			pub.publish(topics[rand.IntN(len(topics))], fmt.Sprintf("%d %d", qos, sent), qos) //nolint:gosec // whichever
			sent++
			if i == at {
				victim.kill()
				victim.start()
			}
		}
		victim.ready()
	}
	eventually(t, patience, pub.idle)
	for _, s := range subs {
		eventually(t, patience, func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			for i := range sent {
				if p := fmt.Sprintf("%d %d", 1+i%2, i); s.got[p] == 0 {
					return fmt.Errorf("%s has %d of %d messages, not %q", s.id, len(s.got), sent, p)
				}
			}
			return nil
		})
		s.mu.Lock()
		twice := 0
		for p, n := range s.got {
			switch {
			case n > 1 && p[0] == '2':
				t.Errorf("%s got %q %d times", s.id, p, n)
			case n > 1:
				twice += n - 1
			}
		}
		s.mu.Unlock()
		t.Logf("%s: %d messages, %d of QoS 1 more than once", s.id, sent, twice)
	}
}

// TestWillsAfterKill kills a node while clients with wills are connected to it, and starts it again: their wills come, at this
// node and at others, once, whatever their sessions are.
func TestWillsAfterKill(t *testing.T) {
	nodes := startSwarm(t, 2, setup{})
	victim := nodes[1]
	subs := []*durable{newDurable(t, nodes[0].mqtt, "sub0", "will/#"), newDurable(t, victim.mqtt, "sub1", "will/#")}
	for _, s := range subs {
		eventually(t, patience, s.idle)
	}
	const withWill, lasting = 0x04, 0x02 // lasting: the clean flag is off
	connect := func(id string, flags byte) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", victim.mqtt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = conn.Write(rawPacket(0x10, rawString("MQTT"), []byte{4, flags, 0, 0}, rawString(id), rawString("will/"+id), rawString(id)))
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if first, body, err := readRaw(conn); err != nil || first != 0x20 || body[1] != 0 {
			t.Fatalf("CONNACK 0x%02x %x: %v", first, body, err)
		}
		return conn
	}
	// DISCONNECT has no answer: that it was read is on the disk when what comes behind is.
	bye := connect("bye", withWill|lasting|1<<3)
	_, _ = bye.Write([]byte{0xe0, 0})
	if _, _, err := readRaw(bye); !errors.Is(err, io.EOF) {
		t.Fatalf("after DISCONNECT: %v", err)
	}
	want := map[string]bool{}
	for qos := range byte(3) {
		for name, clean := range map[string]byte{"clean": lasting, "lasting": 0} {
			id := fmt.Sprint(name, qos)
			connect(id, withWill|clean|qos<<3)
			want[id] = true
		}
	}
	for range 2 { // the second time nobody has a will any more
		victim.kill()
		victim.start()
		victim.ready()
		for _, s := range subs {
			eventually(t, patience, func() error {
				s.mu.Lock()
				defer s.mu.Unlock()
				for id := range want { // QoS 0 is not kept for who is away
					if s.got[id] == 0 && (s == subs[0] || id[len(id)-1] != '0') {
						return fmt.Errorf("%s has %v", s.id, s.got)
					}
				}
				return nil
			})
		}
		victim.until("has sent its wills", func(s admin.Status) bool { return s.Connections == 1 && s.Sessions == 4 })
	}
	pub := newDurable(t, victim.mqtt, "pub")
	pub.publish("will/end", "end", 1) // behind all wills
	for _, s := range subs {
		eventually(t, patience, func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.got["end"] == 0 {
				return errors.New("the end has not come")
			}
			for p, n := range s.got {
				if n > 1 && p[len(p)-1] != '1' || p == "bye" { // QoS 1 may come again to a client, by the connection that is killed
					t.Errorf("%s got %q %d times", s.id, p, n)
				}
			}
			return nil
		})
	}
}
