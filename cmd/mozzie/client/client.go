// Package client is the small MQTT client behind mozzie pub, sub, demo and bench: one connection, MQTT 3.1, 3.1.1
// and 5, all three QoS, with mochi's codec. It does not connect again by itself and keeps nothing: a session
// lives at the broker.
//
// What it promises: a message is handed to OnMessage before it is acknowledged, so that what was not handled
// comes again. QoS 2 messages are handed over once, unless the connection breaks in between.
//
// Goroutines: runRead reads from the connection until it is closed, and calls OnMessage; runPing keeps it alive.
// Both end with Close.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Versions of the protocol, as CONNECT has them.
const (
	Version31  = 3
	Version311 = 4
	Version5   = 5
)

// NeverExpires is a session expiry interval without an end.
const NeverExpires = 0xFFFFFFFF

// Properties are MQTT 5 properties, as the codec has them.
type Properties = packets.Properties

// Message is an application message.
type Message struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Dup        bool   // received: it may have been received before
	PacketID   uint16 // received with QoS above 0
	Properties Properties
}

// Options says how to connect.
type Options struct {
	Address       string      // host:port, or the absolute path of a Unix socket
	TLS           *tls.Config // nil: TLS is not spoken; without a ServerName, the broker is to be the host of Address
	Version       byte
	ClientID      string
	Username      string // "": none
	Password      []byte // nil: none
	Clean         bool   // start without the session of before
	KeepAlive     uint16 // s; 0: none
	SessionExpiry uint32 // s; MQTT 5
	Will          *Message
	Properties    Properties // further ones for CONNECT
	// MaxInflight bounds the QoS 1 and 2 messages on their way to the broker, beside the broker's own
	// Receive Maximum.
	MaxInflight int
	// OnMessage is called with each message, one after another, from runRead; it must not wait for an answer
	// of the broker. Where it returns false, that message is the last: it is acknowledged and nothing more is
	// read. nil drops what comes.
	OnMessage func(Message) (more bool)
}

// handshakeTimeout is for the TCP connection and the CONNACK; writeTimeout for a broker that does not read.
const (
	handshakeTimeout = 15 * time.Second
	writeTimeout     = 30 * time.Second
)

// Client is a connection to a broker. Its methods may be called from any goroutine.
type Client struct {
	options Options
	conn    net.Conn
	reader  *bufio.Reader
	session bool          // the broker had a session
	done    chan struct{} // closed when the connection is over
	window  chan struct{} // holds a token for each unacknowledged message of ours
	running sync.WaitGroup

	closeOnce sync.Once
	err       error // why it is over; read after done

	writeMu sync.Mutex
	buf     bytes.Buffer

	mu      sync.Mutex
	nextID  uint16
	waiting map[uint16]*exchange

	// For runRead alone.
	received map[uint16]bool // QoS 2 messages that were handed over and whose PUBREL is to come
	aliases  map[uint16]string
}

// exchange waits for the broker's answer to a packet.
type exchange struct {
	message bool // it is a PUBLISH and counts for the window
	answer  func(packets.Packet, error)
}

// Connect connects and returns when the broker has accepted. A *RefusedError says that it did not.
func Connect(ctx context.Context, o Options) (*Client, error) {
	c, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	c.running.Go(c.runRead)
	if c.options.KeepAlive > 0 {
		c.running.Go(c.runPing)
	}
	return c, nil
}

// dial makes the connection that MQTT is spoken over.
func (o *Options) dial(ctx context.Context) (net.Conn, error) {
	network := "tcp"
	if strings.HasPrefix(o.Address, "/") {
		network = "unix"
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, o.Address)
	if err != nil || o.TLS == nil {
		return conn, err
	}
	secure := o.TLS
	if secure.ServerName == "" {
		secure = secure.Clone()
		secure.ServerName, _, _ = net.SplitHostPort(o.Address)
	}
	over := tls.Client(conn, secure)
	if err := over.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return over, nil
}

// open makes a connection, on which nothing runs yet.
func open(ctx context.Context, o Options) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := o.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the broker at %s: %w", o.Address, cause(err))
	}
	c := &Client{
		options:  o,
		conn:     conn,
		reader:   bufio.NewReader(conn),
		done:     make(chan struct{}),
		waiting:  map[uint16]*exchange{},
		received: map[uint16]bool{},
		aliases:  map[uint16]string{},
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = c.handshake()
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		var refused *RefusedError
		if errors.As(err, &refused) {
			return nil, err
		}
		return nil, fmt.Errorf("connect to the broker at %s: %w", o.Address, cause(err))
	}
	return c, nil
}

// cause strips what the caller says better itself.
func cause(err error) error {
	var unknown *net.DNSError
	if errors.As(err, &unknown) && unknown.IsNotFound {
		return errors.New("there is no host of that name")
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

// handshake sends CONNECT and takes what CONNACK says.
func (c *Client) handshake() error {
	if err := c.write(c.connectPacket()); err != nil {
		return err
	}
	pk, err := c.read()
	if err != nil {
		return err
	}
	if pk.FixedHeader.Type != packets.Connack {
		return fmt.Errorf("the broker answers CONNECT with %s", packets.PacketNames[pk.FixedHeader.Type])
	}
	if pk.ReasonCode != 0 {
		return c.refused("connection", pk.ReasonCode, pk.Properties)
	}
	c.session = pk.SessionPresent
	if pk.Properties.ServerKeepAliveFlag {
		c.options.KeepAlive = pk.Properties.ServerKeepAlive
	}
	if pk.Properties.AssignedClientID != "" {
		c.options.ClientID = pk.Properties.AssignedClientID
	}
	n := max(1, c.options.MaxInflight)
	if most := int(pk.Properties.ReceiveMaximum); most > 0 {
		n = min(n, most)
	}
	c.window = make(chan struct{}, n)
	return nil
}

func (c *Client) connectPacket() packets.Packet {
	o := &c.options
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, Properties: o.Properties}
	pk.Connect = packets.ConnectParams{
		ProtocolName:     []byte("MQTT"),
		ClientIdentifier: o.ClientID,
		Keepalive:        o.KeepAlive,
		Clean:            o.Clean,
		Username:         []byte(o.Username),
		UsernameFlag:     o.Username != "",
		Password:         o.Password,
		PasswordFlag:     o.Password != nil,
	}
	if o.Version == Version31 {
		pk.Connect.ProtocolName = []byte("MQIsdp")
	}
	if o.SessionExpiry > 0 && !pk.Properties.SessionExpiryIntervalFlag {
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = o.SessionExpiry, true
	}
	if w := o.Will; w != nil {
		pk.Connect.WillFlag = true
		pk.Connect.WillTopic, pk.Connect.WillPayload = w.Topic, w.Payload
		pk.Connect.WillQos, pk.Connect.WillRetain = w.QoS, w.Retain
		pk.Connect.WillProperties = w.Properties
	}
	return pk
}

// ClientID returns the client ID, which the broker may have assigned.
func (c *Client) ClientID() string { return c.options.ClientID }

// SessionPresent reports whether the broker had a session of this client.
func (c *Client) SessionPresent() bool { return c.session }

// Done is closed when the connection is over: lost, closed, or with the last message.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the connection is over, after Done. It is nil after Close, Disconnect, and the last message.
func (c *Client) Err() error { return c.err }

// Close drops the connection, so that the broker sends the will. It waits for the goroutines, and so must not
// be called from OnMessage.
func (c *Client) Close() {
	c.end(nil)
	c.conn.Close()
	c.running.Wait()
}

// Disconnect says goodbye and closes the connection, when the broker has hung up too or a second later: to
// close with something unread could lose what was sent last.
func (c *Client) Disconnect() error {
	err := c.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
	c.end(nil)
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite()
		defer time.AfterFunc(time.Second, func() { c.conn.Close() }).Stop()
		c.running.Wait()
	}
	c.Close()
	return err
}

// end notes why the connection is over and tells everyone who waits.
func (c *Client) end(err error) {
	c.closeOnce.Do(func() {
		c.err = err
		close(c.done)
		if err == nil {
			err = errors.New("the connection is closed")
		}
		c.mu.Lock()
		waiting := c.waiting
		c.waiting = nil
		c.mu.Unlock()
		for _, x := range waiting {
			x.answer(packets.Packet{}, err)
		}
	})
}

// lost ends the connection with an error and hangs up.
func (c *Client) lost(err error) {
	c.end(err)
	c.conn.Close()
}

func (c *Client) runPing() {
	every := time.Duration(c.options.KeepAlive) * time.Second
	t := time.NewTicker(max(every/2, 500*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-t.C:
			if err := c.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}}); err != nil {
				c.lost(err)
				return
			}
		}
	}
}

// RefusedError is a broker's refusal.
type RefusedError struct {
	What   string // what it refuses; "": to go on, and ends the connection
	Code   byte   // MQTT 5: the reason code, 0x80 and above; MQTT 3: the return code
	Reason string // what the code means
	Text   string // what the broker says beyond that, or ""
}

func (e *RefusedError) Error() string {
	text := ""
	if e.Text != "" {
		text = ": " + e.Text
	}
	if e.What == "" {
		return fmt.Sprintf("the broker ended the connection: %s (code %d)%s", e.Reason, e.Code, text)
	}
	return fmt.Sprintf("the broker refuses the %s: %s (code %d)%s", e.What, e.Reason, e.Code, text)
}
