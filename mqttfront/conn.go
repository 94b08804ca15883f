package mqttfront

import (
	"cmp"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one connection. It is the Origin of the messages that its client publishes.
type conn struct {
	b        *Broker
	raw      net.Conn // as it was accepted
	listener *listener
	place    place
	refused  bool // it has none
	in       reader

	// Set before MQTT begins, constant afterwards.
	nc         net.Conn // what MQTT is spoken over; written with mu held
	remote     net.Addr // the client
	mount      mount
	shown      []*x509.Certificate // by the client, its own first
	trusts     uint64              // the broker's before they were verified
	certUser   string              // whom its certificate names
	noCertUser bool                // it has one that names nobody

	// Set while CONNECT is dealt with, before the session knows the connection; constant afterwards.
	sess        *session
	who         Identity
	login       Login // without the password
	version     byte
	bridge      bool // another broker: its subscriptions have No Local and Retain As Published
	problemInfo bool // reason strings are welcome
	keepAlive   time.Duration
	maxPacket   int // the client's Maximum Packet Size
	window      int // how many QoS 1 and 2 messages we may have on the way to it

	lastSeen atomic.Int64 // nanoseconds since the broker's start, on a clock that never jumps
	silenced atomic.Bool  // the keep alive is over, said once

	own reading // of the goroutine that reads

	mu       sync.Mutex
	out      *buffer       // what waits to be written; nil: nothing
	writing  bool          // somebody is writing; he comes back for out
	dirty    bool          // somebody is going to flush soon
	corked   chan struct{} // not nil: nothing is written or read until it is closed: CONNACK waits
	pump     bool          // the session has more for us once there is room
	closing  bool          // nothing may be appended any more
	drained  chan struct{} // closed when closing and all is written
	acks     ackRing
	aliases  map[string]uint16 // that we set towards the client
	aliasMax int

	hungry    bool      // in the list of crowd
	inWrite   int       // bytes that a writer is at
	writeFrom time.Time // since then

	answers     []*answer     // SUBACKs and UNSUBACKs in their order
	openFilters int           // in the packets that they answer
	room        chan struct{} // not nil: the reading goroutine waits for it to be closed, see hold
	waits       byte          // with a packet of this type
}

// reading is what only the reading goroutine uses.
type reading struct {
	pub     publish
	scratch []byte
	mounted []byte // a topic with the mount
	msg     outMessage
	last    *slot // of the topic before
	may     *slot // of the topic that granted has allowed to publish to
	granted *grant
	aliases []*slot       // that the client set, by alias - 1
	served  bool          // it has published what came to this node's subscribers by Broker.Deliver
	eases   bool          // it has published what is kept, while memory is scarce
	bye     bool          // the client said DISCONNECT with success
	status  string        // the topic of its will, if that is to be retained
	armed   chan struct{} // closed when other nodes know the will that CONNACK waits for; nil: it does not
	expiry  *uint32       // from its DISCONNECT
}

var errBye = errors.New("the client said goodbye")

// runConn serves a connection, if there is a place for it, until it ends. It may be of any kind that brings bytes in order
// and loses none [MQTT-4.2.0-1].
func (b *Broker) runConn(nc net.Conn, l *listener) {
	c := &conn{b: b, raw: nc, nc: nc, listener: l, remote: nc.RemoteAddr(), mount: mount(l.Mount), maxPacket: maxPacketLimit}
	timeout := b.cfg.ConnectTimeout
	r := b.admit(c)
	if r != nil {
		if !b.mayTell(nc, r) {
			nc.Close()
			return
		}
		defer b.turnedAway(nc)
		c.refused, timeout = true, b.tellTime
	} else {
		defer b.leave(c)
		if !b.waitTurn(c.place.wait) || !b.greet(c) {
			nc.Close()
			return
		}
		defer b.dismiss(c)
	}
	before := time.Now().Add(timeout)
	_ = nc.SetDeadline(before)
	over, counter, err := l.openAside(c)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			counter = &b.stats.ConnectTimeout
		}
		if r == nil && counter != nil {
			counter.Add(1)
		}
		b.log.Debug("refusing a connection", "listener", l.URL, "remote", c.remote, "error", err)
		c.nc.Close()
		return
	}
	_ = nc.SetDeadline(time.Time{})
	if r = cmp.Or(r, over); r != nil {
		b.turnAway(c.nc, r)
		return
	}
	b.runOpen(c, before)
}

// runOpen serves a connection over which MQTT can be spoken, and that has to say CONNECT before some time.
func (b *Broker) runOpen(c *conn, before time.Time) {
	c.in.init(c.nc)
	c.seen()
	err := c.connect(before)
	if err == nil {
		c.mu.Lock()
		if !c.closing { // else somebody has ended the connection already, by a deadline
			c.nc.SetReadDeadline(time.Time{})
		}
		c.mu.Unlock()
		err = c.serve()
	}
	c.end(err)
}

// serve reads and handles packets until the connection ends, and says why.
func (c *conn) serve() error {
	for {
		data, err := c.in.fill(c)
		if len(data) == 0 && err != nil {
			if err == io.EOF {
				c.answerRest()
			}
			return err
		}
		now := time.Now()
		c.lastSeen.Store(int64(now.Sub(c.b.start)))
		n, err := c.handleBurst(data, now)
		if err != nil {
			return err
		}
		if err := c.in.keep(data[n:]); err != nil {
			return err
		}
		if c.own.eases {
			c.own.eases = false
			c.ease()
		}
	}
}

// handleBurst handles the whole packets at the start of data, in the connection's turn, and returns their length. Nothing is handled once
// the session has another connection.
func (c *conn) handleBurst(data []byte, now time.Time) (n int, err error) {
	c.sess.turn.Lock()
	defer c.sess.turn.Unlock()
	c.mu.Lock()
	if c.closing || c.sess.conn.Load() != c {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	c.dirty = true // what comes meanwhile goes out when u ends
	c.mu.Unlock()
	u := c.b.begin(now)
	defer u.end()
	u.self = c
	return c.handleAll(u, data)
}

// handleAll handles the whole packets at the start of data and returns their length.
func (c *conn) handleAll(u *burst, data []byte) (n int, err error) {
	for n < len(data) {
		head, body, err := header(data[n:])
		if err == errShort {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if c.version == v5 && head > 1+varintLen(body) { // [MQTT-1.5.5-1]
			return n, errOverlong
		}
		if head+body > c.b.cfg.MaxPacketSize { // [MQTT-3.2.2-15]
			return n, refuse(reasonPacketTooLarge, "%d bytes, at most %d are taken here", head+body, c.b.cfg.MaxPacketSize)
		}
		if len(data)-n < head+body {
			c.in.need = head + body
			return n, nil
		}
		packet := data[n : n+head+body]
		n += len(packet)
		if packet[0]>>4 == typePublish {
			err = c.onPublish(u, packet, packet[head:])
		} else {
			err = c.handle(u, packet[0], packet[head:])
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// handle handles one packet that is no PUBLISH. That none of them waits for the windows of QoS 1 and 2 carries out
// [MQTT-3.3.4-10] and [MQTT-4.9.0-3].
func (c *conn) handle(u *burst, first byte, body []byte) error {
	want := byte(0)
	switch kind := first >> 4; kind {
	case typePubrel, typeSubscribe, typeUnsubscribe:
		want = 2
	}
	if first&0xf != want { // [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
		return errMalformed
	}
	switch kind := first >> 4; kind {
	case typePuback, typePubrec, typePubrel, typePubcomp:
		a, err := decodeAck(c.version, body)
		if err != nil {
			return err
		}
		return c.onAck(u, kind, a)
	case typePingreq:
		if len(body) > 0 {
			return errMalformed
		}
		return c.control([]byte{typePingresp << 4, 0}) // [MQTT-3.12.4-1]
	case typeSubscribe:
		if err := c.waitForRoom(u, typeSubscribe); err != nil {
			return err
		}
		u.publish() // so that what was published before is retained before
		return c.onSubscribe(u, body)
	case typeUnsubscribe:
		if err := c.waitForRoom(u, typeSubscribe); err != nil {
			return err
		}
		return c.onUnsubscribe(u, body)
	case typeDisconnect:
		u.publish()
		return c.onDisconnect(body)
	case typeConnect:
		return refuse(reasonProtocolError, "a second CONNECT") // [MQTT-3.1.0-2]
	case typeAuth: // nor is one ever sent [MQTT-3.15.2-1] [MQTT-3.15.2-2] [MQTT-3.15.2-3] [MQTT-4.12.0-2] [MQTT-4.12.1-2]
		return refuse(reasonProtocolError, "AUTH without an authentication method")
	}
	return refuse(reasonProtocolError, "packet type %d from a client", first>>4)
}

func (c *conn) onDisconnect(body []byte) error {
	if c.version < v5 {
		c.own.bye = true
		return errBye
	}
	pk, err := c.b.decode(c.version, typeDisconnect<<4, body)
	if err != nil {
		return err
	}
	if pk.Properties.SessionExpiryIntervalFlag {
		c.own.expiry = &pk.Properties.SessionExpiryInterval
		c.sess.mu.Lock()
		was := c.sess.asked
		c.sess.mu.Unlock()
		if was == 0 && *c.own.expiry != 0 { // section 3.14.2.2.2
			c.own.expiry = nil
			return refuse(reasonProtocolError, "a session expiry in DISCONNECT where CONNECT had none")
		}
	}
	// The codec overlooks a reason without properties. With any but success the will is sent [MQTT-3.1.2-10]
	// [MQTT-3.14.4-3].
	c.own.bye = len(body) == 0 || Reason(body[0]) == reasonSuccess
	return errBye
}

// end takes leave of the client and of the session, after err ended the connection.
func (c *conn) end(err error) {
	var r *Refusal
	if errors.As(err, &r) {
		c.count(r)
		what := "closing a connection"
		if c.sess == nil {
			what = "refusing a client"
		}
		c.b.log.Debug(what, "client", c.who.ClientID, "remote", c.remote, "reason", r.Error())
		c.stop(r)
	}
	if c.sess != nil {
		c.b.detach(c)
	}
	c.mu.Lock()
	said := c.closing // there is something that the client should get to read
	c.closing = true
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	drained := c.drained
	if !c.writing && c.out == nil {
		c.closeDrainedLocked()
	} else if err == io.EOF { // the client may have closed its half only
		said = true
	}
	c.mu.Unlock()
	if said && err != errBye {
		c.linger(drained)
	} else if t, ok := c.nc.(*tlsConn); ok && err == errBye {
		_ = t.CloseWrite() // it may be gone
	}
	c.nc.Close()
	c.in.release()
	c.mu.Lock()
	if !c.writing { // else a writer finds out
		c.dropOutLocked()
	}
	c.mu.Unlock()
}

// count counts why a client is refused or disconnected. What is not here is counted where it is noticed.
func (c *conn) count(r *Refusal) {
	st := c.b.stats
	switch {
	case r.Code == reasonMalformed:
		st.Malformed.Add(1)
	case r.Code == reasonProtocolError:
		st.ProtocolErrors.Add(1)
	case r.Code == reasonPacketTooLarge:
		st.TooLarge.Add(1)
	case r == c.b.manySessions:
		st.RefusedSessions.Add(1)
	case c.sess == nil:
		st.RefusedLogins.Add(1)
	case r.Code == reasonReceiveMaximum:
		st.ReceiveMaximum.Add(1)
	case r.Code == reasonTopicAlias:
		st.TopicAlias.Add(1)
	case r.Code == reasonTopicInvalid:
		st.TopicInvalid.Add(1)
	}
}

// linger lets the client read our last packet: closing with unread input makes some systems throw it away.
func (c *conn) linger(drained chan struct{}) {
	timeout := c.b.cfg.CloseTimeout
	if l, ok := c.nc.(lingerer); ok {
		l.linger(drained, timeout)
		return
	}
	c.nc.SetWriteDeadline(time.Now().Add(timeout))
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-drained:
	case <-t.C:
		return
	}
	if half, ok := c.nc.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(timeout))
	var sink [512]byte
	for {
		if _, err := c.nc.Read(sink[:]); err != nil {
			return
		}
	}
}

// stop ends the connection from any goroutine. An MQTT 5 client that has had its CONNACK is told why [MQTT-3.14.0-1].
// Nothing is sent after that, and the connection is closed [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.13.2-1]. It reports
// whether nothing else had ended it before.
func (c *conn) stop(r *Refusal) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	if c.version == v5 && c.sess != nil { // [MQTT-4.13.1-1]; MQTT 3 servers have no DISCONNECT
		c.reserveLocked(64)
		c.out.b = c.appendDisconnect(c.out.b, r)
	}
	c.abandonLocked()
	switch {
	case c.writing:
	case c.out != nil:
		c.writing = true
		c.b.wg.Go(c.runWriter)
	default:
		c.closeDrainedLocked()
	}
	return true
}

// abandonLocked lets nothing more be appended, and wakes the reading goroutine, which then ends.
func (c *conn) abandonLocked() {
	c.closing = true
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	c.wakeLocked()
	if l, ok := c.nc.(lingerer); ok {
		drained := c.drained
		c.b.wg.Go(func() { l.linger(drained, c.b.cfg.CloseTimeout) })
		return
	}
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// lingerer is a connection with its own way of ending so that the peer gets to read our last packet, after
// which reading fails. It may be called more than once, and returns when the connection has ended.
type lingerer interface {
	linger(drained <-chan struct{}, timeout time.Duration)
}

func (c *conn) seen() { c.lastSeen.Store(int64(time.Since(c.b.start))) }

func (c *conn) closeDrainedLocked() {
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	select {
	case <-c.drained:
	default:
		close(c.drained)
	}
}

// control appends a short packet that the client asked for.
func (c *conn) control(packet []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return nil
	}
	if c.pendingLocked() > 4*c.b.cfg.MaxPendingBytes {
		c.b.stats.Unread.Add(1)
		return refuse(ReasonQuotaExceeded, "%d bytes wait for the client, which does not read them", c.pendingLocked())
	}
	c.reserveLocked(len(packet))
	c.out.b = append(c.out.b, packet...)
	c.touchLocked(nil)
	return nil
}
