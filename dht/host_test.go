package dht

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

// testConfig listens on a free loopback port, and keeps quiet.
func testConfig(t testing.TB) Config {
	t.Helper()
	cfg := DefaultConfig(t.TempDir())
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	cfg.MDNS = false
	cfg.Log = slog.New(slog.DiscardHandler)
	return cfg
}

func open(t testing.TB, cfg Config) *Host {
	t.Helper()
	h, err := Open(t.Context(), cfg)
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

// eventually waits until what is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in 20 s: %s", what)
		case <-tick.C:
		}
	}
}

func TestBootstrap(t *testing.T) {
	start := time.Now()
	a := open(t, testConfig(t))
	t.Log("open", time.Since(start))
	cfg := testConfig(t)
	cfg.Bootstrap = a.Addresses()
	start = time.Now()
	b := open(t, cfg)
	t.Log("open", time.Since(start))
	eventually(t, "connected", func() bool { return len(a.Connected()) == 1 && len(b.Connected()) == 1 })
	t.Log("connected", time.Since(start))
	got, err := a.Closest(t.Context(), LocationKey("doors", 1))
	t.Log(got, err)
}
