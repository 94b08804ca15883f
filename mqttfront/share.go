package mqttfront

import (
	"slices"
	"sync"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// group is the local part of a shared subscription.
type group struct {
	Group
	mu      sync.Mutex
	members []member
	next    int // where the search for the next member begins
}

type member struct {
	s   *session
	sub *subscription
}

// joinGroup makes a session a member, or changes its subscription.
func (b *Broker) joinGroup(s *session, sub *subscription) {
	b.shareMu.Lock()
	defer b.shareMu.Unlock()
	g, ok := b.shares.Get(sub.inner, sub.share)
	if !ok {
		g = &group{Group: Group{Name: sub.share, Filter: sub.inner}}
		b.shares.Set(sub.inner, sub.share, g)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := g.index(s); i >= 0 {
		g.members[i].sub = sub
		return
	}
	g.members = append(g.members, member{s, sub})
}

func (b *Broker) leaveGroup(s *session, sub *subscription) {
	b.shareMu.Lock()
	defer b.shareMu.Unlock()
	g, ok := b.shares.Get(sub.inner, sub.share)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := g.index(s); i >= 0 {
		g.members = slices.Delete(g.members, i, i+1)
	}
	if len(g.members) == 0 {
		b.shares.Delete(sub.inner, sub.share)
	}
}

func (g *group) index(s *session) int {
	return slices.IndexFunc(g.members, func(m member) bool { return m.s == s })
}

// pick chooses who gets the next message: in turn, of those with a connection that can take it at once, else
// of those with a connection, else, above QoS 0, of those that have a session waiting, else of those with a connection
// for which it is too large, so that it ends there. Who may not receive the topic is passed over.
func (g *group) pick(msg *proto.Message) (m member, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	online, offline, small := -1, -1, -1
	n := len(g.members)
	for i := range n {
		at := (g.next + i) % n
		m := g.members[at]
		qos := min(msg.QoS, m.sub.qos)
		c := m.s.conn.Load()
		switch {
		case !m.s.key.mount().has(msg.Topic), !m.s.mayReceive(msg.Topic):
		case c == nil:
			if offline < 0 && qos > 0 && m.s.waits() {
				offline = at
			}
		case !c.fits(msg, qos, m.sub.id):
			if small < 0 {
				small = at
			}
		case m.s.free(qos):
			g.next = at + 1
			return m, true
		case online < 0:
			online = at
		}
	}
	for _, at := range []int{online, offline, small} {
		if at >= 0 {
			g.next = at + 1
			return g.members[at], true
		}
	}
	return member{}, false
}

// fits reports whether a message is small enough for the client.
func (c *conn) fits(m *proto.Message, qos byte, id uint32) bool {
	if c.maxPacket == maxPacketLimit {
		return true
	}
	o := outgoing{topic: c.mount.off(m.Topic), version: c.version, qos: qos, hasExpiry: !m.Expires.IsZero()}
	if id > 0 {
		o.ids = []uint32{id}
	}
	return o.size(m) <= c.maxPacket
}

// free reports whether the client can be sent a message at once.
func (s *session) free(qos byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ended && s.queue.len() == 0 && s.spilled == 0 && (qos == 0 || s.quota > 0 && s.resend == s.win.n)
}

// waits reports whether an offline session is there to take messages.
func (s *session) waits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ended
}

// serveGroup gives a message to one member of a shared subscription.
func (u *burst) serveGroup(m *outMessage, g *group) {
	mem, ok := g.pick(&m.Message)
	if !ok {
		u.noMember(m, g.Group)
		return
	}
	var ids []uint32
	if mem.sub.id > 0 {
		ids = []uint32{mem.sub.id}
	}
	qos := min(m.QoS, mem.sub.qos) // [MQTT-4.8.2-3]
	retain := m.Retain && mem.sub.retainAsPublished
	if qos == 0 {
		if c := mem.s.conn.Load(); c != nil {
			u.send0(c, m, ids, retain)
		}
		return
	}
	e := Entry{Msg: m.owned(), IDs: ids, QoS: qos, Retain: retain, Group: &g.Group, held: m.held()}
	if m.tally != nil {
		m.tally.n.Add(1)
		e.Receipt = m.tally
	}
	mem.s.offer(u, e)
}

// redeliver gives a message to another member, after the one that had it is gone.
func (u *burst) redeliver(e Entry) {
	m := &outMessage{Message: *e.Msg, keep: e.Msg, holding: e.held}
	m.tally, _ = e.Receipt.(*tally)
	if g, ok := u.b.shares.Get(e.Group.Filter, e.Group.Name); ok {
		u.have = [2]bool{}
		u.serveGroup(m, g)
	} else {
		u.noMember(m, *e.Group)
	}
	u.over(nil, e)
}
