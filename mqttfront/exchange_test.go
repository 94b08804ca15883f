package mqttfront_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// versions are those that most tests run with.
var versions = []byte{4, 5}

// expectBytes reads exactly these.
func (r *raw) expectBytes(want ...byte) {
	r.t.Helper()
	r.nc.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r.br, got); err != nil || !bytes.Equal(got, want) {
		r.t.Fatalf("% x came, want % x (%v)", got[:n], want, err)
	}
}

// TestBytes reads what the broker sends, byte by byte: flags as they must be, packet identifiers where they belong and as
// they were, properties or a length of 0 [MQTT-1.5.5-1] [MQTT-2.1.3-1] [MQTT-2.2.1-2] [MQTT-2.2.1-5] [MQTT-2.2.1-6]
// [MQTT-2.2.2-1] [MQTT-3.3.4-1] [MQTT-3.3.2-1] [MQTT-3.6.1-1] [MQTT-3.8.4-2] [MQTT-3.10.4-5] [MQTT-3.12.4-1] [MQTT-4.3.1-1]
// [MQTT-4.3.2-2] [MQTT-4.3.2-4] [MQTT-4.3.3-2] [MQTT-4.3.3-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11].
func TestBytes(t *testing.T) {
	_, _, addr := start(t, nil)
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.send([]byte{0xc0, 0})
	c.expectBytes(0xd0, 0)
	c.send(c.subscribePacket(0x1234, nil, filter{"a", 2}))
	c.expectBytes(0x90, 4, 0x12, 0x34, 0, 2)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	pub.send(pub.publishPacket(0, 0, "a", "0"))
	c.expectBytes(0x30, 5, 0, 1, 'a', 0, '0')
	pub.send(pub.publishPacket(2, 0x4711, "a", "1"))
	pub.expectBytes(0x40, 2, 0x47, 0x11)
	c.expectBytes(0x32, 7, 0, 1, 'a', 0, 1, 0, '1')
	pub.send(pub.publishPacket(4, 0x0815, "a", "2"))
	pub.expectBytes(0x50, 2, 0x08, 0x15)
	pub.ack(packets.Pubrel, 0x0815)
	pub.expectBytes(0x70, 2, 0x08, 0x15)
	c.expectBytes(0x34, 7, 0, 1, 'a', 0, 2, 0, '2')
	c.ack(packets.Puback, 1)
	c.ack(packets.Pubrec, 2)
	c.expectBytes(0x62, 2, 0, 2)
	c.ack(packets.Pubcomp, 2)
	pub.send(pub.publishPacket(0, 0, "a", string(make([]byte, 128-4)), 0x01, 1)) // a remaining length of 2 bytes
	c.expectBytes(append([]byte{0x30, 0x82, 1, 0, 1, 'a', 2, 1, 1}, make([]byte, 128-4)...)...)
	c.send(packet(0xa2, []byte{0x43, 0x21, 0}, str("a"), str("b")))
	c.expectBytes(0xb0, 5, 0x43, 0x21, 0, 0, 0x11)
	c.silent()
}

// TestBytes311 is the same for MQTT 3.1.1 [MQTT3-2.2.2-1] [MQTT3-2.3.1-1] [MQTT3-2.3.1-5] [MQTT3-2.3.1-6] [MQTT3-2.3.1-7]
// [MQTT3-3.3.2-1] [MQTT3-3.3.4-1] [MQTT3-3.8.4-1] [MQTT3-3.8.4-2] [MQTT3-3.10.4-4] [MQTT3-3.12.4-1] [MQTT3-4.3.1-1]
// [MQTT3-4.3.2-1] [MQTT3-4.3.2-2] [MQTT3-4.3.3-1] [MQTT3-4.3.3-2].
func TestBytes311(t *testing.T) {
	_, _, addr := start(t, nil)
	c, _ := connect(t, addr, connectOpts{id: "c", version: 4})
	c.send([]byte{0xc0, 0})
	c.expectBytes(0xd0, 0)
	c.send(c.subscribePacket(0x1234, nil, filter{"a", 2}))
	c.expectBytes(0x90, 3, 0x12, 0x34, 2)
	pub, _ := connect(t, addr, connectOpts{id: "pub", version: 4})
	pub.send(pub.publishPacket(0, 0, "a", "0"))
	c.expectBytes(0x30, 4, 0, 1, 'a', '0')
	pub.send(append([]byte{0x30, 0x84, 0}, "\x00\x01a0"...)) // a length of more bytes than it needs goes no further
	c.expectBytes(0x30, 4, 0, 1, 'a', '0')
	pub.send(pub.publishPacket(2, 0x4711, "a", "1"))
	pub.expectBytes(0x40, 2, 0x47, 0x11)
	c.expectBytes(0x32, 6, 0, 1, 'a', 0, 1, '1')
	pub.send(pub.publishPacket(4, 0x0815, "a", "2"))
	pub.expectBytes(0x50, 2, 0x08, 0x15)
	pub.ack(packets.Pubrel, 0x0815)
	pub.expectBytes(0x70, 2, 0x08, 0x15)
	c.expectBytes(0x34, 6, 0, 1, 'a', 0, 2, '2')
	c.ack(packets.Puback, 1)
	c.ack(packets.Pubrec, 2)
	c.expectBytes(0x62, 2, 0, 2)
	c.ack(packets.Pubcomp, 2)
	c.send(packet(0xa2, []byte{0x43, 0x21}, str("a"), str("b")))
	c.expectBytes(0xb0, 2, 0x43, 0x21)
	c.silent()
}

// TestPacketIDsInUse: while a client acknowledges some messages and not others, no packet identifier is given out that is
// in use [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT3-2.3.1-4] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1].
func TestPacketIDsInUse(t *testing.T) {
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	for _, version := range versions {
		c, _ := connect(t, addr, connectOpts{id: "c", version: version})
		c.subscribe(filter{"a", 2})
		open := map[uint16]bool{}
		for i := range 300 {
			qos := byte(i%2) + 1
			fill(pub, qos, i, i+1)
			pk := c.expectPublish(fmt.Sprint(i))
			if pk.PacketID == 0 || open[pk.PacketID] || pk.FixedHeader.Dup || pk.FixedHeader.Qos != qos {
				t.Fatalf("message %d: %+v, packet ID %d", i, pk.FixedHeader, pk.PacketID)
			}
			open[pk.PacketID] = true
			switch {
			case i%5 == 0: // stays open
				continue
			case qos == 1:
				c.ack(packets.Puback, pk.PacketID)
			default:
				c.ack(packets.Pubrec, pk.PacketID)
				c.expect(packets.Pubrel)
				c.ack(packets.Pubcomp, pk.PacketID)
			}
			delete(open, pk.PacketID)
		}
		c.kill()
	}
}

// TestSamePacketID: under the packet identifier of a message that is over comes a new one, marked DUP or not; DUP goes no
// further than the broker [MQTT-3.3.1-3] [MQTT-4.3.2-5] [MQTT-4.3.3-10] [MQTT-4.3.3-12] [MQTT3-3.3.1-3] [MQTT3-4.3.2-2]
// [MQTT3-4.3.3-2].
func TestSamePacketID(t *testing.T) {
	_, _, addr := start(t, nil)
	for _, version := range versions {
		pub, _ := connect(t, addr, connectOpts{id: "pub", version: version})
		sub, _ := connect(t, addr, connectOpts{id: "sub", version: version})
		sub.subscribe(filter{"a", 1})
		came := func(payload string) {
			t.Helper()
			if pk := sub.expectPublish(payload); pk.FixedHeader.Dup {
				t.Errorf("version %d: %s came with DUP", version, payload)
			} else {
				sub.ack(packets.Puback, pk.PacketID)
			}
		}
		for i, dup := range []byte{0, 8, 8} {
			pub.send(pub.publishPacket(2|dup, 5, "a", fmt.Sprint("one ", i)))
			pub.expect(packets.Puback)
			came(fmt.Sprint("one ", i))
		}
		for i := range 3 {
			for range 3 { // the first may say DUP too, if we never had it
				pub.send(pub.publishPacket(4|8, 5, "a", fmt.Sprint("two ", i)))
				pub.expect(packets.Pubrec)
			}
			pub.ack(packets.Pubrel, 5)
			if comp := pub.expect(packets.Pubcomp); comp.PacketID != 5 {
				t.Errorf("PUBCOMP for %d", comp.PacketID)
			}
			came(fmt.Sprint("two ", i))
		}
		sub.silent()
	}
}

// TestAckOrders: acknowledgements keep the order of what they answer [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4]
// [MQTT3-4.6.0-2] [MQTT3-4.6.0-3] [MQTT3-4.6.0-4].
func TestAckOrders(t *testing.T) {
	_, l, addr := start(t, nil)
	for _, version := range versions {
		pub, _ := connect(t, addr, connectOpts{id: "pub", version: version})
		for qos := byte(1); qos <= 2; qos++ {
			hold := make(chan struct{})
			l.hold = hold // each batch is accepted by a goroutine of its own, whichever runs first
			for i := uint16(1); i <= 20; i++ {
				pub.send(pub.publishPacket(qos<<1, i, "b", "v"))
			}
			pub.silent()
			close(hold)
			for i := uint16(1); i <= 20; i++ {
				if pk := pub.expect(packets.Puback + qos - 1); pk.PacketID != i {
					t.Fatalf("QoS %d: the answer to %d came, want %d", qos, pk.PacketID, i)
				}
			}
			l.hold = nil
		}
		c, _ := connect(t, addr, connectOpts{id: "c", version: version})
		c.subscribe(filter{"a", 2})
		fill(pub, 2, 100, 104)
		for i := range 4 {
			c.expectPublish(fmt.Sprint(100 + i))
		}
		order := []uint16{3, 1, 4, 2}
		for _, id := range order {
			c.ack(packets.Pubrec, id)
		}
		for _, id := range order {
			if rel := c.expect(packets.Pubrel); rel.PacketID != id {
				t.Errorf("PUBREL %d, want %d", rel.PacketID, id)
			}
		}
	}
}

// TestFullWindow: with its window full a client gets no more messages above QoS 0, and everything else as before
// [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-2] [MQTT-4.9.0-3].
func TestFullWindow(t *testing.T) {
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	c, _ := connect(t, addr, connectOpts{id: "c", props: u16(0x21, 2)})
	c.subscribe(filter{"a", 2})
	fill(pub, 2, 0, 4)
	c.expectPublish("0")
	c.expectPublish("1")
	c.silent() // PINGREQ is answered
	if c.subscribe(filter{"b", 1})[0] != 1 || c.publish("x", "v") != 0 || c.unsubscribe("b")[0] != 0 {
		t.Error("refused")
	}
	c.send(c.publishPacket(4, 1, "x", "v"))
	c.expect(packets.Pubrec)
	c.ack(packets.Pubrel, 1)
	c.expect(packets.Pubcomp)
	c.ack(packets.Pubrec, 1)
	c.expect(packets.Pubrel)
	c.silent() // PUBREC opens no window
	c.ack(packets.Pubcomp, 1)
	c.expectPublish("2")
	c.silent()
}

// TestRefusedByClient: a message that the client refuses is over: it is not sent again, nor to another member of a shared
// subscription [MQTT-4.4.0-2] [MQTT-4.8.2-6].
func TestRefusedByClient(t *testing.T) {
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "picky", props: sessionExpiry(60), resume: true}
	for _, name := range []string{"a", "$share/g/a"} {
		for qos := byte(1); qos <= 2; qos++ {
			c, _ := connect(t, addr, o)
			c.subscribe(filter{name, 2})
			fill(pub, qos, 0, 1)
			pk := c.expectPublish("0")
			other, _ := connect(t, addr, connectOpts{id: "other"})
			other.subscribe(filter{"$share/g/a", 2})
			c.send([]byte{packets.Puback<<4 + (qos-1)<<4, 3, byte(pk.PacketID >> 8), byte(pk.PacketID), 0x83})
			c.silent() // no PUBREL
			c.kill()
			eventually(t, "away", func() bool { return b.Stats().Offline.Load() == 1 })
			c, _ = connect(t, addr, o)
			c.silent()
			c.unsubscribe(name)
			c.kill()
			other.silent()
			other.bye()
			eventually(t, "nobody is here", func() bool { return b.Stats().Connections.Load() == 1 })
		}
	}
}

// TestExpiryOfQoS2: a QoS 2 message that was sent does not expire any more, and one that expired is received to its end
// [MQTT-4.3.3-7] [MQTT-4.3.3-13].
func TestExpiryOfQoS2(t *testing.T) {
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "sub", props: sessionExpiry(60), resume: true}
	sub, _ := connect(t, addr, o)
	sub.subscribe(filter{"a", 2})
	pub.send(pub.publishPacket(4, 1, "a", "sent", u32(2, 1)...))
	pub.expect(packets.Pubrec)
	id := sub.expectPublish("sent").PacketID
	sub.kill()
	eventually(t, "away", func() bool { return b.Stats().Offline.Load() == 1 })
	pub.send(pub.publishPacket(4, 2, "a", "not sent", u32(2, 1)...))
	pub.expect(packets.Pubrec)
	time.Sleep(1100 * time.Millisecond) // until both have expired
	for id := uint16(1); id <= 2; id++ {
		pub.ack(packets.Pubrel, id)
		if comp := pub.expect(packets.Pubcomp); comp.PacketID != id || comp.ReasonCode != 0 {
			t.Errorf("PUBCOMP %+v", comp)
		}
	}
	sub, _ = connect(t, addr, o)
	if pk := sub.expectPublish("sent"); pk.PacketID != id || !pk.FixedHeader.Dup {
		t.Errorf("%+v", pk.FixedHeader)
	}
	sub.ack(packets.Pubrec, id)
	sub.expect(packets.Pubrel)
	sub.ack(packets.Pubcomp, id)
	sub.silent()
}

// TestSharedQoS2Completes: a QoS 2 message that a member was sent when its connection broke is completed with it, and with
// nobody else, when it comes back [MQTT-4.8.2-4].
func TestSharedQoS2Completes(t *testing.T) {
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "first", props: sessionExpiry(60), resume: true}
	first, _ := connect(t, addr, o)
	first.subscribe(filter{"$share/g/a", 2})
	fill(pub, 2, 0, 1)
	id := first.expectPublish("0").PacketID
	second, _ := connect(t, addr, connectOpts{id: "second"})
	second.subscribe(filter{"$share/g/a", 2})
	first.kill()
	eventually(t, "away", func() bool { return b.Stats().Offline.Load() == 1 })
	second.silent()
	first, _ = connect(t, addr, o)
	if pk := first.expectPublish("0"); pk.PacketID != id || !pk.FixedHeader.Dup {
		t.Errorf("%+v", pk.FixedHeader)
	}
	first.ack(packets.Pubrec, id)
	first.expect(packets.Pubrel)
	first.ack(packets.Pubcomp, id)
	first.silent()
	second.silent()
}

// TestSharedFits: a message goes to a member that takes one as large.
func TestSharedFits(t *testing.T) {
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	small, _ := connect(t, addr, connectOpts{id: "small", props: u32(0x27, 100)})
	small.subscribe(filter{"$share/g/a", 1})
	large, _ := connect(t, addr, connectOpts{id: "large"})
	large.subscribe(filter{"$share/g/a", 1})
	big := string(make([]byte, 200))
	for qos := range byte(2) {
		for range 4 {
			pub.send(pub.publishPacket(qos<<1, 1, "a", big))
			if pk := large.expectPublish(big); qos > 0 {
				large.ack(packets.Puback, pk.PacketID)
			}
		}
	}
	small.silent()
	large.bye()
	eventually(t, "large left", func() bool { return b.Stats().Connections.Load() == 2 })
	pub.send(pub.publishPacket(2, 1, "a", big), pub.publishPacket(2, 2, "a", "small"))
	small.expectPublish("small") // nobody takes the other: it counts as sent [MQTT-3.1.2-25]
	if n := b.Stats().DropTooLarge.Load(); n != 1 {
		t.Errorf("%d counted", n)
	}
}
