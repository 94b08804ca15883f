package e2e

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// message is a message as a client got it.
type message struct {
	topic, payload string
	qos            byte
	retained       bool
}

// inbox remembers what a client receives.
type inbox struct {
	mu   sync.Mutex
	got  []message
	news chan struct{} // closed and replaced with each message
}

func newInbox() *inbox { return &inbox{news: make(chan struct{})} }

func (b *inbox) add(m message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, m)
	close(b.news)
	b.news = make(chan struct{})
}

// all returns what has come so far.
func (b *inbox) all() []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

// until waits until what has come is enough. enough may change what it is given.
func (b *inbox) until(t testing.TB, limit time.Duration, what string, enough func([]message) bool) []message {
	t.Helper()
	deadline := time.After(limit)
	for {
		b.mu.Lock()
		got, news := slices.Clone(b.got), b.news
		b.mu.Unlock()
		if enough(slices.Clone(got)) {
			return got
		}
		select {
		case <-news:
		case <-deadline:
			t.Fatalf("waited %v for %s; %s", limit, what, brief(got))
		}
	}
}

// wait waits for n messages.
func (b *inbox) wait(t testing.TB, n int) []message {
	t.Helper()
	return b.until(t, patience, fmt.Sprintf("%d messages", n), func(got []message) bool { return len(got) >= n })
}

// brief tells of messages what fits in a line or two.
func brief(got []message) string {
	text := fmt.Sprintf("%d came", len(got))
	for i, m := range got {
		if i < 3 || i >= len(got)-3 {
			text += fmt.Sprintf(" [%s %.20q QoS %d retained %v]", m.topic, m.payload, m.qos, m.retained)
		}
	}
	return text
}

// exactly waits for n messages and checks that there are no more: fence sends one that must be the next. It leaves
// out the fences of others, which may have been on their way when this client subscribed.
func (b *inbox) exactly(t testing.TB, n int, fence fence) []message {
	t.Helper()
	others := func(m message) bool { return isFence(m) && m.payload != fence.text }
	b.until(t, patience, fmt.Sprintf("%d messages", n), func(got []message) bool {
		return len(slices.DeleteFunc(got, others)) >= n
	})
	fence.send()
	got := b.until(t, patience, "the fence", func(got []message) bool {
		return slices.ContainsFunc(got, func(m message) bool { return m.payload == fence.text })
	})
	got = slices.DeleteFunc(got, others)
	if len(got) != n+1 || got[n].payload != fence.text {
		t.Fatalf("%d messages and the fence were to come; %s", n, brief(got))
	}
	return got[:n]
}

// fence is a message behind which nothing comes any more.
type fence struct {
	text string
	send func()
}

const fenceMark = "that is all: "

func isFence(m message) bool { return strings.HasPrefix(m.payload, fenceMark) }

var clientCount atomic.Int64

// clientID returns an ID that no other client has.
func clientID() string { return fmt.Sprintf("e2e-%d", clientCount.Add(1)) }

// client is an MQTT 3.1.1 or 3.1 client: paho.mqtt.golang.
type client struct {
	*inbox
	t       testing.TB
	mqtt    mqtt.Client
	id      string
	conn    net.Conn
	present bool // the broker had a session for it
}

// with changes how a client connects.
type with func(*mqtt.ClientOptions)

func named(id string) with { return func(o *mqtt.ClientOptions) { o.SetClientID(id) } }

func version31(o *mqtt.ClientOptions) { o.SetProtocolVersion(3) }

// keeping asks for a session that outlives the connection.
func keeping(o *mqtt.ClientOptions) { o.SetCleanSession(false) }

// will sets the client's will.
func will(topic, payload string, qos byte, retain bool) with {
	return func(o *mqtt.ClientOptions) { o.SetWill(topic, payload, qos, retain) }
}

// connect connects an MQTT 3.1.1 client to address. It says goodbye at the end of the test.
func connect(t testing.TB, address string, options ...with) *client {
	t.Helper()
	c := &client{inbox: newInbox(), t: t}
	o := mqtt.NewClientOptions().AddBroker("tcp://" + address).SetClientID(clientID()).SetProtocolVersion(4).
		SetAutoReconnect(false).SetOrderMatters(true).SetConnectTimeout(patience).SetWriteTimeout(patience)
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		c.add(message{m.Topic(), string(m.Payload()), m.Qos(), m.Retained()})
	})
	o.SetCustomOpenConnectionFn(func(u *url.URL, _ mqtt.ClientOptions) (net.Conn, error) {
		conn, err := net.DialTimeout("tcp", u.Host, patience)
		c.conn = conn
		return conn, err
	})
	for _, option := range options {
		option(o)
	}
	c.mqtt, c.id = mqtt.NewClient(o), o.ClientID
	token := c.mqtt.Connect().(*mqtt.ConnectToken)
	c.must("connect to "+address, token)
	c.present = token.SessionPresent()
	t.Cleanup(c.bye)
	return c
}

func (c *client) must(what string, token mqtt.Token) {
	c.t.Helper()
	if !token.WaitTimeout(patience) {
		c.t.Fatalf("%s: no answer in %v", what, patience)
	}
	if err := token.Error(); err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
}

// bye says goodbye, if that has not happened before.
func (c *client) bye() {
	const quiesce = 200 // ms
	if c.mqtt.IsConnected() {
		c.mqtt.Disconnect(quiesce)
	}
}

// die breaks the connection, as a device does that loses its power.
func (c *client) die() {
	if tcp, ok := c.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // at worst it is a FIN
	}
	_ = c.conn.Close() // it is meant to fail for the client
}

// subscribe subscribes and returns when the broker has answered.
func (c *client) subscribe(qos byte, filters ...string) {
	c.t.Helper()
	for _, f := range filters {
		token := c.mqtt.Subscribe(f, qos, nil).(*mqtt.SubscribeToken)
		c.must("subscribe to "+f, token)
		for _, granted := range token.Result() { // one, under a name that paho has changed where it is shared
			if granted != qos {
				c.t.Fatalf("subscribe to %s: granted QoS %d, want %d", f, granted, qos)
			}
		}
	}
}

func (c *client) unsubscribe(filter string) {
	c.t.Helper()
	c.must("unsubscribe from "+filter, c.mqtt.Unsubscribe(filter))
}

// publish publishes and returns when the broker has acknowledged.
func (c *client) publish(topic, payload string, qos byte) {
	c.t.Helper()
	c.must("publish to "+topic, c.mqtt.Publish(topic, qos, false, payload))
}

func (c *client) retain(topic, payload string, qos byte) {
	c.t.Helper()
	c.must("publish retained to "+topic, c.mqtt.Publish(topic, qos, true, payload))
}

// series publishes n numbered messages without waiting for each acknowledgement, then waits for all.
func (c *client) series(topic string, qos byte, n int) {
	c.t.Helper()
	tokens := make([]mqtt.Token, n)
	for i := range tokens {
		tokens[i] = c.mqtt.Publish(topic, qos, false, numbered(i))
	}
	for i, token := range tokens {
		c.must(fmt.Sprintf("publish number %d to %s", i, topic), token)
	}
}

// fence returns a fence that the client publishes.
func (c *client) fence(topic string, qos byte) fence {
	text := fenceMark + clientID()
	return fence{text, func() {
		c.t.Helper()
		c.publish(topic, text, qos)
	}}
}

func numbered(i int) string { return fmt.Sprintf("n%d", i) }

// inOrder checks that numbered messages are complete and in order.
func inOrder(t testing.TB, got []message) {
	t.Helper()
	for i, m := range got {
		if m.payload != numbered(i) {
			t.Fatalf("message %d of %s at QoS %d is %q, want %q; around it %v", i, m.topic, m.qos, m.payload, numbered(i),
				got[max(0, i-3):min(len(got), i+4)])
		}
	}
}

// client5 is an MQTT 5 client: paho.golang.
type client5 struct {
	*inbox
	t    testing.TB
	mqtt *paho.Client
	said chan byte // why the broker has ended the connection
}

// connect5 connects an MQTT 5 client. It says goodbye at the end of the test.
func connect5(t testing.TB, address string, options ...func(*paho.Connect)) *client5 {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	return connect5Over(t, conn, options...)
}

// connect5Over connects an MQTT 5 client over a connection to the broker.
func connect5Over(t testing.TB, conn net.Conn, options ...func(*paho.Connect)) *client5 {
	t.Helper()
	if _, ok := conn.(*net.TCPConn); !ok { // paho writes a packet in pieces, and others would come in between
		conn = packets.NewThreadSafeConn(conn)
	}
	c := &client5{inbox: newInbox(), t: t, said: make(chan byte, 1)}
	c.mqtt = paho.NewClient(paho.ClientConfig{Conn: conn, PacketTimeout: patience,
		OnServerDisconnect: func(d *paho.Disconnect) { c.said <- d.ReasonCode },
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			c.add(message{r.Packet.Topic, string(r.Packet.Payload), r.Packet.QoS, r.Packet.Retain})
			return true, nil
		}}})
	cp := &paho.Connect{ClientID: clientID(), CleanStart: true, KeepAlive: 30,
		Properties: &paho.ConnectProperties{RequestProblemInfo: true}} // else SUBACK does not say what it promises
	for _, option := range options {
		option(cp)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := c.mqtt.Connect(ctx, cp); err != nil {
		conn.Close()
		t.Fatalf("connect to %v: %v", conn.RemoteAddr(), err)
	}
	t.Cleanup(func() { _ = c.mqtt.Disconnect(&paho.Disconnect{}) }) // it may be gone
	return c
}

// expectEnd waits until the broker has ended the connection for a reason.
func (c *client5) expectEnd(want byte) {
	c.t.Helper()
	select {
	case code := <-c.said:
		if code != want {
			c.t.Errorf("DISCONNECT 0x%02x, want 0x%02x", code, want)
		}
	case <-time.After(patience):
		c.t.Fatal("the client is still connected")
	}
}

func (c *client5) subscribe(qos byte, filters ...string) {
	c.t.Helper()
	c.promised(qos, filters...)
}

// promised subscribes, and reports whether the SUBACK is a promise for the whole swarm.
func (c *client5) promised(qos byte, filters ...string) bool {
	c.t.Helper()
	s := &paho.Subscribe{}
	for _, f := range filters {
		s.Subscriptions = append(s.Subscriptions, paho.SubscribeOptions{Topic: f, QoS: qos})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := c.mqtt.Subscribe(ctx, s)
	if err != nil {
		c.t.Fatalf("subscribe to %v: %v", filters, err)
	}
	return ack.Properties == nil || ack.Properties.User.Get("promise") != "local"
}

func (c *client5) publish(topic, payload string, qos byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := c.mqtt.Publish(ctx, &paho.Publish{Topic: topic, QoS: qos, Payload: []byte(payload)}); err != nil {
		c.t.Fatalf("publish to %s: %v", topic, err)
	}
}
