package mqttfront

import "sync/atomic"

// entryCost is about what an entry takes beside its message, in the session and in its log.
const entryCost = 160

// holding counts the sessions that a message waits in: its memory counts once for all of them. nil stands for a message
// that is kept elsewhere in any case, as retained ones are.
type holding struct {
	n    atomic.Int32
	size int64
}

// held returns what counts the sessions that m waits in.
func (m *outMessage) held() *holding {
	if m.holding == nil {
		m.holding = &holding{size: int64(m.Size())}
	}
	return m.holding
}

// hold counts the memory of an entry that comes to wait in a session.
func (b *Broker) hold(e *Entry) {
	size := int64(entryCost)
	if h := e.held; h != nil && h.n.Add(1) == 1 {
		size += h.size
	}
	b.stats.QueuedMemory.Add(size)
}

// letGo ends what hold began.
func (b *Broker) letGo(e *Entry) {
	size := int64(entryCost)
	if h := e.held; h != nil && h.n.Add(-1) == 0 {
		size += h.size
	}
	b.stats.QueuedMemory.Add(-size)
}

// overShare reports whether the session may have no more because all sessions together have too much, and it has more
// than its share of that: all could have as much. While memory is critically scarce that is so at any time.
func (s *session) overShareLocked() bool {
	st, limit := s.b.stats, s.b.cfg.MaxTotalQueuedBytes
	if st.QueuedMemory.Load() < limit && !s.b.strain.critical() {
		return false
	}
	return s.waiting > 0 && s.bytes+entryCost*int64(s.waiting) > limit/max(1, st.Sessions.Load())
}
