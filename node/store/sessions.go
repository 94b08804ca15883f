package store

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// Sessions is mqttfront.SessionStore in memory.
type Sessions struct {
	mu   sync.Mutex
	logs map[string]*sessionLog
}

// NewSessions returns an empty store.
func NewSessions() *Sessions { return &Sessions{logs: make(map[string]*sessionLog)} }

// Load implements mqttfront.SessionStore.
func (s *Sessions) Load(each func(string, mqttfront.SessionRecord, mqttfront.SessionLog)) error {
	s.mu.Lock()
	logs := slices.Collect(maps.Values(s.logs))
	s.mu.Unlock()
	for _, l := range logs {
		l.mu.Lock()
		rec := l.rec
		rec.Subs = slices.Clone(l.rec.Subs)
		l.mu.Unlock()
		each(l.key, rec, l)
	}
	return nil
}

// Create implements mqttfront.SessionStore.
func (s *Sessions) Create(key string) mqttfront.SessionLog {
	l := &sessionLog{store: s, key: key}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs[key] = l
	return l
}

// Sync implements mqttfront.SessionStore: memory is as safe as it gets.
func (s *Sessions) Sync(done func(error)) { done(nil) }

// sessionLog is mqttfront.SessionLog.
type sessionLog struct {
	store *Sessions
	key   string

	mu      sync.Mutex
	rec     mqttfront.SessionRecord // its subscriptions by filter
	inbound map[uint16]struct{}
	queue   []mqttfront.Entry // by rising position; those without Msg are removed
	head    int               // of queue
}

func (l *sessionLog) Save(rec mqttfront.SessionRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rec.Subs = l.rec.Subs
	l.rec = rec
}

func (l *sessionLog) Subscribe(sub mqttfront.SubscriptionRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, found := l.subLocked(sub.Filter)
	if found {
		l.rec.Subs[i] = sub
		return
	}
	l.rec.Subs = slices.Insert(l.rec.Subs, i, sub)
}

func (l *sessionLog) subLocked(filter string) (int, bool) {
	return slices.BinarySearchFunc(l.rec.Subs, filter, func(s mqttfront.SubscriptionRecord, f string) int {
		return strings.Compare(s.Filter, f)
	})
}

func (l *sessionLog) Unsubscribe(filter string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, found := l.subLocked(filter); found {
		l.rec.Subs = slices.Delete(l.rec.Subs, i, i+1)
	}
}

func (l *sessionLog) Append(e mqttfront.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, e)
}

// findLocked returns the index of the first entry at or behind pos.
func (l *sessionLog) findLocked(pos uint64) int {
	if l.head < len(l.queue) && l.queue[l.head].Pos >= pos {
		return l.head
	}
	i, _ := slices.BinarySearchFunc(l.queue[l.head:], pos, func(e mqttfront.Entry, pos uint64) int {
		switch {
		case e.Pos < pos:
			return -1
		case e.Pos > pos:
			return 1
		}
		return 0
	})
	return l.head + i
}

func (l *sessionLog) Sent(pos uint64, packetID uint16, state mqttfront.EntryState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.findLocked(pos); i < len(l.queue) && l.queue[i].Pos == pos {
		l.queue[i].PacketID, l.queue[i].State = packetID, state
	}
}

func (l *sessionLog) Remove(pos uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.findLocked(pos)
	if i == len(l.queue) || l.queue[i].Pos != pos {
		return
	}
	l.queue[i] = mqttfront.Entry{Pos: pos}
	for l.head < len(l.queue) && l.queue[l.head].Msg == nil {
		l.head++
	}
	switch {
	case l.head == len(l.queue):
		l.queue, l.head = l.queue[:0], 0
		if cap(l.queue) > 64 {
			l.queue = nil
		}
	case l.head > 64 && l.head > len(l.queue)/2:
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
}

func (l *sessionLog) Fetch(after uint64, n int) (es []mqttfront.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := l.findLocked(after + 1); i < len(l.queue) && len(es) < n; i++ {
		if l.queue[i].Msg != nil {
			es = append(es, l.queue[i])
		}
	}
	return es
}

func (l *sessionLog) Received(packetID uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inbound == nil {
		l.inbound = make(map[uint16]struct{})
	}
	l.inbound[packetID] = struct{}{}
}

func (l *sessionLog) Released(packetID uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.inbound, packetID)
}

func (l *sessionLog) Inbound() []uint16 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.inbound))
}

func (l *sessionLog) Delete() {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.store.logs[l.key] == l {
		delete(l.store.logs, l.key)
	}
}
