package mqttfront

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// newConnection is a CONNECT that is good.
type newConnection struct {
	conn     *conn
	id       string
	clean    bool
	assigned bool // the client ID was made up here
	will     *WillRecord
	asked    uint32 // session expiry, seconds
	expiry   time.Duration
	alone    uint64 // the number that it claims its session under where no other node has been seen; 0: one has
	expects  bool   // alone, and others are known
	connack  func(present bool) []byte
}

// sessionKey is what a session is known by [MQTT-3.1.3-2]: user and client ID, and the mount of its listener if that has
// one, with a zero byte between, which none of them contains.
type sessionKey string

func keyOf(user, clientID string, m mount) sessionKey {
	if m == "" {
		return sessionKey(user + "\x00" + clientID)
	}
	return sessionKey(user + "\x00" + clientID + "\x00" + string(m))
}

// parts returns what keyOf joined.
func (k sessionKey) parts() (user, clientID string, m mount) {
	user, rest, _ := strings.Cut(string(k), "\x00")
	clientID, on, _ := strings.Cut(rest, "\x00")
	return user, clientID, mount(on)
}

func (k sessionKey) mount() mount {
	_, _, m := k.parts()
	return m
}

// standing is what of a session its interest in filters depends on.
type standing struct {
	hold   time.Duration
	online bool
}

// claim is what a CONNECT found under its client ID.
type claim struct {
	s       *session // to be used; its mu is held
	present bool     // s was there before
	over    *session // ended by a clean start; to be finished
	kicked  *conn    // taken over; to be told
}

// claimLocked finds or makes the session of a CONNECT [MQTT-3.1.4-4]. registry.reg is held.
func (b *Broker) claimLocked(nc *newConnection, now time.Time) (cl claim, err error) {
	key := keyOf(nc.conn.who.User, nc.id, nc.conn.mount)
	if s := b.sessions[key]; s != nil {
		s.mu.Lock()
		if !s.ended && !nc.clean && !s.expiredLocked(now) { // [MQTT-3.1.2-5]
			cl = claim{s: s, present: true, kicked: s.conn.Load()}
			if cl.kicked == nil {
				b.stats.Offline.Add(-1)
			}
			return cl, nil
		}
		if !s.ended { // [MQTT-3.1.2-4]
			cl.over, cl.kicked = s, s.conn.Load()
			s.endLocked()
		}
		s.mu.Unlock()
	} else if len(b.sessions) >= b.cfg.MaxSessions {
		return cl, b.manySessions
	}
	cl.s = b.newSession(key) // [MQTT-3.1.2-6]
	if cl.over != nil {
		cl.s.turn = cl.over.turn
	}
	cl.s.mu.Lock()
	cl.s.born = max(rand.Uint64(), 1) //nolint:gosec // not a secret
	if b.roaming != nil {
		cl.s.win.block = 1
	}
	b.sessions[key] = cl.s
	b.partLocked(key)
	b.stats.Sessions.Add(1)
	return cl, nil
}

// attach joins a connection to its session, which is made, resumed or taken over, and answers CONNECT.
func (b *Broker) attach(nc *newConnection) error {
	fetched, err := b.fetch(nc, keyOf(nc.conn.who.User, nc.id, nc.conn.mount))
	if err != nil {
		return err
	}
	defer fetched()
	if nc.roams(b) {
		nc.alone, nc.expects = b.roaming.Alone()
	}
	u := b.begin(time.Now())
	defer u.end()
	b.reg.Lock()
	if b.draining {
		b.reg.Unlock()
		return refuse(ReasonServerUnavailable, "this node is shutting down: %s", errDraining.Text)
	}
	cl, err := b.claimLocked(nc, u.now)
	if err != nil {
		b.reg.Unlock()
		return err
	}
	s := cl.s
	before, willBefore := s.standingLocked(), s.will
	var due *WillRecord // without a delay the will of the connection that is taken over is due [MQTT-3.1.3-9]
	if cl.present && cl.kicked != nil && s.will != nil && s.will.Delay == 0 {
		due, willBefore = s.will, nil
	}
	if err := b.store.Err(); err != nil && nc.expiry > 0 && s.log == nil { // nobody is promised what can't be kept
		nc.expiry = 0
		b.stats.SessionsNotKept.Add(1)
	}
	if s.setRights(b.rightsOf(s)) && cl.present {
		b.rightsVersion.Add(1)
	}
	if nc.alone != 0 {
		s.number = max(s.number+1, nc.alone)
	}
	s.attachLocked(u, nc, cl.present)
	after := s.standingLocked()
	subs := s.subsLocked()
	s.mu.Unlock()
	b.reg.Unlock()

	b.stats.Connected.Add(1)
	if cl.kicked != nil { // [MQTT-3.1.4-3]
		b.stats.Takeovers.Add(1)
		cl.kicked.stop(&Refusal{reasonTakenOver, "by another connection with the same client identifier"})
	}
	if cl.over != nil {
		b.finish(cl.over)
	}
	b.restand(subs, before, after)
	b.armWill(nc.conn, s, nc.will, willBefore)
	if due != nil {
		s.publishWill(due, nil)
	}
	b.settled(nc, s, cl.present)
	return nil
}

// attachLocked makes c the connection of the session. CONNACK goes first, once [MQTT-3.2.0-1] [MQTT-3.2.0-2].
func (s *session) attachLocked(u *burst, nc *newConnection, present bool) {
	c := nc.conn
	s.gen++
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.will, s.leaving = nc.will, nil // [MQTT-3.1.2-7]
	s.version, s.asked, s.since = c.version, nc.asked, time.Time{}
	s.setExpiryLocked(nc.expiry)
	s.saveLocked()
	s.quota, s.resend, s.releases = c.window, 0, nil // [MQTT-4.9.0-1]
	answer := nc.connack(present)
	kept := s.log != nil || s.willLog != nil
	c.mu.Lock()
	c.sess = s
	if kept {
		c.corked = make(chan struct{})
	}
	c.reserveLocked(len(answer))
	c.out.b = append(c.out.b, answer...)
	c.touchLocked(u)
	c.mu.Unlock()
	s.dropAsksLocked()
	s.conn.Store(c)
	s.pumpLocked(u)
}

// setExpiryLocked changes how long the session lives, and with it whether it is kept.
func (s *session) setExpiryLocked(expiry time.Duration) {
	s.expiry = expiry
	switch {
	case expiry > 0 && s.log == nil:
		s.logTo(s.b.store.Create(string(s.key)))
		s.willLog = nil // in its place
		for _, sub := range s.subs {
			s.log.Subscribe(sub.record())
		}
		for id := range s.inbound {
			s.log.Received(id)
		}
		for i := range s.win.n {
			if e := s.win.at(i); e.Msg != nil {
				s.keepLocked(e)
				s.log.Sent(e)
			}
		}
		for i := range s.queue.len() {
			if e := &s.queue.list[s.queue.head+i]; e.QoS > 0 {
				s.keepLocked(e)
			}
		}
	case expiry == 0 && s.log != nil && s.move == nil && s.spilled == 0: // else once it is here, and in memory
		log := s.log
		s.logTo(nil)
		s.saveLocked() // the will
		log.Delete()
	}
}

// logTo has a session be kept in a log; nil: not kept.
func (s *session) logTo(log SessionLog) {
	s.log = log
	s.kept.Store(log != nil)
	if len(s.subs) > 0 {
		s.b.rightsVersion.Add(1) // targets say which sessions are kept
	}
}

func (s *session) keepLocked(e *Entry) {
	s.lastPos++
	e.Pos = s.lastPos
	s.behind = e.Pos
	s.log.Append(e)
}

func (s *session) standingLocked() standing {
	return standing{s.expiry, s.conn.Load() != nil}
}

func (s *session) subsLocked() []*subscription { return slices.Clone(s.subs) }

func (s *session) expiredLocked(now time.Time) bool {
	return s.conn.Load() == nil && !s.since.IsZero() && !now.Before(s.since.Add(s.expiry))
}

// endLocked marks the session as over. Whoever does that calls finish afterwards.
func (s *session) endLocked() {
	s.ended = true
	s.gen++
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.endedOnline = s.conn.Load() != nil
	if s.conn.Swap(nil) == nil {
		s.b.stats.Offline.Add(-1)
	}
}

// detach parts a connection that is over from its session, which goes on if it has an expiry [MQTT-3.1.2-23].
func (b *Broker) detach(c *conn) {
	s := c.sess
	b.stats.Disconnected.Add(1)
	s.mu.Lock()
	if s.conn.Load() != c {
		s.mu.Unlock()
		return
	}
	now := time.Now()
	before := s.standingLocked()
	var off *WillRecord // is not to be sent
	if c.own.bye {
		off, s.will = s.will, nil // [MQTT-3.1.2-8] [MQTT-3.14.4-3]
	}
	if c.own.expiry != nil {
		s.setExpiryLocked(min(time.Duration(*c.own.expiry)*time.Second, b.cfg.MaxSessionExpiry))
	}
	if s.expiry == 0 { // finish has the will forgotten when it is on its way
		s.endLocked()
		s.mu.Unlock()
		b.disarm(s.key, off)
		b.finish(s)
		return
	}
	u := b.begin(now)
	s.gen++
	s.since = now
	s.conn.Store(nil)
	b.stats.Offline.Add(1)
	s.dropAsksLocked()
	s.dropZerosLocked(u)
	var will *WillRecord
	if s.will != nil && s.will.Delay == 0 {
		will = s.leaveLocked()
	}
	s.saveLocked()
	s.armLocked(now, now)
	after := s.standingLocked()
	subs := s.subsLocked()
	waits, expiry := s.will, s.expiry
	s.mu.Unlock()
	b.restand(subs, before, after)
	b.disarm(s.key, off)
	if b.keeping() != nil && waits != nil && waits.Epoch != 0 {
		b.keeping().Arm(string(s.key), waits, expiry, now, nil) // its delay has begun
	}
	s.publishLeaving(will)
	u.end()
	s.keepInSwarm(nil)
}

// dropZerosLocked forgets the QoS 0 messages that are queued: they are for the connection that is over.
func (s *session) dropZerosLocked(u *burst) {
	if s.zeros == 0 {
		return
	}
	for range s.queue.len() {
		if e := s.popLocked(); e.QoS > 0 {
			s.pushLocked(e)
		} else {
			s.overLocked(u, e)
		}
	}
}

// far is from when on an offline session has no timer, which would take a tenth of its memory: armDue comes by in time.
const far = 2 * sweepEvery

// armLocked sets the timer of an offline session for its will, not before some time, or its end, whatever is first, unless
// that is far.
func (s *session) armLocked(now, notBefore time.Time) {
	due := s.since.Add(s.expiry)
	if s.will != nil {
		if d := s.since.Add(s.will.Delay); d.Before(due) {
			due = d
		}
		if due.Before(notBefore) {
			due = notBefore
		}
	}
	if s.timer = nil; due.Sub(now) >= far {
		return
	}
	gen := s.gen
	s.timer = time.AfterFunc(max(due.Sub(now), 0), func() { s.onTimer(gen) })
}

// armDue sets the timers of offline sessions that had none because they were far.
func (b *Broker) armDue(now time.Time) {
	b.endDepartures(now)
	b.reg.Lock()
	defer b.reg.Unlock()
	for _, s := range b.sessions {
		if s.conn.Load() != nil {
			continue
		}
		s.mu.Lock()
		if s.conn.Load() == nil && !s.ended && s.timer == nil {
			s.armLocked(now, now)
		}
		s.mu.Unlock()
	}
}

// onTimer sends a delayed will that is due [MQTT-3.1.2-8], and ends the session when its time is over [MQTT-4.1.0-2]; it does
// nothing once a client is back [MQTT-4.1.0-1].
func (s *session) onTimer(gen uint32) {
	select {
	case <-s.b.stopped:
		return
	default:
	}
	now := time.Now()
	s.mu.Lock()
	if s.gen != gen || s.ended {
		s.mu.Unlock()
		return
	}
	if s.expiredLocked(now) {
		if s.expiry > 0 {
			s.b.stats.SessionsExpired.Add(1)
		}
		s.endLocked()
		s.mu.Unlock()
		s.b.finish(s)
		return
	}
	var will *WillRecord
	if s.will != nil && !now.Before(s.since.Add(s.will.Delay)) {
		will = s.leaveLocked()
	}
	s.armLocked(now, now)
	s.mu.Unlock()
	s.publishLeaving(will)
}

// finish undoes what an ended session has in the broker, and sends its will if that is still to be sent. What its client
// had retained is not the session's [MQTT3-3.1.2-7].
func (b *Broker) finish(s *session) {
	b.reg.Lock()
	if b.sessions[s.key] == s {
		delete(b.sessions, s.key)
	}
	gone := b.sessions[s.key] == nil && b.fetches[s.key] == nil && (s.move == nil || s.move.Departure == nil)
	b.reg.Unlock()
	b.stats.Sessions.Add(-1)
	if gone && b.roaming != nil && !s.key.assigned() {
		b.roaming.End(string(s.key))
	}
	u := b.begin(time.Now())
	s.mu.Lock()
	if s.move != nil && s.move.arriving != nil && s.move.a != nil {
		s.move.a.Close()
	}
	s.dropAsksLocked()
	stood, subs, will := standing{s.expiry, s.endedOnline}, s.subsLocked(), s.will
	s.subs, s.will = nil, nil
	for i := range s.win.n {
		if e := s.win.at(i); e.Msg != nil {
			u.orphan(s, *e)
		}
	}
	for n := 1; s.queue.len() > 0 || s.spilled > 0 && s.fetchLocked(); n++ {
		u.orphan(s, s.popLocked())
		if n%headEntries == 0 { // it may be a long queue; nobody gives the session anything any more
			s.mu.Unlock()
			u.tell()
			s.mu.Lock()
		}
	}
	s.win = window{}
	s.count(-s.waiting, -s.bytes)
	forget := s.keepNoMoreLocked()
	s.mu.Unlock()
	for _, sub := range subs {
		b.unsubscribed(s, sub, stood)
	}
	b.stats.Subscriptions.Add(-int64(len(subs)))
	u.end() // after the session has left its groups
	if will != nil {
		s.publishWill(will, forget)
	} else {
		forget()
	}
}

// orphan deals with a message that its session can't deliver any more. One of a shared subscription goes to
// another member, unless it is QoS 2 and was sent [MQTT-4.8.2-5].
func (u *burst) orphan(s *session, e Entry) {
	u.b.letGo(&e)
	if e.Group != nil && e.QoS > 0 && (e.QoS == 1 || e.State == EntryWaiting || e.fresh) {
		u.redo = append(u.redo, e)
		return
	}
	u.b.stats.DropEnded.Add(1)
	u.over(s, e)
}
