package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/e2e/ether"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// TestPartition cuts five machines into two and three while clients of both sides publish and subscribe. Both sides go on serving
// whom they can reach. After the cut everything that was acknowledged has come, at QoS 2 once, retained messages are the newest
// at every node, what was subscribed to meanwhile counts everywhere, and nothing is left over.
func TestPartition(t *testing.T) {
	long(t)
	for _, private := range []bool{false, true} {
		t.Run(fmt.Sprintf("private=%v", private), func(t *testing.T) { partition(t, private) })
	}
}

func partition(t *testing.T, private bool) {
	const each = 20 // messages of a client at each QoS
	w := newNetwork(t, 5, wire{prefix: "10.79.0.", delay: 2 * time.Millisecond})
	nodes := w.start(t, private)
	meet(t, nodes...)
	// One location has members on both sides, which so serve it during the cut. Others are wherever they are, and their
	// subscriptions have a wildcard: what is published there may wait for the other side.
	left := func(i int) bool { return i < 2 }
	served := ""
	for k := 0; served == ""; k++ {
		sides := map[bool]bool{}
		for _, m := range nodes[0].locate(fmt.Sprint("served", k)).Members {
			sides[left(slices.IndexFunc(nodes, func(n *node) bool { return n.id == m.PeerID }))] = true
		}
		if len(sides) == 2 {
			served = fmt.Sprint("served", k)
		}
	}
	var subs, pubs []*client
	for i, n := range nodes {
		subs = append(subs, connect(t, n.mqtt, w.hosts[i].within, keeping))
		pubs = append(pubs, connect(t, n.mqtt, w.hosts[i].within))
		subs[i].subscribe(2, served+"/#", "+/anywhere")
	}
	sent := map[message]bool{}
	publish := func(stage string) (all [][]message) { // by publisher
		for i, p := range pubs {
			all = append(all, nil)
			for k := range 4 * each {
				m := message{topic: served + "/x", payload: fmt.Sprintf("%s %d %d", stage, i, k), qos: byte(1 + k%2)} //nolint:gosec // 1 or 2
				if k/2%2 == 0 {
					m.topic = fmt.Sprintf("cut%d/anywhere", k%7)
				}
				p.publish(m.topic, m.payload, m.qos)
				all[i] = append(all[i], m)
				sent[m] = true
			}
		}
		return all
	}
	has := func(c *client, want ...message) {
		t.Helper()
		c.until(t, patience, fmt.Sprintf("%d messages", len(want)), func(got []message) bool {
			return !slices.ContainsFunc(want, func(m message) bool { return !slices.Contains(got, m) })
		})
	}

	all := publish("before")
	pubs[0].retain("kept/value", "before", 1)
	pubs[0].retain("kept/gone", "before", 1)
	for _, c := range subs {
		has(c, slices.Concat(all...)...)
	}

	w.Set(func(from, to int) ether.Link {
		return ether.Link{Delay: 2 * time.Millisecond, Cut: left(from) != left(to)}
	})
	during := publish("during")
	for i, c := range subs { // of its own side
		for j, ms := range during {
			if left(i) == left(j) {
				has(c, slices.DeleteFunc(slices.Clone(ms), func(m message) bool { return !strings.HasPrefix(m.topic, served) })...)
			}
		}
	}
	var late []*client
	for i, n := range nodes {
		c := connect(t, n.mqtt, w.hosts[i].within)
		c.subscribe(2, fmt.Sprintf("late%d/#", i))
		late = append(late, c)
	}
	pubs[1].retain("kept/value", "left", 1)
	pubs[1].retain("kept/gone", "left", 1)
	pubs[2].retain("kept/value", "right, and newer", 1)
	pubs[4].retain("kept/gone", "", 1)

	w.Set(func(int, int) ether.Link { return ether.Link{Delay: 2 * time.Millisecond} })
	healed := time.Now()
	meet(t, nodes...)
	after := publish("after")
	for i := range nodes {
		topic := fmt.Sprintf("late%d/x", i)
		eventually(t, patience, func() error { // at the heal nobody of the other side may have heard of it yet
			pubs[(i+2)%5].publish(topic, "after", 1)
			if !heard(topic, late[i]) {
				return fmt.Errorf("%s does not come to %s", topic, nodes[i].name)
			}
			return nil
		})
		t.Logf("%s serves a subscription of the cut %v after it", nodes[i].name, time.Since(healed))
	}
	for _, c := range subs {
		has(c, slices.Concat(slices.Concat(during...), slices.Concat(after...))...)
	}
	pubs[0].retain("kept/end", "after", 1)
	for i, n := range nodes {
		eventually(t, patience, func() error {
			c := connect(t, n.mqtt, w.hosts[i].within)
			defer c.bye()
			c.subscribe(1, "kept/#")
			got := c.until(t, patience, "what is retained", func(got []message) bool { return slices.Contains(got, message{"kept/end", "after", 1, true}) })
			if want := (message{"kept/value", "right, and newer", 1, true}); len(got) != 2 || !slices.Contains(got, want) {
				return fmt.Errorf("%s has retained %v", n.name, got)
			}
			return nil
		})
		n.until("has nothing in custody", func(s admin.Status) bool { return s.Custody == 0 })
	}
	for i, c := range subs {
		count := map[message]int{}
		for _, m := range c.all() {
			count[m]++
		}
		for m := range sent {
			if count[m] != 1 {
				t.Errorf("the subscriber at %s got %v %d times", nodes[i].name, m, count[m])
			}
		}
	}
}
