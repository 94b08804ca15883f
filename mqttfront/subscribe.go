package mqttfront

import (
	"slices"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// answer is the SUBACK or UNSUBACK to one packet, until it is written. It is guarded by conn.mu.
type answer struct {
	kind     byte
	packetID uint16
	codes    []byte // one for each filter
	text     string
	asks     []*retainedAsk // may begin once it is written
	left     int            // what it waits for
	local    bool           // a promise is only local
	refused  bool           // it waits for nothing any more
}

// beginAnswer puts an answer to so many filters in its place among the others; it waits for whoever called, at first.
func (c *conn) beginAnswer(kind byte, packetID uint16, filters int) *answer {
	a := &answer{kind: kind, packetID: packetID, codes: make([]byte, filters), left: 1}
	c.mu.Lock()
	c.answers = append(c.answers, a)
	c.openFilters += filters
	c.mu.Unlock()
	return a
}

// waitFor has the answer wait for one thing more.
func (c *conn) waitFor(a *answer) {
	c.mu.Lock()
	a.left++
	c.mu.Unlock()
}

// settle says that one thing is done, and writes the answers whose turn it is.
func (c *conn) settle(a *answer, local bool) {
	var asks []*retainedAsk
	c.mu.Lock()
	a.left--
	a.local = a.local || local
	for len(c.answers) > 0 && (c.answers[0].left == 0 || c.answers[0].refused) {
		first := c.answers[0]
		c.answers = c.answers[1:]
		c.openFilters -= len(first.codes)
		asks = append(asks, first.asks...)
		c.writeAnswerLocked(first)
	}
	if len(c.answers) == 0 {
		c.answers = nil
	}
	c.wakeLocked()
	c.mu.Unlock()
	if len(asks) > 0 {
		c.sess.readyToAsk(asks)
	}
}

// writeAnswerLocked writes a SUBACK or UNSUBACK, of which the latter never has a reason string or user property
// [MQTT-3.11.2-1] [MQTT-3.11.2-2].
func (c *conn) writeAnswerLocked(a *answer) {
	if c.closing {
		return
	}
	var user []packets.UserProperty
	if a.local {
		c.b.stats.PromisesLocal.Add(1)
		user = []packets.UserProperty{{Key: "promise", Val: "local"}}
	}
	packet := c.encodeSuback(a.kind, a.packetID, a.codes, user, a.text)
	if len(packet) > c.maxPacket { // [MQTT-3.9.2-1]
		packet = c.encodeSuback(a.kind, a.packetID, a.codes, user, "")
	}
	if len(packet) > c.maxPacket { // [MQTT-3.9.2-2]
		packet = c.encodeSuback(a.kind, a.packetID, a.codes, nil, "")
	}
	c.reserveLocked(len(packet))
	c.out.b = append(c.out.b, packet...)
	c.touchLocked(nil)
}

// answerFits checks that the answer to a packet with so many filters will not be larger than the client takes, so that
// nothing is done that it cannot be told of [MQTT-3.1.2-24].
func (c *conn) answerFits(filters int) error {
	if body := 3 + filters; c.version == v5 && 1+varintLen(body)+body > c.maxPacket {
		return refuse(reasonPacketTooLarge, "the answer to %d filters is", filters)
	}
	return nil
}

// onSubscribe handles SUBSCRIBE. The answer is written when the swarm has promised every filter [MQTT-3.8.4-1]
// [MQTT-3.8.4-2].
func (c *conn) onSubscribe(u *burst, body []byte) error {
	pk, err := c.b.decode(c.version, typeSubscribe<<4|2, body)
	if err == nil {
		err = c.answerFits(len(pk.Filters))
	}
	if err != nil {
		return err
	}
	a := c.beginAnswer(typeSuback, pk.PacketID, len(pk.Filters))
	codes := make([]byte, len(pk.Filters)) // one for each filter, in order [MQTT-3.8.4-6] [MQTT-3.9.3-1]
	var fresh []*subscription
	var asks []*retainedAsk
	var texts []string          // why, each reason once
	for i := range pk.Filters { // [MQTT-3.8.4-5]
		made, ask, refusal := c.subscribe(&pk.Filters[i], a)
		switch { // [MQTT-3.8.4-7]
		case refusal == nil:
			codes[i] = pk.Filters[i].Qos
		case c.version == v5:
			codes[i] = byte(lawful(typeSuback, refusal.Code))
			if refusal.Text != "" && !slices.Contains(texts, refusal.Text) {
				texts = append(texts, refusal.Text)
			}
		default:
			codes[i] = byte(ReasonUnspecified) // the only one of MQTT 3 [MQTT-3.9.3-2]
		}
		if made != nil {
			fresh = append(fresh, made)
		}
		if ask != nil {
			asks = append(asks, ask)
		}
	}
	c.mu.Lock()
	a.codes, a.asks, a.text = codes, asks, strings.Join(texts, "; ")
	c.mu.Unlock()
	if c.sess.keptNow() {
		c.waitFor(a)
		c.b.syncSoon(func(err error) {
			c.b.storeDone(err)
			if err != nil {
				c.notKept(a, fresh)
				return
			}
			c.settle(a, false)
		})
		c.waitFor(a)
		c.sess.keepInSwarm(func() { c.settle(a, false) })
	}
	c.settle(a, false)
	return nil
}

// notKept says no, in an answer that it settles, to subscriptions that the store could not keep. The new ones among
// them are ended; of the others the store has what was there before.
func (c *conn) notKept(a *answer, fresh []*subscription) {
	code := NotStored.Code
	if c.version < v5 {
		code = ReasonUnspecified
	}
	c.mu.Lock()
	for i := range a.codes {
		if a.codes[i] < byte(ReasonUnspecified) {
			a.codes[i] = byte(code)
		}
	}
	asks := a.asks
	a.asks, a.text = nil, "the subscription cannot be stored; the log of the node says why"
	c.mu.Unlock()
	s := c.sess
	s.mu.Lock()
	s.dropAsksOfLocked(func(ask *retainedAsk) bool { return slices.Contains(asks, ask) })
	s.mu.Unlock()
	refused := func() {
		c.mu.Lock()
		a.refused = true
		c.mu.Unlock()
		c.settle(a, false)
	}
	if !c.b.enter() {
		refused()
		return
	}
	go func() { // the store may wait for who calls this
		defer c.b.wg.Done()
		for _, sub := range fresh {
			c.b.unsubscribe(s, sub.filter, sub)
		}
		refused()
	}()
}

func (s *session) keptNow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log != nil
}

// subscribe makes one subscription. fresh is nil where it takes the place of another. ask, which may be nil, asks for
// its retained messages.
func (c *conn) subscribe(f *packets.Subscription, a *answer) (fresh *subscription, ask *retainedAsk, refusal *Refusal) {
	sub, refusal := c.subscriptionOf(f)
	if refusal != nil {
		return nil, nil, refusal
	}
	if !strings.HasPrefix(sub.inner, "$") && !c.b.swarm.RoomToRegister(sub.inner) {
		c.b.stats.SubsNoRoom.Add(1)
		return nil, nil, errNoRoom
	}
	s := c.sess
	s.mu.Lock()
	old := s.subs.get(sub.filter)
	if old == nil && len(s.subs) >= c.b.cfg.MaxSubscriptions {
		s.mu.Unlock()
		c.b.stats.SubsOverLimit.Add(1)
		return nil, nil, refuse(ReasonQuotaExceeded, "a session has at most %d subscriptions here", c.b.cfg.MaxSubscriptions)
	}
	if old == nil && c.b.strain.critical() {
		s.mu.Unlock()
		c.b.stats.SubsMemory.Add(1)
		return nil, nil, refuse(ReasonQuotaExceeded, "the node has too little memory: subscribe again later")
	}
	if s.conn.Load() != c {
		s.mu.Unlock()
		return nil, nil, refuse(ReasonUnspecified, "another connection has taken the session over")
	}
	sub.later = s.move != nil && s.move.arriving != nil && (old == nil || old.later)
	s.subs.set(sub)
	if s.log != nil {
		s.log.Subscribe(sub.record())
	}
	stand := s.standingLocked()
	if old == nil {
		c.b.stats.Subscriptions.Add(1)
	}
	if sub.share == "" { // in one step, so that no message goes by in between [MQTT-3.8.4-3] [MQTT-3.8.4-4]
		c.b.subs.Set(sub.inner, s, sub)
	}
	s.mu.Unlock()
	if sub.share != "" {
		c.b.joinGroup(s, sub)
	}
	c.waitFor(a)
	c.b.demand(sub.inner, func(d *demand) {
		if old != nil {
			d.add(old, stand, -1)
		}
		d.add(sub, stand, 1)
	}, func(p Promise) { c.settle(a, p == PromiseLocal) })
	// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
	if sub.share == "" && (f.RetainHandling == 0 || f.RetainHandling == 1 && old == nil) {
		ask = s.willAsk(c, sub, old)
	}
	if old == nil {
		fresh = sub
	}
	return fresh, ask, nil
}

// subscriptionOf checks a filter, and makes the subscription to it.
func (c *conn) subscriptionOf(f *packets.Subscription) (*subscription, *Refusal) {
	filter := strings.Clone(f.Filter) // which lies in a copy of the packet
	share, inner, err := topic.ParseShare(filter)
	if inner = c.mount.on(inner); err == nil {
		err = topic.ValidFilter(inner, c.b.cfg.Topics)
	}
	if err != nil {
		c.b.stats.SubsInvalid.Add(1)
		return nil, refuse(reasonFilterInvalid, "%v", err)
	}
	if namesUser(inner) {
		err = errUsers
	} else if g := c.sess.grant.Load(); g != nil && !g.CanSubscribe(inner) {
		err = errMayNotSubscribe
	}
	if err != nil {
		c.b.stats.SubsDenied.Add(1)
		return nil, asRefusal(err, ReasonNotAuthorized)
	}
	return &subscription{
		filter: filter, share: share, inner: inner, id: uint32(f.Identifier), qos: f.Qos,
		noLocal: f.NoLocal || c.bridge && share == "", retainAsPublished: f.RetainAsPublished || c.bridge,
	}, nil
}

func (sub *subscription) record() SubscriptionRecord {
	return SubscriptionRecord{Filter: sub.filter, ID: sub.id, QoS: sub.qos, NoLocal: sub.noLocal, RetainAsPublished: sub.retainAsPublished, Later: sub.later}
}

// onUnsubscribe handles UNSUBSCRIBE: filters are compared as they are, each by itself, and what was sent goes on to its
// end [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6].
func (c *conn) onUnsubscribe(u *burst, body []byte) error {
	pk, err := c.b.decode(c.version, typeUnsubscribe<<4|2, body)
	if err == nil {
		err = c.answerFits(len(pk.Filters))
	}
	if err != nil {
		return err
	}
	a := c.beginAnswer(typeUnsuback, pk.PacketID, len(pk.Filters))
	codes := make([]byte, len(pk.Filters)) // [MQTT-3.11.3-1]
	for i := range pk.Filters {
		if !c.b.unsubscribe(c.sess, pk.Filters[i].Filter, nil) {
			codes[i] = byte(reasonNoSubscription)
		}
	}
	c.mu.Lock()
	a.codes = codes
	c.mu.Unlock()
	c.waitFor(a)
	c.sess.keepInSwarm(func() { c.settle(a, false) })
	c.settle(a, false)
	return nil
}

// unsubscribe ends the subscription to a filter, and reports whether there was one; with only, no other than that.
func (b *Broker) unsubscribe(s *session, filter string, only *subscription) bool {
	s.mu.Lock()
	sub := s.subs.get(filter)
	if sub == nil || only != nil && sub != only {
		s.mu.Unlock()
		return false
	}
	s.subs.remove(filter)
	if s.log != nil {
		s.log.Unsubscribe(filter)
	}
	stand := s.standingLocked()
	s.dropAsksOfLocked(func(a *retainedAsk) bool { return a.sub.filter == filter })
	if sub.share == "" {
		b.subs.Delete(sub.inner, s)
	}
	s.mu.Unlock()
	b.stats.Subscriptions.Add(-1)
	b.unsubscribed(s, sub, stand)
	return true
}
