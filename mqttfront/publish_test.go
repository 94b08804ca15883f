package mqttfront_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/store"
)

func TestQoSDowngrade(t *testing.T) { // [MQTT-3.8.4-8]
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	for _, version := range []byte{3, 4, 5} {
		for max := byte(0); max < 3; max++ {
			sub, _ := connect(t, addr, connectOpts{id: "sub", version: version})
			if codes := sub.subscribe(filter{"a", max}); codes[0] != max {
				t.Fatalf("granted %d", codes[0])
			}
			for qos := byte(0); qos < 3; qos++ {
				pub.send(pub.publishPacket(qos<<1, uint16(qos)+1, "a", "v"))
				if pk := sub.expectPublish("v"); pk.FixedHeader.Qos != min(qos, max) || pk.FixedHeader.Dup || pk.FixedHeader.Retain {
					t.Errorf("QoS %d to QoS %d: %+v", qos, max, pk.FixedHeader)
				}
			}
			sub.kill()
			pub.expect(packets.Puback)
			pub.expect(packets.Pubrec)
			pub.ack(packets.Pubrel, 3)
			pub.expect(packets.Pubcomp)
		}
	}
}

// TestOrderBehindRetained: a retained message, which comes back by way of its rendezvous, is not overtaken by those
// that its publisher sends right behind it, wherever they end up in what is read at once [MQTT-4.6.0-5].
func TestOrderBehindRetained(t *testing.T) {
	for _, late := range []bool{false, true} {
		for _, version := range []byte{4, 5} {
			for qos := range byte(3) {
				t.Run(fmt.Sprintf("late=%t version=%d qos=%d", late, version, qos), func(t *testing.T) {
					l := newLoner()
					if late {
						l.back = make(chan func(), 1000)
						var running sync.WaitGroup
						running.Go(func() {
							for deliver := range l.back {
								time.Sleep(100 * time.Microsecond)
								deliver()
							}
						})
						t.Cleanup(func() { close(l.back); running.Wait() })
					}
					_, _, addr := startWith(t, l, store.NewSessions(), nil, nil)
					sub, _ := connect(t, addr, connectOpts{id: "sub", version: version})
					sub.subscribe(filter{"a", qos}, filter{"b", qos})
					pub, _ := connect(t, addr, connectOpts{id: "pub", version: version})
					var burst []byte
					const n = 40
					for i := range n {
						flags, name := qos<<1, "a"
						if i%8 == 3 {
							flags |= 1
						}
						if i%8 == 5 {
							name = "b" // must not make the broker forget
						}
						burst = append(burst, pub.publishPacket(flags, uint16(i+1), name, fmt.Sprint(i))...)
					}
					pub.send(burst)
					last := map[string]int{"a": -1, "b": -1}
					for range n {
						pk := sub.expect(packets.Publish)
						i, _ := strconv.Atoi(string(pk.Payload))
						if i < last[pk.TopicName] {
							t.Fatalf("%d came behind %d", i, last[pk.TopicName])
						}
						last[pk.TopicName] = i
					}
				})
			}
		}
	}
}

// TestVolume: messages are counted by QoS, and with them the bytes of their payloads.
func TestVolume(t *testing.T) {
	b, _, addr := start(t, nil)
	var subs []*raw
	for i, version := range []byte{4, 5} {
		sub, _ := connect(t, addr, connectOpts{id: fmt.Sprint("sub", i), version: version})
		sub.subscribe(filter{"a", 2})
		subs = append(subs, sub)
	}
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	for qos := range byte(3) {
		for i := range int(qos) + 1 {
			pub.send(pub.publishPacket(qos<<1, uint16(qos)<<8|uint16(i+1), "a", strings.Repeat("x", 10)))
			for _, sub := range subs {
				sub.expect(packets.Publish)
			}
		}
	}
	st := b.Stats()
	eventually(t, "all is counted", func() bool {
		for q, n := range []uint64{1, 2, 3} {
			if st.Received[q].Load() != n || st.ReceivedPayload[q].Load() != 10*n || st.Sent[q].Load() != 2*n || st.SentPayload[q].Load() != 20*n {
				return false
			}
		}
		return true
	})
}

func TestQoS2Inbound(t *testing.T) {
	_, _, addr := start(t, nil)
	o := connectOpts{id: "pub", props: sessionExpiry(60)}
	pub, _ := connect(t, addr, o)
	sub, _ := connect(t, addr, connectOpts{id: "sub"})
	sub.subscribe(filter{"a", 0})
	pub.send(pub.publishPacket(4, 9, "a", "once"))
	pub.expect(packets.Pubrec)
	pub.send(pub.publishPacket(0xc, 9, "a", "once")) // [MQTT-4.3.3-10]
	if rec := pub.expect(packets.Pubrec); rec.ReasonCode != 0 {
		t.Errorf("PUBREC 0x%02x", rec.ReasonCode)
	}
	pub.kill()
	o.resume = true
	pub, ack := connect(t, addr, o)
	if !ack.SessionPresent {
		t.Fatal("no session")
	}
	pub.send(pub.publishPacket(0xc, 9, "a", "once")) // once more, after a reconnect
	if rec := pub.expect(packets.Pubrec); rec.ReasonCode != 0 {
		t.Errorf("PUBREC 0x%02x", rec.ReasonCode)
	}
	pub.ack(packets.Pubrel, 9)
	if comp := pub.expect(packets.Pubcomp); comp.ReasonCode != 0 || comp.PacketID != 9 { // [MQTT-4.3.3-11]
		t.Errorf("PUBCOMP %+v", comp)
	}
	pub.ack(packets.Pubrel, 9) // stray
	if comp := pub.expect(packets.Pubcomp); comp.ReasonCode != 0x92 {
		t.Errorf("PUBCOMP 0x%02x", comp.ReasonCode)
	}
	pub.send(pub.publishPacket(4, 9, "a", "again")) // [MQTT-4.3.3-12]: a new message
	sub.expectPublish("once")
	sub.expectPublish("again")
	sub.silent()
}

// TestPubrelOrder [MQTT-4.6.0-4]: PUBRELs are in the order of PUBRECs, whatever that of the messages was.
func TestPubrelOrder(t *testing.T) {
	_, _, addr := start(t, nil)
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.subscribe(filter{"a", 2})
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	fill(pub, 2, 0, 4)
	for i := range 4 {
		c.expectPublish(fmt.Sprint(i))
	}
	order := []uint16{3, 1, 4, 2}
	for _, id := range order {
		c.send(ackPacket(packets.Pubrec, id))
	}
	for _, id := range order {
		if rel := c.expect(packets.Pubrel); rel.PacketID != id || rel.ReasonCode != 0 {
			t.Errorf("PUBREL %d, want %d", rel.PacketID, id)
		}
	}
}

// TestPacketIDSpaces: the client's own packet IDs have nothing to do with ours.
func TestPacketIDSpaces(t *testing.T) {
	_, _, addr := start(t, nil)
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.subscribe(filter{"a", 2})
	c.send(c.publishPacket(2, 1, "a", "one"))
	one := c.expectPublish("one")
	if one.PacketID != 1 {
		t.Fatalf("our first packet ID is %d; the test wants it to be the client's", one.PacketID)
	}
	c.expect(packets.Puback)
	c.send(c.publishPacket(4, 1, "b", "own"))
	c.expect(packets.Pubrec)
	c.ack(packets.Pubrel, 1)
	c.expect(packets.Pubcomp)
	c.ack(packets.Pubcomp, 1) // stray ones change nothing
	c.ack(packets.Pubrec, 4242)
	if rel := c.expect(packets.Pubrel); rel.ReasonCode != 0x92 {
		t.Errorf("PUBREL 0x%02x", rel.ReasonCode)
	}
	c.ack(packets.Puback, 1)
	c.silent()
}

func TestManyOpenQoS2(t *testing.T) { // more than 1,024 exchanges may be open
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub", version: 4})
	const n = 3000
	go func() {
		for i := 1; i <= n; i++ {
			pub.nc.Write(pub.publishPacket(4, uint16(i), "a", "v"))
		}
	}()
	for i := 1; i <= n; i++ {
		if rec := pub.expect(packets.Pubrec); rec.PacketID != uint16(i) { // [MQTT-4.6.0-3]
			t.Fatalf("PUBREC for %d, want %d", rec.PacketID, i)
		}
	}
	for i := n; i > 0; i-- {
		pub.ack(packets.Pubrel, uint16(i))
		if comp := pub.expect(packets.Pubcomp); comp.PacketID != uint16(i) {
			t.Fatalf("PUBCOMP for %d", comp.PacketID)
		}
	}
}

func TestAckOrder(t *testing.T) { // [MQTT-4.6.0-2] [MQTT-4.6.0-3]
	_, l, addr := start(t, nil)
	var origins []mqttfront.Outgoing
	first := make(chan struct{})
	l.hold = make(chan struct{}) // nothing is accepted by it
	t.Cleanup(func() { close(l.hold) })
	l.seen = func(o mqttfront.Outgoing) {
		if origins = append(origins, o); len(origins) == 5 {
			close(first)
		}
	}
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	for i := 1; i <= 5; i++ {
		pub.send(pub.publishPacket(byte(2+2*(i%2)), uint16(i*10), "a", "v"))
	}
	<-first
	for _, i := range []int{3, 1, 4, 2} { // out of order, the first missing
		origins[i].Origin.Accepted(origins[i].PacketID, nil)
	}
	pub.silent()
	origins[0].Origin.Accepted(origins[0].PacketID, nil)
	for i := 1; i <= 5; i++ {
		kind := packets.Puback
		if i%2 == 1 {
			kind = packets.Pubrec
		}
		if a := pub.expect(kind); a.PacketID != uint16(i*10) {
			t.Fatalf("acknowledgement %d is for %d", i, a.PacketID)
		}
	}
}

func TestRefusedBySwarm(t *testing.T) {
	_, l, addr := start(t, nil)
	l.refuse = &mqttfront.Refusal{Code: mqttfront.ReasonQuotaExceeded, Text: "disk full"}
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	if code := pub.publish("a", "v"); code != 0x97 {
		t.Errorf("PUBACK 0x%02x", code)
	}
	pub.send(pub.publishPacket(4, 3, "a", "v"))
	if rec := pub.expect(packets.Pubrec); rec.ReasonCode != 0x97 || rec.Properties.ReasonString != "disk full" {
		t.Errorf("PUBREC %+v", rec)
	}
	l.refuse = errors.New("something else")
	pub.send(pub.publishPacket(4, 3, "a", "v")) // the ID is free again
	if rec := pub.expect(packets.Pubrec); rec.ReasonCode != 0x80 {
		t.Errorf("PUBREC %+v", rec)
	}
	old, _ := connect(t, addr, connectOpts{id: "old", version: 4})
	old.send(old.publishPacket(2, 3, "a", "v"))
	old.silent() // MQTT 3 can't say no
}

func TestReceiveMaximum(t *testing.T) { // [MQTT-3.3.4-7] [MQTT-3.3.4-9]
	_, l, addr := start(t, func(c *mqttfront.Config) { c.ReceiveMaximum = 3 })
	l.hold = make(chan struct{})
	for _, qos := range []byte{1, 2} {
		pub, _ := connect(t, addr, connectOpts{id: "pub"})
		for i := range 3 {
			pub.send(pub.publishPacket(qos<<1, uint16(i+1), "a", "v"))
		}
		pub.send(pub.publishPacket(0, 0, "a", "v")) // QoS 0 does not count
		pub.silent()
		pub.send(pub.publishPacket(qos<<1, 4, "a", "v"))
		pub.expectDisconnect(0x93)
	}
	close(l.hold)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	for i := range 3 { // QoS 2 counts until PUBCOMP
		pub.send(pub.publishPacket(4, uint16(i+1), "a", "v"))
		pub.expect(packets.Pubrec)
	}
	pub.ack(packets.Pubrel, 1)
	pub.expect(packets.Pubcomp)
	pub.send(pub.publishPacket(4, 4, "a", "v"))
	pub.expect(packets.Pubrec)
	pub.send(pub.publishPacket(4, 5, "a", "v"))
	pub.expectDisconnect(0x93)
}

// TestOldPublisherIsHeld: an MQTT 3.1.1 client, which knows no receive maximum, is not read from while it has
// too much unacknowledged, and is not thrown out for that.
func TestOldPublisherIsHeld(t *testing.T) {
	_, l, addr := start(t, func(c *mqttfront.Config) { c.ReceiveMaximum = 4 })
	l.hold = make(chan struct{})
	seen := make(chan int, 100)
	l.seen = func(mqttfront.Outgoing) { seen <- 1 }
	pub, _ := connect(t, addr, connectOpts{id: "pub", version: 4, keepAlive: 1})
	for i := 1; i <= 10; i++ {
		pub.send(pub.publishPacket(2, uint16(i), "a", "v"))
	}
	for range 4 {
		<-seen
	}
	time.Sleep(2500 * time.Millisecond) // longer than the keep alive
	if len(seen) > 0 {
		t.Errorf("%d more were read", len(seen))
	}
	close(l.hold)
	for i := 1; i <= 10; i++ {
		if a := pub.expect(packets.Puback); a.PacketID != uint16(i) {
			t.Fatalf("PUBACK for %d, want %d", a.PacketID, i)
		}
	}
}

func TestTopicAliasIn(t *testing.T) {
	_, _, addr := start(t, func(c *mqttfront.Config) { c.TopicAliasMaximum = 2 })
	for _, c := range []struct {
		topic string
		alias []byte
		code  byte
	}{
		{"a", u16(0x23, 0), 0x94}, // [MQTT-3.3.2-8]
		{"a", u16(0x23, 3), 0x94}, // [MQTT-3.3.2-9]
		{"", u16(0x23, 2), 0x94},
		{"", nil, 0x82},
	} {
		pub, _ := connect(t, addr, connectOpts{id: "pub"})
		pub.send(pub.publishPacket(0, 0, c.topic, "v", c.alias...))
		pub.expectDisconnect(c.code)
	}
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	sub, _ := connect(t, addr, connectOpts{id: "sub"})
	sub.subscribe(filter{"#", 1})
	pub.send(pub.publishPacket(0, 0, "a", "1", u16(0x23, 1)...), pub.publishPacket(0, 0, "b", "2", u16(0x23, 2)...),
		pub.publishPacket(2, 1, "", "3", u16(0x23, 1)...), pub.publishPacket(0, 0, "c", "4", u16(0x23, 1)...), // [MQTT-3.3.2-12]
		pub.publishPacket(0, 0, "", "5", u16(0x23, 1)...))
	for i, want := range []string{"a", "b", "a", "c", "c"} {
		if pk := sub.expectPublish(fmt.Sprint(i + 1)); pk.TopicName != want || pk.Properties.TopicAliasFlag {
			t.Errorf("message %d on %q, want %q", i+1, pk.TopicName, want)
		}
	}
	pub, _ = connect(t, addr, connectOpts{id: "pub"}) // [MQTT-3.3.2-7]: aliases end with the connection
	pub.send(pub.publishPacket(0, 0, "", "v", u16(0x23, 1)...))
	pub.expectDisconnect(0x94)
}

func TestTopicAliasOut(t *testing.T) { // [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11]
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "sub", props: append(u16(0x22, 2), sessionExpiry(60)...)}
	sub, _ := connect(t, addr, o)
	sub.subscribe(filter{"#", 1})
	names := map[uint16]string{}
	for i, name := range []string{"a", "b", "c", "a", "b", "c", "a"} {
		qos := byte(i % 2)
		pub.send(pub.publishPacket(qos<<1, uint16(i+1), name, "v"))
		pk := sub.expectPublish("v")
		got := pk.TopicName
		if a := pk.Properties.TopicAlias; a > 2 {
			t.Fatalf("alias %d", a)
		} else if a > 0 && got == "" {
			got = names[a]
		} else if a > 0 {
			names[a] = got
		}
		if got != name {
			t.Fatalf("message %d on %q, want %q: %+v", i, got, name, pk)
		}
		if i > 2 && name != "c" && pk.TopicName != "" {
			t.Errorf("message %d spells out its topic", i)
		}
	}
	sub.kill()
	o.resume = true
	sub, _ = connect(t, addr, o) // what comes again names its topic
	for range 3 {
		if pk := sub.expectPublish("v"); pk.Properties.TopicAlias > 0 && pk.TopicName == "" && names[pk.Properties.TopicAlias] == "" {
			t.Errorf("an alias of the connection before: %+v", pk)
		}
	}
}

func TestMalformed(t *testing.T) {
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxPacketSize = 2000; c.Topics.Levels = 10 })
	r := &raw{version: 5}
	big := r.publishPacket(0, 0, "a", strings.Repeat("x", 2000))
	for _, c := range []struct {
		name string
		raw  []byte
		code byte
	}{
		{"QoS 3", packet(0x36, str("a"), []byte{0, 1, 0}), 0x81},                      // [MQTT-3.3.1-4]
		{"too large", big, 0x95},                                                      // [MQTT-3.2.2-15]
		{"too large, header only", big[:3], 0x95},                                     //
		{"256 MiB, header only", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, 0x95},          //
		{"five bytes of length", []byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x01}, 0x81},    // [MQTT-1.5.5-1]
		{"topic with wildcard", r.publishPacket(0, 0, "a/+", "v"), 0x90},              // [MQTT-3.3.2-2]
		{"topic not UTF-8", r.publishPacket(0, 0, "a\xff", "v"), 0x90},                // [MQTT-3.3.2-1]
		{"topic too deep", r.publishPacket(0, 0, strings.Repeat("/", 10), "v"), 0x90}, //
		{"subscription identifier", r.publishPacket(0, 0, "a", "v", 0x0b, 1), 0x82},   // [MQTT-3.3.4-6]
		{"expiry twice", r.publishPacket(0, 0, "a", "v", append(u32(2, 1), u32(2, 1)...)...), 0x82},
		{"alias twice", r.publishPacket(0, 0, "a", "v", append(u16(0x23, 1), u16(0x23, 1)...)...), 0x82},
		{"payload format twice", r.publishPacket(0, 0, "a", "v", 1, 1, 1, 1), 0x82},
		{"payload format 2", r.publishPacket(0, 0, "a", "v", 1, 2), 0x82},
		{"content type twice", r.publishPacket(0, 0, "a", "v", 3, 0, 0, 3, 0, 0), 0x82},
		{"response topic twice", r.publishPacket(0, 0, "a", "v", 8, 0, 1, 'r', 8, 0, 1, 'r'), 0x82},
		{"correlation data twice", r.publishPacket(0, 0, "a", "v", 9, 0, 0, 9, 0, 0), 0x82},
		{"response topic with wildcard", r.publishPacket(0, 0, "a", "v", 8, 0, 3, 'r', '/', '#'), 0x82}, // [MQTT-3.3.2-14]
		{"response topic empty", r.publishPacket(0, 0, "a", "v", 8, 0, 0), 0x82},
		{"response topic not UTF-8", r.publishPacket(0, 0, "a", "v", 8, 0, 1, 0xff), 0x81}, // [MQTT-3.3.2-13]
		{"content type not UTF-8", r.publishPacket(0, 0, "a", "v", 3, 0, 1, 0xff), 0x81},   // [MQTT-3.3.2-19]
		{"unknown property", r.publishPacket(0, 0, "a", "v", 0x7f), 0x81},
		{"property of another packet", r.publishPacket(0, 0, "a", "v", 0x11, 0, 0, 0, 1), 0x81},
		{"flags of SUBSCRIBE", packet(0x80, []byte{0, 1, 0}, str("a"), []byte{0}), 0x81}, // [MQTT-3.8.1-1]
		{"flags of PUBREL", []byte{0x60, 2, 0, 1}, 0x81},                                 // [MQTT-3.6.1-1]
		{"flags of UNSUBSCRIBE", packet(0xa0, []byte{0, 1, 0}, str("a")), 0x81},          // [MQTT-3.10.1-1]
		{"flags of PINGREQ", []byte{0xc1, 0}, 0x81},                                      // [MQTT-2.1.3-1]
		{"flags of DISCONNECT", []byte{0xe1, 0}, 0x81},                                   // [MQTT-3.14.1-1]
		{"PINGREQ with a body", []byte{0xc0, 1, 0}, 0x81},                                //
		{"SUBSCRIBE without options", packet(0x82, []byte{0, 1, 0}, str("a")), 0x81},     // made the codec panic
		{"SUBSCRIBE without filter", packet(0x82, []byte{0, 1, 0}), 0x82},                // [MQTT-3.8.3-2]
		{"SUBSCRIBE with packet ID 0", packet(0x82, []byte{0, 0, 0}, str("a"), []byte{0}), 0x82},
		{"SUBSCRIBE not UTF-8", packet(0x82, []byte{0, 1, 0}, str("a\xff"), []byte{0}), 0x81}, // [MQTT-3.8.3-1]
		{"UNSUBSCRIBE not UTF-8", packet(0xa2, []byte{0, 1, 0}, str("a\xff")), 0x81},          // [MQTT-3.10.3-1]
		{"SUBSCRIBE QoS 3", packet(0x82, []byte{0, 1, 0}, str("a"), []byte{3}), 0x81},         // [MQTT-3.8.3-5]
		{"SUBSCRIBE reserved", packet(0x82, []byte{0, 1, 0}, str("a"), []byte{0x40}), 0x81},   // [MQTT-3.8.3-5]
		{"SUBSCRIBE retain handling 3", packet(0x82, []byte{0, 1, 0}, str("a"), []byte{0x30}), 0x82},
		{"SUBSCRIBE identifier 0", packet(0x82, []byte{0, 1, 2, 0x0b, 0}, str("a"), []byte{0}), 0x82},
		{"SUBSCRIBE identifier twice", packet(0x82, []byte{0, 1, 4, 0x0b, 1, 0x0b, 1}, str("a"), []byte{0}), 0x82},
		{"shared with no local", packet(0x82, []byte{0, 1, 0}, str("$share/g/a"), []byte{4}), 0x82}, // [MQTT-3.8.3-4]
		{"UNSUBSCRIBE without filter", packet(0xa2, []byte{0, 1, 0}), 0x82},                         // [MQTT-3.10.3-2]
		{"CONNACK", []byte{0x20, 2, 0, 0}, 0x82},
		{"type 0", []byte{0x00, 0}, 0x82},
		{"AUTH", []byte{0xf0, 0}, 0x82},
		{"PUBACK cut", []byte{0x40, 1, 0}, 0x81},
		{"DISCONNECT with a wrong property", []byte{0xe0, 4, 0, 2, 0x0b, 1}, 0x82},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := connect(t, addr, connectOpts{id: "c"})
			r.send(c.raw)
			r.expectDisconnect(c.code) // [MQTT-4.13.1-1]
			old, _ := connect(t, addr, connectOpts{id: "old", version: 4})
			if c.code == 0x95 || c.name == "QoS 3" {
				old.send(c.raw)
				old.expectEnd() // never a DISCONNECT in MQTT 3
			}
			old.kill()
		})
	}
	if b.Stats().DecodePanics.Load() > 0 {
		t.Error("the codec panicked behind our checks")
	}
}

func TestProperties(t *testing.T) { // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	props := "\x26\x00\x01b\x00\x012\x01\x01\x03\x00\x01t\x26\x00\x01a\x00\x011\x08\x00\x01r\x09\x00\x02\x00\xff\x26\x00\x01b\x00\x013"
	for _, o := range []connectOpts{{id: "five"}, {id: "silent", props: []byte{0x17, 0}}, {id: "old", version: 4}} {
		sub, _ := connect(t, addr, o)
		sub.subscribe(filter{"a", 1})
		for qos := range byte(2) {
			pub.send(pub.publishPacket(qos<<1, 1, "a", "v", []byte(props)...))
			p := sub.expectPublish("v").Properties
			if o.version == 4 {
				continue
			}
			if fmt.Sprint(p.User) != "[{b 2} {a 1} {b 3}]" || p.ContentType != "t" || p.ResponseTopic != "r" ||
				string(p.CorrelationData) != "\x00\xff" || !p.PayloadFormatFlag || p.PayloadFormat != 1 {
				t.Errorf("%s: %+v", o.id, p)
			}
		}
	}
}

func TestMessageExpiry(t *testing.T) { // [MQTT-3.3.2-5] [MQTT-3.3.2-6]
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "sub", props: sessionExpiry(60)}
	sub, _ := connect(t, addr, o)
	sub.subscribe(filter{"a", 1})
	sub.bye()
	pub.publish("a", "short", u32(2, 1)...)
	pub.publish("a", "long", u32(2, 100)...)
	pub.publish("a", "forever")
	time.Sleep(1200 * time.Millisecond)
	o.resume = true
	sub, _ = connect(t, addr, o)
	if p := sub.expectPublish("long").Properties; p.MessageExpiryInterval > 99 || p.MessageExpiryInterval < 90 {
		t.Errorf("%d s are left", p.MessageExpiryInterval)
	}
	if p := sub.expectPublish("forever").Properties; p.MessageExpiryInterval != 0 {
		t.Error("an expiry that nobody asked for")
	}
	if n := b.Stats().DropExpired.Load(); n != 1 {
		t.Errorf("%d counted as expired", n)
	}
}

// TestMessageExpiry0: a message that expires at once is for those who are there.
func TestMessageExpiry0(t *testing.T) {
	_, _, addr := start(t, nil)
	o := connectOpts{id: "away", props: sessionExpiry(60)}
	away, _ := connect(t, addr, o)
	away.subscribe(filter{"#", 2})
	away.bye()
	sub, _ := connect(t, addr, connectOpts{id: "sub"})
	sub.subscribe(filter{"#", 2})
	pub, _ := connect(t, addr, connectOpts{id: "pub", will: &willOpts{topic: "w", payload: "will", qos: 1, props: u32(2, 0)}})
	for flags := range byte(6) { // with retain and without, the former by way of the swarm
		pub.send(pub.publishPacket(flags, uint16(flags)+1, "a", fmt.Sprint(flags), u32(2, 0)...))
		if p := sub.expectPublish(fmt.Sprint(flags)).Properties; p.MessageExpiryInterval > 1 {
			t.Errorf("%d s are left", p.MessageExpiryInterval)
		}
	}
	pub.kill()
	if p := sub.expectPublish("will").Properties; p.MessageExpiryInterval != 1 {
		t.Errorf("%d s are left of the will", p.MessageExpiryInterval)
	}
	time.Sleep(1100 * time.Millisecond)
	o.resume = true
	away, _ = connect(t, addr, o)
	away.subscribe(filter{"a", 2}) // and nothing is retained
	away.silent()
}

func TestClientMaximumPacketSize(t *testing.T) { // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	sub, _ := connect(t, addr, connectOpts{id: "sub", props: append(u32(0x27, 100), u16(0x22, 5)...)})
	sub.subscribe(filter{"a", 1})
	fits := strings.Repeat("x", 100-2-3-1) // header, topic, properties
	for qos := range byte(2) {
		pub.send(pub.publishPacket(qos<<1, 1, "a", strings.Repeat("y", 100)))
		pub.send(pub.publishPacket(qos<<1, 2, "a", fits[2*qos:]))
		sub.expectPublish(fits[2*qos:])
	}
	sub.silent()
	if n := b.Stats().DropTooLarge.Load(); n != 2 {
		t.Errorf("%d counted", n)
	}
}

func TestDollarTopics(t *testing.T) {
	_, l, addr := start(t, nil)
	l.seen = func(o mqttfront.Outgoing) {
		if strings.HasPrefix(o.Msg.Topic, "$") {
			t.Errorf("%q went to the swarm", o.Msg.Topic)
		}
	}
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.subscribe(filter{"#", 1}, filter{"$SYS/#", 1}, filter{"$other/#", 1}, filter{"+/x", 1})
	for _, topic := range []string{"$SYS/x", "$other/x", "$local"} {
		if code := c.publish(topic, "hidden"); code != 0 {
			t.Errorf("PUBACK 0x%02x", code)
		}
		c.send(c.publishPacket(0, 0, topic, "hidden"), c.publishPacket(4, 5, topic, "hidden"))
		c.expect(packets.Pubrec)
		c.ack(packets.Pubrel, 5)
		c.expect(packets.Pubcomp)
	}
	c.silent() // [MQTT-4.7.2-1]
	local, _ := connect(t, addr, connectOpts{id: "local"})
	local.subscribe(filter{"$local/#", 2})
	member, _ := connect(t, addr, connectOpts{id: "member"})
	member.subscribe(filter{"$share/g/$local/#", 1})
	c.send(c.publishPacket(0, 0, "$local/x", "0"), c.publishPacket(3, 6, "$local/x", "1"), c.publishPacket(4, 7, "$local/x", "2"))
	c.expect(packets.Puback)
	c.expect(packets.Pubrec)
	for i := range 3 {
		if pk := local.expectPublish(fmt.Sprint(i)); int(pk.FixedHeader.Qos) != i {
			t.Errorf("QoS %d", pk.FixedHeader.Qos)
		}
		member.expectPublish(fmt.Sprint(i))
	}
	late, _ := connect(t, addr, connectOpts{id: "late"})
	late.subscribe(filter{"$local/+", 1})
	if pk := late.expectPublish("1"); !pk.FixedHeader.Retain {
		t.Error("not flagged as retained")
	}
}

func TestUsersAreRefused(t *testing.T) {
	_, _, addr := start(t, nil)
	c, _ := connect(t, addr, connectOpts{id: "c"})
	for _, topic := range []string{"@alice/x", "foo/@bob/x", "@", "a/@"} {
		c.send(c.publishPacket(2, 3, topic, "v"))
		if a := c.expect(packets.Puback); a.ReasonCode != 0x87 || !strings.Contains(a.Properties.ReasonString, "users are not enabled") {
			t.Errorf("%s: %+v", topic, a)
		}
	}
	c.send(c.subscribePacket(1, nil, filter{"@alice/#", 0}, filter{"+/@bob/#", 0}, filter{"$share/g/@x", 0}, filter{"a@b", 0}))
	a := c.expect(packets.Suback)
	if fmt.Sprint(a.ReasonCodes) != "[135 135 135 0]" || !strings.Contains(a.Properties.ReasonString, "users are not enabled") {
		t.Errorf("SUBACK %+v", a)
	}
}

// TestReasonStringsOnRequest [MQTT-3.1.2-29].
func TestReasonStringsOnRequest(t *testing.T) {
	_, _, addr := start(t, nil)
	c, _ := connect(t, addr, connectOpts{id: "c", props: []byte{0x17, 0}})
	c.send(c.publishPacket(2, 3, "@a", "v"))
	if a := c.expect(packets.Puback); a.ReasonCode != 0x87 || a.Properties.ReasonString != "" {
		t.Errorf("PUBACK %+v", a)
	}
	c.send(c.subscribePacket(1, nil, filter{"@a", 0}))
	if a := c.expect(packets.Suback); a.ReasonCodes[0] != 0x87 || a.Properties.ReasonString != "" {
		t.Errorf("SUBACK %+v", a)
	}
}

// TestAcceptedConcurrently: whatever the order in which messages are accepted, acknowledgements keep theirs, and
// every PUBREL finds its exchange.
func TestAcceptedConcurrently(t *testing.T) {
	_, l, addr := start(t, nil)
	l.refuse = nil
	const n = 500
	hold := make(chan struct{})
	l.hold = hold
	t.Cleanup(func() { close(hold) })
	l.seen = func(o mqttfront.Outgoing) { go o.Origin.Accepted(o.PacketID, nil) }
	for _, props := range [][]byte{nil, sessionExpiry(60)} {
		pub, _ := connect(t, addr, connectOpts{id: "pub", props: props})
		go func() {
			for i := 1; i <= n; i++ {
				pub.nc.Write(pub.publishPacket(byte(2+2*(i%2)), uint16(i), "a", "v"))
			}
		}()
		next, comps := uint16(1), 0
		for int(next) <= n || comps < n/2 {
			pk, err := pub.next(patience)
			if err != nil {
				t.Fatal(err)
			}
			switch pk.FixedHeader.Type {
			case packets.Puback, packets.Pubrec:
				if pk.PacketID != next {
					t.Fatalf("acknowledgement for %d, want %d", pk.PacketID, next)
				}
				next++
				if pk.FixedHeader.Type == packets.Pubrec {
					pub.ack(packets.Pubrel, pk.PacketID)
				}
			case packets.Pubcomp:
				if comps++; pk.ReasonCode != 0 {
					t.Fatalf("PUBCOMP 0x%02x for %d", pk.ReasonCode, pk.PacketID)
				}
			default:
				t.Fatalf("%+v", pk)
			}
		}
		pub.bye()
	}
}
