package roam

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

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

// TestAloneBeforeOthers: a client that connects to a node that has just been started, and has not met another, stays connected when
// it does: the session that another node has from before is the older one. It is joined, with the subscriptions that were promised.
func TestAloneBeforeOthers(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 2)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		c.moveTo(nil)
		m := &traffic{w: w, c: c}
		m.publish(20)
		w.cutOff(0, 1)
		w.nodes[0].crash()
		w.nodes[1].crash()
		w.mu.Lock()
		w.shy = true
		w.mu.Unlock()
		w.nodes[1].start()
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, c.standing)
		settle(t, time.Minute, c.attached)
		m.upward(20)
		w.nodes[0].start()
		w.cutOne(false)
		w.mu.Lock()
		before := c.connects
		w.mu.Unlock()
		w.nodes[w.below(2)].r.Activate()
		time.Sleep(time.Duration(w.below(2000)) * time.Millisecond)
		w.nodes[0].r.Activate()
		w.nodes[1].r.Activate()
		m.publish(20)
		settle(t, time.Minute, m.come)
		settle(t, 5*time.Minute, w.whole)
		w.mu.Lock()
		if c.connects != before {
			t.Errorf("the client had to connect %d times more", c.connects-before)
		}
		w.mu.Unlock()
		m.check(t, false)
	})
}

// TestAloneSlowly: a client whose session was at a node that can't be reached is let in by one that was started a moment ago, also
// where those that it reaches take longer than it waits to meet others.
func TestAloneSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		c.moveTo(nil)
		w.nodes[0].crash()
		w.nodes[1].crash()
		w.mu.Lock()
		w.unmerged = true
		w.mu.Unlock()
		w.nodes[1].start()
		unblock := w.nodes[1].block()
		c.moveTo(w.nodes[1])
		time.Sleep(claimTime + 2*time.Second)
		unblock()
		settle(t, time.Minute, c.attached)
		w.mu.Lock()
		if c.refused > 0 {
			t.Errorf("the client was refused %d times", c.refused)
		}
		w.mu.Unlock()
	})
}

// TestAloneKnowsItsOwn: a session that has begun anew at a node that sees no other gets what clients of that node publish once, though it
// comes by the part that is joined with it as well.
func TestAloneKnowsItsOwn(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 2)
		defer w.close()
		c := newClient(w, "c", "up/#", w.nodes[0])
		d := newClient(w, "d", "none", w.nodes[1])
		settle(t, time.Minute, c.standing)
		settle(t, time.Minute, d.standing)
		c.moveTo(nil)
		w.cutOff(0, 1)
		w.nodes[1].crash()
		w.mu.Lock()
		w.shy = true
		w.mu.Unlock()
		w.nodes[1].start()
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, c.standing)
		settle(t, time.Minute, c.attached)
		settle(t, time.Minute, d.attached)
		m := &traffic{w: w, c: d}
		m.upward(10)
		w.cutOne(false)
		w.nodes[1].r.Activate()
		if seed%2 == 0 { // it comes again when the others can be reached, and has exchanges open
			m.upward(10)
			time.Sleep(time.Duration(w.below(50)) * time.Millisecond)
			c.moveTo(nil)
			time.Sleep(time.Duration(w.below(500)) * time.Millisecond)
			c.moveTo(w.nodes[1])
			settle(t, time.Minute, c.attached)
		}
		time.Sleep(10 * time.Second)
		m.upward(10)
		settle(t, time.Minute, d.idle)
		settle(t, 5*time.Minute, func() error {
			for _, n := range w.nodes {
				if len(n.b.Left()) > 0 {
					return errors.New("a part is left")
				}
			}
			return nil
		})
		time.Sleep(time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		for i := range m.up {
			if p := fmt.Sprintf("up %d %d", 1+i%2, i); c.got[p] != 1 {
				t.Errorf("%q came %d times", p, c.got[p])
			}
		}
	})
}

// TestAloneGetsWhatIsOwed: a session that has begun anew at a node that saw no other gets what was sent for it to the node that it was at, which is
// dead, by subscriptions that its client has made again too.
func TestAloneGetsWhatIsOwed(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 3)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		c.moveTo(nil)
		m := &traffic{w: w, c: c}
		m.publish(20)
		time.Sleep(time.Minute)
		w.nodes[0].crash()
		w.nodes[1].crash()
		w.mu.Lock()
		w.shy, w.strange, w.unsure, w.unmerged = true, seed%2 == 0, seed%3 == 0, seed%3 == 1
		w.mu.Unlock()
		w.nodes[1].start()
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, c.standing)
		settle(t, time.Minute, c.attached)
		w.mu.Lock()
		before := c.connects
		w.mu.Unlock()
		w.nodes[1].r.Activate()
		time.Sleep(10 * time.Second)
		w.mu.Lock()
		w.unsure, w.unmerged = false, false
		w.mu.Unlock()
		settle(t, time.Minute, m.come)
		w.mu.Lock()
		defer w.mu.Unlock()
		if c.connects != before {
			t.Errorf("the client had to connect %d times more", c.connects-before)
		}
	})
}

// TestMeetsOthersFirst: a client whose node has lost what it had and has just been started has its session there, though it is quicker than the node is
// among the others.
func TestMeetsOthersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		c.moveTo(nil)
		m := &traffic{w: w, c: c}
		m.publish(20)
		w.nodes[0].crash()
		w.nodes[1].crash()
		w.mu.Lock()
		w.shy = true
		w.mu.Unlock()
		w.nodes[1].start()
		c.moveTo(w.nodes[1])
		time.Sleep(2 * time.Second)
		if c.attached() == nil {
			t.Error("it was let in before others were met")
		}
		w.nodes[1].r.Activate()
		settle(t, time.Minute, c.attached)
		settle(t, time.Minute, m.come)
	})
}
