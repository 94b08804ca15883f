package mqttfront

import "sync/atomic"

// entryCost is about what an entry takes beside its message, in the session and in its log.
const entryCost = 160

// storedCost is about what an entry takes on the disk beside its message.
const storedCost = 64

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

// hold counts the memory of an entry that comes to wait in a session, until letGo. What waits on the disk alone is not counted.
func (b *Broker) hold(e *Entry) {
	size := int64(entryCost)
	if h := e.held; h != nil && h.n.Add(1) == 1 {
		size += h.size
	}
	e.counted = true
	b.stats.QueuedMemory.Add(size)
}

// holdFetched is hold for an entry from the log, which has its message for itself.
func (b *Broker) holdFetched(e *Entry) {
	e.held = &holding{size: int64(e.Msg.Size())}
	b.hold(e)
}

// letGo ends what hold began, if it did.
func (b *Broker) letGo(e *Entry) {
	if !e.counted {
		return
	}
	e.counted = false
	size := int64(entryCost)
	if h := e.held; h != nil && h.n.Add(-1) == 0 {
		size += h.size
	}
	b.stats.QueuedMemory.Add(-size)
}

// keeps reports whether a message to the session is kept on the disk.
func (s *session) keeps(qos byte) bool { return s.log != nil && qos > 0 }

// fullLocked reports whether the session has as much as one may have: on the disk, or in memory.
func (s *session) fullLocked(qos byte, size int64) bool {
	cfg := &s.b.cfg
	messages, bytes := cfg.MaxQueuedMessages, cfg.MaxQueuedBytes
	if s.keeps(qos) {
		messages, bytes = cfg.MaxStoredMessages, cfg.MaxStoredBytes
	}
	return s.waiting >= messages || s.waiting > 0 && s.bytes+size > bytes
}

// waitsElsewhereLocked reports whether what is on the disk is not to wait in memory as well: there is little left for that.
func (s *session) waitsElsewhereLocked() bool {
	return (s.queue.len() > 0 || s.conn.Load() == nil) && s.b.scarceForQueues()
}

// overShareLocked reports whether the session may have no more because all sessions together have too much, and it has more
// than its share of that: all could have as much. For what is not kept on the disk that is so at any time while memory is
// critically scarce.
func (s *session) overShareLocked(qos byte) bool {
	st, limit, each := s.b.stats, s.b.cfg.MaxTotalQueuedBytes, int64(entryCost)
	if s.keeps(qos) {
		limit, each = s.b.cfg.MaxTotalStoredBytes, storedCost
		if st.QueuedBytes.Load()+storedCost*st.QueuedMessages.Load() < limit {
			return false
		}
	} else if st.QueuedMemory.Load() < limit && !s.b.strain.critical() {
		return false
	}
	return s.waiting > 0 && s.bytes+each*int64(s.waiting) > limit/max(1, st.Sessions.Load())
}
