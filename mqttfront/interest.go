package mqttfront

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// interests adds up, for each filter, what all sessions want of it, and tells the swarm.
type interests struct {
	mu       sync.Mutex
	byFilter map[string]*demand
}

// demand is what the sessions of this node want of one filter, as numbers of subscriptions.
type demand struct {
	plain  [3]int32    // by QoS
	holds  []holdCount // a few different ones
	groups map[string]*groupDemand
	// sessions want what was sent for them to nodes that cannot be reached.
	sessions []SessionInterest
}

type holdCount struct {
	hold time.Duration
	n    int32
}

type groupDemand struct {
	online, offline [3]int32 // by QoS
}

// add counts a subscription, or with n = -1 takes it away.
func (d *demand) add(sub *subscription, st standing, n int32) {
	if sub.share == "" {
		d.plain[sub.qos] += n
	} else {
		g := d.groups[sub.share]
		if g == nil {
			if d.groups == nil {
				d.groups = make(map[string]*groupDemand)
			}
			g = new(groupDemand)
			d.groups[sub.share] = g
		}
		if st.online {
			g.online[sub.qos] += n
		} else {
			g.offline[sub.qos] += n
		}
		if *g == (groupDemand{}) {
			delete(d.groups, sub.share)
		}
	}
	i := slices.IndexFunc(d.holds, func(h holdCount) bool { return h.hold == st.hold })
	if i < 0 {
		i = len(d.holds)
		d.holds = append(d.holds, holdCount{hold: st.hold})
	}
	if d.holds[i].n += n; d.holds[i].n == 0 {
		d.holds = slices.Delete(d.holds, i, i+1)
	}
}

// interest is the sum.
func (d *demand) interest() (in Interest) {
	for q, n := range d.plain {
		if n > 0 {
			in.Plain, in.QoS = true, byte(q)
		}
	}
	for name, g := range d.groups {
		gi := GroupInterest{Name: name}
		var online, offline int32
		for q := range g.online {
			online += g.online[q]
			offline += g.offline[q]
			if g.online[q]+g.offline[q] > 0 {
				gi.QoS = byte(q)
			}
		}
		gi.Members, gi.Online = int(online), online > 0
		if online == 0 {
			gi.Members = int(offline)
		}
		in.Groups = append(in.Groups, gi)
		in.QoS = max(in.QoS, gi.QoS)
	}
	slices.SortFunc(in.Groups, func(a, b GroupInterest) int { return strings.Compare(a.Name, b.Name) })
	in.Sessions = slices.Clone(d.sessions)
	for _, h := range d.holds {
		in.Hold = max(in.Hold, h.hold)
	}
	return in
}

func (i Interest) equal(j Interest) bool {
	return i.Plain == j.Plain && i.QoS == j.QoS && i.Hold == j.Hold && slices.Equal(i.Groups, j.Groups) &&
		slices.Equal(i.Sessions, j.Sessions)
}

// demand changes what is wanted of a filter. With done, the swarm is told even where the sum stays the same.
func (b *Broker) demand(filter string, change func(*demand), done func(Promise)) {
	if strings.HasPrefix(filter, "$") { // matches nothing that the swarm carries
		if done != nil {
			done(PromiseSwarm)
		}
		return
	}
	in := &b.interests
	in.mu.Lock()
	defer in.mu.Unlock()
	d := in.byFilter[filter]
	if d == nil {
		d = new(demand)
		in.byFilter[filter] = d
	}
	before := d.interest()
	change(d)
	sum := d.interest()
	if sum.Zero() {
		delete(in.byFilter, filter)
	}
	if done == nil && sum.equal(before) {
		return
	}
	b.swarm.Register(filter, sum, done)
}

// restand tells the swarm of a session that came, went or changed its expiry.
func (b *Broker) restand(subs []*subscription, before, after standing) {
	if before == after {
		return
	}
	for _, sub := range subs {
		if sub.share == "" && before.hold == after.hold {
			continue
		}
		b.demand(sub.inner, func(d *demand) {
			d.add(sub, before, -1)
			d.add(sub, after, 1)
		}, nil)
	}
}

// unsubscribed takes a subscription out of everything but its session.
func (b *Broker) unsubscribed(s *session, sub *subscription, st standing) {
	if sub.share == "" {
		b.subs.Delete(sub.inner, s)
	} else {
		b.leaveGroup(s, sub)
	}
	b.demand(sub.inner, func(d *demand) {
		d.add(sub, st, -1)
		d.settle(s.key)
	}, nil)
}

// owe has a session want what was sent for it, by a subscription, to a node that is lost, if from is one.
func (d *demand) owe(s *session, sub *subscription, from Lost) {
	if from != (Lost{}) && sub.share == "" && !sub.later {
		d.settle(s.key)
		d.sessions = append(d.sessions, SessionInterest{string(s.key), from})
	}
}

// settle ends that a session wants what was sent for it to another node.
func (d *demand) settle(k sessionKey) {
	if len(d.sessions) > 0 {
		d.sessions = slices.DeleteFunc(d.sessions, func(s SessionInterest) bool { return s.Key == string(k) })
	}
}
