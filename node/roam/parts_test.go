package roam

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// block keeps a node from saying anything to the swarm until what it returns is called.
func (n *simNode) block() (unblock func()) {
	open := make(chan struct{})
	n.upLink.do(func() { <-open })
	return func() { close(open) }
}

// deafen keeps a node from hearing anything of the swarm until what it returns is called.
func (n *simNode) deafen() (undo func()) {
	open := make(chan struct{})
	n.downLink.do(func() { <-open })
	return func() { close(open) }
}

// TestBackBeforeItHears: a client that is back at the node of its session stays connected when that hears of a claim that was made
// elsewhere before.
func TestBackBeforeItHears(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 3)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		m := &traffic{w: w, c: c}
		m.publish(20)
		settle(t, time.Minute, m.come)
		w.cutOff(0, 1)
		hears := w.nodes[0].deafen()
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, c.attached)
		m.publish(20)
		time.Sleep(time.Duration(w.below(10_000)) * time.Millisecond)
		c.moveTo(w.nodes[0])
		settle(t, time.Minute, c.attached)
		w.mu.Lock()
		before := c.connects
		w.mu.Unlock()
		hears()
		w.cutOne(false)
		m.publish(20)
		settle(t, time.Minute, m.come)
		settle(t, 5*time.Minute, w.whole)
		m.check(t, false)
		w.mu.Lock()
		if c.connects != before {
			t.Errorf("the client had to connect %d times more", c.connects-before)
		}
		w.mu.Unlock()
	})
}

// TestPacketIDsOfTheLost: what a client takes for a message again, because of an exchange with a node that is lost, is not a new one, however
// many come.
func TestPacketIDsOfTheLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		c.moveTo(w.nodes[1]) // with its packet IDs
		settle(t, time.Minute, c.attached)
		m := &traffic{w: w, c: c}
		m.publish(1)
		settle(t, time.Minute, m.come)
		const block = 65535 / 16
		w.mu.Lock()
		if _, known := c.received[1]; known {
			t.Error("the exchange is open")
		}
		for id := range uint16(65535) { // which nobody will release
			if id/block != 1 {
				c.received[id+1] = "lost"
			}
		}
		w.mu.Unlock()
		w.nodes[1].crash()
		c.moveTo(w.nodes[2])
		settle(t, time.Minute, c.attached)
		m.publish(block + 20)
		settle(t, time.Minute, m.come)
	})
}

// TestClaimedInVain: a session that its node has given up to one that dies before it has any of it goes on there whole, and in order.
func TestClaimedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		c.moveTo(nil)
		time.Sleep(2 * time.Minute) // until its connection is over
		m := &traffic{w: w, c: c}
		m.publish(20)
		time.Sleep(time.Second)
		w.nodes[1].crash()
		r := w.nodes[0].r
		h := r.holdOf(c)
		r.lose(h, &claim{Claim: &pb.Claim{Key: []byte(h.key), Number: h.number + 1}, node: w.nodes[1].id})
		c.moveTo(w.nodes[0])
		settle(t, time.Minute, c.attached)
		m.publish(20)
		settle(t, time.Minute, m.come)
		m.check(t, true)
	})
}

// TestClaimedInVainElsewhere: a session that a node has claimed and not fetched is found by the next that claims it.
func TestClaimedInVainElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		c.moveTo(nil)
		time.Sleep(2 * time.Minute) // until its connection is over
		m := &traffic{w: w, c: c}
		m.publish(20)
		time.Sleep(time.Second)
		h := w.nodes[0].r.holdOf(c)
		last := &claim{Claim: &pb.Claim{Key: []byte(h.key), Number: h.number, State: h.state}, node: w.nodes[0].id}
		r := w.nodes[1].r
		vain := &hold{key: h.key, name: h.name}
		r.mu.Lock()
		r.ownLocked(vain, last)
		r.mu.Unlock()
		r.push(vain)
		settle(t, time.Minute, func() error {
			if len(w.nodes[0].b.Left()) == 0 {
				return errors.New("the session has not been given up")
			}
			return nil
		})
		c.moveTo(w.nodes[2])
		settle(t, time.Minute, c.attached)
		m.publish(20)
		settle(t, time.Minute, m.come)
		m.check(t, true)
	})
}

// TestOutrankedWhileItAsks: a node that finds a session nowhere goes on with what is retained of it, unless another has claimed it
// while it asked.
func TestOutrankedWhileItAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		defer w.close()
		const key = "\x00c"
		r := w.nodes[0].r
		last := &claim{Claim: &pb.Claim{Key: []byte(key), Number: 4, State: &pb.SessionState{ExpiryMs: 1}}, node: w.nodes[1].id}
		r.mu.Lock()
		h := r.holdLocked(key)
		r.ownLocked(h, last)
		number := h.number
		r.mu.Unlock()
		if a, err := r.fetch(t.Context(), key, number, last); err != nil || a == nil {
			t.Errorf("got %v, %v", a, err)
		}
		r.lose(h, &claim{Claim: &pb.Claim{Key: []byte(key), Number: number + 1}, node: w.nodes[1].id})
		if _, err := r.fetch(t.Context(), key, number, last); !errors.Is(err, errOutranked) {
			t.Errorf("got %v", err)
		}
	})
}

// TestAsksWhomItGaveItTo: a node that finds a session neither at the node of the last claim nor where that had it from asks the one that
// it knows to have had it.
func TestAsksWhomItGaveItTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		was := w.nodes[0].r.holdOf(c)
		r := w.nodes[2].r
		last := &claim{Claim: &pb.Claim{Key: []byte(was.key), Number: was.number, State: was.state}, node: w.nodes[1].id}
		r.hintAt(was.key, w.nodes[0].id)
		r.mu.Lock()
		h := r.holdLocked(was.key)
		r.ownLocked(h, last)
		number := h.number
		r.mu.Unlock()
		a, err := r.fetch(t.Context(), was.key, number, last)
		if err != nil || a == nil || a.Head().From.From != string(w.nodes[0].id) || a.Head().From.Drained {
			t.Fatalf("got %+v, %v", a, err)
		}
		a.Close()
	})
}

// TestOldClaims: who asks for a session by a claim that is older than the one it came by gets nothing, even while this node is still
// finding out who holds it, and takes nothing from it.
func TestOldClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, c.attached)
		n := w.nodes[1]
		h := n.r.holdOf(c)
		n.r.mu.Lock()
		h.mine = false // as after a start
		number := h.number
		n.r.mu.Unlock()
		d, elsewhere := n.r.depart(w.nodes[0].id, &pb.Pull{Key: []byte(h.key), Number: number - 1})
		n.r.mu.Lock()
		h.mine = true
		n.r.mu.Unlock()
		if d != nil || elsewhere != string(n.id) {
			t.Errorf("got %v, elsewhere %q", d, elsewhere)
		}
		settle(t, time.Minute, w.whole)
	})
}

func (r *Roam) holdOf(c *client) *hold {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held["\x00"+c.id]
}

// has fails until a node has a session.
func (w *world) has(n *simNode) error {
	if _, _, here := n.b.Has("\x00c"); !here {
		return errors.New("the session is not there")
	}
	return nil
}

// TestHadComesAfter: a session that has gone on without the node that had it, and from there to another, knows what it has had at the
// first when that is back: the one in between says so.
func TestHadComesAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, c.attached)
		settle(t, time.Minute, w.whole)
		m := &traffic{w: w, c: c}
		m.publish(20)
		settle(t, time.Minute, m.come)
		w.cutOff(1, 2)
		for _, i := range []int{2, 0} {
			c.moveTo(w.nodes[i])
			settle(t, time.Minute, c.attached)
		}
		w.cutOne(false)
		settle(t, time.Minute, w.whole)
		h := w.nodes[0].r.holdOf(c)
		d := w.nodes[0].b.Depart(t.Context(), h.key, "other", h.number+1, false)
		w.mu.Lock()
		last := w.seq
		w.mu.Unlock()
		want := []mqttfront.MarkRun{{Epoch: 7, First: last - 19, Last: last}}
		if had := d.Had(); !slices.Equal(had, want) {
			t.Errorf("the session has had %v, want %v", had, want)
		}
	})
}
