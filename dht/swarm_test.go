package dht

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// openSwarm opens n hosts that bootstrap by the first, and waits until all are connected to all.
func openSwarm(t testing.TB, n int) []*Host {
	t.Helper()
	start := time.Now()
	hosts := []*Host{open(t, testConfig(t))}
	for range n - 1 {
		cfg := testConfig(t)
		cfg.Bootstrap = hosts[0].Addresses()
		hosts = append(hosts, open(t, cfg))
	}
	opened := time.Since(start)
	eventually(t, "all connected to all", func() bool { return meshed(hosts) })
	conns := 0
	for _, h := range hosts {
		conns += len(h.Libp2p().Network().Conns())
	}
	t.Logf("%d hosts: opened in %v, meshed in %v; %d connections for %d pairs",
		n, opened.Round(time.Millisecond), time.Since(start).Round(time.Millisecond), conns/2, n*(n-1)/2)
	return hosts
}

func meshed(hosts []*Host) bool {
	return !slices.ContainsFunc(hosts, func(h *Host) bool { return len(h.Connected()) < len(hosts)-1 })
}

// TestSwarmOf30 has Closest agree with what is obvious, at every host.
func TestSwarmOf30(t *testing.T) {
	hosts := openSwarm(t, 30)
	t.Cleanup(func() { closeAll(t, hosts) })
	eventually(t, "routing tables are full", func() bool {
		return !slices.ContainsFunc(hosts, func(h *Host) bool { return h.kad.RoutingTable().Size() < 20 })
	})
	for i := range 60 {
		h := hosts[i%len(hosts)]
		key := LocationKey(fmt.Sprint("topic", i), 1)
		want := obviouslyClosest(hosts, key)
		got, err := h.Closest(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) < kadBeta || !slices.Equal(got[:3], want[:3]) {
			t.Errorf("key %d at %v:\ngot  %v\nwant %v", i, h.ID(), got, want[:3])
		}
	}
}

// TestSwarmOf100 meshes as many as a small swarm may have. It takes 20 s and 1.2 GB: not every time.
func TestSwarmOf100(t *testing.T) {
	if os.Getenv("NIGHTLY") == "" {
		t.Skip("runs where NIGHTLY is set")
	}
	hosts := openSwarm(t, 100)
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	t.Logf("each has %d KiB of heap, %d KiB of stacks, %d goroutines",
		m.HeapAlloc>>10/100, m.StackInuse>>10/100, runtime.NumGoroutine()/100)
	closeAll(t, hosts)
}

// obviouslyClosest sorts all hosts by distance.
func obviouslyClosest(hosts []*Host, key []byte) []peer.ID {
	at := Locate(string(key[len(locationTag)+1:]), 1)
	ids := make([]peer.ID, 0, len(hosts))
	for _, h := range hosts {
		ids = append(ids, h.ID())
	}
	slices.SortFunc(ids, func(a, b peer.ID) int {
		if at.Closer(PeerPoint(string(a)), PeerPoint(string(b))) {
			return -1
		}
		return 1
	})
	return ids
}

// TestClosestPassesTheDeadBy closes a third of a swarm and looks up at once.
func TestClosestPassesTheDeadBy(t *testing.T) {
	hosts := openSwarm(t, 12)
	t.Cleanup(func() { closeAll(t, hosts) })
	dead, alive := hosts[8:], hosts[:8]
	closeAll(t, dead)
	for i := range 10 {
		key := LocationKey(fmt.Sprint("topic", i), 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		got, err := alive[i%len(alive)].Closest(ctx, key)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if want := obviouslyClosest(alive, key)[:3]; len(got) < 3 || !slices.Equal(got[:3], want) {
			t.Errorf("key %d:\ngot  %v\nwant %v", i, got, want)
		}
	}
}

func TestClosestEndsWithItsContext(t *testing.T) {
	hosts := openSwarm(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, err := hosts[0].Closest(ctx, LocationKey("a", 1))
	if err == nil || !slices.Contains(got, hosts[0].ID()) {
		t.Errorf("got %v, %v", got, err)
	}
}

func closeAll(t testing.TB, hosts []*Host) {
	var wg sync.WaitGroup
	for _, h := range hosts {
		wg.Go(func() { shut(t, h) })
	}
	wg.Wait()
}
