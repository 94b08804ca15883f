package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

const (
	// answerLimit is how long a client waits for an answer of its node before it takes the node for gone.
	answerLimit = 6 * time.Second
	pingEvery   = 2 * time.Second
	keepAlive   = 30 // s
	// again is how long a client waits before it connects again, at least.
	again = 150 * time.Millisecond
	// staleLimit is how long a client that has connected again waits for its old connection to be closed.
	staleLimit = 20 * time.Second
	expiry     = 48 * 3600 // s, of a lasting session: more than a clock jumps
)

// manner is how a client behaves. It does not change.
type manner struct {
	id      string
	lasting bool // its session outlives connections
	home    int  // the node that it connects to
	// moves has it go to another node when its own is away, where it makes a clean start, or, with a lasting session and
	// resumes, expects its session.
	moves, resumes bool
	ackDelay       func(*rand.Rand) time.Duration // how long it takes to acknowledge; nil for at once
	maximum        uint16                         // Receive Maximum; 0 for none
	will           func(conn int) *will           // nil for none
	lives          func(*rand.Rand) time.Duration // how long it stays connected; nil for ever
	says           float64                        // how often it says goodbye then; else it leaves without a word
	seed           uint64
}

type will struct {
	topic, msg string
	qos        byte
}

// client is an MQTT 5 client whose side of its session outlives connections, as far as the session does.
type client struct {
	manner
	history *History
	swarm   *swarm
	rng     *rand.Rand // of run alone
	delays  *rand.Rand // under mu
	ended   sync.WaitGroup
	stop    chan struct{} // closed when it is to end
	renew   chan struct{} // asks for another connection beside the one that there is

	mu       sync.Mutex
	conn     *conn // nil while there is none
	conns    int   // so far
	next     uint16
	flying   []*flight         // published, in order
	open     map[uint16]string // the message of each exchange
	wants    []*want
	changed  chan struct{} // closed and replaced when any of these changes
	leaving  bool
	lastNode int // that has its session, 0 for none
}

// flight is a message that is on its way from the client.
type flight struct {
	msg, topic string
	payload    []byte
	qos        byte
	retain     bool
	id         uint16
	recorded   bool // it is known whether it was accepted
	released   bool // PUBREC has come
}

// want is a subscription that the client wants, or no longer.
type want struct {
	filter  string
	qos     byte
	id      uint16 // packet ID of what is under way
	stands  bool   // SUBACK has come
	gone    bool   // it is to be unsubscribed
	waiting bool   // for SUBACK or UNSUBACK
}

// conn is one connection.
type conn struct {
	net.Conn
	number, node int
	write        sync.Mutex
	done         chan struct{} // closed when the reader has ended
	acks         chan ack      // what is to be acknowledged late
	stale        bool          // under client.mu: there is a newer one
	said         bool          // under client.mu: DISCONNECT has been sent
	how          string        // under client.mu: how it ended, if that is known before
}

type ack struct {
	due time.Time
	packets.Packet
}

func newClient(h *History, s *swarm, m manner) *client {
	c := &client{manner: m, history: h, swarm: s, rng: rand.New(rand.NewPCG(m.seed, 3)), delays: rand.New(rand.NewPCG(m.seed, 4)), stop: make(chan struct{}), renew: make(chan struct{}, 1), //nolint:gosec // it is to be repeatable
		open: map[uint16]string{}, changed: make(chan struct{})}
	c.ended.Go(c.run)
	return c
}

// changedLocked wakes who waits for a change.
func (c *client) changedLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// close ends the client, and its connection without a word.
func (c *client) close() {
	c.mu.Lock()
	if !c.leaving {
		c.leaving = true
		close(c.stop)
	}
	c.mu.Unlock()
	c.ended.Wait()
}

// run connects whenever there is no connection.
func (c *client) run() {
	node := c.home
	for {
		conn, err := c.connect(node)
		if err == nil {
			c.live(conn)
		}
		select {
		case <-c.stop:
			return
		case <-time.After(again + time.Duration(c.rng.Int64N(int64(again)))): // as clients do
		}
		if c.moves && c.rng.IntN(2) == 0 {
			members := c.swarm.members()
			node = members[c.rng.IntN(len(members))].number
		}
	}
}

// live is with a connection until it ends.
func (c *client) live(conn *conn) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	var life <-chan time.Time
	if c.lives != nil {
		life = time.After(c.lives(c.rng)) // how long it lives is the client's own
	}
	for {
		select {
		case <-conn.done:
			return
		case <-c.stop:
			c.leave(conn, true)
			return
		case <-life:
			c.leave(conn, c.rng.Float64() < c.says)
			return
		case <-ping.C:
			conn.send(&packets.Pingreq{})
		case <-c.renew:
			c.mu.Lock()
			conn.stale = true
			_ = conn.SetReadDeadline(time.Now().Add(staleLimit)) // of a connection that may be gone
			c.mu.Unlock()
			if newer, err := c.connect(conn.node); err == nil {
				conn = newer
			} else {
				conn.end(howLost, c)
				<-conn.done
				return
			}
		}
	}
}

// leave ends a connection from the client's side.
func (c *client) leave(conn *conn, says bool) {
	if says {
		c.mu.Lock()
		conn.said = true
		c.mu.Unlock()
		conn.send(&packets.Disconnect{Properties: &packets.Properties{}})
		_ = conn.SetReadDeadline(time.Now().Add(answerLimit)) // of a connection that may be gone
		<-conn.done
		return
	}
	conn.end(howLeft, c)
	<-conn.done
}

// end closes the connection, unless it is over.
func (k *conn) end(how string, c *client) {
	c.mu.Lock()
	if k.how == "" {
		k.how = how
	}
	c.mu.Unlock()
	k.Close()
}

// send sends a packet. Where the connection is broken the reader finds out.
func (k *conn) send(p packets.Packet) {
	var b bytes.Buffer
	if _, err := p.WriteTo(&b); err != nil {
		panic(err) // a buffer takes everything
	}
	k.write.Lock()
	defer k.write.Unlock()
	_ = k.SetWriteDeadline(time.Now().Add(answerLimit))
	if _, err := k.Write(b.Bytes()); err != nil {
		k.Close()
	}
}

// event is an event of the client on a connection.
func (c *client) event(k *conn, kind Kind) Event {
	return Event{Kind: kind, Client: c.id, Conn: k.number, Node: k.node}
}

// connect connects to a node, and sends what the session makes it send.
func (c *client) connect(node int) (*conn, error) {
	c.mu.Lock()
	c.conns++
	k := &conn{number: c.conns, node: node, done: make(chan struct{}), acks: make(chan ack, 4096)}
	clean := !c.lasting || c.lastNode != node && !c.resumes
	c.mu.Unlock()
	n := c.swarm.nodes[node]
	raw, err := net.DialTimeout("unix", n.mqtt, answerLimit)
	if err != nil {
		return nil, err
	}
	k.Conn = raw
	p := &packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: c.id, CleanStart: clean, KeepAlive: keepAlive, Properties: &packets.Properties{}}
	e := c.event(k, Connect)
	e.Clean, e.Lasting = clean, c.lasting
	if c.lasting {
		seconds := uint32(expiry)
		p.Properties.SessionExpiryInterval = &seconds
	}
	if c.maximum != 0 {
		p.Properties.ReceiveMaximum = &c.maximum
	}
	if c.will != nil {
		w := c.will(k.number)
		p.WillFlag, p.WillTopic, p.WillMessage, p.WillQOS, p.WillProperties = true, w.topic, []byte(w.msg), w.qos, &packets.Properties{}
		e.Msg, e.Topic, e.QoS = w.msg, w.topic, w.qos
	}
	c.history.Add(e)
	if clean {
		c.forget(k)
	}
	k.send(p)
	_ = k.SetReadDeadline(time.Now().Add(answerLimit))
	answer, err := packets.ReadPacket(k)
	if err == nil {
		ok, is := answer.Content.(*packets.Connack)
		switch {
		case !is:
			err = fmt.Errorf("%s instead of CONNACK", answer.PacketType())
		case ok.ReasonCode != 0:
			err = fmt.Errorf("refused: 0x%02x", ok.ReasonCode)
		default:
			c.begin(k, ok.SessionPresent)
			return k, nil
		}
	}
	k.Close()
	e = c.event(k, Closed)
	e.Text = howRefuse
	c.history.Add(e)
	return nil, err
}

// begin takes a connection that the node has accepted into use.
func (c *client) begin(k *conn, present bool) {
	e := c.event(k, Connected)
	e.Present = present
	c.history.Add(e)
	if !present {
		c.forget(k)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.lastNode = k, k.node
	for _, w := range c.wants {
		w.waiting = false
	}
	for _, f := range c.flying {
		c.publishLocked(f, true)
	}
	c.subscribeLocked()
	c.changedLocked()
	c.ended.Go(func() { c.runReader(k) })
	c.ended.Go(func() { c.runAcks(k) })
}

// forget is what the end of a session makes of the client's side: what was published at QoS 1 is to be published again, what
// was at QoS 2 nobody knows of, and all subscriptions are to be made again.
func (c *client) forget(k *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastNode = 0
	clear(c.open)
	flying := c.flying
	c.flying = nil
	for _, f := range flying {
		if f.qos == 1 {
			f.id = 0
			c.flying = append(c.flying, f)
		} else if !f.recorded {
			e := c.event(k, Unknown)
			e.Msg, e.Topic, e.QoS = f.msg, f.topic, f.qos
			c.history.Add(e)
		}
	}
	wants := c.wants
	c.wants = nil
	for _, w := range wants {
		if !w.gone {
			w.stands = false
			c.wants = append(c.wants, w)
		}
	}
}

// nextLocked returns a packet ID that is free.
func (c *client) nextLocked() uint16 {
	for {
		c.next = c.next%60_000 + 1
		free := true
		for _, f := range c.flying {
			free = free && f.id != c.next
		}
		if free {
			return c.next
		}
	}
}

var errNotNow = errors.New("not now")

// publish publishes a message, if the client is connected and fewer than window are on their way.
func (c *client) publish(f *flight, window int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil || c.conn.stale || len(c.flying) >= window {
		return errNotNow
	}
	if f.qos > 0 {
		c.flying = append(c.flying, f)
	}
	c.publishLocked(f, false)
	return nil
}

func (c *client) publishLocked(f *flight, dup bool) {
	k := c.conn
	if f.released {
		k.send(&packets.Pubrel{PacketID: f.id, Properties: &packets.Properties{}})
		return
	}
	if f.qos > 0 && f.id == 0 {
		f.id, dup = c.nextLocked(), false
	}
	e := c.event(k, Publish)
	e.Msg, e.Topic, e.QoS, e.Retain, e.Dup, e.Empty = f.msg, f.topic, f.qos, f.retain, dup, len(f.payload) == 0
	c.history.Add(e)
	p := &packets.Publish{PacketID: f.id, Topic: f.topic, QoS: f.qos, Retain: f.retain, Duplicate: dup, Payload: f.payload, Properties: &packets.Properties{}}
	if len(f.payload) == 0 {
		p.Properties.User = []packets.User{{Key: idProperty, Value: f.msg}}
	}
	k.send(p)
}

// idProperty is the user property that has the ID of a message without a payload, which has no room for one.
const idProperty = "id"

// subscribe asks for subscriptions at a QoS, unsubscribe for their end. The client goes on asking until it has an answer.
func (c *client) subscribe(qos byte, filters ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range filters {
		c.wants = append(c.wants, &want{filter: f, qos: qos})
	}
	c.subscribeLocked()
}

func (c *client) unsubscribe(filter string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wants {
		if w.filter == filter {
			w.gone, w.waiting = true, false
		}
	}
	c.subscribeLocked()
}

func (c *client) subscribeLocked() {
	if c.conn == nil || c.conn.stale {
		return
	}
	for _, w := range c.wants {
		if w.waiting || w.stands && !w.gone {
			continue
		}
		w.waiting = true
		w.id = c.nextLocked()
		e := c.event(c.conn, Subscribe)
		e.Filter, e.QoS = w.filter, w.qos
		if w.gone {
			e.Kind = Unsubscribe
			c.history.Add(e)
			c.conn.send(&packets.Unsubscribe{PacketID: w.id, Topics: []string{w.filter}, Properties: &packets.Properties{}})
			continue
		}
		c.history.Add(e)
		c.conn.send(&packets.Subscribe{PacketID: w.id, Properties: &packets.Properties{},
			Subscriptions: []packets.SubOptions{{Topic: w.filter, QoS: w.qos, RetainHandling: 2}}})
	}
}

// idle says what the client still waits for.
func (c *client) idle() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wants {
		if !w.stands || w.gone {
			return fmt.Errorf("%s has no answer to its subscription to %s", c.id, w.filter)
		}
	}
	if len(c.flying) > 0 {
		return fmt.Errorf("%s has %d messages on their way, the first is %s", c.id, len(c.flying), c.flying[0].msg)
	}
	if c.conn == nil {
		return fmt.Errorf("%s is not connected", c.id)
	}
	return nil
}
