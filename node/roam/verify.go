package roam

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// runVerify asks who holds the sessions that were here before there were others, and says so of those that are this node's.
func (r *Roam) runVerify() {
	type found struct {
		key string
		rec mqttfront.SessionRecord
	}
	var all []found
	r.cfg.Broker.Sessions(func(key string, rec mqttfront.SessionRecord) { all = append(all, found{key, rec}) })
	slots := make(chan struct{}, maxVerified)
	for _, f := range all {
		select {
		case slots <- struct{}{}:
		case <-r.ctx.Done():
			return
		}
		r.mu.Lock()
		if r.held[f.key] != nil {
			r.mu.Unlock()
			<-slots
			continue
		}
		h := r.holdLocked(f.key)
		h.number, h.asks = max(firstNumber, f.rec.Claim), true
		if f.rec.Expiry > 0 {
			h.state = stateOf(f.rec)
		}
		var once sync.Once
		free := func() { once.Do(func() { <-slots }) }
		h.next = append(h.next, free)
		r.mu.Unlock()
		time.AfterFunc(keepTime, free)
		r.take(h, false)
	}
}

// take finds out what was claimed before, and claims it. One that begins is claimed against whatever was; else the claim that was
// made last holds.
func (r *Roam) take(h *hold, begins bool) {
	r.mu.Lock()
	lasting := h.state != nil
	r.mu.Unlock()
	found := func(last *claim) { r.took(h, begins, last) }
	if begins {
		r.hear(h, lasting, func(bool) { r.latest(h, found) })
	} else {
		r.find(h, lasting, nil, found)
	}
}

// took goes on with take when it is known what was claimed.
func (r *Roam) took(h *hold, begins bool, last *claim) {
	r.mu.Lock()
	if h.over || h.ready {
		r.mu.Unlock()
		return
	}
	h.asks = false
	lost, others := false, last != nil && last.node != r.self
	if last != nil {
		h.recorded = true
		switch {
		case begins:
			h.number = max(h.number, r.next(last.GetNumber()))
		case others:
			lost = outranks(last.GetNumber(), last.node, h.number, r.self)
		default:
			h.number = max(h.number, last.GetNumber())
		}
	}
	if !lost {
		h.ready, h.mine = true, true
	}
	r.mu.Unlock()
	r.cfg.Log.Debug("found out who had a session", "key", h.key, "anybody", last != nil, "last_number", last.number(), "lost", lost)
	if last != nil && last.owner() != r.me() && !lost && !begins { // which may be this node with another database
		r.goes(func() { r.adopt(h.key, last) })
	}
	if others && !lost && r.cfg.Host.Network().Connectedness(last.node) != network.Connected {
		r.goes(func() { // its node can't end it
			ctx, cancel := context.WithTimeout(r.ctx, keepTime)
			defer cancel()
			r.cfg.Resumed(ctx, last.node, h.key)
		})
	}
	if lost {
		r.lose(h, last)
		return
	}
	r.push(h)
}
