package mqttfront

// onPuback ends the delivery of a QoS 1 message [MQTT-4.3.2-3], whatever the client says of it: one that it refuses is not
// sent again, nor to another member of a shared subscription [MQTT-4.4.0-2] [MQTT-4.8.2-6].
func (s *session) onPuback(u *burst, c *conn, a ack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Load() != c {
		return
	}
	e := s.win.find(a.packetID)
	if e == nil || e.QoS != 1 {
		return
	}
	s.finishLocked(u, c, e)
}

// finishLocked ends the delivery of an entry that the client acknowledged.
func (s *session) finishLocked(u *burst, c *conn, e *Entry) {
	s.dropSentLocked(u, e)
	s.quota = min(s.quota+1, c.window)
	s.pumpLocked(u)
}

// onPubrec goes on with a QoS 2 message that the client has [MQTT-4.3.3-3], or ends the delivery of one that it refuses.
func (s *session) onPubrec(u *burst, c *conn, a ack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Load() != c {
		return
	}
	e := s.win.find(a.packetID)
	if e != nil && e.QoS == 2 && a.reason >= 0x80 && e.State == EntrySent { // [MQTT-4.3.3-4] [MQTT-4.4.0-2] [MQTT-4.8.2-6]
		s.finishLocked(u, c, e)
		return
	}
	reason := reasonPacketIDUnknown
	if e != nil && e.QoS == 2 {
		reason = reasonSuccess
		if e.State == EntrySent {
			e.State = EntryReleased
			if s.log != nil {
				s.log.Sent(e)
				s.waitSafeLocked(u, e)
				s.releases = append(s.releases, released{e.PacketID, e.safeAt})
			}
		}
		if !s.safeLocked(e) {
			return
		}
	}
	c.mu.Lock()
	c.appendAckLocked(typePubrel, a.packetID, reason, "") // in the order of PUBRECs [MQTT-4.6.0-4]
	c.mu.Unlock()
}

// onPubcomp ends the delivery of a QoS 2 message [MQTT-4.3.3-5].
func (s *session) onPubcomp(u *burst, c *conn, a ack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Load() != c {
		return
	}
	if e := s.win.find(a.packetID); e != nil && e.QoS == 2 && e.State == EntryReleased {
		s.finishLocked(u, c, e)
	}
}
