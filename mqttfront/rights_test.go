package mqttfront_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

// house is an Auth whose answers a test changes.
type house struct {
	mqttfront.AllowAll
	mu   sync.Mutex
	kept map[string]keptFrom // by user
	out  map[string]bool     // users who may not stay
}

func newHouse() *house { return &house{kept: map[string]keptFrom{}, out: map[string]bool{}} }

func (h *house) Rights(user, _ string) mqttfront.Rights {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k, ok := h.kept[user]; ok {
		return k
	}
	return nil
}

func (h *house) Stays(_ mqttfront.Login, who mqttfront.Identity) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.out[who.User] {
		return &mqttfront.Refusal{Code: mqttfront.ReasonNotAuthorized, Text: "out"}
	}
	return nil
}

func (h *house) keep(user, from string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept[user] = keptFrom(from)
}

// keptFrom is the rights of who may do everything but with topics that begin so.
type keptFrom string

func (k keptFrom) CanPublish(topic string) bool    { return !strings.HasPrefix(topic, string(k)) }
func (k keptFrom) CanReceive(topic string) bool    { return !strings.HasPrefix(topic, string(k)) }
func (k keptFrom) CanSubscribe(filter string) bool { return !strings.HasPrefix(filter, string(k)) }

// TestRightsAtDelivery: a subscription that overlaps what its client may not receive is good for the rest, however
// messages come.
func TestRightsAtDelivery(t *testing.T) {
	h := newHouse()
	h.keep("bob", "secret/")
	b, _, addr := startWith(t, newLoner(), storetest.NewSessions(), h, nil)
	alice, _ := connect(t, addr, connectOpts{id: "alice", user: "alice"})
	alice.send(alice.publishPacket(3, 9, "secret/retained", "r")) // QoS 1, retained
	alice.expect(packets.Puback)
	alice.send(alice.publishPacket(3, 9, "open/retained", "r"))
	alice.expect(packets.Puback)
	bob, _ := connect(t, addr, connectOpts{id: "bob", user: "bob"})
	if codes := bob.subscribe(filter{"#", 2}, filter{"secret/x", 2}); codes[0] != 2 || codes[1] != 0x87 {
		t.Errorf("SUBACK %x", codes)
	}
	if pk := bob.expectPublish("r"); pk.TopicName != "open/retained" {
		t.Errorf("%s came", pk.TopicName)
	}
	bob.ack(packets.Puback, 1)
	for _, qos := range []byte{0, 2, 4} {
		for _, name := range []string{"secret/x", "open/x"} {
			alice.send(alice.publishPacket(qos, 5, name, name))
			switch qos {
			case 2:
				alice.expect(packets.Puback)
			case 4:
				alice.expect(packets.Pubrec)
				alice.ack(packets.Pubrel, 5)
				alice.expect(packets.Pubcomp)
			}
		}
		bob.expectPublish("open/x")
	}
	bob.silent()
	if got := bob.publish("secret/own", "v"); got != 0x87 {
		t.Errorf("PUBACK 0x%02x", got)
	}
	st := b.Stats()
	if n := st.DeliveriesDenied.Load(); n != 4 || st.PubsDenied.Load() != 1 || st.SubsDenied.Load() != 1 {
		t.Errorf("%d deliveries, %d publishes, %d subscriptions denied", n, st.PubsDenied.Load(), st.SubsDenied.Load())
	}
}

// TestRightsInShare: a member of a shared subscription that may not receive a topic is passed over.
func TestRightsInShare(t *testing.T) {
	h := newHouse()
	h.keep("bob", "secret/")
	b, _, addr := startWith(t, newLoner(), storetest.NewSessions(), h, nil)
	bob, _ := connect(t, addr, connectOpts{id: "bob", user: "bob"})
	bob.subscribe(filter{"$share/g/+/x", 0})
	carol, _ := connect(t, addr, connectOpts{id: "carol", user: "carol"})
	carol.subscribe(filter{"$share/g/+/x", 0})
	alice, _ := connect(t, addr, connectOpts{id: "alice", user: "alice"})
	for i := range 6 {
		alice.publish("secret/x", fmt.Sprint(i))
		carol.expectPublish(fmt.Sprint(i))
	}
	bob.silent()
	carol.bye()
	alice.publish("open/x", "to bob")
	bob.expectPublish("to bob")
	alice.publish("secret/x", "to nobody")
	bob.silent()
	if n := b.Stats().DropNoMember.Load(); n != 1 {
		t.Errorf("%d found no member", n)
	}
}

// TestRecheck: what is not allowed any more ends at once, also what waits and what was sent and not acknowledged; and
// nobody else notices.
func TestRecheck(t *testing.T) {
	h := newHouse()
	b, _, addr := startWith(t, newLoner(), storetest.NewSessions(), h, nil)
	carol, _ := connect(t, addr, connectOpts{id: "carol", user: "carol"})
	carol.subscribe(filter{"#", 0})
	alice, _ := connect(t, addr, connectOpts{id: "alice", user: "alice"})
	keeps := connectOpts{id: "bob", user: "bob", resume: true, props: sessionExpiry(100)}
	bob, _ := connect(t, addr, keeps)
	bob.subscribe(filter{"secret/#", 1}, filter{"open/#", 1})
	all := []string{"secret/1", "open/1", "secret/2", "open/2"}
	publish := func(names ...string) {
		for _, name := range names {
			alice.publish(name, name)
			carol.expectPublish(name)
		}
	}
	publish(all[0], all[1]) // on their way, and never acknowledged
	bob.expectPublish("secret/1")
	bob.expectPublish("open/1")
	bob.kill()
	eventually(t, "bob is gone", func() bool { return b.Stats().Offline.Load() == 1 })
	publish(all[2], all[3]) // waiting
	h.keep("bob", "secret/")
	b.Recheck()
	bob, _ = connect(t, addr, keeps)
	if pk := bob.expectPublish("open/1"); !pk.FixedHeader.Dup {
		t.Error("sent anew")
	}
	bob.expectPublish("open/2")
	publish(all...)
	bob.expectPublish("open/1")
	bob.expectPublish("open/2")
	bob.silent()
	h.keep("bob", "nothing/")
	b.Recheck()
	publish("secret/3") // its subscription is still there
	bob.expectPublish("secret/3")
	carol.silent()
}

// TestRecheckDisconnects: who may not stay is told so, and its will is published if it may be.
func TestRecheckDisconnects(t *testing.T) {
	h := newHouse()
	b, _, addr := startWith(t, newLoner(), storetest.NewSessions(), h, nil)
	carol, _ := connect(t, addr, connectOpts{id: "carol", user: "carol"})
	carol.subscribe(filter{"#", 0})
	five, _ := connect(t, addr, connectOpts{id: "five", user: "bob", will: &willOpts{topic: "open/will", payload: "allowed"}})
	three, _ := connect(t, addr, connectOpts{id: "three", user: "bob", version: 4, will: &willOpts{topic: "secret/will", payload: "denied"}})
	h.keep("bob", "secret/")
	h.mu.Lock()
	h.out["bob"] = true
	h.mu.Unlock()
	b.Recheck()
	five.expectDisconnect(0x87)
	three.expectEnd()
	carol.expectPublish("allowed")
	eventually(t, "both are gone", func() bool { return b.Stats().Sessions.Load() == 1 })
	carol.silent()
	if n := b.Stats().LostRight.Load(); n != 2 {
		t.Errorf("%d disconnected", n)
	}
	// A will that may not be published is refused with its CONNECT.
	h.mu.Lock()
	h.out["bob"] = false
	h.mu.Unlock()
	r := newRaw(t, addr, 5)
	r.send(connectOpts{version: 5, id: "six", user: "bob", will: &willOpts{topic: "secret/will", payload: "x"}}.encode())
	if ack := r.expect(packets.Connack); ack.ReasonCode != 0x87 {
		t.Errorf("CONNACK 0x%02x", ack.ReasonCode)
	}
}
