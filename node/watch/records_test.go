package watch

import (
	"bytes"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

func aMessage() proto.Message {
	return proto.Message{Topic: "a/b", Payload: []byte("gone"), Properties: []byte{1, 1}, QoS: 2, Retain: true}
}

func aWill() *will {
	return &will{node: core.MakeNodeID(7, "a peer ID"), expiry: time.Hour, disconnected: time.UnixMilli(1_700_000_000_000),
		record: mqttfront.WillRecord{Msg: aMessage(), Expiry: time.Minute, Delay: time.Second, Epoch: 1<<63 + 1}}
}

// TestNames holds the names of wills against what WIRE.md says of them, worked out elsewhere (sha256sum, base64).
func TestNames(t *testing.T) {
	if got, want := nameOf(peer.ID("p"), "u\x00c"), "$wills-2v8RA5cZrY1_KwS5-iveECsnpa_vZGU2TL4gsU97LgM/ZSDA-LPJu0XdnYiIPEsSZ00hYWPaw5-YoltBRCdFnVI"; got != want {
		t.Errorf("the will of the session u, c at p is %s, want %s", got, want)
	}
	name := nameOf(peer.ID("p"), "u\x00c")
	if got, isMark := willOf(name + firedLevel); got != name || !isMark {
		t.Errorf("%s%s is of %s, a mark: %v", name, firedLevel, got, isMark)
	}
	if got, isMark := willOf(name); got != name || isMark {
		t.Errorf("%s is of %s, a mark: %v", name, got, isMark)
	}
}

// TestDelay: the session's end ends the delay [MQTT-3.1.3-9].
func TestDelay(t *testing.T) {
	for _, c := range []struct{ delay, expiry, want time.Duration }{{0, 5, 0}, {3, 5, 3}, {5, 3, 3}, {5, 0, 0}} {
		w := &will{expiry: c.expiry, record: mqttfront.WillRecord{Delay: c.delay}}
		if got := w.delay(); got != c.want {
			t.Errorf("a delay of %d in a session of %d is %d", c.delay, c.expiry, got)
		}
	}
}

// FuzzWill: whatever stands for a will, it is left alone or says the same again.
func FuzzWill(f *testing.F) {
	add := func(change func(*pb.Will)) {
		b, err := aWill().encode()
		if err != nil {
			f.Fatal(err)
		}
		var p pb.Will
		if err := protobuf.Unmarshal(b, &p); err != nil {
			f.Fatal(err)
		}
		change(&p)
		if b, err = protobuf.Marshal(&p); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(func(*pb.Will) {})
	add(func(p *pb.Will) { p.Resumed = true })
	add(func(p *pb.Will) { p.Epoch = 0 })
	add(func(p *pb.Will) { p.Node = []byte("short") })
	add(func(p *pb.Will) { p.Message = nil })
	add(func(p *pb.Will) { p.Message.Topic = "a/#" })
	add(func(p *pb.Will) { p.Message.Topic = "$SYS/x" })
	add(func(p *pb.Will) { p.Message.Qos = 3 })
	add(func(p *pb.Will) { p.DelayMs, p.SessionMs, p.ExpiryMs, p.DisconnectedMs = -1, 1<<62, -1<<63, 1<<62 })
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := parseWill(data)
		if err != nil || w.resumed {
			return
		}
		if m := &w.record.Msg; m.Validate() != nil || m.QoS > 2 || m.Topic[0] == '$' || w.record.Epoch == 0 || w.delay() < 0 || w.delay() > maxSpan {
			t.Fatalf("%+v", w)
		}
		b, err := w.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseWill(b)
		if err != nil || again.node != w.node || again.expiry != w.expiry || !again.disconnected.Equal(w.disconnected) || again.record.Epoch != w.record.Epoch ||
			again.record.Delay != w.record.Delay || again.record.Expiry != w.record.Expiry || !same(&again.record.Msg, &w.record.Msg) {
			t.Fatalf("%+v, then %+v: %v", w, again, err)
		}
	})
}

func same(a, b *proto.Message) bool {
	return a.Topic == b.Topic && bytes.Equal(a.Payload, b.Payload) && bytes.Equal(a.Properties, b.Properties) && a.QoS == b.QoS && a.Retain == b.Retain &&
		a.Expires.Equal(b.Expires)
}

// FuzzFired: the same of marks.
func FuzzFired(f *testing.F) {
	m := aMessage()
	m.Expires = time.UnixMilli(1_700_000_000_000)
	for _, x := range []*fired{{epoch: 1, sent: true}, {epoch: 2, looked: true, before: &m}, {}, {epoch: 3, before: &proto.Message{Topic: "$x"}}} {
		b, err := x.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := parseFired(data)
		if err != nil {
			return
		}
		b, err := x.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseFired(b)
		if err != nil || again.epoch != x.epoch || again.sent != x.sent || again.looked != x.looked || (again.before == nil) != (x.before == nil) ||
			x.before != nil && !same(again.before, x.before) {
			t.Fatalf("%+v, then %+v: %v", x, again, err)
		}
	})
}

// FuzzAsk: whatever is asked, it is left alone or about what can be a node.
func FuzzAsk(f *testing.F) {
	for _, node := range []string{"", "short", string(core.MakeNodeID(7, "a peer ID")), string(bytes.Repeat([]byte{1}, proto.MaxNodeSize+1))} {
		b, err := protobuf.Marshal(&pb.Ask{Node: []byte(node)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var q pb.Ask
		if protobuf.Unmarshal(data, &q) != nil {
			return
		}
		if node, ok := nodeOf(&q); ok && (len(node) < proto.MinNodeSize || len(node) > proto.MaxNodeSize || node.Peer() == "") {
			t.Fatalf("%q", node)
		}
	})
}
