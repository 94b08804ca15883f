package roam

import (
	"sync"
	"sync/atomic"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

// simStore is a store that survives its node, and knows which messages it has had.
type simStore struct {
	*storetest.Sessions
	whole    sync.Mutex   // held by Together, of which a crash leaves all or nothing; taken before world.mu
	appended atomic.Int64 // entries so far

	mu       sync.Mutex
	received map[mqttfront.Mark]bool
}

func newSimStore() *simStore {
	return &simStore{Sessions: storetest.NewSessions(), received: map[mqttfront.Mark]bool{}}
}

// left is what a crash leaves. Whole is held, or nobody has the store.
func (s *simStore) left() *simStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := &simStore{Sessions: s.Sessions.Left(), received: map[mqttfront.Mark]bool{}}
	for m := range s.received {
		left.received[m] = true
	}
	return left
}

func (s *simStore) Together(do func()) {
	s.whole.Lock()
	defer s.whole.Unlock()
	do()
}

func (s *simStore) had(m mqttfront.Mark) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received[m]
}

// each calls do with every entry that waits.
func (s *simStore) each(do func(e mqttfront.Entry)) {
	_ = s.Sessions.Load(func(_ string, _ mqttfront.SessionRecord, log mqttfront.SessionLog) {
		for _, e := range log.Fetch(0, 1<<20) {
			do(e)
		}
	})
}

// open counts the entries that wait for each message.
func (s *simStore) open() map[mqttfront.Mark]int {
	open := map[mqttfront.Mark]int{}
	s.each(func(e mqttfront.Entry) {
		open[e.Mark]++
	})
	return open
}

func (s *simStore) Load(each func(string, mqttfront.SessionRecord, mqttfront.SessionLog)) error {
	return s.Sessions.Load(func(key string, rec mqttfront.SessionRecord, log mqttfront.SessionLog) {
		each(key, rec, simLog{log, s})
	})
}

func (s *simStore) Create(key string) mqttfront.SessionLog { return simLog{s.Sessions.Create(key), s} }

// simLog keeps marks in place of receipts, as a disk does.
type simLog struct {
	mqttfront.SessionLog
	s *simStore
}

func (l simLog) Append(e *mqttfront.Entry) {
	l.s.appended.Add(1)
	kept := *e
	if kept.Receipt != nil {
		kept.Mark, kept.Receipt = kept.Receipt.Mark(), nil
	}
	l.s.mu.Lock() // a crash leaves both or neither
	defer l.s.mu.Unlock()
	if kept.Mark != (mqttfront.Mark{}) {
		l.s.received[kept.Mark] = true
	}
	l.SessionLog.Append(&kept)
}
