package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// aboutID names the database's random ID, 8 bytes.
const aboutID = string(kindAbout) + "id"

// ID names the database for good: a node that has another is another node to others.
func (d *DB) ID() uint64 { return d.id }

// New reports whether the database was made when it was opened.
func (d *DB) New() bool { return d.made }

// loadID finds the ID of the database, or gives it one.
func (d *DB) loadID() error {
	value, done, err := d.pb.Get([]byte(aboutID))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		d.id, d.made = rand.Uint64()|1, true //nolint:gosec // it need not be secret
		return d.pb.Set([]byte(aboutID), binary.BigEndian.AppendUint64(nil, d.id), pebble.Sync)
	case err != nil:
		return err
	case len(value) != 8:
		err = fmt.Errorf("its ID has %d bytes", len(value))
	default:
		d.id = binary.BigEndian.Uint64(value)
	}
	return errors.Join(err, done.Close())
}

// load finds out what is in a database that was opened, and has removed what belongs to nothing.
func (d *DB) load() error {
	if err := d.loadID(); err != nil {
		return err
	}
	needs := map[uint64]int32{}
	if err := d.sessions.load(needs); err != nil {
		return err
	}
	if err := d.custody.load(needs); err != nil {
		return err
	}
	if err := d.retained.load(); err != nil {
		return err
	}
	for id, n := range needs {
		if n > 1 {
			d.messages.refs[id] = n
		}
	}
	return d.each([]byte{kindMessage}, func(rest, _ []byte) bool {
		if len(rest) != 8 {
			return true
		}
		id := binary.BigEndian.Uint64(rest)
		d.messages.last = max(d.messages.last, id)
		if needs[id] == 0 {
			d.removeLocked(messageKey(id))
			if d.group.full() { // nobody else writes it yet
				d.apply()
			}
		}
		return true
	})
}

// load finds the sessions, and counts the messages that they need.
func (s *Sessions) load(needs map[uint64]int32) error {
	s.logs = map[string]*sessionLog{}
	byID := map[uint64]*sessionLog{}
	err := s.db.each([]byte{kindSession}, func(rest, value []byte) bool {
		var r pb.StoredSession
		if err := decode(value, &r); err != nil || len(rest) != 8 {
			s.db.damaged(fmt.Errorf("session %x: %w", rest, err))
			return true
		}
		l := &sessionLog{db: s.db, id: binary.BigEndian.Uint64(rest), key: string(r.GetKey()), saved: true, more: true}
		s.last = max(s.last, l.id)
		s.logs[l.key] = l // the newer of two
		byID[l.id] = l
		return true
	})
	if err != nil {
		return err
	}
	if err := s.loadRuns(byID); err != nil {
		return err
	}
	var strays []leftover
	last, l := uint64(0), (*sessionLog)(nil)
	err = s.db.each([]byte{kindEntry}, func(rest, value []byte) bool {
		if len(rest) != 16 {
			return true
		}
		if id := binary.BigEndian.Uint64(rest); id != last {
			last, l = id, byID[id]
			if l == nil || s.logs[l.key] != l {
				strays = append(strays, leftover{session: id})
			}
		}
		var e pb.StoredEntry
		if decode(value, &e) != nil {
			return true // told when it is read
		}
		needs[e.GetMessage()]++
		if l != nil {
			l.queued.Entries++
			l.queued.Bytes += int64(e.GetSize())
			l.queued.Last = binary.BigEndian.Uint64(rest[8:])
		}
		return true
	})
	s.db.toSweep = append(s.db.toSweep, strays...)
	return err
}
