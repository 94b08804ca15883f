package bench

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// stream is one publisher's messages on one topic.
type stream struct {
	number      uint32 // in the run
	topicNumber int
	topic       string
	publisher   *publisher
	fan         uint64 // subscribers
	sent        uint64 // for the publisher alone, until it has ended

	packet []byte // a PUBLISH but for what changes from message to message
	idAt   int    // where in it the packet identifier is; 0: nowhere
	dataAt int    // where the payload begins
}

// encode makes the packet of a stream.
func (s *stream) encode(run uint32, l *Load) {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(s.topic)))
	body = append(body, s.topic...)
	idAt := len(body)
	if l.QoS > 0 {
		body = append(body, 0, 0)
	}
	if l.Client.Version == client.Version5 {
		body = append(body, 0) // no properties
	}
	dataAt := len(body)
	body = append(body, make([]byte, l.Size)...)
	binary.BigEndian.PutUint32(body[dataAt:], run)
	binary.BigEndian.PutUint32(body[dataAt+4:], s.number)

	first := publishFirst | l.QoS<<1
	if l.Retain {
		first |= retainFlag
	}
	s.packet = binary.AppendUvarint([]byte{first}, uint64(len(body)))
	head := len(s.packet)
	s.packet = append(s.packet, body...)
	s.dataAt = head + dataAt
	if l.QoS > 0 {
		s.idAt = head + idAt
	}
}

// next appends the next message of the stream. id is for QoS 1 and 2; now is since the beginning of the run.
func (s *stream) next(to []byte, id uint16, now time.Duration) []byte {
	at := len(to)
	to = append(to, s.packet...)
	p := to[at:]
	if s.idAt > 0 {
		binary.BigEndian.PutUint16(p[s.idAt:], id)
	}
	binary.BigEndian.PutUint64(p[s.dataAt+8:], s.sent)
	binary.BigEndian.PutUint64(p[s.dataAt+16:], uint64(now))
	s.sent++
	return to
}

// stamp is what next wrote into a payload.
type stamp struct {
	run, stream uint32
	number      uint64
	sent        time.Duration
}

// readStamp reads it. It is not ok where the payload is none of ours.
func readStamp(p []byte) (s stamp, ok bool) {
	if len(p) < headerSize {
		return s, false
	}
	return stamp{
		run:    binary.BigEndian.Uint32(p),
		stream: binary.BigEndian.Uint32(p[4:]),
		number: binary.BigEndian.Uint64(p[8:]),
		sent:   time.Duration(binary.BigEndian.Uint64(p[16:])),
	}, true
}

// flow is a stream at one of its subscribers.
type flow struct {
	stream *stream
	tally  tally
	took   histogram
}

// counter is a number that one goroutine adds to and others read, on a cache line of its own.
type counter struct {
	_ [64]byte
	atomic.Uint64
	_ [64]byte
}
