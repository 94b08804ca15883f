package mqttfront

import (
	"sync"
	"time"
)

// What is taken from a queue on the disk ends there as a note of what became of it, which waits in memory until it is written.
// A client that reads fast would fill that: so no more is taken from queues while the store has no room. The client's own packets
// are read and answered meanwhile.

// scarceEntries is how many entries of a session come from the log at a time while little memory is left for queues: so few are on
// their way to its client then.
const scarceEntries = 8

// fetchesLocked is how many entries may come from the log now. It has the session go on by itself where that is none.
func (s *session) fetchesLocked() int {
	if s.conn.Load() == nil { // it ends: nothing is written of its entries
		return headEntries / 2
	}
	if s.roomless {
		return 0
	}
	if !s.b.store.Room(s.roomAgain) {
		s.roomless = true
		s.b.stats.Paused.Add(1)
		return 0
	}
	switch {
	case !s.b.scarceForQueues():
		return headEntries / 2
	case s.win.live > 0: // it goes on when the client acknowledges all that, or there is more memory
		if !s.short {
			s.short = true
			s.b.stats.Short.Add(1)
			s.b.shorts.add(s)
		}
		return 0
	}
	return scarceEntries
}

// roomAgain is told that the store has room. It must not block.
func (s *session) roomAgain() { s.b.wg.Go(s.runRoom) }

// runRoom goes on with a queue. Where there is still no room it asks once more.
func (s *session) runRoom() {
	u := s.b.begin(time.Now())
	s.mu.Lock()
	s.roomless, s.short = false, false
	s.pumpLocked(u)
	s.mu.Unlock()
	u.end()
}

// shorts are the sessions with queues of which nothing comes into memory because there is little of it. There are no more of them
// than sessions, but for some that are over.
type shorts struct {
	mu  sync.Mutex
	all []*session
}

func (l *shorts) add(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, s)
}

// feedShorts has them go on once there is memory again.
func (b *Broker) feedShorts() {
	if b.scarceForQueues() {
		return
	}
	b.shorts.mu.Lock()
	all := b.shorts.all
	b.shorts.all = nil
	b.shorts.mu.Unlock()
	for _, s := range all {
		s.roomAgain()
	}
}

// scarceForQueues reports whether little memory is left for what waits in sessions.
func (b *Broker) scarceForQueues() bool {
	return b.stats.QueuedMemory.Load() >= b.cfg.MaxTotalQueuedBytes || b.strain.critical()
}
