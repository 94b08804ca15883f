package mqttfront_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// TestTurnedAway: who is over a limit on connections is told so in his version of MQTT.
func TestTurnedAway(t *testing.T) {
	for name, limit := range map[string]struct {
		set     func(*mqttfront.Config)
		counter func(*mqttfront.Stats) *atomic.Uint64
	}{
		"of the node": {func(c *mqttfront.Config) { c.MaxConnections = 1 }, func(s *mqttfront.Stats) *atomic.Uint64 { return &s.RefusedConns }},
		"of the host": {func(c *mqttfront.Config) { c.MaxConnectionsPerAddress = 1 }, func(s *mqttfront.Stats) *atomic.Uint64 { return &s.RefusedOfAddress }},
	} {
		t.Run(name, func(t *testing.T) {
			b, _, addr := start(t, limit.set)
			first, _ := connect(t, addr, connectOpts{id: "first"})
			want := uint64(0)
			for version, code := range map[byte]byte{3: 3, 4: 3, 5: 0x97} {
				r := newRaw(t, addr, version)
				all := connectOpts{version: version, id: "c", will: &willOpts{topic: "w", payload: strings.Repeat("x", 3000)}}.encode()
				for _, part := range [][]byte{all[:1], all[1:6], all[6:12], all[12:]} {
					r.send(part)
				}
				if ack := r.expect(packets.Connack); ack.ReasonCode != code || version == 5 && !strings.Contains(ack.Properties.ReasonString, "at most 1 connections") {
					t.Errorf("MQTT %d: CONNACK 0x%02x %q, want 0x%02x", version, ack.ReasonCode, ack.Properties.ReasonString, code)
				}
				r.expectEnd()
				want++
			}
			for _, rubbish := range []string{"GET / HTTP/1.1\r\n\r\n", "\x10\xff\xff\xff\xff\xff", "\x10\x0c\x00\x04MQTP\x05", "\x10\x40" + strings.Repeat("\x00\x20", 32)} {
				r := newRaw(t, addr, 5)
				r.send([]byte(rubbish))
				r.expectEnd()
				want++
			}
			ws, err := b.Listen(mqttfront.ListenerConfig{URL: "ws://127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			nc, err := dialWS(t, ws.String(), "/mqtt", &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPClient: client})
			if err != nil {
				t.Fatal(err)
			}
			r := &raw{t: t, nc: nc, br: newReader(nc), version: 5}
			r.send(connectOpts{version: 5, id: "c"}.encode())
			if ack := r.expect(packets.Connack); ack.ReasonCode != 0x97 {
				t.Errorf("WebSocket: CONNACK 0x%02x", ack.ReasonCode)
			}
			r.expectEnd()
			want++
			if n := limit.counter(b.Stats()).Load(); n != want {
				t.Errorf("counted %d, want %d", n, want)
			}
			if n := b.Stats().Connections.Load(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
			first.silent()
			first.bye()
			eventually(t, "room again", func() bool { return b.Stats().Connections.Load() == 0 })
			connect(t, addr, connectOpts{id: "again"})
		})
	}
}

// TestTurnedAwayFlood: a flood of connections over the limit that say nothing occupies a few goroutines for a while; the
// others are closed at once. Close does not wait for them.
func TestTurnedAwayFlood(t *testing.T) {
	const flood = 300
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxConnections = 1 })
	b.SetTellTime(time.Hour)
	connect(t, addr, connectOpts{id: "first"})
	var all []net.Conn
	for range flood {
		all = append(all, dial(t, addr))
	}
	var closed atomic.Int64
	var ended sync.WaitGroup
	for _, nc := range all {
		ended.Go(func() {
			nc.SetReadDeadline(time.Now().Add(2 * patience))
			if _, err := nc.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a connection that says nothing stays open: %v", err)
			}
			closed.Add(1)
		})
	}
	const told = mqttfront.MaxTurnedAway
	eventually(t, "all but those who are told why are closed", func() bool { return closed.Load() == flood-told })
	if n := b.Stats().RefusedConns.Load(); n != flood {
		t.Errorf("%d are counted", n)
	}
	done := make(chan struct{})
	go func() { b.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("Close waits")
	}
	ended.Wait()
}

// TestLocalRetainedLimits: what is retained below $local has limits, in number and in bytes. A message that there is
// no room for is refused where its publisher can be told; else it goes to those who are there.
func TestLocalRetainedLimits(t *testing.T) {
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxRetainedMessages, c.MaxRetainedBytes = 2, 100 })
	five, _ := connect(t, addr, connectOpts{id: "5"})
	four, _ := connect(t, addr, connectOpts{id: "4", version: 4})
	sub, _ := connect(t, addr, connectOpts{id: "sub"})
	sub.subscribe(filter{"$local/#", 0})
	const retain, qos1, qos2 = 1, 2, 4
	expect := func(want ...string) {
		t.Helper()
		late, _ := connect(t, addr, connectOpts{id: "late"})
		late.send(late.subscribePacket(1, nil, filter{"$local/#", 0}))
		late.expect(packets.Suback)
		kept := map[string]bool{}
		for range want {
			pk := late.expect(packets.Publish)
			kept[pk.TopicName+" "+string(pk.Payload)] = true
		}
		for _, w := range want {
			if !kept[w] {
				t.Errorf("retained are %v, want %q", kept, w)
			}
		}
		late.silent()
		late.bye()
		if n := b.Stats().LocalRetained.Load(); n != int64(len(want)) {
			t.Errorf("%d are counted, want %d", n, len(want))
		}
	}
	publish := func(r *raw, flags byte, topic, payload string, want byte) {
		t.Helper()
		r.send(r.publishPacket(flags|retain, 7, topic, payload))
		switch {
		case flags&qos1 != 0:
			if a := r.expect(packets.Puback); a.ReasonCode != want {
				t.Errorf("PUBACK 0x%02x %s, want 0x%02x", a.ReasonCode, a.Properties.ReasonString, want)
			}
		case flags&qos2 != 0:
			if a := r.expect(packets.Pubrec); a.ReasonCode != want {
				t.Errorf("PUBREC 0x%02x %s, want 0x%02x", a.ReasonCode, a.Properties.ReasonString, want)
			}
			if want < 0x80 {
				r.ack(packets.Pubrel, 7)
				r.expect(packets.Pubcomp)
			}
		}
	}
	publish(five, qos1, "$local/a", "1", 0)
	publish(four, qos2, "$local/b", "1", 0)
	publish(five, qos1, "$local/c", "1", 0x97)
	publish(five, qos2, "$local/c", "1", 0x97)
	publish(five, qos2, "$local/a", "2", 0) // in the place of another
	for _, p := range []string{"1", "1", "2"} {
		sub.expectPublish(p) // and nothing on $local/c
	}
	sub.silent()
	expect("$local/a 2", "$local/b 1")

	publish(four, qos1, "$local/c", "3", 0) // cannot be told
	publish(five, 0, "$local/c", "4", 0)
	sub.expectPublish("3")
	sub.expectPublish("4")
	expect("$local/a 2", "$local/b 1")

	big := strings.Repeat("x", 90)
	publish(five, qos1, "$local/a", big, 0x97) // the old one stays
	sub.silent()
	expect("$local/a 2", "$local/b 1")
	publish(four, qos1, "$local/a", big, 0) // the old one is out of date
	sub.expectPublish(big)
	expect("$local/b 1")
	if n := b.Stats().LocalRefused.Load(); n != 6 {
		t.Errorf("%d refused are counted, want 6", n)
	}
	publish(five, qos1, "$local/b", "", 0)
	sub.expectPublish("")
	if n := b.Stats().LocalBytes.Load(); n != 0 {
		t.Errorf("%d bytes are counted of nothing", n)
	}
}

// TestRefusalsAreCounted does what a limit or the protocol forbids, and looks for the counter.
func TestRefusalsAreCounted(t *testing.T) {
	b, _, addr := startWith(t, newLoner(), storetest.NewSessions(), gate{}, func(c *mqttfront.Config) {
		c.MaxSessions, c.MaxSubscriptions, c.MaxPacketSize, c.TopicAliasMaximum = 3, 2, 2000, 3
		c.ReceiveMaximum, c.Topics.Levels, c.MaxPendingBytes = 5, 3, 1024
	})
	st := b.Stats()
	good := connectOpts{version: 5, id: "good", user: "good", password: "secret"}
	in := func(id string) *raw {
		o := good
		o.id = id
		r, _ := connect(t, addr, o)
		return r
	}
	for _, c := range []struct {
		name    string
		counter *atomic.Uint64
		do      func()
	}{
		{"first packet", &st.NoConnect, func() { r := newRaw(t, addr, 5); r.send([]byte{0xc0, 0}); r.expectEnd() }},
		{"CONNECT too large", &st.TooLarge, func() { r := newRaw(t, addr, 5); r.send([]byte{0x10, 0xff, 0x7f}); r.expectEnd() }},
		{"password", &st.RefusedLogins, func() {
			r := newRaw(t, addr, 5)
			r.send(connectOpts{version: 5, id: "c", user: "bad", password: "x"}.encode())
			r.expect(packets.Connack)
			r.expectEnd()
		}},
		{"protocol level", &st.RefusedLogins, func() {
			r := newRaw(t, addr, 5)
			r.send(packet(0x10, str("MQTT"), []byte{6, 2, 0, 0, 0}, str("c")))
			r.expect(packets.Connack)
			r.expectEnd()
		}},
		{"sessions", &st.RefusedSessions, func() {
			o := good
			o.props = sessionExpiry(60)
			var kept []*raw
			for i := range 3 {
				o.id = fmt.Sprint("kept", i)
				r, _ := connect(t, addr, o)
				kept = append(kept, r)
			}
			r := newRaw(t, addr, 5)
			r.send(good.encode())
			if ack := r.expect(packets.Connack); ack.ReasonCode != 0x97 {
				t.Errorf("CONNACK 0x%02x", ack.ReasonCode)
			}
			r.expectEnd()
			for _, r := range kept { // ends its session
				r.send(packet(0xe0, []byte{0}, sized(sessionExpiry(0))))
				r.expectEnd()
			}
			eventually(t, "the sessions have ended", func() bool { return st.Sessions.Load() == 0 })
		}},
		{"subscriptions", &st.SubsOverLimit, func() { in("c").subscribe(filter{"a", 0}, filter{"b", 0}, filter{"c", 0}) }},
		{"filter", &st.SubsInvalid, func() { in("c").subscribe(filter{"a/b/c/d", 0}) }},
		{"not allowed", &st.SubsDenied, func() { in("c").subscribe(filter{"secret/#", 0}) }},
		{"a user's", &st.SubsDenied, func() { in("c").subscribe(filter{"@a/#", 0}) }},
		{"packet too large", &st.TooLarge, func() {
			r := in("c")
			r.send(r.publishPacket(0, 0, "a", strings.Repeat("x", 3000)))
			r.expectDisconnect(0x95)
		}},
		{"topic alias", &st.TopicAlias, func() {
			r := in("c")
			r.send(r.publishPacket(0, 0, "a", "x", u16(0x23, 4)...))
			r.expectDisconnect(0x94)
		}},
		{"topic levels", &st.TopicInvalid, func() { r := in("c"); r.send(r.publishPacket(0, 0, "a/b/c/d", "x")); r.expectDisconnect(0x90) }},
		{"receive maximum", &st.ReceiveMaximum, func() {
			r := in("c")
			for i := range uint16(7) {
				r.send(r.publishPacket(4, i+1, "a", "x"))
			}
			r.expectDisconnect(0x93)
		}},
		{"not allowed to publish", &st.Refused, func() {
			if code := in("c").publish("secret/x", "x"); code != 0x87 {
				t.Errorf("PUBACK 0x%02x", code)
			}
		}},
		{"malformed", &st.Malformed, func() { r := in("c"); r.send([]byte{0x82, 1, 0}); r.expectDisconnect(0x81) }},
		{"protocol error", &st.ProtocolErrors, func() { r := in("c"); r.send(good.encode()); r.expectDisconnect(0x82) }},
	} {
		before := c.counter.Load()
		c.do()
		eventually(t, c.name+" is counted once", func() bool { return c.counter.Load() == before+1 })
	}
}

// TestBadUpgradesAreCounted asks for WebSocket without the subprotocol.
func TestBadUpgradesAreCounted(t *testing.T) {
	b, _, _ := start(t, nil)
	addr, err := b.Listen(mqttfront.ListenerConfig{URL: "ws://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + addr.String() + "/mqtt")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	eventually(t, "counted", func() bool { return b.Stats().BadUpgrades.Load() == 1 })
}

// badStore is a store whose disk is full.
type badStore struct{ mqttfront.SessionStore }

func (badStore) Sync(done func(error)) { done(errors.New("the disk is full")) }

// TestStoreErrors: what the session store cannot keep is counted, said in the log, though not each time, and the
// messages are refused.
func TestStoreErrors(t *testing.T) {
	var mu sync.Mutex
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return text.Write(p)
	}), nil))
	l := newLoner()
	st := badStore{storetest.NewSessions()}
	kept(st, "c", mqttfront.SessionRecord{Expiry: time.Minute, Subs: subscribed("a")})
	b, err := mqttfront.New(mqttfront.DefaultConfig(), l, nil, st, log)
	if err != nil {
		t.Fatal(err)
	}
	l.broker = b
	defer b.Close()
	addr, err := b.Listen(mqttfront.ListenerConfig{URL: "tcp://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := connect(t, addr.String(), connectOpts{id: "c", resume: true, props: sessionExpiry(60)})
	for i := range uint16(3) {
		c.send(c.publishPacket(2, i+1, "a", "x"))
		c.expectPublish("x")
		if a := c.expect(packets.Puback); a.ReasonCode != 0x97 {
			t.Errorf("PUBACK 0x%02x %s", a.ReasonCode, a.Properties.ReasonString)
		}
	}
	if n := b.Stats().StoreErrors.Load(); n != 4 {
		t.Errorf("counted %d, want 4: the client's return, and three messages", n)
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(text.String(), "sessions cannot be stored"); n != 1 || !strings.Contains(text.String(), "the disk is full") {
		t.Errorf("in the log %d times:\n%s", n, text.String())
	}
}

// fullStore is a store whose disk may be full.
type fullStore struct {
	mqttfront.SessionStore
	full atomic.Bool
}

func (s *fullStore) Sync(done func(error)) {
	if s.full.Load() {
		done(errors.New("the disk is full"))
		return
	}
	s.SessionStore.Sync(done)
}

// TestSubscriptionsNotKept: a subscription that the store of sessions cannot keep is refused, and does not stand, unless
// it is for this connection only.
func TestSubscriptionsNotKept(t *testing.T) {
	st := &fullStore{SessionStore: storetest.NewSessions()}
	b, l, addr := startWith(t, newLoner(), st, nil, nil)
	l.Publish([]mqttfront.Outgoing{{Msg: &proto.Message{Topic: "old", Payload: []byte("v"), Retain: true}, ServedHere: true}})
	for version, code := range map[byte]byte{3: 0x80, 4: 0x80, 5: 0x97} {
		st.full.Store(false)
		c, _ := connect(t, addr, connectOpts{id: "c", version: version, props: sessionExpiry(60), resume: true})
		c.subscribe(filter{"old", 1 | 2<<4*(version/5)})
		if version < 5 {
			c.expectPublish("v")
		}
		st.full.Store(true)
		c.send(c.subscribePacket(1, nil, filter{"old", 2}, filter{"new", 0}, filter{"#/", 0}, filter{"$share/g/new", 0}))
		ack := c.expect(packets.Suback)
		invalid := code
		if version == 5 {
			invalid = 0x8f
		}
		if !slices.Equal(ack.ReasonCodes, []byte{code, code, invalid, code}) || version == 5 && !strings.Contains(ack.Properties.ReasonString, "cannot be stored") {
			t.Errorf("SUBACK %x %q", ack.ReasonCodes, ack.Properties.ReasonString)
		}
		if !l.interest("new").Zero() || b.Stats().Subscriptions.Load() != 1 {
			t.Errorf("%d subscriptions stand: %+v", b.Stats().Subscriptions.Load(), l.interest("new"))
		}
		c.silent() // no retained message either
		clean, _ := connect(t, addr, connectOpts{id: "clean", version: version})
		if codes := clean.subscribe(filter{"new", 1}); codes[0] != 1 {
			t.Errorf("SUBACK %x", codes)
		}
		clean.bye()
		eventually(t, "it left", func() bool { return b.Stats().Subscriptions.Load() == 1 })
		c.kill()
		c, _ = connect(t, addr, connectOpts{id: "c", version: version}) // ends the session
		c.bye()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestTopicLength: topics and filters that are too long are refused, in wills too.
func TestTopicLength(t *testing.T) {
	b, _, addr := start(t, func(c *mqttfront.Config) { c.Topics.Length = 10 })
	fits, long := strings.Repeat("x", 10), strings.Repeat("x", 11)
	c, _ := connect(t, addr, connectOpts{id: "c"})
	if codes := c.subscribe(filter{fits, 1}, filter{long, 1}, filter{"$share/group/" + fits, 1}, filter{"$share/group/" + long, 1}); !slices.Equal(codes, []byte{1, 0x8f, 1, 0x8f}) {
		t.Errorf("SUBACK %x", codes)
	}
	c.send(c.publishPacket(0, 0, fits, "1"))
	c.expectPublish("1")
	c.ack(packets.Puback, 1)
	c.send(c.publishPacket(0, 0, long, "2"))
	c.expectDisconnect(0x90)
	will := newRaw(t, addr, 5)
	will.send(connectOpts{version: 5, id: "will", will: &willOpts{topic: long}}.encode())
	if ack := will.expect(packets.Connack); ack.ReasonCode != 0x90 {
		t.Errorf("CONNACK 0x%02x", ack.ReasonCode)
	}
	st := b.Stats()
	if st.SubsInvalid.Load() != 2 || st.TopicInvalid.Load() != 1 {
		t.Errorf("counted %d filters and %d topics", st.SubsInvalid.Load(), st.TopicInvalid.Load())
	}
}

// TestNoRoom: what is published or subscribed to at locations that the node has no room for is refused before anybody has
// got it, and all else goes on.
func TestNoRoom(t *testing.T) {
	b, l, addr := start(t, nil)
	sub, _ := connect(t, addr, connectOpts{id: "sub"})
	sub.subscribe(filter{"#", 1})
	l.noRoom = func(name string) bool { return strings.HasPrefix(name, "new") }
	five, _ := connect(t, addr, connectOpts{id: "5"})
	for flags, kind := range map[byte]byte{2: packets.Puback, 4: packets.Pubrec} {
		five.send(five.publishPacket(flags, 7, "new/1", "refused"))
		if a := five.expect(kind); a.ReasonCode != 0x97 {
			t.Errorf("answered 0x%02x, want 0x97", a.ReasonCode)
		}
	}
	four, _ := connect(t, addr, connectOpts{id: "4", version: 4})
	if codes := four.subscribe(filter{"new/#", 1}, filter{"old/#", 1}); codes[0] != 0x80 || codes[1] != 1 {
		t.Errorf("MQTT 3: SUBACK %x", codes)
	}
	if codes := five.subscribe(filter{"$share/g/new/#", 1}, filter{"$local/new", 1}); codes[0] != 0x97 || codes[1] != 1 {
		t.Errorf("MQTT 5: SUBACK %x", codes)
	}
	four.send(four.publishPacket(2, 7, "new/1", "refused"))
	four.expectEnd()
	five.send(five.publishPacket(2, 8, "old/1", "taken"))
	five.expect(packets.Puback)
	sub.expectPublish("taken")
	if st := b.Stats(); st.Refused.Load() != 3 || st.SubsNoRoom.Load() != 2 {
		t.Errorf("counted %d messages and %d subscriptions", st.Refused.Load(), st.SubsNoRoom.Load())
	}
}
