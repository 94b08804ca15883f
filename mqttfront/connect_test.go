package mqttfront_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

func TestConnackAnnouncesLimits(t *testing.T) {
	_, _, addr := start(t, func(c *mqttfront.Config) {
		c.MaxPacketSize, c.ReceiveMaximum, c.TopicAliasMaximum = 1<<20, 33, 5
		c.MaxKeepAlive, c.MaxSessionExpiry = time.Minute, time.Hour
	})
	_, ack := connect(t, addr, connectOpts{id: "", keepAlive: 120, props: sessionExpiry(0xffffffff)})
	p := ack.Properties
	if p.MaximumPacketSize != 1<<20 || p.ReceiveMaximum != 33 || p.TopicAliasMaximum != 5 || p.ServerKeepAlive != 60 ||
		p.SessionExpiryInterval != 3600 || p.AssignedClientID == "" || ack.SessionPresent { // [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] [MQTT-3.2.2-21]
		t.Errorf("CONNACK %+v", p)
	}
	_, ack = connect(t, addr, connectOpts{id: "x", keepAlive: 30, props: sessionExpiry(5)})
	if p := ack.Properties; p.ServerKeepAliveFlag || p.SessionExpiryIntervalFlag || p.AssignedClientID != "" {
		t.Errorf("what is granted as asked need not be said: %+v", p)
	}
	_, ack = connect(t, addr, connectOpts{id: "y", keepAlive: 0})
	if p := ack.Properties; p.ServerKeepAlive != 60 {
		t.Errorf("keep alive 0: %+v", p)
	}
}

func TestConnectRefused(t *testing.T) {
	_, _, addr := start(t, nil)
	long := strings.Repeat("x", 70)
	for _, c := range []struct {
		name string
		raw  []byte
		code int // of the CONNACK; -1: closed without a word
	}{
		{"not CONNECT", []byte{0xc0, 0}, -1},                                                            // [MQTT-3.1.0-1] [MQTT-3.14.0-1] [MQTT3-3.1.0-1]
		{"five bytes of length", []byte{0x10, 0xff, 0xff, 0xff, 0xff, 0x7f}, -1},                        // [MQTT-1.5.5-1]
		{"256 MiB", []byte{0x10, 0xff, 0xff, 0xff, 0x7f}, -1},                                           //
		{"protocol name", packet(0x10, str("MQTP"), []byte{4, 2, 0, 0}, str("c")), -1},                  // [MQTT3-3.1.2-1]
		{"protocol name, 5", packet(0x10, str("MQTP"), []byte{5, 2, 0, 0, 0}, str("c")), -1},            // [MQTT-3.1.2-1]
		{"protocol name in lower case", packet(0x10, str("mqtt"), []byte{5, 2, 0, 0, 0}, str("c")), -1}, // [MQTT-3.1.2-1]
		{"protocol name long", packet(0x10, str(long), []byte{4, 2, 0, 0}, str("c")), -1},               //
		{"level 6", packet(0x10, str("MQTT"), []byte{6, 2, 0, 0, 0}, str("c")), 0x84},                   // [MQTT-3.1.2-2]
		{"level 5 with the bit of bridges", packet(0x10, str("MQTT"), []byte{0x85, 2, 0, 0, 0}, str("c")), 1},
		{"level 6 with the bit of bridges", packet(0x10, str("MQTT"), []byte{0x86, 2, 0, 0, 0}, str("c")), 1},
		{"level 3 of MQTT", packet(0x10, str("MQTT"), []byte{3, 2, 0, 0}, str("c")), 1},                                                        // [MQTT3-3.1.2-2]
		{"reserved flag, 3.1.1", packet(0x10, str("MQTT"), []byte{4, 3, 0, 0}, str("c")), -1},                                                  // [MQTT3-3.1.2-3]
		{"reserved flag", packet(0x10, str("MQTT"), []byte{5, 3, 0, 0, 0}, str("c")), 0x81},                                                    // [MQTT-3.1.2-3]
		{"flags of the header", packet(0x11, str("MQTT"), []byte{5, 2, 0, 0, 0}, str("c")), -1},                                                // [MQTT-2.1.3-1] [MQTT3-2.2.2-2]
		{"will QoS 3, 3.1.1", packet(0x10, str("MQTT"), []byte{4, 0x1e, 0, 0}, str("c"), str("w"), str("")), -1},                               // [MQTT3-3.1.2-14]
		{"will QoS 3", packet(0x10, str("MQTT"), []byte{5, 0x1e, 0, 0, 0}, str("c"), []byte{0}, str("w"), str("")), 0x81},                      // [MQTT-3.1.2-12]
		{"will QoS without will, 3.1.1", packet(0x10, str("MQTT"), []byte{4, 0x0a, 0, 0}, str("c")), -1},                                       // [MQTT3-3.1.2-11] [MQTT3-3.1.2-13]
		{"will QoS without will", packet(0x10, str("MQTT"), []byte{5, 0x0a, 0, 0, 0}, str("c")), 0x81},                                         // [MQTT-3.1.2-11]
		{"will retain without will, 3.1.1", packet(0x10, str("MQTT"), []byte{4, 0x22, 0, 0}, str("c")), -1},                                    // [MQTT3-3.1.2-11] [MQTT3-3.1.2-15]
		{"will retain without will", packet(0x10, str("MQTT"), []byte{5, 0x22, 0, 0, 0}, str("c")), 0x81},                                      // [MQTT-3.1.2-13]
		{"will that is not there", packet(0x10, str("MQTT"), []byte{5, 0x06, 0, 0, 0}, str("c")), 0x81},                                        // [MQTT-3.1.2-9]
		{"will that is not there, 3.1.1", packet(0x10, str("MQTT"), []byte{4, 0x06, 0, 0}, str("c")), -1},                                      // [MQTT3-3.1.2-9]
		{"user that is not there", packet(0x10, str("MQTT"), []byte{5, 0x82, 0, 0, 0}, str("c")), 0x81},                                        // [MQTT-3.1.2-17]
		{"password that is not there", packet(0x10, str("MQTT"), []byte{5, 0x42, 0, 0, 0}, str("c")), 0x81},                                    // [MQTT-3.1.2-19]
		{"user without the flag", packet(0x10, str("MQTT"), []byte{5, 2, 0, 0, 0}, str("c"), str("u")), 0x81},                                  // [MQTT-3.1.2-16] [MQTT-3.1.2-18]
		{"client ID that is not there", packet(0x10, str("MQTT"), []byte{5, 2, 0, 0, 0}), 0x81},                                                // [MQTT-3.1.3-3]
		{"password without user, 3.1.1", connectOpts{version: 4, id: "c", password: "p"}.encode(), -1},                                         // [MQTT3-3.1.2-22]
		{"length with a byte too many", append([]byte{0x10, 0x8d, 0}, packet(0x10, str("MQTT"), []byte{5, 2, 0, 0, 0}, str(""))[2:]...), 0x81}, // [MQTT-1.5.5-1]
		{"empty ID with session", connectOpts{version: 5, resume: true}.encode(), 0x85},                                                        // [MQTT-3.1.3-8]
		{"empty ID with session, 3.1.1", connectOpts{version: 4, resume: true}.encode(), 2},                                                    // [MQTT3-3.1.3-7] [MQTT3-3.1.3-8] [MQTT3-3.1.3-9]
		{"client ID not UTF-8", connectOpts{version: 5, id: "\xff"}.encode(), 0x81},                                                            // [MQTT-3.1.3-4]
		{"client ID not UTF-8, 3.1.1", connectOpts{version: 4, id: "\xff"}.encode(), -1},                                                       // [MQTT3-3.1.3-4] [MQTT3-1.5.3-1]
		{"client ID with NUL, 3.1.1", connectOpts{version: 4, id: "\x00"}.encode(), -1},                                                        // [MQTT3-1.5.3-2]
		{"user property not UTF-8", connectOpts{version: 5, id: "c", props: []byte("\x26\x00\x01k\x00\x01\xff")}.encode(), 0x81},               // [MQTT-1.5.7-1]
		{"user property with a NUL", connectOpts{version: 5, id: "c", props: []byte("\x26\x00\x01\x00\x00\x01v")}.encode(), 0x81},              // [MQTT-1.5.7-1]
		{"client ID with NUL", connectOpts{version: 5, id: "\x00"}.encode(), 0x81},                                                             // [MQTT-1.5.4-2]
		{"client ID with a surrogate", connectOpts{version: 5, id: "\xed\xa0\x80"}.encode(), 0x81},                                             // [MQTT-1.5.4-1]
		{"will topic not UTF-8", connectOpts{version: 5, id: "c", will: &willOpts{topic: "\xff"}}.encode(), 0x81},                              // [MQTT-3.1.3-11]
		{"will topic not UTF-8, 3.1.1", connectOpts{version: 4, id: "c", will: &willOpts{topic: "\xff"}}.encode(), -1},                         // [MQTT3-3.1.3-10]
		{"user name not UTF-8", connectOpts{version: 5, id: "c", user: "\xff"}.encode(), 0x81},                                                 // [MQTT-3.1.3-12]
		{"user name not UTF-8, 3.1.1", connectOpts{version: 4, id: "c", user: "\xff"}.encode(), -1},                                            // [MQTT3-3.1.3-11]
		{"authentication method", connectOpts{version: 5, id: "c", props: append([]byte{0x15}, str("SCRAM")...)}.encode(), 0x8c},               // [MQTT-4.12.0-1]
		{"authentication data", connectOpts{version: 5, id: "c", props: append([]byte{0x16}, str("x")...)}.encode(), 0x82},
		{"receive maximum 0", connectOpts{version: 5, id: "c", props: u16(0x21, 0)}.encode(), 0x82},
		{"maximum packet size 0", connectOpts{version: 5, id: "c", props: u32(0x27, 0)}.encode(), 0x82},
		{"session expiry twice", connectOpts{version: 5, id: "c", props: append(sessionExpiry(1), sessionExpiry(1)...)}.encode(), 0x82},
		{"request problem information 2", connectOpts{version: 5, id: "c", props: []byte{0x17, 2}}.encode(), 0x82},
		{"topic alias", connectOpts{version: 5, id: "c", props: u16(0x23, 1)}.encode(), 0x82},
		{"properties cut", packet(0x10, str("MQTT"), []byte{5, 2, 0, 0, 9}, str("c")), 0x81},
		{"will topic with wildcard", connectOpts{version: 5, id: "c", will: &willOpts{topic: "a/#"}}.encode(), 0x90},
		{"will topic with wildcard, 3.1.1", connectOpts{version: 4, id: "c", will: &willOpts{topic: "a/#"}}.encode(), -1}, // [MQTT3-3.2.2-6]
		{"will topic empty, 3.1.1", connectOpts{version: 4, id: "c", will: &willOpts{}}.encode(), -1},
		{"will for a user, 3.1.1", connectOpts{version: 4, id: "c", will: &willOpts{topic: "@alice/x"}}.encode(), 5},
		{"will for a user", connectOpts{version: 5, id: "c", will: &willOpts{topic: "@alice/x"}}.encode(), 0x87},
		{"rubbish behind, 3.1.1", packet(0x10, str("MQTT"), []byte{4, 2, 0, 0}, str("c"), []byte{1}), -1}, // [MQTT3-3.1.4-1]
		{"cut, 3.1.1", packet(0x10, str("MQTT"), []byte{4, 2, 0}), -1},                                    // [MQTT3-3.1.4-1]
		{"rubbish behind", packet(0x10, str("MQTT"), []byte{5, 2, 0, 0, 0}, str("c"), []byte{1}), 0x81},   // [MQTT-3.1.4-1]
		{"cut", packet(0x10, str("MQTT"), []byte{5, 2, 0}), 0x81},                                         // [MQTT-3.1.4-1]
	} {
		t.Run(c.name, func(t *testing.T) {
			version := byte(5)
			if c.code < 0x80 {
				version = 4
			}
			r := newRaw(t, addr, version)
			r.send(c.raw)
			if c.code >= 0 {
				ack := r.expect(packets.Connack)
				if int(ack.ReasonCode) != c.code || ack.SessionPresent { // [MQTT-3.2.2-6] [MQTT3-3.2.2-4]
					t.Errorf("CONNACK 0x%02x %s, want 0x%02x", ack.ReasonCode, ack.Properties.ReasonString, c.code)
				}
			}
			r.expectEnd() // [MQTT-3.2.2-7] [MQTT-4.13.2-1] [MQTT3-3.2.2-5]
		})
	}
}

func TestConnectGood(t *testing.T) {
	_, _, addr := start(t, nil)
	for _, o := range []connectOpts{
		{version: 3, id: "c"}, {version: 4, id: "c"}, {version: 5, id: "c"}, {version: 4}, {version: 5},
		{version: 5, id: "c", password: "p"}, {version: 4, id: "c", user: "u", password: "p"}, {version: 4, id: "c", user: "u"},
		{version: 5, id: "c", keepAlive: 65535}, {version: 5, id: "c", keepAlive: 43691}, // 1.5 times is more than 16 bits
		{version: 4, id: "c", will: &willOpts{topic: "w"}}, // an empty will
		{version: 5, id: strings.Repeat("x", 65535)},
	} {
		r, _ := connect(t, addr, o)
		r.silent()
		r.bye()
	}
	r, _ := connect(t, addr, connectOpts{id: "c"})
	r.send(connectOpts{version: 5, id: "c"}.encode())
	r.expectDisconnect(0x82) // [MQTT-3.1.0-2]
	r, _ = connect(t, addr, connectOpts{id: "c", version: 4})
	r.send(connectOpts{version: 4, id: "c"}.encode())
	r.expectEnd() // [MQTT3-3.1.0-2] [MQTT3-4.8.0-1]
	r = newRaw(t, addr, 5)
	r.send(packet(0x10, str("MQTT"), []byte{5, 0xc2, 0, 0, 0}, str("c"), str("u"), str(""))) // an empty password
	r.expect(packets.Connack)
}

// TestPipelinedConnect: clients need not wait for CONNACK.
func TestPipelinedConnect(t *testing.T) {
	_, _, addr := start(t, nil)
	r := newRaw(t, addr, 5)
	r.send(connectOpts{version: 5, id: "c"}.encode(), r.subscribePacket(1, nil, filter{"a", 1}), r.publishPacket(2, 5, "a", "x"))
	r.expect(packets.Connack)
	r.expect(packets.Suback)
	for range 2 {
		if pk, err := r.next(patience); err != nil || pk.FixedHeader.Type != packets.Publish && pk.FixedHeader.Type != packets.Puback {
			t.Fatalf("%v %v", pk, err)
		}
	}
}

// TestByteByByte: a connection is a stream of bytes [MQTT-4.2.0-1] [MQTT3-7.1.1-1].
func TestByteByByte(t *testing.T) {
	_, _, addr := start(t, nil)
	for _, version := range versions {
		r := newRaw(t, addr, version)
		all := append(connectOpts{version: version, id: "c"}.encode(), r.subscribePacket(1, nil, filter{"a", 0})...)
		all = append(all, r.publishPacket(0, 0, "a", strings.Repeat("y", 200))...)
		for i := range all {
			r.send(all[i : i+1])
		}
		r.expect(packets.Connack)
		r.expect(packets.Suback)
		r.expectPublish(strings.Repeat("y", 200))
	}
}

func TestConnectTimeout(t *testing.T) {
	b, _, addr := start(t, func(c *mqttfront.Config) { c.ConnectTimeout = 50 * time.Millisecond })
	r := newRaw(t, addr, 5)
	r.send([]byte{0x10, 20, 0, 4, 'M'})
	r.expectEnd()
	eventually(t, "counted", func() bool { return b.Stats().ConnectTimeout.Load() == 1 })
	c, _ := connect(t, addr, connectOpts{id: "c"}) // the limit is for CONNECT only
	time.Sleep(100 * time.Millisecond)
	c.silent()
}

func TestConnectionLimits(t *testing.T) {
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxConnections = 2 })
	connect(t, addr, connectOpts{id: "1"})
	two, _ := connect(t, addr, connectOpts{id: "2"})
	newRaw(t, addr, 5).expectEnd()
	if b.Stats().RefusedConns.Load() != 1 {
		t.Error("not counted")
	}
	two.bye()
	eventually(t, "room again", func() bool { return b.Stats().Connections.Load() == 1 })
	connect(t, addr, connectOpts{id: "3"})

	_, _, addr = start(t, func(c *mqttfront.Config) { c.MaxSessions = 1 })
	connect(t, addr, connectOpts{id: "1"})
	r := newRaw(t, addr, 5)
	r.send(connectOpts{version: 5, id: "2"}.encode())
	if ack := r.expect(packets.Connack); ack.ReasonCode != 0x97 {
		t.Errorf("CONNACK 0x%02x", ack.ReasonCode)
	}
	connect(t, addr, connectOpts{id: "1"}) // a takeover is no new session
}

// TestKeepAlive: a client that is silent for 1.5 times its keep alive is disconnected, and so is one that asked for none,
// after 1.5 times the most that there is [MQTT-3.1.2-22] [MQTT-3.2.2-22] [MQTT3-3.1.2-24].
func TestKeepAlive(t *testing.T) {
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxKeepAlive = time.Second })
	for _, asked := range []uint16{1, 0} {
		r, ack := connect(t, addr, connectOpts{id: "c", keepAlive: asked})
		if told := ack.Properties.ServerKeepAliveFlag; told != (asked == 0) {
			t.Errorf("keep alive %d: CONNACK %+v", asked, ack.Properties)
		}
		began := time.Now()
		old, _ := connect(t, addr, connectOpts{id: "v3", version: 4, keepAlive: asked})
		r.expectDisconnect(0x8d)
		if took := time.Since(began); took < 1400*time.Millisecond {
			t.Errorf("keep alive %d: after %v, want 1.5 s and a little", asked, took)
		}
		old.expectEnd()
	}
	if n := b.Stats().KeepAlive.Load(); n != 4 {
		t.Errorf("counted %d", n)
	}
}

// gate refuses by user name.
type gate struct{ mqttfront.AllowAll }

func (gate) Connect(_ context.Context, l mqttfront.Login) (mqttfront.Identity, error) {
	if l.User != "good" || string(l.Password) != "secret" {
		return mqttfront.Identity{}, &mqttfront.Refusal{Code: mqttfront.ReasonBadUserOrPassword, Text: "no"}
	}
	if _, ok := l.Remote.(*net.TCPAddr); !ok || !strings.HasPrefix(l.Listener, "tcp://") {
		return mqttfront.Identity{}, &mqttfront.Refusal{Code: mqttfront.ReasonNotAuthorized, Text: "where from?"}
	}
	return mqttfront.Identity{User: l.User, ClientID: l.ClientID}, nil
}

func (gate) Rights(string, string) mqttfront.Rights { return noSecrets{} }

// noSecrets keeps a client away from secret/...
type noSecrets struct{}

func (noSecrets) CanPublish(topic string) bool    { return !strings.HasPrefix(topic, "secret/") }
func (noSecrets) CanReceive(topic string) bool    { return !strings.HasPrefix(topic, "secret/") }
func (noSecrets) CanSubscribe(filter string) bool { return !strings.HasPrefix(filter, "secret/") }

func TestAuth(t *testing.T) {
	_, _, addr := startWith(t, newLoner(), storetest.NewSessions(), gate{}, nil)
	for version, code := range map[byte]byte{4: 4, 5: 0x86} {
		r := newRaw(t, addr, version)
		r.send(connectOpts{version: version, id: "c", user: "bad", password: "x"}.encode())
		if ack := r.expect(packets.Connack); ack.ReasonCode != code {
			t.Errorf("version %d: CONNACK 0x%02x, want 0x%02x", version, ack.ReasonCode, code)
		}
		r.expectEnd()
	}
	for _, version := range []byte{4, 5} {
		r, _ := connect(t, addr, connectOpts{version: version, id: "c", user: "good", password: "secret"})
		codes := r.subscribe(filter{"secret/#", 1}, filter{"open/#", 1}, filter{"$share/g/secret/x", 1})
		denied := byte(0x87)
		if version == 4 {
			denied = 0x80
		}
		if codes[0] != denied || codes[1] != 1 || codes[2] != denied {
			t.Errorf("SUBACK %x", codes)
		}
		want := byte(0)
		if version == 5 {
			want = 0x87
		}
		if got := r.publish("secret/x", "v"); got != want { // [MQTT3-3.3.5-2]
			t.Errorf("PUBACK 0x%02x", got)
		}
		if version == 5 { // ACLs see the topic that an alias stands for
			r.send(r.publishPacket(0, 0, "secret/x", "v", u16(0x23, 1)...))
			if got := r.publish("", "v", u16(0x23, 1)...); got != 0x87 {
				t.Errorf("by alias: PUBACK 0x%02x", got)
			}
		}
		r.send(r.publishPacket(4, 7, "secret/x", "v"))
		if rec := r.expect(packets.Pubrec); rec.ReasonCode != want {
			t.Errorf("PUBREC 0x%02x", rec.ReasonCode)
		}
		r.silent()
		r.bye()
	}
}
