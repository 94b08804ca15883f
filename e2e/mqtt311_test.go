package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestMQTT311 checks from MQTT 3.1.1 clients, which most devices are, that nodes are one broker. Each case has
// publishers and subscribers at different nodes, and topics of its own.
func TestMQTT311(t *testing.T) {
	long(t)
	for _, c := range []struct {
		name string
		n    int
		setup
	}{
		{"open", 3, setup{}},
		{"private", 3, setup{private: true}},
		{"five", 5, setup{}},
		{"depth2", 3, setup{flags: []string{"--set", "locations.depth=2"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			nodes := startSwarm(t, c.n, c.setup)
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) { c.run(&place{t, nodes, c.name}) })
			}
		})
	}
}

var cases = []struct {
	name string
	run  func(*place)
}{
	{"qos0", func(p *place) { p.crossing(0) }},
	{"qos1", func(p *place) { p.crossing(1) }},
	{"qos2", func(p *place) { p.crossing(2) }},
	{"mqtt31", mqtt31},
	{"suback", subackIsAPromise},
	{"wake", subackWakes},
	{"order0", func(p *place) { p.order(0, 1000) }},
	{"order1", func(p *place) { p.order(1, 2000) }},
	{"order2", func(p *place) { p.order(2, 1000) }},
	{"downgrade", downgrade},
	{"wildcards", wildcards},
	{"root", rootWildcards},
	{"unsubscribe", unsubscribe},
	{"overlap", overlap},
	{"retained", retained},
	{"retainedClear", retainedClear},
	{"retainedLast", retainedLast},
	{"retainedWildcard", retainedWildcard},
	{"session1", func(p *place) { p.session(1) }},
	{"session2", func(p *place) { p.session(2) }},
	{"will", wills},
	{"fanOut", fanOut},
	{"shared", shared},
	{"large", large},
}

// place is what a case works with: nodes, and topics that no other case uses.
type place struct {
	*testing.T
	nodes  []*node
	prefix string
}

// at connects a client to a node, counting round.
func (p *place) at(i int, options ...with) *client {
	p.Helper()
	return connect(p.T, p.nodes[i%len(p.nodes)].mqtt, options...)
}

func (p *place) topic(rest string) string { return p.prefix + "/" + rest }

func (p *place) crossing(qos byte) {
	sub, pub := p.at(1), p.at(0)
	topic := p.topic("door")
	sub.subscribe(qos, topic)
	pub.publish(topic, "open", qos)
	got := sub.exactly(p, 1, pub.fence(topic, qos))
	if want := (message{topic, "open", qos, false}); got[0] != want {
		p.Fatalf("%+v came, want %+v", got[0], want)
	}
}

// mqtt31 has clients of the oldest version talk to newer ones, both ways.
func mqtt31(p *place) {
	for qos := range byte(3) {
		old, new := p.at(0, version31), p.at(1)
		topic := p.topic(fmt.Sprint(qos))
		old.subscribe(qos, topic+"/old")
		new.subscribe(qos, topic+"/new")
		old.publish(topic+"/new", "from 3.1", qos)
		new.publish(topic+"/old", "from 3.1.1", qos)
		if got := new.wait(p, 1)[0]; got != (message{topic + "/new", "from 3.1", qos, false}) {
			p.Errorf("the newer client got %+v", got)
		}
		if got := old.wait(p, 1)[0]; got != (message{topic + "/old", "from 3.1.1", qos, false}) {
			p.Errorf("the older client got %+v", got)
		}
	}
}

func subackIsAPromise(p *place) {
	sub, pub := p.at(1), p.at(2)
	const n = 30
	for i := range n {
		topic := fmt.Sprintf("%s-%d/x", p.prefix, i) // a first level that is new
		sub.subscribe(1, topic)
		pub.publish(topic, "now", 1)
	}
	sub.wait(p, n)
}

// subackWakes subscribes to what a publisher has been told that nobody wants.
func subackWakes(p *place) {
	sub, pub := p.at(1), p.at(0)
	topic := p.topic("quiet")
	for range 200 {
		pub.publish(topic, "nobody listens", 0)
	}
	sub.subscribe(0, topic)
	for i := range 20 {
		pub.publish(topic, numbered(i), 0)
	}
	wanted := func(got []message) []message { // the others may still have been on their way
		return slices.DeleteFunc(got, func(m message) bool { return m.payload == "nobody listens" })
	}
	got := sub.until(p, patience, "20 messages", func(got []message) bool { return len(wanted(got)) >= 20 })
	inOrder(p, wanted(got))
}

func (p *place) order(qos byte, n int) {
	sub, pub := p.at(1), p.at(0)
	topic := p.topic("seq")
	sub.subscribe(qos, topic)
	pub.series(topic, qos, n)
	inOrder(p, sub.exactly(p, n, pub.fence(topic, qos)))
}

func downgrade(p *place) {
	pub := p.at(0)
	topic := p.topic("x")
	subs := []*client{p.at(1), p.at(2)}
	for qos, s := range subs {
		s.subscribe(byte(qos), topic)
	}
	pub.publish(topic, "v", 2)
	for qos, s := range subs {
		if got := s.wait(p, 1)[0]; int(got.qos) != qos {
			p.Errorf("QoS %d came, want %d", got.qos, qos)
		}
	}
}

func wildcards(p *place) {
	pub := p.at(0)
	topics := []string{"a", "a/b", "a/b/c", "a/c/c", "a//c", "b/b/c", "a/b/c/d"}
	for _, c := range []struct{ filter, want string }{
		{"a/+/c", "a/b/c a/c/c a//c"},
		{"a/#", "a a/b a/b/c a/c/c a//c a/b/c/d"},
		{"+/b/#", "a/b a/b/c b/b/c a/b/c/d"},
		{"a/b/+", "a/b/c"},
		{"+/+/c", "a/b/c a/c/c a//c b/b/c"},
	} {
		sub := p.at(1)
		sub.subscribe(1, p.topic(c.filter), p.topic("fence"))
		for _, topic := range topics {
			pub.publish(p.topic(topic), topic, 1)
		}
		var got []string
		for _, m := range sub.exactly(p, strings.Count(c.want, " ")+1, pub.fence(p.topic("fence"), 1)) {
			got = append(got, strings.TrimPrefix(m.topic, p.prefix+"/"))
		}
		want := strings.Fields(c.want)
		slices.Sort(want)
		slices.Sort(got) // topics may have locations of their own, and the order is kept within one
		if !slices.Equal(got, want) {
			p.Errorf("filter %s: %q came, want %q", c.filter, got, want)
		}
		sub.bye()
	}
}

func rootWildcards(p *place) {
	sub, pub := p.at(1), p.at(2)
	sub.subscribe(1, "+/"+p.prefix+"/#")
	for i := range 10 {
		pub.publish(fmt.Sprintf("%s-%d/%s/x", p.prefix, i, p.prefix), numbered(i), 1)
	}
	got := sub.wait(p, 10)
	slices.SortFunc(got, func(a, b message) int { return strings.Compare(a.payload, b.payload) }) // other locations, other ways
	inOrder(p, got)
}

func unsubscribe(p *place) {
	sub, pub := p.at(1), p.at(0)
	sub.subscribe(1, p.topic("x"), p.topic("fence"))
	pub.publish(p.topic("x"), "before", 1)
	sub.wait(p, 1)
	sub.unsubscribe(p.topic("x"))
	pub.publish(p.topic("x"), "after", 1)
	sub.exactly(p, 1, pub.fence(p.topic("fence"), 1))
}

// overlap has one client subscribe to a message three times: it comes once, at the highest QoS that was asked for.
func overlap(p *place) {
	sub, pub := p.at(1), p.at(0)
	sub.subscribe(0, p.topic("#"))
	sub.subscribe(2, p.topic("a/+"))
	sub.subscribe(1, p.topic("a/b"))
	pub.publish(p.topic("a/b"), "v", 2)
	if got := sub.exactly(p, 1, pub.fence(p.topic("a/b"), 2)); got[0].qos != 2 {
		p.Errorf("QoS %d came, want 2", got[0].qos)
	}
}

func retained(p *place) {
	live, pub := p.at(2), p.at(0)
	live.subscribe(1, p.topic("#"))
	pub.retain(p.topic("x"), "kept", 1)
	if got := live.wait(p, 1)[0]; got != (message{p.topic("x"), "kept", 1, false}) {
		p.Errorf("a standing subscription got %+v", got)
	}
	for i := range p.nodes {
		later := p.at(i)
		later.subscribe(1, p.topic("x"))
		if got := later.exactly(p, 1, pub.fence(p.topic("x"), 1)); got[0] != (message{p.topic("x"), "kept", 1, true}) {
			p.Errorf("a later subscription at node %d got %+v", i+1, got)
		}
	}
}

func retainedClear(p *place) {
	pub := p.at(0)
	pub.retain(p.topic("x"), "kept", 1)
	p.at(1).retain(p.topic("x"), "", 1)
	for i := range p.nodes {
		later := p.at(i)
		later.subscribe(1, p.topic("x"))
		later.exactly(p, 0, pub.fence(p.topic("x"), 1))
	}
}

func retainedLast(p *place) {
	var pubs []*client
	for i := range p.nodes {
		pubs = append(pubs, p.at(i))
	}
	for i := range 30 {
		pubs[i%len(pubs)].retain(p.topic("x"), numbered(i), 1)
	}
	for i := range p.nodes {
		later := p.at(i)
		later.subscribe(1, p.topic("x"))
		if got := later.exactly(p, 1, pubs[0].fence(p.topic("x"), 1)); got[0].payload != numbered(29) {
			p.Errorf("node %d has %q, want the last, %q", i+1, got[0].payload, numbered(29))
		}
	}
}

func retainedWildcard(p *place) {
	pub := p.at(0)
	const n = 200
	for i := range n {
		pub.retain(p.topic(fmt.Sprintf("many/%d", i)), "v", 1)
	}
	for i, filter := range []string{p.topic("many/+"), p.topic("#"), "+/many/+"} {
		later := p.at(i)
		later.subscribe(1, filter)
		seen := map[string]int{}
		for _, m := range later.exactly(p, n, pub.fence(p.topic("many/0"), 1)) {
			seen[m.topic]++
		}
		if len(seen) != n {
			p.Errorf("filter %s: %d topics came, want %d", filter, len(seen), n)
		}
		later.bye()
	}
}

// session has a persistent session miss 200 messages that come while its client is away.
func (p *place) session(qos byte) {
	id, topic := p.prefix+"-keeper", p.topic("x")
	keeper := p.at(1, named(id), keeping)
	if keeper.present {
		p.Fatal("there was a session before there was one")
	}
	keeper.subscribe(qos, topic)
	keeper.die()
	pub := p.at(0)
	pub.series(topic, qos, 200)
	keeper = p.at(1, named(id), keeping)
	if !keeper.present {
		p.Fatal("the session is gone")
	}
	inOrder(p, keeper.exactly(p, 200, pub.fence(topic, qos)))
	keeper.bye()
	p.at(1, named(id)) // a clean session ends it
}

func wills(p *place) {
	sub, pub := p.at(1), p.at(2)
	sub.subscribe(1, p.topic("#"))
	p.at(0, will(p.topic("polite"), "wrong", 1, false)).bye()
	p.at(0, will(p.topic("dead"), "gone", 1, true)).die()
	got := sub.exactly(p, 1, pub.fence(p.topic("fence"), 1))
	if got[0] != (message{p.topic("dead"), "gone", 1, false}) {
		p.Errorf("%+v came", got[0])
	}
	later := p.at(2)
	later.subscribe(1, p.topic("dead"))
	if m := later.wait(p, 1)[0]; m != (message{p.topic("dead"), "gone", 1, true}) {
		p.Errorf("a later subscription got %+v", m)
	}
}

func fanOut(p *place) {
	pub := p.at(0)
	var subs []*client
	for i := range 30 {
		s := p.at(i)
		s.subscribe(1, p.topic("x"))
		subs = append(subs, s)
	}
	pub.publish(p.topic("x"), "v", 1)
	for _, s := range subs {
		s.wait(p, 1)
	}
	end := pub.fence(p.topic("x"), 1)
	end.send()
	for i, s := range subs {
		if got := s.wait(p, 2); len(got) != 2 || got[1].payload != end.text {
			p.Errorf("subscriber %d: %s", i, brief(got))
		}
	}
}

// shared has three members, one at each node, which MQTT 3.1.1 clients can be too.
func shared(p *place) {
	const n = 90
	var members []*client
	for i := range p.nodes {
		m := p.at(i)
		m.subscribe(1, "$share/g/"+p.topic("x"))
		members = append(members, m)
	}
	plain := p.at(1)
	plain.subscribe(1, p.topic("x"))
	pub := p.at(0)
	pub.series(p.topic("x"), 1, n)
	inOrder(p, plain.wait(p, n))
	seen := map[string]int{}
	eventually(p, patience, func() error {
		clear(seen)
		for _, m := range members {
			for _, got := range m.all() {
				seen[got.payload]++
			}
		}
		if len(seen) < n {
			return fmt.Errorf("%d of %d messages came", len(seen), n)
		}
		return nil
	})
	for payload, times := range seen {
		if times != 1 {
			p.Errorf("%s came %d times", payload, times)
		}
	}
	for i, m := range members {
		if len(m.all()) == 0 {
			p.Errorf("the member at node %d got nothing", i+1)
		}
	}
}

func large(p *place) {
	sub, pub := p.at(1), p.at(0)
	sub.subscribe(1, p.topic("x"))
	payload := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	pub.publish(p.topic("x"), payload, 1)
	if got := sub.wait(p, 1); got[0].payload != payload {
		p.Errorf("%d bytes came, want %d that are the same", len(got[0].payload), len(payload))
	}
}
