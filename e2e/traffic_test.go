package e2e

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// traffic is what flows from a client of one node to a client of another while something happens to a third.
// Each topic has a publisher, which has at most window messages unacknowledged and goes on until it is told to
// stop.
type traffic struct {
	t      testing.TB
	sub    *client
	topics []flow
	pace   time.Duration // how long a publisher waits after a message

	stopping atomic.Bool
	running  sync.WaitGroup
}

// flow is the messages of one topic.
type flow struct {
	topic string
	qos   byte
	acked atomic.Int64 // so many from the first on were acknowledged
}

const (
	window = 20
	// usualPace is so that tests under the race detector keep up.
	usualPace = 2 * time.Millisecond
)

// startTraffic begins to publish at one node to topics that a client of the other is subscribed to, at QoS 1 and
// 2 each.
func startTraffic(t testing.TB, from, to *node, topics ...string) *traffic {
	t.Helper()
	return startTrafficAt(t, usualPace, from, to, topics...)
}

func startTrafficAt(t testing.TB, pace time.Duration, from, to *node, topics ...string) *traffic {
	t.Helper()
	tr := &traffic{t: t, sub: connect(t, to.mqtt), topics: make([]flow, 2*len(topics)), pace: pace}
	for i := range tr.topics {
		f := &tr.topics[i]
		f.qos = byte(1 + i%2)
		f.topic = fmt.Sprintf("%s/qos%d", topics[i/2], f.qos)
		tr.sub.subscribe(f.qos, f.topic)
	}
	for i := range tr.topics {
		pub := connect(t, from.mqtt)
		tr.running.Go(func() { tr.run(pub, &tr.topics[i]) })
	}
	return tr
}

// run publishes until it is told to stop, and then waits for the acknowledgements.
func (tr *traffic) run(pub *client, f *flow) {
	open := make(chan mqtt.Token, window)
	var acks sync.WaitGroup
	acks.Go(func() {
		for token := range open {
			if !token.WaitTimeout(patience) || token.Error() != nil {
				tr.t.Errorf("%s: message %d was not acknowledged: %v", f.topic, f.acked.Load(), token.Error())
				return
			}
			f.acked.Add(1)
		}
	})
	for i := 0; !tr.stopping.Load(); i++ {
		open <- pub.mqtt.Publish(f.topic, f.qos, false, numbered(i))
		time.Sleep(tr.pace)
	}
	close(open)
	acks.Wait()
}

// flows waits until every topic has had n more messages.
func (tr *traffic) flows(n int) {
	tr.t.Helper()
	want := map[string]int{}
	for _, m := range tr.sub.all() {
		want[m.topic]++
	}
	tr.sub.until(tr.t, patience, fmt.Sprintf("%d more messages of every topic", n), func(got []message) bool {
		have := map[string]int{}
		for _, m := range got {
			have[m.topic]++
		}
		for i := range tr.topics {
			if f := &tr.topics[i]; have[f.topic] < want[f.topic]+n {
				return false
			}
		}
		return true
	})
}

// end stops the publishers and waits until everything that was acknowledged has come. It returns the messages
// by topic.
func (tr *traffic) end() map[string][]message {
	tr.t.Helper()
	tr.stopping.Store(true)
	tr.running.Wait()
	var got map[string][]message
	eventually(tr.t, patience, func() error {
		got = map[string][]message{}
		for _, m := range tr.sub.all() {
			got[m.topic] = append(got[m.topic], m)
		}
		for i := range tr.topics {
			f := &tr.topics[i]
			seen := map[string]bool{}
			for _, m := range got[f.topic] {
				seen[m.payload] = true
			}
			var missing []string
			for k := range int(f.acked.Load()) {
				if !seen[numbered(k)] {
					missing = append(missing, numbered(k))
				}
			}
			if len(missing) > 0 {
				return notYet("%s: of %d acknowledged ones %d have not come: %s", f.topic, f.acked.Load(), len(missing), missing)
			}
		}
		return nil
	})
	return got
}

// count returns how many messages were published to each topic, at most.
func (tr *traffic) count() map[string]int {
	sent := map[string]int{}
	for i := range tr.topics {
		f := &tr.topics[i]
		sent[f.topic] = int(f.acked.Load()) + window + 1
	}
	return sent
}

// mark notes in the test's log how far the topics are.
func (tr *traffic) mark(what string) {
	tr.t.Helper()
	var text strings.Builder
	for i := range tr.topics {
		fmt.Fprintf(&text, " %s: %d", tr.topics[i].topic, tr.topics[i].acked.Load())
	}
	tr.t.Logf("%s; acknowledged so far:%s", what, text.String())
}

// goesOn waits until what is published from now on arrives, which must be within a limit.
func (tr *traffic) goesOn(before map[string]int, limit time.Duration) {
	tr.t.Helper()
	began := time.Now()
	tr.sub.until(tr.t, patience, "traffic to go on", func(got []message) bool {
		later := map[string]bool{}
		for _, m := range got {
			var i int
			if _, err := fmt.Sscanf(m.payload, "n%d", &i); err == nil && i > before[m.topic] {
				later[m.topic] = true
			}
		}
		return len(later) == len(before)
	})
	took := time.Since(began).Round(time.Millisecond)
	tr.t.Logf("traffic went on after %v", took)
	if took > limit {
		tr.t.Errorf("traffic went on after %v, want at most %v", took, limit)
	}
}
