package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
	"github.com/mozzie-mqtt/mozzie/dht"
)

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

// TestStopKeeps: what waits at a node when it stops, for its own clients or for others, is there when it is started again, or
// somebody else has it meanwhile.
func TestStopKeeps(t *testing.T) {
	publish := func(s *testSwarm, i, n int, topic string, retain bool) {
		pub := s.connect(i, "pub")
		for range n {
			pub.publish(client.Message{Topic: topic, Payload: []byte("x"), QoS: 1, Retain: retain})
		}
		_ = pub.Disconnect()
	}
	subscribed := func(s *testSwarm, i int, id string) {
		away := s.connect(i, id, kept)
		away.subscribe(1, "a/#")
		_ = away.Disconnect()
	}
	t.Run("a node alone", func(t *testing.T) {
		s := startSwarm(t, 1)
		subscribed(s, 0, "away0")
		subscribed(s, 0, "away1")
		publish(s, 0, 3, "a/b", false)
		publish(s, 0, 2, "r/s", true)
		publish(s, 0, 1, "$local/r", true)
		s.stopNode(0)
		s.again(0)
		for _, id := range []string{"away0", "away1"} {
			s.connect(0, id, kept).wait(3)
		}
		sub := s.connect(0, "sub")
		sub.subscribe(1, "r/#")
		sub.subscribe(1, "$local/#")
		sub.wait(2)
	})
	t.Run("a node that is away while it is published to", func(t *testing.T) {
		s := startSwarm(t, 3)
		subscribed(s, 1, "away")
		publish(s, 1, 2, "a/b", false)
		s.stopNode(1)
		publish(s, 0, 3, "a/b", false)
		s.again(1)
		s.connect(1, "away", kept).wait(5)
	})
	t.Run("one after another", func(t *testing.T) {
		s := startSwarm(t, 3)
		subscribed(s, 1, "away")
		publish(s, 0, 3, "a/b", false)
		publish(s, 0, 1, "r/s", true)
		for i := range s.nodes {
			s.stopNode(i)
		}
		for i := range s.nodes {
			s.again(2 - i)
		}
		s.connect(1, "away", kept).wait(3)
		for i := range s.nodes {
			sub := s.connect(i, "sub")
			sub.subscribe(1, "r/#")
			sub.wait(1)
		}
	})
	t.Run("all at once", func(t *testing.T) {
		s := startSwarm(t, 3)
		subscribed(s, 1, "away")
		publish(s, 0, 3, "a/b", false)
		publish(s, 0, 1, "r/s", true)
		var wg sync.WaitGroup
		for i := range s.nodes {
			wg.Go(func() { s.stopNode(i) })
		}
		wg.Wait()
		for i := range s.nodes {
			s.again(i)
		}
		s.connect(1, "away", kept).wait(3)
		sub := s.connect(2, "sub")
		sub.subscribe(1, "r/#")
		sub.wait(1)
	})
}

// TestStopOutOfTime: a node that has no time to hand over says so, and keeps what no other node has.
func TestStopOutOfTime(t *testing.T) {
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
	pub := s.connect(2, "pub")
	for range 3 {
		pub.publish(client.Message{Topic: topic, Payload: []byte("x"), QoS: 1})
	}
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
	if log := s.logged(0); !strings.Contains(log, " custody=3 ") || !strings.Contains(log, "that no other node has wait here") {
		t.Errorf("said: %s", log)
	}
}
