package mqttfront

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// Departure is a session that another node has taken over: its client is there, and its queue is fetched from here. Until that
// node's registrations stand, what comes for the session still comes here, and follows the queue.
type Departure struct {
	b      *Broker
	s      *session
	number uint64
	to     string

	more    chan struct{} // gets one when something was queued
	back    atomic.Bool   // the session has come back here, and gets what is late itself
	full    atomic.Bool   // nothing can be late any more
	settled atomic.Bool   // what is recent can't be
	drained chan struct{} // closed when the subscriptions are over, and what was sent here before has come

	// Guarded by session.mu, number and to by registry.reg as well, and part by that alone.
	receipts map[uint64]Receipt // of entries that were in memory, by position
	fetched  []Entry            // and not taken yet
	taken    uint64             // the other has what is up to here
	carrying int                // how many of these are still to be known to be there
	reserved uint64             // positions up to here are used up after a crash: somebody may have had them
	begun    bool               // the other has some of it, or its registrations
	heard    int                // rises when it becomes known that the session has had something elsewhere
	streams  int                // by which it is being fetched
	given    bool               // and one of them has its head
	part     bool               // a session has been here since: there is more of it elsewhere
	answered chan struct{}      // not nil: closed when one of the client's messages of QoS 2 is kept, or refused
	stopped  bool
	late     subscriptions // once it is stopped: what they still bring is late
	over     bool
}

// Depart gives a session up to another node, which has claimed it under a number. fresh says that what there is of it is not
// wanted. Its connection is told. It returns the session, nil where there is nothing to fetch under that number. It
// waits for a client that is just bringing the session here, until ctx is over.
func (b *Broker) Depart(ctx context.Context, key, to string, number uint64, fresh bool) *Departure {
	b.reg.Lock()
	for b.fetches[sessionKey(key)] != nil { // it may be about to come here itself
		coming := b.fetches[sessionKey(key)]
		b.reg.Unlock()
		select {
		case <-coming:
		case <-b.moves.Done():
			return nil
		case <-ctx.Done():
			return nil
		}
		b.reg.Lock()
	}
	b.reg.Unlock()
	return b.depart(sessionKey(key), to, number, fresh)
}

// depart is Depart for a session that is not about to come here.
func (b *Broker) depart(key sessionKey, to string, number uint64, fresh bool) *Departure {
	b.reg.Lock()
	s := b.sessions[key]
	asked := b.departureLocked(string(key), to, number) // by whoever has waited too
	if s == nil {
		b.reg.Unlock()
		return asked
	}
	if s.number > number { // it has come back here since
		b.reg.Unlock()
		return asked
	}
	s.mu.Lock()
	u := b.begin(time.Now())
	c := s.conn.Load()
	subs, before := s.subsLocked(), s.standingLocked()
	var due, off *WillRecord
	ends := fresh || s.log == nil || s.expiry == 0 || s.ended || s.expiredLocked(u.now)
	var d *Departure
	if ends {
		if !s.ended {
			s.endLocked()
		}
		delete(b.sessions, s.key)
	} else {
		if s.will != nil && (s.will.Delay == 0) {
			due = s.will
		} else {
			off = s.will
		}
		d = s.departLocked(u, to, b.freeLocked(key, number))
	}
	after := s.standingLocked()
	s.mu.Unlock()
	b.reg.Unlock()
	if c != nil { // [MQTT-3.1.4-3]
		b.stats.Takeovers.Add(1)
		c.stop(&Refusal{reasonTakenOver, "by a connection to another node with the same client identifier"})
	}
	if ends {
		b.finish(s)
	} else {
		b.stats.Departures.Add(1)
		b.rightsVersion.Add(1) // targets say which of them are on the move
		b.restand(subs, before, after)
	}
	u.end()
	b.disarm(s.key, off)
	if due != nil {
		s.publishWill(due, nil)
	}
	if asked != nil { // what is being fetched under that number goes on; this is another part
		return asked
	}
	return d
}

// freeLocked returns a number that no part of a session has, from one on: where somebody got to in one of them says nothing of another.
// registry.reg is held.
func (b *Broker) freeLocked(key sessionKey, number uint64) uint64 {
	for slices.ContainsFunc(b.departures[key], func(d *Departure) bool { return d.number == number }) {
		number++
	}
	return number
}

// departureLocked returns what waits for a node that has claimed it under a number. registry.reg is held.
func (b *Broker) departureLocked(key, to string, number uint64) *Departure {
	for _, d := range b.departures[sessionKey(key)] {
		if d.to == to && d.number == number {
			return d
		}
	}
	return nil
}

// Departing returns what of a session waits here for a node that has claimed it under a number; nil where there is nothing.
func (b *Broker) Departing(key, to string, number uint64) *Departure {
	b.reg.Lock()
	defer b.reg.Unlock()
	return b.departureLocked(key, to, number)
}

// GoneTo returns the node that has taken over a session from here last; "" where none has.
func (b *Broker) GoneTo(key string) string {
	b.reg.Lock()
	defer b.reg.Unlock()
	if ds := b.departures[sessionKey(key)]; len(ds) > 0 && !ds[len(ds)-1].part {
		return ds[len(ds)-1].to
	}
	return ""
}

// partLocked says that a session is here, of which what went before is but a part. registry.reg is held.
func (b *Broker) partLocked(key sessionKey) {
	for _, d := range b.departures[key] {
		d.part = true
	}
}

// departLocked makes a session one that only waits to be fetched. registry.reg is held.
func (s *session) departLocked(u *burst, to string, number uint64) *Departure {
	d := s.leaveTo(to, number)
	if s.conn.Load() == nil {
		s.b.stats.Offline.Add(-1)
	}
	s.gen++
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if s.conn.Swap(nil) != nil || s.since.IsZero() {
		s.since = u.now
	}
	s.will = nil
	s.dropAsksLocked()
	s.dropZerosLocked(u)
	for i := range s.win.n {
		d.setAside(s.win.at(i))
	}
	for s.queue.len() > 0 {
		e := s.popLocked()
		d.setAside(&e)
	}
	s.win, s.resend, s.releases, s.spilled = window{block: s.win.block}, 0, nil, s.waiting
	s.log.Rename(s.key.departed(number))
	d.reserved = s.lastPos + reservedAhead
	s.saveLocked()
	return d
}

// leaveTo makes a session a departure. registry.reg is held, or nobody is served yet.
func (s *session) leaveTo(to string, number uint64) *Departure {
	d := &Departure{b: s.b, s: s, to: to, number: number, more: make(chan struct{}, 1), drained: make(chan struct{}),
		receipts: map[uint64]Receipt{}}
	if s.move == nil {
		s.move = new(move)
	}
	s.move.Departure = d
	s.moving.Store(true)
	b := s.b
	if b.sessions[s.key] == s {
		delete(b.sessions, s.key)
	}
	if b.departures == nil {
		b.departures = map[sessionKey][]*Departure{}
	}
	b.departures[s.key] = append(b.departures[s.key], d)
	return d
}

// setAside keeps who is to be told of an entry that only the log will have.
func (d *Departure) setAside(e *Entry) {
	if e.Msg == nil {
		return
	}
	if e.Receipt != nil {
		d.receipts[e.Pos] = e.Receipt
	}
	d.b.letGo(e)
	e.held = nil
}

// passes reports whether a delivery is not for the session: it has come to where that is too, as what this node's clients publish has, and what was
// matched when everybody knew where it is.
// Where the session has come back here, it puts what it gets itself behind what comes from elsewhere. So until all that was sent
// here has come, that goes the long way too, ahead of what was sent elsewhere later; the session knows it again.
func (d *Departure) passes(e *Entry) bool {
	return e.QoS == 0 || d.over || d.full.Load() || e.recent && e.Alone == "" && d.settled.Load() ||
		d.stopped && (e.mark() == (Mark{}) || d.back.Load() && d.isDrained())
}

// emptyLocked reports whether all of the session is at the other node, but for what may be late. session.mu is held.
func (d *Departure) emptyLocked() bool {
	s := d.s
	return d.isDrained() && d.carrying == 0 && s.waiting == s.zeros && s.joins == 0 && s.move.arriving == nil
}

// NoMore says that nothing can be late any more: what comes here from now on is not for the session.
func (d *Departure) NoMore() { d.full.Store(true) }

// IsBack reports whether the session has come back here.
func (d *Departure) IsBack() bool { return d.back.Load() }

func (d *Departure) isDrained() bool {
	select {
	case <-d.drained:
		return true
	default:
		return false
	}
}

// offer takes a delivery for the session.
func (d *Departure) offer(u *burst, e *Entry) {
	s := d.s
	size := int64(e.Msg.Size())
	switch {
	case s.fullLocked(e.QoS, size), s.overShareLocked(e.QoS):
		d.b.stats.DropQueue.Add(1)
		u.over(s, *e)
		return
	}
	s.count(1, size)
	e.held = nil
	e.Pos = s.nextPos()
	s.spilled++
	if e.Receipt != nil {
		d.receipts[e.Pos] = e.Receipt
	}
	s.log.Append(e)
	u.synced = true
	if a := s.move.arriving; a != nil {
		a.behind(e)
	}
	d.poke()
}

// reservedAhead is for how many entries a departure is saved once.
const reservedAhead = 4096

// nextPos returns the position of the next entry. Who fetches a session knows it by positions, which must not be used again after
// a crash.
func (s *session) nextPos() uint64 {
	s.lastPos++
	if s.move != nil && s.move.Departure != nil && s.lastPos > s.move.reserved {
		s.move.reserved = s.lastPos + reservedAhead
		s.saveLocked()
	}
	return s.lastPos
}

// poke tells who fetches that there may be more.
func (d *Departure) poke() {
	select {
	case d.more <- struct{}{}:
	default:
	}
}

// Stop ends the session's subscriptions: what is published from now on comes to the other node by itself. What was sent here
// before may still come: the channel is closed when the whole swarm knows, and so, with all probability, it has. Of a session that
// has ended it may never be.
func (d *Departure) Stop() (drained <-chan struct{}) {
	s := d.s
	s.mu.Lock()
	if d.stopped || d.over {
		s.mu.Unlock()
		return d.drained
	}
	d.stopped, d.begun = true, true
	stand := s.standingLocked()
	subs := s.subsLocked()
	for _, sub := range subs {
		if sub.share == "" {
			d.late.set(sub)
		}
	}
	s.subs = nil
	s.mu.Unlock()
	d.b.stats.Subscriptions.Add(-int64(len(subs)))
	left := newCountdown(func() {
		close(d.drained)
		d.settle(settleTicks)
	})
	for _, sub := range subs {
		if sub.share != "" {
			d.b.leaveGroup(s, sub)
		}
		d.b.demand(sub.inner, func(dm *demand) { dm.add(sub, stand, -1) }, d.b.untilSwarm(sub.inner, d.goesOn, left.more()))
	}
	left.one()
	return d.drained
}

// settleTicks is for how many seconds what was matched before everybody knew where the session is may be on its way here.
const settleTicks = 5

// settle says in so many seconds, not counting those in which this process hangs, that what is recent was matched when everybody knew where the session
// is.
func (d *Departure) settle(ticks int) {
	if ticks == 0 {
		d.settled.Store(true)
		return
	}
	time.AfterFunc(time.Second, func() { d.settle(ticks - 1) })
}

// goesOn reports whether the session still waits here to be fetched.
func (d *Departure) goesOn() bool {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return !d.over
}

// End forgets the session.
func (d *Departure) End() {
	s, b := d.s, d.b
	s.mu.Lock()
	if d.over {
		s.mu.Unlock()
		return
	}
	d.over = true
	late := d.late
	d.late = nil
	if !s.ended {
		b.stats.Offline.Add(1) // which endLocked takes back
		s.endLocked()
	}
	u := b.begin(time.Now())
	d.forsakeLocked(u)
	d.receipts, d.fetched, s.spilled = nil, nil, 0
	s.mu.Unlock()
	u.end()
	for _, sub := range late {
		b.subs.Delete(sub.inner, s)
	}
	b.reg.Lock()
	ds := slices.DeleteFunc(b.departures[s.key], func(o *Departure) bool { return o == d })
	if b.departures[s.key] = ds; len(ds) == 0 {
		delete(b.departures, s.key)
	}
	b.reg.Unlock()
	b.finish(s)
}

// forsakeLocked has told who waits for what nobody has fetched, whatever process put it into the log, that nobody needs it any more. It lets go of
// session.mu at times: nothing is added.
func (d *Departure) forsakeLocked(u *burst) {
	for after := uint64(0); ; {
		es := d.s.log.Fetch(after, headEntries)
		if len(es) == 0 {
			return
		}
		for _, e := range es {
			after = e.Pos
			if e.Receipt = d.receipts[e.Pos]; e.Receipt == nil {
				d.b.reopen(&e)
			}
			u.over(d.s, e)
		}
		d.s.mu.Unlock()
		u.tell()
		d.s.mu.Lock()
	}
}

// endDepartures forgets the sessions that nobody has fetched within their expiry.
func (b *Broker) endDepartures(now time.Time) {
	b.reg.Lock()
	var old []*Departure
	for _, ds := range b.departures {
		for _, d := range ds {
			d.s.mu.Lock()
			if d.s.expiredLocked(now) {
				old = append(old, d)
			}
			d.s.mu.Unlock()
		}
	}
	b.reg.Unlock()
	for _, d := range old {
		d.End()
	}
}
