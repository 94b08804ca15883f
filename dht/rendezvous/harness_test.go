package rendezvous

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"go.uber.org/goleak"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// Every host of these tests is closed when its test ends, so that nothing of libp2p is left either.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func newHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func connect(t *testing.T, a, b host.Host) {
	t.Helper()
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until what is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	within(t, 30*time.Second, what, so)
}

// within is eventually with a limit of its own.
func within(t *testing.T, limit time.Duration, what string, so func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-deadline:
			t.Fatalf("not in %v: %s", limit, what)
		case <-tick.C:
		}
	}
}

// node is a host with a Service and a broker that notes what comes.
type node struct {
	*Service
	host     host.Host
	accepted chan uint16

	mu    sync.Mutex
	got   []core.Delivery
	held  bool            // what comes is not done
	hold  []*core.Receipt // of what came meanwhile
	order []string        // payloads, as they came
}

// start runs a Service on a host, which is told of the peers that connect.
func start(t *testing.T, h host.Host, change ...func(*Config)) *node {
	t.Helper()
	n := startUntold(t, h, change...)
	told := &network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) { n.OnPeer(c.RemotePeer(), true) },
		DisconnectedF: func(net network.Network, c network.Conn) {
			if net.Connectedness(c.RemotePeer()) != network.Connected {
				n.OnPeer(c.RemotePeer(), false)
			}
		},
	}
	h.Network().Notify(told)
	t.Cleanup(func() { h.Network().StopNotify(told) })
	return n
}

// startUntold runs a Service on a host, which is told of nobody.
func startUntold(t *testing.T, h host.Host, change ...func(*Config)) *node {
	t.Helper()
	n := &node{host: h, accepted: make(chan uint16, 10_000)}
	cfg := Config{
		Host: h, Database: 1, Life: 1, Depth: 1, Small: 100, Limits: core.DefaultLimits(), Pending: DefaultPending(),
		Custody: storetest.NewCustody(), Retained: storetest.NewRetained(), Journal: storetest.NewJournal(), Received: storetest.NoneReceived{}, Log: slog.New(slog.DiscardHandler),
		Addresses: func() (as []string) {
			for _, a := range h.Addrs() {
				as = append(as, a.String())
			}
			return as
		},
		Dial: func(info peer.AddrInfo) {
			h.Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
			go func() { // ends with the host
				ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(context.Background(), "test"), 5*time.Second)
				defer cancel()
				_ = h.Connect(ctx, info)
			}()
		},
		Forget:     func(peer.ID) {},
		Reconnect:  func(peer.ID) {},
		Closest:    func(context.Context, []byte) ([]peer.ID, error) { return nil, errors.New("nobody looks up here") },
		Deliver:    n.deliver,
		Sync:       func(done func(error)) { done(nil) },
		SyncInTime: func(done func(error)) { done(nil) },
		Accept: func(came []Accepted) {
			for _, a := range came {
				if a.Once.First() {
					n.accepted <- a.Packet
				}
			}
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	n.Service = New(cfg)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// returns waits until f does.
func returns(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("not in 30 seconds: %s returns\n%s", what, running())
	}
}

// linked returns how many links there are.
func (n *node) linked() int {
	n.Service.mu.Lock()
	defer n.Service.mu.Unlock()
	return len(n.links)
}

// linkTo returns the link to a host; nil when there is none.
func (n *node) linkTo(h host.Host) *link {
	n.Service.mu.Lock()
	defer n.Service.mu.Unlock()
	return n.links[h.ID()]
}

// up returns how many peers are up.
func (n *node) up() int { return int(n.Stats().Up.Load()) }

// swarm starts so many nodes and returns when all know all.
func swarm(t *testing.T, count int, change ...func(*Config)) []*node {
	t.Helper()
	var nodes []*node
	for range count {
		n := start(t, newHost(t), change...)
		for _, m := range nodes {
			connect(t, n.host, m.host)
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		eventually(t, "all know all", func() bool {
			up := 0
			for _, p := range n.Peers() {
				if p.Up {
					up++
				}
			}
			return up == count-1
		})
	}
	return nodes
}

func (n *node) deliver(ds []core.Delivery) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range ds {
		d.Message = d.Message.Clone()
		n.got = append(n.got, d)
		n.order = append(n.order, string(d.Message.Payload))
		switch {
		case d.Receipt == nil:
		case n.held:
			n.hold = append(n.hold, d.Receipt)
		default:
			n.Done(d.Receipt)
		}
	}
}

// setHeld has what comes from now on not be done, or everything be.
func (n *node) setHeld(held bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = held
	if !held {
		for _, r := range n.hold {
			n.Done(r)
		}
		n.hold = nil
	}
}

// count returns how often each payload came.
func (n *node) count() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	times := map[string]int{}
	for _, p := range n.order {
		times[p]++
	}
	return times
}

// subscribe registers a filter and waits for the promise.
func (n *node) subscribe(t *testing.T, filter string) {
	t.Helper()
	promised := make(chan bool, 1)
	n.Register(filter, core.Interest{Plain: true, QoS: 2}, func(local bool) { promised <- local })
	select {
	case local := <-promised:
		if local {
			t.Fatalf("%q is promised for this node alone", filter)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("%q is not promised", filter)
	}
}

// publish sends a message as of packet ID packet; no subscriber of this node has had it.
func (n *node) publish(topic, payload string, qos byte, packet uint16) {
	m := &proto.Message{Topic: topic, Payload: []byte(payload), QoS: qos}
	// As a broker without subscribers of its own would: what is not asked to come back has been served.
	n.Publish([]core.Publication{{Message: m, Origin: "client", Packet: packet, Served: qos == 0 && !n.Detour(m)}})
}

// rendezvousOf returns which of the nodes serves a topic.
func rendezvousOf(t *testing.T, nodes []*node, topic string) *node {
	t.Helper()
	var v core.View
	nodes[0].View(func(c *core.Node) { v = c.Locate(topic) })
	i := slices.IndexFunc(nodes, func(n *node) bool { return n.Self() == v.Rendezvous })
	if i < 0 {
		t.Fatalf("nobody serves %q: %+v", topic, v)
	}
	return nodes[i]
}

// levelOf returns a first level whose topics a node serves, also when these hosts are nodes.
func levelOf(n *node, others ...host.Host) string {
	for i := 0; ; i++ {
		level := fmt.Sprint("t", i)
		at := dht.Locate(level, 1)
		if !slices.ContainsFunc(others, func(h host.Host) bool {
			return at.Closer(dht.PeerPoint(string(h.ID())), dht.PeerPoint(string(n.host.ID())))
		}) {
			return level
		}
	}
}

// settled waits until no node has anything to do for another, and checks that nothing is kept. A second copy whose end
// was said on a stream that broke is offered to the rendezvous a minute later.
func settled(t *testing.T, nodes ...*node) {
	t.Helper()
	defer func() {
		if t.Failed() {
			for i, n := range nodes {
				t.Logf("node %d: %+v, %+v", i, n.Gauges(), n.CoreStats())
			}
		}
	}()
	for _, n := range nodes {
		within(t, 90*time.Second, "nothing is kept", func() bool {
			g := n.Gauges()
			return g.Outbox == 0 && g.Custody == 0 && g.Unsettled == 0 && g.Waiting == 0
		})
	}
}

// crosses checks that messages of every QoS reach b from a, once each.
func crosses(t *testing.T, a, b *node, topic, tag string) {
	t.Helper()
	for qos := range byte(3) {
		p := fmt.Sprintf("%s at QoS %d", tag, qos)
		a.publish(topic, p, qos, uint16(qos)+1)
		eventually(t, p+" arrives", func() bool { return b.count()[p] > 0 })
	}
	settled(t, a, b)
	for qos := range byte(3) {
		p := fmt.Sprintf("%s at QoS %d", tag, qos)
		if times := b.count()[p]; times != 1 {
			t.Errorf("%q came %d times", p, times)
		}
	}
}

// running returns the stacks of goroutines that have code of this package on them, this test's left out.
func running() string {
	return strings.Join(slices.DeleteFunc(stacks("dht/rendezvous.(*"), func(s string) bool { return strings.Contains(s, "_test.go") }), "\n\n")
}

// stacks returns the stacks of goroutines that have something on them.
func stacks(something string) (all []string) {
	b := make([]byte, 1<<20)
	b = b[:runtime.Stack(b, true)]
	for s := range bytes.SplitSeq(b, []byte("\n\n")) {
		if text := string(s); strings.Contains(text, something) {
			all = append(all, text)
		}
	}
	return all
}
