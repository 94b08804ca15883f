package mqttfront

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Everything but PUBLISH and its acknowledgements goes through mochi's codec. What it gets wrong is put right
// here: it panics on some packets, keeps pointing into what it was given, and checks properties loosely.

// decode decodes the body of a packet from a client.
func (b *Broker) decode(version, first byte, body []byte) (pk *packets.Packet, err error) {
	if err := checkBody(version, first>>4, body); err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			b.stats.DecodePanics.Add(1)
			pk, err = nil, errMalformed
		}
	}()
	pk = &packets.Packet{ProtocolVersion: version}
	if err := pk.FixedHeader.Decode(first); err != nil {
		return nil, errMalformed
	}
	pk.FixedHeader.Remaining = len(body)
	body = bytes.Clone(body) // mochi's strings point into it
	switch first >> 4 {
	case typeConnect:
		err = pk.ConnectDecode(body)
	case typeSubscribe:
		err = pk.SubscribeDecode(body)
	case typeUnsubscribe:
		err = pk.UnsubscribeDecode(body)
	case typeDisconnect:
		err = pk.DisconnectDecode(body)
	default:
		err = errMalformed
	}
	if err != nil {
		return nil, refuse(reasonMalformed, "%s", strings.TrimPrefix(strings.TrimPrefix(err.Error(), "malformed packet"), ": "))
	}
	return pk, nil
}

// checkBody checks what the codec does not.
func checkBody(version, kind byte, b []byte) error {
	switch kind {
	case typeSubscribe:
		return checkSubscribe(version, b)
	case typeUnsubscribe:
		return checkUnsubscribe(version, b)
	case typeDisconnect:
		if version < v5 {
			if len(b) > 0 {
				return errMalformed
			}
			return nil
		}
		if len(b) > 1 {
			p, rest, ok := sizedProperties(b[1:])
			if !ok || len(rest) > 0 {
				return errMalformed
			}
			return checkProperties(propsOfDisconnect, p)
		}
	}
	return nil
}

// packetIDAndProps checks the start of SUBSCRIBE and UNSUBSCRIBE, and returns what follows.
func packetIDAndProps(version byte, allowed propSet, b []byte) ([]byte, error) {
	if len(b) < 2 {
		return nil, errMalformed
	}
	if b[0] == 0 && b[1] == 0 { // [MQTT-2.2.1-3]
		return nil, refuse(reasonProtocolError, "packet identifier 0")
	}
	b, err := skipProperties(version, allowed, b[2:])
	if err != nil {
		return nil, err
	}
	if len(b) == 0 { // [MQTT-3.8.3-2] [MQTT-3.10.3-2]
		return nil, refuse(reasonProtocolError, "no topic filter")
	}
	return b, nil
}

var errFilters = refuse(ReasonQuotaExceeded, "at most %d filters may be in one packet", maxFilters)

func checkSubscribe(version byte, b []byte) error {
	b, err := packetIDAndProps(version, propsOfSubscribe, b)
	if err != nil {
		return err
	}
	for n := 1; len(b) > 0; n++ {
		f, ok := prefixed(b)
		if !ok || !validString(f) || len(b) < 3+len(f) { // [MQTT-3.8.3-1]
			return errMalformed
		}
		if n > maxFilters {
			return errFilters
		}
		options := b[2+len(f)]
		b = b[3+len(f):]
		switch {
		case options&3 == 3, version < v5 && options > 2, options&0xc0 != 0: // [MQTT-3.8.3-5]
			return errMalformed
		case options&0x30 == 0x30:
			return refuse(reasonProtocolError, "retain handling 3")
		case options&4 != 0 && bytes.HasPrefix(f, []byte("$share/")): // [MQTT-3.8.3-4]
			return refuse(reasonProtocolError, "no local on a shared subscription")
		}
	}
	return nil
}

func checkUnsubscribe(version byte, b []byte) error {
	b, err := packetIDAndProps(version, propsOfUnsubscribe, b)
	if err != nil {
		return err
	}
	for n := 1; len(b) > 0; n++ {
		f, ok := prefixed(b)
		if !ok || !validString(f) { // [MQTT-3.10.3-1]
			return errMalformed
		}
		if n > maxFilters {
			return errFilters
		}
		b = b[2+len(f):]
	}
	return nil
}

// protocolOf reads the protocol name and level that a CONNECT begins with.
func protocolOf(b []byte) (name string, version byte, rest []byte, ok bool) {
	n, ok := prefixed(b)
	if !ok || len(n) > 6 || len(b) < 3+len(n) {
		return "", 0, nil, false
	}
	return string(n), b[2+len(n)], b[3+len(n):], true
}

// checkConnect checks the body of a CONNECT behind the protocol level.
func checkConnect(version byte, b []byte) error {
	if len(b) < 3 {
		return errMalformed
	}
	flags := b[0]
	will, willQoS, willRetain := flags&4 != 0, flags>>3&3, flags&0x20 != 0
	hasPassword, hasUser := flags&0x40 != 0, flags&0x80 != 0
	switch {
	case flags&1 != 0, // [MQTT-3.1.2-3]
		willQoS == 3,                            // [MQTT-3.1.2-12]
		!will && (willQoS > 0 || willRetain),    // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
		version < v5 && hasPassword && !hasUser: // [MQTT3-3.1.2-22]
		return errMalformed
	}
	b = b[3:]
	var err error
	if b, err = skipProperties(version, propsOfConnect, b); err != nil {
		return err
	}
	b, ok := skipText(b) // [MQTT-3.1.3-4]
	if ok && will {
		if b, err = willProperties(version, b); err != nil {
			return err
		}
		if b, ok = skipText(b); ok { // [MQTT-3.1.3-11]
			b, ok = skipBinary(b)
		}
	}
	if ok && hasUser {
		b, ok = skipText(b) // [MQTT-3.1.3-12]
	}
	if ok && hasPassword {
		b, ok = skipBinary(b)
	}
	if !ok || len(b) > 0 {
		return errMalformed
	}
	return nil
}

// skipProperties checks the properties that b begins with in MQTT 5, and returns what follows.
func skipProperties(version byte, allowed propSet, b []byte) ([]byte, error) {
	if version < v5 {
		return b, nil
	}
	p, rest, ok := sizedProperties(b)
	if !ok {
		return nil, errMalformed
	}
	return rest, checkProperties(allowed, p)
}

// willProperties is skipProperties for those of a will. The codec cannot tell an expiry of 0 from none, so that it is
// made 1 s, as it is for other messages.
func willProperties(version byte, b []byte) ([]byte, error) {
	if version < v5 {
		return b, nil
	}
	p, rest, ok := sizedProperties(b)
	if !ok {
		return nil, errMalformed
	}
	return rest, eachProperty(propsOfWill, p, func(id byte, value []byte) {
		if id == propExpiry && binary.BigEndian.Uint32(value) == 0 {
			binary.BigEndian.PutUint32(value, 1)
		}
	})
}

func skipBinary(b []byte) ([]byte, bool) {
	s, ok := prefixed(b)
	if !ok {
		return nil, false
	}
	return b[2+len(s):], true
}

func skipText(b []byte) ([]byte, bool) {
	s, ok := prefixed(b)
	if !ok || !validString(s) {
		return nil, false
	}
	return b[2+len(s):], true
}

// announcedMaximum returns the Maximum Packet Size in a CONNECT of MQTT 5, from what follows the protocol level. It is
// for answers to any CONNECT, good or not.
func announcedMaximum(b []byte) int {
	most := maxPacketLimit
	if len(b) < 3 {
		return most
	}
	if p, _, ok := sizedProperties(b[3:]); ok {
		_ = eachProperty(propsOfConnect, p, func(id byte, value []byte) {
			if id == propMaximumPacketSize {
				most = int(min(binary.BigEndian.Uint32(value), maxPacketLimit))
			}
		})
	}
	return most
}

// appendDisconnect appends a DISCONNECT with a reason, in words too where the client takes as much [MQTT-3.14.2-3]
// [MQTT-3.14.2-4], and without anything else [MQTT-3.14.2-2].
func (c *conn) appendDisconnect(b []byte, r *Refusal) []byte {
	pk := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Disconnect},
		ProtocolVersion: v5,
		ReasonCode:      byte(lawful(typeDisconnect, r.Code)),
	}
	for _, text := range []string{clip(r.Text), ""} {
		pk.Properties.ReasonString = text
		var buf bytes.Buffer
		if pk.DisconnectEncode(&buf) == nil && buf.Len() <= c.maxPacket {
			return append(b, buf.Bytes()...)
		}
	}
	return b
}

// clip keeps a reason string to what is worth sending.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = string(bytes.ToValidUTF8([]byte(s[:most]), nil))
	}
	return s
}

// encodeSuback encodes the answer to SUBSCRIBE or UNSUBSCRIBE, under its packet ID [MQTT-2.2.1-6].
func (c *conn) encodeSuback(kind byte, packetID uint16, codes []byte, user []packets.UserProperty, text string) []byte {
	pk := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: kind},
		ProtocolVersion: c.version,
		PacketID:        packetID,
		ReasonCodes:     codes,
	}
	pk.Properties.User = user
	pk.Properties.ReasonString = clip(text)
	pk.Mods.DisallowProblemInfo = !c.problemInfo
	var buf bytes.Buffer
	var err error
	if kind == typeSuback {
		err = pk.SubackEncode(&buf)
	} else {
		err = pk.UnsubackEncode(&buf)
	}
	if err != nil {
		return binary.BigEndian.AppendUint16([]byte{kind << 4, 2}, packetID)
	}
	return buf.Bytes()
}
