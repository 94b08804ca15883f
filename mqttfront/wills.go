package mqttfront

import (
	"cmp"
	"strconv"
	"strings"
	"time"
)

// wills is what a session has of its client's will. The store keeps the will from before CONNACK on, also where it keeps
// nothing else of the session, so that a broker that has died sends it when it is back. It forgets the will together with
// what it then keeps of the message, so that a will is sent once.
type wills struct {
	will    *WillRecord // of the connection, or waiting for its delay
	leaving *WillRecord // is being published; the store has it until it is safe that it was
	willLog SessionLog  // has the will where log is nil
}

// afterRestart is how long a broker waits with the wills that are due when it is made: for the node to be back among the others,
// and for clients that come back at once.
const afterRestart = 3 * time.Second

// saveLocked has the store keep the session as it is, or, where it is not kept, its will alone.
func (s *session) saveLocked() {
	rec := SessionRecord{Version: s.version, Expiry: s.expiry, Disconnected: s.since, Born: s.born, Claim: s.number, IDs: s.win.block, Will: cmp.Or(s.will, s.leaving)}
	if m := s.move; m != nil && m.arriving != nil {
		rec.Arriving = &m.Arriving
	}
	if m := s.move; m != nil && m.Departure != nil {
		rec.Departing = &Departing{To: m.to, Number: m.number, Reserved: m.reserved}
	}
	switch {
	case s.log != nil:
		s.log.Save(rec)
	case rec.Will != nil:
		if s.willLog == nil {
			s.willLog = s.b.store.Create(string(s.key))
		}
		s.willLog.Save(rec)
	case s.willLog != nil:
		s.willLog.Delete()
		s.willLog = nil
	}
}

// keepNoMoreLocked ends the keeping of a session that is over. forget, to be called once, has the store forget it.
func (s *session) keepNoMoreLocked() (forget func()) {
	log, willLog := s.log, s.willLog
	s.willLog = nil
	s.logTo(nil)
	return func() {
		if log != nil {
			log.Delete()
		}
		if willLog != nil {
			willLog.Delete()
		}
	}
}

// leaveLocked takes the will out, to be given to publishLeaving.
func (s *session) leaveLocked() *WillRecord {
	s.leaving, s.will = s.will, nil
	return s.leaving
}

// publishLeaving publishes a will of a session that goes on; nil: none.
func (s *session) publishLeaving(w *WillRecord) {
	if w == nil {
		return
	}
	s.publishWill(w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.leaving == w { // else the store has another one by now
			s.leaving = nil
			if !s.ended {
				s.saveLocked()
			}
		}
	})
}

// publishWill publishes a will, unless another node has done so. forget, which may be nil, has the store forget it. It is called
// once, now or later.
func (s *session) publishWill(w *WillRecord, forget func()) {
	if forget == nil {
		forget = func() {}
	}
	if s.b.keeping() == nil || w.Epoch == 0 {
		s.sendWill(w, forget)
		return
	}
	s.b.keeping().Fire(string(s.key), w.Epoch, func() { forget = s.holdWill(w, forget) }, func() { s.sendWill(w, forget) }, func() { forget() })
}

// holdWill has the store keep a will that has to wait under a key of its own: its client may be back before it is sent, with another
// will or another session. What it returns has the store forget it.
func (s *session) holdWill(w *WillRecord, forget func()) func() {
	s.mu.Lock()
	rec := SessionRecord{Version: s.version, Disconnected: s.since, Will: w}
	s.mu.Unlock()
	log := s.b.store.Create(s.key.held(w.Epoch))
	s.b.store.Together(func() {
		log.Save(rec)
		forget()
	})
	return log.Delete
}

// restoreHeld has a will sent that the store kept with holdWill, and reports whether it is one.
func (b *Broker) restoreHeld(key string, rec SessionRecord, log SessionLog) bool {
	i := strings.LastIndex(key, heldMark)
	if i < 0 || rec.Will == nil {
		return false
	}
	s := &session{b: b, key: sessionKey(key[:i])}
	s.version, s.since = rec.Version, rec.Disconnected
	s.setRights(b.rightsOf(s))
	time.AfterFunc(afterRestart, func() {
		select {
		case <-b.stopped:
		default:
			s.publishWill(rec.Will, log.Delete)
		}
	})
	return true
}

// held is the key of a will that has to wait.
func (k sessionKey) held(epoch uint64) string {
	return string(k) + heldMark + strconv.FormatUint(epoch, 16)
}

const heldMark = "\x00\x00!" // like departedMark

// sendWill sends a will, to be retained or not [MQTT-3.1.2-14] [MQTT-3.1.2-15], unless the client has lost the right
// to do that.
func (s *session) sendWill(w *WillRecord, forget func()) {
	b, msg := s.b, w.Msg
	if g := s.grant.Load(); g != nil && !g.CanPublish(msg.Topic) {
		b.stats.PubsDenied.Add(1)
		forget()
		return
	}
	now := time.Now()
	if w.Expiry > 0 {
		msg.Expires = now.Add(w.Expiry)
	}
	b.stats.WillsSent.Add(1)
	u := b.begin(now)
	m := &outMessage{Message: msg, keep: &msg, slot: b.slotOfString(msg.Topic)}
	switch kindOf(msg.Topic) {
	case kindLocal:
		b.store.Together(func() {
			forget()
			b.retainLocalOrClear(m)
			u.serveLocal(m)
		})
	case kindSwarm:
		to := b.targets(m.slot)
		o := Outgoing{Msg: &msg, ServedHere: !b.swarm.Detour(&msg), Epoch: w.Epoch}
		if msg.QoS > 0 && b.store.Err() == nil {
			o.Note = forget
			o.ServeHere = o.ServedHere && len(to.targets) > 0
			o.ServedHere = o.ServedHere && !o.ServeHere
		} else { // at most once, or without a disk that could tell
			forget()
			if o.ServedHere {
				u.serve(m, to)
			}
		}
		u.batch = append(u.batch, o)
	default:
		forget()
	}
	u.end()
}
