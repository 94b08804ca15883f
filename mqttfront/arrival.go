package mqttfront

import (
	"context"
	"slices"
	"sync"
	"time"
)

// arriving is what a session needs to know that comes from another node. What waited there comes first, at its old positions;
// what comes to this node meanwhile waits behind it in the log. What both nodes have had goes to the client once, in the
// other's order.
type arriving struct {
	Arriving
	a     Arrival
	own   map[Mark]Entry // of this node's own deliveries, while they wait
	known bool           // all that the other node is to know of what the session has had has been said here
	// idle is since when nothing more has become known of that, where all that waited there has come, or is lost; zero: some of it is still to come.
	idle   time.Time
	asking bool // nothing more comes from there; what others keep is still to be asked for
}

// joinIdle is for how long a session waits for what the node that had it may still get to know that it has had, before other parts of it are joined
// with it: that node may be lost, or wait for one that is. Where it comes back after all some of that may come twice.
const joinIdle = time.Minute

// joinable reports whether another part of a session may be joined with it while it comes from another node.
func (a *arriving) joinable(part Arriving, now time.Time) bool {
	if a.From == part.From && a.Number == part.Number { // it is the one that comes
		return false
	}
	return a.asking || a.known || !a.idle.IsZero() && now.Sub(a.idle) > joinIdle
}

// behind notes an own delivery that is in the log, and reports whether it has to wait there.
func (a *arriving) behind(e *Entry) bool {
	if a.Drained {
		return false
	}
	if m := e.mark(); m != (Mark{}) {
		a.own[m] = *e
	}
	return true
}

// limit is the last position that may be sent to the client.
func (a *arriving) limit() uint64 {
	if a.Drained {
		return ^uint64(0)
	}
	return a.Frontier
}

// welcome makes a session of what another node has of it.
func (b *Broker) welcome(ctx context.Context, key sessionKey, a Arrival) error {
	h := a.Head()
	arr := &arriving{Arriving: h.From, a: a, own: map[Mark]Entry{}}
	if h.From.Drained {
		arr.idle = time.Now()
	}
	arr.Own = ownPositions(h.From.Number)
	var first []Entry
	ended := false
	for sent := 0; sent < h.Sent && !ended; {
		got, err := a.Next(ctx, arr.Frontier)
		if err != nil { // the rest comes when it can
			break
		}
		first = append(first, got.Entries...)
		h.Had = append(h.Had, got.Had...)
		sent += len(got.Entries)
		if len(got.Entries) > 0 {
			arr.Frontier = got.Entries[len(got.Entries)-1].Pos
		}
		ended, arr.Drained = got.End, arr.Drained || got.Drained
	}
	arr.Frontier = 0
	b.reg.Lock()
	if b.sessions[key] != nil { // which the swarm knows as another node's
		b.reg.Unlock()
		b.depart(key, h.From.From, h.From.Number, false)
		b.reg.Lock()
	}
	parts := slices.Clone(b.departures[key])
	b.reg.Unlock()
	for _, d := range parts { // they are joined later
		h.Had = append(h.Had, d.hadAs(h.Record.Born)...)
	}
	b.reg.Lock()
	if b.draining || b.sessions[key] != nil || len(b.sessions) >= b.cfg.MaxSessions {
		b.reg.Unlock()
		a.Close()
		return b.manySessions
	}
	s := b.newSession(key)
	s.number = h.From.Number
	b.sessions[key] = s
	b.partLocked(key)
	b.stats.Sessions.Add(1)
	b.stats.Offline.Add(1)
	s.mu.Lock()
	b.reg.Unlock()
	s.expiry, s.since, s.asked = min(h.Record.Expiry, b.cfg.MaxSessionExpiry), h.Record.Disconnected, 1
	if s.since.IsZero() {
		s.since = time.Now()
	}
	s.setRights(b.rightsOf(s))
	s.move, s.had, s.before = &move{arriving: arr}, newMarks(), newMarks()
	for _, r := range h.Had {
		s.before.addRun(r)
	}
	s.moving.Store(true)
	s.logTo(b.store.Create(string(key)))
	s.logMarksLocked()
	for _, r := range h.Record.Subs {
		s.log.Subscribe(r)
	}
	for _, id := range h.Inbound {
		s.log.Received(id)
		if s.inbound == nil {
			s.inbound = make(map[uint16]inbound)
		}
		s.inbound[id] = inbound{accepted: true}
	}
	s.lastPos = arr.Own
	if s.win.block = h.Record.IDs; h.From.Drained || h.Sent > 0 && len(first) == 0 { // what was sent is lost
		s.win.block = nextBlock(s.win.block)
	}
	u := b.begin(time.Now())
	for i := range first {
		s.arriveLocked(u, &first[i], true)
	}
	s.version, s.born = h.Record.Version, h.Record.Born
	s.saveLocked()
	s.mu.Unlock()
	b.rightsVersion.Add(1)
	u.end()
	known := newCountdown(a.Registered)
	promised, owed := owing(h.From.lost(), known.more())
	s.subscribeAll(h.Record.Subs, h.From.lost(), promised)
	s.tellArrived(h.From.Drained, within(passedPatience, known.more()))
	known.one()
	b.reg.Lock()
	for _, d := range b.departures[key] {
		d.back.Store(true)
	}
	b.reg.Unlock()
	b.stats.Arrivals.Add(1)
	b.wg.Go(func() { s.runArrival(ended, owed) })
	return nil
}

// tellArrived tells the swarm that a session has come from another node. lost, and done, which may be nil, are those of Swarm.Arrived.
func (s *session) tellArrived(lost bool, done func()) {
	var filters []string
	s.mu.Lock()
	for _, sub := range s.subs {
		if sub.share == "" {
			filters = append(filters, sub.inner)
		}
	}
	s.mu.Unlock()
	if len(filters) > 0 {
		s.b.swarm.Arrived(string(s.key), filters, lost, done)
	} else if done != nil {
		done()
	}
}

// passedPatience is for how long the node that a session comes from is not told of that because something that was published here before is still on
// its way: a rendezvous that does not answer for so long is replaced, or will be.
const passedPatience = 15 * time.Second

// within has something called once, after a time at the latest.
func within(d time.Duration, f func()) func() {
	var once sync.Once
	t := time.AfterFunc(d, func() { once.Do(f) })
	return func() {
		t.Stop()
		once.Do(f)
	}
}

// arriveLocked puts an entry from the other node into the queue or, where it was sent and no connection is here yet, into the
// window.
func (s *session) arriveLocked(u *burst, e *Entry, first bool) {
	a := s.move.arriving
	pos := e.Pos
	if pos <= a.Frontier {
		return
	}
	if m := e.mark(); m != (Mark{}) {
		s.takeUpLocked(e)
		if own, waits := a.own[m]; waits { // it goes where the other had it
			delete(a.own, m)
			s.log.Remove(&own)
			s.spilled--
			s.count(-1, -int64(own.Msg.Size()))
			s.notTakenLocked(u, e)
			e.Receipt, e.Alone = own.Receipt, own.Alone
			if s.move.Departure != nil {
				delete(s.move.receipts, own.Pos)
			}
		} else if s.before.has(m) || !s.had.add(m) {
			s.b.stats.Twice.Add(1)
			a.Frontier = max(a.Frontier, pos)
			s.notTakenLocked(u, e)
			return
		}
	}
	size := int64(e.Msg.Size())
	a.Frontier = pos
	if s.fullLocked(e.QoS, size) {
		s.b.stats.DropQueue.Add(1)
		s.notTakenLocked(u, e)
		return
	}
	if e.PacketID != 0 && (!first || !s.win.uses(e.PacketID)) { // the client has gone on without it
		if e.State == EntryReleased {
			s.notTakenLocked(u, e)
			return
		}
		e.PacketID, e.State = 0, EntryWaiting
	}
	if a.Drained {
		e.Pos = s.nextPos()
	}
	s.count(1, size)
	s.log.Append(e)
	u.synced = true
	s.spilled++
	switch {
	case s.move.Departure != nil && e.Receipt != nil:
		s.move.receipts[e.Pos] = e.Receipt
	case s.move.Departure == nil && e.PacketID != 0:
		s.placeLocked(e)
	}
}

// takeUpLocked has the swarm wait for this node with an entry from another one: until it is over here, it is not done.
func (s *session) takeUpLocked(e *Entry) {
	if m := e.mark(); m != (Mark{}) {
		e.Mark, e.Receipt, e.Alone = m, nil, s.b.swarm.TakeUp(m, string(s.key))
	}
}

// notTakenLocked is over with an entry that was taken up, and is not kept.
func (s *session) notTakenLocked(u *burst, e *Entry) {
	s.b.reopen(e)
	u.over(s, *e)
}

// last returns the position of the last entry; 0: there is none.
func (a *Arrived) last() uint64 {
	if n := len(a.Entries); n > 0 {
		return a.Entries[n-1].Pos
	}
	return 0
}

// takeArrived takes over what came from the other node. It returns false when there is no use in more.
func (s *session) takeArrived(got *Arrived) bool {
	b := s.b
	u := b.begin(time.Now())
	ok := true
	b.store.Together(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if ok = !s.ended && s.move != nil && s.move.arriving != nil; !ok {
			return
		}
		a := s.move.arriving
		s.heardLocked(got.Had)
		for i := range got.Entries {
			s.arriveLocked(u, &got.Entries[i], false)
		}
		if s.move.Departure != nil {
			s.move.poke()
		}
		if got.Drained && !a.Drained {
			a.Drained = true
			a.own = nil
		}
		if a.Drained && (a.idle.IsZero() || got.Drained || len(got.Had) > 0) {
			a.idle = time.Now()
		}
		a.known = a.known || got.Known
		s.saveLocked()
	})
	s.mu.Lock()
	if ok {
		s.pumpLocked(u)
	}
	s.mu.Unlock()
	u.end()
	return ok
}

// runArrival takes over what another node has of a session, until there is nothing more. ended says that it is so already. owed, unless it is
// nil, is closed when the swarm has promised the session what was sent for it to a node that is lost.
func (s *session) runArrival(ended bool, owed <-chan struct{}) {
	b := s.b
	s.mu.Lock()
	a := s.move.arriving
	upto := a.Frontier
	s.mu.Unlock()
	safe := func(upto uint64) {
		b.store.Sync(func(err error) {
			b.storeDone(err)
			if err == nil {
				a.a.Taken(upto)
			}
		})
	}
	safe(upto)
	for !ended {
		got, err := a.a.Next(b.moves, upto)
		if err != nil && b.moves.Err() != nil {
			return // at the next start it goes on
		}
		if err != nil {
			break
		}
		last := got.last() // before its entries get positions here
		if !s.takeArrived(&got) {
			a.a.Close()
			return
		}
		if got.Lost {
			owed = s.loseRest()
		}
		s.answer(a.a, got.Doubted)
		if last > 0 {
			upto = last
			safe(upto)
		}
		ended = got.End
	}
	if owed != nil { // until then it is asked for, and over a restart too
		s.mu.Lock()
		a.asking = true
		s.mu.Unlock()
		select {
		case <-owed:
		case <-b.moves.Done():
			return
		}
	}
	s.endArrival()
}

// loseRest has a session want what was sent to the node that it comes from, and has not come before that was lost. It returns what is closed
// when that is promised.
func (s *session) loseRest() <-chan struct{} {
	s.mu.Lock()
	if s.move == nil || s.move.arriving == nil || s.ended {
		s.mu.Unlock()
		return nil
	}
	from, subs := s.move.lost(), s.subsLocked()
	s.mu.Unlock()
	promised, owed := owing(from, nil)
	s.ask(subs, func(d *demand, sub *subscription) { d.owe(s, sub, from) }, promised)
	s.tellArrived(true, nil)
	return owed
}

// endArrival has a session be this node's alone.
func (s *session) endArrival() {
	s.tellArrived(false, nil) // again, for what was on its way to the swarm when it was told first; and before what it gets without identity
	u := s.b.begin(time.Now())
	s.mu.Lock()
	if s.move == nil || s.move.arriving == nil || s.ended {
		s.mu.Unlock()
		u.end()
		return
	}
	s.move.Drained = true
	s.move.own = nil
	if s.move.Departure == nil {
		s.move = nil
		s.moving.Store(s.parted)
	} else {
		s.move.arriving = nil
		s.move.poke()
	}
	s.saveLocked()
	if s.expiry == 0 {
		s.setExpiryLocked(0)
	}
	s.forgetLaterLocked()
	s.pumpLocked(u)
	subs := s.subsLocked()
	s.mu.Unlock()
	s.b.rightsVersion.Add(1)
	u.end()
	for _, sub := range subs {
		s.b.demand(sub.inner, func(d *demand) { d.settle(s.key) }, nil)
	}
}

// resumeArrival goes on with an arrival after a restart.
func (s *session) resumeArrival() {
	s.mu.Lock()
	if s.move.arriving == nil {
		s.mu.Unlock()
		return
	}
	from := s.move.Arriving
	s.mu.Unlock()
	a := s.b.roaming.Resume(string(s.key), from)
	if a == nil {
		s.endArrival()
		return
	}
	s.mu.Lock()
	s.move.a = a
	if s.move.Drained {
		s.move.idle = time.Now()
	}
	subs := s.subsLocked()
	s.mu.Unlock()
	known := newCountdown(a.Registered)
	promised, owed := owing(from.lost(), known.more())
	s.ask(subs, func(*demand, *subscription) {}, promised)
	s.tellArrived(from.Drained, within(passedPatience, known.more()))
	known.one()
	s.b.wg.Go(func() { s.runArrival(false, owed) })
}
