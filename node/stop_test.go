package node

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
	"github.com/mozzie-mqtt/mozzie/dht"
)

// lost returns what a node has said is lost with it, "" where it said nothing.
func (s *testSwarm) lost(i int) string {
	s.t.Helper()
	all := regexp.MustCompile(`(are lost.*)" (queued=.*)\n`).FindAllStringSubmatch(s.logged(i), -1)
	if len(all) == 0 {
		return ""
	}
	if len(all) > 1 {
		s.t.Errorf("node %d has said it %d times: %s", i, len(all), s.logged(i))
	}
	return all[0][2]
}

// stopNode stops a node politely.
func (s *testSwarm) stopNode(i int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	if err := s.nodes[i].Stop(ctx); err != nil {
		s.t.Errorf("stop node %d: %v", i, err)
	}
}

func kept(o *client.Options) { o.Clean, o.SessionExpiry = false, 600 }

// TestStopSaysWhatIsLost: a node that stops says how many messages that were acknowledged end with its memory, and
// nothing where there are none.
func TestStopSaysWhatIsLost(t *testing.T) {
	publish := func(s *testSwarm, i, n int, topic string, retain bool) {
		pub := s.connect(i, "pub")
		for range n {
			pub.publish(client.Message{Topic: topic, Payload: []byte("x"), QoS: 1, Retain: retain})
		}
		_ = pub.Disconnect()
	}
	t.Run("nothing", func(t *testing.T) {
		s := startSwarm(t, 1)
		sub := s.connect(0, "sub")
		sub.subscribe(1, "a")
		publish(s, 0, 3, "a", false)
		publish(s, 0, 3, "nobody/wants/it", false)
		sub.wait(3)
		_ = sub.Disconnect()
		s.stopNode(0)
		if what := s.lost(0); what != "" {
			t.Errorf("said that %s is lost", what)
		}
	})
	t.Run("queues of a node alone", func(t *testing.T) {
		s := startSwarm(t, 1)
		for i := range 2 {
			away := s.connect(0, fmt.Sprint("away", i), kept)
			away.subscribe(1, "a/#")
			_ = away.Disconnect()
		}
		publish(s, 0, 3, "a/b", false)
		publish(s, 0, 2, "r/s", true)
		publish(s, 0, 1, "$local/r", true)
		s.stopNode(0)
		if what := s.lost(0); !strings.HasPrefix(what, "queued=6 sessions=2 ") || !strings.HasSuffix(what, "retained=2") {
			t.Errorf("said that %q is lost", what)
		}
	})
	t.Run("kept for a node that is away", func(t *testing.T) {
		s := startSwarm(t, 2)
		away := s.connect(1, "away", kept)
		away.subscribe(1, "a/#")
		if err := s.nodes[1].close(); err != nil {
			t.Fatal(err)
		}
		publish(s, 0, 3, "a/b", false)
		s.stopNode(0)
		// They wait until the other's leases are over, if that was the rendezvous.
		if what := s.lost(0); !strings.Contains(what, " custody=3 ") && !strings.Contains(what, " waiting=3 ") {
			t.Errorf("said that %q is lost", what)
		}
	})
	t.Run("handed over", func(t *testing.T) {
		s := startSwarm(t, 3)
		away := s.connect(1, "away", kept)
		away.subscribe(1, "a/#")
		_ = away.Disconnect()
		publish(s, 0, 3, "a/b", true)
		s.stopNode(0)
		if what := s.lost(0); what != "" {
			t.Errorf("the first said that %s is lost, which others have", what)
		}
		s.stopNode(1)
		if what := s.lost(1); !strings.HasPrefix(what, "queued=3 sessions=1 custody=0 ") || !strings.HasSuffix(what, "retained=0") {
			t.Errorf("the second said that %q is lost", what)
		}
		s.stopNode(2)
		if what := s.lost(2); !strings.HasPrefix(what, "queued=0 sessions=0 ") || !strings.HasSuffix(what, "retained=1") {
			t.Errorf("the last said that %q is lost", what)
		}
	})
	t.Run("all at once", func(t *testing.T) {
		s := startSwarm(t, 3)
		publish(s, 0, 1, "a/b", true)
		var wg sync.WaitGroup
		for i := range s.nodes {
			wg.Go(func() { s.stopNode(i) })
		}
		wg.Wait()
		if all := s.lost(0) + s.lost(1) + s.lost(2); !strings.Contains(all, "retained=1") {
			t.Errorf("said that %q is lost", all)
		}
	})
	t.Run("out of time", func(t *testing.T) {
		s := startSwarm(t, 3)
		topic := ""
		for i := 0; topic == ""; i++ {
			if name := fmt.Sprint("t", i); s.closest(dht.Locate(name, 1))[0] == 0 {
				topic = name
			}
		}
		away := s.connect(1, "away", kept)
		away.subscribe(1, topic)
		_ = away.Disconnect()
		publish(s, 2, 3, topic, false)
		eventually(t, func() error {
			if n := s.nodes[0].service.Load().Gauges().Custody; n != 3 {
				return fmt.Errorf("the rendezvous keeps %d messages", n)
			}
			return nil
		})
		ctx, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		err := s.nodes[0].Stop(ctx)
		if err == nil || !strings.Contains(err.Error(), "not everything was handed over to other nodes: the time was up") {
			t.Errorf("Stop: %v", err)
		}
		if what := s.lost(0); !strings.Contains(what, " custody=3 ") || !strings.Contains(s.logged(0), "those that no other node has") {
			t.Errorf("said that %q is lost: %s", what, s.logged(0))
		}
	})
}
