package roam

import (
	"fmt"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// away makes a client whose session, at the first node, has something waiting for it.
func away(w *world) (*client, *traffic) {
	c := newClient(w, "c", "t/#", w.nodes[0])
	settle(w.t, time.Minute, c.standing)
	c.moveTo(nil)
	m := &traffic{w: w, c: c}
	m.publish(40)
	time.Sleep(time.Second)
	return c, m
}

// TestPartBesideTheLost: what a node has left of a session that went on to one which is lost before it had that comes to where the session goes on next,
// though that waits for the lost one, or for one that does.
func TestPartBesideTheLost(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 4)
		defer w.close()
		c, m := away(w)
		c.moveTo(w.nodes[1])
		time.Sleep(time.Duration(w.below(200)) * time.Millisecond)
		w.nodes[1].crash()
		c.moveTo(w.nodes[2])
		settle(t, time.Minute, c.attached)
		if seed%2 == 0 {
			time.Sleep(time.Duration(w.below(10)) * time.Second)
			c.moveTo(w.nodes[3])
			settle(t, time.Minute, c.attached)
		}
		m.publish(10)
		settle(t, 5*time.Minute, m.come)
		settle(t, 10*time.Minute, func() error {
			if left := w.nodes[0].b.Left(); len(left) > 0 {
				return fmt.Errorf("the first node has still %v", left)
			}
			return nil
		})
		m.check(t, false)
	})
}

// TestLostMeanwhile: a session whose node is lost before all of it has come gets what was sent there from those who have custody of it, and
// does not wait with what comes here until the other is back.
func TestLostMeanwhile(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 3)
		defer w.close()
		c, m := away(w)
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, c.attached)
		w.nodes[0].crash()
		m.publish(20)
		settle(t, time.Minute, m.come)
		if seed%2 == 0 {
			w.nodes[0].start()
			time.Sleep(time.Minute)
		}
		m.publish(20)
		settle(t, time.Minute, m.come)
		m.check(t, false)
	})
}

// TestGoneForGoodMeanwhile: a session whose node is gone for good, and forgotten, before all of it has come goes on without the rest.
func TestGoneForGoodMeanwhile(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 3)
		defer w.close()
		c, m := away(w)
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, c.attached)
		w.nodes[0].crash()
		w.mu.Lock()
		w.forgotten[w.nodes[0].id] = true
		w.mu.Unlock()
		time.Sleep(2 * time.Second) // what goes to it alone is lost with it
		before := m.sent
		m.publish(20)
		settle(t, time.Minute, func() error {
			w.mu.Lock()
			defer w.mu.Unlock()
			for i := before; i < m.sent; i++ {
				if c.got[payload(i)] == 0 {
					return fmt.Errorf("%q has not come", payload(i))
				}
			}
			return nil
		})
	})
}

// TestDoubted: what comes to a node for others, and would come late for a session that has gone on from there, is not sent to where that has it
// itself.
func TestDoubted(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 3)
		defer w.close()
		w.old = true
		c, m := away(w)
		other := newClient(w, "o", "t/#", w.nodes[0])
		settle(t, time.Minute, other.standing)
		w.nodes[2].crash()
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, m.come)
		time.Sleep(time.Duration(2+w.below(10)) * time.Second)
		before := w.nodes[1].b.Stats().Twice.Load()
		for range 100 {
			m.publish(1)
			time.Sleep(time.Duration(w.below(100)) * time.Millisecond)
		}
		settle(t, time.Minute, m.come)
		time.Sleep(5 * time.Second)
		if n := w.nodes[1].b.Stats().Twice.Load() - before; n > 20 { // where it is asked just before it has come
			t.Errorf("%d of 100 messages were sent to where the session is twice", n)
		}
		if n := w.nodes[0].b.Stats().QueuedMessages.Load(); n > 0 {
			t.Errorf("%d messages are left at the first node", n)
		}
		m.check(t, false)
	})
}

// TestRecentIsNotLate: what others at a node get, where a session was that everybody knows to be elsewhere by now, does not wait there to be
// asked about, even while a node is out of reach that may have something late. That comes nevertheless.
func TestRecentIsNotLate(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 3)
		defer w.close()
		c, m := away(w)
		other := newClient(w, "o", "t/#", w.nodes[0])
		settle(t, time.Minute, other.standing)
		w.nodes[2].crash()
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, m.come)
		time.Sleep(time.Duration(10+w.below(10)) * time.Second)
		before := w.nodes[0].store.appended.Load()
		for range 100 {
			m.publish(1)
			time.Sleep(time.Duration(w.below(100)) * time.Millisecond)
		}
		settle(t, time.Minute, m.come)
		if n := w.nodes[0].store.appended.Load() - before; n > 100 {
			t.Errorf("%d messages were stored for one session", n)
		}
		w.mu.Lock()
		w.old = true
		w.mu.Unlock()
		late := &proto.Message{Topic: "t/0", Payload: []byte(payload(m.sent)), QoS: byte(1 + m.sent%2)} //nolint:gosec // 1 or 2
		m.sent++
		w.nodes[0].b.Deliver([]mqttfront.Delivery{{Msg: late, Plain: true, Receipt: noReceipt{Epoch: 99, Seq: 1}}})
		settle(t, time.Minute, m.come)
		m.check(t, false)
	})
}

// TestLateWhileOneIsMissing: what comes for a session to the node that it was at, long after it has gone on, comes to where it is as long as a node
// is out of reach that may have kept it; and no longer.
func TestLateWhileOneIsMissing(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 3)
		defer w.close()
		c, m := away(w)
		w.nodes[2].crash()
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, m.come)
		settle(t, time.Minute, func() error {
			if sessions, messages := w.nodes[0].b.Kept(true); sessions+messages > 0 { // it could not leave for good
				return fmt.Errorf("the first node has %d sessions with %d messages", sessions, messages)
			}
			return nil
		})
		time.Sleep(time.Duration(w.below(300)) * time.Second)
		late := &proto.Message{Topic: "t/0", Payload: []byte(payload(m.sent)), QoS: byte(1 + m.sent%2)} //nolint:gosec // 1 or 2
		m.sent++
		w.nodes[0].b.Deliver([]mqttfront.Delivery{{Msg: late, Plain: true, Receipt: noReceipt{Epoch: 99, Seq: 1}}})
		settle(t, time.Minute, m.come)
		w.nodes[2].start()
		settle(t, 5*time.Minute, func() error {
			if to := w.nodes[0].b.GoneTo("\x00c"); to != "" {
				return fmt.Errorf("the first node still hands on to %v", to)
			}
			return nil
		})
		m.check(t, false)
	})
}
