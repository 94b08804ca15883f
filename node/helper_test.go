package node

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
	"github.com/mozzie-mqtt/mozzie/node/config"
)

// patience is how long anything in a test may take.
const patience = 3 * time.Minute

// testSwarm is some nodes of one process, on loopback.
type testSwarm struct {
	t       testing.TB
	dir     string // of all nodes
	also    func(*config.Config)
	nodes   []*Node
	configs []config.Config      // theirs
	limit   func(*config.Limits) // nil: the defaults

	mu   sync.Mutex
	tap  func(sent)         // sees every frame, before it is sent
	logs []*strings.Builder // what each node warns of
}

// sent is a frame that one node sends to another.
type sent struct {
	from, to peer.ID
	frame    any
}

// startSwarm starts n nodes and returns when each is connected to all others.
func startSwarm(t testing.TB, n int) *testSwarm {
	t.Helper()
	s := newSwarm(t)
	for i := range n {
		if i == 0 {
			s.start()
		} else {
			s.start(0)
		}
	}
	s.meet()
	return s
}

// newSwarm returns a swarm without nodes.
func newSwarm(t testing.TB) *testSwarm {
	s := &testSwarm{t: t, dir: t.TempDir()} // removed after the nodes are stopped
	t.Cleanup(s.stop)
	return s
}

// start starts a node that knows some of those that there are.
func (s *testSwarm) start(knows ...int) {
	s.t.Helper()
	c := config.Default()
	c.Data = filepath.Join(s.dir, fmt.Sprint(len(s.nodes)))
	c.MQTT.Listeners = []config.Listener{config.NewListener("tcp://127.0.0.1:0")}
	c.MQTT.SysInterval = 0
	c.Swarm = config.Swarm{Open: true, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Small: 100}
	c.Admin.Listen = "127.0.0.1:0"
	if s.limit != nil {
		s.limit(&c.Limits)
	}
	for _, i := range knows {
		c.Swarm.Bootstrap = append(c.Swarm.Bootstrap, s.nodes[i].host.Addresses()[0])
	}
	if s.also != nil {
		s.also(&c)
	}
	s.nodes = append(s.nodes, nil)
	s.configs = append(s.configs, c)
	s.run(len(s.nodes) - 1)
}

// again starts a node that was stopped, with what it has on its disk.
func (s *testSwarm) again(i int) {
	s.t.Helper()
	c := &s.configs[i]
	c.Swarm.Bootstrap = nil
	for k, other := range s.nodes {
		if k != i && !other.stopping.Load() {
			c.Swarm.Bootstrap = append(c.Swarm.Bootstrap, other.host.Addresses()[0])
		}
	}
	s.run(i)
}

// run starts node i.
func (s *testSwarm) run(i int) {
	s.t.Helper()
	var self peer.ID
	log := slog.New(slog.NewTextHandler(s.newLog(i), &slog.HandlerOptions{Level: slog.LevelWarn}))
	node, err := Start(s.t.Context(), s.configs[i], Options{Log: log, Version: "test", Tap: func(to peer.ID, frame any) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.tap != nil {
			s.tap(sent{self, to, frame})
		}
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	self = node.host.ID()
	s.mu.Unlock()
	s.nodes[i] = node
}

// nodeLog is where a node logs.
type nodeLog struct {
	s *testSwarm
	i int
}

func (s *testSwarm) newLog(i int) nodeLog {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i == len(s.logs) {
		s.logs = append(s.logs, new(strings.Builder))
	}
	return nodeLog{s, i}
}

// Write implements io.Writer.
func (l nodeLog) Write(text []byte) (int, error) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.s.logs[l.i].Write(text)
}

// logged returns what node i has warned of.
func (s *testSwarm) logged(i int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs[i].String()
}

// meet waits until each node is connected to all others.
func (s *testSwarm) meet() {
	s.t.Helper()
	for i, node := range s.nodes {
		eventually(s.t, func() error {
			if st := node.Status(); st.Peers != len(s.nodes)-1 {
				return fmt.Errorf("node %d has %d of %d peers", i, st.Peers, len(s.nodes)-1)
			}
			return nil
		})
	}
}

func (s *testSwarm) stop() {
	var wg sync.WaitGroup
	for _, n := range s.nodes {
		wg.Go(func() {
			if err := n.close(); err != nil {
				s.t.Errorf("close a node: %v", err)
			}
		})
	}
	wg.Wait()
}

// watch has a function see every frame from now on, one at a time; nil: nobody does.
func (s *testSwarm) watch(tap func(sent)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tap = tap
}

// eventually waits for what can be seen by looking only.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %v", patience, err)
		}
	}
}

// mqttClient is a client of a node, which remembers what it gets.
type mqttClient struct {
	*client.Client
	t testing.TB

	mu   sync.Mutex
	got  []client.Message
	news chan struct{} // closed and replaced with each message
}

// connect connects an MQTT 5 client to node i.
func (s *testSwarm) connect(i int, id string, options ...func(*client.Options)) *mqttClient {
	s.t.Helper()
	c := &mqttClient{t: s.t, news: make(chan struct{})}
	o := client.Options{
		Address: strings.TrimPrefix(s.nodes[i].listeners[0].url, "tcp://"), Version: client.Version5, ClientID: id,
		Clean: true, KeepAlive: 60, MaxInflight: 20,
		OnMessage: func(m client.Message) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.got = append(c.got, m)
			close(c.news)
			c.news = make(chan struct{})
			return true
		},
	}
	for _, option := range options {
		option(&o)
	}
	var err error
	if c.Client, err = client.Connect(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Disconnect() }) // the nodes are stopped after this
	return c
}

func (c *mqttClient) subscribe(qos byte, filters ...string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	for _, f := range filters {
		if err := c.Subscribe(ctx, []client.Subscription{{Filter: f, QoS: qos}}, client.Properties{}); err != nil {
			c.t.Fatalf("subscribe to %s: %v", f, err)
		}
	}
}

func (c *mqttClient) publish(m client.Message) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	if err := c.Publish(ctx, m); err != nil {
		c.t.Fatalf("publish to %s: %v", m.Topic, err)
	}
}

// wait waits until n messages have come.
func (c *mqttClient) wait(n int) []client.Message {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		got, news := c.got, c.news
		c.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-news:
		case <-deadline:
			c.t.Fatalf("%d of %d messages came in %v", len(got), n, patience)
		}
	}
}
