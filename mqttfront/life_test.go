package mqttfront_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/eclipse/paho.golang/paho"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSlowSubscriber: one that does not read costs itself, QoS 0 first, and holds up nobody.
func TestSlowSubscriber(t *testing.T) {
	b, _, addr := start(t, func(c *mqttfront.Config) {
		c.MaxPendingBytes, c.MaxQueuedMessages, c.MaxQueuedBytes = 64<<10, 200, 1<<30
	})
	slow, _ := connect(t, addr, connectOpts{id: "slow"})
	slow.nc.(*net.TCPConn).SetReadBuffer(256 << 10)
	slow.subscribe(filter{"a", 1})
	quick, _ := connect(t, addr, connectOpts{id: "quick"})
	quick.subscribe(filter{"a", 1})
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	payload := strings.Repeat("x", 20<<10)
	const n = 600
	for range n {
		pub.send(pub.publishPacket(0, 0, "a", payload))
		pub.publish("a", payload)
		quick.expect(packets.Publish)
		quick.ack(packets.Puback, quick.expect(packets.Publish).PacketID)
	}
	st := b.Stats()
	if st.DropSlow.Load() == 0 || st.DropQueue.Load() == 0 {
		t.Errorf("dropped %d at QoS 0, %d at QoS 1", st.DropSlow.Load(), st.DropQueue.Load())
	}
	// what was not dropped comes in order, when it reads again
	got := uint64(0)
	for got < n-st.DropQueue.Load() {
		if pk := slow.expect(packets.Publish); pk.FixedHeader.Qos == 1 {
			got++
			slow.ack(packets.Puback, pk.PacketID)
		}
	}
	slow.silent()
}

// TestAcksPileUp: a client that only writes is thrown out before what it is owed fills the memory.
func TestAcksPileUp(t *testing.T) {
	_, _, addr := start(t, func(c *mqttfront.Config) { c.MaxPendingBytes = 1 << 10 })
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.nc.(*net.TCPConn).SetReadBuffer(64 << 10)
	pings := []byte(strings.Repeat("\xc0\x00", 100000))
	for {
		c.nc.SetWriteDeadline(time.Now().Add(patience))
		if _, err := c.nc.Write(pings); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("it hangs on")
			}
			return
		}
	}
}

// TestLargePayload has packets larger than any buffer, in both protocols.
func TestLargePayload(t *testing.T) {
	_, _, addr := start(t, nil)
	for _, version := range []byte{4, 5} {
		pub, _ := connect(t, addr, connectOpts{id: "pub", version: version})
		sub, _ := connect(t, addr, connectOpts{id: "sub", version: version})
		sub.subscribe(filter{"a", 2})
		for _, size := range []int{65529, 65530, 65536, 131072, 1 << 20, 5<<20 + 1} {
			payload := strings.Repeat("0123456789", size/10+1)[:size]
			for qos := range byte(2) {
				go pub.nc.Write(append(pub.publishPacket(qos<<1, 1, "a", payload), pub.publishPacket(0, 0, "a", "behind")...))
				if pk := sub.expect(packets.Publish); string(pk.Payload) != payload {
					t.Fatalf("%d bytes came, want %d, or they differ", len(pk.Payload), size)
				}
				sub.expectPublish("behind")
				if qos == 1 {
					pub.expect(packets.Puback)
				}
			}
		}
		pub.silent()
	}
}

// stutter is a listener whose Accept fails at first.
type stutter struct {
	net.Listener
	left atomic.Int32
}

func (s *stutter) Accept() (net.Conn, error) {
	if s.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return s.Listener.Accept()
}

func TestAcceptErrors(t *testing.T) {
	b, _, _ := start(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stutter{Listener: l}
	s.left.Store(3)
	if err := b.Serve(s, mqttfront.ListenerConfig{URL: "test"}); err != nil {
		t.Fatal(err)
	}
	connect(t, l.Addr().String(), connectOpts{id: "c"})
	if n := b.Stats().AcceptErrors.Load(); n != 3 {
		t.Errorf("%d counted", n)
	}
}

func TestListenErrors(t *testing.T) {
	b, _, addr := start(t, nil)
	for _, u := range []string{"tcp://" + addr, "udp://127.0.0.1:0", "tcp://127.0.0.1", "://", "tcp://127.0.0.1:99999"} {
		if _, err := b.Listen(mqttfront.ListenerConfig{URL: u}); err == nil {
			t.Errorf("%q is listened at", u)
		} else if !strings.Contains(err.Error(), "MQTT listener") {
			t.Errorf("%q: %v does not say what failed", u, err)
		}
	}
}

func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*mqttfront.Config){
		"MaxConnections": func(c *mqttfront.Config) { c.MaxConnections = 0 },
		"ReceiveMaximum": func(c *mqttfront.Config) { c.ReceiveMaximum = 70000 },
		"MaxPacketSize":  func(c *mqttfront.Config) { c.MaxPacketSize = 1 << 30 },
		"MaxKeepAlive":   func(c *mqttfront.Config) { c.MaxKeepAlive = 24 * time.Hour },
	} {
		cfg := mqttfront.DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := mqttfront.New(cfg, newLoner(), nil, storetest.NewSessions(), nil); err == nil {
			t.Errorf("%s: New takes it", name)
		}
	}
}

func dialWS(t *testing.T, addr, path string, o *websocket.DialOptions) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, "ws://"+addr+path, o)
	if err != nil {
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
		return nil, err
	}
	t.Cleanup(func() { ws.CloseNow() })
	if ws.Subprotocol() != "mqtt" {
		return nil, fmt.Errorf("subprotocol %q", ws.Subprotocol())
	}
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary), nil
}

func TestWebSocket(t *testing.T) { // [MQTT-6.0.0-1] [MQTT-6.0.0-2] [MQTT-6.0.0-3] [MQTT-6.0.0-4]
	b, _, tcp := start(t, nil)
	a, err := b.Listen(mqttfront.ListenerConfig{URL: "ws://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, path := range []string{"/mqtt", "/"} {
		nc, err := dialWS(t, a.String(), path, &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPClient: client})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		ws := &raw{t: t, nc: nc, br: newReader(nc), version: 5}
		// packets may be cut anywhere
		all := append(connectOpts{version: 5, id: "ws"}.encode(), ws.subscribePacket(1, nil, filter{"a", 1})...)
		ws.send(all[:5])
		ws.send(all[5 : len(all)-3])
		ws.send(all[len(all)-3:])
		ws.expect(packets.Connack)
		ws.expect(packets.Suback)
		pub, _ := connect(t, tcp, connectOpts{id: "pub"})
		payload := strings.Repeat("0123456789", 30000)
		pub.publish("a", payload)
		ws.ack(packets.Puback, ws.expectPublish(payload).PacketID)
		ws.send(ws.publishPacket(2, 3, "a", payload))
		ws.expectPublish(payload)
		ws.expect(packets.Puback)
		for i := range 300 {
			ws.send(ws.publishPacket(0, 0, "a", fmt.Sprint(i)))
		}
		for i := range 300 {
			ws.expectPublish(fmt.Sprint(i))
		}
		ws.bye()
	}
	if _, err := dialWS(t, a.String(), "/mqtt", &websocket.DialOptions{HTTPClient: client}); err == nil {
		t.Error("without a subprotocol")
	}
	if _, err := dialWS(t, a.String(), "/other", &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPClient: client}); err == nil {
		t.Error("at another path")
	}
	evil := http.Header{"Origin": {"http://evil.example"}}
	if _, err := dialWS(t, a.String(), "/mqtt", &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPHeader: evil, HTTPClient: client}); err == nil {
		t.Error("from another origin")
	}
	// one that is there when the broker drains
	nc, err := dialWS(t, a.String(), "/mqtt", &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	ws := &raw{t: t, nc: nc, br: newReader(nc), version: 5}
	ws.send(connectOpts{version: 5, id: "ws"}.encode())
	ws.expect(packets.Connack)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go b.Drain(ctx)
	ws.expectDisconnect(0x8b)
}

func TestSys(t *testing.T) {
	_, _, addr := start(t, func(c *mqttfront.Config) { c.SysInterval, c.Version = time.Second, "mozzie test" })
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.subscribe(filter{"$SYS/broker/version", 0}, filter{"$SYS/broker/clients/connected", 0}, filter{"$SYS/broker/messages/+", 0})
	seen := map[string]string{}
	for len(seen) < 4 {
		pk := c.expect(packets.Publish)
		seen[pk.TopicName] = string(pk.Payload)
	}
	if seen["$SYS/broker/version"] != "mozzie test" || seen["$SYS/broker/clients/connected"] != "1" {
		t.Errorf("%v", seen)
	}
}

// TestSysRetained: the count of retained messages is that of all that a client could be sent, as mosquitto's.
func TestSysRetained(t *testing.T) {
	_, _, addr := start(t, func(c *mqttfront.Config) { c.SysInterval = time.Second })
	c, _ := connect(t, addr, connectOpts{id: "c"})
	for i, topic := range []string{"a", "b", "$local/c"} {
		c.send(c.publishPacket(3, uint16(i+1), topic, "v"))
		c.expect(packets.Puback)
	}
	all := map[string]bool{}
	c.subscribe(filter{"#", 0}, filter{"$SYS/#", 0}, filter{"$local/#", 0})
	for {
		pk := c.expect(packets.Publish)
		all[pk.TopicName] = true
		if pk.TopicName == "$SYS/broker/retained messages/count" && string(pk.Payload) == fmt.Sprint(len(all)) {
			return
		}
	}
}

// receipt counts.
type receipt struct{ n, refused atomic.Int32 }

func (r *receipt) Done()                { r.n.Add(1) }
func (r *receipt) Mark() mqttfront.Mark { return mqttfront.Mark{} }

// More implements mqttfront.Receipt.
func (r *receipt) More() { r.n.Add(-1) }

func (r *receipt) Refused(mqttfront.Group) { r.refused.Add(1) }

// TestReceiptsOfSpilled: of a delivery to two sessions that waits on the disk for both, Done comes when the second is through.
func TestReceiptsOfSpilled(t *testing.T) {
	const n = 5000
	b, l, addr := start(t, nil)
	o := []connectOpts{{id: "one", props: sessionExpiry(60), resume: true}, {id: "two", props: sessionExpiry(60), resume: true}}
	for _, o := range o {
		c, _ := connect(t, addr, o)
		c.subscribe(filter{"a", 1})
		c.bye()
	}
	eventually(t, "they are offline", func() bool { return b.Stats().Offline.Load() == 2 })
	all := make([]*markedReceipt, n)
	l.mu.Lock()
	l.receipts = map[mqttfront.Mark]mqttfront.Receipt{}
	for i := range all {
		all[i] = &markedReceipt{mark: mqttfront.Mark{Epoch: 1, Seq: uint64(i + 1)}} //nolint:gosec // small
		l.receipts[all[i].mark] = all[i]
	}
	l.mu.Unlock()
	for i := range all {
		b.Deliver([]mqttfront.Delivery{{Msg: &proto.Message{Topic: "a", Payload: []byte(fmt.Sprint(i)), QoS: 1}, Plain: true, Receipt: all[i]}})
	}
	for which, o := range o {
		c, _ := connect(t, addr, o)
		for i := range all {
			c.ack(packets.Puback, c.expectPublish(fmt.Sprint(i)).PacketID)
		}
		c.bye()
		eventually(t, "the acknowledgements are read", func() bool { return b.Stats().Offline.Load() == 2 })
		for i, r := range all {
			if done := r.n.Load() == 1; done != (which == 1) {
				t.Fatalf("message %d, which %d of two sessions have had, is done: %v (%d)", i, which+1, done, r.n.Load())
			}
		}
	}
}

// markedReceipt is a receipt of a message with an identity.
type markedReceipt struct {
	receipt
	mark mqttfront.Mark
}

func (r *markedReceipt) Mark() mqttfront.Mark { return r.mark }

// TestMeantElsewhere: what was meant for a session at another node comes to that one alone, and not where it would be at QoS 0: it may
// have had it.
func TestMeantElsewhere(t *testing.T) {
	b, _, addr := start(t, nil)
	one, _ := connect(t, addr, connectOpts{id: "one"})
	two, _ := connect(t, addr, connectOpts{id: "two"})
	for _, c := range []*raw{one, two} {
		c.subscribe(filter{"a", 1})
		c.subscribe(filter{"zero", 0})
	}
	for i, m := range []*proto.Message{{Topic: "a"}, {Topic: "zero", QoS: 2}, {Topic: "a", QoS: 1}} {
		m.Payload = []byte(fmt.Sprint(i))
		r := new(receipt)
		b.Deliver([]mqttfront.Delivery{{Msg: m, Sessions: []mqttfront.ForSession{{Key: "\x00one"}}, Receipt: r}})
		if done := r.n.Load() == 1; done != (i < 2) {
			t.Errorf("message %d is done: %v", i, done)
		}
	}
	one.expectPublish("2")
	two.silent()
}

// TestReceipts: Done comes once, when the last client is through.
func TestReceipts(t *testing.T) {
	b, _, addr := start(t, nil)
	msg := &proto.Message{Topic: "a", Payload: []byte("v"), QoS: 2}
	deliver := func() *receipt {
		r := new(receipt)
		b.Deliver([]mqttfront.Delivery{{Msg: msg, Plain: true, Receipt: r, Groups: []mqttfront.Group{{Name: "g", Filter: "a"}}}})
		return r
	}
	if r := deliver(); r.n.Load() != 1 || r.refused.Load() != 1 {
		t.Error("nobody is there: it is done at once, and refused for the group")
	}
	zero, _ := connect(t, addr, connectOpts{id: "zero"})
	zero.subscribe(filter{"a", 0})
	if r := deliver(); r.n.Load() != 1 {
		t.Error("QoS 0: it is done at once")
	}
	zero.expectPublish("v")
	one, _ := connect(t, addr, connectOpts{id: "one"})
	one.subscribe(filter{"a", 1})
	two, _ := connect(t, addr, connectOpts{id: "two"})
	two.subscribe(filter{"a", 2})
	member, _ := connect(t, addr, connectOpts{id: "member", props: sessionExpiry(60)})
	member.subscribe(filter{"$share/g/a", 1})
	r := deliver()
	undone := func(when string) {
		t.Helper()
		if r.n.Load() != 0 {
			t.Fatalf("done when %s", when)
		}
	}
	one.ack(packets.Puback, one.expectPublish("v").PacketID)
	one.silent()
	undone("one acknowledged")
	id := two.expectPublish("v").PacketID
	two.ack(packets.Pubrec, id)
	two.expect(packets.Pubrel)
	undone("two has it")
	two.ack(packets.Pubcomp, id)
	two.silent()
	undone("two is through")
	member.expectPublish("v")
	member.kill()
	eventually(t, "away", func() bool { return b.Stats().Offline.Load() == 1 })
	undone("the member is away")
	connect(t, addr, connectOpts{id: "member"}) // a clean start drops what was there
	eventually(t, "done", func() bool { return r.n.Load() == 1 })
	r = deliver()
	two.kill()
	one.kill()
	eventually(t, "done with the sessions", func() bool { return r.n.Load() == 1 })
}

// TestPaho has a widely used client work with the broker.
func TestPaho(t *testing.T) {
	_, _, addr := start(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var mu sync.Mutex
	var got []string
	arrived := make(chan struct{}, 100)
	newClient := func(id string) *paho.Client {
		c := paho.NewClient(paho.ClientConfig{ClientID: id, Conn: dial(t, addr),
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
				mu.Lock()
				got = append(got, string(r.Packet.Payload))
				mu.Unlock()
				arrived <- struct{}{}
				return true, nil
			}}})
		if _, err := c.Connect(ctx, &paho.Connect{ClientID: id, CleanStart: true, KeepAlive: 30}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	sub, pub := newClient("sub"), newClient("pub")
	if _, err := sub.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "a/#", QoS: 2}}}); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		if _, err := pub.Publish(ctx, &paho.Publish{Topic: "a/b", QoS: byte(i % 3), Payload: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			t.Fatalf("message %d does not come", i)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range got {
		if got[i] != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, got[i])
		}
	}
	sub.Disconnect(&paho.Disconnect{})
	pub.Disconnect(&paho.Disconnect{})
}
