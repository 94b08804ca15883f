package rendezvous

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// TestCrosses: a message published at one node reaches a subscriber at another, whoever its rendezvous is.
func TestCrosses(t *testing.T) {
	for _, count := range []int{2, 3} {
		t.Run(fmt.Sprint(count, " nodes"), func(t *testing.T) {
			nodes := swarm(t, count)
			a, b := nodes[0], nodes[1]
			for i := range 4 { // so that more than one node is a rendezvous
				topic := fmt.Sprint("topic", i)
				b.subscribe(t, topic+"/#")
				crosses(t, a, b, topic+"/x", topic)
			}
			for range 4 * 2 {
				select {
				case p := <-a.accepted:
					if p != 2 && p != 3 {
						t.Errorf("packet %d is acknowledged", p)
					}
				case <-time.After(10 * time.Second):
					t.Fatal("a QoS 1 or 2 message is not acknowledged")
				}
			}
			if st := b.CoreStats(); st.Malformed > 0 {
				t.Errorf("%d malformed frames", st.Malformed)
			}
			if m := a.Stats().Malformed.Load() + b.Stats().Malformed.Load(); m > 0 {
				t.Errorf("%d streams ended for what came on them", m)
			}
		})
	}
}

// TestOrder: one publisher's messages on one topic come in order.
func TestOrder(t *testing.T) {
	nodes := swarm(t, 3)
	a, b := nodes[0], nodes[1]
	b.subscribe(t, "#")
	const count = 2000
	for qos := range byte(3) {
		for i := range count {
			a.publish("t/x", fmt.Sprint(qos, "/", i), qos, 1)
		}
	}
	eventually(t, "all have come", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.order) >= 3*count })
	next := map[string]int{}
	for _, p := range b.order {
		var qos string
		var i int
		if _, err := fmt.Sscanf(p, "%1s/%d", &qos, &i); err != nil {
			t.Fatal(err)
		}
		if i != next[qos] {
			t.Fatalf("QoS %s: %d comes where %d is next", qos, i, next[qos])
		}
		next[qos]++
	}
	settled(t, nodes...)
}

// breakStreams resets the route streams of a host, and returns how many there were.
func breakStreams(h host.Host) (n int) {
	for _, c := range h.Network().Conns() {
		for _, s := range c.GetStreams() {
			if s.Protocol() == proto.RouteProtocol {
				_ = s.Reset()
				n++
			}
		}
	}
	return n
}

// TestFoundBehindDelivered: what is found of retained messages comes behind what the broker is delivered at the same time, so that it knows what
// has just come from what was there before.
func TestFoundBehindDelivered(t *testing.T) {
	came := make(chan string, 2)
	n := start(t, newHost(t), func(c *Config) {
		c.Deliver = func([]core.Delivery) {
			time.Sleep(50 * time.Millisecond) // what does not wait for it is ahead
			came <- "delivered"
		}
	})
	n.subscribe(t, "a")
	n.step(func(c *core.Node) {
		c.Publish(core.Publication{Message: &proto.Message{Topic: "a", Payload: []byte("x"), Retain: true}})
		c.Retained("a", func([]*proto.Message) { came <- "found" }, func() {})
	})
	for _, want := range []string{"delivered", "found"} {
		if got := <-came; got != want {
			t.Fatalf("%s came, want %s", got, want)
		}
	}
}

// TestStreamsBreak: streams that break are opened again; of what was on its way at QoS 1 and 2 nothing is lost
// and nothing comes twice.
func TestStreamsBreak(t *testing.T) {
	nodes := swarm(t, 3)
	a, b := nodes[0], nodes[1]
	b.subscribe(t, "t/#")
	const count = 600
	broken := 0
	for i := range count {
		n := nodes[i/200]
		if i%200 == 0 {
			eventually(t, "streams are there", func() bool { return n.Stats().Up.Load() == 2 })
		}
		a.publish("t/x", fmt.Sprint(i), byte(1+i%2), uint16(i%65535+1)) //nolint:gosec // small
		if i%200 == 100 {
			before := n.Stats().Broken.Load()
			broken += breakStreams(n.host)
			eventually(t, "the break is noticed", func() bool { return n.Stats().Broken.Load() > before })
		}
	}
	if broken == 0 {
		t.Fatal("there was no stream to break")
	}
	eventually(t, "all have come", func() bool { return len(b.count()) == count })
	for _, n := range nodes {
		eventually(t, "streams are there again", func() bool { return n.Stats().Up.Load() == 2 })
	}
	settled(t, nodes...)
	for p, times := range b.count() {
		if times != 1 {
			t.Errorf("message %s came %d times", p, times)
		}
	}
	crosses(t, a, b, "t/x", "afterwards")
}

// TestBreakWhileStored: a message that its node has stored, and done while no stream was there to say so, is
// let go of all the same.
func TestBreakWhileStored(t *testing.T) {
	nodes := swarm(t, 3)
	a, b := nodes[0], nodes[1]
	b.subscribe(t, "t/#")
	b.setHeld(true)
	for i := range 10 {
		a.publish("t/x", fmt.Sprint(i), 2, 1)
	}
	eventually(t, "all have come", func() bool { return len(b.count()) == 10 })
	time.Sleep(3 * tickEvery) // there is nothing to see of a DeliverAck that says stored
	breakStreams(b.host)
	b.setHeld(false)
	settled(t, nodes...)
	for p, times := range b.count() {
		if times != 1 {
			t.Errorf("message %s came %d times", p, times)
		}
	}
}

// TestPeerLost: a node whose connections are cut is back when they are.
func TestPeerLost(t *testing.T) {
	nodes := swarm(t, 2)
	a, b := nodes[0], nodes[1]
	b.subscribe(t, "t/#")
	reaches := func(want bool) {
		t.Helper()
		if a.Reaches(b.host.ID(), 0) != want || a.Reaches(b.host.ID(), 1) != want || a.Reaches(b.host.ID(), 2) || !a.Reaches(a.host.ID(), 1) || a.Reaches(a.host.ID(), 2) {
			t.Errorf("a reaches b: %v, with its database: %v, with another: %v; want %v", a.Reaches(b.host.ID(), 0), a.Reaches(b.host.ID(), 1), a.Reaches(b.host.ID(), 2), want)
		}
	}
	reaches(true)
	if err := a.host.Network().ClosePeer(b.host.ID()); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		eventually(t, "the loss is noticed", func() bool { return n.Stats().Up.Load() == 0 })
	}
	reaches(false)
	for i := range 5 {
		a.publish("t/x", fmt.Sprint(i), 1, 1)
	}
	connect(t, a.host, b.host)
	eventually(t, "all have come", func() bool { return len(b.count()) == 5 })
	crosses(t, a, b, "t/x", "afterwards")
	if b.count()["0"] != 1 {
		t.Error("a message came twice")
	}
}

// TestClose: Close is idempotent and leaves no goroutine, while the host lives on; nothing happens afterwards.
func TestClose(t *testing.T) {
	nodes := swarm(t, 3)
	nodes[1].subscribe(t, "t/#")
	crosses(t, nodes[0], nodes[1], "t/x", "before")
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "no goroutine of the services is left", func() bool { return running() == "" })
	n := nodes[0]
	n.publish("t/x", "late", 1, 9)
	n.Register("x", core.Interest{Plain: true}, func(bool) { t.Error("a promise after Close") })
	n.OnPeer(nodes[1].host.ID(), true)
	n.OnPeer(nodes[1].host.ID(), false)
	if got := nodes[1].count()["late"]; got > 0 {
		t.Error("a message crosses after Close")
	}
}

// TestLookupsEndWithClose: what the core asked to be looked up before Close is not begun after it.
func TestLookupsEndWithClose(t *testing.T) {
	accepting, accept := make(chan struct{}, 100), make(chan struct{})
	var mu sync.Mutex
	over, late := false, 0
	a := startUntold(t, newHost(t), func(c *Config) {
		c.Small = 0 // a swarm in which locations are looked up
		c.Accept = func([]Accepted) { accepting <- struct{}{}; <-accept }
		c.Closest = func(ctx context.Context, _ []byte) ([]peer.ID, error) {
			mu.Lock()
			if over {
				late++
			}
			mu.Unlock()
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	var batch []core.Publication
	for i := range 50 {
		m := &proto.Message{Topic: string(rune('A'+i)) + "/x", QoS: 1}
		batch = append(batch, core.Publication{Message: m, Origin: "client", Packet: 1})
	}
	published, closed := make(chan struct{}), make(chan struct{})
	go func() { defer close(published); a.Publish(batch) }()
	<-accepting // the effects of that are being carried out
	go func() {
		defer close(closed)
		_ = a.Close()
		mu.Lock()
		defer mu.Unlock()
		over = true
	}()
	eventually(t, "Close waits for no goroutine any more", func() bool {
		select {
		case <-closed:
			return true
		default:
		}
		in := stacks(".(*Service).Close(")
		return a.ctx.Err() != nil && len(in) == 1 && strings.Contains(in[0], "sync.(*Mutex).Lock") && !strings.Contains(in[0], "(*WaitGroup).Wait(")
	})
	close(accept)
	<-published
	<-closed
	eventually(t, "no goroutine of the service is left", func() bool { return len(stacks(".(*Service).lookUp")) == 0 && running() == "" })
	mu.Lock()
	defer mu.Unlock()
	if late > 0 {
		t.Errorf("%d lookups are begun after Close", late)
	}
}

// TestLeave: a node that leaves politely hands over what it is the rendezvous of, with what is retained and what
// is still owed.
func TestLeave(t *testing.T) {
	nodes := swarm(t, 3)
	const topic = "t/x"
	nodes[0].subscribe(t, "t/+")
	old := rendezvousOf(t, nodes, topic)
	i := slices.Index(nodes, old)
	a, b := nodes[(i+1)%3], nodes[(i+2)%3]
	b.subscribe(t, "t/#")
	a.Publish([]core.Publication{{Message: &proto.Message{Topic: topic, Payload: []byte("kept"), QoS: 1, Retain: true}, Origin: "client", Packet: 1}})
	eventually(t, "the retained message arrives", func() bool { return b.count()["kept"] == 1 })
	b.setHeld(true)
	a.publish(topic, "owed", 2, 2)
	eventually(t, "the other message arrives", func() bool { return b.count()["owed"] == 1 })

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := old.Leave(ctx); err != nil {
		t.Fatalf("Leave: %v", err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another is the rendezvous", func() bool {
		var v core.View
		a.View(func(c *core.Node) { v = c.Locate(topic) })
		return (v.Rendezvous == a.Self() || v.Rendezvous == b.Self()) && !slices.Contains(v.Set.Members, old.Self())
	})
	b.setHeld(false)
	crosses(t, a, b, topic, "after")
	if times := b.count()["owed"]; times != 1 {
		t.Errorf("what was owed came %d times", times)
	}
	found := make(chan string, 10)
	done := make(chan struct{})
	a.Retained("t/#", func(ms []*proto.Message) {
		for _, m := range ms {
			found <- string(m.Payload)
		}
	}, func() { close(done) })
	<-done
	close(found)
	var all []string
	for p := range found {
		all = append(all, p)
	}
	if !slices.Equal(all, []string{"kept"}) {
		t.Errorf("retained: %q", all)
	}
}

// TestLeaveAlone: a node without peers leaves at once; one whose context is over says so.
func TestLeaveAlone(t *testing.T) {
	n := start(t, newHost(t))
	n.subscribe(t, "t/#")
	n.publish("t/x", "x", 1, 1)
	if err := n.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	if err := n.Leave(t.Context()); err != nil {
		t.Errorf("leaving again: %v", err)
	}
	m := start(t, newHost(t))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Leave(over); err != nil && err != context.Canceled { //nolint:errorlint // which of the two is a race
		t.Error(err)
	}
}
