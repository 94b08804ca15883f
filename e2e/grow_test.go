package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func notYet(format string, args ...any) error { return fmt.Errorf(format, args...) }

// TestAloneThenSwarm has a node serve clients alone, two others make a swarm of their own, and then a fourth that
// knows both sides. Nothing is restarted: who was subscribed hears the other side, and what was retained on one
// side is known on the other.
func TestAloneThenSwarm(t *testing.T) {
	long(t)
	alone := newNode(t, "alone", "--open")
	alone.start()
	alone.ready()
	pair := startSwarm(t, 2, setup{})

	here, there := connect(t, alone.mqtt), connect(t, pair[1].mqtt)
	for _, side := range []struct {
		name string
		c    *client
	}{{"here", here}, {"there", there}} {
		side.c.subscribe(2, "talk/#", "+/root", "$share/group/turns/#")
		side.c.retain("kept/"+side.name, "by "+side.name, 1)
		side.c.retain("both/x", "by "+side.name, 1) // there is later
		side.c.publish("talk/alone", side.name, 1)
		if got := side.c.wait(t, 1)[0].payload; got != side.name {
			t.Fatalf("%q came %s before the sides met", got, side.name)
		}
	}

	bridge := newNode(t, "bridge", "--open", "--bootstrap", alone.status().Addresses[0], "--bootstrap", pair[0].status().Addresses[0])
	bridge.start()
	bridge.ready()
	all := append([]*node{alone, bridge}, pair...)
	meet(t, all...)

	heal(t, all, here, there)

	t.Run("standing subscriptions", func(t *testing.T) {
		for i, from := range all {
			pub := connect(t, from.mqtt)
			for qos := range byte(3) {
				for _, topic := range []string{fmt.Sprintf("talk/%d", i), fmt.Sprintf("first%d/root", i)} {
					pub.publish(topic, numbered(int(qos)), qos)
				}
			}
		}
		for name, c := range map[string]*client{"here": here, "there": there} {
			eventually(t, patience, func() error {
				seen := map[string]int{}
				for _, m := range c.all() {
					seen[m.topic+" "+m.payload]++
				}
				var wrong []string
				for i, from := range all {
					for _, topic := range []string{fmt.Sprintf("talk/%d", i), fmt.Sprintf("first%d/root", i)} {
						for qos := range 3 {
							if times := seen[topic+" "+numbered(qos)]; times != 1 {
								wrong = append(wrong, fmt.Sprintf("%s at QoS %d from %s %d times", topic, qos, from.name, times))
							}
						}
					}
				}
				if len(wrong) > 0 {
					return notYet("these came %s other than once: %v", name, wrong)
				}
				return nil
			})
		}
	})
	t.Run("retained messages", func(t *testing.T) {
		for _, n := range all {
			eventually(t, patience, func() error { // the sides tell one another what they have
				c := connect(t, n.mqtt)
				defer c.bye()
				c.subscribe(1, "kept/#", "both/#")
				end := c.fence("fence/"+c.id, 1)
				c.subscribe(1, "fence/"+c.id)
				end.send()
				got := c.until(t, patience, "the fence", func(got []message) bool { // what is retained elsewhere may come behind it
					return slices.ContainsFunc(got, func(m message) bool { return m.payload == end.text })
				})
				has := map[string]string{}
				for _, m := range got {
					has[m.topic] = m.payload
				}
				if has["kept/here"] != "by here" || has["kept/there"] != "by there" || has["both/x"] != "by there" {
					return notYet("%s has %v", n.name, has)
				}
				return nil
			})
		}
	})
	t.Run("shared subscriptions", func(t *testing.T) {
		const n = 40
		before := map[*client]int{here: len(here.all()), there: len(there.all())}
		connect(t, bridge.mqtt).series("turns/x", 1, n)
		eventually(t, patience, func() error {
			sum := 0
			for c, b := range before {
				sum += len(c.all()) - b
			}
			if sum != n {
				return notYet("%d messages came to the group, want %d", sum, n)
			}
			return nil
		})
	})
}

// heal waits until the sides have told each other who is subscribed: until what any node publishes is heard on both
// sides, whichever node is the rendezvous. What was published in between is not promised to anybody: the promise of
// a SUBACK that was given to one side holds for the other from then on.
func heal(t *testing.T, nodes []*node, clients ...*client) {
	t.Helper()
	began := time.Now()
	for _, from := range nodes {
		pub := connect(t, from.mqtt)
		for _, by := range nodes {
			for try := 0; ; try++ {
				topic := strings.TrimSuffix(topicAt(t, from, by, fmt.Sprintf("heal-%s-%d-", pub.id, try)), "x") + "root"
				pub.publish(topic, "", 1)
				if heard(topic, clients...) {
					break
				}
				if time.Since(began) > patience {
					for _, n := range nodes {
						t.Logf("%s: %+v\n%+v", n.name, n.locate(topic), n.status())
					}
					t.Fatalf("after %v, %s, published by %s by way of %s, is not heard by everybody: %v", patience, topic, from.name, by.name, hear(topic, clients...))
				}
			}
		}
	}
}

// heard waits a second for a topic to reach all clients.
func heard(topic string, clients ...*client) bool {
	for until := time.Now().Add(time.Second); time.Now().Before(until); time.Sleep(poll) {
		if !slices.Contains(hear(topic, clients...), false) {
			return true
		}
	}
	return false
}

// hear tells which clients have a message of a topic.
func hear(topic string, clients ...*client) (has []bool) {
	for _, c := range clients {
		has = append(has, slices.ContainsFunc(c.all(), func(m message) bool { return m.topic == topic }))
	}
	return has
}
