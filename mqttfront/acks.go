package mqttfront

// ackRing has the QoS 1 and 2 messages of a client that wait for being accepted, in their order. It is guarded
// by conn.mu.
type ackRing struct {
	ring   []ackWait
	head   int
	n      int
	bytes  int    // of the messages
	pushed uint64 // messages ever
	open1  int    // QoS 1 messages in the ring
	open2  int    // QoS 2 exchanges of this connection until PUBCOMP
}

// ackWait is one such message.
type ackWait struct {
	refusal  *Refusal
	size     int
	packetID uint16
	qos      byte
	custody  Custody
	accepted bool
	stored   bool // what this node itself keeps of it is safe
	ready    bool // both, and its acknowledgement may go out in its turn
}

func (r *ackRing) at(i int) *ackWait { return &r.ring[(r.head+i)%len(r.ring)] }

func (r *ackRing) push(w ackWait) {
	if r.n == len(r.ring) {
		bigger := ackRings.next(len(r.ring))
		for i := range r.n {
			bigger[i] = *r.at(i)
		}
		ackRings.put(r.ring)
		r.ring, r.head = bigger, 0
	}
	*r.at(r.n) = w
	r.n++
	r.pushed++
	r.bytes += w.size
	if w.qos == 1 {
		r.open1++
	}
}

// pushAck notes a message that is to be acknowledged once it is accepted.
func (c *conn) pushAck(w ackWait) {
	c.mu.Lock()
	c.acks.push(w)
	c.mu.Unlock()
}

// Accepted implements Origin.
func (c *conn) Accepted(packetID uint16, custody Custody, err error) {
	c.mu.Lock()
	w := c.acks.find(func(w *ackWait) bool { return w.packetID == packetID && !w.accepted })
	if w == nil {
		c.mu.Unlock()
		return
	}
	w.accepted, w.custody = true, custody
	if err != nil {
		w.refusal = asRefusal(err, ReasonUnspecified)
		c.b.stats.Refused.Add(1)
	}
	second := w.stored && w.qos == 2
	if w.stored && w.qos == 1 {
		w.ready = true
		c.releaseLocked()
	}
	c.mu.Unlock()
	if second {
		c.ready2(packetID)
	}
}

// stored says that what this node itself keeps of the messages before upTo is safe, or can't be made so.
func (c *conn) stored(upTo uint64, err error) {
	var second []uint16
	c.mu.Lock()
	first := c.acks.pushed - uint64(c.acks.n)
	for i := 0; i < c.acks.n && first+uint64(i) < upTo; i++ {
		w := c.acks.at(i)
		if w.stored {
			continue
		}
		w.stored = true
		if err != nil && w.refusal == nil {
			w.refusal = NotStored
		}
		switch {
		case !w.accepted:
		case w.qos == 1:
			w.ready = true
		default:
			second = append(second, w.packetID)
		}
	}
	c.releaseLocked()
	c.mu.Unlock()
	for _, id := range second {
		c.ready2(id)
	}
}

// ready2 notes in the session that a QoS 2 message is accepted and safe, and only then has it acknowledged, so
// that the client's PUBREL finds it.
func (c *conn) ready2(packetID uint16) {
	s := c.sess
	s.mu.Lock()
	defer s.mu.Unlock()
	c.mu.Lock()
	w := c.acks.find(func(w *ackWait) bool { return w.packetID == packetID && w.qos == 2 && !w.ready })
	if w == nil {
		c.mu.Unlock()
		return
	}
	answer := *w
	in, open := s.inbound[packetID]
	switch {
	case !open:
	case w.refusal != nil: // [MQTT-4.3.3-9]
		s.forgetInboundLocked(packetID)
	default:
		in.accepted = true
		s.inbound[packetID] = in
	}
	w.ready = true
	c.releaseLocked()
	c.mu.Unlock()
	if open && in.by != c { // the client came back meanwhile, and has sent it again
		in.by.mu.Lock()
		in.by.answerLocked(&answer)
		in.by.mu.Unlock()
	}
	if s.move != nil && s.move.Departure != nil {
		s.move.Departure.answeredLocked()
	}
}

// find returns the first message for which ok holds, nearly always the very first.
func (r *ackRing) find(ok func(*ackWait) bool) *ackWait {
	for i := range r.n {
		if w := r.at(i); ok(w) {
			return w
		}
	}
	return nil
}

// releaseLocked writes the acknowledgements that are due [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8], in the order of the
// messages [MQTT-4.6.0-2] [MQTT-4.6.0-3].
func (c *conn) releaseLocked() {
	r := &c.acks
	for r.n > 0 {
		w := r.at(0)
		if !w.ready {
			break
		}
		if w.qos == 1 {
			r.open1--
		}
		c.answerLocked(w)
		r.bytes -= w.size
		*w = ackWait{}
		r.head = (r.head + 1) % len(r.ring)
		r.n--
	}
	if r.n == 0 && len(r.ring) > fewPlaces {
		ackRings.put(r.ring)
		r.ring, r.head = nil, 0
	}
	c.wakeLocked()
}

// answerLocked writes what the client is told of a message that is kept, or refused.
func (c *conn) answerLocked(w *ackWait) {
	kind := byte(typePuback)
	if w.qos == 2 {
		kind = typePubrec
	}
	switch {
	case w.refusal == nil:
		c.appendAcceptedLocked(kind, w.packetID, w.custody)
	case c.version == v5:
		if w.qos == 2 {
			c.acks.open2--
		}
		c.appendAckLocked(kind, w.packetID, lawful(kind, w.refusal.Code), w.refusal.Text)
	case w.refusal.Code == ReasonNotAuthorized || w.refusal.Code == reasonTopicInvalid:
		c.appendAckLocked(kind, w.packetID, reasonSuccess, "") // [MQTT3-3.3.5-2]
	default: // MQTT 3 has no other way to say no [MQTT3-4.8.0-2]
		c.abandonLocked()
	}
}

// appendAcceptedLocked appends the acknowledgement of a message that is kept, and tells MQTT 5 clients where, if there is
// something to tell and they want to know [MQTT-3.1.2-29] [MQTT-3.4.2-3] [MQTT-3.5.2-3].
func (c *conn) appendAcceptedLocked(kind byte, packetID uint16, custody Custody) {
	if custody == CustodyUnsaid || c.version < v5 || !c.problemInfo || custodySize > c.maxPacket || c.closing {
		c.appendAckLocked(kind, packetID, reasonSuccess, "")
		return
	}
	c.reserveLocked(custodySize)
	c.out.b = appendCustody(c.out.b, kind, packetID, custody)
	c.touchLocked(nil)
}

// appendAckLocked appends an acknowledgement to what waits for the client, with a reason string at most [MQTT-3.4.2-3]
// [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3].
func (c *conn) appendAckLocked(kind byte, packetID uint16, reason Reason, text string) {
	if c.closing {
		return
	}
	if !c.problemInfo {
		text = "" // [MQTT-3.1.2-29]
	}
	if c.pendingLocked() > 4*c.b.cfg.MaxPendingBytes {
		c.b.stats.Unread.Add(1)
		c.abandonLocked() // it publishes and reads nothing
		return
	}
	c.reserveLocked(16 + len(text))
	at := len(c.out.b)
	c.out.b = appendAck(c.out.b, c.version, kind, packetID, reason, text)
	if text != "" && len(c.out.b)-at > c.maxPacket { // [MQTT-3.4.2-2] [MQTT-3.5.2-2]
		c.out.b = appendAck(c.out.b[:at], c.version, kind, packetID, reason, "")
	}
	c.touchLocked(nil)
}
