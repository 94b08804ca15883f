package mqttfront_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

// TestOrderBehindRetained: a retained message, which comes back by way of its rendezvous, is not overtaken by those
// that its publisher sends right behind it, wherever they end up in what is read at once [MQTT-4.6.0-5] [MQTT-4.6.0-6]
// [MQTT3-4.6.0-5] [MQTT3-4.6.0-6].
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
					_, _, addr := startWith(t, l, storetest.NewSessions(), nil, nil)
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
		origins[i].Origin.Accepted(origins[i].PacketID, mqttfront.CustodyUnsaid, nil)
	}
	pub.silent()
	origins[0].Origin.Accepted(origins[0].PacketID, mqttfront.CustodyUnsaid, nil)
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

// TestAcceptedConcurrently: whatever the order in which messages are accepted, acknowledgements keep theirs, and
// every PUBREL finds its exchange.
func TestAcceptedConcurrently(t *testing.T) {
	_, l, addr := start(t, nil)
	l.refuse = nil
	const n = 500
	hold := make(chan struct{})
	l.hold = hold
	t.Cleanup(func() { close(hold) })
	l.seen = func(o mqttfront.Outgoing) { go o.Origin.Accepted(o.PacketID, mqttfront.CustodyUnsaid, nil) }
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
