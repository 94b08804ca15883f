package proto

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A control frame is decoded by generated code, which allocates for every element of a repeated field: two
// bytes on the wire may be an empty message of a hundred in memory. A long frame is therefore counted before
// it is decoded.

// What is ours to tune.
const (
	// uncountedBody is the length in bytes up to which a control frame's body is decoded without being
	// counted: what it can become is small.
	uncountedBody = 16 << 10
	// maxElements bounds the repeated elements of a control frame, at all depths: more than honest frames
	// of SoftFrame bytes, or a registration of 100,000 filters, have.
	maxElements = 1 << 18
)

var errElements = errors.New("too many elements")

// checkElements reports whether a control frame's body has more repeated elements than maxElements.
func checkElements(body []byte, d protoreflect.MessageDescriptor) error {
	left := maxElements
	return countElements(body, d, &left)
}

// countElements takes the repeated elements of a message off left. Embedded messages nest as deep as the
// descriptor does, which is not recursive.
func countElements(b []byte, d protoreflect.MessageDescriptor, left *int) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return protowire.ParseError(n)
		}
		value := b[:n]
		b = b[n:]
		f := d.Fields().ByNumber(num)
		if f == nil {
			continue // kept as bytes
		}
		if f.IsList() {
			*left--
		}
		if typ == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(value)
			switch {
			case f.Message() != nil:
				if err := countElements(value, f.Message(), left); err != nil {
					return err
				}
			case f.IsList() && f.IsPacked():
				for _, c := range value { // a varint ends with the byte that has no high bit
					if c < 0x80 {
						*left--
					}
				}
			}
		}
		if *left < 0 {
			return errElements
		}
	}
	return nil
}
