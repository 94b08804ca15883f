package mqttfront_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

func TestQoSDowngrade(t *testing.T) { // [MQTT-3.8.4-8] [MQTT3-3.8.4-6]
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	for _, version := range []byte{3, 4, 5} {
		for max := byte(0); max < 3; max++ {
			sub, _ := connect(t, addr, connectOpts{id: "sub", version: version})
			if codes := sub.subscribe(filter{"a", max}); codes[0] != max { // [MQTT-3.8.4-7]
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
		if rec := pub.expect(packets.Pubrec); rec.PacketID != uint16(i) { // [MQTT3-4.6.0-3]
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
	pub.send(pub.publishPacket(4, 3, "a", "v")) // the ID is free again [MQTT-4.3.3-9]
	if rec := pub.expect(packets.Pubrec); rec.ReasonCode != 0x80 {
		t.Errorf("PUBREC %+v", rec)
	}
	for qos := byte(1); qos <= 2; qos++ { // MQTT 3 can't say no [MQTT3-4.8.0-2]
		old, _ := connect(t, addr, connectOpts{id: "old", version: 4, resume: true})
		old.send(old.publishPacket(qos<<1, 3, "a", "v"))
		old.expectEnd()
	}
}

func TestReceiveMaximum(t *testing.T) { // [MQTT-3.3.4-7]
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
	c.silent() // [MQTT-4.7.2-1] with the filters above
	local, _ := connect(t, addr, connectOpts{id: "local"})
	local.subscribe(filter{"$local/#", 2})
	member, _ := connect(t, addr, connectOpts{id: "member"})
	member.subscribe(filter{"$share/g/$local/#", 1})
	other, _ := connect(t, addr, connectOpts{id: "other"})
	other.subscribe(filter{"$share/h/#", 1}, filter{"$share/h/+/x", 1})
	c.send(c.publishPacket(0, 0, "$local/x", "0"), c.publishPacket(3, 6, "$local/x", "1"), c.publishPacket(4, 7, "$local/x", "2"))
	c.expect(packets.Puback)
	c.expect(packets.Pubrec)
	for i := range 3 {
		if pk := local.expectPublish(fmt.Sprint(i)); int(pk.FixedHeader.Qos) != i {
			t.Errorf("QoS %d", pk.FixedHeader.Qos)
		}
		member.expectPublish(fmt.Sprint(i))
	}
	other.silent() // [MQTT-4.7.2-1] in shared subscriptions too
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
	_, l, addr := start(t, nil)
	l.promise = mqttfront.PromiseLocal // which is said in a user property
	c, _ := connect(t, addr, connectOpts{id: "c", props: []byte{0x17, 0}})
	c.send(c.publishPacket(2, 3, "@a", "v"))
	if a := c.expect(packets.Puback); a.ReasonCode != 0x87 || a.Properties.ReasonString != "" {
		t.Errorf("PUBACK %+v", a)
	}
	c.send(c.subscribePacket(1, nil, filter{"@a", 0}))
	if a := c.expect(packets.Suback); a.ReasonCodes[0] != 0x87 || a.Properties.ReasonString != "" {
		t.Errorf("SUBACK %+v", a)
	}
	c.send(c.publishPacket(4, 3, "@a", "v"), c.subscribePacket(1, nil, filter{"a", 0}))
	if a := c.expect(packets.Pubrec); a.ReasonCode != 0x87 || a.Properties.ReasonString != "" {
		t.Errorf("PUBREC %+v", a)
	}
	if a := c.expect(packets.Suback); a.ReasonCodes[0] != 0 || len(a.Properties.User) > 0 {
		t.Errorf("SUBACK %+v", a)
	}
}
