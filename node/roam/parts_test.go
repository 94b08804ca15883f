package roam

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// block keeps a node from saying anything to the swarm until what it returns is called.
func (n *simNode) block() (unblock func()) {
	open := make(chan struct{})
	n.upLink.do(func() { <-open })
	return func() { close(open) }
}

// TestAloneKeepsSubscriptions: a session that begins anew at a node that sees no other has the subscriptions that its client was
// promised elsewhere, whether or not the client hears that it is new, and whether or not its node of before can be reached by then.
func TestAloneKeepsSubscriptions(t *testing.T) {
	for _, reaches := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, 3)
			defer w.close()
			c := newClient(w, "c", "t/#", w.nodes[0])
			settle(t, time.Minute, c.standing)
			w.nodes[0].crash()
			w.nodes[2].crash()
			unblock := w.nodes[1].block()
			c.moveTo(w.nodes[1])
			time.Sleep(time.Second)
			c.moveTo(nil) // it does not wait for its CONNACK
			settle(t, time.Minute, func() error { return w.has(w.nodes[1]) })
			w.nodes[0].start()
			w.nodes[2].start()
			time.Sleep(10 * time.Second)
			if !reaches {
				w.cutOff(0, 1)
			}
			unblock()
			time.Sleep(time.Second)
			c.moveTo(w.nodes[2])
			settle(t, time.Minute, c.attached)
			m := &traffic{w: w, c: c}
			m.publish(20)
			w.cutOne(false)
			settle(t, time.Minute, m.come)
			settle(t, 5*time.Minute, w.whole)
		})
	}
}

// TestPacketIDsOfTheLost: what a client takes for a message again, because of an exchange with a node that is lost, is not a new one.
func TestPacketIDsOfTheLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		w.mu.Lock()
		for id := range uint16(100) { // which nobody will release
			c.received[id] = "lost"
		}
		w.mu.Unlock()
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, c.attached)
		m := &traffic{w: w, c: c}
		m.publish(20)
		settle(t, time.Minute, m.come)
	})
}

// has fails until a node has a session.
func (w *world) has(n *simNode) error {
	if _, here := n.b.Has("\x00c"); !here {
		return errors.New("the session is not there")
	}
	return nil
}

// cutOff breaks the link between two nodes.
func (w *world) cutOff(a, b int) {
	w.mu.Lock()
	w.cut[[2]int{min(a, b), max(a, b)}] = true
	hosts := []*simHost{w.nodes[a].h, w.nodes[b].h}
	w.mu.Unlock()
	for _, h := range hosts {
		h.cut()
	}
}
