package store

import (
	"encoding/binary"
	"fmt"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// runKey is the key of a run of messages that a session has had: here, or at other nodes. What is kept after everything was
// forgotten has a higher turn.
func runKey(session, turn uint64, r mqttfront.MarkRun) string {
	key := binary.BigEndian.AppendUint64(number(kindRun, session), turn)
	if r.Before {
		key = append(key, 1)
	} else {
		key = append(key, 0)
	}
	key = binary.BigEndian.AppendUint64(key, r.Epoch)
	return string(binary.BigEndian.AppendUint64(key, r.First))
}

func (l *sessionLog) Had(r mqttfront.MarkRun) {
	l.db.update(func() {
		if !l.over {
			l.more = true
			l.db.putLocked(runKey(l.id, l.turn, r), binary.BigEndian.AppendUint64(nil, r.Last), true)
		}
	})
}

func (l *sessionLog) Forget() {
	l.marks = nil
	l.db.update(func() {
		if l.turn++; !l.over {
			l.db.sweepLaterLocked(leftover{session: l.id, below: l.turn})
		}
	})
}

func (l *sessionLog) Marks() []mqttfront.MarkRun { return l.marks }

// loadRuns finds what sessions have had.
func (s *Sessions) loadRuns(byID map[uint64]*sessionLog) error {
	var last uint64
	return s.db.each([]byte{kindRun}, func(rest, value []byte) bool {
		if len(rest) != 33 || len(value) != 8 {
			s.db.damaged(fmt.Errorf("what a session has had: a key of %d bytes, a value of %d", len(rest), len(value)))
			return true
		}
		id := binary.BigEndian.Uint64(rest)
		l := byID[id]
		if l == nil {
			if id != last {
				s.db.toSweep = append(s.db.toSweep, leftover{session: id})
			}
			last = id
			return true
		}
		l.turn = max(l.turn, binary.BigEndian.Uint64(rest[8:])) // what is left of others is true as well
		l.marks = append(l.marks, mqttfront.MarkRun{Epoch: binary.BigEndian.Uint64(rest[17:]), First: binary.BigEndian.Uint64(rest[25:]),
			Last: binary.BigEndian.Uint64(value), Before: rest[16] == 1})
		return true
	})
}
