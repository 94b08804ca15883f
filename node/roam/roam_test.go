package roam

import (
	"bytes"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

const aPeer = "12D3KooWF55QVFurtQ9Tjy5vt5jYzC8v7fzAkfnzgf2L3ZBJ8g4E"

func aClaim(t testing.TB) *pb.Claim {
	id, err := peer.Decode(aPeer)
	if err != nil {
		t.Fatal(err)
	}
	return &pb.Claim{Key: []byte("u\x00c"), Number: 7, Node: []byte(id), State: stateOf(mqttfront.SessionRecord{Version: 5, Expiry: time.Hour,
		Disconnected: time.UnixMilli(1), Subs: []mqttfront.SubscriptionRecord{{Filter: "$share/g/a/#", ID: 3, QoS: 2, NoLocal: true}}})}
}

func anEntry() *pb.MovedEntry {
	return entryToPB(&mqttfront.Entry{Msg: &proto.Message{Topic: "a/b", Payload: []byte("x"), QoS: 2, Expires: time.UnixMilli(9)}, Pos: 5, QoS: 1,
		PacketID: 8, State: mqttfront.EntrySent, IDs: []uint32{3}, Group: &proto.Group{Name: "g", Filter: "a/#"}, Mark: mqttfront.Mark{Epoch: 1, Seq: 2}})
}

// TestNames holds the names of sessions against what WIRE.md says of them, worked out elsewhere (sha256sum, base64).
func TestNames(t *testing.T) {
	if got, want := NameOf("u\x00c"), "$session-0a/Cn-FyIHILAKN74K4iK3LuiRuye0V923JmI_12Goyth0"; got != want {
		t.Errorf("the session u, c is %s, want %s", got, want)
	}
}

// TestOutranks: of two claims one holds, and the same at both nodes.
func TestOutranks(t *testing.T) {
	for _, c := range []struct {
		number, other uint64
		node, its     peer.ID
		want          bool
	}{{2, 1, "a", "b", true}, {1, 2, "b", "a", false}, {2, 2, "b", "a", true}, {2, 2, "a", "b", false}, {2, 2, "a", "a", false}} {
		if got := outranks(c.number, c.node, c.other, c.its); got != c.want {
			t.Errorf("%d of %s against %d of %s: %v", c.number, c.node, c.other, c.its, got)
		}
	}
	a, b := nextNumber(5, time.UnixMicro(3), "a"), nextNumber(5, time.UnixMicro(3), "b") // where the clock is behind
	if a < 5+numberStep || b < 5+numberStep || max(a, b)-min(a, b) < 1000 {
		t.Errorf("numbers after 5 are %d and %d", a, b)
	}
	if n := nextNumber(5, time.UnixMicro(30*numberStep), "a"); n != 30*numberStep {
		t.Errorf("after 5 comes %d", n)
	}
}

// FuzzClaim: whatever a claim says, it is left alone or says the same again.
func FuzzClaim(f *testing.F) {
	b, err := protobuf.Marshal(aClaim(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("u\x00c", b)
	f.Add("", []byte{})
	for _, change := range []func(*pb.Claim){
		func(c *pb.Claim) { c.State = nil },
		func(c *pb.Claim) { c.Fresh, c.Number = true, 1<<63 },
		func(c *pb.Claim) { c.Node = []byte("nobody") },
		func(c *pb.Claim) { c.State.ExpiryMs, c.State.DisconnectedMs = -1, -1 },
		func(c *pb.Claim) { c.State.Subscriptions[0].Qos = 3 },
		func(c *pb.Claim) { c.Key = []byte("u\x00other") },
	} {
		c := aClaim(f)
		change(c)
		if b, err = protobuf.Marshal(c); err != nil {
			f.Fatal(err)
		}
		f.Add("u\x00c", b)
	}
	f.Fuzz(func(t *testing.T, key string, payload []byte) {
		c, ok := parse(&proto.Message{Topic: NameOf(key), Payload: payload})
		if !ok {
			return
		}
		if string(c.GetKey()) != key || c.GetNumber() == 0 || c.node == "" {
			t.Fatalf("%+v is the claim to %q", c, key)
		}
		rec := recordOf(c.GetState())
		if again := recordOf(stateOf(rec)); len(rec.Subs) < 1000 && (again.Expiry != rec.Expiry || len(again.Subs) != len(rec.Subs)) {
			t.Fatalf("%+v, then %+v", rec, again)
		}
	})
}

// FuzzMoved: an entry from another node is refused, or one that this node would send.
func FuzzMoved(f *testing.F) {
	b, err := protobuf.Marshal(anEntry())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, change := range []func(*pb.MovedEntry){
		func(m *pb.MovedEntry) { m.Position = 0 },
		func(m *pb.MovedEntry) { m.Entry.PacketId, m.Entry.State = 0, 0 },
		func(m *pb.MovedEntry) { m.Entry.State, m.Entry.Qos = uint32(mqttfront.EntryReleased), 2 },
		func(m *pb.MovedEntry) { m.Entry.GroupName, m.Entry.GroupFilter = "", "" },
		func(m *pb.MovedEntry) { m.Message.Topic = "a/#" },
		func(m *pb.MovedEntry) { m.Message.ExpiresMs, m.Message.Properties = 0, []byte{1, 1} },
		func(m *pb.MovedEntry) { m.Message.Qos = 3 },
	} {
		m := anEntry()
		change(m)
		if b, err = protobuf.Marshal(m); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var m pb.MovedEntry
		if protobuf.Unmarshal(data, &m) != nil {
			return
		}
		e, err := entryOf(&m)
		if err != nil {
			return
		}
		if e.Pos == 0 || e.QoS < 1 || e.QoS > 2 || e.Msg.Validate() != nil {
			t.Fatalf("%+v", e)
		}
		again, err := entryOf(entryToPB(&e))
		if err != nil || again.Pos != e.Pos || again.PacketID != e.PacketID || again.Mark != e.Mark || !bytes.Equal(again.Msg.Payload, e.Msg.Payload) {
			t.Fatalf("%+v, then %+v: %v", e, again, err)
		}
	})
}
