package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// messages knows who needs the messages that are in the database: each is there once, however many need it.
type messages struct {
	last  uint64                    // number given
	fresh map[*proto.Message]uint64 // in the group: others may need them as well
	// refs is how many need one, where more than one does: no more than messages are stored, which the limits of queues and of
	// custody bound.
	refs map[uint64]int32
}

func (ms *messages) init() {
	ms.fresh, ms.refs = map[*proto.Message]uint64{}, map[uint64]int32{}
}

// needLocked has a message kept, and returns its number.
func (d *DB) needLocked(m *proto.Message) uint64 {
	ms := &d.messages
	if id, known := ms.fresh[m]; known {
		ms.refs[id] = max(ms.refs[id], 1) + 1
		return id
	}
	ms.last++
	ms.fresh[m] = ms.last
	d.putLocked(messageKey(ms.last), m, true)
	return ms.last
}

// releaseLocked ends a need. m may be nil, where it is not known.
func (d *DB) releaseLocked(id uint64, m *proto.Message) {
	ms := &d.messages
	switch n := ms.refs[id]; {
	case n > 2:
		ms.refs[id] = n - 1
		return
	case n == 2:
		delete(ms.refs, id)
		return
	}
	if ms.fresh[m] == id {
		delete(ms.fresh, m)
	}
	d.removeLocked(messageKey(id))
}

// cut forgets which messages are fresh: they are about to be written.
func (ms *messages) cut() {
	if len(ms.fresh) > 0 {
		ms.fresh = map[*proto.Message]uint64{}
	}
}

// message reads a message.
func (d *DB) message(id uint64) (*proto.Message, error) {
	value, done, err := d.pb.Get(number(kindMessage, id))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, fmt.Errorf("message %d is missing", id)
	} else if err != nil {
		return nil, fmt.Errorf("message %d: %w", id, err)
	}
	var s pb.StoredMessage
	err = decode(value, &s)
	_ = done.Close()
	if err != nil {
		return nil, fmt.Errorf("message %d: %w", id, err)
	}
	m, err := messageOf(&s)
	if err != nil {
		return nil, fmt.Errorf("message %d: %w", id, err)
	}
	return m, nil
}

func storedMessage(m *proto.Message) *pb.StoredMessage {
	s := &pb.StoredMessage{Topic: m.Topic, Payload: m.Payload, Properties: m.Properties, Qos: uint32(m.QoS), Retain: m.Retain}
	if !m.Expires.IsZero() {
		s.ExpiresMs = m.Expires.UnixMilli()
	}
	return s
}

func messageOf(s *pb.StoredMessage) (*proto.Message, error) {
	if s.GetQos() > 2 {
		return nil, fmt.Errorf("its QoS is %d", s.GetQos())
	}
	m := &proto.Message{Topic: s.GetTopic(), Payload: s.GetPayload(), Properties: s.GetProperties(), Retain: s.GetRetain(),
		QoS: byte(s.GetQos())} //nolint:gosec // 0 to 2
	if s.GetExpiresMs() != 0 {
		m.Expires = time.UnixMilli(s.GetExpiresMs())
	}
	return m, m.Validate()
}
