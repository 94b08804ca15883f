package storetest

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// Sessions is mqttfront.SessionStore in memory, without a disk: for tests of what uses one.
type Sessions struct {
	mu       sync.Mutex
	logs     map[string]*sessionLog
	retained map[string]*proto.Message
}

// NewSessions returns an empty store.
func NewSessions() *Sessions {
	return &Sessions{logs: make(map[string]*sessionLog), retained: make(map[string]*proto.Message)}
}

// Left returns what a process that dies now leaves.
func (s *Sessions) Left() *Sessions {
	left := NewSessions()
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(left.retained, s.retained)
	for key, l := range s.logs {
		l.mu.Lock()
		left.logs[key] = &sessionLog{store: left, key: key, rec: l.rec, inbound: maps.Clone(l.inbound), marks: slices.Clone(l.marks)}
		for _, e := range l.queue[l.head:] {
			if e.Msg != nil { // the position of one that is removed may be used again
				left.logs[key].queue = append(left.logs[key].queue, e)
			}
		}
		left.logs[key].rec.Subs = slices.Clone(l.rec.Subs)
		l.mu.Unlock()
	}
	return left
}

// Load implements mqttfront.SessionStore.
func (s *Sessions) Load(each func(string, mqttfront.SessionRecord, mqttfront.SessionLog)) error {
	s.mu.Lock()
	logs := maps.Clone(s.logs)
	s.mu.Unlock()
	for key, l := range logs {
		l.mu.Lock()
		rec := l.rec
		rec.Subs = slices.Clone(l.rec.Subs)
		l.mu.Unlock()
		each(key, rec, l)
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

// Retain implements mqttfront.SessionStore.
func (s *Sessions) Retain(m *proto.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retained[m.Topic] = m
}

// Unretain implements mqttfront.SessionStore.
func (s *Sessions) Unretain(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.retained, topic)
}

// Retained implements mqttfront.SessionStore.
func (s *Sessions) Retained(each func(*proto.Message)) error {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.retained))
	s.mu.Unlock()
	for _, m := range all {
		each(m)
	}
	return nil
}

// Room implements mqttfront.SessionStore: nothing waits to be written.
func (s *Sessions) Room(func()) bool { return true }

// Err implements mqttfront.SessionStore.
func (s *Sessions) Err() error { return nil }

// Together implements mqttfront.SessionStore.
func (s *Sessions) Together(do func()) { do() }

// sessionLog is mqttfront.SessionLog.
type sessionLog struct {
	store *Sessions
	key   string

	mu      sync.Mutex
	rec     mqttfront.SessionRecord // its subscriptions by filter
	inbound map[uint16]struct{}
	queue   []mqttfront.Entry // by rising position; those without Msg are removed
	head    int               // of queue
	marks   []mqttfront.MarkRun
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

func (l *sessionLog) Append(e *mqttfront.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := len(l.queue)
	if i > l.head && l.queue[i-1].Pos > e.Pos {
		i = l.findLocked(e.Pos)
	}
	kept := *e
	if r := e.Receipt; r != nil && r.Mark() != (mqttfront.Mark{}) { // as a disk does
		kept.Mark, kept.Receipt = r.Mark(), nil
	}
	l.queue = slices.Insert(l.queue, i, kept)
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

func (l *sessionLog) Sent(e *mqttfront.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.findLocked(e.Pos); i < len(l.queue) && l.queue[i].Pos == e.Pos {
		l.queue[i].PacketID, l.queue[i].State = e.PacketID, e.State
	}
}

func (l *sessionLog) Remove(e *mqttfront.Entry) {
	pos := e.Pos
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
	size := 0
	for i := l.findLocked(after + 1); i < len(l.queue) && len(es) < n && size < mqttfront.FetchSize; i++ {
		if m := l.queue[i].Msg; m != nil {
			es = append(es, l.queue[i])
			size += m.Size()
		}
	}
	return es
}

func (l *sessionLog) Queued() (q mqttfront.Queued) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.queue[l.head:] {
		if e.Msg != nil {
			q.Entries++
			q.Bytes += int64(e.Msg.Size())
			q.Last = e.Pos
		}
	}
	return q
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

func (l *sessionLog) Had(r mqttfront.MarkRun) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks = append(l.marks, r)
}

func (l *sessionLog) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks = nil
}

func (l *sessionLog) Marks() []mqttfront.MarkRun {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.marks)
}

func (l *sessionLog) Rename(key string) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.store.logs[l.key] == l {
		delete(l.store.logs, l.key)
	}
	l.key = key
	l.store.logs[key] = l
}

func (l *sessionLog) Delete() {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.store.logs[l.key] == l {
		delete(l.store.logs, l.key)
	}
}
