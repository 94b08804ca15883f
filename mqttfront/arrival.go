package mqttfront

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// arriving is what a session needs to know that comes from another node. What waited there comes first, at its old positions;
// what comes to this node meanwhile waits behind it in the log. What both nodes have had goes to the client once, in the
// other's order.
type arriving struct {
	Arriving
	a   Arrival
	own map[Mark]Entry // of this node's own deliveries, while they wait
	// idle is since when nothing has come from the other node, where all that waited there has, or is lost; zero: some of it is still to come.
	idle time.Time
}

// joinIdle is for how long a session to which nothing comes any more from the node that had it waits for that to be over, before other parts
// of it are joined with it: that node may be lost, or wait for one that is. Where it comes back after all some of what it knows the session to have had may
// come twice.
const joinIdle = time.Minute

// joinable reports whether other parts of a session may be joined with it while it comes from another node.
func (a *arriving) joinable(now time.Time) bool {
	return !a.idle.IsZero() && now.Sub(a.idle) > joinIdle
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
	s := &session{b: b, key: key, number: h.From.Number}
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
	s.subscribeAll(h.Record.Subs, h.From.lost(), known.more())
	s.tellArrived(h.From.Drained, within(passedPatience, known.more()))
	known.one()
	b.reg.Lock()
	for _, d := range b.departures[key] {
		d.back.Store(true)
	}
	b.reg.Unlock()
	b.stats.Arrivals.Add(1)
	b.wg.Go(func() { s.runArrival(ended) })
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

// subscribeAll gives a session that has come back, or from elsewhere, its subscriptions, and calls done, unless it is nil, when
// all are promised. from is the node, if any, to which was sent what they brought before, and which is lost with it.
func (s *session) subscribeAll(recs []SubscriptionRecord, from Lost, done func()) {
	s.mu.Lock()
	var subs []*subscription
	for _, r := range recs {
		if sub := s.subscribeLocked(r); sub != nil {
			subs = append(subs, sub)
		}
	}
	stand := s.standingLocked()
	s.mu.Unlock()
	s.want(subs, stand, from, done)
}

// What is ours to tune.
const (
	// promiseAgain is when a promise for the whole swarm is asked for again where there was none, promiseAgainMost when later on, and promisePatience
	// for how long: what others keep for a node that they have not reached for that long is dropped.
	promiseAgain     = 2 * time.Second
	promiseAgainMost = 30 * time.Second
	promisePatience  = 7 * 24 * time.Hour
	// passedPatience is for how long the node that a session comes from is not told of that because something that was published here before is still on
	// its way: a rendezvous that does not answer for so long is replaced, or will be.
	passedPatience = 15 * time.Second
)

// within has something called once, after a time at the latest.
func within(d time.Duration, f func()) func() {
	var once sync.Once
	t := time.AfterFunc(d, func() { once.Do(f) })
	return func() {
		t.Stop()
		once.Do(f)
	}
}

// promised returns what counts down when the swarm has promised a subscription, or the session has it no more. As long as that holds for the
// nodes in reach alone, others may know of the node alone that the session comes from.
func (s *session) promised(sub *subscription, left *countdown) func(Promise) {
	if left.done == nil {
		return nil
	}
	return s.b.untilSwarm(sub.inner, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.ended && s.subs.get(sub.filter) == sub
	}, left.more())
}

// untilSwarm returns what takes the swarm's answer to a demand for a filter, and asks again until that is for the whole swarm, or nobody cares
// any more. Then it calls done.
func (b *Broker) untilSwarm(filter string, cares func() bool, done func()) func(Promise) {
	until, pause := time.Now().Add(promisePatience), promiseAgain
	var told func(Promise)
	told = func(p Promise) {
		if p == PromiseSwarm || time.Now().After(until) {
			done()
			return
		}
		time.AfterFunc(pause, func() {
			select {
			case <-b.stopped:
				return
			default:
			}
			if !cares() {
				done()
				return
			}
			b.demand(filter, func(*demand) {}, told)
		})
		pause = min(2*pause, promiseAgainMost)
	}
	return told
}

// subscribeLocked gives a session a subscription that it has not, and returns it, to be wanted; nil if it is none.
func (s *session) subscribeLocked(r SubscriptionRecord) *subscription {
	share, inner, err := topic.ParseShare(r.Filter)
	if err != nil {
		return nil
	}
	inner = s.key.mount().on(inner)
	sub := &subscription{filter: r.Filter, share: share, inner: inner, id: r.ID, qos: r.QoS,
		noLocal: r.NoLocal, retainAsPublished: r.RetainAsPublished, later: r.Later}
	s.subs.set(sub)
	if share == "" {
		s.b.subs.Set(inner, s, sub)
	}
	s.b.stats.Subscriptions.Add(1)
	return sub
}

// want tells the swarm of subscriptions that were made when the session stood as it says. from and done are those of subscribeAll: what
// that node was sent is not for those that were made since.
func (s *session) want(subs []*subscription, stand standing, from Lost, done func()) {
	left := newCountdown(done)
	for _, sub := range subs {
		if sub.share != "" {
			s.b.joinGroup(s, sub)
		}
		s.b.demand(sub.inner, func(d *demand) {
			d.add(sub, stand, 1)
			d.owe(s, sub, from)
		}, s.promised(sub, left))
	}
	left.one()
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
	u.over(*e)
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
		if a.Drained {
			a.idle = time.Now()
		}
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

// runArrival takes over what another node has of a session, until there is nothing more. ended says that it is so already.
func (s *session) runArrival(ended bool) {
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
			s.loseRest()
		}
		s.answer(a.a, got.Doubted)
		if last > 0 {
			upto = last
			safe(upto)
		}
		ended = got.End
	}
	s.endArrival()
}

// loseRest has a session want what was sent to the node that it comes from, and has not come before that was lost.
func (s *session) loseRest() {
	s.mu.Lock()
	if s.move == nil || s.move.arriving == nil || s.ended {
		s.mu.Unlock()
		return
	}
	from, subs := s.move.lost(), s.subsLocked()
	s.mu.Unlock()
	for _, sub := range subs {
		s.b.demand(sub.inner, func(d *demand) { d.owe(s, sub, from) }, nil)
	}
	s.tellArrived(true, nil)
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
	for _, sub := range subs {
		s.b.demand(sub.inner, func(*demand) {}, s.promised(sub, known))
	}
	s.tellArrived(from.Drained, within(passedPatience, known.more()))
	known.one()
	s.b.wg.Go(func() { s.runArrival(false) })
}
