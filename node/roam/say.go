package roam

import (
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// push says what the session is now, as soon as it can be said.
func (r *Roam) push(h *hold) {
	r.mu.Lock()
	if !h.ready || h.publishing {
		h.dirty = true
		r.mu.Unlock()
		return
	}
	h.publishing, h.dirty, h.pushed = true, false, time.Now()
	h.waiters, h.next = append(h.waiters, h.next...), nil
	c := &pb.Claim{Key: []byte(h.key), Number: h.number, Node: []byte(r.self), Database: r.cfg.Database, Fresh: h.fresh, State: h.state,
		From: []byte(h.from.node), FromDatabase: h.from.database}
	h.fresh = false
	retained, clears := h.state != nil, h.state == nil && h.recorded
	h.recorded = retained
	r.mu.Unlock()
	r.publish(h, c, retained, func() {
		r.mu.Lock()
		h.publishing, h.settled = false, true
		calls, dirty := h.waiters, h.dirty && !h.over
		h.waiters = nil
		r.mu.Unlock()
		for _, f := range calls {
			f()
		}
		if dirty {
			r.push(h)
		}
	})
	if clears {
		r.publish(h, nil, true, nil)
	}
}

// publish sends a claim, or with nil clears what is retained.
func (r *Roam) publish(h *hold, c *pb.Claim, retained bool, done func()) {
	m := &proto.Message{Topic: h.name, QoS: 1, Retain: retained}
	if c != nil {
		b, err := protobuf.Marshal(c)
		if err != nil {
			r.cfg.Log.Error("a claim to a session can't be encoded", "error", err)
			return
		}
		m.Payload = b
		if retained {
			m.Expires = time.Now().Add(core.MaxHold)
		}
	}
	r.cfg.Swarm.Publish([]core.Publication{{Message: m, Served: true, Origin: &accepted{r, done}}})
}

// accepted is told when a claim is kept.
type accepted struct {
	r    *Roam
	done func()
}

var _ mqttfront.Origin = (*accepted)(nil)

// Accepted implements mqttfront.Origin. Who waits for a claim goes on with what the swarm is asked for, which must not be from within.
func (a *accepted) Accepted(uint16, mqttfront.Custody, error) {
	if a.done != nil {
		a.r.goes(a.done)
	}
}

// Deliver takes a message to a topic that begins with Prefix. The swarm takes none while it runs, nor while Accepted does.
func (r *Roam) Deliver(d core.Delivery) {
	if d.Receipt != nil {
		defer r.cfg.Swarm.Done(d.Receipt)
	}
	m := d.Message
	c, ok := parse(m)
	if !ok && len(m.Payload) > 0 {
		r.cfg.Log.Debug("a claim to a session can't be read", "topic", m.Topic)
		return
	}
	if ok && c.node == r.self {
		return
	}
	r.mu.Lock()
	h := r.byName[m.Topic]                // without a claim it was cleared, by one that does not know of this node's
	if h == nil || h.over || h.claiming { // a claim that is about to be made outranks it, or hears of it again
		r.mu.Unlock()
		return
	}
	wins := !ok || !h.outrankedLocked(&c, r.self) && (!h.settled || h.state != nil)
	again := wins && h.ready && (ok || h.state != nil)
	r.mu.Unlock()
	switch {
	case again:
		r.goes(func() { r.push(h) }) // the other hears of it by that
	case !wins:
		r.goes(func() { r.lose(h, &c) })
	}
}

// lose gives a session up to another node.
func (r *Roam) lose(h *hold, c *claim) {
	r.mu.Lock()
	if h.over || h.claiming || !h.outrankedLocked(c, r.self) { // it has been claimed here since
		r.mu.Unlock()
		return
	}
	number, own := c.GetNumber(), h.number
	if !h.mine { // one that was claimed in vain, or that nobody heard of, is a part
		number = max(number, own)
	}
	calls := r.dropLocked(h)
	r.mu.Unlock()
	for _, f := range calls {
		f()
	}
	r.unhear(h)
	r.hintAt(h.key, c.node)
	r.cfg.Log.Debug("giving a session up", "key", h.key, "to", c.node.String(), "number", c.GetNumber(), "own_number", own)
	r.cfg.Broker.Depart(r.ctx, h.key, string(c.node), number, c.GetFresh())
}
