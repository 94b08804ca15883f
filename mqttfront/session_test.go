package mqttfront_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

// fill publishes numbered messages at a QoS to topic a.
func fill(pub *raw, qos byte, from, to int) {
	pub.t.Helper()
	for i := from; i < to; i++ {
		pub.send(pub.publishPacket(qos<<1, uint16(i%60000+1), "a", fmt.Sprint(i)))
		switch qos {
		case 1:
			pub.expect(packets.Puback)
		case 2:
			pub.ack(packets.Pubrel, pub.expect(packets.Pubrec).PacketID)
			pub.expect(packets.Pubcomp)
		}
	}
}

// TestResume has sessions go on after their connections: what is unacknowledged comes again, in order, and what was kept
// meanwhile behind it [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT-3.3.1-3] [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-5]
// [MQTT-4.3.3-6] [MQTT-4.5.0-1] [MQTT-3.1.2-23] [MQTT3-4.4.0-1] [MQTT3-4.6.0-1] [MQTT3-3.3.1-1] [MQTT3-2.3.1-4] [MQTT3-3.1.2-4]
// [MQTT3-3.1.2-5] [MQTT3-4.5.0-1].
func TestResume(t *testing.T) {
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	for _, version := range []byte{4, 5} {
		o := connectOpts{id: fmt.Sprint("sub", version), version: version, resume: true}
		if version == 5 {
			o.props = append(sessionExpiry(60), u16(0x21, 20)...)
		}
		sub, ack := connect(t, addr, o)
		if ack.SessionPresent { // [MQTT-3.1.2-6] [MQTT-3.2.2-3] [MQTT3-3.2.2-3]
			t.Fatal("a session from nowhere")
		}
		sub.subscribe(filter{"a", 2})
		for i := range 10 { // alternating QoS 1 and 2
			fill(pub, byte(i%2)+1, i, i+1)
		}
		var sent []*packets.Packet
		for i := range 10 {
			sent = append(sent, sub.expectPublish(fmt.Sprint(i)))
		}
		for i, pk := range sent {
			switch i {
			case 2: // acknowledged
				sub.ack(packets.Puback, pk.PacketID)
			case 5: // on its way
				sub.ack(packets.Pubrec, pk.PacketID)
				sub.expect(packets.Pubrel)
			case 7: // done
				sub.ack(packets.Pubrec, pk.PacketID)
				sub.expect(packets.Pubrel)
				sub.ack(packets.Pubcomp, pk.PacketID)
			}
		}
		sub.silent()
		sub.kill()
		eventually(t, "offline", func() bool { return b.Stats().Offline.Load() == 1 })
		fill(pub, 1, 10, 13)
		sub, ack = connect(t, addr, o)
		if !ack.SessionPresent { // [MQTT-3.1.2-5] [MQTT-3.2.2-3] [MQTT3-3.2.2-2]
			t.Fatal("the session is gone")
		}
		sent = nil
		for _, i := range []int{0, 1, 3, 4, -5, 6, 8, 9, 10, 11, 12} {
			if i == -5 {
				if rel := sub.expect(packets.Pubrel); rel.PacketID != 6 {
					t.Errorf("PUBREL for %d", rel.PacketID)
				}
				continue
			}
			pk := sub.expectPublish(fmt.Sprint(i))
			if pk.FixedHeader.Dup != (i < 10) || pk.PacketID != uint16(i+1) {
				t.Errorf("message %d: dup %v, packet ID %d", i, pk.FixedHeader.Dup, pk.PacketID)
			}
			sent = append(sent, pk)
		}
		for _, pk := range sent {
			if pk.FixedHeader.Qos == 1 {
				sub.ack(packets.Puback, pk.PacketID)
			} else {
				sub.ack(packets.Pubrec, pk.PacketID)
				sub.expect(packets.Pubrel)
				sub.ack(packets.Pubcomp, pk.PacketID)
			}
		}
		sub.ack(packets.Pubcomp, 6)
		sub.silent()
		eventually(t, "nothing is queued", func() bool { return b.Stats().QueuedMessages.Load() == 0 })
		o.resume = false
		sub, ack = connect(t, addr, o) // [MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT3-3.1.2-6] [MQTT3-3.1.4-3]
		if ack.SessionPresent {        // [MQTT-3.2.2-2] [MQTT3-3.2.2-1]
			t.Error("a clean start finds a session")
		}
		fill(pub, 1, 20, 21)
		sub.silent()
		sub.kill()
	}
	if b.Stats().QueuedBytes.Load() != 0 || b.Stats().QueuedMessages.Load() != 0 {
		t.Error("the accounts of queues are wrong")
	}
}

// TestReceiveMaximumOfClient: the window of the client is kept to, at resume too, without stall or loss [MQTT-3.3.4-9]
// [MQTT-4.9.0-1] [MQTT-4.9.0-2].
func TestReceiveMaximumOfClient(t *testing.T) {
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "sub", props: append(sessionExpiry(60), u16(0x21, 3)...)}
	sub, _ := connect(t, addr, o)
	sub.subscribe(filter{"a", 2})
	fill(pub, 1, 0, 4)
	fill(pub, 2, 4, 12)
	ids := []uint16{}
	for i := range 3 {
		ids = append(ids, sub.expectPublish(fmt.Sprint(i)).PacketID)
	}
	sub.silent()
	sub.ack(packets.Puback, ids[0])
	sub.expectPublish("3")
	for range 5 { // stray ones open no window
		sub.ack(packets.Puback, ids[0])
		sub.ack(packets.Pubcomp, 1)
	}
	sub.silent()
	sub.kill()
	o.resume = true
	o.props = append(sessionExpiry(60), u16(0x21, 2)...) // smaller than what is on its way
	sub, _ = connect(t, addr, o)
	var open []*packets.Packet
	for i := 1; i < 12; i++ {
		pk := sub.expectPublish(fmt.Sprint(i))
		if pk.FixedHeader.Dup != (i < 4) {
			t.Errorf("message %d: dup %v", i, pk.FixedHeader.Dup)
		}
		open = append(open, pk)
		if len(open) < 2 {
			continue
		}
		sub.silent()
		first := open[0]
		open = open[1:]
		if first.FixedHeader.Qos == 1 {
			sub.ack(packets.Puback, first.PacketID)
			continue
		}
		sub.ack(packets.Pubrec, first.PacketID)
		sub.expect(packets.Pubrel)
		sub.silent() // the window opens at PUBCOMP
		sub.ack(packets.Pubcomp, first.PacketID)
	}
}

func TestPubrecRefusal(t *testing.T) { // an error ends the exchange [MQTT-4.3.3-4]
	_, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	sub, _ := connect(t, addr, connectOpts{id: "sub", props: u16(0x21, 1)})
	sub.subscribe(filter{"a", 2})
	fill(pub, 2, 0, 2)
	pk := sub.expectPublish("0")
	sub.send([]byte{0x50, 3, byte(pk.PacketID >> 8), byte(pk.PacketID), 0x97})
	sub.expectPublish("1") // and no PUBREL
}

func TestSessionExpiry(t *testing.T) { // [MQTT-3.1.2-23] [MQTT-4.1.0-2]
	b, l, addr := start(t, nil)
	o := connectOpts{id: "c", props: sessionExpiry(1)}
	c, _ := connect(t, addr, o)
	c.subscribe(filter{"a/b", 1})
	if in := l.interest("a/b"); !in.Plain || in.QoS != 1 || in.Hold != time.Second {
		t.Errorf("interest %+v", in)
	}
	c.bye()
	o.resume = true
	c, ack := connect(t, addr, o)
	if !ack.SessionPresent {
		t.Fatal("gone too early")
	}
	c.bye()
	eventually(t, "the session ends", func() bool { return b.Stats().Sessions.Load() == 0 })
	eventually(t, "it is subscribed to nothing", func() bool {
		return l.interest("a/b").Zero() && b.Stats().Subscriptions.Load() == 0
	})
	if _, ack = connect(t, addr, o); ack.SessionPresent {
		t.Error("it came back")
	}
}

func TestSessionExpiryInDisconnect(t *testing.T) {
	b, _, addr := start(t, nil)
	c, _ := connect(t, addr, connectOpts{id: "c", props: sessionExpiry(60)})
	c.send(packet(0xe0, []byte{0}, sized(sessionExpiry(0))))
	c.expectEnd()
	eventually(t, "the session ends", func() bool { return b.Stats().Sessions.Load() == 0 })
	c, _ = connect(t, addr, connectOpts{id: "c"})
	c.send(packet(0xe0, []byte{0}, sized(sessionExpiry(60))))
	c.expectDisconnect(0x82)
}

// TestStress has a session move between connections all the time while messages come at QoS 2: each arrives once,
// in order.
func TestStress(t *testing.T) {
	_, _, addr := start(t, nil)
	const n = 2000
	o := connectOpts{id: "sub", props: append(sessionExpiry(60), u16(0x21, 7)...), resume: true}
	sub, _ := connect(t, addr, o)
	sub.subscribe(filter{"a", 2})
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	go func() {
		for i := range n {
			if i%500 == 499 {
				time.Sleep(5 * time.Millisecond)
			}
			pub.nc.Write(pub.publishPacket(4, uint16(i%1000+1), "a", fmt.Sprint(i)))
			pk, err := pub.next(patience)
			if err != nil {
				return
			}
			pub.nc.Write(ackPacket(packets.Pubrel, pk.PacketID))
			pub.next(patience)
		}
	}()
	got := 0
	held := map[uint16]bool{} // received, not released
	for got < n || len(held) > 0 {
		for range 50 {
			pk, err := sub.next(patience)
			if err != nil {
				t.Fatalf("after %d: %v", got, err)
			}
			switch pk.FixedHeader.Type {
			case packets.Publish:
				if !held[pk.PacketID] {
					if string(pk.Payload) != fmt.Sprint(got) {
						t.Fatalf("%s came, want %d", pk.Payload, got)
					}
					got++
					held[pk.PacketID] = true
				}
				sub.ack(packets.Pubrec, pk.PacketID)
			case packets.Pubrel:
				delete(held, pk.PacketID)
				sub.ack(packets.Pubcomp, pk.PacketID)
			}
			if got == n && len(held) == 0 {
				return
			}
		}
		if got%2 == 0 {
			sub.kill()
		}
		var ack *packets.Packet
		if sub, ack = connect(t, addr, o); !ack.SessionPresent {
			t.Fatal("the session is gone")
		}
	}
}

func TestQueueLimits(t *testing.T) {
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxStoredMessages, c.MaxStoredBytes = 10, 1000 })
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "sub", props: sessionExpiry(60)}
	sub, _ := connect(t, addr, o)
	sub.subscribe(filter{"a", 1})
	sub.bye()
	fill(pub, 1, 0, 15) // the newest five go
	pub.send(pub.publishPacket(0, 0, "a", "QoS 0 does not wait"))
	pub.silent()
	o.resume = true
	sub, _ = connect(t, addr, o)
	for i := range 10 {
		sub.ack(packets.Puback, sub.expectPublish(fmt.Sprint(i)).PacketID)
	}
	sub.silent()
	if n := b.Stats().DropQueue.Load(); n != 5 {
		t.Errorf("%d counted", n)
	}
	sub.bye()
	for range 3 {
		pub.publish("a", string(make([]byte, 400)))
	}
	if n := b.Stats().DropQueue.Load(); n != 6 {
		t.Errorf("%d counted, want one more by bytes", n)
	}
}

// TestSpill has more in a queue than is kept in memory.
func TestSpill(t *testing.T) {
	b, _, addr := start(t, nil)
	const n = 7000
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "sub", props: sessionExpiry(60), resume: true}
	sub, _ := connect(t, addr, o)
	sub.subscribe(filter{"a", 1})
	sub.bye()
	fill(pub, 1, 0, n)
	sub, _ = connect(t, addr, o)
	for i := range n {
		pk := sub.expectPublish(fmt.Sprint(i))
		sub.ack(packets.Puback, pk.PacketID)
		if i == n/2 {
			fill(pub, 1, n, n+10)
		}
	}
	for i := n; i < n+10; i++ {
		sub.ack(packets.Puback, sub.expectPublish(fmt.Sprint(i)).PacketID)
	}
	sub.silent()
	if b.Stats().QueuedMessages.Load() != 0 || b.Stats().DropQueue.Load() != 0 {
		t.Error("accounts")
	}
}

// TestRestart: a broker on the same store goes on where the one before stopped.
func TestRestart(t *testing.T) {
	st := storetest.NewSessions()
	b, _, addr := startWith(t, newLoner(), st, nil, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "sub", props: append(sessionExpiry(60), u16(0x21, 4)...), resume: true}
	sub, _ := connect(t, addr, o)
	sub.subscribe(filter{"a", 2}, filter{"$share/g/b", 1})
	o2 := connectOpts{id: "two", props: sessionExpiry(60), resume: true}
	two, _ := connect(t, addr, o2)
	two.send(two.publishPacket(4, 5, "x", "v"))
	two.expect(packets.Pubrec)
	fill(pub, 2, 0, 6)
	for i := range 4 {
		sub.expectPublish(fmt.Sprint(i))
	}
	sub.ack(packets.Pubrec, 1)
	sub.expect(packets.Pubrel)
	sub.ack(packets.Pubrec, 2)
	sub.expect(packets.Pubrel)
	sub.ack(packets.Pubcomp, 2)
	sub.expectPublish("4")
	sub.silent()
	b.Close()

	_, l, addr := startWith(t, newLoner(), st, nil, nil)
	if in := l.interest("a"); !in.Plain || in.Hold != time.Minute {
		t.Errorf("interest %+v", in)
	}
	if in := l.interest("b"); len(in.Groups) != 1 || in.Groups[0].Members != 1 || in.Groups[0].Online {
		t.Errorf("interest %+v", in)
	}
	sub, ack := connect(t, addr, o)
	if !ack.SessionPresent {
		t.Fatal("no session")
	}
	if rel := sub.expect(packets.Pubrel); rel.PacketID != 1 {
		t.Errorf("PUBREL for %d", rel.PacketID)
	}
	for _, i := range []int{2, 3, 4, 5} {
		if pk := sub.expectPublish(fmt.Sprint(i)); pk.FixedHeader.Dup != (i < 5) {
			t.Errorf("message %d: dup %v", i, pk.FixedHeader.Dup)
		}
	}
	two, _ = connect(t, addr, o2)
	two.send(two.publishPacket(0xc, 5, "x", "v")) // was received
	two.expect(packets.Pubrec)
	two.ack(packets.Pubrel, 5)
	if comp := two.expect(packets.Pubcomp); comp.ReasonCode != 0 {
		t.Errorf("PUBCOMP 0x%02x", comp.ReasonCode)
	}
}

// TestSessionsOfUsers: a client ID is a user's own.
func TestSessionsOfUsers(t *testing.T) {
	_, _, addr := start(t, nil)
	alice, _ := connect(t, addr, connectOpts{id: "c", user: "alice", props: sessionExpiry(60), resume: true})
	_, ack := connect(t, addr, connectOpts{id: "c", user: "bob", props: sessionExpiry(60), resume: true})
	if ack.SessionPresent {
		t.Error("bob got alice's session")
	}
	alice.silent()
}
