package proto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	gproto "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// What the protocol fixes.
const (
	// RouteProtocol is the libp2p protocol of the stream that carries frames from one node to another.
	RouteProtocol = "/mozzie/route/1.0.0"
	// RouteVersion is told in Hello.
	RouteVersion = 1
	// LocationSize is the length of a location: a SHA-256 hash.
	LocationSize = 32
	// MinNodeSize and MaxNodeSize bound a node's name on the wire: 8 bytes of database ID and a peer ID.
	MinNodeSize, MaxNodeSize = 8 + 8, 8 + 72
	// MaxHops is how often a frame may be passed on before it is dropped: a member that passes it to the
	// rendezvous, and views of the set that differ for a moment.
	MaxHops = 4
	// MaxBefore bounds how many nodes a Publish may say that it was sent to before.
	MaxBefore = 8
	// MaxChosen bounds for how many shared subscriptions a Publish may say who it is for.
	MaxChosen = 64
)

// What is ours to tune.
const (
	// MaxFrame bounds a frame's kind and body, in bytes: the largest message that a broker may be told to accept, and
	// room for what surrounds it. A longer one ends the stream before anything is allocated for it.
	MaxFrame = 17 << 20
	// SoftFrame is where a sender that packs many small things into a frame begins another.
	SoftFrame = 256 << 10
)

// Kind is a frame's number on the wire. Numbers are append-only.
type Kind uint64

// The kinds of frames; see route.proto.
const (
	KindHello         Kind = 1
	KindNodes         Kind = 2
	KindLease         Kind = 3
	KindAck           Kind = 4
	KindPublish       Kind = 5
	KindPublishAck    Kind = 6
	KindDeliver       Kind = 7
	KindDeliverAck    Kind = 8
	KindForget        Kind = 9
	KindRegister      Kind = 10
	KindRegisterAck   Kind = 11
	KindReplicate     Kind = 12
	KindFound         Kind = 13
	KindFoundAck      Kind = 14
	KindPrepare       Kind = 15
	KindPromise       Kind = 16
	KindAccept        Kind = 17
	KindAccepted      Kind = 18
	KindSetNews       Kind = 19
	KindTransfer      Kind = 20
	KindHandOver      Kind = 21
	KindInherit       Kind = 22
	KindInherited     Kind = 23
	KindNoInterest    Kind = 24
	KindWake          Kind = 25
	KindSync          Kind = 26
	KindRetain        Kind = 27
	KindRetainedQuery Kind = 28
	KindRetainedReply Kind = 29
	KindChild         Kind = 30
	KindCopy          Kind = 31
	KindCopyDone      Kind = 32
	KindDigest        Kind = 33
	KindLeaving       Kind = 34
	KindRecall        Kind = 35
	KindChosen        Kind = 36
	KindCarried       Kind = 37
)

// Errors of the decoder.
var (
	// ErrTooLong says that a frame announces more than MaxFrame bytes.
	ErrTooLong = errors.New("frame too long")
	// ErrMalformed says that a frame is not what its kind promises.
	ErrMalformed = errors.New("malformed frame")
	// ErrShort says that the buffer ends before the frame does.
	ErrShort = errors.New("short frame")
)

// control makes an empty control frame of a kind; Publish and Deliver have codecs of their own.
var control = map[Kind]func() gproto.Message{
	KindHello:         func() gproto.Message { return new(pb.Hello) },
	KindNodes:         func() gproto.Message { return new(pb.Nodes) },
	KindLease:         func() gproto.Message { return new(pb.Lease) },
	KindAck:           func() gproto.Message { return new(pb.Ack) },
	KindPublishAck:    func() gproto.Message { return new(pb.PublishAck) },
	KindDeliverAck:    func() gproto.Message { return new(pb.DeliverAck) },
	KindForget:        func() gproto.Message { return new(pb.Forget) },
	KindRegister:      func() gproto.Message { return new(pb.Register) },
	KindRegisterAck:   func() gproto.Message { return new(pb.RegisterAck) },
	KindReplicate:     func() gproto.Message { return new(pb.Replicate) },
	KindFound:         func() gproto.Message { return new(pb.Found) },
	KindFoundAck:      func() gproto.Message { return new(pb.FoundAck) },
	KindPrepare:       func() gproto.Message { return new(pb.Prepare) },
	KindPromise:       func() gproto.Message { return new(pb.Promise) },
	KindAccept:        func() gproto.Message { return new(pb.Accept) },
	KindAccepted:      func() gproto.Message { return new(pb.Accepted) },
	KindSetNews:       func() gproto.Message { return new(pb.SetNews) },
	KindTransfer:      func() gproto.Message { return new(pb.Transfer) },
	KindHandOver:      func() gproto.Message { return new(pb.HandOver) },
	KindInherit:       func() gproto.Message { return new(pb.Inherit) },
	KindInherited:     func() gproto.Message { return new(pb.Inherited) },
	KindNoInterest:    func() gproto.Message { return new(pb.NoInterest) },
	KindWake:          func() gproto.Message { return new(pb.Wake) },
	KindSync:          func() gproto.Message { return new(pb.Sync) },
	KindRetain:        func() gproto.Message { return new(pb.Retain) },
	KindRetainedQuery: func() gproto.Message { return new(pb.RetainedQuery) },
	KindRetainedReply: func() gproto.Message { return new(pb.RetainedReply) },
	KindChild:         func() gproto.Message { return new(pb.Child) },
	KindCopy:          func() gproto.Message { return new(pb.Copy) },
	KindCopyDone:      func() gproto.Message { return new(pb.CopyDone) },
	KindDigest:        func() gproto.Message { return new(pb.Digest) },
	KindLeaving:       func() gproto.Message { return new(pb.Leaving) },
	KindRecall:        func() gproto.Message { return new(pb.Recall) },
	KindChosen:        func() gproto.Message { return new(pb.Chosen) },
	KindCarried:       func() gproto.Message { return new(pb.Carried) },
}

// KindOf returns the number of a frame: a *Publish, a *Deliver or a pointer to one of package pb's types;
// 0 for anything else.
func KindOf(frame any) Kind {
	switch frame.(type) {
	case *Publish:
		return KindPublish
	case *Deliver:
		return KindDeliver
	case *pb.Hello:
		return KindHello
	case *pb.Nodes:
		return KindNodes
	case *pb.Lease:
		return KindLease
	case *pb.Ack:
		return KindAck
	case *pb.PublishAck:
		return KindPublishAck
	case *pb.DeliverAck:
		return KindDeliverAck
	case *pb.Forget:
		return KindForget
	case *pb.Register:
		return KindRegister
	case *pb.RegisterAck:
		return KindRegisterAck
	case *pb.Replicate:
		return KindReplicate
	case *pb.Found:
		return KindFound
	case *pb.FoundAck:
		return KindFoundAck
	case *pb.Prepare:
		return KindPrepare
	case *pb.Promise:
		return KindPromise
	case *pb.Accept:
		return KindAccept
	case *pb.Accepted:
		return KindAccepted
	}
	return kindOfRest(frame)
}

func kindOfRest(frame any) Kind {
	switch frame.(type) {
	case *pb.SetNews:
		return KindSetNews
	case *pb.Transfer:
		return KindTransfer
	case *pb.HandOver:
		return KindHandOver
	case *pb.Inherit:
		return KindInherit
	case *pb.Inherited:
		return KindInherited
	case *pb.NoInterest:
		return KindNoInterest
	case *pb.Wake:
		return KindWake
	case *pb.Sync:
		return KindSync
	case *pb.Retain:
		return KindRetain
	case *pb.RetainedQuery:
		return KindRetainedQuery
	case *pb.RetainedReply:
		return KindRetainedReply
	case *pb.Child:
		return KindChild
	case *pb.Copy:
		return KindCopy
	case *pb.CopyDone:
		return KindCopyDone
	case *pb.Digest:
		return KindDigest
	case *pb.Leaving:
		return KindLeaving
	case *pb.Recall:
		return KindRecall
	case *pb.Chosen:
		return KindChosen
	case *pb.Carried:
		return KindCarried
	}
	return 0
}

// AppendFrame appends a frame to b: the length of kind and body as a varint, the kind as a varint, the body.
// now turns points in time into what is left of them. A frame that no receiver would take, longer than MaxFrame
// or with a string that is not UTF-8, is left out: b comes back as it was, its memory included. It panics on a type that is no frame.
func AppendFrame(b []byte, frame any, now time.Time) []byte {
	kind := KindOf(frame)
	if kind == 0 {
		panic(fmt.Sprintf("proto: %T is no frame", frame))
	}
	// The length is not known yet: room for as long a one as is likely, and the body moves where that was wrong.
	before, start := b, len(b)
	room := 1
	switch f := frame.(type) {
	case *Publish:
		room = likelyRoom(f.Message)
	case *Deliver:
		room = likelyRoom(f.Message)
	}
	var zeros [maxRoom]byte
	b = append(append(b, zeros[:room]...), byte(kind)) //nolint:gosec // a small number
	switch f := frame.(type) {
	case *Publish:
		b = f.append(b, now)
	case *Deliver:
		b = f.append(b, now)
	case gproto.Message:
		out, err := gproto.MarshalOptions{Deterministic: true}.MarshalAppend(b, f)
		if err != nil { // invalid UTF-8
			return before
		}
		b = out
	}
	n := len(b) - start - room
	if n > MaxFrame {
		return before // not b, which has grown to what is thrown away
	}
	if size := protowire.SizeVarint(uint64(n)); size != room { //nolint:gosec // a length
		b = append(b, zeros[:]...)
		copy(b[start+size:], b[start+room:start+room+n])
		b = b[:start+size+n]
		room = size
	}
	binary.PutUvarint(b[start:start+room], uint64(n)) //nolint:gosec // a length
	return b
}

// maxRoom is how many bytes the length of a frame takes at most, likelyRest about what surrounds a message in one.
const maxRoom, likelyRest = 4, 64

// likelyRoom is how many bytes the length of a frame with a message is likely to take.
func likelyRoom(m *Message) int {
	return min(maxRoom, protowire.SizeVarint(uint64(m.Size()+likelyRest))) //nolint:gosec // a length
}

// Next splits the first frame off b. It returns ErrShort when b does not hold all of it, with need as the
// number of bytes that b must have for the next attempt, and ErrTooLong before anything is allocated.
func Next(b []byte) (kind Kind, body, rest []byte, need int, err error) {
	n, size := binary.Uvarint(b)
	switch {
	case size < 0 || size > 4 || n > MaxFrame:
		return 0, nil, nil, 0, ErrTooLong
	case size == 0:
		if len(b) >= 4 {
			return 0, nil, nil, 0, ErrTooLong
		}
		return 0, nil, nil, len(b) + 1, ErrShort
	}
	if end := size + int(n); len(b) < end {
		return 0, nil, nil, end, ErrShort
	}
	frame := b[size : size+int(n)]
	k, ks := binary.Uvarint(frame)
	if ks <= 0 {
		return 0, nil, nil, 0, ErrMalformed
	}
	return Kind(k), frame[ks:], b[size+int(n):], 0, nil
}

// Frames makes frames of the two kinds that there are many of, in memory that it uses again after Reset. The zero Frames is
// ready for use.
type Frames struct {
	publishes slab[Publish]
	delivers  slab[Deliver]
}

// Publish returns an empty one.
func (f *Frames) Publish() *Publish { return f.publishes.next() }

// Deliver returns an empty one.
func (f *Frames) Deliver() *Deliver { return f.delivers.next() }

// Reset says that nobody needs the frames any more that were made before.
func (f *Frames) Reset() {
	f.publishes.reset()
	f.delivers.reset()
}

// Decoder decodes frames, Publish and Deliver into memory that it uses again after Reset. The zero Decoder is ready for use.
type Decoder struct {
	frames   Frames
	messages slab[Message]
}

// Reset says that nobody needs a Publish or a Deliver any more that was decoded before.
func (d *Decoder) Reset() {
	d.frames.Reset()
	d.messages.reset()
}

// Decode reads a frame's body. The messages of Publish and Deliver share memory with body; they and their frames are
// good until Reset, or until body is written to. A kind that is not known gives nil and no error: it comes from a newer
// node.
func (d *Decoder) Decode(kind Kind, body []byte, now time.Time) (any, error) {
	switch kind {
	case KindPublish:
		p := d.frames.Publish()
		if err := p.decode(body, d.messages.next(), now); err != nil {
			return nil, fmt.Errorf("%w: Publish: %w", ErrMalformed, err)
		}
		return p, nil
	case KindDeliver:
		p := d.frames.Deliver()
		if err := p.decode(body, d.messages.next(), now); err != nil {
			return nil, fmt.Errorf("%w: Deliver: %w", ErrMalformed, err)
		}
		return p, nil
	}
	make := control[kind]
	if make == nil {
		return nil, nil
	}
	m := make()
	if len(body) > uncountedBody {
		if err := checkElements(body, m.ProtoReflect().Descriptor()); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	if err := gproto.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return m, nil
}

// slab has values that are used again. Those that are not in use are zero, so that they keep nothing else.
type slab[T any] struct {
	all   []*T
	used  int
	most  int // used at a time, in so many turns
	turns int
}

// slabTurns is after how many turns what was not needed in them is let go of.
const slabTurns = 256

func (s *slab[T]) next() *T {
	if s.used == len(s.all) {
		s.all = append(s.all, new(T))
	}
	s.used++
	return s.all[s.used-1]
}

func (s *slab[T]) reset() {
	for _, v := range s.all[:s.used] {
		*v = *new(T)
	}
	s.most, s.used = max(s.most, s.used), 0
	if s.turns++; s.turns == slabTurns {
		clear(s.all[s.most:])
		s.all = s.all[:s.most]
		s.most, s.turns = 0, 0
	}
}
