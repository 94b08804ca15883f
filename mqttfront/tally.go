package mqttfront

import (
	"sync"
	"sync/atomic"
)

// tally counts the sessions that a delivery waits for, and tells its receipt when the last is through.
type tally struct {
	n     atomic.Int64
	r     Receipt
	again bool // it is of one session's entry from the disk
	waits      // of a session that may go on elsewhere
}

// Done implements Receipt for one session.
func (t *tally) Done() {
	if t.n.Add(-1) == 0 {
		t.r.Done()
	}
}

// Mark implements Receipt.
func (t *tally) Mark() Mark { return t.r.Mark() }

// More implements Receipt.
func (t *tally) More() { t.r.More() }

// Refused implements Receipt.
func (t *tally) Refused(g Group) { t.r.Refused(g) }

// waits are the sessions that a delivery waits for, as plain subscribers.
type waits struct {
	known bool // they are
	mu    sync.Mutex
	held  []*session // in the order in which they got it; nil: that one is through
	first int        // the ones before are through
	left  int
	told  bool        // the swarm is going to be
	few   [2]*session // what held begins with
}

// add has the delivery wait for a session; plain says that it has it as a plain subscriber.
func (t *tally) add(s *session, plain bool) {
	t.n.Add(1)
	if !t.known || !plain {
		return
	}
	t.mu.Lock()
	if t.left++; t.held == nil {
		t.held = t.few[:0]
	}
	if len(t.held) < maxHeld {
		t.held = append(t.held, s)
	}
	t.mu.Unlock()
}

// through has the delivery wait for a session no more.
func (t *tally) through(b *Broker, s *session) {
	if !t.known {
		return
	}
	t.mu.Lock()
	for i := t.first; i < len(t.held); i++ {
		if t.held[i] == s {
			t.held[i] = nil
			t.left--
			break
		}
	}
	for t.first < len(t.held) && t.held[t.first] == nil {
		t.first++
	}
	tell := t.tellsLocked(1)
	t.mu.Unlock()
	if tell {
		b.opening.put(b, t)
	}
}

// given has the swarm told, later, of a delivery that all sessions have been given which it is for.
func (t *tally) given(b *Broker) {
	if !t.known {
		return
	}
	t.mu.Lock()
	tell := t.tellsLocked(2) // of one alone there is nothing to be said
	t.mu.Unlock()
	if tell {
		b.opening.put(b, t)
	}
}

// tellsLocked reports whether the swarm is to be told of a delivery, if it waits for so many sessions.
func (t *tally) tellsLocked(least int) bool {
	tell := t.left >= least && !t.told && len(t.held) < maxHeld
	t.told = t.told || tell
	return tell
}

// openFor returns the sessions that the delivery waits for and that outlive their connections; ok is false where there are too many, or
// none at all.
func (t *tally) openFor() (keys []string, ok bool) {
	t.mu.Lock()
	t.told = false
	var all []*session
	if t.left > 0 && t.left <= MaxOpen {
		for _, s := range t.held[t.first:] {
			if s != nil {
				all = append(all, s)
			}
		}
	}
	t.mu.Unlock()
	for _, s := range all {
		if s.lasts() {
			keys = append(keys, string(s.key))
		}
	}
	return keys, len(all) > 0
}

// lasts reports whether the session outlives its connection.
func (s *session) lasts() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expiry > 0
}
