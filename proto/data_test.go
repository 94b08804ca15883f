package proto

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	gproto "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// The generated code of package pb is the oracle for the codecs written by hand.

// oracleMessage is what m is to package pb.
func oracleMessage(m *Message) *pb.Message {
	return &pb.Message{Topic: m.Topic, Payload: m.Payload, Properties: m.Properties, Qos: uint32(m.QoS), Retain: m.Retain,
		ExpiresMs: ExpiresMillis(m.Expires, now)}
}

func oraclePublish(p *Publish) *pb.Publish {
	return &pb.Publish{Location: p.Location[:], Depth: uint32(p.Depth), Message: oracleMessage(p.Message), Epoch: p.Epoch, //nolint:gosec // small
		Seq: p.Seq, Released: p.Released, Served: p.Served, Echo: p.Echo, Origin: []byte(p.Origin), Hops: uint32(p.Hops), //nolint:gosec // small
		AgeMs: uint64(p.Age.Milliseconds()), Version: p.Version, Awaited: p.Awaited, Before: bytesOf(p.Before), SentMs: uint64(p.Sent.Milliseconds()), Chosen: oracleChoices(p.Chosen)} //nolint:gosec // not negative
}

func oracleChoices(all []Choice) (o []*pb.Choice) {
	for _, c := range all {
		o = append(o, &pb.Choice{Group: &pb.Group{Name: c.Group.Name, Filter: c.Group.Filter}, Node: []byte(c.Node),
			HoldS: uint32(c.Hold / time.Second), Turn: c.Turn}) //nolint:gosec // small
	}
	return o
}

func bytesOf(all []string) (b [][]byte) {
	for _, s := range all {
		b = append(b, []byte(s))
	}
	return b
}

func oracleDeliver(d *Deliver) *pb.Deliver {
	o := &pb.Deliver{Location: d.Location[:], Message: oracleMessage(d.Message), Epoch: d.Epoch, Seq: d.Seq, Plain: d.Plain, Recent: d.Recent,
		Forget: d.Forget, Stamp: d.Stamp}
	for _, g := range d.Groups {
		o.Groups = append(o.Groups, &pb.Group{Name: g.Name, Filter: g.Filter})
	}
	return o
}

// random makes frames of every shape.
type random struct{ *rand.Rand }

// number is small, of any length as a varint, or the largest.
func (r random) number() uint64 {
	if r.IntN(4) == 0 {
		return []uint64{1, 127, 128, math.MaxUint64}[r.IntN(4)]
	}
	return r.Uint64() >> r.IntN(64)
}

func (r random) bool() bool { return r.IntN(2) == 0 }

func (r random) text(most int) string {
	const letters = "ab/ä€"
	var b strings.Builder
	for range r.IntN(most) {
		b.WriteRune([]rune(letters)[r.IntN(5)])
	}
	return b.String()
}

func (r random) bytes(most int) []byte {
	b := make([]byte, r.IntN(most))
	for i := range b {
		b[i] = byte(r.Uint32()) //nolint:gosec // any byte
	}
	return b
}

func (r random) message() *Message {
	m := &Message{Topic: "t" + r.text(200), QoS: byte(r.IntN(3)), Retain: r.bool()} //nolint:gosec // small
	if r.bool() {
		m.Payload = r.bytes(300)
	}
	if r.bool() {
		m.Properties = append([]byte{1, 1}, userProperty(r.text(100), r.text(100))...)
	}
	if r.bool() {
		m.Expires = now.Add(time.Duration(r.Uint64()>>(23+r.IntN(41))) * time.Millisecond) //nolint:gosec // 41 bits
	}
	return m
}

func userProperty(k, v string) []byte {
	b := []byte{propUser, byte(len(k) >> 8), byte(len(k))}     //nolint:gosec // short
	b = append(append(b, k...), byte(len(v)>>8), byte(len(v))) //nolint:gosec // short
	return append(b, v...)
}

func (r random) publish() *Publish {
	p := &Publish{Message: r.message(), Served: r.bool(), Echo: r.bool(), Awaited: r.bool(), Hops: r.IntN(MaxHops + 1), Depth: r.IntN(maxTopicDepth + 1)}
	copy(p.Location[:], r.bytes(LocationSize+1))
	if p.Message.QoS > 0 || p.Message.Retain || r.bool() {
		p.Epoch, p.Seq = r.number()|1, r.number()|1
	}
	p.Released, p.Version = r.number(), r.number()
	if r.bool() {
		p.Age = time.Duration(r.Uint64()>>(23+r.IntN(41))) * time.Millisecond //nolint:gosec // 41 bits
	}
	if r.bool() {
		p.Origin = strings.Repeat("n", MinNodeSize+r.IntN(MaxNodeSize-MinNodeSize+1))
	}
	for range max(0, r.IntN(2*MaxBefore+1)-MaxBefore) {
		p.Before = append(p.Before, strings.Repeat("b", MinNodeSize+r.IntN(MaxNodeSize-MinNodeSize+1)))
	}
	if r.bool() {
		p.Sent = time.Duration(r.Uint64()>>(23+r.IntN(41))) * time.Millisecond //nolint:gosec // 41 bits
	}
	for range max(0, r.IntN(8)-4) {
		p.Chosen = append(p.Chosen, Choice{Group{"g" + strings.Repeat("n", r.IntN(200)), "a/#"}, strings.Repeat("c", MinNodeSize+r.IntN(MaxNodeSize-MinNodeSize+1)),
			time.Duration(r.Uint32()>>r.IntN(32)) * time.Second, r.Uint32() >> r.IntN(32)})
	}
	return p
}

func (r random) deliver() *Deliver {
	d := &Deliver{Message: r.message(), Plain: r.bool(), Recent: r.bool(), Stamp: r.number(), Forget: r.number()}
	copy(d.Location[:], r.bytes(LocationSize+1))
	if r.bool() {
		d.Epoch, d.Seq = r.number()|1, r.number()|1
	}
	for range r.IntN(4) {
		d.Groups = append(d.Groups, Group{"g" + strings.ReplaceAll(r.text(200), "/", ""), "f" + r.text(200)})
	}
	return d
}

// TestOracle: what the codecs written by hand encode, generated code decodes, and the other way round; the
// bytes are the same.
func TestOracle(t *testing.T) {
	r := random{rand.New(rand.NewPCG(1, 2))} //nolint:gosec // the same every time
	for range 2000 {
		p, d := r.publish(), r.deliver()
		for _, c := range []struct {
			frame  any
			oracle gproto.Message
			empty  gproto.Message
		}{{p, oraclePublish(p), new(pb.Publish)}, {d, oracleDeliver(d), new(pb.Deliver)}} {
			kind, body, _, _, err := Next(AppendFrame(nil, c.frame, now))
			if err != nil {
				t.Fatal(err)
			}
			want, err := gproto.MarshalOptions{Deterministic: true}.Marshal(c.oracle)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(body, want) {
				t.Fatalf("%+v is encoded as\n%x, by generated code as\n%x", c.frame, body, want)
			}
			if err := gproto.Unmarshal(body, c.empty); err != nil || !gproto.Equal(c.empty, c.oracle) {
				t.Fatalf("generated code reads %v of %v: %v", c.empty, c.oracle, err)
			}
			for range 3 { // fields in any order
				back, err := new(Decoder).Decode(kind, shuffled(r, want), now)
				if err != nil || !same(back, c.frame) {
					t.Fatalf("%+v comes back as %+v: %v", c.frame, back, err)
				}
			}
		}
	}
}

// shuffled puts a message's fields in another order, those of one number in their own, with fields in between
// that are not known.
func shuffled(r random, b []byte) []byte {
	queues := map[protowire.Number][][]byte{}
	var turns []protowire.Number
	push := func(b []byte) {
		num, _, _ := protowire.ConsumeTag(b)
		queues[num] = append(queues[num], b)
		turns = append(turns, num)
	}
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		push(b[:n])
		b = b[n:]
	}
	for _, f := range unknownFields() {
		push(f)
	}
	r.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	var out []byte
	for _, num := range turns {
		out = append(out, queues[num][0]...)
		queues[num] = queues[num][1:]
	}
	return out
}

// TestRepeatedFields: of a field that comes twice the last one counts, as protobuf has it for scalars. Of an
// embedded message too, where protobuf would merge them: nobody sends two.
func TestRepeatedFields(t *testing.T) {
	first := &Publish{Message: &Message{Topic: "first", Payload: []byte("p"), QoS: 1, Retain: true}, Location: loc, Depth: 3, Epoch: 1, Seq: 2,
		Released: 3, Age: time.Second, Origin: nodeA, Hops: 1, Version: 4, Served: true, Echo: true, Awaited: true, Before: []string{nodeA}, Sent: time.Second, Chosen: []Choice{{Group{"g", "#"}, nodeA, 0, 0}}}
	last := &Publish{Message: &Message{Topic: "last", QoS: 2}, Location: [LocationSize]byte{1}, Depth: 4, Epoch: 5, Seq: 6,
		Released: 7, Age: time.Minute, Origin: nodeB, Hops: 2, Version: 8, Served: true, Echo: true, Awaited: true, Before: []string{nodeB}, Sent: time.Minute, Chosen: []Choice{{Group{"h", "#"}, nodeA, time.Second, 2}}}
	body := func(frame any) []byte {
		_, b, _, _, _ := Next(AppendFrame(nil, frame, now))
		return b
	}
	got, err := new(Decoder).Decode(KindPublish, append(body(first), body(last)...), now)
	last.Before, last.Chosen = []string{nodeA, nodeB}, append(first.Chosen, last.Chosen...) // lists are put together
	if err != nil || !same(got, last) {
		t.Errorf("Publish: %+v, %v", got, err)
	}
	// Scalars against the oracle.
	message := func(fs ...func([]byte) []byte) []byte {
		var b []byte
		for _, f := range fs {
			b = f(b)
		}
		return b
	}
	twice := message(
		func(b []byte) []byte { return appendString(b, 1, "first") }, func(b []byte) []byte { return appendString(b, 1, "last") },
		func(b []byte) []byte { return appendUint(b, 4, 1) }, func(b []byte) []byte { return appendUint(b, 4, 2) },
		func(b []byte) []byte { return appendBool(b, 5, true) }, func(b []byte) []byte { return append(b, 5<<3, 0) },
		func(b []byte) []byte { return appendBytes(b, 2, []byte("first")) }, func(b []byte) []byte { return append(b, 2<<3|2, 0) },
	)
	o := new(pb.Message)
	if err := gproto.Unmarshal(twice, o); err != nil {
		t.Fatal(err)
	}
	m := new(Message)
	if err := m.decode(twice, now); err != nil || !gproto.Equal(oracleMessage(m), o) {
		t.Errorf("Message: %+v, %v, generated code reads %v", m, err, o)
	}
	d1 := &Deliver{Message: first.Message, Location: loc, Epoch: 1, Seq: 2, Forget: 3, Stamp: 4, Groups: []Group{{"a", "x"}}, Plain: true}
	d2 := &Deliver{Message: last.Message, Location: loc, Epoch: 5, Seq: 6, Forget: 7, Stamp: 8, Groups: []Group{{"b", "y"}}, Plain: true}
	got, err = new(Decoder).Decode(KindDeliver, append(body(d1), body(d2)...), now)
	d2.Groups = []Group{{"a", "x"}, {"b", "y"}} // a list is put together
	if err != nil || !same(got, d2) {
		t.Errorf("Deliver: %+v, %v", got, err)
	}
}

// TestOtherTypes: a field with a known number and another wire type is one that is not known.
func TestOtherTypes(t *testing.T) {
	p := &Publish{Message: &Message{Topic: "a/b", Payload: []byte("on"), QoS: 2}, Location: loc, Depth: 2, Epoch: 9, Seq: 8,
		Released: 7, Age: time.Second, Origin: nodeA, Hops: 4, Version: 3, Served: true, Echo: true, Awaited: true, Before: []string{nodeB}}
	d := &Deliver{Message: p.Message, Location: loc, Epoch: 9, Seq: 8, Forget: 7, Stamp: 6, Groups: []Group{{"g", "a"}}, Plain: true}
	types := []protowire.Type{protowire.VarintType, protowire.Fixed32Type, protowire.Fixed64Type, protowire.BytesType}
	for _, c := range []struct {
		frame  any
		kind   Kind
		fields []protowire.Type // of each number
	}{
		{p, KindPublish, []protowire.Type{2, 0, 2, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2}},
		{d, KindDeliver, []protowire.Type{2, 2, 1, 0, 0, 2, 0, 1}},
	} {
		_, body, _, _, _ := Next(AppendFrame(nil, c.frame, now))
		for i, is := range c.fields {
			for _, typ := range types {
				if typ == is {
					continue
				}
				num := protowire.Number(i + 1) //nolint:gosec // small
				b := protowire.AppendTag(bytes.Clone(body), num, typ)
				switch typ {
				case protowire.VarintType:
					b = protowire.AppendVarint(b, 1<<40)
				case protowire.Fixed32Type:
					b = protowire.AppendFixed32(b, 99)
				case protowire.Fixed64Type:
					b = protowire.AppendFixed64(b, 99)
				case protowire.BytesType:
					b = protowire.AppendBytes(b, []byte("zz"))
				}
				got, err := new(Decoder).Decode(c.kind, b, now)
				if err != nil || !same(got, c.frame) {
					t.Errorf("kind %d, field %d with wire type %d: %+v, %v", c.kind, num, typ, got, err)
				}
			}
		}
	}
}

// TestBadData is what a data frame must not be.
func TestBadData(t *testing.T) {
	nothing := func(b []byte) []byte { return b }
	bytesField := func(n protowire.Number, s string) func([]byte) []byte {
		return func(b []byte) []byte {
			return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
		}
	}
	number := func(n protowire.Number, v uint64) func([]byte) []byte {
		return func(b []byte) []byte {
			return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
		}
	}
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	message := func(n protowire.Number, m *Message) func([]byte) []byte {
		return func(b []byte) []byte { return m.appendField(b, n, now) }
	}
	group := func(name, filter string) func([]byte) []byte {
		return bytesField(6, string(appendString(appendString(nil, 1, name), 2, filter)))
	}
	manyGroups := func(n int) func([]byte) []byte {
		return func(b []byte) []byte {
			for i := range n {
				b = group(fmt.Sprint("g", i), "a")(b)
			}
			return b
		}
	}
	ok := &Message{Topic: "t"}
	choice := func(n protowire.Number, name, node string) string { // the group in field n
		g := appendString(appendString(nil, 1, name), 2, "a")
		return string(appendString(bytesField(n, string(g))(nil), 2, node))
	}
	chosen := func(n int, c string) func([]byte) []byte {
		return func(b []byte) []byte {
			for range n {
				b = bytesField(16, c)(b)
			}
			return b
		}
	}
	before := func(n int) func([]byte) []byte {
		return func(b []byte) []byte {
			for range n {
				b = bytesField(14, nodeA)(b)
			}
			return b
		}
	}
	for _, c := range []struct {
		name    string
		publish func([]byte) []byte // what is put behind a good Publish and Deliver; nil: nothing is tried
		deliver func([]byte) []byte
		want    error // nil: it is good
	}{
		{"good", nothing, nothing, nil},
		{"cut short", cut, cut, ErrMalformed},
		{"location of 31 bytes", bytesField(1, strings.Repeat("x", 31)), bytesField(1, strings.Repeat("x", 31)), errLocation},
		{"location of 33 bytes", bytesField(1, strings.Repeat("x", 33)), bytesField(1, strings.Repeat("x", 33)), errLocation},
		{"location of none", bytesField(1, ""), bytesField(1, ""), errLocation},
		{"depth at the cap", number(2, 65535), nil, nil},
		{"depth over the cap", number(2, 65536), nil, errDepth},
		{"depth over 32 bits", number(2, 1<<63), nil, errDepth},
		{"QoS 3", message(3, &Message{Topic: "t", QoS: 3}), message(2, &Message{Topic: "t", QoS: 3}), errQoS},
		{"empty message", bytesField(3, ""), bytesField(2, ""), ErrMalformed},
		{"empty topic", message(3, &Message{}), message(2, &Message{}), ErrMalformed},
		{"topic with wildcard", message(3, &Message{Topic: "a/+"}), message(2, &Message{Topic: "#"}), ErrMalformed},
		{"topic with NUL", message(3, &Message{Topic: "a\x00"}), message(2, &Message{Topic: "a\x00"}), ErrMalformed},
		{"topic not UTF-8", message(3, &Message{Topic: "\xff"}), message(2, &Message{Topic: "\xff"}), ErrMalformed},
		{"longest topic", message(3, &Message{Topic: strings.Repeat("t", 65535)}), message(2, &Message{Topic: strings.Repeat("t", 65535)}), nil},
		{"topic too long", message(3, &Message{Topic: strings.Repeat("t", 65536)}), message(2, &Message{Topic: strings.Repeat("t", 65536)}), ErrMalformed},
		{"bad properties", message(3, &Message{Topic: "t", Properties: []byte{2}}), message(2, &Message{Topic: "t", Properties: []byte{2}}), ErrProperties},
		{"message cut short", bytesField(3, "\x0a\x05t"), bytesField(2, "\x0a\x05t"), ErrMalformed},
		{"shortest origin", bytesField(9, strings.Repeat("n", 16)), nil, nil},
		{"longest origin", bytesField(9, strings.Repeat("n", 80)), nil, nil},
		{"origin of 15 bytes", bytesField(9, strings.Repeat("n", 15)), nil, errNode},
		{"origin of 81 bytes", bytesField(9, strings.Repeat("n", 81)), nil, errNode},
		{"as many nodes before as may be", before(MaxBefore), nil, nil},
		{"more nodes before than may be", before(MaxBefore + 1), nil, errBefore},
		{"node before of 15 bytes", bytesField(14, strings.Repeat("n", 15)), nil, errNode},
		{"node before of 81 bytes", bytesField(14, strings.Repeat("n", 81)), nil, errNode},
		{"as many choices as may be", chosen(MaxChosen, choice(1, "g", nodeA)), nil, nil},
		{"more choices than may be", chosen(MaxChosen+1, choice(1, "g", nodeA)), nil, errChosen},
		{"choice for no group", chosen(1, choice(9, "g", nodeA)), nil, errGroup},
		{"choice for a group without a name", chosen(1, choice(1, "", nodeA)), nil, errGroup},
		{"choice of no node", chosen(1, choice(1, "g", "")), nil, errNode},
		{"choice of a node of 81 bytes", chosen(1, choice(1, "g", strings.Repeat("n", 81))), nil, errNode},
		{"hops at the cap", number(10, MaxHops), nil, nil},
		{"hops over the cap", number(10, MaxHops+1), nil, errHops},
		{"age beyond reason", number(11, math.MaxUint64), nil, nil},
		{"1024 groups", nil, manyGroups(1024), nil},
		{"1025 groups", nil, manyGroups(1025), errGroups},
		{"group without name", nil, group("", "a"), errGroup},
		{"group name with slash", nil, group("a/b", "a"), errGroup},
		{"group name with wildcard", nil, group("+", "a"), errGroup},
		{"group name not UTF-8", nil, group("\xff", "a"), errGroup},
		{"group without filter", nil, group("g", ""), ErrMalformed},
		{"group with bad filter", nil, group("g", "a#"), ErrMalformed},
		{"group cut short", nil, bytesField(6, "\x0a\x05g"), ErrMalformed},
		{"epoch without number", func(b []byte) []byte { return appendFixed(b, 4, 9) }, func(b []byte) []byte { return appendFixed(b, 3, 9) }, errIdentity},
		{"number without epoch", number(5, 9), number(4, 9), errIdentity},
		{"QoS 1 without identity", message(3, &Message{Topic: "t", QoS: 1}), nil, errIdentity},
		{"retained without identity", message(3, &Message{Topic: "t", Retain: true}), nil, errIdentity},
		{"QoS 1 without identity, delivered", nil, message(2, &Message{Topic: "t", QoS: 1}), nil},
	} {
		for kind, put := range map[Kind]func([]byte) []byte{KindPublish: c.publish, KindDeliver: c.deliver} {
			if put == nil {
				continue
			}
			var body []byte
			if kind == KindPublish {
				body = (&Publish{Message: ok}).append(nil, now)
			} else {
				body = (&Deliver{Message: ok}).append(nil, now)
			}
			f, err := new(Decoder).Decode(kind, put(body), now)
			if c.want == nil {
				if err != nil || f == nil {
					t.Errorf("%s, kind %d: %v", c.name, kind, err)
				}
				continue
			}
			if !errors.Is(err, c.want) || !errors.Is(err, ErrMalformed) || f != nil {
				t.Errorf("%s, kind %d: %v, want %v", c.name, kind, err, c.want)
			}
		}
	}
	for _, kind := range []Kind{KindPublish, KindDeliver} {
		if _, err := new(Decoder).Decode(kind, nil, now); !errors.Is(err, errNoMessage) {
			t.Errorf("kind %d of nothing: %v", kind, err)
		}
	}
}

// TestExpires: what is left of a message's life crosses, in whole milliseconds; no life without end is made
// of one that is over.
func TestExpires(t *testing.T) {
	for _, c := range []struct {
		left time.Duration
		want uint64
	}{
		{0, 1}, {-time.Hour, 1}, {time.Microsecond, 1}, {time.Millisecond, 2}, {1500 * time.Microsecond, 2},
		{time.Second, 1001}, {math.MaxUint32 * time.Second, math.MaxUint32*1000 + 1},
	} {
		if got := ExpiresMillis(now.Add(c.left), now); got != c.want {
			t.Errorf("%v left: %d on the wire, want %d", c.left, got, c.want)
		}
		if got, want := ExpiresAt(c.want, now), now.Add(max(0, c.left).Truncate(time.Millisecond)); !got.Equal(want) {
			t.Errorf("%d on the wire: until %v, want %v", c.want, got, want)
		}
	}
	if ExpiresMillis(time.Time{}, now) != 0 || !ExpiresAt(0, now).IsZero() {
		t.Error("no limit does not stay no limit")
	}
	if got, want := ExpiresAt(math.MaxUint64, now), now.Add(1<<32*time.Second); !got.Equal(want) {
		t.Errorf("a life beyond MQTT's longest ends %v, want %v", got, want)
	}
	if e := ExpiresAt(1, now); e.IsZero() || !(&Message{Expires: e}).Expired(now) {
		t.Error("a life that is over is not over at the receiver")
	}
}

// TestSharing: a decoded data frame points into the frame's bytes, and a clone does not.
func TestSharing(t *testing.T) {
	b := AppendFrame(nil, &Publish{Message: &Message{Topic: "topic", Payload: []byte("payload"), Properties: userProperty("k", "v"), QoS: 0}}, now)
	f, err := one(b)
	if err != nil {
		t.Fatal(err)
	}
	m := f.(*Publish).Message
	c := m.Clone()
	if !sameMessage(m, c) {
		t.Errorf("the clone is %+v, of %+v", c, m)
	}
	clear(b)
	if m.Topic == "topic" {
		t.Error("the message was copied out of the frame")
	}
	if c.Topic != "topic" || string(c.Payload) != "payload" || !bytes.Equal(c.Properties, userProperty("k", "v")) {
		t.Errorf("the clone shares memory with the frame: %+v", c)
	}
	if cap(c.Payload) != len(c.Payload) {
		t.Error("appending to the clone's payload would write into its properties")
	}
	if e := (&Message{Topic: "t"}).Clone(); e.Properties != nil {
		t.Error("a clone of a message without properties has some")
	}
}

func BenchmarkPublish(b *testing.B) {
	p := &Publish{Message: &Message{Topic: "doors/1/state", Payload: make([]byte, 100), QoS: 1}, Location: loc, Depth: 1, Epoch: 1 << 60, Seq: 1000, Released: 900}
	frame := AppendFrame(nil, p, now)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 256)
		for b.Loop() {
			buf = AppendFrame(buf[:0], p, now)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		var d Decoder
		kind, body, _, _, err := Next(frame)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			d.Reset()
			if _, err := d.Decode(kind, body, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}
