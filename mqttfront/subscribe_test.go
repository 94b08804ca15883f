package mqttfront_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

func TestFilters(t *testing.T) {
	_, _, addr := start(t, func(c *mqttfront.Config) { c.MaxSubscriptions, c.Topics.Levels = 5, 10 })
	for version, bad := range map[byte]byte{4: 0x80, 5: 0x8f} {
		c, _ := connect(t, addr, connectOpts{id: "c", version: version})
		// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3] [MQTT3-4.7.3-1]
		for _, f := range []string{"sport#", "sport+", "a/b+/c", "#/a", "$share//t", "$share/g", "$share/g/", "$share/+/t", "", strings.Repeat("/", 10)} {
			if codes := c.subscribe(filter{f, 1}); codes[0] != bad {
				t.Errorf("version %d: %q gets 0x%02x, want 0x%02x", version, f, codes[0], bad)
			}
		}
		codes := c.subscribe(filter{"a", 0}, filter{"b#", 1}, filter{"c", 1}, filter{"$share/g/d", 2}, filter{"e/#", 2}, filter{"+", 0}, filter{"f", 0})
		quota := byte(0x97)
		if version == 4 {
			quota = 0x80
		}
		if want := []byte{0, bad, 1, 2, 2, 0, quota}; !slices.Equal(codes, want) { // [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT3-3.8.4-4] [MQTT3-3.8.4-5] [MQTT3-3.9.3-1] [MQTT3-3.9.3-2]
			t.Errorf("version %d: SUBACK %x, want %x", version, codes, want)
		}
		if codes := c.subscribe(filter{"a", 2}); codes[0] != 2 { // no new one
			t.Errorf("SUBACK %x", codes)
		}
		c.bye()
	}
}

// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1]
func TestUnsubscribe(t *testing.T) {
	b, l, addr := start(t, nil)
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.subscribe(filter{"a/+", 1}, filter{"$share/g/b", 2}, filter{"c", 0})
	if n := b.Stats().Subscriptions.Load(); n != 3 {
		t.Errorf("%d subscriptions", n)
	}
	if codes := c.unsubscribe("a/+", "a/b", "$share/g/b", "b"); !slices.Equal(codes, []byte{0, 0x11, 0, 0x11}) {
		t.Errorf("UNSUBACK %x", codes)
	}
	if !l.interest("a/+").Zero() || !l.interest("b").Zero() || !l.interest("c").Plain {
		t.Error("interests")
	}
	if c.publish("a/b", "v"); b.Stats().Subscriptions.Load() != 1 {
		t.Error("subscriptions")
	}
	c.silent()
	old, _ := connect(t, addr, connectOpts{id: "old", version: 4})
	old.subscribe(filter{"x", 0})
	if codes := old.unsubscribe("x", "never"); len(codes) != 0 { // [MQTT3-3.10.4-4] [MQTT3-3.10.4-5] [MQTT3-3.10.4-6]
		t.Errorf("UNSUBACK of MQTT 3.1.1 with a payload: %x", codes)
	}
}

// TestUnsubscribeFinishes: what was sent or queued before UNSUBSCRIBE is delivered to its end [MQTT-3.10.4-3].
func TestUnsubscribeFinishes(t *testing.T) {
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "c", props: append(sessionExpiry(60), u16(0x21, 2)...), resume: true} // two at a time
	c, _ := connect(t, addr, o)
	c.subscribe(filter{"a", 2})
	fill(pub, 2, 0, 1)
	fill(pub, 1, 1, 3)
	first, second := c.expectPublish("0"), c.expectPublish("1")
	c.unsubscribe("a")
	fill(pub, 1, 3, 4) // not for c any more
	c.ack(packets.Pubrec, first.PacketID)
	c.expect(packets.Pubrel)
	c.kill()
	c, _ = connect(t, addr, o)
	if rel := c.expect(packets.Pubrel); rel.PacketID != first.PacketID {
		t.Errorf("PUBREL %d", rel.PacketID)
	}
	if pk := c.expectPublish("1"); pk.PacketID != second.PacketID || !pk.FixedHeader.Dup {
		t.Errorf("%+v", pk.FixedHeader)
	}
	c.ack(packets.Pubcomp, first.PacketID)
	c.ack(packets.Puback, second.PacketID)
	c.ack(packets.Puback, c.expectPublish("2").PacketID)
	c.silent()
}

func TestResubscribe(t *testing.T) { // [MQTT-3.8.4-3] [MQTT-3.8.4-4]
	_, l, addr := start(t, nil)
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.subscribe(filter{"a", 2})
	c.subscribe(filter{"a", 0})
	if in := l.interest("a"); in.QoS != 0 {
		t.Errorf("interest %+v", in)
	}
	c.send(c.publishPacket(4, 1, "a", "v"))
	if pk := c.expectPublish("v"); pk.FixedHeader.Qos != 0 {
		t.Errorf("QoS %d", pk.FixedHeader.Qos)
	}
	c.expect(packets.Pubrec)
}

func TestInterests(t *testing.T) {
	b, l, addr := start(t, nil)
	one, _ := connect(t, addr, connectOpts{id: "one", props: sessionExpiry(100)})
	two, _ := connect(t, addr, connectOpts{id: "two", props: sessionExpiry(0xffffffff)})
	three, _ := connect(t, addr, connectOpts{id: "three"})
	want := func(when string, in mqttfront.Interest) {
		t.Helper()
		eventually(t, when, func() bool { return fmt.Sprint(l.interest("a/#")) == fmt.Sprint(in) })
	}
	one.subscribe(filter{"a/#", 0})
	want("one", mqttfront.Interest{Plain: true, Hold: 100 * time.Second})
	three.subscribe(filter{"a/#", 2})
	want("three", mqttfront.Interest{Plain: true, QoS: 2, Hold: 100 * time.Second})
	two.subscribe(filter{"$share/g/a/#", 1}, filter{"$share/f/a/#", 2})
	week := mqttfront.DefaultConfig().MaxSessionExpiry
	want("two", mqttfront.Interest{Plain: true, QoS: 2, Hold: week, Groups: []mqttfront.GroupInterest{
		{Name: "f", QoS: 2, Members: 1, Online: true}, {Name: "g", QoS: 1, Members: 1, Online: true}}})
	three.bye()
	want("three left", mqttfront.Interest{Plain: true, QoS: 2, Hold: week, Groups: []mqttfront.GroupInterest{
		{Name: "f", QoS: 2, Members: 1, Online: true}, {Name: "g", QoS: 1, Members: 1, Online: true}}})
	two.kill()
	want("two is away", mqttfront.Interest{Plain: true, QoS: 2, Hold: week, Groups: []mqttfront.GroupInterest{
		{Name: "f", QoS: 2, Members: 1}, {Name: "g", QoS: 1, Members: 1}}})
	two, _ = connect(t, addr, connectOpts{id: "two", props: sessionExpiry(50), resume: true})
	want("two is back, for less", mqttfront.Interest{Plain: true, QoS: 2, Hold: 100 * time.Second, Groups: []mqttfront.GroupInterest{
		{Name: "f", QoS: 2, Members: 1, Online: true}, {Name: "g", QoS: 1, Members: 1, Online: true}}})
	two.unsubscribe("$share/f/a/#", "$share/g/a/#")
	want("two gave up", mqttfront.Interest{Plain: true, Hold: 100 * time.Second})
	connect(t, addr, connectOpts{id: "one"}) // clean
	want("one started anew", mqttfront.Interest{})
	if b.Stats().Subscriptions.Load() != 0 {
		t.Error("subscriptions are counted that are not there")
	}
}

// TestSubackWaits: SUBACK comes when the swarm has promised every filter, in order, and holds up nothing else
// [MQTT-3.8.4-1].
func TestSubackWaits(t *testing.T) {
	_, l, addr := start(t, nil)
	waits := map[string]chan struct{}{"slow/1": make(chan struct{}), "slow/2": make(chan struct{})}
	l.slow = func(f string) chan struct{} { return waits[f] }
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.send(c.subscribePacket(1, nil, filter{"slow/1", 0}, filter{"quick", 0}, filter{"slow/2", 0}))
	c.send(c.subscribePacket(2, nil, filter{"other", 0}))
	c.send(packet(0xa2, []byte{0, 3, 0}, str("other")))
	c.silent()
	if c.publish("x", "v") != 0 {
		t.Error("PUBACK")
	}
	close(waits["slow/2"])
	c.silent()
	l.mu.Lock()
	l.promise = mqttfront.PromiseLocal
	l.mu.Unlock()
	close(waits["slow/1"])
	ack := c.expect(packets.Suback)
	if ack.PacketID != 1 || fmt.Sprint(ack.Properties.User) != "[{promise local}]" {
		t.Errorf("SUBACK %d, %v", ack.PacketID, ack.Properties.User)
	}
	if ack := c.expect(packets.Suback); ack.PacketID != 2 || len(ack.Properties.User) > 0 {
		t.Errorf("SUBACK %d, %v", ack.PacketID, ack.Properties.User)
	}
	c.expect(packets.Unsuback)
}

func TestOverlap(t *testing.T) { // [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5] [MQTT3-3.3.5-1]
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	for _, version := range []byte{4, 5} {
		c, _ := connect(t, addr, connectOpts{id: "c", version: version})
		if version == 5 {
			c.send(c.subscribePacket(1, []byte{0x0b, 1}, filter{"a/#", 0}), c.subscribePacket(2, []byte{0x0b, 0xff, 0xff, 0xff, 0x7f}, filter{"a/+", 2}),
				c.subscribePacket(3, nil, filter{"a/b", 1}))
		} else {
			c.send(c.subscribePacket(1, nil, filter{"a/#", 0}), c.subscribePacket(2, nil, filter{"a/+", 2}), c.subscribePacket(3, nil, filter{"a/b", 1}))
		}
		for range 3 {
			c.expect(packets.Suback)
		}
		for qos := range byte(3) {
			pub.send(pub.publishPacket(qos<<1, uint16(version), "a/b", "v"))
			pk := c.expectPublish("v")
			ids := pk.Properties.SubscriptionIdentifier
			slices.Sort(ids)
			if pk.FixedHeader.Qos != qos || version == 5 && !slices.Equal(ids, []int{1, 268435455}) {
				t.Errorf("QoS %d to version %d: QoS %d, identifiers %v", qos, version, pk.FixedHeader.Qos, ids)
			}
		}
		c.silent() // one copy
		c.kill()
	}
}

func TestNoLocal(t *testing.T) { // [MQTT-3.8.3-3]
	_, _, addr := start(t, nil)
	other, _ := connect(t, addr, connectOpts{id: "other"})
	o := connectOpts{id: "c", props: sessionExpiry(60), resume: true}
	c, _ := connect(t, addr, o)
	c.subscribe(filter{"a", 4 | 1})
	for _, retain := range []byte{0, 1} { // retained ones come back from the swarm
		for qos := range byte(3) {
			c.send(c.publishPacket(qos<<1|retain, 1, "a", "mine"))
			switch qos {
			case 1:
				c.expect(packets.Puback)
			case 2:
				c.ack(packets.Pubrel, c.expect(packets.Pubrec).PacketID)
				c.expect(packets.Pubcomp)
			}
			other.send(other.publishPacket(qos<<1|retain, 1, "a", "theirs"), ackPacket(packets.Pubrel, 1))
			c.expectPublish("theirs")
		}
	}
	// another subscription without it still gets the message: one No Local does not silence an overlapping one
	c.subscribe(filter{"+", 2 | 2<<4})
	c.send(c.publishPacket(0, 0, "a", "mine"))
	if pk := c.expectPublish("mine"); pk.FixedHeader.Qos != 0 {
		t.Errorf("%+v", pk.FixedHeader)
	}
}

// TestBridge: a broker of MQTT 3 that says that it is one does not get its own messages back, and gets the others with
// the retain flag that they were published with. Its shared subscriptions are as everybody's.
func TestBridge(t *testing.T) {
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	id := uint16(0)
	for _, version := range []byte{3, 4} {
		name := fmt.Sprint("a", version)
		o := connectOpts{id: name, version: version, bridge: true, resume: true}
		c, _ := connect(t, addr, o)
		c.subscribe(filter{name, 1}, filter{"$share/g/shared", 1})
		for range 2 {
			for flags := range byte(6) {
				c.send(c.publishPacket(flags, 1, name, "mine"))
				switch flags >> 1 {
				case 1:
					c.expect(packets.Puback)
				case 2:
					c.ack(packets.Pubrel, c.expect(packets.Pubrec).PacketID)
					c.expect(packets.Pubcomp)
				}
				id++
				pub.send(pub.publishPacket(flags, id, name, "theirs"))
				pk := c.expectPublish("theirs")
				if pk.FixedHeader.Retain != (flags&1 == 1) {
					t.Errorf("flags %d came as %+v", flags, pk.FixedHeader)
				}
				if pk.PacketID > 0 {
					c.ack(packets.Puback, pk.PacketID)
				}
			}
			c.send(c.publishPacket(0, 0, "shared", "mine"))
			c.expectPublish("mine")
			c.kill()
			eventually(t, "away", func() bool { return b.Stats().Offline.Load() == int64(version)-2 })
			o.bridge = false // the subscription stays as it was made
			c, _ = connect(t, addr, o)
		}
		c.unsubscribe("$share/g/shared")
		c.kill()
		eventually(t, "away", func() bool { return b.Stats().Offline.Load() == int64(version)-2 })
	}
}

func TestRetained(t *testing.T) { // [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-9]
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	for i := range 3 {
		pub.send(pub.publishPacket(byte(i)<<1|1, 1, fmt.Sprintf("r/%d", i), fmt.Sprint(i), 0x01, 1))
	}
	pub.expect(packets.Puback)
	pub.expect(packets.Pubrec)
	pub.publish("r/0/x", "not retained") // [MQTT-3.3.1-8]
	pub.publish("r/1", "not retained")
	pub.publish("r/2", "")
	for _, f := range []string{"r/+", "r/#", "#", "+/+"} {
		c, _ := connect(t, addr, connectOpts{id: "c"})
		c.send(c.subscribePacket(1, []byte{0x0b, 9}, filter{f, 1}))
		c.expect(packets.Suback)
		for range 3 {
			pk := c.expect(packets.Publish)
			if h := pk.FixedHeader; !h.Retain || h.Dup || "r/"+string(pk.Payload) != pk.TopicName || h.Qos > 1 ||
				string(pk.Payload) != "0" && h.Qos != 1 || !slices.Equal(pk.Properties.SubscriptionIdentifier, []int{9}) || !pk.Properties.PayloadFormatFlag {
				t.Errorf("%s: %+v", f, pk)
			}
		}
		c.silent()
		c.send(c.subscribePacket(1, nil, filter{"$share/g/" + f, 1})) // never for shared ones
		c.expect(packets.Suback)
		c.silent()
	}
	pub.send(pub.publishPacket(1, 0, "r/1", "")) // cleared [MQTT-3.3.1-6] [MQTT-3.3.1-7]
	c, _ := connect(t, addr, connectOpts{id: "c", version: 4})
	pub.silent()
	c.subscribe(filter{"r/1", 1}, filter{"r/2/#", 1}) // a/# meets a
	c.expectPublish("2")
	c.silent()
}

func TestRetainFlags(t *testing.T) { // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.3.1-12] [MQTT-3.3.1-13]
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	pub.send(pub.publishPacket(3, 1, "a", "v"))
	pub.expect(packets.Puback)
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.subscribe(filter{"a", 1 | 2<<4}) // never
	c.silent()
	c.subscribe(filter{"a", 1 | 1<<4}) // only for new ones, and this is none
	c.silent()
	c.subscribe(filter{"a", 1})
	c.expectPublish("v")
	c.unsubscribe("a")
	c.subscribe(filter{"a", 1 | 1<<4})
	c.expectPublish("v")
	asIs, _ := connect(t, addr, connectOpts{id: "asis"})
	asIs.subscribe(filter{"a", 1 | 8 | 2<<4})
	for retain := range byte(2) {
		for qos := range byte(2) {
			pub.send(pub.publishPacket(qos<<1|retain, 1, "a", "live"))
			if pk := c.expectPublish("live"); pk.FixedHeader.Retain {
				t.Error("the flag came with a live message")
			}
			if pk := asIs.expectPublish("live"); pk.FixedHeader.Retain != (retain == 1) {
				t.Error("retain as published")
			}
		}
	}
}

// TestRetainedBehindLive: an answer that is older than what came live meanwhile is not passed on, and the answer
// never comes before the SUBACK.
func TestRetainedBehindLive(t *testing.T) {
	_, l, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	pub.send(pub.publishPacket(3, 1, "a", "old"), pub.publishPacket(3, 2, "b", "kept"))
	pub.expect(packets.Puback)
	pub.expect(packets.Puback)
	wait := make(chan struct{})
	l.slow = func(string) chan struct{} { return wait }
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.send(c.subscribePacket(1, nil, filter{"+", 1}))
	c.silent()
	pub.send(pub.publishPacket(3, 1, "a", "new"))
	c.expectPublish("new")
	close(wait)
	c.expect(packets.Suback)
	c.expectPublish("kept")
	c.silent()
}

// TestManyRetained: more retained QoS 0 messages than may wait for a socket come all the same.
func TestManyRetained(t *testing.T) {
	_, _, addr := start(t, func(c *mqttfront.Config) { c.MaxPendingBytes = 8 << 10 })
	const n = 5000
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	for i := range n {
		pub.send(pub.publishPacket(1, 0, fmt.Sprintf("r/%d", i), strings.Repeat("x", 50)))
	}
	pub.silent()
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.subscribe(filter{"r/+", 0})
	seen := map[string]bool{}
	for range n {
		seen[c.expect(packets.Publish).TopicName] = true
	}
	if len(seen) != n {
		t.Errorf("%d different topics", len(seen))
	}
	c.silent()
}

func TestShared(t *testing.T) { // [MQTT-4.8.2-3]
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	var members []*raw
	for i := range 3 {
		m, _ := connect(t, addr, connectOpts{id: fmt.Sprint("m", i)})
		m.subscribe(filter{"$share/g/a/#", byte(i)})
		members = append(members, m)
	}
	plain, _ := connect(t, addr, connectOpts{id: "plain"})
	plain.subscribe(filter{"a/b", 0})
	for i := range 30 {
		pub.send(pub.publishPacket(4, uint16(i+1), "a/b", fmt.Sprint(i)))
		pub.ack(packets.Pubrel, pub.expect(packets.Pubrec).PacketID)
		pub.expect(packets.Pubcomp)
		plain.expectPublish(fmt.Sprint(i))
	}
	for i, m := range members {
		for range 10 { // in turn
			if pk := m.expect(packets.Publish); int(pk.FixedHeader.Qos) != i {
				t.Errorf("member %d got QoS %d", i, pk.FixedHeader.Qos)
			}
		}
	}
	plain.silent()
	for _, m := range members {
		m.silent()
	}
	for _, m := range members { // what one had not acknowledged goes to another
		m.kill()
	}
	eventually(t, "they are gone", func() bool { return b.Stats().Sessions.Load() == 2 })
	pub.publish("a/b", "nobody")
}

// TestSharedSkipsTheBusy: a member without a window is passed over, and one that is away gets nothing while
// others are there.
func TestSharedSkipsTheBusy(t *testing.T) {
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	busy, _ := connect(t, addr, connectOpts{id: "busy", props: u16(0x21, 1)})
	busy.subscribe(filter{"$share/g/a", 1})
	ready, _ := connect(t, addr, connectOpts{id: "ready"})
	ready.subscribe(filter{"$share/g/a", 1})
	away, _ := connect(t, addr, connectOpts{id: "away", props: sessionExpiry(60)})
	away.subscribe(filter{"$share/g/a", 1})
	away.kill()
	eventually(t, "away", func() bool { return b.Stats().Offline.Load() == 1 })
	fill(pub, 1, 0, 11)
	busy.expectPublish("0")
	for i := 1; i < 11; i++ {
		ready.expectPublish(fmt.Sprint(i))
	}
	busy.silent()
	// what they have not acknowledged goes to others when they leave for good
	ready.kill()
	eventually(t, "ready left", func() bool { return b.Stats().Sessions.Load() == 3 })
	busy.ack(packets.Puback, 1)
	busy.expectPublish("1")
	busy.bye()
	eventually(t, "busy left", func() bool { return b.Stats().Sessions.Load() == 2 })
	away, _ = connect(t, addr, connectOpts{id: "away", props: sessionExpiry(60), resume: true})
	var got []string
	for range 10 {
		p := away.expect(packets.Publish)
		got = append(got, string(p.Payload))
	}
	slices.Sort(got)
	if fmt.Sprint(got) != "[1 10 2 3 4 5 6 7 8 9]" {
		t.Errorf("%v", got)
	}
}

// TestSharedQoS2Stays [MQTT-4.8.2-5]: QoS 2 that was sent is not sent to another.
func TestSharedQoS2Stays(t *testing.T) {
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	first, _ := connect(t, addr, connectOpts{id: "first"})
	first.subscribe(filter{"$share/g/a", 2})
	fill(pub, 2, 0, 1)
	first.expectPublish("0")
	second, _ := connect(t, addr, connectOpts{id: "second"})
	second.subscribe(filter{"$share/g/a", 2})
	first.kill()
	eventually(t, "first left", func() bool { return b.Stats().Sessions.Load() == 2 })
	second.silent()
	if b.Stats().DropEnded.Load() != 1 {
		t.Error("not counted")
	}
}
