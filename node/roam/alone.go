package roam

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// runClaimLate claims a session that its client goes on with because no other node could be reached, once one can.
func (r *Roam) runClaimLate(h *hold, found chan *claim) {
	var last *claim
	select {
	case last = <-found:
	case <-r.ctx.Done():
		return
	}
	if _, _, here := r.cfg.Broker.Has(h.key); !here {
		return
	}
	r.mu.Lock()
	since := last != nil && outranks(last.GetNumber(), last.node, h.number, r.self) // by the time it came here
	r.mu.Unlock()
	if since && !r.cfg.Broker.Connected(h.key) { // its client has gone there
		r.lose(h, last)
		return
	}
	r.goOnHere(h, last)
}

// goOnHere claims a session that its client goes on with here, and has what is at the last holder joined with it, which may be nil.
func (r *Roam) goOnHere(h *hold, last *claim) {
	r.adopt(h.key, last)
	r.mu.Lock()
	if h.over || h.mine || h.claiming {
		r.mu.Unlock()
		return
	}
	state := h.state
	r.ownLocked(h, last)
	h.from = owner{} // a session is here
	if state != nil {
		h.state = state // as it is here
	}
	number := h.number
	r.mu.Unlock()
	r.push(h)
	if last != nil && last.node != r.self {
		r.goes(func() { r.runJoin(mqttfront.Left{Key: h.key, Number: number}, last.node) })
	}
}

// adopt has a session keep what its client was promised at the node that had it before, as a claim says, which may be nil.
func (r *Roam) adopt(key string, last *claim) {
	if last == nil || last.GetState() == nil || last.owner() == r.me() {
		return
	}
	var from mqttfront.Lost
	if o := last.owner(); !r.cfg.Swarm.Reaches(o.node, o.database) {
		from = mqttfront.Lost{From: string(o.node), Database: o.database}
	}
	r.cfg.Broker.Adopt(key, recordOf(last.GetState()), from)
}

// aloneTime is after what time a session that went on alone is looked at again, where its late claim has come to nothing.
const aloneTime = 15 * time.Second

// checkAlone finds out who has the sessions that went on alone, and that nobody has claimed for this node since.
func (r *Roam) checkAlone(now time.Time) {
	var again []string
	r.mu.Lock()
	for key, since := range r.alone {
		if now.Sub(since) > aloneTime {
			again = append(again, key)
		}
	}
	r.mu.Unlock()
	for _, key := range again {
		_, _, here := r.cfg.Broker.Has(key)
		r.mu.Lock()
		h := r.held[key]
		if !here || h != nil && h.mine {
			delete(r.alone, key)
		} else {
			r.alone[key] = now
		}
		looks := here && (h == nil || !h.mine && !h.claiming)
		if looks {
			h = r.holdLocked(key)
			h.ready = false
		}
		r.mu.Unlock()
		if looks {
			r.take(h, false)
		}
	}
}
