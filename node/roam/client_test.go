package roam

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// simListener brings connections that are pipes.
type simListener struct {
	mu     sync.Mutex
	ends   map[net.Conn]struct{} // the clients'
	accept chan net.Conn
	over   chan struct{}
	once   sync.Once
}

func newSimListener() *simListener {
	return &simListener{ends: map[net.Conn]struct{}{}, accept: make(chan net.Conn), over: make(chan struct{})}
}

func (l *simListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}

func (l *simListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *simListener) Close() error {
	l.once.Do(func() { close(l.over) })
	return nil
}

// cut ends all connections, as a crash does.
func (l *simListener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.ends {
		_ = c.Close()
	}
}

func (l *simListener) dial() (net.Conn, error) {
	a, b := net.Pipe()
	l.mu.Lock()
	l.ends[a] = struct{}{}
	l.mu.Unlock()
	select {
	case l.accept <- b:
		return a, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}

// client is an MQTT 3.1.1 client whose side of its session outlives connections. It connects again whenever it has to. World.mu
// guards it: what happens at a node that has crashed it does not hear of.
type client struct {
	w      *world
	id     string
	filter string

	at        *simNode
	now       *link
	there     bool // the server has a session
	connected bool // now has its CONNACK
	stands    bool // the filter was answered for
	next      uint16
	flying    []*flight
	received  map[uint16]string // payloads of QoS 2 messages that wait for PUBREL, by packet ID
	got       map[string]int
	order     []string // payloads, as they came first
	gone      bool
	connects  int
	refused   int

	// open has for each node that crashed what was under way between it and the client: where the client goes on without that
	// node, these may come, or be published, twice.
	open    map[*simNode]map[string]bool
	excused map[string]bool
}

type flight struct {
	payload  string
	qos      byte
	id       uint16
	released bool
}

// link is one connection.
type link struct {
	n    *simNode
	life int
	conn net.Conn
	out  chan []byte
	over chan struct{}
}

func newClient(w *world, id, filter string, at *simNode) *client {
	c := &client{w: w, id: id, filter: filter, at: at, received: map[uint16]string{}, got: map[string]int{}, open: map[*simNode]map[string]bool{},
		excused: map[string]bool{}}
	w.mu.Lock()
	w.clients = append(w.clients, c)
	w.mu.Unlock()
	w.wg.Go(c.run)
	return c
}

func (c *client) run() {
	for {
		c.w.mu.Lock()
		n, gone := c.at, c.gone
		var l *link
		if !gone && n != nil && n.up {
			l = &link{n: n, life: n.life, out: make(chan []byte, 1<<16), over: make(chan struct{})}
		}
		c.w.mu.Unlock()
		switch {
		case gone:
			return
		case l != nil:
			c.live(l)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// moveTo has the client connect somewhere else. It hears nothing more of its old connection, which is left to the server to end.
func (c *client) moveTo(n *simNode) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.at = n
	if l := c.now; l != nil && l.n != n {
		c.now, c.connected = nil, false
		close(l.over)
	}
}

func (c *client) close() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.gone = true
	if c.now != nil {
		close(c.now.over)
		c.now = nil
	}
}

func packet(first byte, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	b := []byte{first}
	n := len(body)
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(append(b, byte(n)), body...)
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) } //nolint:gosec // short

func id16(id uint16) []byte { return binary.BigEndian.AppendUint16(nil, id) }

func readPacket(r *bufio.Reader) (first byte, body []byte, err error) {
	if first, err = r.ReadByte(); err != nil {
		return
	}
	n, err := binary.ReadUvarint(r) // as MQTT has lengths
	if err != nil {
		return
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return
}

// live is one connection.
func (c *client) live(l *link) {
	conn, err := l.n.listener().dial()
	if err != nil {
		return
	}
	l.conn = conn
	ended := make(chan struct{})
	c.w.wg.Go(func() {
		defer close(ended)
		r := bufio.NewReader(conn)
		for {
			first, body, err := readPacket(r)
			if err != nil {
				return
			}
			c.w.mu.Lock()
			c.handle(l, first, body)
			c.w.mu.Unlock()
		}
	})
	c.w.mu.Lock()
	c.now, c.connected = l, false
	c.w.mu.Unlock()
	l.out <- packet(0x10, text("MQTT"), []byte{4, 0, 0, 0}, text(c.id))
	for {
		select {
		case b := <-l.out:
			if _, err := conn.Write(b); err == nil {
				continue
			}
		case <-ended:
		case <-l.over: // who has moved on leaves its connection to the server
			c.w.wg.Go(func() {
				select {
				case <-ended:
				case <-time.After(time.Minute):
				}
				_ = conn.Close()
			})
			return
		}
		break
	}
	_ = conn.Close()
	c.w.mu.Lock()
	if c.now == l {
		c.now = nil
	}
	c.w.mu.Unlock()
}

func (c *client) send(f *flight, dup byte) {
	if c.now == nil || !c.connected {
		return
	}
	if f.released {
		c.now.out <- packet(0x62, id16(f.id))
		return
	}
	c.now.out <- packet(0x30|f.qos<<1|dup, text("up/"+c.id), id16(f.id), []byte(f.payload))
}

// publish publishes a message, as far as few are on their way.
func (c *client) publish(payload string, qos byte) bool {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if len(c.flying) >= 20 {
		return false
	}
	c.next = c.next%60_000 + 1
	f := &flight{payload: payload, qos: qos, id: c.next}
	c.flying = append(c.flying, f)
	if c.connected {
		c.send(f, 0)
	}
	return true
}

// attached fails until the client has its CONNACK.
func (c *client) attached() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.at != nil && c.at.up && !c.connected {
		return fmt.Errorf("%s has no connection to node %d", c.id, c.at.i)
	}
	return nil
}

// handle deals with a packet. World.mu is held.
func (c *client) handle(l *link, first byte, body []byte) {
	if c.now != l || l.n.life != l.life {
		return
	}
	id := uint16(0)
	if len(body) >= 2 {
		id = binary.BigEndian.Uint16(body)
	}
	at := slices.IndexFunc(c.flying, func(f *flight) bool { return f.id == id })
	switch first >> 4 {
	case 2:
		c.welcomed(l, body)
	case 3:
		n := 2 + int(id)
		qos := first >> 1 & 3
		if qos > 0 {
			id = binary.BigEndian.Uint16(body[n:])
			n += 2
		}
		payload := string(body[n:])
		c.w.logf("client got %q from %d, ID %d, first byte %x", payload, l.n.i, id, first)
		if _, again := c.received[id]; qos < 2 || !again {
			if c.got[payload]++; c.got[payload] == 1 {
				c.order = append(c.order, payload)
			}
		}
		switch qos {
		case 1:
			l.out <- packet(0x40, id16(id))
		case 2:
			c.received[id] = payload
			l.out <- packet(0x50, id16(id))
		}
	case 4, 7: // PUBACK, PUBCOMP
		if at >= 0 {
			c.flying = slices.Delete(c.flying, at, at+1)
		}
	case 5: // PUBREC
		if at >= 0 {
			c.flying[at].released = true
			c.send(c.flying[at], 0)
		}
	case 6: // PUBREL
		delete(c.received, id)
		l.out <- packet(0x70, id16(id))
	case 9:
		c.stands = true
	}
}

// welcomed deals with CONNACK.
func (c *client) welcomed(l *link, body []byte) {
	if body[1] != 0 {
		c.refused++
		c.now = nil
		close(l.over)
		return
	}
	switch {
	case !c.there || body[0] == 1:
	case c.w.apartLocked(): // a node that sees no other begins a session anew, which is joined later
		c.stands = false
		clear(c.received)
	default:
		c.w.t.Errorf("%s: node %d has forgotten the session", c.id, l.n.i)
	}
	c.there, c.connected = true, true
	c.connects++
	// What was under way at a node that is not among the others may come by it and by another one too: the client may have gone there and
	// back without waiting for an answer.
	for n, open := range c.open {
		if !n.up || time.Since(n.started) < 10*time.Second {
			for p := range open {
				c.excused[p] = true
			}
		}
		if n == l.n || !n.up {
			delete(c.open, n)
		}
	}
	for _, o := range c.w.nodes {
		pair := [2]int{min(o.i, l.n.i), max(o.i, l.n.i)}
		if !c.w.cut[pair] && time.Since(c.w.healed[pair]) >= 10*time.Second {
			continue
		}
		for _, n := range []*simNode{o, l.n} {
			for p := range c.openAt(n) {
				c.excused[p] = true
			}
		}
	}
	if c.w.apartLocked() {
		for _, f := range c.flying {
			c.excused[f.payload] = true
		}
	}
	if !c.stands {
		l.out <- packet(0x82, id16(60_001), text(c.filter), []byte{2})
	}
	for _, f := range c.flying {
		c.send(f, 8)
	}
}

// crashedLocked notes what was under way between a node that crashes and the client.
func (c *client) crashedLocked(n *simNode) {
	c.open[n] = c.openAt(n)
}

func (c *client) openAt(n *simNode) map[string]bool {
	open := map[string]bool{}
	waits := map[string]bool{}
	n.store.each(func(e mqttfront.Entry) { waits[string(e.Msg.Payload)] = true })
	for _, m := range c.w.custody {
		for _, s := range m.shares {
			if s.n == n && !s.done {
				waits[string(m.m.Payload)] = true
			}
		}
	}
	for p := range waits {
		open[p] = true
	}
	for _, p := range c.received {
		open[p] = true
	}
	return open
}

func (c *client) idle() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if len(c.flying) > 0 {
		return fmt.Errorf("%s waits for %d answers", c.id, len(c.flying))
	}
	return nil
}

// standing fails until the client's subscription stands.
func (c *client) standing() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if !c.stands {
		return fmt.Errorf("%s is not subscribed", c.id)
	}
	return nil
}

// excuse says that a message may come, or be published, more than once.
func (c *client) excuse(payload string) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.excused[payload] = true
}
