package mqttfront

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// What sessions want of the swarm by their subscriptions, and what it promises them.

// What is ours to tune.
const (
	// promiseAgain is when a promise for the whole swarm is asked for again where there was none, promiseAgainMost when later on, and promisePatience
	// for how long: what others keep for a node that they have not reached for that long is dropped.
	promiseAgain     = 2 * time.Second
	promiseAgainMost = 30 * time.Second
	promisePatience  = 7 * 24 * time.Hour
)

// subscribeAll gives a session that has come back, or from elsewhere, its subscriptions, and calls done, unless it is nil, when
// all are promised. from is the node, if any, to which was sent what they brought before, and which is lost with it.
func (s *session) subscribeAll(recs []SubscriptionRecord, from Lost, done func()) {
	s.mu.Lock()
	var subs []*subscription
	for _, r := range recs {
		if sub := s.subscribeLocked(r); sub != nil {
			subs = append(subs, sub)
		}
	}
	stand := s.standingLocked()
	s.mu.Unlock()
	s.want(subs, stand, from, done)
}

// subscribeLocked gives a session a subscription that it has not, and returns it, to be wanted; nil if it is none.
func (s *session) subscribeLocked(r SubscriptionRecord) *subscription {
	share, inner, err := topic.ParseShare(r.Filter)
	if err != nil {
		return nil
	}
	inner = s.key.mount().on(inner)
	sub := &subscription{filter: r.Filter, share: share, inner: inner, id: r.ID, qos: r.QoS,
		noLocal: r.NoLocal, retainAsPublished: r.RetainAsPublished, later: r.Later}
	s.subs.set(sub)
	if share == "" {
		s.b.subs.Set(inner, s, sub)
	}
	s.b.stats.Subscriptions.Add(1)
	return sub
}

// want tells the swarm of subscriptions that were made when the session stood as it says. from and done are those of subscribeAll: what
// that node was sent is not for those that were made since.
func (s *session) want(subs []*subscription, stand standing, from Lost, done func()) {
	for _, sub := range subs {
		if sub.share != "" {
			s.b.joinGroup(s, sub)
		}
	}
	s.ask(subs, func(d *demand, sub *subscription) {
		d.add(sub, stand, 1)
		d.owe(s, sub, from)
	}, done)
}

// ask changes what is wanted by subscriptions, and calls done, unless it is nil, when all of it is promised.
func (s *session) ask(subs []*subscription, change func(*demand, *subscription), done func()) {
	left := newCountdown(done)
	for _, sub := range subs {
		s.b.demand(sub.inner, func(d *demand) { change(d, sub) }, s.promised(sub, left))
	}
	left.one()
}

// promised returns what counts down when the swarm has promised a subscription, or the session has it no more. As long as that holds for the
// nodes in reach alone, others may know of the node alone that the session comes from.
func (s *session) promised(sub *subscription, left *countdown) func(Promise) {
	if left.done == nil {
		return nil
	}
	return s.b.untilSwarm(sub.inner, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.ended && s.subs.get(sub.filter) == sub
	}, left.more())
}

// untilSwarm returns what takes the swarm's answer to a demand for a filter, and asks again until that is for the whole swarm, or nobody cares
// any more. Then it calls done.
func (b *Broker) untilSwarm(filter string, cares func() bool, done func()) func(Promise) {
	until, pause := time.Now().Add(promisePatience), promiseAgain
	var told func(Promise)
	told = func(p Promise) {
		if p == PromiseSwarm || time.Now().After(until) {
			done()
			return
		}
		time.AfterFunc(pause, func() {
			select {
			case <-b.stopped:
				return
			default:
			}
			if !cares() {
				done()
				return
			}
			b.demand(filter, func(*demand) {}, told)
		})
		pause = min(2*pause, promiseAgainMost)
	}
	return told
}

// owing returns what is to be called when all is promised that a session wants, which calls done, unless that is nil, and what is closed then:
// nil, where it wants nothing that was sent to a node that is lost.
func owing(from Lost, done func()) (promised func(), owed chan struct{}) {
	if from == (Lost{}) {
		return done, nil
	}
	owed = make(chan struct{})
	return func() {
		close(owed)
		if done != nil {
			done()
		}
	}, owed
}
