package mqttfront_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

func TestTakeover(t *testing.T) { // [MQTT-3.1.4-3] [MQTT3-3.1.4-2]
	b, _, addr := start(t, nil)
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	o := connectOpts{id: "c", props: sessionExpiry(60), resume: true}
	first, _ := connect(t, addr, o)
	first.subscribe(filter{"a", 1})
	fill(pub, 1, 0, 3)
	second, ack := connect(t, addr, o)
	if !ack.SessionPresent {
		t.Error("no session")
	}
	first.expectPublish("0")
	first.expectDisconnect(0x8e)
	for i := range 3 {
		pk := second.expectPublish(fmt.Sprint(i))
		second.ack(packets.Puback, pk.PacketID)
	}
	old, _ := connect(t, addr, connectOpts{id: "old", version: 4})
	connect(t, addr, connectOpts{id: "old", version: 4})
	old.expectEnd() // without a word in MQTT 3
	if b.Stats().Takeovers.Load() != 2 {
		t.Error("not counted")
	}
	for range 20 { // in a circle, with traffic: nothing is lost, nothing stays
		go connectQuietly(addr, o)
	}
	eventually(t, "one is left", func() bool { return b.Stats().Connections.Load() <= 4 })
}

// connectQuietly connects and does not care what becomes of it.
func connectQuietly(addr string, o connectOpts) {
	o.version = 5
	nc, err := dialPlain(addr)
	if err == nil {
		nc.Write(o.encode())
	}
}

// TestTakeoverOfBusyConnection has a client come back while the node is still at what came on its connection before: nothing that it
// sends again is published twice, and nothing from before comes behind it.
func TestTakeoverOfBusyConnection(t *testing.T) {
	for _, clean := range []bool{false, true} {
		t.Run(fmt.Sprintf("clean=%v", clean), func(t *testing.T) {
			l := newLoner()
			busy, goOn := make(chan struct{}), make(chan struct{})
			var came atomic.Int32
			l.noRoom = func(string) bool {
				if came.Add(1) == 1 {
					close(busy)
					<-goOn
				}
				return false
			}
			var published []string // by one connection after the other
			l.seen = func(o mqttfront.Outgoing) { published = append(published, string(o.Msg.Payload)) }
			_, _, addr := startWith(t, l, storetest.NewSessions(), nil, nil)
			o := connectOpts{id: "c", props: sessionExpiry(60), resume: !clean}
			first, _ := connect(t, addr, o)
			first.send(first.publishPacket(4, 1, "a", "1"))
			<-busy
			let := sync.OnceFunc(func() { close(goOn) })
			defer let()
			second, ack := connect(t, addr, o)
			if ack.SessionPresent == clean {
				t.Errorf("a session is present: %v", !clean)
			}
			second.send(second.publishPacket(0xc, 1, "a", "1"))
			second.unanswered()
			let()
			second.expect(packets.Pubrec)
			second.ack(packets.Pubrel, 1)
			second.expect(packets.Pubcomp)
			second.publish("a", "2")
			want := []string{"1", "2"}
			if clean { // the session that had it is over
				want = []string{"1", "1", "2"}
			}
			if !slices.Equal(published, want) {
				t.Errorf("published: %v, want %v", published, want)
			}
		})
	}
}

// TestTakeoverBeforeAnswer has a client come back, and send its message again, before the node has said that it keeps it: it is told
// once, on the connection that it has now.
func TestTakeoverBeforeAnswer(t *testing.T) {
	for _, refusal := range []error{nil, &mqttfront.Refusal{Code: mqttfront.ReasonQuotaExceeded, Text: "there is no room"}} {
		t.Run(fmt.Sprint(refusal), func(t *testing.T) {
			l := newLoner()
			l.hold, l.refuse = make(chan struct{}), refusal
			came := make(chan string, 10)
			l.seen = func(o mqttfront.Outgoing) { came <- string(o.Msg.Payload) }
			_, _, addr := startWith(t, l, storetest.NewSessions(), nil, nil)
			o := connectOpts{id: "c", props: sessionExpiry(60), resume: true}
			first, _ := connect(t, addr, o)
			first.send(first.publishPacket(4, 1, "a", "1"))
			<-came
			second, _ := connect(t, addr, o)
			second.send(second.publishPacket(0xc, 1, "a", "1"))
			second.silent()
			close(l.hold)
			want := byte(0)
			if refusal != nil {
				want = byte(mqttfront.ReasonQuotaExceeded)
			}
			if pk := second.expect(packets.Pubrec); pk.ReasonCode != want {
				t.Errorf("PUBREC 0x%02x, want 0x%02x", pk.ReasonCode, want)
			}
			second.silent()
			if len(came) > 0 {
				t.Error("it has been published again")
			}
		})
	}
}
