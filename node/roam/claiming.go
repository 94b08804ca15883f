package roam

import (
	"context"
	"errors"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// How a client's session is claimed for this node. What a claim says is in claims.go.

// What is ours to tune.
const (
	// claimTime is how long a client waits for each step of a claim that others have a part in, and findTime for who has its session, and then for that
	// node, where they are there: a machine that is busy takes its time.
	claimTime = 3 * time.Second
	findTime  = 10 * time.Second
	// meetTime is for how long after its start a node has clients wait whose sessions are not here, until it has met those that may know of
	// them, claimTime each.
	meetTime = 10 * time.Second
)

// meeting reports whether this node is about to meet others that may have a session, which is not here.
func (r *Roam) meeting(key string) bool {
	if time.Since(r.started) > meetTime || !r.expects() {
		return false
	}
	_, _, here := r.cfg.Broker.Has(key)
	return !here
}

// Claim implements mqttfront.Roaming.
func (r *Roam) Claim(ctx context.Context, key string) (mqttfront.Arrival, error) {
	if r.meeting(key) {
		meet, cancel := context.WithTimeout(ctx, claimTime)
		select {
		case <-r.met:
		case <-meet.Done():
		}
		cancel()
	}
	r.mu.Lock()
	if !r.Active() {
		r.mu.Unlock()
		return nil, nil
	}
	h := r.holdLocked(key)
	if h.mine {
		if h.state != nil { // else it ends with its connection
			h.number = r.next(h.number) // what was claimed elsewhere before, and is heard of later, does not outrank it: it is said once the client has it
		}
		r.mu.Unlock()
		return nil, nil
	}
	h.claiming = true
	r.mu.Unlock()
	last, later, err := r.whoHas(ctx, h)
	switch {
	case err != nil:
		r.mu.Lock()
		h.claiming = false
		r.mu.Unlock()
		return nil, err
	case later != nil:
		r.claimLate(h, later)
		return nil, nil
	}
	if last != nil && last.node != r.self {
		if _, number, here := r.cfg.Broker.Has(key); here && outranks(number, r.self, last.GetNumber(), last.node) {
			r.mu.Lock()
			h.claiming = false
			r.mu.Unlock()
			r.goOnHere(h, last) // its client came here before any other could be reached, and later than to that one
			return nil, nil
		}
	}
	claimed := make(chan struct{})
	r.mu.Lock()
	r.ownLocked(h, last)
	number := h.number
	h.next = append(h.next, func() { close(claimed) })
	r.mu.Unlock()
	if last != nil {
		r.cfg.Log.Debug("claiming a session", "key", key, "number", number, "last", last.node.String(), "last_number", last.GetNumber())
	} else {
		r.cfg.Log.Debug("claiming a session that nobody has", "key", key, "number", number)
	}
	r.push(h)
	known, cancel := context.WithTimeout(ctx, claimTime)
	select {
	case <-claimed:
	case <-known.Done():
	}
	cancel()
	if last == nil {
		return nil, nil
	}
	if last.node != r.self {
		r.cfg.Broker.Yield(key, string(last.node), last.GetNumber()) // what is here is not the session, but may be a part of it
	}
	a, err := r.fetch(ctx, key, number, last)
	r.mu.Lock()
	switch {
	case h.number != number:
	case err != nil:
		h.mine = false // what there is of it stays where it is until it is claimed again
	default:
		h.from = owner{}
	}
	r.mu.Unlock()
	return a, err
}

// whoHas finds out who has a session that is about to be claimed; nil: nobody. Where that can't be told for sure by what is in reach, later
// is returned, which gets it when it can.
func (r *Roam) whoHas(ctx context.Context, h *hold) (last *claim, later chan *claim, err error) {
	found := make(chan *claim, 1)
	unsure := make(chan struct{})
	r.find(h, true, func() { close(unsure) }, func(c *claim) { found <- c })
	enough := time.NewTimer(claimTime)
	defer enough.Stop()
	tooLong := time.NewTimer(findTime)
	defer tooLong.Stop()
	waits := r.meeting(h.key)
	for doubts := unsure; ; {
		select {
		case last = <-found:
			return last, nil, nil
		case <-doubts: // nobody in reach knows of it, and others may
			if !waits || !r.meeting(h.key) {
				return nil, found, nil
			}
			doubts = nil
		case <-enough.C:
			if doubts == nil || len(r.cfg.Host.Network().Peers()) == 0 {
				return nil, found, nil
			}
			waits = false
		case <-tooLong.C:
			return nil, nil, errors.New("who has the session can't be found out now")
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// claimLate has a client go on with what is here, and claims that when it is known who had it.
func (r *Roam) claimLate(h *hold, found chan *claim) {
	r.mu.Lock()
	h.claiming = false
	h.number = r.next(h.number)
	r.alone[h.key] = time.Now()
	r.mu.Unlock()
	r.goes(func() { r.runClaimLate(h, found) })
}

// ownLocked makes this node the holder of a session, after the holder that a claim names, if there is one.
func (r *Roam) ownLocked(h *hold, last *claim) {
	h.mine, h.ready, h.claiming = true, true, false
	h.number = r.next(h.number)
	h.from = owner{}
	if last != nil {
		h.number = max(h.number, r.next(last.GetNumber()))
		h.recorded = true
		if o := last.owner(); o != r.me() {
			h.from = o
		}
	}
	switch {
	case last != nil && last.GetState() != nil:
		h.state = last.GetState()
	case h.state == nil:
		h.state = &pb.SessionState{} // something is retained from the beginning
	}
	for a := range r.asked { // who waits for it to come here to ask for it need not
		if a.key == h.key && !outranks(a.number, a.by, h.number, r.self) {
			a.stop()
		}
	}
}
