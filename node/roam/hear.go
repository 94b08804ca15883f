package roam

import (
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// hear has the claims to a session come here, unless that is not here any more, and calls done when whatever is claimed from now on
// does.
func (r *Roam) hear(h *hold, lasting bool, done func()) {
	i := core.Interest{Plain: true, QoS: 1}
	if lasting {
		i.Hold = holdFor
	}
	r.hearing.Lock()
	defer r.hearing.Unlock()
	r.mu.Lock()
	here := r.held[h.key] == h
	r.mu.Unlock()
	if here {
		r.cfg.Swarm.Register(h.name, i, func(bool) { done() })
	}
}

// unhear ends the registration for the claims to a session that is not here any more, unless it has come back meanwhile.
func (r *Roam) unhear(h *hold) {
	r.hearing.Lock()
	defer r.hearing.Unlock()
	r.mu.Lock()
	back := r.held[h.key] != nil
	r.mu.Unlock()
	if !back {
		r.cfg.Swarm.Register(h.name, core.Interest{}, nil)
	}
}

// latest finds the last claim that is retained; done gets nil where there is none.
func (r *Roam) latest(h *hold, done func(*claim)) {
	var last *claim
	r.cfg.Swarm.Retained(h.name, func(ms []*proto.Message) {
		for _, m := range ms {
			if c, ok := parse(m); ok && string(c.GetKey()) == h.key && (last == nil || outranks(c.GetNumber(), c.node, last.GetNumber(), last.node)) {
				last = &c
			}
		}
	}, func() { done(last) })
}
