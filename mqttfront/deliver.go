package mqttfront

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// noMember deals with a message of a shared subscription that no member here can take.
func (u *burst) noMember(m *outMessage, g Group) {
	if m.tally != nil {
		m.tally.Refused(g)
		return
	}
	u.b.stats.DropNoMember.Add(1)
}

// Deliver serves messages from the swarm to the clients of this node, in order. It does not wait for clients.
// The slice belongs to the caller again when it returns.
func (b *Broker) Deliver(batch []Delivery) {
	b.deliverMu.Lock()
	defer b.deliverMu.Unlock()
	u := b.begin(time.Now())
	u.roams = b.roams()
	for i := range batch {
		b.deliver(u, &batch[i])
	}
	u.end()
}

func (b *Broker) deliver(u *burst, d *Delivery) {
	m := &b.delivering
	sl := b.slotOfString(d.Msg.Topic)
	*m = outMessage{Message: *d.Msg, slot: sl}
	m.Topic = sl.topic // what the broker has by topic keeps no bytes of messages
	if c, ok := d.Origin.(*conn); ok && c != nil {
		m.from = c.sess
	}
	m.recent = d.Recent
	if d.Receipt != nil {
		m.keep = d.Msg
		m.tally = &tally{r: d.Receipt}
		m.tally.n.Store(1)
		m.tally.known = u.roams
	}
	if !m.Expired(u.now) {
		if d.Plain {
			u.serve(m, b.targets(sl))
		}
		for _, g := range d.Groups {
			u.have = [2]bool{}
			if members, ok := b.shares.Get(g.Filter, g.Name); ok {
				u.serveGroup(m, members)
			} else {
				u.noMember(m, g)
			}
		}
	}
	for _, s := range d.Sessions {
		m.alone = s.Alone
		u.serveSession(m, sessionKey(s.Key))
	}
	if m.tally != nil {
		m.tally.given(b)
		u.receipts = append(u.receipts, told{m.tally, nil, false})
	}
	*m = outMessage{}
}

// serveSession serves one session with what was meant for it at another node. Not at QoS 0: nothing tells what it has had from
// what it has not.
func (u *burst) serveSession(m *outMessage, key sessionKey) {
	b := u.b
	b.reg.Lock()
	s := b.sessions[key]
	if ds := b.departures[key]; s == nil && len(ds) > 0 { // it is fetched with the rest
		s = ds[len(ds)-1].s
	}
	b.reg.Unlock()
	if s == nil || m.Expired(u.now) {
		return
	}
	t := target{s: s}
	s.mu.Lock()
	subs := s.subs
	if s.move != nil && s.move.Departure != nil && s.move.stopped {
		subs = s.move.late
	}
	for _, sub := range subs {
		if sub.share == "" && topic.Match(sub.inner, m.Topic) {
			t.join(sub)
		}
	}
	s.mu.Unlock()
	if min(m.QoS, t.qos) > 0 && s.mayReceive(m.Topic) {
		u.have = [2]bool{}
		u.serveOne(m, &t)
	}
}

// serveLocal serves a message whose topic stays on this node.
func (u *burst) serveLocal(m *outMessage) {
	b := u.b
	u.serve(m, b.targets(b.slotOfString(m.Topic)))
	b.shares.Match(m.Topic, func(_, _ string, g *group) {
		u.have = [2]bool{}
		u.serveGroup(m, g)
	})
}
