package mqttfront

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// onPublish handles a PUBLISH: packet is all of it, body what follows the fixed header.
func (c *conn) onPublish(u *burst, packet, body []byte) error {
	p := &c.own.pub
	var err error
	if c.own.scratch, err = decodePublish(p, c.version, packet[0], body, c.own.scratch); err != nil {
		return err
	}
	sl, err := c.topicOf(p)
	if err != nil {
		return err
	}
	u.received[p.qos].messages++
	u.received[p.qos].payload += uint64(len(p.payload))
	var refusal error
	switch {
	case sl.kind == kindUsers:
		refusal = errUsers
	case !c.mayPublish(sl):
		c.b.stats.PubsDenied.Add(1)
		refusal = errMayNotPublish
	case p.qos > 0 && sl.kind == kindSwarm && !c.b.swarm.Room(sl.topic):
		refusal = errNoRoom
	case p.qos > 0 && c.version == v5 && c.b.store.Err() != nil: // MQTT 3 has no word for that: it waits for its acknowledgement
		refusal = NotStored
	}
	if p.qos > 0 {
		return c.publishKept(u, p, sl, refusal)
	}
	if refusal != nil {
		c.b.stats.Refused.Add(1)
		return nil
	}
	m := c.message(u, p, sl)
	c.noteStatus(&m.Message)
	if c.version < v5 && packet[0] == typePublish<<4 && len(packet)-len(body) == 1+varintLen(len(body)) && c.mount == "" {
		m.packet = packet
	} else {
		m.packet = nil
	}
	switch sl.kind {
	case kindLocal:
		c.b.retainLocalOrClear(m)
		u.serveLocal(m)
	case kindSwarm:
		detour := u.detours(&m.Message)
		if !detour {
			u.serve(m, c.b.targets(sl))
		}
		if detour || m.Retain || c.b.swarm.Wanted(sl.topic) {
			u.out(m, c, detour)
		}
	}
	m.keep, m.packet = nil, nil
	return nil
}

// topicOf resolves the topic of a PUBLISH [MQTT-3.3.2-7] [MQTT-3.3.2-12].
func (c *conn) topicOf(p *publish) (*slot, error) {
	own := &c.own
	if c.mount != "" && len(p.topic) > 0 {
		own.mounted = c.mount.appendOn(own.mounted[:0], p.topic)
		p.topic = own.mounted
	}
	if !p.hasAlias {
		if own.last != nil && own.last.topic == string(p.topic) {
			return own.last, nil
		}
		if len(p.topic) == 0 {
			return nil, refuse(reasonProtocolError, "PUBLISH without a topic")
		}
		sl, err := c.b.slotOf(p.topic)
		if err != nil {
			return nil, refuse(reasonTopicInvalid, "%v", err)
		}
		own.last = sl
		return sl, nil
	}
	if p.alias == 0 || int(p.alias) > c.b.cfg.TopicAliasMaximum { // [MQTT-3.3.2-8] [MQTT-3.3.2-9]
		if c.b.cfg.TopicAliasMaximum == 0 {
			return nil, refuse(reasonTopicAlias, "none are taken here")
		}
		return nil, refuse(reasonTopicAlias, "%d, 1 to %d are taken here", p.alias, c.b.cfg.TopicAliasMaximum)
	}
	i := int(p.alias) - 1
	if len(p.topic) == 0 {
		if i >= len(own.aliases) || own.aliases[i] == nil {
			return nil, refuse(reasonTopicAlias, "%d was never set on this connection", p.alias)
		}
		return own.aliases[i], nil
	}
	sl, err := c.b.slotOf(p.topic)
	if err != nil {
		return nil, refuse(reasonTopicInvalid, "%v", err)
	}
	for len(own.aliases) <= i {
		own.aliases = append(own.aliases, nil)
	}
	own.aliases[i] = sl
	return sl, nil
}

// message returns a PUBLISH as a message that is still in the read buffer.
func (c *conn) message(u *burst, p *publish, sl *slot) *outMessage {
	m := &c.own.msg
	m.Message = proto.Message{Topic: sl.topic, Payload: p.payload, Properties: p.props, QoS: p.qos, Retain: p.retain}
	if p.hasExpiry { // 0 is for those who are there, wherever in the swarm they are: 1 s takes it to them
		m.Expires = u.now.Add(time.Duration(max(p.expiry, 1)) * time.Second)
	}
	m.keep, m.slot, m.from, m.tally, m.holding = nil, sl, c.sess, nil, nil
	return m
}

// publishKept handles a QoS 1 or 2 message. A packet ID of QoS 1 is nothing to remember [MQTT-4.3.2-5].
func (c *conn) publishKept(u *burst, p *publish, sl *slot, refusal error) error {
	var log SessionLog
	if p.qos == 2 {
		fresh, err := c.received2(p.packetID)
		if !fresh || err != nil {
			return err
		}
		log = c.sess.keptIn()
	}
	c.mu.Lock()
	if p.qos == 2 {
		c.acks.open2++
	}
	over := c.version == v5 && c.acks.open1+c.acks.open2 >= c.b.cfg.ReceiveMaximum+int(p.qos-1)
	c.mu.Unlock()
	if over { // [MQTT-3.3.4-7]
		if p.qos == 2 {
			c.sess.forget(p.packetID) // it is not published
		}
		return refuse(reasonReceiveMaximum, "at most %d messages may be without an acknowledgement", c.b.cfg.ReceiveMaximum)
	}
	c.own.eases = c.own.eases || c.b.strain.critical()
	_ = c.waitForRoom(u, typePublish) // it is noted as received, and goes on even where the connection does not
	w := ackWait{packetID: p.packetID, qos: p.qos, size: len(p.payload), stored: true}
	if refusal != nil || sl.kind == kindSilent {
		c.pushAck(w)
		u.accepts = append(u.accepts, accepted{p.packetID, refusal})
		return nil
	}
	m := c.message(u, p, sl)
	c.noteStatus(&m.Message)
	m.packet = nil
	keep := m.owned()
	if sl.kind == kindLocal && !c.b.retainLocal(m) {
		if c.version == v5 {
			c.pushAck(w)
			u.accepts = append(u.accepts, accepted{p.packetID, c.b.localFull})
			m.keep = nil
			return nil
		}
		c.b.local.clear(m.Topic)
	}
	id := p.packetID
	if sl.kind == kindLocal {
		c.acceptAfter(u, w, func() {
			u.synced = m.Retain
			if log == nil {
				u.serveLocal(m)
				return
			}
			c.b.store.Together(func() {
				log.Received(id)
				u.serveLocal(m)
			})
			u.synced = true
		})
		u.accepts = append(u.accepts, accepted{id, nil})
		m.keep = nil
		return nil
	}
	o := Outgoing{Msg: keep, Origin: c, PacketID: id, ServedHere: !u.detours(keep)}
	switch to := c.b.targets(sl); {
	case log != nil:
		o.Note = func() { log.Received(id) }
		o.ServeHere = o.ServedHere && len(to.targets) > 0
		o.ServedHere = o.ServedHere && !o.ServeHere
		c.pushAck(w)
	case o.ServedHere && len(to.targets) > 0 && (c.own.served || to.moving || to.kept && c.b.roams()):
		// With its identity, by which a session knows what it has had at another node; and kept elsewhere too. What the connection publishes
		// later goes the same way, and does not overtake it.
		c.own.served = true
		o.ServeHere, o.ServedHere = true, false
		c.pushAck(w)
	case o.ServedHere:
		c.acceptAfter(u, w, func() { u.serve(m, to) })
	default:
		c.pushAck(w)
	}
	u.batch = append(u.batch, o)
	m.keep = nil
	return nil
}

// acceptAfter serves a message, which is acknowledged when what it waits in is safe.
func (c *conn) acceptAfter(u *burst, w ackWait, serve func()) {
	before := u.synced
	u.synced = false
	serve()
	w.stored = !u.synced
	u.synced = u.synced || before
	c.pushAck(w)
}

// inbound is a QoS 2 message from the client whose exchange is not over.
type inbound struct {
	accepted bool  // PUBREC may go out
	by       *conn // that counts it
}

// received2 notes a QoS 2 message. fresh is false for one that came before [MQTT-4.3.3-10] [MQTT-4.3.3-12].
func (c *conn) received2(packetID uint16) (fresh bool, err error) {
	s := c.sess
	s.mu.Lock()
	defer s.mu.Unlock()
	in, ok := s.inbound[packetID]
	if !ok {
		if s.inbound == nil {
			s.inbound = make(map[uint16]inbound)
		}
		s.inbound[packetID] = inbound{by: c}
		return true, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.by != c {
		in.by = c
		s.inbound[packetID] = in
		c.acks.open2++
		if c.version == v5 && c.acks.open1+c.acks.open2 > c.b.cfg.ReceiveMaximum {
			return false, refuse(reasonReceiveMaximum, "at most %d messages may be without an acknowledgement", c.b.cfg.ReceiveMaximum)
		}
	}
	if in.accepted {
		c.appendAckLocked(typePubrec, packetID, reasonSuccess, "")
	}
	return false, nil
}

// keptIn returns the session's log, nil where it is not kept.
func (s *session) keptIn() SessionLog {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log
}

func (s *session) forget(packetID uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetInboundLocked(packetID)
}

func (s *session) forgetInboundLocked(packetID uint16) {
	delete(s.inbound, packetID)
	if len(s.inbound) == 0 {
		s.inbound = nil
	}
	if s.log != nil {
		s.log.Released(packetID)
	}
}

// onPubrel ends the exchange of a QoS 2 message from the client [MQTT-4.3.3-11], expired or not [MQTT-4.3.3-13]. That it is
// over has to be safe before the client may use its packet ID for another.
func (c *conn) onPubrel(u *burst, a ack) {
	s := c.sess
	s.mu.Lock()
	in, ok := s.inbound[a.packetID]
	ok = ok && in.accepted
	if ok {
		s.forgetInboundLocked(a.packetID)
	}
	kept := s.log != nil
	s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !ok {
		c.appendAckLocked(typePubcomp, a.packetID, reasonPacketIDUnknown, "")
		return
	}
	if in.by == c {
		c.acks.open2--
	}
	if kept {
		u.comps = append(u.comps, a.packetID)
		return
	}
	c.appendAckLocked(typePubcomp, a.packetID, reasonSuccess, "")
}

// onAck handles one of the four acknowledgements.
func (c *conn) onAck(u *burst, kind byte, a ack) error {
	switch kind {
	case typePubrel:
		c.onPubrel(u, a)
	case typePuback:
		c.sess.onPuback(u, c, a)
	case typePubrec:
		c.sess.onPubrec(u, c, a)
	case typePubcomp:
		c.sess.onPubcomp(u, c, a)
	}
	return nil
}
