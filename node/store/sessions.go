package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Sessions is mqttfront.SessionStore in the database.
type Sessions struct {
	db *DB

	mu   sync.Mutex
	last uint64 // number given to a session
	logs map[string]*sessionLog
}

// Sessions returns the sessions of the database.
func (d *DB) Sessions() *Sessions { return &d.sessions }

// Load implements mqttfront.SessionStore.
func (s *Sessions) Load(each func(string, mqttfront.SessionRecord, mqttfront.SessionLog)) error {
	for _, l := range s.all() {
		rec, err := l.load()
		if err != nil {
			s.db.damaged(err)
			continue
		}
		each(l.key, rec, l)
	}
	return nil
}

func (s *Sessions) all() []*sessionLog {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*sessionLog, 0, len(s.logs))
	for _, l := range s.logs {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *sessionLog) int { return int(int64(a.id) - int64(b.id)) }) //nolint:gosec // small numbers
	return all
}

// Create implements mqttfront.SessionStore.
func (s *Sessions) Create(key string) mqttfront.SessionLog {
	s.mu.Lock()
	s.last++
	l := &sessionLog{db: s.db, id: s.last, key: key, replaces: s.logs[key]}
	s.logs[key] = l
	s.mu.Unlock()
	return l
}

// Sync implements mqttfront.SessionStore.
func (s *Sessions) Sync(done func(error)) { s.db.Sync(done) }

// Retain implements mqttfront.SessionStore.
func (s *Sessions) Retain(m *proto.Message) { s.db.put(string(kindLocal)+m.Topic, m, false) }

// Unretain implements mqttfront.SessionStore.
func (s *Sessions) Unretain(topic string) { s.db.remove(string(kindLocal) + topic) }

// Retained implements mqttfront.SessionStore.
func (s *Sessions) Retained(each func(*proto.Message)) error {
	return s.db.each([]byte{kindLocal}, func(topic, value []byte) bool {
		var r pb.StoredMessage
		err := decode(value, &r)
		var m *proto.Message
		if err == nil {
			m, err = messageOf(&r)
		}
		if err != nil || m.Topic != string(topic) {
			s.db.damaged(fmt.Errorf("what is retained for %q: %w", topic, err))
			return true
		}
		each(m)
		return true
	})
}

// Room implements mqttfront.SessionStore.
func (s *Sessions) Room(again func()) bool { return s.db.Room(again) }

// Err implements mqttfront.SessionStore.
func (s *Sessions) Err() error { return s.db.Err() }

// Together implements mqttfront.SessionStore.
func (s *Sessions) Together(do func()) { s.db.Together(do) }

// sessionLog is mqttfront.SessionLog. Its queue is in the database, not in memory.
type sessionLog struct {
	db  *DB
	id  uint64
	key string

	replaces *sessionLog      // is dropped together with the first Save
	saved    bool             // its record may be in the database
	queued   mqttfront.Queued // when it was opened
	marks    []mqttfront.MarkRun

	// Guarded by DB.mu:
	recent recents // entries that may not be in Pebble yet
	listed uint64  // the last group that has the log in its list, and one
	over   bool    // it is no session any more
	turn   uint64  // rises when what the session has had is forgotten
	more   bool    // there may be more of it in the database than its record
}

func (l *sessionLog) Save(rec mqttfront.SessionRecord) {
	s := &pb.StoredSession{Key: []byte(l.key), Version: uint32(rec.Version), ExpiryMs: rec.Expiry.Milliseconds(), Born: rec.Born, Claim: rec.Claim, PacketIds: uint32(rec.IDs)}
	if !rec.Disconnected.IsZero() {
		s.DisconnectedMs = rec.Disconnected.UnixMilli()
	}
	if w := rec.Will; w != nil {
		s.Will = &pb.StoredWill{Message: storedMessage(&w.Msg), ExpiryMs: w.Expiry.Milliseconds(), DelayMs: w.Delay.Milliseconds(), Epoch: w.Epoch}
	}
	if a := rec.Arriving; a != nil {
		s.Arriving = &pb.StoredArrival{From: []byte(a.From), Number: a.Number, Frontier: a.Frontier, Own: a.Own, Drained: a.Drained, Database: a.Database}
	}
	if d := rec.Departing; d != nil {
		s.Departing = &pb.StoredDeparture{To: []byte(d.To), Number: d.Number, Reserved: d.Reserved}
	}
	l.db.update(func() {
		l.db.putLocked(sessionKey(l.id), s, !l.saved)
		l.dropReplacedLocked()
	})
	l.saved = true
}

func (l *sessionLog) dropReplacedLocked() {
	if l.replaces != nil {
		l.replaces.dropLocked()
		l.replaces = nil
	}
}

func (l *sessionLog) load() (rec mqttfront.SessionRecord, err error) {
	value, done, err := l.db.pb.Get(number(kindSession, l.id))
	if err != nil {
		return rec, fmt.Errorf("session %d: %w", l.id, err)
	}
	var s pb.StoredSession
	err = decode(value, &s)
	_ = done.Close()
	if err != nil {
		return rec, fmt.Errorf("session %d: %w", l.id, err)
	}
	rec.Version, rec.Expiry = byte(s.GetVersion()), time.Duration(s.GetExpiryMs())*time.Millisecond //nolint:gosec // 3 to 5
	rec.Born, rec.Claim, rec.IDs = s.GetBorn(), s.GetClaim(), mqttfront.BlockOf(s.GetPacketIds())
	if s.GetDisconnectedMs() != 0 {
		rec.Disconnected = time.UnixMilli(s.GetDisconnectedMs())
	}
	if w := s.GetWill(); w != nil {
		m, err := messageOf(w.GetMessage())
		if err != nil {
			return rec, fmt.Errorf("session %d: its will: %w", l.id, err)
		}
		rec.Will = &mqttfront.WillRecord{Msg: *m, Expiry: time.Duration(w.GetExpiryMs()) * time.Millisecond,
			Delay: time.Duration(w.GetDelayMs()) * time.Millisecond, Epoch: w.GetEpoch()}
	}
	if a := s.GetArriving(); a != nil {
		rec.Arriving = &mqttfront.Arriving{From: string(a.GetFrom()), Number: a.GetNumber(), Frontier: a.GetFrontier(), Own: a.GetOwn(), Drained: a.GetDrained(), Database: a.GetDatabase()}
	}
	if d := s.GetDeparting(); d != nil {
		rec.Departing = &mqttfront.Departing{To: string(d.GetTo()), Number: d.GetNumber(), Reserved: d.GetReserved()}
	}
	err = l.db.each(number(kindSubscription, l.id), func(filter, value []byte) bool {
		var u pb.StoredSubscription
		if e := decode(value, &u); e != nil {
			l.db.damaged(fmt.Errorf("session %d: subscription to %q: %w", l.id, filter, e))
			return true
		}
		rec.Subs = append(rec.Subs, mqttfront.SubscriptionRecord{Filter: string(filter), ID: u.GetId(), QoS: byte(min(u.GetQos(), 2)), //nolint:gosec // 0 to 2
			NoLocal: u.GetNoLocal(), RetainAsPublished: u.GetRetainAsPublished(), Later: u.GetLater()})
		return true
	})
	return rec, err
}

func (l *sessionLog) Subscribe(sub mqttfront.SubscriptionRecord) {
	l.db.update(func() {
		l.more = true
		l.db.putLocked(subscriptionKey(l.id, sub.Filter), &pb.StoredSubscription{Id: sub.ID, Qos: uint32(sub.QoS), NoLocal: sub.NoLocal,
			RetainAsPublished: sub.RetainAsPublished, Later: sub.Later}, false)
	})
}

func (l *sessionLog) Unsubscribe(filter string) { l.db.remove(subscriptionKey(l.id, filter)) }

func (l *sessionLog) Append(e *mqttfront.Entry) {
	l.db.update(func() {
		l.more = true
		e.Stored = l.db.needLocked(e.Msg)
		l.db.putLocked(entryKey(l.id, e.Pos), storedEntry(e), true)
		l.listLocked()
		l.recent.add(e, l.db.groups)
	})
}

// listLocked has the log told when the group that is gathered is in Pebble.
func (l *sessionLog) listLocked() {
	if l.listed != l.db.groups+1 {
		l.listed = l.db.groups + 1
		l.db.group.logs = append(l.db.group.logs, l)
	}
}

func (l *sessionLog) Sent(e *mqttfront.Entry) {
	l.db.put(entryKey(l.id, e.Pos), storedEntry(e), false)
}

func (l *sessionLog) Remove(e *mqttfront.Entry) {
	l.db.update(func() {
		if written := l.db.removeLocked(entryKey(l.id, e.Pos)); written {
			l.listLocked()
			l.recent.removed(e.Pos, l.db.groups)
			if markOf(e) != (mqttfront.Mark{}) {
				l.db.received.hadLocked(markOf(e), e)
			}
		}
		l.db.releaseLocked(e.Stored, e.Msg)
		l.recent.remove(e.Pos)
	})
}

func (l *sessionLog) Queued() mqttfront.Queued { return l.queued }

func (l *sessionLog) Fetch(after uint64, n int) (es []mqttfront.Entry) {
	var rest []mqttfront.Entry
	var gone map[uint64]struct{}
	l.db.update(func() { rest, gone = l.recent.behind(after, n) }) // first: what is not there any more is in Pebble
	size := 0
	enough := func() bool { return len(es) >= n || size >= mqttfront.FetchSize }
	take := func(e mqttfront.Entry) {
		es = append(es, e)
		size += e.Msg.Size()
	}
	upto := func(pos uint64) { // those of rest below a position
		for len(rest) > 0 && rest[0].Pos < pos && !enough() {
			take(rest[0])
			rest = rest[1:]
		}
	}
	r := under(number(kindEntry, l.id))
	r.LowerBound = []byte(entryKey(l.id, after+1))
	err := l.db.iterate(r, func(key, value []byte) bool {
		if len(gone) > 0 && len(key) == 17 {
			if _, is := gone[binary.BigEndian.Uint64(key[9:])]; is {
				return true
			}
		}
		e, err := l.entry(key, value)
		if err != nil {
			l.db.damaged(err)
			return true
		}
		upto(e.Pos)
		if enough() {
			return false
		}
		if len(rest) > 0 && rest[0].Pos == e.Pos {
			rest = rest[1:]
		}
		take(e)
		return !enough()
	})
	if err != nil {
		l.db.damaged(fmt.Errorf("session %d: its queue: %w", l.id, err))
	}
	upto(math.MaxUint64)
	return es
}

// entry reads an entry and its message.
func (l *sessionLog) entry(key, value []byte) (e mqttfront.Entry, err error) {
	if len(key) != 17 {
		return e, fmt.Errorf("session %d: an entry's key has %d bytes", l.id, len(key))
	}
	pos := binary.BigEndian.Uint64(key[9:])
	if e, err = decodeEntry(value); err == nil {
		e.Pos = pos
		e.Msg, err = l.db.message(e.Stored)
	}
	if err != nil {
		return e, fmt.Errorf("session %d: entry %d: %w", l.id, pos, err)
	}
	return e, nil
}

func (l *sessionLog) Received(packetID uint16) {
	l.db.update(func() {
		if !l.over {
			l.more = true
			l.db.putLocked(inboundKey(l.id, packetID), []byte{}, false)
		}
	})
}

func (l *sessionLog) Released(packetID uint16) { l.db.remove(inboundKey(l.id, packetID)) }

func (l *sessionLog) Inbound() (ids []uint16) {
	err := l.db.each(number(kindInbound, l.id), func(id, _ []byte) bool {
		if len(id) == 2 {
			ids = append(ids, binary.BigEndian.Uint16(id))
		}
		return true
	})
	if err != nil {
		l.db.damaged(fmt.Errorf("session %d: its packet IDs: %w", l.id, err))
	}
	return ids
}

func (l *sessionLog) Rename(key string) {
	s := &l.db.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs[l.key] == l {
		delete(s.logs, l.key)
	}
	l.key = key
	s.logs[key] = l
}

func (l *sessionLog) Delete() {
	s := &l.db.sessions
	s.mu.Lock()
	if s.logs[l.key] == l {
		delete(s.logs, l.key)
	}
	s.mu.Unlock()
	l.db.update(func() {
		l.dropReplacedLocked()
		l.dropLocked()
	})
}

// dropLocked has a session's records removed. From now on it is no session; what it has in the database goes by and by.
func (l *sessionLog) dropLocked() {
	if l.over {
		return
	}
	l.over = true
	l.db.removeLocked(sessionKey(l.id))
	if l.more {
		l.db.sweepLaterLocked(leftover{session: l.id})
	}
}

// markOf returns the mark of an entry's delivery, zero where it has none.
func markOf(e *mqttfront.Entry) mqttfront.Mark {
	if e.Receipt != nil {
		return e.Receipt.Mark()
	}
	return e.Mark
}

func storedEntry(e *mqttfront.Entry) *pb.StoredEntry {
	s := &pb.StoredEntry{Message: e.Stored, Size: uint32(e.Msg.Size()), Qos: uint32(e.QoS), Retain: e.Retain, //nolint:gosec // below 512 MiB
		PacketId: uint32(e.PacketID), State: uint32(e.State), Ids: e.IDs}
	m := markOf(e)
	s.Epoch, s.Seq, s.Alone = m.Epoch, m.Seq, e.Alone
	if e.Group != nil {
		s.GroupName, s.GroupFilter = e.Group.Name, e.Group.Filter
	}
	return s
}

func decodeEntry(value []byte) (e mqttfront.Entry, err error) {
	var s pb.StoredEntry
	switch err := decode(value, &s); {
	case err != nil:
		return e, err
	case s.GetQos() > 2, s.GetPacketId() > 65535, s.GetState() > uint32(mqttfront.EntryReleased):
		return e, fmt.Errorf("QoS %d, packet ID %d, state %d", s.GetQos(), s.GetPacketId(), s.GetState())
	}
	e = mqttfront.Entry{Stored: s.GetMessage(), QoS: byte(s.GetQos()), Retain: s.GetRetain(), PacketID: uint16(s.GetPacketId()), //nolint:gosec // checked
		State: mqttfront.EntryState(s.GetState()), IDs: s.GetIds()} //nolint:gosec // checked
	e.Mark, e.Alone = mqttfront.Mark{Epoch: s.GetEpoch(), Seq: s.GetSeq()}, s.GetAlone()
	if s.GetGroupName() != "" {
		e.Group = &proto.Group{Name: s.GetGroupName(), Filter: s.GetGroupFilter()}
	}
	return e, nil
}
