package mqttfront

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	paho5 "github.com/eclipse/paho.golang/packets"
	paho3 "github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/mochi-mqtt/server/v2/packets"
)

// whole puts a fixed header in front of a body.
func whole(first byte, body []byte) []byte {
	return append(appendVarint([]byte{first}, len(body)), body...)
}

// decodeAny decodes a packet that is no PUBLISH nor an acknowledgement as a connection does.
func decodeAny(t *testing.T, version, first byte, body []byte) (*packets.Packet, byte, error) {
	b := &Broker{stats: new(Stats)}
	raw := bytes.Clone(body)
	if first>>4 == typeConnect {
		name, v, rest, ok := protocolOf(raw)
		if !ok || !(name == "MQTT" && (v == v311 || v == v5) || name == "MQIsdp" && v == v31) {
			return nil, v, errMalformed
		}
		if version = v; checkConnect(v, rest) != nil {
			return nil, v, errMalformed
		}
	}
	pk, err := b.decode(version, first, raw)
	if b.stats.DecodePanics.Load() > 0 {
		t.Fatalf("the codec panics on %x, which our checks let through", body)
	}
	if err != nil {
		return nil, version, err
	}
	before := fmt.Sprintf("%+v", *pk)
	clear(raw)
	if fmt.Sprintf("%+v", *pk) != before {
		t.Fatal("the packet points into the read buffer")
	}
	return pk, version, nil
}

// checkPacket holds what we make of a packet against what paho makes of it.
func checkPacket(t *testing.T, version, first byte, body []byte) {
	kind := first >> 4
	pk, v, err := decodeAny(t, version, first, body)
	if kind == typeConnect {
		version = v
	}
	if version == v5 {
		check5(t, kind, first, body, pk, err)
	} else {
		check3(t, version, kind, first, body, pk, err)
	}
}

func check5(t *testing.T, kind, first byte, body []byte, pk *packets.Packet, ours error) {
	cp, err := readPaho5(whole(first, body))
	if err != nil {
		if ours == nil && refusedByPaho(v5, kind, body) == "" {
			t.Fatalf("we take %x, paho does not: %v", body, err)
		}
		return
	}
	if ours == nil {
		sameFacts(t, body, oursSays(kind, pk), paho5Says(cp))
	}
	again, err := writePaho5(cp)
	if err != nil {
		return
	}
	if cp, err = readPaho5(again); err != nil { // it leaves some properties out
		t.Fatalf("paho does not read what it writes: %x: %v", again, err)
	}
	head, _, _ := header(again)
	pk, _, err = decodeAny(t, v5, first, again[head:])
	switch rule := forbidden5(cp); {
	case err != nil && rule == "":
		t.Fatalf("paho writes %x, which we refuse: %v", again, err)
	case err == nil && rule != "":
		t.Fatalf("we take %x, which %s forbids", again, rule)
	case err == nil:
		sameFacts(t, again, oursSays(kind, pk), paho5Says(cp))
	}
}

// check3 does the same for MQTT 3, where each packet has one form: what we take, paho writes as the same bytes.
func check3(t *testing.T, version, kind, first byte, body []byte, pk *packets.Packet, ours error) {
	if kind == typeDisconnect {
		if (ours == nil) != (len(body) == 0) {
			t.Fatalf("DISCONNECT with %x: %v", body, ours)
		}
		return
	}
	cp, err := readPaho3(whole(first, body))
	if err != nil {
		if ours == nil {
			t.Fatalf("we take %x, paho does not: %v", body, err)
		}
		return
	}
	again, err := writePaho3(cp)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := header(again)
	if ours == nil {
		if kind == typeUnsubscribe && slices.ContainsFunc(pk.Filters, func(s packets.Subscription) bool { return s.Filter == "" }) {
			return // paho.mqtt.golang reads no further than an empty filter, which gets an answer of its own here
		}
		sameFacts(t, body, oursSays(kind, pk), paho3Says(cp))
		if !bytes.Equal(again[head:], body) {
			t.Fatalf("we take %x, which is %x once more", body, again[head:])
		}
	}
	pk, _, err = decodeAny(t, version, first, again[head:])
	switch rule := forbidden3(cp); {
	case err != nil && rule == "":
		t.Fatalf("paho writes %x, which we refuse: %v", again, err)
	case err == nil && rule != "":
		t.Fatalf("we take %x, which %s forbids", again, rule)
	case err == nil:
		sameFacts(t, again, oursSays(kind, pk), paho3Says(cp))
	}
}

func sameFacts(t *testing.T, packet []byte, ours, theirs facts) {
	t.Helper()
	if fmt.Sprint(ours) != fmt.Sprint(theirs) {
		t.Fatalf("%x says to us\n%v, to paho\n%v", packet, ours, theirs)
	}
}

const (
	connect311 = "\x00\x04MQTT\x04\xee\x00\x3c\x00\x01c\x00\x01w\x00\x03bye\x00\x01u\x00\x01p"
	connect31  = "\x00\x06MQIsdp\x03\x02\x00\x0a\x00\x01c"
	connectV5  = "\x00\x04MQTT\x05\xc6\x00\x3c\x1e\x11\x00\x00\x00\x01\x21\x00\x0a\x27\x00\x00\x10\x00\x22\x00\x05\x17\x00\x19\x01\x26\x00\x01k\x00\x01v" +
		"\x00\x01c\x1d\x18\x00\x00\x00\x02\x01\x01\x02\x00\x00\x00\x09\x03\x00\x01t\x08\x00\x01r\x09\x00\x01d\x26\x00\x00\x00\x00" +
		"\x00\x01w\x00\x00\x00\x01u\x00\x01p"
)

func FuzzConnect(f *testing.F) {
	f.Add(connect311)
	f.Add(connect31)
	f.Add(connectV5)
	f.Add("\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00")                                                  // no client ID
	f.Add("\x00\x04MQTT\x05\x02\x00\x00\x08\x15\x00\x01m\x16\x00\x01d\x00\x00")                        // authentication
	f.Add("\x00\x04MQTT\x05\x04\x00\x00\x00\x00\x01c\x05\x02\x00\x00\x00\x00\x00\x01w\x00\x00")        // a will that expires at once
	f.Add("\x00\x04MQTT\x05\x04\x00\x00\x00\x00\x01c\x05\x11\x00\x00\x00\x01\x00\x01w\x00\x00")        // a property of CONNECT in the will
	f.Add("\x00\x04MQTT\x05\x04\x00\x00\x05\x02\x00\x00\x00\x01\x00\x01c\x00\x00\x01w\x00\x00")        // and the reverse
	f.Add("\x00\x04MQTT\x84\x02\x00\x00\x00\x01c")                                                     // a bridge
	f.Add("\x00\x04MQTT\x05\x02\x00\x00\x0a\x11\x00\x00\x00\x01\x11\x00\x00\x00\x02\x00\x01c")         // twice
	f.Add("\x00\x04MQTT\x05\x02\x00\x00\x80\x80\x80\x80\x01\x00\x01c")                                 // a length of five bytes
	f.Add("\x00\x04MQTT\x04\x02\x00\x00\x00\x02\xed\xa0\x00\x04MQTT\x04\x02\x00\x00\x00\x02c\x00rest") // no text; more behind
	f.Fuzz(func(t *testing.T, body string) { checkPacket(t, 0, typeConnect<<4, []byte(body)) })
}

func FuzzSubscribe(f *testing.F) {
	f.Add(byte(5), "\x00\x01\x09\x0b\x01\x26\x00\x01k\x00\x01v\x00\x01a\x01\x00\x03b/#\x2e")
	f.Add(byte(5), "\x00\x01\x00\x00\x01a") // options are missing: panics in mochi
	f.Add(byte(5), "\x00\x01\x00\x00\x0a$share/g/a\x04")
	f.Add(byte(5), "\x00\x01\x05\x0b\xff\xff\xff\x7f\x00\x01a\x00")
	f.Add(byte(5), "\x00\x00\x00\x00\x01a\x00")
	f.Add(byte(4), "\x00\x01\x00\x01a\x01\x00\x01+\x02\x00\x01#\x00")
	f.Add(byte(4), "\x00\x01\x00\x01a\x03")
	f.Add(byte(3), "\xff\xff\x00\x00\x00")
	f.Fuzz(func(t *testing.T, version byte, body string) {
		checkPacket(t, anyVersion(version), typeSubscribe<<4|2, []byte(body))
	})
}

func FuzzUnsubscribe(f *testing.F) {
	f.Add(byte(5), "\x00\x01\x07\x26\x00\x01k\x00\x01v\x00\x01a\x00\x03b/#")
	f.Add(byte(5), "\x00\x01\x00\x00\x01a\x00")
	f.Add(byte(5), "\x00\x01\x02\x0b\x01\x00\x01a")
	f.Add(byte(4), "\x00\x01\x00\x01a\x00\x0a$share/g/a")
	f.Add(byte(4), "\x00\x00\x00\x01a")
	f.Add(byte(4), "\x00\x01\x00\x02a")
	f.Fuzz(func(t *testing.T, version byte, body string) {
		checkPacket(t, anyVersion(version), typeUnsubscribe<<4|2, []byte(body))
	})
}

func FuzzDisconnect(f *testing.F) {
	f.Add(byte(5), "")
	f.Add(byte(5), "\x04")
	f.Add(byte(5), "\x00\x05\x11\x00\x00\x00\x01")
	f.Add(byte(5), "\x81\x0b\x1f\x00\x01s\x26\x00\x01k\x00\x01v")
	f.Add(byte(5), "\x9c\x04\x1c\x00\x01s")
	f.Add(byte(4), "")
	f.Add(byte(4), "\x00")
	f.Fuzz(func(t *testing.T, version byte, body string) {
		checkPacket(t, anyVersion(version), typeDisconnect<<4, []byte(body))
	})
}

// anyVersion makes a version of MQTT of any byte.
func anyVersion(b byte) byte {
	if b == v5 || b == v31 {
		return b
	}
	return v311
}

// FuzzBeginning reads the start of a CONNECT byte by byte and as a whole, to the same end, and finds the version
// of every CONNECT that we take.
func FuzzBeginning(f *testing.F) {
	f.Add(string(whole(0x10, []byte(connect311))))
	f.Add(string(whole(0x10, []byte(connect31))))
	f.Add(string(whole(0x10, []byte(connectV5))))
	f.Add("\x10\xff\xff\xff\x7f\x00\x04MQTT\x05")
	f.Add("\x10\x80\x80\x80\x80\x01")
	f.Add("GET / HTTP/1.1\r\n\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		slow, slowMost, slowOK := beginningOf(oneByOne{bytes.NewReader([]byte(s))})
		version, most, ok := beginningOf(bytes.NewReader([]byte(s)))
		if ok != slowOK || version != slow || most != slowMost {
			t.Fatalf("%x is of version %d, %v and takes %d at once, and %d, %v, %d byte by byte", s, version, ok, most, slow, slowOK, slowMost)
		}
		if ok && version != v311 && version != v5 {
			t.Fatalf("%x is of version %d", s, version)
		}
		head, n, err := header([]byte(s))
		if err != nil || head+n != len(s) || s[0] != typeConnect<<4 {
			return
		}
		if _, v, err := decodeAny(t, 0, s[0], []byte(s[head:])); err == nil && (!ok || version != max(v, v311)) {
			t.Fatalf("a CONNECT of level %d is taken for version %d, %v", v, version, ok)
		}
	})
}

// oneByOne is a connection that brings one byte with each read.
type oneByOne struct{ *bytes.Reader }

func (r oneByOne) Read(b []byte) (int, error) { return r.Reader.Read(b[:min(len(b), 1)]) }

// checkPublish holds what decodePublish makes of a PUBLISH against what paho makes of it.
func checkPublish(t *testing.T, version, first byte, body []byte, p *publish, ours error) {
	var theirs facts
	var again []byte
	rule := ""
	if version == v5 {
		cp, err := readPaho5(whole(first, body))
		if err == nil {
			theirs = publishOfPaho5(cp)
			if again, err = writePaho5(cp); err != nil {
				return
			}
			if cp, err = readPaho5(again); err != nil {
				t.Fatalf("paho does not read what it writes: %x: %v", again, err)
			}
			rule = forbiddenPublish(cp)
		}
	} else if cp, err := readPaho3(whole(first, body)); err == nil {
		theirs = publishOfPaho3(cp)
		if again, err = writePaho3(cp); err != nil {
			t.Fatal(err)
		}
		if q := cp.(*paho3.PublishPacket); q.Qos == 3 || q.Qos == 0 && q.Dup || q.Qos > 0 && q.MessageID == 0 {
			rule = "[MQTT-3.3.1-4] [MQTT-3.3.1-2] [MQTT-2.3.1-1]"
		}
	}
	switch {
	case theirs == nil && ours == nil:
		t.Fatalf("we take %x, paho does not", body)
	case theirs == nil:
		return
	case ours == nil:
		sameFacts(t, body, publishSays(t, p), theirs)
	}
	var q publish
	head, _, _ := header(again)
	switch _, err := decodePublish(&q, version, again[0], again[head:], nil); {
	case err != nil && rule == "":
		t.Fatalf("paho writes %x, which we refuse: %v", again, err)
	case err == nil && rule != "":
		t.Fatalf("we take %x, which %s forbids", again, rule)
	}
}

// publishSays has the facts of a PUBLISH that we have decoded.
func publishSays(t *testing.T, p *publish) facts {
	f := facts{}
	f.put("topic", string(p.topic))
	f.put("payload", string(p.payload))
	f.put("ID", p.packetID)
	f.put("flags", fmt.Sprint(p.qos, p.dup, p.retain))
	f.put("expiry", p.expiry)
	f.put("alias", p.alias)
	users := 0
	if err := eachProperty(propsOfWill, p.props, func(id byte, value []byte) {
		switch id {
		case propPayloadFormat:
			f.put("payload format", value[0])
		case 0x03:
			f.put("content type", string(value))
		case propResponseTopic:
			f.put("response topic", string(value))
		case 0x09:
			f.put("correlation data", string(value))
		case propUserProperty:
			k, _ := prefixed(value)
			v, _ := prefixed(value[2+len(k):])
			f[fmt.Sprint("user property ", users)] = fmt.Sprintf("%q %q", k, v)
			users++
		}
	}); err != nil {
		t.Fatalf("properties that do not travel: %v", err)
	}
	return f
}

func publishOfPaho5(cp *paho5.ControlPacket) facts {
	f, p := facts{}, cp.Content.(*paho5.Publish)
	f.put("topic", p.Topic)
	f.put("payload", string(p.Payload))
	f.put("ID", p.PacketID)
	f.put("flags", fmt.Sprint(p.QoS, p.Duplicate, p.Retain))
	f.put("alias", orZero(p.Properties.TopicAlias))
	paho5Properties(f, "", p.Properties)
	return f
}

func publishOfPaho3(cp paho3.ControlPacket) facts {
	f, p := facts{}, cp.(*paho3.PublishPacket)
	f.put("topic", p.TopicName)
	f.put("payload", string(p.Payload))
	f.put("ID", p.MessageID)
	f.put("flags", fmt.Sprint(p.Qos, p.Dup, p.Retain))
	return f
}

// forbiddenPublish says which rule forbids a PUBLISH that paho.golang takes and writes. The topic is looked at later.
func forbiddenPublish(cp *paho5.ControlPacket) string {
	p := cp.Content.(*paho5.Publish)
	switch {
	case p.QoS == 3, p.QoS == 0 && p.Duplicate:
		return "[MQTT-3.3.1-4] [MQTT-3.3.1-2]"
	case p.QoS > 0 && p.PacketID == 0:
		return "[MQTT-2.2.1-3]"
	case p.Properties.SubscriptionIdentifier != nil:
		return "[MQTT-3.3.4-6]"
	case strings.ContainsAny(p.Properties.ResponseTopic, "+#"):
		return "[MQTT-3.3.2-14]"
	}
	return badProperties(p.Properties)
}

// FuzzDecodeAck holds acknowledgements against mochi's and paho's, and encodes them again.
func FuzzDecodeAck(f *testing.F) {
	for kind := byte(typePuback); kind <= typePubcomp; kind++ {
		f.Add(byte(5), kind, "\x00\x01\x00\x04\x1f\x00\x01a")
	}
	f.Add(byte(5), byte(typePuback), "\x12\x34\x92")
	f.Add(byte(5), byte(typePubrel), "\x12\x34\x92\x07\x26\x00\x01k\x00\x01v")
	f.Add(byte(5), byte(typePuback), "\x00\x01\x00\x08\x1f\x00\x01a\x1f\x00\x01b")
	f.Add(byte(4), byte(typePubcomp), "\x00\x01")
	f.Add(byte(4), byte(typePubrec), "\x00\x01\x00")
	f.Add(byte(4), byte(typePubrec), "\x00\x00")
	f.Fuzz(func(t *testing.T, version, kind byte, body string) {
		version, kind = anyVersion(version), typePuback+kind%4
		first := kind << 4
		if kind == typePubrel {
			first |= 2
		}
		a, err := decodeAck(version, []byte(body))
		checkAck(t, version, first, []byte(body), a, err)
		if err != nil {
			return
		}
		pk := packets.Packet{ProtocolVersion: version, FixedHeader: packets.FixedHeader{Type: kind, Remaining: len(body)}}
		if err := pk.PubackDecode([]byte(body)); err != nil {
			t.Fatalf("we take %x, mochi does not: %v", body, err)
		}
		// A reason without properties is overlooked by mochi where nothing follows.
		if pk.PacketID != a.packetID || version == v5 && len(body) > 3 && pk.ReasonCode != byte(a.reason) {
			t.Fatalf("%x is %+v, mochi: %d, 0x%02x", body, a, pk.PacketID, pk.ReasonCode)
		}
		out := appendAck(nil, version, kind, a.packetID, a.reason, pk.Properties.ReasonString)
		head, n, err := header(out)
		if err != nil || head+n != len(out) || out[0] != first {
			t.Fatalf("encoded %x", out)
		}
		if again, err := decodeAck(version, out[head:]); err != nil || version == v5 && again != a {
			t.Fatalf("%+v comes back as %+v, %v", a, again, err)
		}
		if version < v5 && string(out[head:]) != body { // which has one form
			t.Fatalf("%x is encoded as %x", body, out[head:])
		}
	})
}

// checkAck holds an acknowledgement against paho's.
func checkAck(t *testing.T, version, first byte, body []byte, a ack, ours error) {
	if version < v5 {
		cp, err := readPaho3(whole(first, body))
		if right := err == nil && len(body) == 2 && cp.Details().MessageID != 0; right != (ours == nil) {
			t.Fatalf("%x: %v, paho: %v", body, ours, err)
		}
		return
	}
	cp, err := readPaho5(whole(first, body))
	if err != nil {
		if ours == nil {
			t.Fatalf("we take %x, paho does not: %v", body, err)
		}
		return
	}
	var reason byte
	var p *paho5.Properties
	switch c := cp.Content.(type) {
	case *paho5.Puback:
		reason, p = c.ReasonCode, c.Properties
	case *paho5.Pubrec:
		reason, p = c.ReasonCode, c.Properties
	case *paho5.Pubrel:
		reason, p = c.ReasonCode, c.Properties
	case *paho5.Pubcomp:
		reason, p = c.ReasonCode, c.Properties
	}
	if ours == nil && (a.packetID != cp.PacketID() || a.reason != Reason(reason)) {
		t.Fatalf("%x is %+v, paho: %d, 0x%02x", body, a, cp.PacketID(), reason)
	}
	again, err := writePaho5(cp)
	if err != nil {
		return
	}
	head, _, _ := header(again)
	right := cp.PacketID() != 0 && badProperties(p) == ""
	if b, err := decodeAck(version, again[head:]); right != (err == nil) || right && (b.packetID != cp.PacketID() || b.reason != Reason(reason)) {
		t.Fatalf("paho writes %x, we make %+v of it, %v", again, b, err)
	}
}
