package mqttfront

import "time"

// hadTime is for how long a session remembers what came once all of it is here: who had custody of it meanwhile may have sent
// it to both nodes.
const hadTime = 10 * time.Minute

// cameLocked deals with a delivery that came before, and reports whether it did.
func (s *session) cameLocked(u *burst, e *Entry) bool {
	m := e.mark()
	if s.had == nil || m == (Mark{}) || !s.before.has(m) && s.had.add(m) {
		return false
	}
	s.b.stats.Twice.Add(1)
	u.over(s, *e)
	return true
}

// markLocked has the log know that the session has had a message.
func (s *session) markLocked(m Mark) {
	s.noteLocked(MarkRun{Epoch: m.Epoch, First: m.Seq, Last: m.Seq})
}

// noteLocked has the log know of a run that had or before has now.
func (s *session) noteLocked(r MarkRun) {
	if s.marked++; s.marked > 3*maxMarks {
		s.log.Forget()
		s.logMarksLocked()
	}
	s.log.Had(r)
}

// logMarksLocked has the log know what the session has had, in as few runs as it can be said.
func (s *session) logMarksLocked() {
	s.marked = s.had.spans + s.before.spans
	s.had.runs(s.log.Had)
	s.before.runs(func(r MarkRun) {
		r.Before = true
		s.log.Had(r)
	})
}

// heardLocked notes what the session has had at other nodes, where that has become known only now. Who fetches the session is told too.
func (s *session) heardLocked(had []MarkRun) {
	news := false
	for _, r := range had {
		if s.before.hasRun(r) {
			continue
		}
		news = true
		s.before.addRun(r)
		r.Before = true
		s.noteLocked(r)
	}
	if news && s.move != nil && s.move.Departure != nil {
		s.move.heard++
		s.move.poke()
	}
}

// answer has who doubts that a session has had something told what of that it has, once that is safe.
func (s *session) answer(a Arrival, doubted []MarkRun) {
	if len(doubted) == 0 {
		return
	}
	had := newMarks()
	s.mu.Lock()
	n := 0
	for _, r := range doubted {
		for m := (Mark{r.Epoch, r.First}); m.Seq <= r.Last && n < MaxDoubted; m.Seq++ {
			n++
			if s.before.has(m) || s.had.has(m) {
				had.add(m)
			}
		}
	}
	s.mu.Unlock()
	var known []MarkRun
	had.runs(func(r MarkRun) { known = append(known, r) })
	s.b.store.Sync(func(err error) {
		s.b.storeDone(err)
		if err == nil {
			a.Known(known)
		}
	})
}

// throughLocked returns what the session has had, here and before, and does not wait here.
func (s *session) throughLocked() (through []MarkRun) {
	if s.had == nil {
		return nil
	}
	all := newMarks() // bounded, as each of the two is
	s.before.runs(all.addRun)
	s.had.runs(all.addRun)
	for after := uint64(0); ; {
		es := s.log.Fetch(after, headEntries)
		if len(es) == 0 {
			break
		}
		for i := range es {
			after = es[i].Pos
			all.remove(es[i].mark())
		}
	}
	all.runs(func(r MarkRun) { through = append(through, r) })
	return through
}

// restoreMarks has a session know again, after a restart, what it has had while it may come again.
func (s *session) restoreMarks(moves bool) {
	runs := s.log.Marks()
	if !moves && len(runs) == 0 {
		return
	}
	s.had, s.before, s.marked = newMarks(), newMarks(), len(runs)
	for _, r := range runs {
		if r.Before {
			s.before.addRun(r)
		} else {
			s.had.addRun(r)
		}
	}
	s.rememberWaiting()
	if !moves {
		s.forgetLaterLocked()
	}
}

// rememberWaiting notes what waits in the log, and what of that is this node's own.
func (s *session) rememberWaiting() {
	var a *arriving
	if s.move != nil && s.move.arriving != nil && !s.move.Drained {
		a = s.move.arriving
	}
	for after := uint64(0); ; {
		es := s.log.Fetch(after, headEntries)
		if len(es) == 0 {
			return
		}
		for _, e := range es {
			after = e.Pos
			m := e.mark()
			if m == (Mark{}) {
				continue
			}
			s.had.add(m)
			if a != nil && e.Pos >= a.Own {
				a.own[m] = e
			}
		}
	}
}

// rememberLocked has the session know again from now on what comes to it, or waits.
func (s *session) rememberLocked() {
	if s.had != nil || s.log == nil {
		return
	}
	s.had, s.before = newMarks(), newMarks()
	s.rememberWaiting()
	s.forgetLaterLocked()
}

// forgetLaterLocked has the session forget what it has had, in a while after nothing came from elsewhere any more.
func (s *session) forgetLaterLocked() {
	s.hadSince++
	since := s.hadSince
	time.AfterFunc(hadTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.hadSince == since && (s.move == nil || s.move.arriving == nil) && s.joins == 0 {
			s.had, s.before, s.parted = nil, nil, false
			s.moving.Store(s.move != nil)
			s.b.rightsVersion.Add(1) // targets say whether messages need an identity
			if s.log != nil && !s.ended {
				s.log.Forget()
			}
		}
	})
}
