package core_test

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// The broker of a simulated node: what its clients publish and subscribe to, and what comes.

// published is a message and what is known of it.
type published struct {
	id       string
	m        *proto.Message
	node     *simNode
	client   *simClient // nil: the one that never waits
	accepted bool
	custody  core.CustodyAt // with which it was accepted
	cut      bool           // its node crashed before it was accepted: it may come or not
	unclear  bool           // another retained message came at nearly the same time
	due      []*standing    // subscriptions that it must reach
	groups   map[string]bool
	took     map[string]int        // shared subscription → how many got it
	sent     map[string][]*simNode // shared subscription → to whom it was sent for it
	at       time.Duration
}

// standing is a subscription that stands, or stood.
type standing struct {
	node     *simNode
	filter   string
	group    string
	qos      byte
	promised bool
	over     bool
}

// subscribe registers a filter ("$share/G/..." for a shared subscription) at a node.
func (v *simNode) subscribe(filter string, qos byte) *standing {
	name, inner := "", filter
	if rest, ok := strings.CutPrefix(filter, "$share/"); ok {
		name, inner, _ = strings.Cut(rest, "/")
	}
	st := &standing{node: v, filter: inner, group: name, qos: qos}
	if old := v.interests[filter]; old != nil {
		old.over = true
	}
	v.interests[filter] = st
	v.s.stands = append(v.s.stands, st)
	v.register(inner, func(local bool) {
		st.promised = !local
		v.s.note("node %d: %q stands, local %v", v.i, filter, local)
	})
	v.s.note("node %d subscribes %q", v.i, filter)
	return st
}

func (v *simNode) register(inner string, done func(bool)) {
	var i core.Interest
	for _, f := range sortedFilters(v.interests) {
		st := v.interests[f]
		if st.filter != inner || st.over {
			continue
		}
		if i.QoS = max(i.QoS, st.qos); st.group == "" {
			i.Plain = true
		} else {
			i.Groups = append(i.Groups, core.GroupInterest{Name: st.group, Members: 1, QoS: st.qos, Online: true})
		}
	}
	if v.s.diskTime > 0 {
		i.Hold = max(cmp.Or(v.s.hold, time.Hour), 0)
	}
	v.do(func() { v.n.Register(inner, i, done) })
}

func sortedFilters(m map[string]*standing) []string {
	var k []string
	for f := range m {
		k = append(k, f)
	}
	slices.Sort(k)
	return k
}

func (v *simNode) unsubscribe(filter string) {
	if st := v.interests[filter]; st != nil {
		v.s.note("node %d unsubscribes %q", v.i, filter)
		st.over = true
		delete(v.interests, filter)
		v.register(st.filter, nil)
	}
}

// wants reports whether the node's own plain subscribers match.
func (v *simNode) matches(name string) bool {
	for _, st := range v.interests {
		if st.group == "" && topic.Match(st.filter, name) {
			return true
		}
	}
	return false
}

func (v *simNode) publish(name string, qos byte, retain bool, payload string) *published {
	return v.publishFrom(nil, name, qos, retain, payload)
}

func (v *simNode) publishFrom(c *simClient, name string, qos byte, retain bool, payload string) *published {
	s := v.s
	p := &published{id: fmt.Sprintf("%d@%d", len(s.published), v.i), node: v, client: c, groups: map[string]bool{}, took: map[string]int{}, at: s.now}
	p.m = &proto.Message{Topic: name, QoS: qos, Retain: retain, Payload: []byte(payload), Properties: userProperty(p.id)}
	for _, st := range s.stands {
		if st.promised && !st.over && topic.Match(st.filter, name) && (s.merged || st.node.swarm == v.swarm) {
			p.due = append(p.due, st)
			if st.group != "" {
				p.groups[st.group+"/"+st.filter] = true
			}
		}
	}
	s.published = append(s.published, p)
	if qos > 0 {
		s.owed = append(s.owed, p)
	}
	if c != nil {
		c.sent = append(c.sent, p)
	}
	v.send(p)
	return p
}

// send hands a message of a client over to the node.
func (v *simNode) send(p *published) {
	qos, retain, c := p.m.QoS, p.m.Retain, p.client
	detour := v.n.Detour(p.m)
	pub := core.Publication{Message: p.m, Origin: p, Served: !detour, Awaited: v.s.awaited && qos > 0}
	switch {
	case qos == 2 && v.s.diskTime > 0:
		pub.Note = func() { v.disk.write(func(to *stores) { to.noted[p] = true }) }
		pub.Here = !detour && v.matches(p.m.Topic)
		pub.Served = !detour && !pub.Here
	case !detour && v.matches(p.m.Topic) && qos == 1 && v.s.keeps:
		pub.Here, pub.Served = true, false
	case !detour && v.matches(p.m.Topic):
		v.take(p)
	}
	if v.session != "" && pub.Served {
		p.took["session/"+v.session]++
	}
	if qos == 0 && !retain && !detour {
		pub.Message, pub.Lent = p.m.Clone(), true
	}
	if c != nil {
		pub.Origin, pub.Packet = c, uint16(slices.Index(c.sent, p)) //nolint:gosec // few are sent
	}
	v.do(func() { v.n.Publish(pub) })
	if pub.Lent { // and has something else in it now
		clear(pub.Message.Payload)
		clear(pub.Message.Properties)
	}
}

// userProperty is the MQTT 5 user property "id" with a value, as it goes over the wire.
func userProperty(value string) []byte {
	return append([]byte{0x26, 0, 2, 'i', 'd', 0, byte(len(value))}, value...)
}

// take notes that a node's plain subscribers got a message.
func (v *simNode) take(p *published) {
	if v.from[p]++; v.from[p] > 1 {
		v.s.fail("node %d got %s (%s QoS %d) %d times", v.i, p.id, p.m.Topic, p.m.QoS, v.from[p])
	}
	for i := len(v.got) - 1; !v.s.disorder && i >= 0 && i >= len(v.got)-400; i-- {
		q := v.got[i]
		if q.node == p.node && q.client == p.client && q.m.Topic == p.m.Topic && q.m.QoS == p.m.QoS && q.at > p.at {
			v.s.fail("node %d got %s after %s (%s QoS %d)", v.i, p.id, q.id, p.m.Topic, p.m.QoS)
			break
		}
	}
	v.got = append(v.got, p)
}

// idOf is the identity of what a receipt is of; zero for none.
func idOf(r *core.Receipt) (id core.Identity) {
	if r != nil {
		id = r.Identity()
	}
	return id
}

// sessionTakes has a session that goes on without the node that it was at take what came to its node. What came for itself before it knows
// again, and the other way about.
func (v *simNode) sessionTakes(p *published, r *core.Receipt) {
	if _, had := v.disk.live.entries[entryKey{idOf(r), proto.Group{Name: "session", Filter: v.session}}]; had {
		return
	}
	p.took["session/"+v.session]++
	if r != nil {
		k := plainly(r.Identity(), v.session)
		v.disk.write(func(to *stores) { to.entries[k] = false })
	}
}

// plainly is how a session's having had what came to its node is on the disk.
func plainly(id core.Identity, name string) entryKey {
	return entryKey{id, proto.Group{Name: "to the node", Filter: name}}
}

// find returns a message as it was published; nil: it was not.
func (s *sim) find(m *proto.Message) *published {
	i := slices.IndexFunc(s.published, func(p *published) bool { return bytes.Equal(p.m.Properties, m.Properties) })
	if i < 0 {
		return nil
	}
	return s.published[i]
}

// noteSent notes for which groups a message was sent to a node.
func (s *sim) noteSent(d *proto.Deliver, to *simNode) {
	for _, g := range d.Groups {
		p, key := s.find(d.Message), g.Name+"/"+g.Filter
		if p == nil { // a test's own, or a will
			return
		}
		if p.sent == nil {
			p.sent = map[string][]*simNode{}
		}
		p.sent[key] = append(p.sent[key], to)
	}
}

func (v *simNode) deliver(d core.Delivery) {
	s, life := v.s, v.life
	p := s.find(d.Message)
	if p == nil {
		s.fail("node %d got a message that nobody published: %v", v.i, d.Message)
		return
	}
	v.came = append(v.came, p)
	queued := []proto.Group{}
	_, brought := v.disk.live.entries[entryKey{idOf(d.Receipt), carriedGroup}] // and known again
	if d.Plain && v.matches(p.m.Topic) && !brought {
		if d.Receipt != nil && s.diskTime > 0 {
			queued = append(queued, proto.Group{})
		} else {
			v.take(p)
		}
	}
	if d.Plain && v.session != "" {
		v.sessionTakes(p, d.Receipt)
	}
	for _, g := range d.Groups {
		key := g.Name + "/" + g.Filter
		if _, had := v.disk.live.entries[plainly(idOf(d.Receipt), g.Filter)]; had && g.Name == "session" {
			continue
		}
		if v.interests["$share/"+g.Name+"/"+g.Filter] == nil && g.Name != "session" && d.Receipt != nil {
			s.after(0, func() { v.doIn(life, func() { v.n.Refuse(d.Receipt, g) }) })
			continue
		}
		if d.Receipt != nil && s.diskTime > 0 {
			queued = append(queued, g)
			continue
		}
		// Where links break, two nodes may each take themselves for the rendezvous for a moment, and choose differently.
		if p.took[key]++; p.took[key] > 1 && !s.disorder {
			s.fail("shared subscription %s got %s %d times", key, p.id, p.took[key])
		}
	}
	if len(queued) > 0 {
		s.byID[d.Receipt.Identity()] = p
		for _, g := range queued { // it is a new one to the clients, under a packet ID of its own
			delete(v.began, entryKey{d.Receipt.Identity(), g})
		}
		v.queue(p, d.Receipt.Identity(), queued, func() { v.n.Done(d.Receipt) })
		return
	}
	if d.Receipt != nil {
		s.after(s.delay(), func() { v.doIn(life, func() { v.n.Done(d.Receipt) }) })
	}
}
