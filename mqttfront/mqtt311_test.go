package mqttfront_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// TestRetained311: what is retained, for MQTT 3.1.1 clients. What is written here is one client's life after another.
func TestRetained311(t *testing.T) {
	_, _, addr := start(t, nil)
	live, _ := connect(t, addr, connectOpts{id: "live", version: 4})
	live.subscribe(filter{"r/#", 2})
	retain := func(qos byte, name, payload string) {
		t.Helper()
		pub, _ := connect(t, addr, connectOpts{id: "pub", version: 4})
		pub.send(pub.publishPacket(qos<<1|1, 1, name, payload))
		switch qos {
		case 1:
			pub.expect(packets.Puback)
		case 2:
			pub.expect(packets.Pubrec)
			pub.ack(packets.Pubrel, 1)
			pub.expect(packets.Pubcomp)
		}
		pub.bye() // and its session with it [MQTT3-3.1.2-7]
		pk := live.expectPublish(payload)
		if pk.FixedHeader.Retain || pk.FixedHeader.Qos != qos { // [MQTT3-3.3.1-9]
			t.Errorf("live: %+v", pk.FixedHeader)
		}
	}
	kept := func(filterName string, want ...string) { // topic=payload/QoS
		t.Helper()
		sub, _ := connect(t, addr, connectOpts{id: "sub", version: 4})
		for range 2 { // [MQTT3-3.8.4-3]: again to the same filter
			sub.subscribe(filter{filterName, 2})
			var got []string
			for range want { // [MQTT3-3.3.1-6]
				pk := sub.expect(packets.Publish)
				if !pk.FixedHeader.Retain || pk.FixedHeader.Dup { // [MQTT3-3.3.1-8]
					t.Errorf("%s: %+v", filterName, pk.FixedHeader)
				}
				got = append(got, fmt.Sprintf("%s=%s/%d", pk.TopicName, pk.Payload, pk.FixedHeader.Qos))
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", filterName, got, want)
			}
			sub.silent()
		}
		sub.bye()
	}
	for qos := range byte(3) { // [MQTT3-3.3.1-5]
		retain(qos, fmt.Sprint("r/", qos), "first")
	}
	kept("r/+", "r/0=first/0", "r/1=first/1", "r/2=first/2")
	retain(0, "r/2", "second") // [MQTT3-3.3.1-7]
	kept("r/2", "r/2=second/0")
	pub, _ := connect(t, addr, connectOpts{id: "pub", version: 4})
	for _, payload := range []string{"only live", ""} { // [MQTT3-3.3.1-12]
		if pub.publish("r/1", payload); live.expectPublish(payload).FixedHeader.Retain {
			t.Error("live with the flag")
		}
	}
	pub.bye()
	kept("r/#", "r/0=first/0", "r/1=first/1", "r/2=second/0")
	retain(1, "r/1", "")   // [MQTT3-3.3.1-10] [MQTT3-3.3.1-11]
	retain(0, "r/new", "") // [MQTT3-3.3.1-11]
	kept("r/#", "r/0=first/0", "r/2=second/0")
	kept("r/1")
}

// TestWill311: a will of 3.1.1 is retained or not as it says; without one nothing is published [MQTT3-3.1.2-12]
// [MQTT3-3.1.2-16] [MQTT3-3.1.2-17].
func TestWill311(t *testing.T) {
	b, _, addr := start(t, nil)
	w := watcher(t, addr)
	for qos := range byte(3) {
		for _, retain := range []bool{false, true} {
			name := fmt.Sprint("will/", qos, retain)
			c, _ := connect(t, addr, connectOpts{id: "c", version: 4, will: &willOpts{topic: name, payload: "gone", qos: qos, retain: retain}})
			c.kill()
			if pk := w.expectPublish("gone"); pk.FixedHeader.Qos != qos || pk.FixedHeader.Retain {
				t.Errorf("%+v", pk.FixedHeader)
			}
			late, _ := connect(t, addr, connectOpts{id: "late", version: 4})
			late.subscribe(filter{name, 2})
			if retain {
				if pk := late.expectPublish("gone"); !pk.FixedHeader.Retain || pk.FixedHeader.Qos != qos {
					t.Errorf("retained: %+v", pk.FixedHeader)
				}
			}
			late.silent()
			late.bye()
		}
	}
	for _, version := range versions {
		c, _ := connect(t, addr, connectOpts{id: "c", version: version})
		c.kill()
	}
	eventually(t, "they are gone", func() bool { return b.Stats().Connections.Load() == 1 })
	w.silent()
}

// TestUnsubscribe311: a filter is the one that was subscribed to, character by character; what was begun is brought to its
// end, and nothing new comes [MQTT3-3.10.4-1] [MQTT3-3.10.4-2] [MQTT3-3.10.4-3].
func TestUnsubscribe311(t *testing.T) {
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "c", version: 4, resume: true}
	c, _ := connect(t, addr, o)
	c.subscribe(filter{"a", 2}, filter{"+/b", 1})
	c.unsubscribe("A", "a/", "/a", "+", "#", "x/b", "a ") // none of them is it
	fill(pub, 2, 0, 1)
	fill(pub, 1, 1, 2)
	pub.publish("x/b", "by the other")
	first, second := c.expectPublish("0"), c.expectPublish("1")
	c.ack(packets.Puback, c.expectPublish("by the other").PacketID)
	c.unsubscribe("a", "+/b")
	fill(pub, 2, 2, 4)
	pub.publish("x/b", "nobody wants it")
	c.silent()
	c.kill()
	eventually(t, "away", func() bool { return b.Stats().Offline.Load() == 1 })
	c, _ = connect(t, addr, o)
	for i, want := range []*packets.Packet{first, second} {
		if pk := c.expectPublish(fmt.Sprint(i)); pk.PacketID != want.PacketID || !pk.FixedHeader.Dup {
			t.Errorf("%+v", pk)
		}
	}
	c.ack(packets.Pubrec, first.PacketID)
	c.expect(packets.Pubrel)
	c.ack(packets.Pubcomp, first.PacketID)
	c.ack(packets.Puback, second.PacketID)
	c.silent()
}

// TestReplacing: while a subscription is replaced, again and again, no message that matches it is lost or comes twice
// [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT3-3.8.4-3].
func TestReplacing(t *testing.T) {
	_, _, addr := start(t, nil)
	const n = 2000
	for _, version := range versions {
		sub, _ := connect(t, addr, connectOpts{id: "sub", version: version})
		sub.subscribe(filter{"a", 1})
		pub, _ := connect(t, addr, connectOpts{id: "pub"})
		go func() {
			for i := range n {
				pub.nc.Write(pub.publishPacket(0, 0, "a", fmt.Sprint(i)))
				if i%20 == 19 { // so that there is time for what the subscriber does
					pub.nc.Write([]byte{0xc0, 0})
					pub.next(patience)
				}
			}
		}()
		got := 0
		for got < n {
			pk, err := sub.next(patience)
			if err != nil {
				t.Fatalf("after %d: %v", got, err)
			}
			if pk.FixedHeader.Type != packets.Publish {
				continue
			}
			if string(pk.Payload) != fmt.Sprint(got) {
				t.Fatalf("%s came, want %d", pk.Payload, got)
			}
			if got++; got%3 == 0 {
				sub.send(sub.subscribePacket(1, nil, filter{"a", byte(got % 2)}))
			}
		}
	}
}

// TestTopicsAsTheyAre: topics go through the broker and are compared as they are: in upper and lower case, with spaces and
// U+FEFF, however they are composed, empty levels and all; wildcards in front do not match what begins with $, and what
// comes matches what was subscribed to [MQTT-1.5.4-3] [MQTT-3.3.2-3] [MQTT-4.7.2-1] [MQTT-4.7.3-3] [MQTT-4.7.3-4]
// [MQTT3-1.5.3-3] [MQTT3-3.3.2-3] [MQTT3-4.7.2-1] [MQTT3-4.7.3-3] [MQTT3-4.7.3-4].
func TestTopicsAsTheyAre(t *testing.T) {
	_, _, addr := start(t, func(c *mqttfront.Config) { c.Topics.Length = topic.MaxLength })
	topics := []string{"a", "A", "a ", " a", "a/", "/a", "a//b", "a/b", "\ufeffa", "a\ufeff", "\u00e9", "e\u0301", "a\u200bb", "ab",
		"/", "//", "a\tb", "\ufffe", strings.Repeat("x", 65535)}
	for _, version := range versions {
		all, _ := connect(t, addr, connectOpts{id: "all", version: version})
		all.subscribe(filter{"#", 0}, filter{"+/x", 0})
		var subs []*raw
		for i, name := range topics {
			c, _ := connect(t, addr, connectOpts{id: fmt.Sprint("sub", i), version: version})
			if codes := c.subscribe(filter{name, 0}); codes[0] != 0 {
				t.Fatalf("%.20q: SUBACK %x", name, codes)
			}
			subs = append(subs, c)
		}
		local, _ := connect(t, addr, connectOpts{id: "local", version: version})
		local.subscribe(filter{"$local/#", 0}, filter{"$local/+", 0})
		pub, _ := connect(t, addr, connectOpts{id: "pub", version: version})
		for i, name := range topics {
			pub.send(pub.publishPacket(0, 0, name, fmt.Sprint(i)))
			for _, c := range []*raw{subs[i], all} {
				if pk := c.expectPublish(fmt.Sprint(i)); pk.TopicName != name {
					t.Errorf("%.20q came as %.20q", name, pk.TopicName)
				}
			}
		}
		pub.send(pub.publishPacket(0, 0, "$local/x", "here"))
		local.expectPublish("here")
		all.silent()
		for _, c := range subs {
			c.silent() // and nothing of the others
			c.kill()
		}
		all.kill()
		local.kill()
	}
}

// TestSessionStays: a session lasts as long as its connection, whatever its expiry, and is the same all the time
// [MQTT-4.1.0-1] [MQTT3-4.1.0-1] [MQTT3-4.1.0-2].
func TestSessionStays(t *testing.T) {
	b, _, addr := start(t, nil)
	for _, o := range []connectOpts{{id: "0", version: 4}, {id: "1", version: 4, resume: true}, {id: "2", version: 5}, {id: "3", version: 5, props: sessionExpiry(1)}} {
		c, _ := connect(t, addr, o)
		c.subscribe(filter{"a", 2})
		pub, _ := connect(t, addr, connectOpts{id: "pub"})
		fill(pub, 2, 0, 1)
		pk := c.expectPublish("0")
		c.send(c.publishPacket(4, 9, "b", "v"))
		c.expect(packets.Pubrec)
		if o.id == "3" { // longer than its expiry
			pub.kill()
			eventually(t, "a second has passed", secondsLater(1.2))
			pub, _ = connect(t, addr, connectOpts{id: "pub"})
		}
		c.ack(packets.Pubrec, pk.PacketID) // what was open is, as what was subscribed to
		if rel := c.expect(packets.Pubrel); rel.ReasonCode != 0 {
			t.Errorf("PUBREL 0x%02x", rel.ReasonCode)
		}
		c.ack(packets.Pubrel, 9)
		if comp := c.expect(packets.Pubcomp); comp.ReasonCode != 0 {
			t.Errorf("PUBCOMP 0x%02x", comp.ReasonCode)
		}
		fill(pub, 1, 1, 2)
		c.expectPublish("1")
		c.kill()
		pub.kill()
		eventually(t, "they are gone", func() bool { return b.Stats().Connections.Load() == 0 })
	}
}
