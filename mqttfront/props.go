package mqttfront

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// Properties that clients send outside of PUBLISH are checked here before mochi's codec decodes them, since it
// takes duplicates, and can't tell a value of 0 from none.

// propKind is the shape of a property's value.
type propKind byte

const (
	propByte propKind = iota + 1
	propTwo
	propFour
	propVarint
	propString
	propBinary
	propPair
)

// propKinds has the shape of every property that a client may send, by its identifier.
var propKinds = [64]propKind{
	0x01: propByte, 0x02: propFour, 0x03: propString, 0x08: propString, 0x09: propBinary, 0x0b: propVarint,
	0x11: propFour, 0x15: propString, 0x16: propBinary, 0x17: propByte, 0x18: propFour, 0x19: propByte,
	0x1f: propString, 0x21: propTwo, 0x22: propTwo, 0x23: propTwo, 0x26: propPair, 0x27: propFour,
}

// propSet is a set of property identifiers, as bits.
type propSet uint64

func props(ids ...byte) (s propSet) {
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

// Which properties may come with what from a client. Shutting out the rest carries out what section 2.2.2.2
// of MQTT 5 asks.
var (
	propsOfConnect     = props(0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27)
	propsOfWill        = props(0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26)
	propsOfAck         = props(0x1f, 0x26)
	propsOfSubscribe   = props(0x0b, 0x26)
	propsOfUnsubscribe = props(0x26)
	propsOfDisconnect  = props(0x11, 0x1f, 0x26) // 0x1c is for servers
	propsNot0          = props(0x0b, 0x21, 0x27)
	propsBool          = props(0x01, 0x17, 0x19)
)

// checkProperties reports what is wrong with properties without their length.
func checkProperties(allowed propSet, b []byte) error {
	return eachProperty(allowed, b, nil)
}

// eachProperty checks properties and visits them; the value of strings and binary data is without its length.
func eachProperty(allowed propSet, b []byte, visit func(id byte, value []byte)) error {
	var seen propSet
	for len(b) > 0 {
		id := b[0]
		if id >= 64 || propKinds[id] == 0 {
			return refuse(reasonMalformed, "unknown property 0x%02x", id)
		}
		if allowed&(1<<id) == 0 {
			return refuse(reasonProtocolError, "property 0x%02x has no place here", id)
		}
		if seen&(1<<id) != 0 && id != 0x26 {
			return refuse(reasonProtocolError, "property 0x%02x twice", id)
		}
		seen |= 1 << id
		value, n, ok := propertyValue(propKinds[id], b[1:])
		if !ok {
			return refuse(reasonMalformed, "property 0x%02x cannot be read", id)
		}
		if propsNot0&(1<<id) != 0 && len(bytes.Trim(value, "\x00")) == 0 {
			return refuse(reasonProtocolError, "property 0x%02x is 0", id)
		}
		if propsBool&(1<<id) != 0 && value[0] > 1 {
			return refuse(reasonProtocolError, "property 0x%02x is %d", id, value[0])
		}
		if visit != nil {
			visit(id, value)
		}
		b = b[1+n:]
	}
	return nil
}

// propertyValue reads a value of some kind and returns it with the number of bytes it took.
func propertyValue(kind propKind, b []byte) (value []byte, n int, ok bool) {
	fixed := func(n int) ([]byte, int, bool) {
		if len(b) < n {
			return nil, 0, false
		}
		return b[:n], n, true
	}
	switch kind {
	case propByte:
		return fixed(1)
	case propTwo:
		return fixed(2)
	case propFour:
		return fixed(4)
	case propVarint:
		_, k, ok := varint(b)
		return b[:k], k, ok
	case propString, propBinary:
		s, ok := prefixed(b)
		return s, 2 + len(s), ok && (kind == propBinary || validString(s))
	case propPair: // [MQTT-1.5.7-1]
		k, ok := prefixed(b)
		if !ok || !validString(k) {
			return nil, 0, false
		}
		v, ok := prefixed(b[2+len(k):])
		n := 4 + len(k) + len(v)
		if !ok || !validString(v) {
			return nil, 0, false
		}
		return b[:n], n, true
	}
	return nil, 0, false
}

// prefixed returns the string or binary data with a length in front that b begins with.
func prefixed(b []byte) ([]byte, bool) {
	if len(b) < 2 {
		return nil, false
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	if len(b) < n {
		return nil, false
	}
	return b[2:n], true
}

// validString reports whether s is what MQTT allows in a string [MQTT-1.5.4-1] [MQTT-1.5.4-2]. Nothing is taken out of it,
// not even a U+FEFF in front [MQTT-1.5.4-3].
func validString(s []byte) bool { return utf8.Valid(s) && bytes.IndexByte(s, 0) < 0 }

// sizedProperties splits properties with their length in front off b.
func sizedProperties(b []byte) (props, rest []byte, ok bool) {
	size, k, ok := varint(b)
	if !ok || len(b) < k+size {
		return nil, nil, false
	}
	return b[k : k+size], b[k+size:], true
}
