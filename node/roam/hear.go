package roam

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// askAgain is when it is asked again who has a session, where not all could be asked who may know; at first, and at most.
const (
	askAgain     = 500 * time.Millisecond
	askAgainMost = 30 * time.Second
)

// hear has the claims to a session come here, unless that is not here any more, which it reports, and calls done when whatever is claimed from
// now on does, by local from the nodes in reach.
func (r *Roam) hear(h *hold, lasting bool, done func(local bool)) (here bool) {
	i := core.Interest{Plain: true, QoS: 1}
	if lasting {
		i.Hold = holdFor
	}
	r.hearing.Lock()
	defer r.hearing.Unlock()
	r.mu.Lock()
	here = r.held[h.key] == h
	r.mu.Unlock()
	if here {
		r.cfg.Swarm.Register(h.name, i, done)
	}
	return here
}

// find asks who has claimed a session last, and calls done; with nil, where nobody has. Where others than those that can be asked may know of
// somebody, it calls unsure, which may be nil, once, and asks again, until the session is not here any more.
func (r *Roam) find(h *hold, lasting bool, unsure func(), done func(*claim)) {
	r.findAfter(h, lasting, askAgain, unsure, done)
}

func (r *Roam) findAfter(h *hold, lasting bool, pause time.Duration, unsure func(), done func(*claim)) {
	here := r.hear(h, lasting, func(local bool) {
		sure := !local && r.cfg.Swarm.Merged() // before it is asked, and after
		r.latest(h, func(last *claim) {
			if last != nil || sure && r.cfg.Swarm.Merged() {
				done(last)
				return
			}
			if unsure != nil {
				unsure()
			}
			r.goes(func() {
				select {
				case <-time.After(pause):
					r.findAfter(h, lasting, min(2*pause, askAgainMost), nil, done)
				case <-r.ctx.Done():
				}
			})
		})
	})
	if !here {
		done(nil)
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
