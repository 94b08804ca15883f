package core_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	gproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// hostile changes frames so that they stay frames, which random bytes rarely do.
type hostile struct {
	rng *rand.Rand
}

var (
	hostileTexts   = []string{"", "a", "a/b", "a/b/c", "b", "a/#", "+/x", "#", "$SYS/x", "@u/x", "g", "/ip4/192.0.2.9/tcp/9", "é"}
	hostileNumbers = []uint64{0, 1, 2, 3, 4, 5, 8, 9, 10, 100, 1000, 1 << 20, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1}
)

func pick[T any](h *hostile, of []T) T { return of[h.rng.IntN(len(of))] }

// bytes are a node's name, mostly.
func (h *hostile) bytes() []byte {
	switch h.rng.IntN(6) {
	case 0:
		return nil
	case 1:
		return []byte("x")
	case 2:
		return []byte("12345678peer-new")
	}
	return []byte(fuzzedNodes[h.rng.IntN(len(fuzzedNodes))])
}

func (h *hostile) number(old uint64) uint64 {
	switch h.rng.IntN(4) {
	case 0:
		return old + 1
	case 1:
		return old - 1
	}
	return pick(h, hostileNumbers)
}

// message changes one field of a message, or of one in it.
func (h *hostile) message(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	if fields.Len() == 0 {
		return
	}
	f := fields.Get(h.rng.IntN(fields.Len()))
	switch {
	case h.rng.IntN(8) == 0:
		m.Clear(f)
	case f.IsMap():
	case f.IsList():
		h.list(m.Mutable(f).List(), f)
	case f.Kind() == protoreflect.MessageKind:
		h.message(m.Mutable(f).Message())
	default:
		m.Set(f, h.scalar(f, m.Get(f)))
	}
}

func (h *hostile) list(l protoreflect.List, f protoreflect.FieldDescriptor) {
	n := l.Len()
	switch {
	case n > 0 && h.rng.IntN(3) == 0:
		l.Truncate(h.rng.IntN(n))
	case n > 0 && h.rng.IntN(3) == 0: // twice
		l.Append(l.Get(h.rng.IntN(n)))
	case f.Kind() == protoreflect.MessageKind:
		if n == 0 || h.rng.IntN(3) == 0 {
			l.AppendMutable()
		}
		for range 3 {
			h.message(l.Get(h.rng.IntN(l.Len())).Message())
		}
	default:
		l.Append(h.scalar(f, l.NewElement()))
	}
}

func (h *hostile) scalar(f protoreflect.FieldDescriptor, old protoreflect.Value) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!old.Bool())
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(pick(h, hostileTexts))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(h.bytes())
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(h.number(old.Uint())))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(h.number(old.Uint()))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(h.rng.IntN(4)))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind:
		return protoreflect.ValueOfInt32(int32(h.number(uint64(old.Int()))))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind:
		return protoreflect.ValueOfInt64(int64(h.number(uint64(old.Int()))))
	}
	return old
}

// data changes one field of a Publish or Deliver, or of its message.
func (h *hostile) data(v reflect.Value) {
	f := v.Field(h.rng.IntN(v.NumField()))
	if !f.CanSet() {
		return
	}
	switch f.Kind() {
	case reflect.Bool:
		f.SetBool(!f.Bool())
	case reflect.String:
		f.SetString(pick(h, hostileTexts))
	case reflect.Uint8:
		f.SetUint(uint64(h.rng.IntN(4)))
	case reflect.Uint32, reflect.Uint64:
		f.SetUint(h.number(f.Uint()) & (1<<min(f.Type().Bits(), 63) - 1))
	case reflect.Int:
		f.SetInt(int64(h.rng.IntN(10)))
	case reflect.Pointer:
		if m, ok := f.Interface().(*proto.Message); ok && m != nil {
			c := *m
			h.data(reflect.ValueOf(&c).Elem())
			c.QoS %= 3
			f.Set(reflect.ValueOf(&c))
		}
	case reflect.Slice:
		if f.Len() > 0 {
			f.SetLen(h.rng.IntN(f.Len()))
		} else if f.Type() == reflect.TypeFor[[]proto.Group]() {
			f.Set(reflect.ValueOf([]proto.Group{{Name: "g", Filter: pick(h, hostileTexts)}}))
		}
	case reflect.Array:
		if f.Type().Elem().Kind() == reflect.Uint8 && f.Len() > 0 {
			f.Index(0).SetUint(uint64(h.rng.IntN(256)))
		}
	}
}

// change returns a frame that says something else, as it comes off the wire; nil where nobody would take it.
func (h *hostile) change(frame any, now time.Time) any {
	for range h.rng.IntN(4) {
		if m, ok := frame.(gproto.Message); ok {
			h.message(m.ProtoReflect())
		} else {
			h.data(reflect.ValueOf(frame).Elem())
		}
	}
	wire := proto.AppendFrame(nil, frame, now)
	kind, body, _, _, err := proto.Next(wire)
	if err != nil {
		return nil
	}
	if frame, err = new(proto.Decoder).Decode(kind, body, now); err != nil {
		return nil
	}
	return frame
}

// TestHostilePeer has a node of a swarm at work hear frames from a peer that are like those of an honest one, but say
// something else: it must not panic, send what cannot be sent, nor talk for ever.
func TestHostilePeer(t *testing.T) {
	honest := newTrio(t)
	honest.note = true
	honest.pass(time.Second)
	honest.life()
	honest.pass(3 * time.Second)
	honest.nodes[1].WithdrawAll()
	honest.nodes[1].Leave()
	honest.pass(3 * time.Second)
	pool := append(honest.sent, tableFrames(t)...)
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) {
		defer func() {
			if r := recover(); r != nil {
				panic(fmt.Sprintf("seed %d: %v", seed, r))
			}
			if t.Failed() {
				t.Logf("replay with: go test ./dht/rendezvous/core -run 'TestHostilePeer$' -seed %d", seed)
			}
		}()
		rng := rand.New(rand.NewPCG(seed, 5))
		h := &hostile{rng}
		s := newTrio(t)
		s.pass(300 * time.Millisecond)
		s.life()
		s.pass(time.Duration(rng.IntN(20)) * 100 * time.Millisecond)
		from := fuzzedNodes[1+rng.IntN(2)]
		for range 1 + rng.IntN(40) {
			now := epochStart.Add(s.now)
			kind, body, _, _, err := proto.Next(pick(h, pool))
			if err != nil {
				continue
			}
			frame, err := new(proto.Decoder).Decode(kind, body, now)
			if err != nil || frame == nil {
				continue
			}
			if frame = h.change(frame, now); frame == nil {
				continue
			}
			if hello, ok := frame.(*pb.Hello); ok {
				hello.Node = []byte(from) // the driver has made sure of that
				s.nodes[0].Up(hello)
			} else {
				s.nodes[0].Receive(from, frame)
			}
			s.settle()
			if rng.IntN(4) == 0 {
				s.pass(time.Duration(1+rng.IntN(5)) * 100 * time.Millisecond)
			}
		}
		s.pass(time.Second)
		s.life()
		s.nodes[0].Down(from)
		for i, id := range fuzzedNodes {
			if id == from {
				s.nodes[i].Down(fuzzedNodes[0])
			}
		}
		s.pass(7 * time.Second) // longer than a lease
		if rng.IntN(2) == 0 {
			s.nodes[0].WithdrawAll()
			s.nodes[0].Leave()
			s.pass(time.Second)
		}
	})
}

// TestNamelessGroup has a node register a shared subscription that can have no such name. What others send because of it
// must be what their peers take: carryOut fails the test where it is not.
func TestNamelessGroup(t *testing.T) {
	s := newTrio(t)
	s.pass(time.Second)
	for _, name := range []string{"", "a/b", "+"} {
		s.nodes[1].Register("n/#", core.Interest{Groups: []core.GroupInterest{{Name: name, Members: 1, QoS: 1, Online: true}}}, func(bool) {})
		s.pass(time.Second)
		for _, n := range s.nodes {
			n.Publish(core.Publication{Message: &proto.Message{Topic: "n/1", Payload: []byte("x"), QoS: 1}})
			s.settle()
		}
		s.pass(3 * time.Second) // copies too
	}
}
