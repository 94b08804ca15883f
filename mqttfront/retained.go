package mqttfront

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// retainedAsk brings the retained messages that a new subscription meets to its client: behind the SUBACK, and
// never an older one behind a newer one that came live meanwhile.
type retainedAsk struct {
	s   *session
	c   *conn
	sub *subscription

	mu      sync.Mutex // held while messages are passed on; before session.mu
	early   []*proto.Message
	acked   bool // the SUBACK is written
	all     bool // no more will come
	dropped bool
	live    map[string]struct{} // topics that came live with the retain flag; guarded by session.mu
}

// askRetained asks for the retained messages of a subscription of the client.
func (c *conn) askRetained(sub *subscription) *retainedAsk {
	ask := &retainedAsk{s: c.sess, c: c, sub: sub}
	ask.s.mu.Lock()
	ask.s.asks = append(ask.s.asks, ask)
	ask.s.asking.Store(true)
	ask.s.mu.Unlock()
	if strings.HasPrefix(sub.inner, "$") {
		var ms []*proto.Message
		c.b.local.names.Match(sub.inner, func(_ string, m *proto.Message) bool {
			ms = append(ms, m)
			return true
		})
		ask.each(ms)
		ask.done()
		return ask
	}
	c.b.swarm.Retained(sub.inner, ask.each, ask.done)
	return ask
}

// each takes some of the messages.
func (a *retainedAsk) each(ms []*proto.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.acked {
		a.early = append(a.early, ms...)
		return
	}
	a.pass(ms)
}

// done says that there are no more.
func (a *retainedAsk) done() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = true
	if a.acked {
		a.forget()
	}
}

// ready says that the SUBACK is written.
func (a *retainedAsk) ready() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acked = true
	a.pass(a.early)
	a.early = nil
	if a.all {
		a.forget()
	}
}

// pass gives messages to the session.
func (a *retainedAsk) pass(ms []*proto.Message) {
	if len(ms) == 0 {
		return
	}
	u := a.s.b.begin(time.Now())
	defer u.end()
	var ids []uint32
	if a.sub.id > 0 {
		ids = []uint32{a.sub.id}
	}
	for _, m := range ms {
		a.s.mu.Lock()
		_, overtaken := a.live[m.Topic]
		gone := a.dropped || a.s.conn.Load() != a.c
		a.s.mu.Unlock()
		if gone {
			return
		}
		if overtaken || m.Expired(u.now) || len(m.Payload) == 0 {
			continue
		}
		// [MQTT-3.3.1-8]: the flag is set
		a.s.offer(u, Entry{Msg: m, IDs: ids, QoS: min(m.QoS, a.sub.qos), Retain: true})
	}
}

// forget takes the ask off its session.
func (a *retainedAsk) forget() {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.s.dropAskLocked(a.sub)
}

func (s *session) dropAskLocked(sub *subscription) {
	s.asks = slices.DeleteFunc(s.asks, func(a *retainedAsk) bool {
		if a.sub == sub {
			a.dropped = true
		}
		return a.sub == sub
	})
	if len(s.asks) == 0 {
		s.asks = nil
		s.asking.Store(false)
	}
}

func (s *session) dropAsksLocked() {
	for _, a := range s.asks {
		a.dropped = true
	}
	s.asks = nil
	s.asking.Store(false)
}

// sawRetained notes that a message with the retain flag of some topic came live.
func (s *session) sawRetained(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asks {
		if topic.Match(a.sub.inner, name) {
			if a.live == nil {
				a.live = make(map[string]struct{})
			}
			a.live[name] = struct{}{}
		}
	}
}
