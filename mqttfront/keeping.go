package mqttfront

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// WillKeeping is how other nodes know the wills of this node's clients, so that they can send them where this node dies. It is
// implemented by the node. Without one a will is sent by the node of its client alone. Keys are those of the session store.
//
// All methods are safe for concurrent use and return at once.
type WillKeeping interface {
	// Identity returns the Epoch of a will that other nodes are about to know; 0 where there is none that could.
	Identity() uint64
	// Arm lets them know a will with an Epoch as it is now: of a session with some expiry, whose connection was lost at since, or
	// stands where that is zero. It takes the place of the will before of the same key. done, which may be nil, is called once,
	// from any goroutine or from within: when they know it, or can't be told now.
	Arm(key string, w *WillRecord, expiry time.Duration, since time.Time, done func())
	// Disarm says that a will is not to be sent.
	Disarm(key string, epoch uint64)
	// Fire is asked before a will is sent: exactly one of send and drop is called, from any goroutine or from within. drop means
	// that another node has sent it, or that its client is at another node. Where it is not known whether this node was taken for
	// dead, it takes a while: then hold is called before, from within, once.
	Fire(key string, epoch uint64, hold, send, drop func())
}

// KeepWills has other nodes know the wills of clients. It is called once, before anybody is served.
func (b *Broker) KeepWills(k WillKeeping) { b.wills.Store(&k) }

// keeping returns it; nil where there is none.
func (b *Broker) keeping() WillKeeping {
	if k := b.wills.Load(); k != nil {
		return *k
	}
	return nil
}

// Wills calls each with the wills that other nodes should know: of sessions with a connection, or whose delay is not over. Those
// that they have not known get an Epoch.
func (b *Broker) Wills(each func(key string, w WillRecord, expiry time.Duration, since time.Time)) {
	b.reg.Lock()
	ss := make([]*session, 0, len(b.sessions))
	for _, s := range b.sessions {
		ss = append(ss, s)
	}
	b.reg.Unlock()
	for _, s := range ss {
		s.mu.Lock()
		w := s.will
		if w == nil || s.ended || kindOf(w.Msg.Topic) != kindSwarm {
			s.mu.Unlock()
			continue
		}
		if w.Epoch == 0 && b.keeping() != nil {
			s.identifyLocked()
			w = s.will
		}
		rec, expiry, since := *w, s.expiry, s.since
		s.mu.Unlock()
		if rec.Epoch != 0 {
			each(string(s.key), rec, expiry, since)
		}
	}
}

// identifyLocked gives the will a new identity.
func (s *session) identifyLocked() {
	epoch := s.b.keeping().Identity()
	if epoch == 0 {
		return
	}
	w := *s.will // others may be reading the one that was
	w.Epoch = epoch
	s.will = &w
	s.saveLocked()
}

// armWill lets other nodes know the will of a client that connects, and calls off the one before, unless that is due.
// CONNACK waits for it, but not for long.
func (b *Broker) armWill(c *conn, s *session, w, before *WillRecord) {
	if b.keeping() == nil {
		return
	}
	s.mu.Lock()
	if w != nil && s.will == w && w.Epoch == 0 && kindOf(w.Msg.Topic) == kindSwarm { // other nodes have appeared meanwhile, perhaps
		s.identifyLocked()
		w = s.will
	}
	expiry := s.expiry
	s.mu.Unlock()
	switch {
	case w != nil && w.Epoch != 0:
		armed := make(chan struct{})
		c.own.armed = armed
		b.keeping().Arm(string(s.key), w, expiry, time.Time{}, func() { close(armed) })
	case before != nil && before.Epoch != 0:
		b.keeping().Disarm(string(s.key), before.Epoch)
	}
}

// disarm says that a will, which may be nil, is not to be sent.
func (b *Broker) disarm(key sessionKey, w *WillRecord) {
	if b.keeping() != nil && w != nil && w.Epoch != 0 {
		b.keeping().Disarm(string(key), w.Epoch)
	}
}

// WillSent says that another node has sent a will with an Epoch, because this one was out of its reach. before, which may be nil, is
// what was retained under the will's topic then, where looked says that this is known. A client that is connected gets its
// retained message back and its will armed anew: it was a false alarm, and WillSent reports true.
func (b *Broker) WillSent(key string, epoch uint64, looked bool, before *proto.Message) bool {
	s := b.sessionOf(key)
	if s == nil {
		return false
	}
	s.mu.Lock()
	if w := s.will; w == nil || w.Epoch != epoch || s.ended || s.conn.Load() == nil {
		s.mu.Unlock()
		return false
	}
	s.identifyLocked()
	w, expiry, back := s.will, s.expiry, s.status
	s.mu.Unlock()
	b.stats.WillsFalse.Add(1)
	b.keeping().Arm(key, w, expiry, time.Time{}, nil)
	if back != nil && back.Topic != w.Msg.Topic { // of another will, before
		back = nil
	}
	if back == nil && looked {
		if back = before; back == nil {
			back = &proto.Message{Topic: w.Msg.Topic, QoS: w.Msg.QoS, Retain: true}
		}
	}
	if w.Msg.Retain && back != nil {
		u := b.begin(time.Now())
		u.batch = append(u.batch, Outgoing{Msg: back, ServedHere: !b.swarm.Detour(back)})
		u.end()
	}
	return true
}

// WillOver says that a will with an Epoch is not to be sent any more: another node has sent it, or its client is at another node.
func (b *Broker) WillOver(key string, epoch uint64) {
	s := b.sessionOf(key)
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.will; w != nil && w.Epoch == epoch && !s.ended {
		s.will = nil
		s.saveLocked()
	}
}

// sessionOf returns the session of a key; nil where there is none.
func (b *Broker) sessionOf(key string) *session {
	b.reg.Lock()
	defer b.reg.Unlock()
	return b.sessions[sessionKey(key)]
}

// noteStatus remembers the last message that a client had retained under the topic of its will, which says how it is.
func (c *conn) noteStatus(m *proto.Message) {
	if !m.Retain || c.own.status != m.Topic {
		return
	}
	c.sess.mu.Lock()
	c.sess.status = m.Clone()
	c.sess.mu.Unlock()
}
