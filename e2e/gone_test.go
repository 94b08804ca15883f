package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// TestLeaveForGood has one node of three leave for good while messages wait for a session at another. It does not while a session
// would be lost, and a client that is connected takes its own along. Afterwards all that was acknowledged comes, the other
// two are whole at once, nobody waits for the one that left, and it is not started again.
func TestLeaveForGood(t *testing.T) {
	long(t)
	nodes := startSwarm(t, 3, setup{private: true})
	rest, leaver := nodes[:2], nodes[2]
	topics := []string{topicAt(t, rest[0], rest[0], "gone"), topicAt(t, rest[0], rest[1], "gone"), topicAt(t, rest[0], leaver, "gone")}
	away := newDurable(t, rest[1].mqtt, "away", topics...)
	moves := newDurable(t, leaver.mqtt, "moves", topics...)
	pubs := []*durable{newDurable(t, leaver.mqtt, "pub0"), newDurable(t, rest[0].mqtt, "pub1")}
	for _, d := range []*durable{away, moves} {
		eventually(t, patience, d.idle)
	}
	away.pause()
	moves.pause()
	sent := 0
	publish := func(n int, from ...*durable) {
		for range n {
			qos := byte(1 + sent%2)
			from[sent/2%len(from)].publish(topics[sent/2%3], fmt.Sprintf("%d %d", qos, sent), qos)
			sent++
		}
		for _, p := range from {
			eventually(t, patience, p.idle)
		}
	}
	come := func(d *durable) {
		t.Helper()
		eventually(t, patience, func() error {
			d.mu.Lock()
			defer d.mu.Unlock()
			for i := range sent {
				switch p := fmt.Sprintf("%d %d", 1+i%2, i); {
				case d.got[p] == 0:
					return fmt.Errorf("%s: %q has not come, %d of %d have", d.id, p, len(d.got), sent)
				case d.got[p] > 1 && i%2 == 1:
					t.Fatalf("%s: %q came %d times", d.id, p, d.got[p])
				}
			}
			return nil
		})
	}
	publish(120, pubs...)
	if _, stderr, code := mozzie(t, "leave", "--data", leaver.data); code != 3 || !strings.Contains(stderr, "sessions with") {
		t.Errorf("it leaves though a session is lost: %d, %s", code, stderr)
	}
	moves.moveTo(leaver.mqtt) // it is connected now, and takes its session along when it has to go
	come(moves)
	pubs[0].moveTo(rest[0].mqtt)
	eventually(t, patience, pubs[0].connected)
	done := make(chan struct{})
	var stdout, stderr string
	var code int
	go func() {
		defer close(done)
		stdout, stderr, code = mozzie(t, "leave", "--data", leaver.data, "--json")
	}()
	leaver.untilStopping()
	moves.moveTo(rest[0].mqtt)
	publish(60, pubs...)
	<-done
	var left admin.Left
	if err := json.Unmarshal([]byte(stdout), &left); err != nil || code != 0 || left.Lost.Sessions != 0 {
		t.Fatalf("%d, %v: %s%s", code, err, stdout, stderr)
	}
	leaver.stopped()
	meet(t, rest...)
	for i, n := range rest {
		if !connect5(t, n.mqtt).promised(1, fmt.Sprintf("after%d/#", i), "+/after") {
			t.Errorf("%s: a subscription is promised locally", n.name)
		}
		if out, _, _ := mozzie(t, "peers", "--data", n.data); strings.Contains(out, leaver.id) {
			t.Errorf("%s still knows the node that left: %s", n.name, out)
		}
		for _, topic := range topics {
			for _, m := range n.locate(topic).Members {
				if m.PeerID == leaver.id {
					t.Errorf("%s: the node that left is in the set of %s", n.name, topic)
				}
			}
		}
	}
	publish(30, pubs...)
	away.moveTo(rest[1].mqtt)
	come(away)
	come(moves)
	for _, n := range rest {
		n.until("has nothing in custody", func(s admin.Status) bool { return s.Custody == 0 })
	}
	if _, stderr, code := mozzie(t, leaver.args...); code != 2 || !strings.Contains(stderr, "has left its swarm for good") {
		t.Errorf("the node is started again: %d, %s", code, stderr)
	}
}

// TestForget has one node of two lost, and forgotten: the other is whole by itself, and lets it in again when it comes back.
func TestForget(t *testing.T) {
	long(t)
	nodes := startSwarm(t, 2, setup{private: true})
	stays, goes := nodes[0], nodes[1]
	crossing(t, stays, goes, "forget/1")
	if _, stderr, code := mozzie(t, "nodes", "forget", goes.id, "--data", stays.data); code != 1 || !strings.Contains(stderr, "is connected") {
		t.Errorf("a node that is there is forgotten: %d, %s", code, stderr)
	}
	goes.kill()
	stays.until("has no peers", func(s admin.Status) bool { return s.Peers == 0 })
	c := connect5(t, stays.mqtt)
	if c.promised(1, "forget/before") {
		t.Error("a subscription is promised without a majority")
	}
	if _, stderr, code := mozzie(t, "nodes", "forget", goes.id, "--data", stays.data); code != 0 {
		t.Fatalf("%d: %s", code, stderr)
	}
	eventually(t, patience, func() error {
		if l := stays.locate("forget/1"); len(l.Members) != 1 {
			return fmt.Errorf("the set has %d members", len(l.Members))
		}
		return nil
	})
	if !c.promised(1, "forget/after") {
		t.Error("alone for good, a node promises for itself alone")
	}
	goes.start()
	goes.ready()
	meet(t, nodes...)
	crossing(t, goes, stays, "forget/2")
	crossing(t, stays, goes, "forget/3")
}

// untilStopping waits until the node takes no clients any more.
func (n *node) untilStopping() {
	n.t.Helper()
	n.until("is stopping", func(s admin.Status) bool { return !s.Ready })
}
