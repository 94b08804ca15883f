package mqttfront

import (
	"slices"
	"time"
)

// Join takes what there is of a session elsewhere beside what is here: nodes that could not reach each other, or a client that did
// not wait, have left it in parts. What the session has had, in any part, is dropped, the rest comes behind what waits here. Where one of the two
// began without knowing of the other, the subscriptions of both stand. It reports whether the session is here, and has come as a whole
// from where it was last, or has gone on without that for a while: what was delivered there is not known before. Whoever else has a part keeps it until it is taken, so nothing
// of this has to survive a crash.
func (b *Broker) Join(key string, a Arrival) bool {
	b.reg.Lock()
	s := b.sessions[sessionKey(key)]
	if s == nil {
		b.reg.Unlock()
		return false
	}
	s.mu.Lock()
	b.reg.Unlock()
	rec := a.Head().Record
	born := rec.Born
	if s.ended || s.log == nil || s.move != nil && s.move.arriving != nil && !s.move.joinable(a.Head().From, time.Now()) || born != s.born && born != 0 && s.born != 0 {
		s.mu.Unlock()
		return false
	}
	var subs []*subscription
	if s.born == 0 || born == 0 {
		subs = s.adoptLocked(rec.Subs)
	}
	if s.born == 0 {
		s.born = born
		s.saveLocked()
	}
	s.rememberLocked()
	s.joins++
	stand := s.standingLocked()
	s.mu.Unlock()
	s.want(subs, stand, Lost{}, a.Registered)
	if len(subs) > 0 {
		s.keepInSwarm(nil)
	}
	b.stats.Joins.Add(1)
	b.wg.Go(func() { s.runJoin(a) })
	return true
}

// Adopt has a session that began here without knowing of another one under its key be that one, or goes on here without knowing of how
// it went on elsewhere: it has the subscriptions of both. from is the node, if any, that had the other, and is lost with what was sent to it.
func (b *Broker) Adopt(key string, rec SessionRecord, from Lost) {
	s := b.sessionOf(key)
	if s == nil {
		return
	}
	s.mu.Lock()
	if s.ended || s.log == nil || s.born != 0 && s.born != rec.Born || s.move != nil && s.move.Departure != nil {
		s.mu.Unlock()
		return
	}
	had := s.subsLocked()
	subs := s.adoptLocked(rec.Subs)
	s.born = rec.Born
	s.saveLocked()
	stand := s.standingLocked()
	s.mu.Unlock()
	s.want(subs, stand, from, nil)
	for _, sub := range had { // by which something was sent to that node too
		if slices.ContainsFunc(rec.Subs, func(r SubscriptionRecord) bool { return r.Filter == sub.filter }) {
			b.demand(sub.inner, func(d *demand) { d.owe(s, sub, from) }, nil)
		}
	}
	s.keepInSwarm(nil)
}

// adoptLocked gives a session the subscriptions that another part of it has and it has not, and returns them, to be wanted.
func (s *session) adoptLocked(recs []SubscriptionRecord) (subs []*subscription) {
	for _, r := range recs {
		if s.subs.get(r.Filter) != nil {
			continue
		}
		if len(s.subs) >= s.b.cfg.MaxSubscriptions {
			s.b.stats.SubsOverLimit.Add(1)
			continue
		}
		if sub := s.subscribeLocked(r); sub != nil {
			s.log.Subscribe(r)
			subs = append(subs, sub)
		}
	}
	return subs
}

// Has reports whether a session is here, or coming here, what tells it from others under its key, 0 where that is not known, and the
// number of the claim that it came here by, or of one that is to be made; 0: it began here.
func (b *Broker) Has(key string) (born, number uint64, here bool) {
	b.reg.Lock()
	defer b.reg.Unlock()
	s := b.sessions[sessionKey(key)]
	if s == nil {
		return 0, 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.born, s.number, !s.ended
}

// Connected reports whether the client of a session is connected here.
func (b *Broker) Connected(key string) bool {
	b.reg.Lock()
	defer b.reg.Unlock()
	s := b.sessions[sessionKey(key)]
	return s != nil && s.conn.Load() != nil
}

// runJoin takes over a part of a session, until there is nothing more.
func (s *session) runJoin(a Arrival) {
	b := s.b
	defer a.Close()
	for upto := uint64(0); ; {
		got, err := a.Next(b.moves, upto)
		last := got.last() // before its entries get positions here
		if err != nil || !s.takeJoined(&got) {
			break
		}
		if last > 0 {
			upto = last
			b.store.Sync(func(err error) {
				b.storeDone(err)
				if err == nil {
					a.Taken(last)
				}
			})
		}
		s.answer(a, got.Doubted)
		if got.End {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joins--
	s.forgetLaterLocked()
	if s.move != nil && s.move.Departure != nil {
		s.move.poke()
	}
}

// takeJoined puts entries of another part of the session behind what waits. It returns false when there is no use in more.
func (s *session) takeJoined(got *Arrived) bool {
	b := s.b
	u := b.begin(time.Now())
	ok := true
	b.store.Together(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if ok = !s.ended && s.log != nil && (s.move == nil || s.move.Departure == nil || !s.move.over); !ok {
			return
		}
		s.heardLocked(got.Had)
		for i := range got.Entries {
			s.joinLocked(u, &got.Entries[i])
		}
		if s.move != nil && s.move.Departure != nil {
			s.move.poke()
		}
	})
	s.mu.Lock()
	if ok {
		s.pumpLocked(u)
	}
	s.mu.Unlock()
	u.end()
	return ok
}

func (s *session) joinLocked(u *burst, e *Entry) {
	s.takeUpLocked(e)
	size := int64(e.Msg.Size())
	switch m := e.mark(); {
	case m != (Mark{}) && (s.before.has(m) || s.had != nil && !s.had.add(m)):
		s.b.stats.Twice.Add(1)
		s.notTakenLocked(u, e)
		return
	case e.State == EntryReleased: // the client has it
		s.notTakenLocked(u, e)
		return
	case s.fullLocked(max(1, e.QoS), size):
		s.b.stats.DropQueue.Add(1)
		s.notTakenLocked(u, e)
		return
	}
	e.PacketID, e.State = 0, EntryWaiting
	e.Pos = s.nextPos()
	s.count(1, size)
	s.log.Append(e)
	u.synced = true
	s.spilled++
}
