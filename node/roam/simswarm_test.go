package roam

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// simSwarm is the swarm as a broker sees it.
type simSwarm struct {
	n    *simNode
	life int
}

func (s *simSwarm) Detour(*proto.Message) bool { return false }
func (s *simSwarm) Wanted(string) bool         { return true }
func (s *simSwarm) Room(string) bool           { return true }
func (s *simSwarm) RoomToRegister(string) bool { return true }

// OpenFor and Through matter where a node is destroyed.
func (s *simSwarm) OpenFor([]mqttfront.Mark, []string) {}
func (s *simSwarm) Through([]mqttfront.Mark, string)   {}
func (s *simSwarm) RetainedHere() int                  { return 0 }

func (s *simSwarm) Arrived(_ string, _ []string, _ bool, done func()) { // what is published goes to all at once
	if done != nil {
		done()
	}
}

func (s *simSwarm) Publish(batch []mqttfront.Outgoing) {
	n, w := s.n, s.n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.life != s.life {
		return
	}
	for _, o := range batch { // what it has said to its store and taken over survives
		if o.Note != nil {
			o.Note()
		}
		o.Msg = o.Msg.Clone()
		w.came[string(o.Msg.Payload)]++
		w.publishLocked(n, o.Msg, uint64(100+n.i), o.ServedHere && !o.ServeHere) //nolint:gosec // small
		if o.Origin != nil && o.Msg.QoS > 0 {
			n.downLink.do(func() { o.Origin.Accepted(o.PacketID, mqttfront.CustodyUnsaid, nil) })
		}
	}
}

func (s *simSwarm) Register(filter string, in mqttfront.Interest, done func(mqttfront.Promise)) {
	i := core.Interest{Plain: in.Plain, QoS: in.QoS, Hold: in.Hold}
	for _, si := range in.Sessions {
		i.Sessions = append(i.Sessions, core.SessionInterest{Name: NameOf(si.Key), From: si.From, Database: si.Database})
	}
	var told func(bool)
	if done != nil {
		told = func(bool) { done(mqttfront.PromiseSwarm) }
	}
	s.n.register(s.life, filter, i, told)
}

func (s *simSwarm) Retained(_ string, _ func([]*proto.Message), done func()) { done() }

func (s *simSwarm) Receipt(m mqttfront.Mark) mqttfront.Receipt {
	w := s.n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.custody {
		for _, share := range c.shares {
			if c.mark == m && share.n == s.n && !share.done {
				life := s.n.life
				return &simReceipt{share, life}
			}
		}
	}
	return noReceipt(m)
}

// TakeUp has the node be waited for at once: what the other node says of that is known by then.
func (s *simSwarm) TakeUp(m mqttfront.Mark, key string) string {
	w, name := s.n.w, NameOf(key)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.custody {
		if c.mark == m && s.n.life == s.life {
			c.takeUpLocked(s.n, name)
		}
	}
	return name
}

func (s *simSwarm) Carried(ms []mqttfront.Mark, key, to string, _ time.Duration, done func()) {
	s.n.downLink.do(done)
}

// claimSwarm is the swarm as a Roam sees it.
type claimSwarm struct {
	n    *simNode
	life int
}

func (s *claimSwarm) Register(filter string, i core.Interest, done func(bool)) {
	s.n.register(s.life, filter, i, done)
}

func (s *claimSwarm) Done(*core.Receipt) {}

func (s *claimSwarm) Forgotten(id peer.ID) bool {
	s.n.w.mu.Lock()
	defer s.n.w.mu.Unlock()
	return s.n.w.forgotten[id]
}

func (s *claimSwarm) Merged() bool {
	s.n.w.mu.Lock()
	defer s.n.w.mu.Unlock()
	return !s.n.w.unmerged
}

func (s *claimSwarm) Expects() bool {
	s.n.w.mu.Lock()
	defer s.n.w.mu.Unlock()
	return !s.n.w.strange
}

func (s *claimSwarm) Reaches(id peer.ID, _ uint64) bool {
	o, _ := s.n.w.link(s.n, id)
	return o != nil
}

func (s *claimSwarm) Missing() bool {
	for _, o := range s.n.w.nodes {
		if o != s.n && !s.Forgotten(o.id) && !s.Reaches(o.id, 0) {
			return true
		}
	}
	return false
}

func (s *claimSwarm) Retained(filter string, each func([]*proto.Message), done func()) {
	n, w := s.n, s.n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.life != s.life {
		return
	}
	down := n.downLink
	n.upLink.do(func() {
		w.mu.Lock()
		m := w.retained[filter]
		if w.unsure || w.unmerged {
			m = nil
		}
		w.mu.Unlock()
		down.do(func() {
			if m != nil {
				each([]*proto.Message{m})
			}
			done()
		})
	})
}

func (s *claimSwarm) Publish(batch []core.Publication) {
	n, w := s.n, s.n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.life != s.life {
		return
	}
	down := n.downLink
	for _, p := range slices.Clone(batch) {
		m := p.Message.Clone()
		n.upLink.do(func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			switch {
			case m.Retain && len(m.Payload) == 0:
				delete(w.retained, m.Topic)
			case m.Retain:
				w.retained[m.Topic] = m
			}
			for _, o := range w.nodes {
				if _, hears := o.interests[m.Topic]; !hears || !o.up || o == n {
					continue
				}
				life, r := o.life, o.r
				o.downLink.do(func() {
					w.mu.Lock()
					ok := o.life == life
					w.mu.Unlock()
					if ok {
						r.Deliver(core.Delivery{Message: m, Plain: true})
					}
				})
			}
			if p.Origin != nil {
				down.do(func() { p.Origin.(mqttfront.Origin).Accepted(p.Packet, mqttfront.CustodyUnsaid, nil) })
			}
		})
	}
}
