package watch

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// refreshEvery is how often what stands is written anew: half of the time after which it would be forgotten.
const refreshEvery = core.MaxHold / 2

// own is the will of a client of this node, or, while that is being written, that it has none. It is runWork's.
type own struct {
	key, topic string
	will       *will // nil: nothing is to stand
	restored   bool  // from before this process was started: what became of it is not known yet
	publishing bool
	dirty      bool
	waiters    []func() // for what is being written
	next       []func() // for what is to be written after that
}

func (w *Watch) ownOf(key string) *own {
	o := w.own[key]
	if o == nil {
		o = &own{key: key, topic: nameOf(w.cfg.Host.ID(), key)}
		w.own[key], w.byTopic[o.topic] = o, o
	}
	return o
}

func (w *Watch) willOf(rec mqttfront.WillRecord, expiry time.Duration, since time.Time) *will {
	return &will{node: w.self, record: rec, expiry: expiry, disconnected: since}
}

// restore notes a will from before this process was started that others may know.
func (w *Watch) restore(key string, rec mqttfront.WillRecord, expiry time.Duration, since time.Time) {
	o := w.ownOf(key)
	o.will, o.restored = w.willOf(rec, expiry, since), true
}

// armFound arms a will that was here before there were others.
func (w *Watch) armFound(key string, rec mqttfront.WillRecord, expiry time.Duration, since time.Time) {
	if o := w.own[key]; o == nil || o.will == nil || o.will.record.Epoch != rec.Epoch {
		w.arm(key, w.willOf(rec, expiry, since), nil)
	}
}

// Identity implements mqttfront.WillKeeping.
func (w *Watch) Identity() uint64 {
	if !w.active.Load() {
		return 0
	}
	return rand.Uint64() | 1 //nolint:gosec // identities need not be secret
}

// Arm implements mqttfront.WillKeeping.
func (w *Watch) Arm(key string, rec *mqttfront.WillRecord, expiry time.Duration, since time.Time, done func()) {
	x := w.willOf(*rec, expiry, since)
	w.mu.Lock()
	waits := w.trust.has
	w.mu.Unlock()
	if waits = waits || w.active.Load() && w.sees(""); done != nil && !waits { // nobody can be told now
		done()
		done = nil
	}
	w.do(func() { w.arm(key, x, done) })
}

func (w *Watch) arm(key string, x *will, done func()) {
	o := w.ownOf(key)
	if x.disconnected.IsZero() || o.will != nil && o.will.record.Epoch == x.record.Epoch { // else it is over already
		o.will, o.restored = x, false
	}
	if done != nil {
		o.next = append(o.next, done)
	}
	w.push(o)
}

// Disarm implements mqttfront.WillKeeping.
func (w *Watch) Disarm(key string, epoch uint64) { w.do(func() { w.disarm(key, epoch) }) }

func (w *Watch) disarm(key string, epoch uint64) {
	if o := w.own[key]; o != nil && o.will != nil && o.will.record.Epoch == epoch {
		o.will, o.restored = nil, false
		w.push(o)
	}
}

// push writes what is to stand, as soon as it can be written.
func (w *Watch) push(o *own) {
	if o.publishing || o.restored {
		o.dirty = o.publishing
		return
	}
	if !w.registered {
		w.registered = true
		w.cfg.Swarm.Register(Of(w.cfg.Host.ID())+"/#", core.Interest{Plain: true, QoS: 1, Hold: core.MaxHold}, nil)
	}
	o.publishing, o.dirty = true, false
	o.waiters, o.next = append(o.waiters, o.next...), nil
	cleared := o.will == nil
	w.publish(o.topic, o.will, false, func(error) {
		o.publishing = false
		calls := o.waiters
		o.waiters = nil
		for _, f := range calls {
			f()
		}
		switch {
		case o.dirty || len(o.next) > 0:
			w.push(o)
		case cleared && o.will == nil && w.own[o.key] == o:
			delete(w.own, o.key)
			delete(w.byTopic, o.topic)
		}
	})
}

// standable is what can stand at a location.
type standable interface{ encode() ([]byte, error) }

// publish has something stand under a topic, or, with nil, nothing. done is called by runWork, when all members in reach have it, and,
// unless firm is set, so has who is registered for it: that is the node that it is about, which hears of what others write.
func (w *Watch) publish(topic string, what standable, firm bool, done func(error)) {
	m := &proto.Message{Topic: topic, QoS: 1, Retain: true}
	if x, ok := what.(*will); what != nil && (!ok || x != nil) {
		b, err := what.encode()
		if err != nil {
			w.cfg.Log.Error("a will can't be encoded", "error", err)
			return
		}
		m.Payload, m.Expires = b, time.Now().Add(core.MaxHold)
	}
	w.cfg.Swarm.Publish([]core.Publication{{Message: m, Served: !firm, Firm: firm, Origin: &accepted{w, done}}})
}

// accepted is told when something stands.
type accepted struct {
	w    *Watch
	done func(error)
}

var _ mqttfront.Origin = (*accepted)(nil)

// Accepted implements mqttfront.Origin.
func (a *accepted) Accepted(_ uint16, _ mqttfront.Custody, err error) {
	a.w.do(func() { a.done(err) })
}

// Fire implements mqttfront.WillKeeping.
func (w *Watch) Fire(key string, epoch uint64, hold, send, drop func()) {
	w.mu.Lock()
	if w.waitsLocked() {
		w.mu.Unlock()
		hold()
		w.mu.Lock()
		if w.waitsLocked() { // still
			w.held = append(w.held, held{key, epoch, send, drop})
			w.mu.Unlock()
			return
		}
	}
	w.mu.Unlock()
	send()
	w.Disarm(key, epoch)
}

// waitsLocked reports whether a will has to wait until it is known that nobody else has sent it.
func (w *Watch) waitsLocked() bool {
	return !w.trust.may() || w.cfg.Swarm.Clock()-w.trust.ticked > hangs
}

// askOwn asks this node's location what became of its wills.
func (w *Watch) askOwn(round int) {
	said := map[string][]byte{}
	w.cfg.Swarm.Retained(Of(w.cfg.Host.ID())+"/#", func(ms []*proto.Message) {
		for _, m := range ms {
			said[m.Topic] = m.Payload
		}
	}, func() { w.do(func() { w.heardOwn(round, said) }) })
}

// heardOwn goes by what this node's location has said.
func (w *Watch) heardOwn(round int, said map[string][]byte) {
	w.mu.Lock()
	w.trust.answered(round)
	var all []held
	if w.trust.may() {
		all, w.held = w.held, nil
	}
	may := w.trust.may()
	w.mu.Unlock()
	if !may {
		return
	}
	for _, h := range all {
		topic := nameOf(w.cfg.Host.ID(), h.key)
		f, x := standingIn(said, topic)
		if f != nil && f.epoch == h.epoch && f.sent || x != nil && x.resumed {
			w.cfg.Log.Debug("a will is not sent any more", "topic", topic, "resumed_elsewhere", x != nil && x.resumed)
			h.drop()
		} else {
			h.send()
		}
		w.disarm(h.key, h.epoch)
		if f != nil {
			w.clear(topic + firedLevel)
		}
	}
	for _, o := range w.own {
		f, x := standingIn(said, o.topic)
		restored := o.restored
		o.restored = false
		switch {
		case restored && x != nil && x.resumed && o.will != nil: // else it may be armed since: hear knows
			w.over(o)
		case f != nil && o.will != nil && f.epoch == o.will.record.Epoch:
			w.wasFired(o, f)
		default:
			w.push(o)
		}
	}
	w.tidy(said)
}

// standingIn returns what is known under a topic.
func standingIn(said map[string][]byte, topic string) (f *fired, x *will) {
	if b := said[topic+firedLevel]; b != nil {
		f, _ = parseFired(b)
	}
	if b := said[topic]; b != nil {
		x, _ = parseWill(b)
	}
	return f, x
}

// tidy clears what stands of wills that are over.
func (w *Watch) tidy(said map[string][]byte) {
	for topic, b := range said {
		name, isMark := willOf(topic)
		if isMark || w.byTopic[name] != nil || b == nil {
			continue
		}
		if x, err := parseWill(b); err == nil && (x.resumed || x.node == w.self) {
			w.clear(name)
			if said[name+firedLevel] != nil {
				w.clear(name + firedLevel)
			}
		}
	}
}

func (w *Watch) clear(topic string) { w.publish(topic, nil, false, func(error) {}) }

// over forgets a will whose client is at another node, or that was sent.
func (w *Watch) over(o *own) {
	w.cfg.Broker.WillOver(o.key, o.will.record.Epoch)
	w.disarm(o.key, o.will.record.Epoch)
}

// wasFired deals with a will of this node that another node has taken it upon itself to send.
func (w *Watch) wasFired(o *own, f *fired) {
	switch {
	case w.cfg.Broker.WillSent(o.key, f.epoch, f.looked, f.before):
		w.cfg.Log.Info("other nodes had taken this one for dead, and sent the will of a client that is connected: that is put right")
	case !f.sent: // it may not have been: this node sends the same in its time
		w.push(o)
		return
	default:
		w.over(o)
	}
	w.clear(o.topic + firedLevel)
}

// Deliver takes a message to a topic that begins with Prefix. It is about this node's wills, and comes from others.
func (w *Watch) Deliver(d core.Delivery) {
	if d.Receipt != nil {
		defer w.cfg.Swarm.Done(d.Receipt)
	}
	topic, payload := d.Message.Topic, d.Message.Payload
	if len(payload) == 0 || !strings.HasPrefix(topic, Of(w.cfg.Host.ID())+"/") {
		return
	}
	if d.Receipt == nil { // lent
		topic, payload = strings.Clone(topic), append([]byte(nil), payload...)
	}
	w.do(func() { w.hear(topic, payload) })
}

func (w *Watch) hear(topic string, payload []byte) {
	name, isMark := willOf(topic)
	o := w.byTopic[name]
	if o == nil || o.will == nil || o.restored { // the restored ones are asked about
		return
	}
	if !isMark {
		if x, err := parseWill(payload); err == nil && x.resumed && !o.publishing {
			w.confirmResumed(o, o.will.record.Epoch)
		}
		return
	}
	f, err := parseFired(payload)
	switch {
	case err != nil:
		w.cfg.Log.Debug("the mark of a will can't be read", "topic", topic, "error", err)
	case f.epoch == o.will.record.Epoch:
		w.wasFired(o, f)
	default: // of one before
		w.clear(topic)
	}
}

// confirmResumed looks whether a client is at another node still: it may be back, and its new will on its way.
func (w *Watch) confirmResumed(o *own, epoch uint64) {
	resumed := false
	w.cfg.Swarm.Retained(o.topic, func(ms []*proto.Message) {
		for _, m := range ms {
			x, err := parseWill(m.Payload)
			resumed = err == nil && x.resumed
		}
	}, func() {
		w.do(func() {
			if resumed && o.will != nil && o.will.record.Epoch == epoch {
				w.over(o)
			}
		})
	})
}

// Resumed says that a client has gone on at this node with a session that a node had which can't be reached: its will there is not to be
// sent. It waits for that until ctx is over.
func (w *Watch) Resumed(ctx context.Context, node peer.ID, key string) {
	stands := make(chan struct{})
	w.publish(nameOf(node, key), &will{resumed: true}, true, func(error) { close(stands) })
	select {
	case <-stands:
	case <-ctx.Done():
	case <-w.ctx.Done():
	}
}

// Leave takes back what stands of this node's wills, which it has sent, or keeps for when it is back, and waits for that until
// ctx is over.
func (w *Watch) Leave(ctx context.Context) error {
	left := make(chan struct{})
	w.do(func() {
		waiting := 1
		one := func() {
			if waiting--; waiting == 0 {
				close(left)
			}
		}
		w.mu.Lock()
		kept := map[string]bool{} // they are with the store, and the others send them if this node is not back in time
		for _, h := range w.held {
			kept[h.key] = true
		}
		w.mu.Unlock()
		for _, o := range w.own {
			if kept[o.key] {
				continue
			}
			waiting++
			o.will, o.restored = nil, false
			o.next = append(o.next, one)
			w.push(o)
		}
		one()
	})
	select {
	case <-left:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
