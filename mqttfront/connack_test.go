package mqttfront_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

// TestFirstIsConnack: CONNACK comes first, before what waits for the client and what it asks for in the same breath, once,
// and with no flag but session present [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT-3.2.2-1] [MQTT3-3.1.4-4]
// [MQTT3-3.2.0-1].
func TestFirstIsConnack(t *testing.T) {
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	for _, version := range versions {
		o := connectOpts{id: "c", version: version, resume: true}
		if version == 5 {
			o.props = sessionExpiry(60)
		}
		c, _ := connect(t, addr, o)
		c.subscribe(filter{"a", 1})
		c.kill()
		eventually(t, "away", func() bool { return b.Stats().Offline.Load() == 1 })
		fill(pub, 1, 0, 20)
		c = newRaw(t, addr, version)
		c.send(o.encode(), []byte{0xc0, 0}, c.subscribePacket(1, nil, filter{"b", 0}), c.publishPacket(0, 0, "a", "own"))
		head, err := c.br.Peek(4)
		if err != nil || head[0] != 0x20 || head[2] != 1 || head[3] != 0 {
			t.Fatalf("% x came first (%v)", head, err)
		}
		came := map[byte]int{}
		for range 1 + 20 + 1 + 1 {
			pk, err := c.next(patience)
			if err != nil {
				t.Fatal(err)
			}
			came[pk.FixedHeader.Type]++
		}
		if came[packets.Connack] != 1 || came[packets.Pingresp] != 1 || came[packets.Suback] != 1 {
			t.Errorf("version %d: %v", version, came)
		}
		c.kill()
		o.resume = false
		c, _ = connect(t, addr, o)
		c.bye()
		eventually(t, "it has left", func() bool { return b.Stats().Connections.Load() == 1 })
		if version == 5 { // the session that it left
			o.props = nil
			c, _ = connect(t, addr, o)
			c.bye()
		}
	}
}

// TestConnackOfWhatThereIs: there are all QoS, retained messages, wildcards, identifiers and shared subscriptions, so that
// CONNACK says nothing of them, and clients may use them; there is no response information, whether it is asked for or not,
// and no authentication method [MQTT-3.1.2-28] [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.2.2-13]
// [MQTT-4.12.0-6] [MQTT3-3.8.3-2].
func TestConnackOfWhatThereIs(t *testing.T) {
	_, _, addr := start(t, nil)
	for _, props := range [][]byte{nil, {0x19, 0}, {0x19, 1}} {
		c, ack := connect(t, addr, connectOpts{id: "c", props: props, will: &willOpts{topic: "w", payload: "x", qos: 2, retain: true}})
		p := ack.Properties
		if p.MaximumQosFlag || p.RetainAvailableFlag || p.WildcardSubAvailableFlag || p.SubIDAvailableFlag || p.SharedSubAvailableFlag ||
			p.ResponseInfo != "" || p.AuthenticationMethod != "" || len(p.AuthenticationData) > 0 {
			t.Errorf("%x: CONNACK %+v", props, p)
		}
		for qos := range byte(3) {
			c.send(c.subscribePacket(1, []byte{0x0b, 1}, filter{"a/+", qos}, filter{"$share/g/b/#", qos}))
			if ack := c.expect(packets.Suback); !slices.Equal(ack.ReasonCodes, []byte{qos, qos}) {
				t.Errorf("SUBACK %x", ack.ReasonCodes)
			}
		}
		c.bye()
	}
	old, _ := connect(t, addr, connectOpts{id: "old", version: 4})
	if codes := old.subscribe(filter{"+/#", 0}, filter{"#", 1}, filter{"+", 2}); !slices.Equal(codes, []byte{0, 1, 2}) {
		t.Errorf("SUBACK %x", codes)
	}
}

// TestBehindARefusal: who is not let in is disconnected, and what came behind his CONNECT is as if he had never sent it
// [MQTT-3.1.4-2] [MQTT-3.1.4-6] [MQTT-4.12.0-4] [MQTT-4.13.2-1] [MQTT3-3.1.4-5] [MQTT3-3.2.2-5].
func TestBehindARefusal(t *testing.T) {
	b, _, addr := startWith(t, newLoner(), storetest.NewSessions(), gate{}, nil)
	watch, _ := connect(t, addr, connectOpts{id: "watch", user: "good", password: "secret"})
	watch.subscribe(filter{"#", 1})
	for _, version := range versions {
		bad := newRaw(t, addr, version)
		bad.send(connectOpts{version: version, id: "bad", user: "bad", password: "x", will: &willOpts{topic: "w", payload: "will"}}.encode(),
			bad.publishPacket(0, 0, "a", "0"), bad.publishPacket(3, 1, "a", "1"), bad.subscribePacket(2, nil, filter{"#", 1}))
		if ack := bad.expect(packets.Connack); ack.ReasonCode == 0 || ack.SessionPresent {
			t.Errorf("CONNACK %+v", ack)
		}
		bad.expectEnd() // neither PUBACK nor SUBACK
	}
	eventually(t, "they are gone", func() bool { return b.Stats().Connections.Load() == 1 })
	watch.silent() // neither message nor will
	if codes := watch.unsubscribe("#"); codes[0] != 0 {
		t.Errorf("UNSUBACK %x", codes)
	}
	watch.subscribe(filter{"a", 1})
	watch.silent() // and nothing retained
	if n := b.Stats().Subscriptions.Load(); n != 1 {
		t.Errorf("%d subscriptions", n)
	}
}

// TestClientIDs: those that every server has to take, and many others, each stand for a session of their own; who has none
// gets one that is nobody's [MQTT-3.1.3-2] [MQTT-3.1.3-5] [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] [MQTT3-3.1.3-2]
// [MQTT3-3.1.3-5] [MQTT3-3.1.3-6].
func TestClientIDs(t *testing.T) {
	b, _, addr := start(t, nil)
	const every = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, version := range versions {
		ids := []string{"\ufeff", "a b", "Ä", "a/#", strings.Repeat("x", 1000), "auto-"}
		for i := range len(every) {
			ids = append(ids, every[i:i+1], every[max(0, i-22):i+1])
		}
		slices.Sort(ids)
		ids = slices.Compact(ids)
		var all []*raw
		for _, id := range ids {
			c, _ := connect(t, addr, connectOpts{id: id, version: version})
			c.subscribe(filter{"to/" + fmt.Sprintf("%x", id), 0})
			all = append(all, c)
		}
		assigned := map[string]bool{}
		for range 20 {
			c, ack := connect(t, addr, connectOpts{version: version})
			id := ack.Properties.AssignedClientID
			if version == 5 && (id == "" || assigned[id] || slices.Contains(ids, id)) {
				t.Fatalf("the client is told %q", id)
			}
			assigned[id] = true
			all = append(all, c)
		}
		if n := b.Stats().Sessions.Load(); n != int64(len(all)) {
			t.Errorf("%d sessions of %d clients", n, len(all))
		}
		pub := all[len(all)-1]
		for i, id := range ids {
			pub.send(pub.publishPacket(0, 0, "to/"+fmt.Sprintf("%x", id), id))
			all[i].expectPublish(id)
		}
		if version == 5 { // an assigned one is the client's own
			c, _ := connect(t, addr, connectOpts{})
			c.send(packet(0xe0, []byte{0}, sized(nil)))
			c.expectEnd()
			first, ack := connect(t, addr, connectOpts{props: sessionExpiry(60)})
			first.kill()
			if _, again := connect(t, addr, connectOpts{id: ack.Properties.AssignedClientID, resume: true}); !again.SessionPresent {
				t.Error("the session under the assigned identifier is not there")
			}
		}
		for _, c := range all {
			c.kill()
		}
		eventually(t, "they have gone", func() bool { return b.Stats().Sessions.Load() <= 1 })
	}
}

// TestNoAuthentication: a client with an authentication method is told that there is none, and no AUTH is ever sent, to it
// or to anybody, whatever they send [MQTT-3.15.2-1] [MQTT-3.15.2-2] [MQTT-3.15.2-3] [MQTT-4.12.0-1] [MQTT-4.12.0-2]
// [MQTT-4.12.0-5] [MQTT-4.12.0-6] [MQTT-4.12.1-2].
func TestNoAuthentication(t *testing.T) {
	_, _, addr := start(t, nil)
	method := append([]byte{0x15}, str("SCRAM-SHA-256")...)
	c := newRaw(t, addr, 5)
	c.send(connectOpts{version: 5, id: "c", props: append(method, append([]byte{0x16}, str("n,,n=u,r=x")...)...)}.encode())
	if ack := c.expect(packets.Connack); ack.ReasonCode != 0x8c || ack.Properties.AuthenticationMethod != "" {
		t.Errorf("CONNACK %+v", ack)
	}
	c.expectEnd()
	for _, reason := range []byte{0x00, 0x18, 0x19} {
		c, _ = connect(t, addr, connectOpts{id: "c"})
		c.send(packet(0xf0, []byte{reason}, sized(method)))
		c.expectDisconnect(0x82)
		c = newRaw(t, addr, 5)
		c.send(packet(0xf0, []byte{reason}, sized(method))) // instead of CONNECT
		c.expectEnd()
	}
}

// TestAfterDisconnect: a client's DISCONNECT is the last that is done for it; the broker's is the last that it sends, and
// has no session expiry [MQTT-3.14.2-2] [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT3-3.14.4-2].
func TestAfterDisconnect(t *testing.T) {
	_, _, addr := start(t, nil)
	watch, _ := connect(t, addr, connectOpts{id: "watch"})
	watch.subscribe(filter{"a", 1})
	for _, version := range versions {
		c, _ := connect(t, addr, connectOpts{id: "c", version: version})
		c.send([]byte{0xe0, 0}, c.publishPacket(2, 1, "a", "late"), []byte{0xc0, 0})
		c.expectEnd()
	}
	c, _ := connect(t, addr, connectOpts{id: "c", props: sessionExpiry(60)})
	c.subscribe(filter{"a", 0})
	c.send([]byte{0x36, 0}, c.publishPacket(2, 1, "a", "late"), bytes.Repeat([]byte{0xc0, 0}, 100000))
	pk := c.expect(packets.Disconnect) // it can be read, for all that is behind
	if pk.ReasonCode != 0x81 || pk.Properties.SessionExpiryIntervalFlag {
		t.Errorf("DISCONNECT %+v", pk)
	}
	c.expectEnd()
	watch.silent()
}
