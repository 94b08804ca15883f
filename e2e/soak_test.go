package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	small "github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// soakLong says how long the soak is: SOAK=1h, or NIGHTLY=1 for the same. With SOAK_PROFILES=DIR, what the nodes' heaps
// hold is kept there, for "go tool pprof -base".
func soakLong(t *testing.T) (clients int, d time.Duration) {
	text := os.Getenv("SOAK")
	switch {
	case text == "" && os.Getenv("NIGHTLY") == "":
		return 100, 10 * time.Second
	case text == "":
		text = "1h"
	}
	clients = 1000
	if n, rest, ok := strings.Cut(text, "x"); ok { // SOAK=100x5m: so many clients
		text = rest
		clients, _ = strconv.Atoi(n)
	}
	d, err := time.ParseDuration(text)
	if err != nil || clients == 0 {
		t.Fatalf("SOAK=%s: want a time such as 1h, or 100x1h for 100 clients", os.Getenv("SOAK"))
	}
	return clients, d
}

// TestSoak has clients connect, subscribe, publish, fall silent and vanish at random, at three nodes, beside traffic that
// nothing may happen to. When they have gone, memory, goroutines and file descriptors are where they were before.
func TestSoak(t *testing.T) {
	long(t)
	clients, d := soakLong(t)
	nodes := startSwarm(t, 3, setup{flags: []string{"--set", "admin.pprof=true", "--set", "log.level=warn"}})
	steady := startTrafficAt(t, 50*time.Millisecond, nodes[0], nodes[1], "steady/a", "steady/b", "steady/c")

	// What grows to its size once (pools, caches, tables) does so before the first measurement.
	runSoak(t, nodes, clients, min(d/4, 2*time.Minute))
	before := settle(t, nodes, d)
	steady.mark("before")
	did := runSoak(t, nodes, clients, d)
	after := settle(t, nodes, d)
	steady.mark("after")
	steady.end()
	t.Logf("%d clients in %v: %s", clients, d, did)
	for i, n := range nodes {
		b, a := before[i], after[i]
		t.Logf("%s: heap %.1f MiB, then %.1f; RSS %.1f MiB, then %.1f; goroutines %.0f, then %.0f; file descriptors %.0f, then %.0f", n.name,
			b.heap/1024/1024, a.heap/1024/1024, b.rss/1024/1024, a.rss/1024/1024, b.goroutines, a.goroutines, b.files, a.files)
		// What the runtime and a few buffers of streams make of chance, and the table of the database that changes are
		// gathered in, which grows each time that it has been full, to 8 MiB.
		const slack = 3<<20 + 8<<20
		if a.heap > b.heap*1.1+slack {
			t.Errorf("%s: the heap has grown from %.0f to %.0f bytes", n.name, b.heap, a.heap)
		}
		if a.goroutines > b.goroutines+10 {
			t.Errorf("%s: %.0f goroutines before, %.0f after", n.name, b.goroutines, a.goroutines)
		}
		if a.files > b.files+5 {
			t.Errorf("%s: %.0f file descriptors before, %.0f after", n.name, b.files, a.files)
		}
	}
}

// usage is what a node needs.
type usage struct{ heap, rss, goroutines, files float64 }

// steadyClients is how many clients startTraffic has at a node, at most: one for each flow. steadyEpochs is how many epochs
// of them a node remembers.
const steadyClients, steadyEpochs = 6, 10

// settle waits until the nodes have nothing left of clients that came and went for some time, and measures them.
func settle(t *testing.T, nodes []*node, d time.Duration) []usage {
	t.Helper()
	all := make([]usage, len(nodes))
	for i, n := range nodes {
		n.until("has none of the clients left", func(s admin.Status) bool {
			return s.Connections <= steadyClients && s.Sessions <= steadyClients && s.Subscriptions <= steadyClients
		})
		eventually(t, patience, func() error {
			for _, name := range []string{"mozzie_queued_messages", "mozzie_unsettled_messages", "mozzie_waiting_messages"} {
				if v := n.metric(name); v > 100 { // of the steady ones
					return notYet("%s: %s is %.0f", n.name, name, v)
				}
			}
			return nil
		})
		eventually(t, 4*patience, func() error { // epochs are over when nothing has been published in them for a minute
			if v := n.metric("mozzie_epochs"); v > steadyEpochs && d > 4*patience {
				return notYet("%s: %.0f epochs are remembered", n.name, v)
			}
			return nil
		})
		for range 2 { // what pools hold goes with the second collection
			r, err := http.Get("http://" + n.admin + "/debug/pprof/heap?gc=1")
			if err != nil {
				t.Fatal(err)
			}
			profile, err := io.ReadAll(r.Body)
			r.Body.Close()
			if dir := os.Getenv("SOAK_PROFILES"); dir != "" && err == nil {
				name := fmt.Sprintf("%s-%s.heap", strings.ReplaceAll(n.name, " ", "-"), time.Now().Format("150405"))
				err = os.WriteFile(filepath.Join(dir, name), profile, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		all[i] = usage{heap: n.metric("go_memstats_heap_alloc_bytes"), rss: n.metric("process_resident_memory_bytes"),
			goroutines: n.metric("go_goroutines"), files: n.metric("process_open_fds")}
	}
	return all
}

// soaked counts what the clients did.
type soaked struct {
	connected, refused, subscribed, published, received, vanished, silent atomic.Int64
}

func (s *soaked) String() string {
	return fmt.Sprintf("%d connected, %d were refused, %d subscriptions, %d messages out, %d in, %d vanished, %d fell silent",
		s.connected.Load(), s.refused.Load(), s.subscribed.Load(), s.published.Load(), s.received.Load(), s.vanished.Load(), s.silent.Load())
}

func runSoak(t *testing.T, nodes []*node, clients int, d time.Duration) *soaked {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	did := new(soaked)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), uint64(d))) //nolint:gosec // a repeatable choice
			for ctx.Err() == nil {
				address := nodes[rng.IntN(len(nodes))].mqtt
				if rng.IntN(8) == 0 {
					fallSilent(t, ctx, address, did)
				} else {
					soakClient(t, ctx, rng, address, did)
				}
			}
		})
	}
	all.Wait()
	return did
}

// soakClient is one connection of a client that does this and that, and goes, one way or another.
func soakClient(t *testing.T, ctx context.Context, rng *rand.Rand, address string, did *soaked) {
	name := func() string { return fmt.Sprintf("soak-%d/%d", rng.IntN(20), rng.IntN(200)) }
	o := small.Options{Address: address, Version: small.Version311, ClientID: "soak-" + strconv.Itoa(rng.IntN(5000)), KeepAlive: 60,
		Clean: rng.IntN(2) == 0, MaxInflight: 1 + rng.IntN(20), OnMessage: func(small.Message) bool { did.received.Add(1); return true }}
	if rng.IntN(2) == 0 || !o.Clean { // sessions without an end are of MQTT 5 here, so that they end
		o.Version = small.Version5
		o.SessionExpiry = uint32(rng.IntN(8)) //nolint:gosec // small
	}
	if rng.IntN(3) == 0 {
		o.Will = &small.Message{Topic: name(), Payload: []byte("gone"), QoS: byte(rng.IntN(3))}
	}
	c, err := small.Connect(context.WithoutCancel(ctx), o) // has a limit of its own
	if err != nil {
		var refused *small.RefusedError
		if errors.As(err, &refused) {
			did.refused.Add(1)
		} else if !strings.Contains(err.Error(), "connection") {
			t.Errorf("connect: %v", err)
		}
		return
	}
	defer c.Close()
	did.connected.Add(1)
	for range 1 + rng.IntN(8) {
		switch rng.IntN(4) {
		case 0:
			filters := []string{name(), fmt.Sprintf("soak-%d/+", rng.IntN(20)), "+/" + strconv.Itoa(rng.IntN(200)), fmt.Sprintf("$share/g%d/%s", rng.IntN(3), name())}
			f := filters[rng.IntN(len(filters))]
			if c.Subscribe(ctx, []small.Subscription{{Filter: f, QoS: byte(rng.IntN(3))}}, small.Properties{}) == nil {
				did.subscribed.Add(1)
			}
			if rng.IntN(3) == 0 {
				_ = c.Unsubscribe(ctx, []string{f}, small.Properties{}) // the connection may have been taken over
			}
		default:
			for range 1 + rng.IntN(10) {
				m := small.Message{Topic: name(), Payload: make([]byte, rng.IntN(2000)), QoS: byte(rng.IntN(3))}
				if rng.IntN(20) == 0 { // the same few, so that as many are retained before as after
					m.Topic, m.Retain = fmt.Sprintf("soak-retained/%d", rng.IntN(50)), true
				}
				if c.PublishAsync(ctx, m, func(error) {}) != nil {
					break
				}
				did.published.Add(1)
			}
		}
		select {
		case <-ctx.Done():
		case <-c.Done():
			return
		case <-time.After(time.Duration(rng.IntN(1500)) * time.Millisecond): // people pause
		}
	}
	if rng.IntN(2) == 0 {
		_ = c.Disconnect() // it may be too late
		return
	}
	did.vanished.Add(1)
}

// fallSilent connects, says nothing more, and waits until the node has had enough.
func fallSilent(t *testing.T, ctx context.Context, address string, did *soaked) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	connect := []byte("\x10\x0c\x00\x04MQTT\x04\x02\x00\x01\x00\x00") // a keep alive of 1 s
	if _, err := c.Write(connect); err != nil {
		return
	}
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a client that fell silent is still connected after %v", patience)
	}
	did.silent.Add(1)
}
