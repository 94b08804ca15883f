package mqttfront

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// MQTT control packet types, in the upper half of the first byte.
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15
)

// Protocol levels.
const (
	v31  = 3
	v311 = 4
	v5   = 5
	// bridgeBit is set in the level by MQTT 3 bridges: an agreement among brokers that has its origin in mosquitto.
	bridgeBit = 0x80
)

var (
	errMalformed = &Refusal{Code: reasonMalformed}
	errLength    = &Refusal{reasonMalformed, "the remaining length has more than 4 bytes"}
	errOverlong  = &Refusal{reasonMalformed, "the remaining length has more bytes than it needs"}
	errShort     = errors.New("packet is not whole")
)

// header reads a fixed header: the number of its bytes and of those that follow. It returns errShort when b
// ends before it.
func header(b []byte) (head, body int, err error) {
	for i := 1; i < len(b); i++ {
		if i > 4 { // [MQTT-1.5.5-1]
			return 0, 0, errLength
		}
		body |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] < 0x80 {
			return i + 1, body, nil
		}
	}
	if len(b) > 4 {
		return 0, 0, errLength
	}
	return 0, 0, errShort
}

// varint reads a variable byte integer, which may be no longer than it must [MQTT-1.5.5-1].
func varint(b []byte) (v, n int, ok bool) {
	for n < len(b) && n < 4 {
		d := b[n]
		v |= int(d&0x7f) << (7 * n)
		n++
		if d < 0x80 {
			return v, n, d > 0 || n == 1
		}
	}
	return 0, 0, false
}

// appendVarint appends a variable byte integer [MQTT-1.5.5-1].
func appendVarint(b []byte, v int) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func varintLen(v int) int {
	switch {
	case v < 1<<7:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<21:
		return 3
	}
	return 4
}

// publish is a decoded PUBLISH. Its slices point into what it was decoded from.
type publish struct {
	topic     []byte
	payload   []byte
	props     []byte // those that travel on, see proto.Message.Properties
	expiry    uint32
	packetID  uint16
	alias     uint16
	qos       byte
	dup       bool
	retain    bool
	hasExpiry bool
	hasAlias  bool
}

// Properties of PUBLISH: those that belong to one hop, and some of those that travel on.
const (
	propExpiry         = 0x02
	propSubscriptionID = 0x0b
	propTopicAlias     = 0x23

	propPayloadFormat = 0x01
	propResponseTopic = 0x08
	propUserProperty  = 0x26

	propMaximumPacketSize = 0x27 // of CONNECT
)

// decodePublish decodes the body of a PUBLISH whose first byte is first. scratch is for properties that are
// not in one piece; it is returned for reuse.
func decodePublish(p *publish, version, first byte, b, scratch []byte) (_ []byte, err error) {
	*p = publish{qos: first >> 1 & 3, dup: first&8 != 0, retain: first&1 != 0}
	if p.qos == 3 || p.qos == 0 && p.dup || len(b) < 2 { // [MQTT-3.3.1-4] [MQTT-3.3.1-2]
		return scratch, errMalformed
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	if len(b) < n {
		return scratch, errMalformed
	}
	p.topic, b = b[2:n], b[n:] // [MQTT-3.3.2-1]
	if p.qos > 0 {
		if len(b) < 2 {
			return scratch, errMalformed
		}
		if p.packetID = binary.BigEndian.Uint16(b); p.packetID == 0 { // [MQTT-2.2.1-3]
			return scratch, refuse(reasonProtocolError, "packet identifier 0")
		}
		b = b[2:]
	}
	if version == v5 {
		size, k, ok := varint(b)
		if !ok || len(b) < k+size {
			return scratch, errMalformed
		}
		if size > 0 {
			scratch, err = p.properties(b[k:k+size], scratch[:0])
			if err != nil {
				return scratch, err
			}
		}
		b = b[k+size:]
	}
	p.payload = b
	return scratch, nil
}

// properties takes apart the properties of a PUBLISH from a client.
func (p *publish) properties(b, scratch []byte) ([]byte, error) {
	all, from := b, 0 // all[from:at] is a run that travels on
	at := 0
	pieces := 0
	var seen propSet
	cutOut := func(n int) {
		if at > from {
			scratch = append(scratch, all[from:at]...)
			pieces++
		}
		at += n
		from = at
	}
	for at < len(all) {
		b = all[at:]
		id := b[0]
		if id < 64 && id != propUserProperty {
			if seen&(1<<id) != 0 {
				return scratch, refuse(reasonProtocolError, "property 0x%02x twice", id)
			}
			seen |= 1 << id
		}
		switch id {
		case propExpiry:
			if len(b) < 5 {
				return scratch, errMalformed
			}
			p.expiry, p.hasExpiry = binary.BigEndian.Uint32(b[1:]), true
			cutOut(5)
		case propTopicAlias:
			if len(b) < 3 {
				return scratch, errMalformed
			}
			p.alias, p.hasAlias = binary.BigEndian.Uint16(b[1:]), true
			cutOut(3)
		case propSubscriptionID:
			// [MQTT-3.3.4-6]
			return scratch, refuse(reasonProtocolError, "subscription identifier in a PUBLISH from a client")
		default:
			n := skipProperty(b)
			switch {
			case n == 0:
				return scratch, errMalformed
			case id == propPayloadFormat && b[1] > 1:
				return scratch, refuse(reasonProtocolError, "payload format indicator %d", b[1])
			case id == propResponseTopic && (n == 3 || bytes.ContainsAny(b[3:n], "+#")): // [MQTT-3.3.2-14]
				return scratch, refuse(reasonProtocolError, "the response topic %.60q is no topic name", b[3:n])
			}
			at += n
		}
	}
	if pieces == 0 {
		p.props = all[from:]
	} else {
		cutOut(0)
		p.props = scratch
	}
	if err := proto.ValidProperties(p.props); err != nil {
		return scratch, refuse(reasonMalformed, "%v", err)
	}
	return scratch, nil
}

// skipProperty returns the length of the travelling property that b begins with, or 0.
func skipProperty(b []byte) int {
	prefixed := func(at int) int {
		if len(b) < at+2 {
			return 0
		}
		n := at + 2 + int(binary.BigEndian.Uint16(b[at:]))
		if len(b) < n {
			return 0
		}
		return n
	}
	switch b[0] {
	case 0x01:
		if len(b) >= 2 {
			return 2
		}
	case 0x03, 0x08, 0x09:
		return prefixed(1)
	case 0x26:
		if n := prefixed(1); n > 0 {
			return prefixed(n)
		}
	}
	return 0
}

// outgoing is what a PUBLISH to a client has beside its message.
type outgoing struct {
	topic    string   // as the client is to see it, where that is not the message's
	ids      []uint32 // subscription identifiers
	expiry   uint32   // what is left, in seconds; only with hasExpiry
	packetID uint16
	alias    uint16
	version  byte
	qos      byte
	dup      bool
	retain   bool
	noTopic  bool // the alias stands for it
	// hasExpiry says that expiry is to be sent.
	hasExpiry bool
}

// expires fills in what is left of m's life [MQTT-3.3.2-6]. It goes out rounded up, so that nothing is sent with 0 left.
func (o *outgoing) expires(m *proto.Message, now time.Time) {
	if o.hasExpiry = !m.Expires.IsZero(); o.hasExpiry {
		left := max(m.Expires.Sub(now), 0)
		o.expiry = uint32(min((left+time.Second-1)/time.Second, 1<<32-1))
		o.expiry = max(o.expiry, 1)
	}
}

func (o *outgoing) name(m *proto.Message) string {
	if o.topic != "" {
		return o.topic
	}
	return m.Topic
}

// sizes returns the length of the properties and of the body.
func (o *outgoing) sizes(m *proto.Message) (props, body int) {
	body = 2 + len(m.Payload)
	if !o.noTopic {
		body += len(o.name(m))
	}
	if o.qos > 0 {
		body += 2
	}
	if o.version < v5 {
		return 0, body
	}
	props = len(m.Properties)
	if o.hasExpiry {
		props += 5
	}
	if o.alias > 0 {
		props += 3
	}
	for _, id := range o.ids {
		props += 1 + varintLen(int(id))
	}
	return props, body + varintLen(props) + props
}

// size returns the length of the whole packet.
func (o *outgoing) size(m *proto.Message) int {
	_, body := o.sizes(m)
	return 1 + varintLen(body) + body
}

// appendPublish appends a PUBLISH packet.
func appendPublish(b []byte, o *outgoing, m *proto.Message) []byte {
	props, body := o.sizes(m)
	first := byte(typePublish<<4) | o.qos<<1
	if o.dup {
		first |= 8
	}
	if o.retain {
		first |= 1
	}
	b = appendVarint(append(b, first), body)
	if o.noTopic {
		b = append(b, 0, 0)
	} else {
		name := o.name(m)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...)
	}
	if o.qos > 0 { // [MQTT-2.2.1-2]
		b = binary.BigEndian.AppendUint16(b, o.packetID)
	}
	if o.version == v5 {
		b = appendVarint(b, props) // [MQTT-2.2.2-1]
		if o.hasExpiry {
			b = binary.BigEndian.AppendUint32(append(b, propExpiry), o.expiry)
		}
		if o.alias > 0 {
			b = binary.BigEndian.AppendUint16(append(b, propTopicAlias), o.alias)
		}
		for _, id := range o.ids {
			b = appendVarint(append(b, propSubscriptionID), int(id))
		}
		// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
		b = append(b, m.Properties...)
	}
	return append(b, m.Payload...)
}

// ack is a decoded PUBACK, PUBREC, PUBREL or PUBCOMP.
type ack struct {
	packetID uint16
	reason   Reason
}

// decodeAck decodes the body of one of the four acknowledgements. Reason strings and user properties are
// checked and ignored.
func decodeAck(version byte, b []byte) (ack, error) {
	if len(b) < 2 {
		return ack{}, errMalformed
	}
	a := ack{packetID: binary.BigEndian.Uint16(b)}
	if a.packetID == 0 {
		return a, refuse(reasonProtocolError, "packet identifier 0")
	}
	if version < v5 {
		if len(b) != 2 {
			return a, errMalformed
		}
		return a, nil
	}
	if len(b) > 2 {
		a.reason = Reason(b[2])
	}
	if len(b) > 3 {
		size, k, ok := varint(b[3:])
		if !ok || len(b) != 3+k+size {
			return a, errMalformed
		}
		if err := checkProperties(propsOfAck, b[3+k:]); err != nil {
			return a, err
		}
	}
	return a, nil
}

// custodySize is how long an acknowledgement with the user property custody is at most.
const custodySize = 23

// appendCustody appends a PUBACK or PUBREC for MQTT 5 of a message that is kept, with the user property that says where.
func appendCustody(b []byte, kind byte, packetID uint16, custody Custody) []byte {
	where := "swarm"
	if custody == CustodyNode {
		where = "node"
	}
	props := byte(len("&..custody..") + len(where))
	b = append(b, kind<<4, 4+props, byte(packetID>>8), byte(packetID), byte(reasonSuccess), props, 0x26, 0, byte(len("custody")))
	b = append(append(b, "custody"...), 0, byte(len(where)))
	return append(b, where...)
}

// appendAck appends one of the four acknowledgements, under the packet ID of the message [MQTT-2.2.1-5]. text, which
// may be "", goes to MQTT 5 clients.
func appendAck(b []byte, version byte, kind byte, packetID uint16, reason Reason, text string) []byte {
	first := kind << 4
	if kind == typePubrel {
		first |= 2 // [MQTT-3.6.1-1]
	}
	if version < v5 || reason == reasonSuccess {
		return append(b, first, 2, byte(packetID>>8), byte(packetID))
	}
	if text == "" {
		return append(b, first, 3, byte(packetID>>8), byte(packetID), byte(reason))
	}
	props := 3 + len(text)
	b = appendVarint(append(b, first), 3+varintLen(props)+props)
	b = append(b, byte(packetID>>8), byte(packetID), byte(reason))
	b = appendVarint(b, props)
	b = binary.BigEndian.AppendUint16(append(b, 0x1f), uint16(len(text)))
	return append(b, text...)
}
