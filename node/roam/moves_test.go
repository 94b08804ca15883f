package roam

import (
	"flag"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

var (
	seeds  = flag.Int("seeds", 30, "how many seeds simulations are run with")
	first  = flag.Uint64("first", 1, "the first seed to run")
	seed   = flag.Uint64("seed", 0, "the one seed to run")
	faults = flag.Bool("faults", true, "have nodes be slow and crash, and links break, in TestRandomMoves; else clients are calm or hasty, and that is all")
)

// eachSeed runs a simulation with many seeds, each in a time of its own.
func eachSeed(t *testing.T, run func(t *testing.T, seed uint64)) {
	from, n := *first, uint64(*seeds) //nolint:gosec // positive
	if *seed != 0 {
		from, n = *seed, 1
	}
	for s := from; s < from+n; s++ {
		t.Run(fmt.Sprint(s), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { run(t, s) }) })
	}
}

// settle waits until something is so.
func settle(t testing.TB, within time.Duration, ok func() error) {
	t.Helper()
	from := time.Now()
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Since(from) > within {
			t.Fatalf("after %v: %v", within, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// close ends a world.
func (w *world) close() {
	for _, c := range w.clients {
		c.close()
	}
	for _, n := range w.nodes {
		w.mu.Lock()
		up := n.up
		w.mu.Unlock()
		if up {
			n.crash()
		}
	}
	w.wg.Wait()
}

// TestBackFromTheDead is a client that goes on elsewhere when its node has died, and goes back in the moment in which that is back.
func TestBackFromTheDead(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 3)
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[2])
		settle(t, time.Minute, c.standing)
		m := &traffic{w: w, c: c}
		m.publish(20)
		settle(t, time.Minute, m.come)
		c.moveTo(nil)
		m.publish(40)
		w.nodes[2].crash()
		c.moveTo(w.nodes[1])
		m.publish(20)
		time.Sleep(time.Duration(w.below(10_000)) * time.Millisecond)
		w.nodes[2].start()
		time.Sleep(time.Duration(w.below(4000)) * time.Millisecond)
		m.publish(10)
		c.moveTo(w.nodes[2])
		m.publish(10)
		settle(t, 2*time.Minute, m.come)
		m.check(t, false)
	})
}

// traffic is what is published for a client, and to be checked.
type traffic struct {
	w    *world
	c    *client
	sent int
	up   int
}

func payload(i int) string { return fmt.Sprintf("%d %d", 1+i%2, i) }

func (m *traffic) publish(n int) {
	apart := m.w.apart()
	for range n {
		if apart {
			m.c.excuse(payload(m.sent))
		}
		m.w.publish(fmt.Sprintf("t/%d", m.sent/2%2), payload(m.sent), byte(1+m.sent%2)) //nolint:gosec // 1 or 2
		m.sent++
	}
}

// come fails until everything has come.
func (m *traffic) come() error {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	for i := range m.sent {
		if m.c.got[payload(i)] == 0 {
			return fmt.Errorf("%q has not come, %d of %d have; the client is at %v, connected %v after %d connections and %d refusals", payload(i), len(m.c.got),
				m.sent, m.c.at.i, m.c.connected, m.c.connects, m.c.refused)
		}
	}
	return nil
}

// check holds what came against what is promised.
func (m *traffic) check(t *testing.T, ordered bool) {
	t.Helper()
	time.Sleep(time.Minute) // what still wanders about comes now
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	for i := range m.sent {
		if p := payload(i); p[0] == '2' && m.c.got[p] != 1 && !m.c.excused[p] {
			t.Errorf("%q came %d times", p, m.c.got[p])
		}
	}
	for i := range m.up {
		p := fmt.Sprintf("up %d %d", 1+i%2, i)
		if n := m.w.came[p]; n == 0 || n > 1 && i%2 == 1 && !m.c.excused[p] {
			t.Errorf("%q was published %d times", p, n)
		}
	}
	last := map[int]int{} // by topic and QoS
	for _, p := range m.c.order {
		var qos, i int
		if _, err := fmt.Sscanf(p, "%d %d", &qos, &i); err != nil {
			t.Fatal(err)
		}
		if ordered && i < last[i%4] {
			t.Errorf("%q came behind %d", p, last[i%4])
		}
		last[i%4] = max(last[i%4], i)
	}
	t.Logf("%d messages, %d excused, %d connections, %d refused", m.sent, len(m.c.excused), m.c.connects, m.c.refused)
}

// TestRandomMoves has a client go from node to node at random moments. By the seed it waits for its CONNACK before it goes on or
// not, and nodes are slow to answer, links break, or nodes crash too, and come back. What was acknowledged comes, at QoS 2 once, and in
// order where nothing of all that is so. At the end the session is whole, at one node.
func TestRandomMoves(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 2+int(seed/5%2))
		defer w.close()
		kind := seed % 2
		if *faults {
			kind = seed % 5
		}
		calm, hasty, slow, crashes := kind == 0, kind == 1, kind == 2, kind == 4
		if slow {
			w.slowness = 4 * time.Second
		}
		t.Logf("%d nodes, calm %v, hasty %v, slow %v, crashes %v", len(w.nodes), calm, hasty, slow, crashes)
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		if seed/10%2 == 1 { // the clock of whoever claimed it was ahead
			w.nodes[0].claimAhead(2 * time.Hour)
		}
		m := &traffic{w: w, c: c}
		m.moveAbout(t, calm, !calm && !hasty && !slow, crashes)
		for w.restartOne() {
		}
		w.cutOne(false)
		settle(t, 10*time.Minute, m.come)
		settle(t, time.Minute, c.idle)
		settle(t, 15*time.Minute, w.whole)
		m.check(t, calm)
	})
}

// moveAbout has the client go from node to node at random moments, after its CONNACK where it waits for that, while messages go both ways,
// links break and nodes crash, where they do.
func (m *traffic) moveAbout(t *testing.T, waits, cuts, crashes bool) {
	w, c := m.w, m.c
	for range 10 + w.below(20) {
		m.publish(w.below(20))
		m.upward(w.below(5))
		switch w.below(6) {
		case 0:
			if n := w.nodes[w.below(len(w.nodes))]; crashes && n.isUp() {
				n.crash()
			}
		case 1:
			w.restartOne()
		case 2:
			w.cutOne(cuts)
		case 3:
			settle(t, 5*time.Minute, c.attached)
		case 4: // it vanishes for a while
			c.moveTo(nil)
		}
		time.Sleep(w.pause())
		if waits {
			settle(t, 5*time.Minute, c.attached)
		}
		c.moveTo(w.nodes[w.below(len(w.nodes))])
		time.Sleep(w.pause())
	}
}

// TestMovesOnInCalm has a client go on from node to node after all nodes are back and all links are whole, when parts of its session are
// still here and there: what is published from then on comes once, and the parts are joined though it does not rest.
func TestMovesOnInCalm(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 3+int(seed/5%2))
		defer w.close()
		c := newClient(w, "c", "t/#", w.nodes[0])
		settle(t, time.Minute, c.standing)
		m := &traffic{w: w, c: c}
		m.moveAbout(t, false, true, true)
		for w.restartOne() {
		}
		w.cutOne(false)
		time.Sleep(10 * time.Second)
		parts := map[mqttfront.Left]bool{}
		for _, n := range w.nodes {
			for _, l := range n.b.Left() {
				parts[l] = true
			}
		}
		longest := []int{1000, 5000, 20_000}[w.below(3)]
		for until := time.Now().Add(5 * time.Minute); time.Now().Before(until); {
			m.publish(w.below(20))
			m.upward(w.below(5))
			time.Sleep(time.Duration(w.below(longest)) * time.Millisecond)
			c.moveTo(w.nodes[w.below(len(w.nodes))])
			settle(t, 5*time.Minute, c.attached)
		}
		for i, n := range w.nodes {
			for _, l := range n.b.Left() { // others may have come up a moment ago
				if parts[l] {
					t.Errorf("node %d still has a part: %v", i, l)
				}
			}
		}
		settle(t, 10*time.Minute, m.come)
		settle(t, time.Minute, c.idle)
		settle(t, 15*time.Minute, w.whole)
		m.check(t, false)
	})
}

// claimAhead has the claims of a node be as if they had been made later.
func (n *simNode) claimAhead(by time.Duration) {
	n.r.mu.Lock()
	var held []*hold
	for _, h := range n.r.held {
		h.number += uint64(by.Microseconds()) //nolint:gosec // positive
		held = append(held, h)
	}
	n.r.mu.Unlock()
	for _, h := range held {
		n.r.push(h)
	}
}

func (w *world) pause() time.Duration {
	if w.chance(10) {
		return time.Duration(w.below(8000)) * time.Millisecond
	}
	return time.Duration(w.below(200)) * time.Millisecond
}

// apart reports whether some node is or was out of another's reach: a client that goes to and fro between such nodes may get
// what is published then, and what waits there, from both.
func (w *world) apart() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.apartLocked()
}

func (w *world) apartLocked() bool {
	for _, n := range w.nodes {
		if !n.up || n.life > 1 && time.Since(n.started) < 10*time.Second {
			return true
		}
	}
	for _, at := range w.healed {
		if time.Since(at) < 10*time.Second {
			return true
		}
	}
	return len(w.cut) > 0
}

func (n *simNode) isUp() bool {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.up
}

// restartOne starts a node that has crashed, and reports whether there was one.
func (w *world) restartOne() bool {
	for _, n := range w.nodes {
		if !n.isUp() {
			n.start()
			return true
		}
	}
	return false
}

// cutOne heals all links, and breaks one.
func (w *world) cutOne(breaks bool) {
	a, b := w.below(len(w.nodes)), w.below(len(w.nodes))
	w.mu.Lock()
	for pair := range w.cut {
		w.healed[pair] = time.Now()
	}
	clear(w.cut)
	w.mu.Unlock()
	if breaks {
		w.cutOff(a, b)
	}
}

// cutOff breaks the link between two nodes, or the streams of one.
func (w *world) cutOff(a, b int) {
	w.mu.Lock()
	if a != b {
		w.cut[[2]int{min(a, b), max(a, b)}] = true
	}
	var hosts []*simHost
	for _, n := range w.nodes {
		if n.h != nil && (n.i == a || n.i == b) {
			hosts = append(hosts, n.h)
		}
	}
	w.mu.Unlock()
	for _, h := range hosts {
		h.cut()
	}
}

// whole fails until the one session is at one node, and nowhere else is any of it.
func (w *world) whole() error {
	holders, sessions, left := 0, int64(0), 0
	said := ""
	for _, n := range w.nodes {
		said += fmt.Sprintf("; node %d has %d, and leaves %v", n.i, n.b.Stats().Sessions.Load(), n.b.Left())
		n.r.mu.Lock()
		for _, h := range n.r.held {
			if h.mine {
				holders++
			}
		}
		n.r.mu.Unlock()
		sessions += n.b.Stats().Sessions.Load()
		left += len(n.b.Left())
	}
	if holders != 1 || sessions != 1 || left != 0 {
		return fmt.Errorf("%d nodes hold the session, there are %d of it, %d parts are left%s", holders, sessions, left, said)
	}
	return nil
}

// upward has the client publish.
func (m *traffic) upward(n int) {
	for range n {
		if m.w.apart() {
			m.c.excuse(fmt.Sprintf("up %d %d", 1+m.up%2, m.up))
		}
		if m.c.publish(fmt.Sprintf("up %d %d", 1+m.up%2, m.up), byte(1+m.up%2)) { //nolint:gosec // 1 or 2
			m.up++
		}
	}
}

// TestNamesOfWhatIsHere: what is meant for a session alone reaches it as soon as its node is started, before anything was heard of it, and where it waits
// to be fetched.
func TestNamesOfWhatIsHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		defer w.close()
		c, _ := away(w)
		name := NameOf("\x00" + c.id)
		first := w.nodes[0]
		first.crash()
		w.mu.Lock()
		w.shy = true
		w.mu.Unlock()
		first.start()
		if first.r.KeyOf(name) == "" {
			t.Error("a session that was here before a start is not known by its name")
		}
		w.mu.Lock()
		w.shy = false
		w.mu.Unlock()
		first.crash()
		first.start()
		c.moveTo(w.nodes[1])
		settle(t, time.Minute, c.attached)
		if first.b.GoneTo("\x00"+c.id) != "" && first.r.KeyOf(name) == "" {
			t.Error("a session that waits to be fetched is not known by its name")
		}
	})
}
