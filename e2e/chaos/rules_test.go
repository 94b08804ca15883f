package chaos

// What the history is held against, a rule for each promise.

import (
	"cmp"
	"slices"
	"time"
)

// owed calls f for every message that a subscription is owed by what its publisher and its subscriber were told.
func (c *checker) owed(st *standing, f func(m *message)) {
	filter, _ := plain(st.filter)
	to, _ := st.ends()
	for topic, all := range c.byTopic {
		if !matches(filter, topic) {
			continue
		}
		at, _ := slices.BinarySearchFunc(all, st.from, func(m *message, t time.Duration) int { return cmp.Compare(m.firstSend, t) })
		for _, m := range all[at:] {
			if m.firstSend >= to {
				break
			}
			if m.promised && m.qos > 0 && st.qos > 0 {
				f(m)
			}
		}
	}
}

// excuses says why a subscription may not have a message that it was owed, "" for no reason.
func (c *checker) excuses(st *standing, m *message) Excuse {
	to, why := st.ends()
	switch {
	case to != forever && !(to > m.ackedAt+ordinary && c.calm(m.firstSend, m.ackedAt+ordinary)):
		return why
	case m.firstSend < c.heldFrom(st):
		return Local
	}
	taken := m.ackedAt
	if m.willOf != nil {
		taken = m.willOf.acceptedAt
	}
	switch {
	case c.alone(m.ackedBy, taken) != 0:
		return SwarmOfItsOwn
	case c.lostWithDisk(m.ackedBy, m.ackedAt):
		return PublisherWiped
	}
	return ""
}

// checkDelivered: no acknowledged QoS 1 or 2 message is lost.
func (c *checker) checkDelivered() {
	for _, st := range c.standing {
		if _, shared := plain(st.filter); shared {
			continue
		}
		c.owed(st, func(m *message) {
			c.report.Owed++
			if st.got[m.id] != nil {
				return
			}
			if why := c.excuses(st, m); why != "" {
				c.report.excuse(why)
				return
			}
			kind := "lost"
			if m.willOf != nil {
				kind = "will"
			}
			c.violation(Event{At: m.ackedAt, Client: st.client, Node: st.node, Msg: m.id}, kind, st.session, "it was acknowledged, and has not come"+st.mistook(m))
		})
	}
}

// mistook says so where a message has come, and its client took it for another.
func (s *session) mistook(m *message) string {
	if !s.mistaken[m.id] {
		return ""
	}
	return ": its client took it for another, whose exchange was open under its packet ID"
}

// checkShared: every message for a shared group comes to one member, at QoS 2 once in all.
func (c *checker) checkShared() {
	groups := map[string][]*standing{}
	for _, st := range c.standing {
		if _, shared := plain(st.filter); shared {
			groups[st.filter] = append(groups[st.filter], st)
		}
	}
	for filter, members := range groups {
		owed := map[*message][]*standing{}
		for _, st := range members {
			c.owed(st, func(m *message) { owed[m] = append(owed[m], st) })
		}
		for m, who := range owed {
			c.report.Owed++
			n, over := 0, false
			seen := map[string]bool{}
			for _, st := range members {
				if !seen[st.client] { // in all its sessions: one that comes back when a disk was wiped has subscriptions that nobody made in it
					for _, s := range c.sessions[st.client] {
						n += len(s.got[m.id])
					}
					seen[st.client] = true
				}
				over = over || m.qos == 2 && (st.ended != forever && st.ended > m.firstSend && st.from < m.firstSend || c.wipedWith(st, m))
			}
			excuse := Excuse("")
			for _, st := range who {
				if excuse = c.excuses(st, m); excuse == "" {
					break
				}
			}
			switch {
			case n == 0 && excuse != "":
				c.report.excuse(excuse)
			case n == 0 && over:
				c.report.excuse(MemberOver)
			case n == 0:
				why := ""
				for _, st := range members {
					why = cmp.Or(why, st.mistook(m))
				}
				c.violation(Event{At: m.ackedAt, Msg: m.id}, "lost", nil, "no member of "+filter+" has it"+why)
			case n > 1 && m.qos == 2:
				e := c.lastReceipt(members, m)
				e.Client = "" // it is the group's
				c.twice(m, nil, e, "members of "+filter+" have it more than once")
			}
		}
	}
}

// wipedWith reports whether a disk was wiped of a node where a member's session was when a message was sent, or later: it may have gone on
// elsewhere without what only that node knew.
func (c *checker) wipedWith(st *standing, m *message) bool {
	for _, f := range c.faults {
		if f.kind != Wipe || f.from+unnoticed < m.firstSend || st.from > f.from {
			continue
		}
		at := 0
		for _, conn := range c.conns[st.client] {
			if !conn.accepted || conn.acceptedAt > f.from {
				continue
			}
			if conn.acceptedAt <= m.firstSend {
				at = conn.node // the last before it was sent
			} else if f.has(conn.node) {
				return true
			}
		}
		if at != 0 && f.has(at) {
			return true
		}
	}
	return false
}

func (c *checker) lastReceipt(members []*standing, m *message) (last Event) {
	for _, st := range members {
		for _, s := range c.sessions[st.client] {
			for _, e := range s.got[m.id] {
				if e.At > last.At {
					last = e
				}
			}
		}
	}
	return last
}

// checkOnce: QoS 2 comes once, and so does anything else that neither the publisher nor a node has had a reason to send again.
func (c *checker) checkOnce() {
	for _, all := range c.sessions {
		for _, s := range all {
			for id, got := range s.got {
				m := c.messages[id]
				if m == nil {
					c.violation(got[0], "invented", s, "nobody has published it")
					continue
				}
				m.got += len(got)
				for i, e := range got[1:] {
					if e.QoS == 2 && !c.shared(s) || e.QoS < 2 && !e.Dup && e.Conn == got[i].Conn && len(m.sends) <= 1 {
						c.twice(m, s, e, "it has come twice")
					}
				}
			}
		}
	}
}

// shared reports whether a session has shared subscriptions, whose messages checkShared counts.
func (c *checker) shared(s *session) bool {
	return slices.ContainsFunc(c.standing, func(st *standing) bool {
		_, shared := plain(st.filter)
		return shared && st.session == s
	})
}

func (c *checker) twice(m *message, s *session, e Event, text string) {
	switch {
	case m.willOf != nil && c.alarmed(m.willOf):
		c.report.excuse(WillFalseAlarm)
		return
	case s != nil && c.unreported(m, s, e):
		c.report.excuse(Unreported)
		return
	case s != nil && c.inParts(m, s, e):
		c.report.excuse(JoinedParts)
		return
	case s == nil && c.known.SharedTwice && !c.calm(m.firstSend, e.At):
		c.report.excuse(KnownSharedTwice)
		return
	}
	c.violation(e, "twice", s, text)
}

// inParts reports whether a session may have had a message in each of two parts: at QoS 2 it went on at another node in the time between.
func (c *checker) inParts(m *message, s *session, e Event) bool {
	if e.QoS == 2 {
		since := s.before(m, e)
		return slices.ContainsFunc(s.moves, func(at time.Duration) bool {
			return at > since && at < e.At && !c.calmBut(s.wipes, at-handingBack, e.At)
		})
	}
	return e.QoS > 0 && slices.ContainsFunc(s.moves, func(at time.Duration) bool { return at < e.At && !c.calm(at-handingBack, e.At) })
}

// before returns when a session got a message before it got it again.
func (s *session) before(m *message, e Event) (at time.Duration) {
	for _, got := range s.got[m.id] {
		if got.At < e.At {
			at = got.At
		}
	}
	return at
}

// unreported reports whether a disk that a session was on was wiped before its node could say that the session was through with a message.
func (c *checker) unreported(m *message, s *session, e Event) bool {
	since := s.before(m, e)
	return e.QoS == 2 && slices.ContainsFunc(s.wipes, func(w wipe) bool { return w.at > since && w.at < e.At && !c.calmFor(handOver, since, w.at) })
}

// asked reports whether a session may have been subscribed to a message when that was published.
func (c *checker) asked(s *session, m *message) bool {
	return slices.ContainsFunc(c.standing, func(st *standing) bool {
		filter, _ := plain(st.filter)
		return st.session == s && matches(filter, m.topic) && st.from <= m.ackedAt && m.firstSend <= st.to
	})
}

// checkOrder: what one publisher publishes on one topic at one QoS arrives in order, where there was no fault in the time between.
func (c *checker) checkOrder() {
	type flow struct {
		publisher, topic string
		qos              byte
	}
	for _, all := range c.sessions {
		for _, s := range all {
			if c.shared(s) {
				continue
			}
			latest := map[flow]*message{}
			for _, id := range s.order {
				m := c.messages[id]
				if m == nil || len(m.sends) != 1 {
					continue // it has been sent again, or is a will
				}
				f := flow{m.publisher, m.topic, m.qos}
				before := latest[f]
				if before == nil || before.firstSend < m.firstSend {
					latest[f] = m
					if before != nil && c.calm(before.firstSend-handingBack, s.got[id][0].At) {
						c.report.InOrder++
					}
					continue
				}
				if !c.calm(m.firstSend-handingBack, s.got[id][0].At) {
					c.report.excuse(OrderFault)
					continue
				}
				if len(s.moves) > 0 && !c.asked(s, m) {
					c.report.excuse(OrderUnasked)
					continue
				}
				c.violation(s.got[id][0], "order", s, "it was published before "+before.id+", which came first")
			}
		}
	}
}
