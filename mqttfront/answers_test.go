package mqttfront_test

import (
	"context"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

// codesOf are the reason codes that the specification gives each packet from a server.
var codesOf = map[byte]string{
	packets.Connack:    "\x00\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8c\x90\x95\x97\x99\x9a\x9b\x9c\x9d\x9f",
	packets.Puback:     "\x00\x10\x80\x83\x87\x90\x91\x97\x99",
	packets.Pubrec:     "\x00\x10\x80\x83\x87\x90\x91\x97\x99",
	packets.Pubrel:     "\x00\x92",
	packets.Pubcomp:    "\x00\x92",
	packets.Suback:     "\x00\x01\x02\x80\x83\x87\x8f\x91\x97\x9e\xa1\xa2",
	packets.Unsuback:   "\x00\x11\x80\x83\x87\x8f\x91",
	packets.Disconnect: "\x00\x80\x81\x82\x83\x87\x89\x8b\x8d\x8e\x8f\x90\x93\x94\x95\x96\x97\x98\x99\x9a\x9b\x9c\x9d\x9e\x9f\xa0\xa1\xa2",
}

// codesOf3 are those of MQTT 3.1.1.
var codesOf3 = map[byte]string{packets.Connack: "\x00\x01\x02\x03\x04\x05", packets.Suback: "\x00\x01\x02\x80"}

// lawful checks the reason codes of a packet from the server.
func (r *raw) lawful(pk *packets.Packet) {
	r.t.Helper()
	all := codesOf
	if r.version < 5 {
		all = codesOf3
	}
	codes := pk.ReasonCodes
	if pk.FixedHeader.Type != packets.Suback && pk.FixedHeader.Type != packets.Unsuback {
		codes = []byte{pk.ReasonCode}
	}
	for _, code := range codes {
		if !strings.Contains(all[pk.FixedHeader.Type]+"\x00", string([]byte{code})) {
			r.t.Errorf("%s with 0x%02x, which it cannot have", packets.PacketNames[pk.FixedHeader.Type], code)
		}
	}
}

// odd refuses who gives a name, with a code that few packets may have, and all subscriptions.
type odd struct {
	mqttfront.AllowAll
	code mqttfront.Reason
}

func (odd) Rights(string, string) mqttfront.Rights { return noSubscribing{} }

type noSubscribing struct{}

func (noSubscribing) CanPublish(string) bool   { return true }
func (noSubscribing) CanReceive(string) bool   { return true }
func (noSubscribing) CanSubscribe(string) bool { return false }

func (o odd) Connect(ctx context.Context, l mqttfront.Login) (mqttfront.Identity, error) {
	if l.User != "" {
		return mqttfront.Identity{}, &mqttfront.Refusal{Code: o.code}
	}
	return o.AllowAll.Connect(ctx, l)
}

// TestReasonCodes: whatever reason there is for a refusal, what the client reads is a code that the packet may have, and
// 0x80 where it cannot have that one [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.9.3-2].
func TestReasonCodes(t *testing.T) {
	for code := range 0x100 {
		if code < 0x80 || code > 0xa2 {
			continue
		}
		l := newLoner()
		l.refuse = &mqttfront.Refusal{Code: mqttfront.Reason(code)}
		_, _, addr := startWith(t, l, storetest.NewSessions(), odd{code: mqttfront.Reason(code)}, nil)
		want := func(kind byte) byte {
			if strings.Contains(codesOf[kind], string([]byte{byte(code)})) {
				return byte(code)
			}
			return 0x80
		}
		r := newRaw(t, addr, 5)
		r.send(connectOpts{version: 5, id: "c", user: "u"}.encode())
		if a := r.expect(packets.Connack); a.ReasonCode != want(packets.Connack) {
			t.Errorf("0x%02x: CONNACK 0x%02x", code, a.ReasonCode)
		}
		r, _ = connect(t, addr, connectOpts{id: "c"})
		if got := r.publish("a", "v"); got != want(packets.Puback) {
			t.Errorf("0x%02x: PUBACK 0x%02x", code, got)
		}
		r.send(r.publishPacket(4, 1, "a", "v"))
		if a := r.expect(packets.Pubrec); a.ReasonCode != want(packets.Pubrec) {
			t.Errorf("0x%02x: PUBREC 0x%02x", code, a.ReasonCode)
		}
		if got := r.subscribe(filter{"a", 1}); got[0] != 0x87 {
			t.Errorf("0x%02x: SUBACK 0x%02x", code, got[0])
		}
		r.kill()
	}
}

// TestReasonCodesOfAcks: what is not known is 0x92 in PUBREL and PUBCOMP and 0x11 in UNSUBACK, and DISCONNECT says why
// [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.11.3-2] [MQTT-3.14.2-1].
func TestReasonCodesOfAcks(t *testing.T) {
	_, _, addr := start(t, nil)
	r, _ := connect(t, addr, connectOpts{id: "c"})
	r.ack(packets.Pubrec, 7)
	if a := r.expect(packets.Pubrel); a.ReasonCode != 0x92 || a.PacketID != 7 {
		t.Errorf("PUBREL %+v", a)
	}
	r.ack(packets.Pubrel, 8)
	if a := r.expect(packets.Pubcomp); a.ReasonCode != 0x92 || a.PacketID != 8 {
		t.Errorf("PUBCOMP %+v", a)
	}
	if codes := r.unsubscribe("a"); codes[0] != 0x11 {
		t.Errorf("UNSUBACK %x", codes)
	}
	r.send([]byte{0xf0, 0})
	r.expectDisconnect(0x82)
}

// smallest is the size of the CONNACK to a client with an ID of its own: what a client must take to be let in.
func smallest(t *testing.T, addr string) int {
	r := newRaw(t, addr, 5)
	r.send(connectOpts{version: 5, id: "c"}.encode())
	b, err := r.br.Peek(2)
	if err != nil {
		t.Fatal(err)
	}
	r.kill()
	return 2 + int(b[1])
}

// TestSmallAnswers: no answer is larger than the client's Maximum Packet Size. Reason strings and user properties are
// left out; what cannot be told at all is not done [MQTT-3.1.2-24].
func TestSmallAnswers(t *testing.T) {
	_, l, addr := start(t, nil)
	l.promise = mqttfront.PromiseLocal
	size := smallest(t, addr)
	for _, most := range []int{4, 5, size - 1, size, size + 20, 200} {
		r := newRaw(t, addr, 5)
		r.most = most
		r.send(connectOpts{version: 5, id: "c", props: u32(0x27, uint32(most))}.encode())
		if most < size {
			if most >= 5 {
				if a := r.expect(packets.Connack); a.ReasonCode != 0x95 {
					t.Errorf("CONNACK 0x%02x to a client that takes %d bytes", a.ReasonCode, most)
				}
			}
			r.expectEnd()
			continue
		}
		r.expect(packets.Connack)
		long := most == 200
		said := func(pk *packets.Packet) {
			t.Helper()
			if (pk.Properties.ReasonString != "") != long { // [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.9.2-1] [MQTT-3.14.2-3]
				t.Errorf("%s with %q to a client that takes %d bytes", packets.PacketNames[pk.FixedHeader.Type], pk.Properties.ReasonString, most)
			}
			if pk.FixedHeader.Type != packets.Suback && len(pk.Properties.User) > 0 {
				// [MQTT-3.4.2-3] [MQTT-3.5.2-3] [MQTT-3.6.2-3] [MQTT-3.7.2-3] [MQTT-3.11.2-2] [MQTT-3.14.2-4]
				t.Errorf("%s with %v", packets.PacketNames[pk.FixedHeader.Type], pk.Properties.User)
			}
		}
		r.send(r.publishPacket(2, 1, "@user/x", "v"), r.publishPacket(4, 2, "@user/x", "v"))
		said(r.expect(packets.Puback))
		said(r.expect(packets.Pubrec))
		r.send(ackPacket(packets.Pubrel, 9), ackPacket(packets.Pubrec, 9))
		for _, kind := range []byte{packets.Pubcomp, packets.Pubrel} { // [MQTT-3.6.2-2] [MQTT-3.7.2-2]
			if pk := r.expect(kind); pk.ReasonCode != 0x92 || pk.Properties.ReasonString != "" || len(pk.Properties.User) > 0 {
				t.Errorf("%+v", pk)
			}
		}
		r.send(r.subscribePacket(3, nil, filter{"a", 0}, filter{"@user/#", 0}))
		suback := r.expect(packets.Suback)
		said(suback)
		if local := len(suback.Properties.User) > 0; local != (most > size) { // [MQTT-3.9.2-2]
			t.Errorf("SUBACK with %v to a client that takes %d bytes", suback.Properties.User, most)
		}
		unsuback := packet(0xa2, []byte{0, 4, 0}, str("a"), str("b"))
		r.send(unsuback)
		if pk := r.expect(packets.Unsuback); pk.Properties.ReasonString != "" || len(pk.Properties.User) > 0 { // [MQTT-3.11.2-1]
			t.Errorf("UNSUBACK %+v", pk)
		}
		r.send(r.publishPacket(0, 0, "a/#", "v"))
		said(r.expect(packets.Disconnect))
		r.expectEnd()
	}
}

// TestAnswersThatDoNotFit: a SUBSCRIBE or UNSUBSCRIBE with so many filters that its answer is too large changes nothing.
func TestAnswersThatDoNotFit(t *testing.T) {
	b, _, addr := start(t, nil)
	var many []filter
	var names []byte
	for range 100 {
		many = append(many, filter{"a", 0})
		names = append(names, str("kept")...)
	}
	for _, kind := range []string{"SUBSCRIBE", "UNSUBSCRIBE"} {
		r, _ := connect(t, addr, connectOpts{id: "c", resume: true, props: append(sessionExpiry(60), u32(0x27, 100)...)})
		r.most = 100
		r.subscribe(filter{"kept", 0})
		if kind == "SUBSCRIBE" {
			r.send(r.subscribePacket(1, nil, many...))
		} else {
			r.send(packet(0xa2, []byte{0, 1, 0}, names))
		}
		r.expectDisconnect(0x95)
		if n := b.Stats().Subscriptions.Load(); n != 1 {
			t.Errorf("%s: %d subscriptions", kind, n)
		}
	}
}

// TestSmallRefusals: a CONNACK that refuses has no reason string that makes it too large, wherever it is refused
// [MQTT-3.2.2-19] [MQTT-3.2.2-20].
func TestSmallRefusals(t *testing.T) {
	_, _, addr := start(t, nil)
	_, _, full := start(t, func(c *mqttfront.Config) { c.MaxConnections = 1 })
	connect(t, full, connectOpts{id: "first"})
	small, large := u32(0x27, 20), u32(0x27, 300)
	for _, c := range []struct {
		name, addr string
		o          connectOpts
		code       byte
	}{
		{"not for clients", addr, connectOpts{will: &willOpts{topic: "@alice/x"}}, 0x87},
		{"malformed behind the properties", addr, connectOpts{will: &willOpts{topic: "w", props: u32(0x11, 1)}}, 0x82},
		{"too many connections", full, connectOpts{}, 0x97},
	} {
		for _, props := range [][]byte{nil, small, large} {
			o := c.o
			o.version, o.id, o.props = 5, "c", props
			r := newRaw(t, c.addr, 5)
			if props != nil {
				r.most = int(props[3])<<8 | int(props[4])
			}
			r.send(o.encode())
			a := r.expect(packets.Connack)
			if a.ReasonCode != c.code || (a.Properties.ReasonString == "") != (r.most == 20) || len(a.Properties.User) > 0 {
				t.Errorf("%s, %x: CONNACK 0x%02x %q", c.name, props, a.ReasonCode, a.Properties.ReasonString)
			}
			r.expectEnd()
		}
	}
}
