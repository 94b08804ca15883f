package proto

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	gproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"slices"
)

// now is when the frames of the tests are sent and received.
var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// unhex reads hex with spaces and line breaks in it.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// one splits a frame that is alone off b and decodes it.
func one(b []byte) (any, error) {
	kind, body, rest, _, err := Next(b)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errors.New("more than one frame")
	}
	return new(Decoder).Decode(kind, body, now)
}

// same reports whether two frames say the same.
func same(a, b any) bool {
	switch a := a.(type) {
	case *Publish:
		b, ok := b.(*Publish)
		return ok && a.Location == b.Location && a.Depth == b.Depth && a.Epoch == b.Epoch && a.Seq == b.Seq &&
			a.Released == b.Released && a.Age == b.Age && a.Origin == b.Origin && a.Hops == b.Hops && a.Version == b.Version &&
			a.Served == b.Served && a.Echo == b.Echo && a.Awaited == b.Awaited && a.Sent == b.Sent && slices.Equal(a.Before, b.Before) && slices.Equal(a.Chosen, b.Chosen) && sameMessage(a.Message, b.Message)
	case *Deliver:
		b, ok := b.(*Deliver)
		if !ok || len(a.Groups) != len(b.Groups) {
			return false
		}
		for i := range a.Groups {
			if a.Groups[i] != b.Groups[i] {
				return false
			}
		}
		return a.Location == b.Location && a.Epoch == b.Epoch && a.Seq == b.Seq && a.Forget == b.Forget &&
			a.Stamp == b.Stamp && a.Plain == b.Plain && sameMessage(a.Message, b.Message)
	case gproto.Message:
		b, ok := b.(gproto.Message)
		return ok && gproto.Equal(a, b)
	}
	return false
}

func sameMessage(a, b *Message) bool {
	return a.Topic == b.Topic && bytes.Equal(a.Payload, b.Payload) && bytes.Equal(a.Properties, b.Properties) &&
		a.QoS == b.QoS && a.Retain == b.Retain && a.Expires.Equal(b.Expires)
}

// TestFrames holds every kind of frame, with all its fields, against its exact bytes, both ways.
func TestFrames(t *testing.T) {
	seen := map[Kind]bool{}
	for _, c := range frames() {
		t.Run(c.name, func(t *testing.T) {
			want := unhex(t, c.hex)
			seen[KindOf(c.frame)] = true
			if m, ok := c.frame.(gproto.Message); ok {
				checkFull(t, m.ProtoReflect())
			}
			if got := AppendFrame(nil, c.frame, now); !bytes.Equal(got, want) {
				t.Errorf("encoded\n%x, want\n%x", got, want)
			}
			prefix := []byte("before")
			if got := AppendFrame(prefix, c.frame, now); string(got[:6]) != "before" || !bytes.Equal(got[6:], want) {
				t.Errorf("appended: %x", got)
			}
			got, err := one(want)
			if err != nil {
				t.Fatal(err)
			}
			if !same(got, c.frame) {
				t.Errorf("decoded\n%+v, want\n%+v", got, c.frame)
			}
		})
	}
	for kind := range allKinds() {
		if !seen[kind] {
			t.Errorf("kind %d is not in the table", kind)
		}
	}
}

// allKinds are the kinds that frames of this version have.
func allKinds() map[Kind]bool {
	all := map[Kind]bool{KindPublish: true, KindDeliver: true}
	for kind := range control {
		all[kind] = true
	}
	return all
}

// checkFull fails where a field of a message, or of one in it, is empty: the table must show all of them.
func checkFull(t *testing.T, m protoreflect.Message) {
	t.Helper()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case !m.Has(f):
			t.Errorf("the value has no %s", f.FullName())
		case f.Message() != nil && f.IsList():
			checkFull(t, m.Get(f).List().Get(0).Message())
		case f.Message() != nil:
			checkFull(t, m.Get(f).Message())
		}
	}
}

// TestEmptyFrames: a control frame with nothing in it is its length and its kind.
func TestEmptyFrames(t *testing.T) {
	for kind, make := range control {
		want := []byte{1, byte(kind)}
		if got := AppendFrame(nil, make(), now); !bytes.Equal(got, want) {
			t.Errorf("kind %d: %x, want %x", kind, got, want)
		}
		got, err := one(want)
		if err != nil || !same(got, make()) {
			t.Errorf("kind %d: decoded %v, %v", kind, got, err)
		}
	}
}

// TestKinds holds the numbers in the code against those in the comments of route.proto.
func TestKinds(t *testing.T) {
	text, err := os.ReadFile("pb/route.proto")
	if err != nil {
		t.Fatal(err)
	}
	// The comment that a message's number begins may have more lines.
	numbered := regexp.MustCompile(`(?m)^// (\d+)(?::.*)?\n(?://.*\n)*message (\w+) \{`).FindAllStringSubmatch(string(text), -1)
	messages := pb.File_route_proto.Messages()
	byNumber := map[Kind]string{}
	for _, m := range numbered {
		n, _ := strconv.Atoi(m[1])
		kind, name := Kind(n), m[2] //nolint:gosec // a small number
		if byNumber[kind] != "" {
			t.Errorf("%s and %s have number %d", byNumber[kind], name, kind)
		}
		byNumber[kind] = name
		if messages.ByName(protoreflect.Name(name)) == nil {
			t.Errorf("%s of route.proto is not in the generated code", name)
		}
		switch name {
		case "Publish":
			if KindOf(new(Publish)) != kind {
				t.Errorf("Publish is %d, want %d", KindOf(new(Publish)), kind)
			}
			continue
		case "Deliver":
			if KindOf(new(Deliver)) != kind {
				t.Errorf("Deliver is %d, want %d", KindOf(new(Deliver)), kind)
			}
			continue
		}
		if control[kind] == nil {
			t.Errorf("kind %d (%s) can't be decoded", kind, name)
			continue
		}
		m := control[kind]()
		if got := string(m.ProtoReflect().Descriptor().Name()); got != name {
			t.Errorf("kind %d decodes to %s, want %s", kind, got, name)
		}
		if KindOf(m) != kind {
			t.Errorf("%s is encoded as kind %d, want %d", name, KindOf(m), kind)
		}
	}
	for kind := range allKinds() {
		if byNumber[kind] == "" {
			t.Errorf("kind %d has no number in route.proto", kind)
		}
	}
	doc, err := os.ReadFile("WIRE.md")
	if err != nil {
		t.Fatal(err)
	}
	for kind, name := range byNumber {
		if !strings.Contains(string(doc), fmt.Sprintf("\n| %d | %s | ", kind, name)) {
			t.Errorf("WIRE.md's table has no kind %d, %s", kind, name)
		}
	}
	if n := len(byNumber); n < 36 {
		t.Errorf("found %d numbers in route.proto, want 36 at least", n)
	}
	if KindOf(new(pb.Place)) != 0 || KindOf(nil) != 0 || KindOf(Publish{}) != 0 {
		t.Error("what is no frame has a kind")
	}
}

// TestUnknown: frames and fields of a newer version are skipped.
func TestUnknown(t *testing.T) {
	for _, kind := range []uint64{0, 126, 127, 128, 1 << 62} {
		body := []byte{0xff, 0xff}                                                         // no protobuf
		frame := protowire.AppendVarint(nil, uint64(protowire.SizeVarint(kind)+len(body))) //nolint:gosec // a size
		frame = append(protowire.AppendVarint(frame, kind), body...)
		if f, err := one(frame); f != nil || err != nil {
			t.Errorf("kind %d: %v, %v", kind, f, err)
		}
	}
	for _, c := range frames() {
		kind, body, _, _, _ := Next(unhex(t, c.hex))
		for _, extra := range unknownFields() {
			for _, b := range [][]byte{append(bytes.Clone(body), extra...), append(bytes.Clone(extra), body...)} {
				f, err := new(Decoder).Decode(kind, b, now)
				if err != nil {
					t.Errorf("%s with unknown field %x: %v", c.name, extra, err)
					continue
				}
				if m, ok := f.(gproto.Message); ok {
					m.ProtoReflect().SetUnknown(nil)
				}
				if !same(f, c.frame) {
					t.Errorf("%s with unknown field %x: %+v", c.name, extra, f)
				}
			}
		}
	}
}

// unknownFields are fields, of every wire type, that no frame has.
func unknownFields() [][]byte {
	var all [][]byte
	for _, n := range []protowire.Number{100, 1<<29 - 1} {
		all = append(all,
			protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), 1<<63),
			protowire.AppendFixed32(protowire.AppendTag(nil, n, protowire.Fixed32Type), 7),
			protowire.AppendFixed64(protowire.AppendTag(nil, n, protowire.Fixed64Type), 7),
			protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), []byte("xyz")),
			protowire.AppendTag(protowire.AppendTag(nil, n, protowire.StartGroupType), n, protowire.EndGroupType))
	}
	return all
}

func TestNext(t *testing.T) {
	two := append(AppendFrame(nil, &pb.Ack{Ops: []uint64{1}}, now), AppendFrame(nil, &pb.Ack{Ops: []uint64{2, 3}}, now)...)
	t.Run("one after another", func(t *testing.T) {
		kind, body, rest, _, err := Next(two)
		if err != nil || kind != KindAck || !bytes.Equal(body, unhex(t, "0a 01 01")) {
			t.Fatalf("kind %d, body %x, %v", kind, body, err)
		}
		kind, body, rest, _, err = Next(rest)
		if err != nil || kind != KindAck || !bytes.Equal(body, unhex(t, "0a 02 02 03")) || len(rest) > 0 {
			t.Fatalf("kind %d, body %x, rest %x, %v", kind, body, rest, err)
		}
	})
	t.Run("cut short", func(t *testing.T) {
		long := AppendFrame(nil, &pb.Nodes{Known: []*pb.Known{{Addresses: []string{strings.Repeat("a", 300)}}}}, now)
		for n := range len(long) {
			_, _, _, need, err := Next(long[:n])
			if !errors.Is(err, ErrShort) || need <= n || need > len(long) {
				t.Fatalf("%d bytes of %d: %v, %d needed", n, len(long), err, need)
			}
			if n >= 2 && need != len(long) { // the length has two bytes
				t.Fatalf("%d bytes: %d needed, want %d", n, need, len(long))
			}
		}
	})
	for _, c := range []struct {
		name, hex string
		want      error
	}{
		{"empty", "00", ErrMalformed},
		{"no kind", "01 80", ErrMalformed},
		{"kind over 64 bits", "0b ff ff ff ff ff ff ff ff ff ff 01", ErrMalformed},
		{"MaxFrame, announced", "80 80 c0 08", ErrShort},
		{"one more", "81 80 c0 08", ErrTooLong},
		{"the most in four bytes", "ff ff ff 7f", ErrTooLong},
		{"length of five bytes", "81 80 80 80 00 04", ErrTooLong},
		{"length of five bytes, four there", "81 80 80 80", ErrTooLong},
		{"length of ten bytes", "ff ff ff ff ff ff ff ff ff 01", ErrTooLong},
		{"length over 64 bits", "ff ff ff ff ff ff ff ff ff ff ff", ErrTooLong},
		{"length not as short as can be", "82 80 80 00 04 0a", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := unhex(t, c.hex)
			if _, _, _, _, err := Next(b); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if !errors.Is(c.want, ErrTooLong) {
				return
			}
			if n := testing.AllocsPerRun(10, func() { _, _, _, _, _ = Next(b) }); n > 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// TestTooLong: a frame that no receiver would take is not sent, and leaves what is before it as it was.
func TestTooLong(t *testing.T) {
	before := []byte("before")
	fits := &Deliver{Message: &Message{Topic: "t", Payload: make([]byte, MaxFrame-64)}}
	b := AppendFrame(bytes.Clone(before), fits, now)
	f, err := one(b[len(before):])
	if err != nil || !same(f, fits) {
		t.Errorf("the longest message does not come through: %v", err)
	}
	for _, frame := range []any{
		&Publish{Message: &Message{Topic: "t", Payload: make([]byte, MaxFrame)}},
		&Deliver{Message: &Message{Topic: "t", Payload: make([]byte, MaxFrame)}},
		&pb.Hello{Node: make([]byte, MaxFrame)},
		&pb.Hello{Addresses: []string{"\xff"}}, // no UTF-8
	} {
		if b := AppendFrame(bytes.Clone(before), frame, now); string(b) != "before" {
			t.Errorf("%T: %d bytes appended", frame, len(b)-len(before))
		} else if cap(b) > 1<<10 {
			t.Errorf("%T: the buffer has grown to %d bytes", frame, cap(b))
		}
	}
}

// TestElements: what a frame becomes in memory is bounded by more than its length.
func TestElements(t *testing.T) {
	digest := func(n int) []byte { return bytes.Repeat([]byte{0x1a, 0}, n) }                                            // Digest.have
	packed := func(n int) []byte { return append(protowire.AppendVarint([]byte{0x0a}, uint64(n)), make([]byte, n)...) } // Ack.ops
	nested := func(n int) []byte {                                                                                      // Register.registration.interests
		inner := bytes.Repeat([]byte{0x22, 0}, n)
		return append(protowire.AppendVarint([]byte{0x12}, uint64(len(inner))), inner...)
	}
	for _, c := range []struct {
		name string
		kind Kind
		body func(n int) []byte
	}{{"messages", KindDigest, digest}, {"packed numbers", KindAck, packed}, {"nested messages", KindRegister, nested}} {
		if _, err := new(Decoder).Decode(c.kind, c.body(maxElements-1), now); err != nil {
			t.Errorf("%s: %d are refused: %v", c.name, maxElements-1, err)
		}
		if _, err := new(Decoder).Decode(c.kind, c.body(maxElements+1), now); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %d pass: %v", c.name, maxElements+1, err)
		}
	}
	if _, err := new(Decoder).Decode(KindDigest, append(digest(uncountedBody), 0x1a), now); !errors.Is(err, ErrMalformed) {
		t.Errorf("one that is cut short passes: %v", err)
	}
}

func TestDecodeBadControl(t *testing.T) {
	for kind := range control {
		for _, body := range []string{"\x0a", "\x0a\x05a", "\x08\xff", "\x07"} {
			if f, err := new(Decoder).Decode(kind, []byte(body), now); !errors.Is(err, ErrMalformed) || f != nil {
				t.Errorf("kind %d, body %x: %v, %v", kind, body, f, err)
			}
		}
	}
	if _, err := new(Decoder).Decode(KindRetainedQuery, []byte("\x12\x01\xff"), now); !errors.Is(err, ErrMalformed) {
		t.Errorf("a filter that is not UTF-8: %v", err)
	}
}

func TestAppendFramePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a type that is no frame is encoded")
		}
	}()
	AppendFrame(nil, new(pb.Place), now)
}

// TestDecoderReuse: what comes after Reset is as if it were the first, whatever was decoded before, and memory that is not
// needed any more is let go of.
func TestDecoderReuse(t *testing.T) {
	var d Decoder
	full := &Publish{Message: &Message{Topic: "a/b", Payload: []byte("on"), Properties: []byte{1, 1}, QoS: 2, Retain: true}, Location: loc, Depth: 1,
		Epoch: 1, Seq: 2, Released: 1, Served: true, Echo: true, Hops: 1, Origin: strings.Repeat("n", MinNodeSize), Version: 3}
	bare := &Publish{Message: &Message{Topic: "c"}, Location: loc, Depth: 1}
	decode := func(p *Publish) *Publish {
		t.Helper()
		kind, body, _, _, err := Next(AppendFrame(nil, p, now))
		if err != nil {
			t.Fatal(err)
		}
		f, err := d.Decode(kind, body, now)
		if err != nil {
			t.Fatal(err)
		}
		return f.(*Publish)
	}
	const many = 100
	for range many {
		decode(full)
	}
	d.Reset()
	first, second := decode(bare), decode(full)
	if first == second || !gproto.Equal(oraclePublish(first), oraclePublish(bare)) || !gproto.Equal(oraclePublish(second), oraclePublish(full)) {
		t.Errorf("have %+v and %+v", first, second)
	}
	for range 2 * slabTurns {
		d.Reset()
		decode(bare)
	}
	if n := len(d.messages.all); n > many/10 {
		t.Errorf("room for %d messages is kept where one was needed at a time", n)
	}
}
