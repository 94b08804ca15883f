package mqttfront

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// session is what the broker keeps for a client ID: subscriptions, and the messages on their way to the client.
type session struct {
	b       *Broker
	key     sessionKey
	number  uint64                // of the claim that it came by, or that was made alone; 0: it began here
	conn    atomic.Pointer[conn]  // nil: offline; written with mu held
	asking  atomic.Bool           // len(asks) > 0
	grant   atomic.Pointer[grant] // what the client may do; nil: everything
	moving  atomic.Bool           // move is set, or parted: what it gets has an identity
	kept    atomic.Bool           // log is set
	ordered atomic.Bool           // QoS 0 messages are queued, behind which others must wait
	// turn is held while something that came on its connection is handled, so that it is behind what is handled of a connection before. A session
	// that begins in the place of another has the same.
	turn *sync.Mutex

	mu sync.Mutex
	sessionState
}

// sessionState is guarded by session.mu.
type sessionState struct {
	gen    uint32        // rises when a connection comes or goes; what a timer was set for is stale then
	asked  uint32        // the session expiry that CONNECT asked for, in seconds
	expiry time.Duration // the one in force; 0: the session ends with its connection
	since  time.Time     // when the connection was lost
	timer  *time.Timer   // for will or expiry, while offline and one of them is near
	subs   subscriptions
	log    SessionLog // nil: not kept
	wills
	status  *proto.Message // what the client had retained last under the topic of its will; nil: nothing since this process was started
	version byte           // of the protocol that the client spoke last
	born    uint64         // tells it from others under its key; 0: not known

	queue   fifo   // what waits to be sent
	spilled int    // entries behind queue that only the log has
	behind  uint64 // position of the last entry that left the log for queue or window
	lastPos uint64
	waiting int   // entries in queue, spilled and window
	bytes   int64 // of those in memory and in the log
	zeros   int   // QoS 0 entries in queue

	move *move // nil: all of it is here
	// What came here, and what came before at other nodes, while the one may come again by the other; nil: nothing can.
	had, before *marks
	parted      bool // it has begun, or gone on, without what may be elsewhere; had and before are set
	joins       int  // parts that come from elsewhere beside the move
	marked      int  // runs that the log was told of
	hadSince    int  // rises when had is needed for longer

	win         window
	quota       int    // how many more the connection may be sent
	begun, safe uint64 // of what the log was told the store is asked to make safe, and has
	syncs       bool   // it is about to be asked again
	roomless    bool   // the store has no room for what becomes of more of the queue, and tells when it has
	short       bool   // there is little memory for more of the queue; it is in Broker.shorts
	releases    []released
	resend      int // places of win before it have been sent on this connection
	inbound     map[uint16]inbound

	asks     []*retainedAsk // as their SUBACKs go out
	openAsks int32          // asked, and not through, of connections before too
	runsAsks bool           // somebody asks
	asksWait bool           // more is asked once the client has taken what waits for it

	ended       bool
	endedOnline bool // it had a connection then
}

func (b *Broker) newSession(key sessionKey) *session {
	return &session{b: b, key: key, turn: new(sync.Mutex)}
}

// handled waits until nothing is handled any more of what came on a connection that the session had.
func (s *session) handled() {
	s.turn.Lock()
	defer s.turn.Unlock()
}

// headEntries is how much of a kept session's queue is in memory at most; the rest is in its log.
const headEntries = 2048

// offer gives a message to the session: sent at once if the client can take it, queued otherwise.
func (s *session) offer(u *burst, e Entry) {
	s.mu.Lock()
	s.offerLocked(u, &e)
	s.mu.Unlock()
}

func (s *session) offerLocked(u *burst, e *Entry) {
	size := int64(e.Msg.Size())
	if s.ended {
		s.b.stats.DropEnded.Add(1)
		u.over(s, *e)
		return
	}
	m := s.move
	gone := m != nil && m.Departure != nil
	if gone && m.passes(e) { // and so it has not had it
		u.over(s, *e)
		return
	}
	if s.cameLocked(u, e) {
		return
	}
	if gone {
		m.offer(u, e)
		return
	}
	if e.QoS == 0 && s.conn.Load() == nil {
		u.over(s, *e)
		return
	}
	if s.fullLocked(e.QoS, size) {
		s.b.stats.DropQueue.Add(1)
		u.over(s, *e)
		return
	}
	switch {
	case s.overShareLocked(e.QoS):
		s.b.stats.DropQueues.Add(1)
		u.over(s, *e)
		return
	case e.QoS == 0 && s.waiting > 0 && s.b.strain.tight():
		s.b.stats.DropMemory.Add(1)
		u.over(s, *e)
		return
	}
	s.count(1, size)
	kept := s.keeps(e.QoS)
	if kept {
		s.lastPos++
		e.Pos = s.lastPos
		u.synced = true
		spills := s.spilled > 0 || s.queue.len() >= headEntries || s.waitsElsewhereLocked()
		if spills || s.move != nil && s.move.arriving != nil {
			u.part(e)
		}
		spills = s.move != nil && s.move.behind(e) || spills
		s.log.Append(e)
		if spills {
			s.spilled++
			return
		}
		s.b.reopen(e)
	}
	s.b.hold(e)
	s.behind = max(s.behind, e.Pos)
	if s.queue.len() == 0 && (s.resend == s.win.n || s.pausedLocked()) {
		if done := s.sendLocked(u, e); done {
			return
		}
	}
	s.pushLocked(*e)
}

// part has an entry that comes to wait on the disk alone be told of by a receipt of its own, which is made of its mark when it comes
// from there: the delivery is not done before.
func (u *burst) part(e *Entry) {
	if e.Receipt == nil || e.Receipt.Mark() == (Mark{}) {
		return
	}
	e.Receipt.More()
	u.over(nil, *e)
	e.Mark, e.Receipt = e.Receipt.Mark(), nil
}

func (s *session) count(n int, bytes int64) {
	s.waiting += n
	s.bytes += bytes
	s.b.stats.QueuedMessages.Add(int64(n))
	s.b.stats.QueuedBytes.Add(bytes)
}

func (s *session) pushLocked(e Entry) {
	s.queue.push(e)
	if e.QoS == 0 {
		s.zeros++
		s.ordered.Store(true)
	}
}

// popLocked takes the first entry off the queue.
func (s *session) popLocked() Entry {
	e := *s.queue.front()
	s.queue.pop()
	if e.QoS == 0 {
		if s.zeros--; s.zeros == 0 {
			s.ordered.Store(false)
		}
	}
	return e
}

// overLocked accounts for an entry that is neither in queue nor in window any more.
func (s *session) overLocked(u *burst, e Entry) {
	s.count(-1, -int64(e.Msg.Size()))
	s.b.letGo(&e)
	if s.asksWait && !s.behindLocked() {
		s.asksWait = false
		u.asks = append(u.asks, s)
	}
	gone := s.move != nil && s.move.Departure != nil
	if s.log != nil && e.Pos > 0 {
		// What is published at QoS 2, at whatever QoS it had it: by the time that it comes again the subscription may be one of QoS 2. And
		// all, while a node is asked for what was sent to it: that is sent what comes here too, and is waited for for days.
		asks := s.move != nil && s.move.arriving != nil
		if m := e.mark(); s.had != nil && (e.Msg.QoS == 2 || asks) && m != (Mark{}) && !gone {
			s.markLocked(m)
		}
		s.log.Remove(&e)
	}
	if e.Alone != "" && e.Receipt != nil && !gone {
		u.receipts = append(u.receipts, told{e.Receipt, s, true})
		return
	}
	u.over(s, e)
}

// over has the receipt of an entry told that a session does not need it any more; nil: it does, and has another for it.
func (u *burst) over(s *session, e Entry) {
	if e.Receipt != nil {
		if e.Group != nil || e.Alone != "" {
			s = nil // see tally.held
		}
		u.receipts = append(u.receipts, told{e.Receipt, s, false})
	}
}

// sendLocked tries to send an entry that is in no queue. It returns false when it has to wait.
func (s *session) sendLocked(u *burst, e *Entry) bool {
	c := s.conn.Load()
	if c == nil {
		return false
	}
	if e.Msg.Expired(u.now) { // [MQTT-3.3.2-5]
		s.b.stats.DropExpired.Add(1)
		s.overLocked(u, *e)
		return true
	}
	behind := s.win.n - s.resend // entries that wait until they are safe
	safely := e.QoS == 2 && e.Pos > 0 && s.log != nil
	if behind > 0 && !safely {
		return false
	}
	if e.QoS > 0 {
		if s.quota <= behind { // [MQTT-3.3.4-9] [MQTT-4.9.0-2]
			return false
		}
		if e.PacketID = s.win.next(); e.PacketID == 0 { // [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]
			return false
		}
	}
	if safely {
		e.State, e.fresh = EntrySent, true
		s.log.Sent(e)
		s.waitSafeLocked(u, e)
		s.win.push(*e)
		return true
	}
	switch c.transmit(u, e, false) { // without DUP [MQTT-3.3.1-3] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
	case sentNot:
		e.PacketID = 0
		return false
	case sentTooLarge:
		s.b.stats.DropTooLarge.Add(1)
		s.overLocked(u, *e)
		return true
	}
	u.sent[e.QoS].add(e.Msg)
	if e.QoS == 0 {
		s.overLocked(u, *e)
		return true
	}
	e.State = EntrySent
	s.win.push(*e)
	s.resend = s.win.n
	s.quota--
	if s.log != nil {
		s.log.Sent(e)
	}
	return true
}

type sent byte

const (
	sentYes sent = iota
	sentNot      // no room now
	sentTooLarge
)

// transmit appends a PUBLISH to what waits for the client.
func (c *conn) transmit(u *burst, e *Entry, dup bool) sent {
	o := outgoing{topic: c.mount.off(e.Msg.Topic), version: c.version, qos: e.QoS, dup: dup, retain: e.Retain, packetID: e.PacketID, ids: e.IDs}
	o.expires(e.Msg, u.now)
	size := o.size(e.Msg)
	if size > c.maxPacket { // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
		return sentTooLarge
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return sentNot
	}
	switch p := c.pendingLocked(); {
	case p == 0:
		if !c.claimLocked(size + 3) {
			c.b.crowd.starveLocked(c)
			return sentNot
		}
	case p >= highWater, !c.b.crowd.takes(p, 0):
		c.pump = true
		return sentNot
	}
	c.reserveLocked(size + 3)
	if size+3 <= c.maxPacket {
		c.aliasLocked(&o, e.Msg.Topic)
	}
	c.out.b = appendPublish(c.out.b, &o, e.Msg)
	c.touchLocked(u)
	return sentYes
}

// pumpLocked sends what waits, as far as the client can take it: first again what a connection before had sent,
// in its order [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-4.8.2-4], then the queue.
func (s *session) pumpLocked(u *burst) {
	c := s.conn.Load()
	if c == nil {
		return
	}
	for s.resend < s.win.n {
		if e := s.win.at(s.resend); e.Msg == nil {
			s.resend++
		} else if !s.safeLocked(e) {
			break
		} else if !s.resendLocked(u, c, e) {
			return
		}
	}
	for {
		if s.queue.len() == 0 && !s.fetchLocked() {
			return
		}
		e := *s.queue.front()
		if !s.mayReceive(e.Msg.Topic) { // any more
			s.b.stats.DeliveriesDenied.Add(1)
			s.overLocked(u, e)
		} else if !s.sendLocked(u, &e) {
			return
		}
		s.popLocked()
	}
}

// pausedLocked reports whether all that keeps the session from sending is that its entries are not safe yet.
func (s *session) pausedLocked() bool {
	if s.resend >= s.win.n {
		return false
	}
	e := s.win.at(s.resend)
	return e.Msg != nil && !s.safeLocked(e)
}

// resendLocked sends an entry that has a packet ID: for the first time, or again what a connection before has sent. It returns
// false when there is no room.
func (s *session) resendLocked(u *burst, c *conn, e *Entry) bool {
	if e.State == EntryReleased { // [MQTT-4.3.3-5] [MQTT-4.3.3-6]
		c.mu.Lock()
		c.appendAckLocked(typePubrel, e.PacketID, reasonSuccess, "")
		c.mu.Unlock()
		s.resend++
		return true
	}
	if (e.QoS == 1 || e.fresh) && e.Msg.Expired(u.now) { // not QoS 2 that was sent [MQTT-4.3.3-7]
		s.b.stats.DropExpired.Add(1)
		s.dropSentLocked(u, e)
		return true
	}
	if !s.mayReceive(e.Msg.Topic) {
		s.b.stats.DeliveriesDenied.Add(1)
		s.dropSentLocked(u, e)
		return true
	}
	if s.quota <= 0 {
		return false
	}
	switch c.transmit(u, e, !e.fresh) { // [MQTT-3.3.1-1]
	case sentNot:
		return false
	case sentTooLarge:
		s.b.stats.DropTooLarge.Add(1)
		s.dropSentLocked(u, e)
		return true
	}
	if e.fresh {
		e.fresh = false
		u.sent[e.QoS].add(e.Msg)
	} else {
		s.b.stats.Retransmitted.Add(1)
	}
	s.quota--
	s.resend++
	return true
}

// dropSentLocked takes an entry out of the window.
func (s *session) dropSentLocked(u *burst, e *Entry) {
	s.overLocked(u, *e)
	s.resend = max(0, s.resend-s.win.remove(e))
}

// fetchLocked gets more of the queue from the log.
func (s *session) fetchLocked() bool {
	if s.spilled == 0 {
		return false
	}
	n := s.fetchesLocked()
	if n == 0 {
		return false
	}
	for _, e := range s.fetchableLocked(s.log.Fetch(s.behind, min(n, s.spilled))) {
		s.b.reopen(&e)
		s.b.holdFetched(&e)
		s.pushLocked(e)
		s.behind = e.Pos
		s.spilled--
	}
	if s.queue.len() == 0 && s.move == nil {
		s.spilled = 0 // the log has lost them
	}
	if s.spilled == 0 && s.expiry == 0 && !s.ended {
		s.setExpiryLocked(0) // it was kept for what waited there alone
	}
	return s.queue.len() > 0
}

// fetchableLocked leaves out what may not go to the client yet.
func (s *session) fetchableLocked(es []Entry) []Entry {
	if s.move == nil || s.move.arriving == nil {
		return es
	}
	for len(es) > 0 && es[len(es)-1].Pos > s.move.limit() {
		es = es[:len(es)-1]
	}
	return es
}

// reopen gives an entry that an earlier process has left who is to be told when it is over.
func (b *Broker) reopen(e *Entry) {
	if e.Receipt == nil && e.Mark != (Mark{}) {
		t := &tally{r: b.swarm.Receipt(e.Mark), again: true}
		t.n.Store(1)
		e.Receipt = t
	}
}

// pumpNow is pumpLocked for a goroutine without a burst.
func (s *session) pumpNow() {
	u := s.b.begin(time.Now())
	s.mu.Lock()
	s.pumpLocked(u)
	s.mu.Unlock()
	u.end()
}
