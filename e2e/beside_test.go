package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// beside is well-behaved clients that go on while others misbehave: one publishes at each QoS at an even pace to another,
// and a third comes and goes. Nothing of it may be lost, come twice or out of order, and how long it takes is noted.
type beside struct {
	t    testing.TB
	node *node
	pub  *client
	stop chan struct{}
	runs sync.WaitGroup

	sent  [3]atomic.Int64
	heard [3]atomic.Int64
	phase atomic.Pointer[phase]
	comes atomic.Bool // new clients are to be served too
}

// phase is how long things took while something went on.
type phase struct {
	mu        sync.Mutex
	name      string
	ways      []time.Duration // of messages
	visits    []time.Duration // of clients that came, subscribed, published and heard it
	unserved  int
	firstLost string
}

const (
	besidePace = 10 * time.Millisecond
	visitPace  = 250 * time.Millisecond
)

// startBeside starts them. They end with the test at the latest.
func startBeside(t testing.TB, n *node) *beside {
	t.Helper()
	b := &beside{t: t, node: n, stop: make(chan struct{})}
	b.phase.Store(&phase{name: "start"})
	b.comes.Store(true)
	sub := connect(t, n.mqtt, func(o *mqtt.ClientOptions) {
		o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { b.hear(m.Topic(), string(m.Payload()), m.Qos()) })
	})
	for qos := range byte(3) {
		sub.subscribe(qos, besideTopic(qos))
	}
	b.pub = connect(t, n.mqtt)
	for qos := range byte(3) {
		b.runs.Go(func() { b.publish(qos) })
	}
	b.runs.Go(b.visit)
	t.Cleanup(b.end)
	return b
}

func besideTopic(qos byte) string { return fmt.Sprintf("beside/%d", qos) }

// hear takes in a message, which must be the next.
func (b *beside) hear(topic, payload string, qos byte) {
	var i, at int64
	if _, err := fmt.Sscan(payload, &i, &at); err != nil {
		b.t.Errorf("%q came on %s", payload, topic)
		return
	}
	if want := b.heard[qos].Add(1); i != want {
		b.t.Errorf("%s: message %d came, want %d", topic, i, want)
		b.heard[qos].Store(i)
	}
	p := b.phase.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ways = append(p.ways, time.Since(time.Unix(0, at)))
}

// publish publishes at one QoS until the end.
func (b *beside) publish(qos byte) {
	tick := time.NewTicker(besidePace)
	defer tick.Stop()
	open := make(chan mqtt.Token, 1000)
	var acks sync.WaitGroup
	acks.Go(func() {
		for token := range open {
			if !token.WaitTimeout(patience) || token.Error() != nil {
				b.t.Errorf("QoS %d: a message is not acknowledged: %v", qos, token.Error())
				return
			}
		}
	})
	defer acks.Wait()
	defer close(open)
	for {
		select {
		case <-b.stop:
			return
		case <-tick.C:
		}
		text := fmt.Sprint(b.sent[qos].Add(1), " ", time.Now().UnixNano())
		select {
		case open <- b.pub.mqtt.Publish(besideTopic(qos), qos, false, text):
		case <-time.After(patience):
			b.t.Errorf("QoS %d: %d messages are not acknowledged", qos, cap(open))
			return
		}
	}
}

// visit has new clients come while they are to be served.
func (b *beside) visit() {
	tick := time.NewTicker(visitPace)
	defer tick.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-tick.C:
		}
		if !b.comes.Load() {
			continue
		}
		began := time.Now()
		err := visitOnce(b.node.mqtt)
		p := b.phase.Load()
		p.mu.Lock()
		p.visits = append(p.visits, time.Since(began))
		if err != nil {
			if p.unserved++; p.unserved == 1 {
				p.firstLost = err.Error()
			}
		}
		p.mu.Unlock()
	}
}

// visitOnce connects, subscribes, publishes to itself and leaves, with bytes of its own so that it costs little.
func visitOnce(address string) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	id := clientID()
	for _, step := range []struct{ say, hear string }{
		{"\x10" + string(rune(12+len(id))) + "\x00\x04MQTT\x04\x02\x00\x3c\x00" + string(rune(len(id))) + id, "\x20\x02\x00\x00"},
		{"\x82" + string(rune(5+len(id))) + "\x00\x01\x00" + string(rune(len(id))) + id + "\x00", "\x90\x03\x00\x01\x00"},
		{"\x30" + string(rune(4+len(id))) + "\x00" + string(rune(len(id))) + id + "ok", "\x30" + string(rune(4+len(id))) + "\x00" + string(rune(len(id))) + id + "ok"},
	} {
		if _, err := io.WriteString(conn, step.say); err != nil {
			return err
		}
		got := make([]byte, len(step.hear))
		if n, err := io.ReadFull(conn, got); err != nil || string(got) != step.hear {
			return fmt.Errorf("to %x came %x, %w", step.say, got[:n], err)
		}
	}
	_, err = io.WriteString(conn, "\xe0\x00")
	return err
}

// during names what goes on from now on.
func (b *beside) during(what string) *phase {
	p := &phase{name: what}
	b.phase.Store(p)
	return p
}

// caughtUp waits until all that was sent has come.
func (b *beside) caughtUp() {
	b.t.Helper()
	var upTo [3]int64
	for qos := range upTo {
		upTo[qos] = b.sent[qos].Load()
	}
	eventually(b.t, patience, func() error {
		for qos, n := range upTo {
			if have := b.heard[qos].Load(); have < n {
				return notYet("QoS %d: %d of %d messages have come", qos, have, n)
			}
		}
		return nil
	})
}

// end stops them, when all has come.
func (b *beside) end() {
	select {
	case <-b.stop:
		return
	default:
	}
	close(b.stop)
	b.runs.Wait()
	if !b.t.Failed() {
		b.caughtUp()
	}
}

// String says how long things took.
func (p *phase) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%s: %d messages %s; %d visits %s", p.name, len(p.ways), quantiles(p.ways), len(p.visits), quantiles(p.visits))
}

func quantiles(all []time.Duration) string {
	if len(all) == 0 {
		return "-"
	}
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[int(q*float64(len(all)-1))].Round(10 * time.Microsecond) }
	return fmt.Sprintf("p50 %v p99 %v max %v", at(0.5), at(0.99), at(1))
}

// served checks that nobody who came was turned away.
func (p *phase) served(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unserved > 0 {
		t.Errorf("%s: %d of %d new clients were not served: %s", p.name, p.unserved, len(p.visits), p.firstLost)
	}
}

// footprint is what a node occupies.
type footprint struct {
	goroutines, files, connections, sessions, subscriptions, queued float64
	heap, resident                                                  float64 // MiB
}

// footprint measures it, after the node has collected its garbage: it must serve its profiles.
func (n *node) footprint() (f footprint) {
	n.t.Helper()
	response, err := http.Get("http://" + n.admin + "/debug/pprof/heap?gc=1")
	if err != nil {
		n.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	const mib = 1 << 20
	return footprint{n.metric("go_goroutines"), n.metric("process_open_fds"), n.metric("mozzie_connections"), n.metric("mozzie_sessions"),
		n.metric("mozzie_subscriptions"), n.metric("mozzie_queued_bytes"), n.metric("go_memstats_heap_alloc_bytes") / mib, n.metric("process_resident_memory_bytes") / mib}
}

func (f footprint) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f files, %.0f connections, %.0f sessions, %.0f subscriptions, %.0f bytes queued, heap %.1f MiB, resident %.0f MiB",
		f.goroutines, f.files, f.connections, f.sessions, f.subscriptions, f.queued, f.heap, f.resident)
}

// Some may be there for a moment: the API's own connections, visitors, what runtime and pools keep.
const (
	someGoroutines = 12
	someFiles      = 10
	someClients    = 1
	someHeap       = 24 // MiB
)

// recovers waits until the node occupies what it did before, but for what comes and goes anyway.
func (n *node) recovers(before footprint) footprint {
	n.t.Helper()
	var now footprint
	over := false
	defer func() {
		if !over {
			n.showGoroutines()
		}
	}()
	eventually(n.t, 2*patience, func() error {
		time.Sleep(100 * time.Millisecond) // it costs a collection each time
		now = n.footprint()
		if now.goroutines > before.goroutines+someGoroutines || now.files > before.files+someFiles || now.connections > before.connections+someClients ||
			now.sessions > before.sessions+someClients || now.subscriptions > before.subscriptions+someClients || now.queued > before.queued+1<<20 || now.heap > before.heap+someHeap {
			return notYet("%s does not recover: before %v; now %v", n.name, before, now)
		}
		return nil
	})
	over = true
	return now
}

// showGoroutines logs what the node's goroutines are at.
func (n *node) showGoroutines() {
	response, err := http.Get("http://" + n.admin + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		n.t.Log(err)
		return
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	n.t.Logf("goroutines of %s: %v\n%s", n.name, err, text[:min(len(text), 20_000)])
}

// quietLog checks that what clients do wrong does not fill the log.
func (n *node) quietLog() {
	n.t.Helper()
	const most = 64 << 10
	if info, err := os.Stat(n.log); err != nil || info.Size() > most {
		n.t.Errorf("%s has logged %d bytes, %d at most for what clients do wrong (%v)", n.name, info.Size(), most, err)
	}
}

// causes returns the counters of connections that ended badly.
func (n *node) causes() (all map[string]float64) {
	n.t.Helper()
	all = map[string]float64{}
	response, err := http.Get("http://" + n.admin + "/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "mozzie_connection_errors_total{cause=\""); ok {
			cause, value, _ := strings.Cut(rest, "\"} ")
			var v float64
			if _, err := fmt.Sscan(value, &v); err != nil {
				n.t.Fatal(err)
			}
			all[cause] = v
		}
	}
	return all
}

// since returns what has changed since earlier counters.
func since(before, now map[string]float64) map[string]float64 {
	d := map[string]float64{}
	for cause, v := range now {
		if v > before[cause] {
			d[cause] = v - before[cause]
		}
	}
	return d
}

// machine says where something was measured.
func machine() string {
	return fmt.Sprintf("%s/%s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
}
