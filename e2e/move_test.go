package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// TestMoves has clients with lasting sessions go from node to node while they publish and receive, as sensors on wheels do:
// what was acknowledged comes, at QoS 2 once, and in order.
func TestMoves(t *testing.T) {
	long(t)
	nodes := startSwarm(t, 3, setup{private: true})
	sub := newDurable(t, nodes[0].mqtt, "sub", "move/#", "move1/+", "move2/+")
	pub := newDurable(t, nodes[1].mqtt, "pub")
	fixed := newDurable(t, nodes[2].mqtt, "fixed")
	eventually(t, patience, sub.idle)
	topics := []string{"move/x", "move1/x", "move2/x"}
	const moves, each = 40, 50
	sent := 0
	for i := range moves {
		for range each {
			qos := byte(1 + sent%2)
			from := pub
			if sent/2%2 == 0 {
				from = fixed
			}
			from.publish(topics[rand.IntN(len(topics))], fmt.Sprintf("%d %s %d", qos, from.id, sent), qos) //nolint:gosec // whichever
			sent++
		}
		eventually(t, patience, sub.connected)
		sub.moveTo(nodes[(i+1)%3].mqtt)
		if i%4 == 3 {
			eventually(t, patience, pub.connected)
			pub.moveTo(nodes[rand.IntN(3)].mqtt) //nolint:gosec // whichever
		}
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond) //nolint:gosec // a pace, nothing is waited for
	}
	eventually(t, patience, pub.idle)
	eventually(t, patience, fixed.idle)
	eventually(t, patience, func() error {
		sub.mu.Lock()
		defer sub.mu.Unlock()
		if len(sub.got) < sent {
			return fmt.Errorf("%d of %d messages came", len(sub.got), sent)
		}
		return nil
	})
	for _, d := range []*durable{sub, pub} {
		eventually(t, patience, func() error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.left > 0 {
				return fmt.Errorf("%d old connections of %s live on", d.left, d.id)
			}
			return nil
		})
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	twice := 0
	for p, n := range sub.got {
		switch {
		case n > 1 && p[0] == '2':
			t.Errorf("%q came %d times", p, n)
		case n > 1:
			twice += n - 1
		}
	}
	t.Logf("%d messages, %d of QoS 1 more than once, %d connections", sent, twice, sub.connects)
	for _, moved := range nodes {
		for _, line := range []string{"sessions_arrived_total", "sessions_duplicates_total"} {
			t.Logf("%s: %s %v", moved.name, line, moved.metric("mozzie_"+line))
		}
	}
}

// TestMovesFromTheDead has a client go on elsewhere when its node has died: with its session, but what waited at that node comes
// when that is back.
func TestMovesFromTheDead(t *testing.T) {
	long(t)
	nodes := startSwarm(t, 3, setup{private: true})
	sub := newDurable(t, nodes[2].mqtt, "sub", "dead/#", "dead1/+")
	pub := newDurable(t, nodes[0].mqtt, "pub")
	eventually(t, patience, sub.idle)
	sent := 0
	publish := func(n int) { sent = pub.publishNumbered(n, sent, "dead/x", "dead1/x") }
	come := func(from, to int) {
		t.Helper()
		eventually(t, patience, func() error {
			sub.mu.Lock()
			defer sub.mu.Unlock()
			for i := from; i < to; i++ {
				if p := fmt.Sprintf("%d %d", 1+i%2, i); sub.got[p] == 0 {
					return fmt.Errorf("%q has not come, %d of %d have", p, len(sub.got), sent)
				}
			}
			return nil
		})
	}
	publish(100)
	come(0, 100)
	eventually(t, patience, sub.through) // what is open at a node that dies may come twice
	sub.pause()
	publish(200)
	nodes[2].kill()
	sub.moveTo(nodes[1].mqtt)
	publish(100)
	come(300, 400)
	nodes[2].start()
	nodes[2].ready()
	come(0, 400)
	publish(20)
	sub.moveTo(nodes[2].mqtt)
	publish(20)
	come(0, sent)
	sub.mu.Lock()
	defer sub.mu.Unlock()
	for p, n := range sub.got {
		if n > 1 && p[0] == '2' {
			t.Errorf("%q came %d times", p, n)
		}
	}
}

// TestGoesOnFromTheDestroyed has a client go on with its session, elsewhere or where it was, when its node has lost its disk: what that had not said to be
// done with comes from those that have custody of it, what its own clients published too.
func TestGoesOnFromTheDestroyed(t *testing.T) {
	long(t)
	for name, wiped := range map[string]string{"elsewhere": "", "its database": "db", "its key too": "*"} {
		t.Run(name, func(t *testing.T) {
			nodes := startSwarm(t, 4, setup{private: true})
			sub := newDurable(t, nodes[2].mqtt, "sub", "dead/#", "dead1/+")
			pub, own := newDurable(t, nodes[0].mqtt, "pub"), newDurable(t, nodes[2].mqtt, "own")
			eventually(t, patience, sub.idle)
			sent := 0
			publish := func(n int) { sent = pub.publishNumbered(n, sent, "dead/x", "dead1/x") }
			publish(100)
			eventually(t, patience, sub.through)
			sub.pause()
			publish(100)
			sent = own.publishNumbered(100, sent, "dead/x", "dead1/x")
			own.pause()
			time.Sleep(handedOver)
			nodes[2].kill()
			publish(100)
			if wiped == "" {
				sub.moveTo(nodes[1].mqtt)
			} else {
				found, err := filepath.Glob(filepath.Join(nodes[2].data, wiped))
				if err != nil || len(found) == 0 {
					t.Fatal(found, err)
				}
				for _, f := range found {
					if filepath.Base(f) != "swarm.key" {
						if err := os.RemoveAll(f); err != nil {
							t.Fatal(err)
						}
					}
				}
				nodes[2].start()
				nodes[2].ready()
				sub.moveTo(nodes[2].mqtt)
			}
			eventually(t, patience, sub.connected)
			publish(20)
			eventually(t, patience, func() error {
				sub.mu.Lock()
				defer sub.mu.Unlock()
				missing := 0
				for i := range sent {
					if sub.got[fmt.Sprintf("%d %d", 1+i%2, i)] == 0 {
						missing++
					}
				}
				if missing > 0 {
					return fmt.Errorf("%d of %d have not come", missing, sent)
				}
				return nil
			})
		})
	}
}

// TestDestroyedBesideOthers destroys a node with sessions of which one is away all the time, and one was for a while: what the others'
// clients had completed does not come to them again where they go on, though the node had not let go of it.
func TestDestroyedBesideOthers(t *testing.T) {
	long(t)
	nodes := startSwarm(t, 4, setup{private: true})
	var topics, filters []string
	for i := range 8 { // whose rendezvous is any of the nodes
		topics, filters = append(topics, fmt.Sprintf("beside%d/x", i)), append(filters, fmt.Sprintf("beside%d/#", i))
	}
	subscribed := func(id string) {
		c := newRawClient(t, nodes[2].mqtt, id)
		body := [][]byte{{0, 1}}
		for _, f := range filters {
			body = append(body, rawString(f), []byte{2})
		}
		c.send(rawPacket(0x82, body...))
		c.expect(0x90)
		c.close()
	}
	subscribed("away")
	subscribed("late")
	nodes[2].until("the clients are away", func(s admin.Status) bool { return s.Connections == 0 })
	sub, pub := newDurable(t, nodes[2].mqtt, "sub", filters...), newDurable(t, nodes[0].mqtt, "pub")
	eventually(t, patience, sub.idle)
	sent := pub.publishNumbered(400, 0, topics...)
	once := func(d *durable) {
		t.Helper()
		eventually(t, patience, func() error {
			d.mu.Lock()
			defer d.mu.Unlock()
			for i := range sent {
				if p := fmt.Sprintf("%d %d", 1+i%2, i); d.got[p] != 1 {
					return fmt.Errorf("%q has come to %s %d times", p, d.id, d.got[p])
				}
			}
			return nil
		})
	}
	once(sub)
	time.Sleep(handedOver)
	late := newDurable(t, nodes[2].mqtt, "late")
	once(late)
	time.Sleep(handedOver)
	nodes[2].kill()
	sub.moveTo(nodes[1].mqtt)
	late.moveTo(nodes[3].mqtt)
	eventually(t, patience, sub.connected)
	eventually(t, patience, late.connected)
	away := newDurable(t, nodes[0].mqtt, "away")
	once(away)
	sent = pub.publishNumbered(16, sent, topics...)
	for _, d := range []*durable{sub, late, away} {
		once(d)
	}
	time.Sleep(handedOver) // what would come again takes its time
	for _, d := range []*durable{sub, late, away} {
		once(d)
	}
}

// TestMovedThenDestroyed has a session go to another node, with all that waits for it, and that node be destroyed: what its client has not
// acknowledged there comes where it goes on, though the node that it was at first has let go of it.
func TestMovedThenDestroyed(t *testing.T) {
	long(t)
	nodes := startSwarm(t, 4, setup{private: true})
	away := newRawClient(t, nodes[0].mqtt, "away")
	away.send(rawPacket(0x82, []byte{0, 1}, rawString("moved/#"), []byte{2}))
	away.expect(0x90)
	away.close()
	nodes[0].until("the client is away", func(s admin.Status) bool { return s.Connections == 0 })
	pub := newDurable(t, nodes[3].mqtt, "pub")
	eventually(t, patience, pub.idle)
	sent := pub.publishNumbered(300, 0, "moved/x")
	time.Sleep(handedOver)
	newRawClient(t, nodes[1].mqtt, "away").close()
	nodes[0].until("the session has gone", func(s admin.Status) bool { return s.Sessions == 0 })
	nodes[1].kill()
	back := newDurable(t, nodes[2].mqtt, "away")
	eventually(t, patience, back.connected)
	eventually(t, patience, func() error {
		back.mu.Lock()
		defer back.mu.Unlock()
		for i := range sent {
			if p := fmt.Sprintf("%d %d", 1+i%2, i); back.got[p] != 1 {
				return fmt.Errorf("%q has come %d times", p, back.got[p])
			}
		}
		return nil
	})
}

// handedOver is how long a node that is well has what its clients publish to itself, with what a busy machine takes.
const handedOver = 3 * time.Second

// publishNumbered publishes n messages of QoS 1 and 2 by turns that say their QoS and number, two to a topic, and waits until all are through. sent is
// how many there were before; it returns how many there are now.
func (d *durable) publishNumbered(n, sent int, topics ...string) int {
	d.t.Helper()
	for range n {
		qos := byte(1 + sent%2)
		d.publish(topics[sent/2%len(topics)], fmt.Sprintf("%d %d", qos, sent), qos)
		sent++
	}
	eventually(d.t, patience, d.idle)
	return sent
}
