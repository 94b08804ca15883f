package mqttfront

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/proto"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHeader(t *testing.T) {
	for _, c := range []struct {
		in         string
		head, body int
		err        error
	}{
		{"", 0, 0, errShort}, {"30", 0, 0, errShort}, {"30 80", 0, 0, errShort}, {"30 ff ff ff", 0, 0, errShort},
		{"30 00", 2, 0, nil}, {"30 7f", 2, 127, nil}, {"30 80 01", 3, 128, nil}, {"30 ff ff ff 7f", 5, 268435455, nil},
		{"30 ff ff ff ff", 0, 0, errLength}, {"30 80 80 80 80 01", 0, 0, errLength}, // [MQTT-1.5.5-1]
	} {
		head, body, err := header(unhex(t, c.in))
		if head != c.head || body != c.body || err != c.err {
			t.Errorf("%s: %d, %d, %v", c.in, head, body, err)
		}
	}
}

func TestVarint(t *testing.T) {
	for _, v := range []int{0, 1, 127, 128, 16383, 16384, 2097151, 2097152, 268435455} {
		b := appendVarint(nil, v)
		got, n, ok := varint(b)
		if got != v || n != len(b) || !ok || n != varintLen(v) {
			t.Errorf("%d: %x, %d, %d, %v", v, b, got, n, ok)
		}
	}
	if _, _, ok := varint([]byte{0x80, 0x80, 0x80, 0x80, 1}); ok {
		t.Error("five bytes pass")
	}
}

func TestDecodePublish(t *testing.T) {
	for _, c := range []struct {
		name    string
		version byte
		first   byte
		body    string
		want    string // topic|payload|props|expiry|alias|packetID|qos|dup|retain, or ! for an error
	}{
		{"plain", 4, 0x30, "0001 61 62", "a|b||||0|0|false|false"},
		{"retain", 4, 0x31, "0001 61", "a|||||0|0|false|true"},
		{"QoS 1", 4, 0x3a, "0001 61 0102 62", "a|b||||258|1|true|false"},
		{"QoS 3", 4, 0x36, "0001 61 0102 62", "!"},    // [MQTT-3.3.1-4]
		{"dup at QoS 0", 4, 0x38, "0001 61", "!"},     // [MQTT-3.3.1-2]
		{"packet ID 0", 4, 0x32, "0001 61 0000", "!"}, // [MQTT-2.2.1-3]
		{"packet ID cut", 4, 0x32, "0001 61 00", "!"}, //
		{"topic cut", 4, 0x30, "0002 61", "!"}, {"nothing", 4, 0x30, "", "!"},
		{"no properties", 5, 0x30, "0001 61 00 62", "a|b||||0|0|false|false"},
		{"properties missing", 5, 0x30, "0001 61", "!"},
		{"properties cut", 5, 0x30, "0001 61 05 0101", "!"},
		{"expiry", 5, 0x30, "0001 61 05 0200000009", "a|||9||0|0|false|false"},
		{"expiry twice", 5, 0x30, "0001 61 0a 0200000009 0200000009", "!"},
		{"alias", 5, 0x30, "0000 03 230007", "||||7|0|0|false|false"},
		{"between", 5, 0x30, "0001 61 0d 0101 0200000009 230007 030001 78", "!"},
		{"cut out", 5, 0x30, "0001 61 0e 0101 0200000009 230007 030001 78", "a||0101" + "03000178" + "|9|7|0|0|false|false"},
		{"in front", 5, 0x30, "0001 61 07 0200000009 0101", "a||0101|9||0|0|false|false"},
		{"behind", 5, 0x30, "0001 61 07 0101 0200000009", "a||0101|9||0|0|false|false"},
		{"subscription identifier", 5, 0x30, "0001 61 02 0b01", "!"}, // [MQTT-3.3.4-6]
		{"payload format 2", 5, 0x30, "0001 61 02 0102", "!"},
		{"content type twice", 5, 0x30, "0001 61 08 03000178 03000178", "!"},
		{"response topic with wildcard", 5, 0x30, "0001 61 04 0800012b", "!"}, // [MQTT-3.3.2-14]
		{"session expiry", 5, 0x30, "0001 61 05 1100000001", "!"},
	} {
		var p publish
		_, err := decodePublish(&p, c.version, c.first, unhex(t, c.body), nil)
		got := "!"
		if err == nil {
			opt := func(has bool, v any) string {
				if has {
					return fmt.Sprint(v)
				}
				return ""
			}
			got = fmt.Sprintf("%s|%s|%x|%s|%s|%d|%d|%v|%v", p.topic, p.payload, p.props, opt(p.hasExpiry, p.expiry),
				opt(p.hasAlias, p.alias), p.packetID, p.qos, p.dup, p.retain)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s (%v)", c.name, got, c.want, err)
		}
	}
}

// mochiProps encodes properties that travel, by the oracle.
func travelled(p packets.Properties) []byte {
	p.MessageExpiryInterval, p.TopicAlias, p.TopicAliasFlag, p.SubscriptionIdentifier = 0, 0, false, nil
	var b bytes.Buffer
	p.Encode(packets.Publish, packets.Mods{AllowResponseInfo: true}, &b, 0)
	_, k, _ := varint(b.Bytes())
	return b.Bytes()[k:]
}

// FuzzDecodePublish compares with mochi's decoder, as checkPublish does with paho's: what we take it takes too, and
// understands alike.
func FuzzDecodePublish(f *testing.F) {
	f.Add(byte(5), byte(0x30), "\x00\x01a\x0e\x01\x01\x02\x00\x00\x00\x09\x23\x00\x07\x03\x00\x01xpay")
	f.Add(byte(4), byte(0x32), "\x00\x01a\x01\x02b")
	f.Add(byte(5), byte(0x3c), "\x00\x00\x00\x01\x03\x23\x00\x01")
	f.Add(byte(5), byte(0x30), "\x00\x01a\x0c\x26\x00\x01k\x00\x01v\x09\x00\x02\x00\xff")
	f.Fuzz(func(t *testing.T, version, first byte, body string) {
		if version != 5 {
			version = 4
		}
		first = 0x30 | first&0xf
		var p publish
		_, err := decodePublish(&p, version, first, []byte(body), nil)
		checkPublish(t, version, first, []byte(body), &p, err)
		if err != nil {
			return
		}
		pk := packets.Packet{ProtocolVersion: version}
		if err := pk.FixedHeader.Decode(first); err != nil {
			t.Fatalf("mochi refuses the header: %v", err)
		}
		pk.FixedHeader.Remaining = len(body)
		if err := pk.PublishDecode([]byte(body)); err != nil {
			if !validString(p.topic) {
				return // checked with the topic cache, not here
			}
			t.Fatalf("mochi refuses: %v", err)
		}
		if pk.TopicName != string(p.topic) || !bytes.Equal(pk.Payload, p.payload) || pk.PacketID != p.packetID ||
			pk.FixedHeader.Qos != p.qos || pk.FixedHeader.Dup != p.dup || pk.FixedHeader.Retain != p.retain ||
			pk.Properties.MessageExpiryInterval != p.expiry || pk.Properties.TopicAlias != p.alias {
			t.Fatalf("%+v, mochi: %+v", p, pk)
		}
		if len(travelled(pk.Properties)) > len(p.props) {
			t.Fatalf("properties %x, mochi has more: %x", p.props, travelled(pk.Properties))
		}
		// and back
		m := &proto.Message{Topic: string(p.topic), Payload: p.payload, Properties: p.props}
		o := outgoing{version: version, qos: p.qos, dup: p.dup, retain: p.retain, packetID: p.packetID, alias: p.alias,
			hasExpiry: p.hasExpiry, expiry: p.expiry, noTopic: len(p.topic) == 0}
		out := appendPublish(nil, &o, m)
		if len(out) != o.size(m) {
			t.Fatalf("size is %d, encoded %d", o.size(m), len(out))
		}
		head, n, err := header(out)
		if err != nil || head+n != len(out) || out[0] != first {
			t.Fatalf("bad header %x", out[:5])
		}
		var q publish
		if _, err := decodePublish(&q, version, out[0], out[head:], nil); err != nil {
			t.Fatalf("what we encode we don't take: %v", err)
		}
		if !bytes.Equal(q.props, p.props) || !bytes.Equal(q.payload, p.payload) || q.expiry != p.expiry || q.alias != p.alias {
			t.Fatalf("%+v came back as %+v", p, q)
		}
		if version < v5 && !bytes.Equal(out[head:], []byte(body)) { // which has one form
			t.Fatalf("%x is encoded as %x", body, out[head:])
		}
	})
}

// TestEncodePublishOracle has mochi decode what we encode.
func TestEncodePublishOracle(t *testing.T) {
	now := time.Unix(1000, 0)
	m := &proto.Message{Topic: "a/b", Payload: []byte("payload"), Properties: unhex(t, "0101 030001 78 26 0001 6b 0001 76")}
	for _, version := range []byte{4, 5} {
		for _, o := range []outgoing{
			{}, {qos: 1, packetID: 7}, {qos: 2, packetID: 65535, dup: true, retain: true}, {ids: []uint32{1, 268435455}},
			{alias: 3}, {alias: 3, noTopic: true}, {qos: 1, packetID: 1, ids: []uint32{128}, alias: 65535},
		} {
			for _, life := range []time.Duration{0, 90 * time.Second} {
				o, m := o, *m
				o.version = version
				if version == 4 {
					o.alias, o.noTopic = 0, false
				}
				if life > 0 {
					m.Expires = now.Add(life)
				}
				o.expires(&m, now.Add(500*time.Millisecond))
				out := appendPublish(nil, &o, &m)
				head, n, err := header(out)
				if err != nil || head+n != len(out) || len(out) != o.size(&m) {
					t.Fatalf("%+v: bad length", o)
				}
				pk := packets.Packet{ProtocolVersion: version}
				pk.FixedHeader.Decode(out[0])
				if err := pk.PublishDecode(out[head:]); err != nil {
					t.Fatalf("%+v: %v", o, err)
				}
				topicWant := m.Topic
				if o.noTopic {
					topicWant = ""
				}
				if pk.TopicName != topicWant || string(pk.Payload) != "payload" || pk.FixedHeader.Qos != o.qos ||
					pk.FixedHeader.Dup != o.dup || pk.FixedHeader.Retain != o.retain || pk.PacketID != o.packetID {
					t.Errorf("%+v decodes to %+v", o, pk)
				}
				if version == 4 {
					continue
				}
				if p := pk.Properties; p.TopicAlias != o.alias || len(p.SubscriptionIdentifier) != len(o.ids) || p.ContentType != "x" ||
					p.MessageExpiryInterval != uint32(life/time.Second) || len(p.User) != 1 {
					t.Errorf("%+v decodes to properties %+v", o, p)
				}
			}
		}
	}
}

func TestExpiryLeft(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		left time.Duration
		want uint32
	}{{time.Second, 1}, {1500 * time.Millisecond, 2}, {time.Millisecond, 1}, {0, 1}, {-time.Second, 1}, {60 * time.Second, 60}} {
		var o outgoing
		o.expires(&proto.Message{Expires: now.Add(c.left)}, now)
		if !o.hasExpiry || o.expiry != c.want {
			t.Errorf("%v: %d, want %d", c.left, o.expiry, c.want)
		}
	}
}

func TestAcksOracle(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for _, kind := range []byte{typePuback, typePubrec, typePubrel, typePubcomp} {
			for _, reason := range []Reason{0, 0x92} {
				for _, text := range []string{"", "why"} {
					out := appendAck(nil, version, kind, 4711, reason, text)
					head, n, err := header(out)
					if err != nil || head+n != len(out) {
						t.Fatalf("bad length: %x", out)
					}
					pk := packets.Packet{ProtocolVersion: version}
					if err := pk.FixedHeader.Decode(out[0]); err != nil || pk.FixedHeader.Type != kind {
						t.Fatalf("header %x: %v", out[0], err)
					}
					pk.FixedHeader.Remaining = n
					if err := pk.PubackDecode(out[head:]); err != nil || pk.PacketID != 4711 {
						t.Fatalf("%x: %v, packet ID %d", out, err, pk.PacketID)
					}
					a, err := decodeAck(version, out[head:])
					if err != nil || a.packetID != 4711 || version == 5 && a.reason != reason || pk.ReasonCode != byte(a.reason) {
						t.Errorf("%x: %+v, %v", out, a, err)
					}
				}
			}
		}
	}
	for _, c := range []struct {
		version byte
		body    string
	}{
		{4, ""}, {4, "00"}, {4, "0000"}, {4, "0001 00"}, {5, "0000"}, {5, "0001 00 01"}, {5, "0001 00 00 00"},
		{5, "0001 00 05 1100000001"}, {5, "0001 00 08 1f0001 61 1f0001 61"},
	} {
		if a, err := decodeAck(c.version, unhex(t, c.body)); err == nil {
			t.Errorf("%s passes: %+v", c.body, a)
		}
	}
}

func BenchmarkDecodePublish(b *testing.B) {
	body := append([]byte("\x00\x0fsite/5/room/5/t\x00"), make([]byte, 64)...)
	var p publish
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodePublish(&p, 5, 0x30, body, nil); err != nil {
			b.Fatal(err)
		}
	}
}
