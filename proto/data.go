package proto

import (
	"errors"
	"math"
	"slices"
	"strings"
	"time"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// The two frames that carry messages have codecs of their own, because every message passes them: they are
// written straight from a Message and read in place. The bytes are those of route.proto's Publish and
// Deliver, and the tests hold them against the generated code.

// Publish is a message on its way to its location's rendezvous; see route.proto.
type Publish struct {
	Message  *Message
	Location [LocationSize]byte
	Depth    int
	Epoch    uint64
	Seq      uint64
	Released uint64
	Age      time.Duration // rounded to milliseconds on the wire
	Origin   string
	Hops     int
	Version  uint64
	Served   bool
	Echo     bool
	Awaited  bool
	Before   []string      // nodes, MaxBefore at most
	Sent     time.Duration // by the sender's clock, of retained messages; in whole milliseconds on the wire, 0: not said
	Chosen   []Choice      // MaxChosen at most
}

// Choice is which node a message of a shared subscription is for.
type Choice struct {
	Group Group
	Node  string
	Hold  time.Duration // in whole seconds on the wire
	Turn  uint32
}

// Group names a shared subscription: $share/NAME/FILTER.
type Group struct{ Name, Filter string }

// Deliver is a message for subscribers at the node that it is sent to; see route.proto.
type Deliver struct {
	Message  *Message
	Location [LocationSize]byte
	Epoch    uint64
	Seq      uint64
	Forget   uint64
	Stamp    uint64
	Groups   []Group
	Plain    bool
	Recent   bool
}

func appendString(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

func appendBytes(b []byte, n protowire.Number, s []byte) []byte {
	if len(s) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), s)
}

func appendUint(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func appendFixed(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, n, protowire.Fixed64Type), v)
}

func appendBool(b []byte, n protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendUint(b, n, 1)
}

// ExpiresMillis is a message's remaining life as the wire has it: milliseconds plus one, 0 for no limit.
func ExpiresMillis(expires, now time.Time) uint64 {
	if expires.IsZero() {
		return 0
	}
	return uint64(max(0, expires.Sub(now).Milliseconds())) + 1 //nolint:gosec // not negative
}

// maxExpiry is the longest life that a message may claim: MQTT's largest message expiry interval.
const maxExpiry = uint64(1<<32) * 1000

// ExpiresAt is the opposite of ExpiresMillis.
func ExpiresAt(ms uint64, now time.Time) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return now.Add(time.Duration(min(ms-1, maxExpiry)) * time.Millisecond) //nolint:gosec // bounded
}

func sizeBytes(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(n)
}

func (m *Message) size(expires uint64) int {
	n := sizeBytes(len(m.Topic)) + sizeBytes(len(m.Payload)) + sizeBytes(len(m.Properties))
	if m.QoS > 0 {
		n += 2
	}
	if m.Retain {
		n += 2
	}
	if expires > 0 {
		n += 1 + protowire.SizeVarint(expires)
	}
	return n
}

func (m *Message) appendField(b []byte, n protowire.Number, now time.Time) []byte {
	expires := ExpiresMillis(m.Expires, now)
	b = protowire.AppendTag(b, n, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(m.size(expires))) //nolint:gosec // a size
	b = appendString(b, 1, m.Topic)
	b = appendBytes(b, 2, m.Payload)
	b = appendBytes(b, 3, m.Properties)
	b = appendUint(b, 4, uint64(m.QoS))
	b = appendBool(b, 5, m.Retain)
	return appendUint(b, 6, expires)
}

func (p *Publish) append(b []byte, now time.Time) []byte {
	b = appendBytes(b, 1, p.Location[:])
	b = appendUint(b, 2, uint64(p.Depth)) //nolint:gosec // not negative
	b = p.Message.appendField(b, 3, now)
	b = appendFixed(b, 4, p.Epoch)
	b = appendUint(b, 5, p.Seq)
	b = appendUint(b, 6, p.Released)
	b = appendBool(b, 7, p.Served)
	b = appendBool(b, 8, p.Echo)
	b = appendString(b, 9, p.Origin)
	b = appendUint(b, 10, uint64(p.Hops))                       //nolint:gosec // not negative
	b = appendUint(b, 11, uint64(max(0, p.Age.Milliseconds()))) //nolint:gosec // not negative
	b = appendUint(b, 12, p.Version)
	b = appendBool(b, 13, p.Awaited)
	for _, node := range p.Before {
		b = appendString(b, 14, node)
	}
	b = appendUint(b, 15, uint64(max(0, p.Sent.Milliseconds()))) //nolint:gosec // not negative
	for i := range p.Chosen {
		b = p.Chosen[i].append(b, 16)
	}
	return b
}

func (c *Choice) append(b []byte, n protowire.Number) []byte {
	at := len(b)
	b = appendGroup(b, 1, c.Group)
	b = appendString(b, 2, c.Node)
	b = appendUint(b, 3, uint64(max(0, c.Hold/time.Second))) //nolint:gosec // not negative
	b = appendUint(b, 4, uint64(c.Turn))
	var head [20]byte
	h := protowire.AppendVarint(protowire.AppendTag(head[:0], n, protowire.BytesType), uint64(len(b)-at)) //nolint:gosec // a size
	return slices.Insert(b, at, h...)
}

func appendGroup(b []byte, n protowire.Number, g Group) []byte {
	b = protowire.AppendTag(b, n, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(sizeBytes(len(g.Name))+sizeBytes(len(g.Filter)))) //nolint:gosec // a size
	b = appendString(b, 1, g.Name)
	return appendString(b, 2, g.Filter)
}

func (d *Deliver) append(b []byte, now time.Time) []byte {
	b = appendBytes(b, 1, d.Location[:])
	b = d.Message.appendField(b, 2, now)
	b = appendFixed(b, 3, d.Epoch)
	b = appendUint(b, 4, d.Seq)
	b = appendBool(b, 5, d.Plain)
	for _, g := range d.Groups {
		b = appendGroup(b, 6, g)
	}
	b = appendUint(b, 7, d.Forget)
	b = appendFixed(b, 8, d.Stamp)
	return appendBool(b, 9, d.Recent)
}

// field is one field of a protobuf message as it was read.
type field struct {
	tag   uint64 // its number and wire type: a known number with another type is a field that is not known
	num64 uint64 // of a varint or a fixed64
	bytes []byte // of a length-delimited field: aliases the input
}

// The wire types that our fields have, as they stand in a tag.
const (
	wireVarint  = uint64(protowire.VarintType)
	wireFixed64 = uint64(protowire.Fixed64Type)
	wireBytes   = uint64(protowire.BytesType)
)

// nextField splits a field off b.
func nextField(b []byte) (f field, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return f, nil, protowire.ParseError(n)
	}
	b = b[n:]
	f.tag = protowire.EncodeTag(num, typ)
	switch typ {
	case protowire.VarintType:
		f.num64, n = protowire.ConsumeVarint(b)
	case protowire.Fixed64Type:
		f.num64, n = protowire.ConsumeFixed64(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(num, typ, b) // no field of ours has such a type
	}
	if n < 0 {
		return f, nil, protowire.ParseError(n)
	}
	return f, b[n:], nil
}

// alias makes a string of bytes that are not written to again.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

var (
	errNoMessage  = errors.New("no message in it")
	errLocation   = errors.New("a location has 32 bytes")
	errDepth      = errors.New("more levels than a topic can have")
	errQoS        = errors.New("QoS above 2")
	errNode       = errors.New("a node's name has 16 to 80 bytes")
	errHops       = errors.New("passed on too often")
	errBefore     = errors.New("sent to too many nodes before")
	errChosen     = errors.New("for too many shared subscriptions")
	errGroups     = errors.New("too many groups")
	errGroup      = errors.New("no name of a shared subscription")
	errIdentity   = errors.New("a message that must not be lost has an identity, of two parts")
	maxTopicDepth = 65535
)

// maxGroups bounds the shared subscriptions that one node can be picked for with one message.
const maxGroups = 1024

// decode reads a message. It shares memory with b.
func (m *Message) decode(b []byte, now time.Time) error {
	*m = Message{}
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.tag {
		case 1<<3 | wireBytes:
			m.Topic = alias(f.bytes)
		case 2<<3 | wireBytes:
			m.Payload = f.bytes
		case 3<<3 | wireBytes:
			m.Properties = f.bytes
		case 4<<3 | wireVarint:
			if f.num64 > 2 {
				return errQoS
			}
			m.QoS = byte(f.num64)
		case 5<<3 | wireVarint:
			m.Retain = f.num64 != 0
		case 6<<3 | wireVarint:
			m.Expires = ExpiresAt(f.num64, now)
		}
	}
	return m.Validate()
}

// Validate says what is wrong with a message from another node.
func (m *Message) Validate() error {
	if err := topic.ValidName(m.Topic, topic.Limits{}); err != nil {
		return err
	}
	if len(m.Properties) > 0 {
		return ValidProperties(m.Properties)
	}
	return nil
}

// decode reads a Publish, and its message to m.
func (p *Publish) decode(b []byte, m *Message, now time.Time) error {
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.tag {
		case 1<<3 | wireBytes:
			if len(f.bytes) != LocationSize {
				return errLocation
			}
			copy(p.Location[:], f.bytes)
		case 2<<3 | wireVarint:
			if f.num64 > uint64(maxTopicDepth) { //nolint:gosec // a constant
				return errDepth
			}
			p.Depth = int(f.num64) //nolint:gosec // bounded
		case 3<<3 | wireBytes:
			if err := m.decode(f.bytes, now); err != nil {
				return err
			}
			p.Message = m
		case 4<<3 | wireFixed64:
			p.Epoch = f.num64
		case 5<<3 | wireVarint:
			p.Seq = f.num64
		case 6<<3 | wireVarint:
			p.Released = f.num64
		case 7<<3 | wireVarint:
			p.Served = f.num64 != 0
		case 8<<3 | wireVarint:
			p.Echo = f.num64 != 0
		case 9<<3 | wireBytes:
			if len(f.bytes) < MinNodeSize || len(f.bytes) > MaxNodeSize {
				return errNode
			}
			p.Origin = string(f.bytes)
		case 10<<3 | wireVarint:
			if f.num64 > MaxHops {
				return errHops
			}
			p.Hops = int(f.num64) //nolint:gosec // bounded
		case 11<<3 | wireVarint:
			p.Age = time.Duration(min(f.num64, maxExpiry)) * time.Millisecond //nolint:gosec // bounded
		case 12<<3 | wireVarint:
			p.Version = f.num64
		case 13<<3 | wireVarint:
			p.Awaited = f.num64 != 0
		case 14<<3 | wireBytes:
			if len(f.bytes) < MinNodeSize || len(f.bytes) > MaxNodeSize {
				return errNode
			}
			if len(p.Before) == MaxBefore {
				return errBefore
			}
			p.Before = append(p.Before, string(f.bytes))
		case 15<<3 | wireVarint:
			p.Sent = time.Duration(min(f.num64, maxExpiry)) * time.Millisecond //nolint:gosec // bounded
		case 16<<3 | wireBytes:
			if len(p.Chosen) == MaxChosen {
				return errChosen
			}
			c, err := decodeChoice(f.bytes)
			if err != nil {
				return err
			}
			p.Chosen = append(p.Chosen, c)
		}
	}
	return checkData(p.Message, p.Epoch, p.Seq)
}

// decode reads a Deliver, and its message to m.
func (d *Deliver) decode(b []byte, m *Message, now time.Time) error {
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.tag {
		case 1<<3 | wireBytes:
			if len(f.bytes) != LocationSize {
				return errLocation
			}
			copy(d.Location[:], f.bytes)
		case 2<<3 | wireBytes:
			if err := m.decode(f.bytes, now); err != nil {
				return err
			}
			d.Message = m
		case 3<<3 | wireFixed64:
			d.Epoch = f.num64
		case 4<<3 | wireVarint:
			d.Seq = f.num64
		case 5<<3 | wireVarint:
			d.Plain = f.num64 != 0
		case 6<<3 | wireBytes:
			if len(d.Groups) == maxGroups {
				return errGroups
			}
			g, err := decodeGroup(f.bytes)
			if err != nil {
				return err
			}
			d.Groups = append(d.Groups, g)
		case 7<<3 | wireVarint:
			d.Forget = f.num64
		case 8<<3 | wireFixed64:
			d.Stamp = f.num64
		case 9<<3 | wireVarint:
			d.Recent = f.num64 != 0
		}
	}
	if d.Message == nil {
		return errNoMessage
	}
	if (d.Epoch == 0) != (d.Seq == 0) {
		return errIdentity
	}
	return nil
}

func decodeGroup(b []byte) (g Group, err error) {
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return g, err
		}
		b = rest
		switch f.tag {
		case 1<<3 | wireBytes:
			g.Name = string(f.bytes)
		case 2<<3 | wireBytes:
			g.Filter = string(f.bytes)
		}
	}
	if g.Name == "" || strings.ContainsAny(g.Name, "/+#") || !validString([]byte(g.Name)) { // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
		return g, errGroup
	}
	return g, topic.ValidFilter(g.Filter, topic.Limits{})
}

func decodeChoice(b []byte) (c Choice, err error) {
	grouped := false
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return c, err
		}
		b = rest
		switch f.tag {
		case 1<<3 | wireBytes:
			if c.Group, err = decodeGroup(f.bytes); err != nil {
				return c, err
			}
			grouped = true
		case 2<<3 | wireBytes:
			c.Node = string(f.bytes)
		case 3<<3 | wireVarint:
			c.Hold = time.Duration(min(f.num64, math.MaxUint32)) * time.Second //nolint:gosec // bounded
		case 4<<3 | wireVarint:
			c.Turn = uint32(min(f.num64, math.MaxUint32)) //nolint:gosec // bounded
		}
	}
	switch {
	case !grouped:
		return c, errGroup
	case len(c.Node) < MinNodeSize || len(c.Node) > MaxNodeSize:
		return c, errNode
	}
	return c, nil
}

func checkData(m *Message, epoch, seq uint64) error {
	if m == nil {
		return errNoMessage
	}
	if kept := m.QoS > 0 || m.Retain; kept && epoch == 0 || (epoch == 0) != (seq == 0) {
		return errIdentity
	}
	return nil
}
