package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// willed is how a client with a will connects, by MQTT 5.
type willed struct {
	id      string
	resume  bool
	expiry  uint32 // of the session, in seconds
	qos     byte
	retain  bool
	delay   uint32 // of the will, in seconds
	topic   string // of the will; "": will/ID
	payload string // "": ID
}

// connectWilled connects a client, which reads nothing but CONNACK.
func connectWilled(t *testing.T, address string, w willed) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	flags := byte(0x04) | w.qos<<3
	if !w.resume {
		flags |= 0x02
	}
	if w.retain {
		flags |= 0x20
	}
	if w.topic == "" {
		w.topic = "will/" + w.id
	}
	if w.payload == "" {
		w.payload = w.id
	}
	_, _ = conn.Write(rawPacket(0x10, rawString("MQTT"), []byte{5, flags, 0, 0}, binary.BigEndian.AppendUint32([]byte{5, 0x11}, w.expiry),
		rawString(w.id), binary.BigEndian.AppendUint32([]byte{5, 0x18}, w.delay), rawString(w.topic), rawString(w.payload)))
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if first, body, err := readRaw(conn); err != nil || first != 0x20 || body[1] != 0 {
		t.Fatalf("CONNACK 0x%02x %x: %v", first, body, err)
	}
	return conn
}

// has reports how often a client got a message.
func (d *durable) has(payload string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.got[payload]
}

// lacks says which of some messages a client did not get.
func (d *durable) lacks(payloads map[string]bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p := range payloads {
		if d.got[p] == 0 {
			return fmt.Errorf("%s did not get %q, but %v", d.id, p, d.got)
		}
	}
	return nil
}

// TestWillsOfTheDead kills a node while clients with wills are connected to it, and does not start it again: the other nodes send
// their wills. When it is back after all, nothing is sent twice.
func TestWillsOfTheDead(t *testing.T) {
	nodes := startSwarm(t, 3, setup{private: true})
	victim := nodes[2]
	subs := []*durable{newDurable(t, nodes[0].mqtt, "sub0", "will/#"), newDurable(t, nodes[1].mqtt, "sub1", "will/#")}
	for _, s := range subs {
		eventually(t, patience, s.idle)
	}
	want := map[string]bool{}
	for qos := range byte(3) {
		for name, w := range map[string]willed{
			"clean": {}, "lasting": {resume: true, expiry: 3600}, "retained": {retain: true}, "delayed": {resume: true, expiry: 3600, delay: 2},
			"ending": {expiry: 2, delay: 3600},
		} {
			w.id, w.qos = fmt.Sprint(name, qos), qos
			connectWilled(t, victim.mqtt, w)
			want[w.id] = true
		}
	}
	bye := connectWilled(t, victim.mqtt, willed{id: "bye", qos: 1})
	_, _ = bye.Write([]byte{0xe0, 0})
	if _, _, err := readRaw(bye); err == nil {
		t.Fatal("an answer to DISCONNECT")
	}
	late := connectWilled(t, victim.mqtt, willed{id: "late", resume: true, expiry: 3600, delay: 3600, qos: 1})
	defer late.Close()
	victim.kill()
	began := time.Now()
	for _, s := range subs {
		eventually(t, patience, func() error { return s.lacks(want) })
	}
	t.Logf("the wills were there %v after the node's death", time.Since(began))
	fresh := newDurable(t, nodes[0].mqtt, "fresh", "will/#")
	retained := map[string]bool{"retained0": true, "retained1": true, "retained2": true}
	eventually(t, patience, func() error { return fresh.lacks(retained) })
	victim.start()
	victim.ready()
	eventually(t, patience, func() error { // it has asked what became of its wills, and drops those of sessions that are over
		if s := victim.status(); s.Sessions != 7 {
			return fmt.Errorf("%d sessions", s.Sessions)
		}
		return nil
	})
	pub := newDurable(t, victim.mqtt, "pub")
	pub.publish("will/end", "end", 1)
	for _, s := range subs {
		eventually(t, patience, func() error { return s.lacks(map[string]bool{"end": true}) })
		s.mu.Lock()
		for p, n := range s.got {
			if n > 1 || p == "bye" || p == "late" {
				t.Errorf("%s got %q %d times", s.id, p, n)
			}
		}
		s.mu.Unlock()
	}
	if n := nodes[0].metric("mozzie_wills_of_others_total") + nodes[1].metric("mozzie_wills_of_others_total"); n != float64(len(want)) {
		t.Errorf("%v wills were sent for the dead node, want %d", n, len(want))
	}
}

// TestWillsFalseAlarm stops a node for so long that the others send its clients' wills, and lets it go on: clients that are connected
// all the same have their retained state again, and their wills are armed anew.
func TestWillsFalseAlarm(t *testing.T) {
	nodes := startSwarm(t, 3, setup{private: true})
	victim := nodes[2]
	sub := newDurable(t, nodes[0].mqtt, "sub", "will/#")
	eventually(t, patience, sub.idle)
	c := connectWilled(t, victim.mqtt, willed{id: "thing", retain: true, qos: 1, topic: "will/status", payload: "offline"})
	_, _ = c.Write(rawPublish(5, 0x02|0x01, 1, "will/status", "online"))
	eventually(t, patience, func() error { return sub.lacks(map[string]bool{"online": true}) })
	waiting := connectWilled(t, victim.mqtt, willed{id: "waiting", resume: true, expiry: 3600, delay: 1, qos: 1})
	victim.signal(syscall.SIGSTOP)
	waiting.Close()
	began := time.Now()
	eventually(t, patience, func() error { return sub.lacks(map[string]bool{"offline": true, "waiting": true}) })
	t.Logf("the wills were there %v after the node was stopped", time.Since(began))
	victim.signal(syscall.SIGCONT)
	eventually(t, patience, func() error {
		fresh := newDurable(t, nodes[1].mqtt, fmt.Sprint("fresh", time.Now().UnixNano()), "will/status")
		eventually(t, patience, fresh.idle)
		eventually(t, patience, func() error {
			if fresh.has("online")+fresh.has("offline") == 0 {
				return errors.New("nothing is retained")
			}
			return nil
		})
		if fresh.has("online") == 0 {
			return errors.New("the client is offline")
		}
		return nil
	})
	eventually(t, patience, func() error {
		if n := victim.metric("mozzie_wills_false_total"); n < 1 {
			return errors.New("no false alarm is counted")
		}
		return nil
	})
	c.Close() // the will is armed anew
	eventually(t, patience, func() error {
		if n := sub.has("offline"); n != 2 {
			return fmt.Errorf("the will came %d times", n)
		}
		return nil
	})
	if n := sub.has("waiting"); n != 1 {
		t.Errorf("a will that was not armed again came %d times", n)
	}
}

// TestWillsResumed kills a node, and has clients go on at another one in time: they leave no will.
func TestWillsResumed(t *testing.T) {
	nodes := startSwarm(t, 3, setup{private: true})
	victim := nodes[2]
	sub := newDurable(t, nodes[0].mqtt, "sub", "will/#")
	eventually(t, patience, sub.idle)
	for _, id := range []string{"goes", "begins", "stays"} {
		connectWilled(t, victim.mqtt, willed{id: id, resume: true, expiry: 3600, qos: 1})
	}
	victim.kill()
	goes := connectWilled(t, nodes[1].mqtt, willed{id: "goes", resume: true, expiry: 3600, qos: 1, payload: "second"})
	connectWilled(t, nodes[1].mqtt, willed{id: "begins", expiry: 3600, qos: 1})
	eventually(t, patience, func() error { return sub.lacks(map[string]bool{"stays": true}) })
	victim.start()
	victim.ready()
	eventually(t, patience, func() error {
		if s := victim.status(); s.Sessions != 1 {
			return fmt.Errorf("%d sessions", s.Sessions)
		}
		return nil
	})
	goes.Close()
	eventually(t, patience, func() error { return sub.lacks(map[string]bool{"second": true}) })
	sub.mu.Lock()
	defer sub.mu.Unlock()
	for p, n := range sub.got {
		if n != 1 || p != "stays" && p != "second" {
			t.Errorf("%q came %d times", p, n)
		}
	}
	if strings.Contains(fmt.Sprint(sub.got), "goes") {
		t.Errorf("the client that went on left a will: %v", sub.got)
	}
}

// TestWillsOfTwo: of two nodes, in an open swarm, the one that is left sends the wills of the other; and when that is back, its client
// leaves another one.
func TestWillsOfTwo(t *testing.T) {
	nodes := startSwarm(t, 2, setup{})
	victim := nodes[1]
	sub := newDurable(t, nodes[0].mqtt, "sub", "will/#")
	eventually(t, patience, sub.idle)
	connectWilled(t, victim.mqtt, willed{id: "thing", resume: true, expiry: 3600, qos: 1, payload: "first"})
	victim.kill()
	began := time.Now()
	eventually(t, patience, func() error { return sub.lacks(map[string]bool{"first": true}) })
	t.Logf("the will was there %v after the node's death", time.Since(began))
	victim.start()
	victim.ready()
	c := connectWilled(t, victim.mqtt, willed{id: "thing", resume: true, expiry: 3600, qos: 1, payload: "second"})
	c.Close()
	eventually(t, patience, func() error { return sub.lacks(map[string]bool{"second": true}) })
	if n := sub.has("first"); n != 1 {
		t.Errorf("the first will came %d times", n)
	}
}
