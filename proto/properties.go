package proto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// The PUBLISH properties that travel with a message, by their MQTT 5 identifiers.
const (
	propPayloadFormat   = 0x01 // a byte, 0 or 1
	propContentType     = 0x03 // a string
	propResponseTopic   = 0x08 // a string that is a topic name
	propCorrelationData = 0x09 // binary
	propUser            = 0x26 // two strings; the only one that may come more than once
)

// ErrProperties is wrapped by what ValidProperties finds wrong.
var ErrProperties = errors.New("bad message properties")

// ValidProperties reports why b is not what Message.Properties may hold; nil when it is.
func ValidProperties(b []byte) error {
	var seen uint64
	for len(b) > 0 {
		id := b[0]
		n := 0
		switch id {
		case propPayloadFormat:
			if len(b) < 2 || b[1] > 1 {
				return fmt.Errorf("%w: payload format indicator", ErrProperties)
			}
			n = 2
		case propContentType, propResponseTopic:
			s, ok := lengthPrefixed(b[1:])
			if !ok || !validString(s) { // [MQTT-3.3.2-13] [MQTT-3.3.2-19]
				return fmt.Errorf("%w: string of property 0x%02x", ErrProperties, id)
			}
			if id == propResponseTopic && (len(s) == 0 || bytes.ContainsAny(s, "+#")) { // [MQTT-3.3.2-14]
				return fmt.Errorf("%w: response topic %.80q", ErrProperties, s)
			}
			n = 3 + len(s)
		case propCorrelationData:
			s, ok := lengthPrefixed(b[1:])
			if !ok {
				return fmt.Errorf("%w: correlation data", ErrProperties)
			}
			n = 3 + len(s)
		case propUser:
			k, ok := lengthPrefixed(b[1:])
			if !ok || !validString(k) {
				return fmt.Errorf("%w: name of a user property", ErrProperties)
			}
			v, ok := lengthPrefixed(b[3+len(k):])
			if !ok || !validString(v) {
				return fmt.Errorf("%w: value of a user property", ErrProperties)
			}
			n = 5 + len(k) + len(v)
		default:
			return fmt.Errorf("%w: property 0x%02x", ErrProperties, id)
		}
		if id != propUser {
			if seen&(1<<id) != 0 {
				return fmt.Errorf("%w: property 0x%02x twice", ErrProperties, id)
			}
			seen |= 1 << id
		}
		b = b[n:]
	}
	return nil
}

// lengthPrefixed returns the MQTT string or binary data that b begins with.
func lengthPrefixed(b []byte) ([]byte, bool) {
	if len(b) < 2 {
		return nil, false
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	if len(b) < n {
		return nil, false
	}
	return b[2:n], true
}

// validString reports whether s is what MQTT allows in a string [MQTT-1.5.4-1] [MQTT-1.5.4-2].
func validString(s []byte) bool { return utf8.Valid(s) && bytes.IndexByte(s, 0) < 0 }
