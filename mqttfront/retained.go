package mqttfront

import (
	"slices"
	"strings"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// What is ours to tune about what new subscriptions ask for:
const (
	// maxAsks is how many questions for retained messages of one session are open at a time. Each may bring
	// everything that is retained in the swarm.
	maxAsks = 4
	// maxWatchedAsks is how many of a session's questions have it noted what came live meanwhile, and
	// maxWatchedTopics for how many topics one does so that is not asked yet. Beyond, a message may come again.
	maxWatchedAsks, maxWatchedTopics = 64, 4 << 10
)

// retainedAsk is the question for the retained messages that a new subscription meets: they come behind its SUBACK,
// and never an older one behind a newer one that came live meanwhile. It waits until the SUBACK is written, others of
// the session are through, and the client has taken most of what it was sent before.
type retainedAsk struct {
	s   *session
	c   *conn
	sub *subscription

	// Guarded by session.mu.
	ready   bool // the SUBACK is written
	open    bool // asked, and not through
	dropped bool
	live    map[string]struct{} // topics that came live with the retain flag
}

// willAsk notes that the retained messages of a subscription are to be asked for. Where it takes the place of another,
// what was noted for that and has not begun is not asked for as well [MQTT-3.8.4-3].
func (s *session) willAsk(c *conn, sub, old *subscription) *retainedAsk {
	a := &retainedAsk{s: s, c: c, sub: sub}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Load() != c {
		return nil // taken over meanwhile
	}
	if old != nil {
		s.dropAsksOfLocked(func(b *retainedAsk) bool { return b.sub.filter == sub.filter && !b.open })
	}
	s.asks = append(s.asks, a)
	s.asking.Store(true)
	return a
}

// readyToAsk says that the SUBACK to which some questions belong is written.
func (s *session) readyToAsk(asks []*retainedAsk) {
	s.mu.Lock()
	for _, a := range asks {
		a.ready = true
	}
	s.mu.Unlock()
	s.runAsks()
}

// runAsks asks as much as may be asked now. One goroutine at a time does that.
func (s *session) runAsks() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runsAsks {
		return // it looks again
	}
	s.runsAsks = true
	for a := s.nextAskLocked(); a != nil; a = s.nextAskLocked() {
		a.open = true
		s.openAsks++
		s.mu.Unlock()
		a.ask()
		s.mu.Lock()
	}
	s.runsAsks = false
}

// nextAskLocked returns the question that is to be asked now, if any.
func (s *session) nextAskLocked() *retainedAsk {
	if s.openAsks >= maxAsks {
		return nil
	}
	for _, a := range s.asks {
		if a.open {
			continue
		}
		if !a.ready {
			break // as are those behind it
		}
		if s.asksWait = s.behindLocked(); s.asksWait {
			break
		}
		return a
	}
	return nil
}

// behindLocked reports whether so much waits for the client that no more should be asked for it.
func (s *session) behindLocked() bool {
	cfg := &s.b.cfg
	return s.bytes > cfg.MaxQueuedBytes/4 || s.waiting > cfg.MaxQueuedMessages/4
}

// ask asks. What it brings may come before it returns.
func (a *retainedAsk) ask() {
	b := a.s.b
	if !strings.HasPrefix(a.sub.inner, "$") {
		b.swarm.Retained(a.sub.inner, a.pass, a.done)
		return
	}
	var ms []*proto.Message
	b.local.names.Match(a.sub.inner, func(_ string, m *proto.Message) bool {
		ms = append(ms, m)
		return true
	})
	a.pass(ms)
	a.done()
}

// done says that no more will come.
func (a *retainedAsk) done() {
	a.s.mu.Lock()
	a.s.openAsks--
	a.s.dropAsksOfLocked(func(b *retainedAsk) bool { return b == a })
	a.s.mu.Unlock()
	a.s.runAsks()
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
		if m.Expired(u.now) || len(m.Payload) == 0 || !a.c.mount.has(m.Topic) {
			continue
		}
		e := Entry{Msg: m, IDs: ids, QoS: min(m.QoS, a.sub.qos), Retain: true} // [MQTT3-3.3.1-8]
		if !a.s.mayReceive(m.Topic) {
			u.denied++
			continue
		}
		a.s.mu.Lock()
		_, overtaken := a.live[m.Topic]
		gone := a.dropped || a.s.conn.Load() != a.c
		if !gone && !overtaken {
			a.s.offerLocked(u, &e)
		}
		a.s.mu.Unlock()
		if gone {
			return
		}
	}
}

// dropAsksOfLocked forgets some questions.
func (s *session) dropAsksOfLocked(which func(*retainedAsk) bool) {
	s.asks = slices.DeleteFunc(s.asks, func(a *retainedAsk) bool {
		drop := which(a)
		a.dropped = a.dropped || drop
		return drop
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
	for _, a := range s.asks[:min(len(s.asks), maxWatchedAsks)] {
		if (a.open || len(a.live) < maxWatchedTopics) && topic.Match(a.sub.inner, name) {
			if a.live == nil {
				a.live = make(map[string]struct{})
			}
			a.live[name] = struct{}{}
		}
	}
}
