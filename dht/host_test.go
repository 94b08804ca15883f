package dht

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

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
	t.Cleanup(func() { shut(t, h) })
	return h
}

func shut(t testing.TB, h *Host) {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

// eventually waits until what is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in a minute: %s", what)
		case <-tick.C:
		}
	}
}

func linked(a, b *Host) bool {
	return slices.Contains(a.Connected(), b.ID()) && slices.Contains(b.Connected(), a.ID())
}

// logBuffer is what a Host logs, as text.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// freePort returns a TCP port that is free, and not among those that the kernel gives to others meanwhile.
func freePort(t testing.TB) int {
	t.Helper()
	for {
		port := 10000 + rand.N(10000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return port
		}
	}
}

func TestAloneIsFine(t *testing.T) {
	h := open(t, testConfig(t))
	if got := h.Connected(); len(got) != 0 {
		t.Errorf("connected to %v", got)
	}
	got, err := h.Closest(t.Context(), LocationKey("doors", 1))
	if err != nil || !slices.Equal(got, []peer.ID{h.ID()}) {
		t.Errorf("closest: %v, %v", got, err)
	}
	for range 2 {
		shut(t, h)
	}
}

func TestJoinByBootstrap(t *testing.T) {
	a := open(t, testConfig(t))
	cfg := testConfig(t)
	cfg.Bootstrap = a.Addresses()
	var mu sync.Mutex
	var news []string
	cfg.OnPeer = func(id peer.ID, connected bool) {
		mu.Lock()
		defer mu.Unlock()
		news = append(news, fmt.Sprint(id == a.ID(), connected))
	}
	b := open(t, cfg)
	eventually(t, "connected", func() bool { return linked(a, b) })
	shut(t, a)
	eventually(t, "lost", func() bool { return len(b.Connected()) == 0 })
	eventually(t, "told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal(news, []string{"true true", "true false"})
	})
}

// TestBootstrapComesLater starts the node that is to be joined second, at an address that was configured
// before, with a list that has its own address too.
func TestBootstrapComesLater(t *testing.T) {
	first, later := testConfig(t), testConfig(t)
	later.Listen = []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", freePort(t))}
	key, err := loadNodeKey(later.Dir)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	first.Bootstrap = []string{later.Listen[0] + "/p2p/" + id.String()}
	later.Bootstrap = first.Bootstrap
	a := open(t, first)
	eventually(t, "tried in vain", func() bool {
		return slices.ContainsFunc(a.Problems(), func(p Problem) bool { return p.Peer == id && p.Text == dialRefused && !p.Lasting })
	})
	b := open(t, later)
	if b.ID() != id {
		t.Fatalf("the ID is %v, was %v", b.ID(), id)
	}
	eventually(t, "connected", func() bool { return linked(a, b) })
	if got := a.Problems(); len(got) != 0 {
		t.Errorf("problems: %v", got)
	}
}

func TestDialAndForget(t *testing.T) {
	a, b := open(t, testConfig(t)), open(t, testConfig(t))
	infos, err := ParsePeers(b.Addresses())
	if err != nil {
		t.Fatal(err)
	}
	a.Dial(infos[0])
	eventually(t, "connected", func() bool { return linked(a, b) })
	eventually(t, "known", func() bool { return len(a.Known()) == 1 })
	a.Forget(b.ID())
	if got := a.Known(); len(got) != 0 {
		t.Errorf("known: %v", got)
	}
}

// TestRestart joins again by what was saved: the one that restarts knows nobody else.
func TestRestart(t *testing.T) {
	cfg, other := testConfig(t), testConfig(t)
	other.Listen = []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", freePort(t))}
	b := open(t, other)
	cfg.Bootstrap = b.Addresses()
	a := open(t, cfg)
	eventually(t, "connected", func() bool { return linked(a, b) })
	id := a.ID()
	shut(t, a)
	shut(t, b)

	b = open(t, other)
	cfg.Bootstrap = nil
	a = open(t, cfg)
	if a.ID() != id {
		t.Errorf("the ID is %v, was %v", a.ID(), id)
	}
	eventually(t, "connected again", func() bool { return linked(a, b) })
}

// TestReconnect loses a link, and makes it again without anybody asking.
func TestReconnect(t *testing.T) {
	a := open(t, testConfig(t))
	cfg := testConfig(t)
	cfg.Bootstrap = a.Addresses()
	b := open(t, cfg)
	eventually(t, "connected", func() bool { return linked(a, b) })
	conns := b.Libp2p().Network().ConnsToPeer(a.ID())
	if err := b.Libp2p().Network().ClosePeer(a.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected by a new link", func() bool {
		now := b.Libp2p().Network().ConnsToPeer(a.ID())
		return linked(a, b) && len(now) > 0 && now[0].ID() != conns[0].ID()
	})
}

func TestSwarmKeys(t *testing.T) {
	key, other := NewSwarmKey(), NewSwarmKey()
	for _, c := range []struct {
		name         string
		there, here  *SwarmKey
		join         bool
		want, listen string
	}{
		{name: "same", there: key, here: key, join: true},
		{name: "different", there: key, here: other, want: keyMismatch},
		{name: "open to private", there: key, want: isPrivate},
		{name: "private to open", here: key, want: keyMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			there := testConfig(t)
			there.SwarmKey = c.there
			a := open(t, there)
			here := testConfig(t)
			here.SwarmKey = c.here
			here.Bootstrap = a.Addresses()
			var log logBuffer
			here.Log = log.logger()
			b := open(t, here)
			if c.join {
				eventually(t, "connected", func() bool { return linked(a, b) })
				return
			}
			eventually(t, "logged "+c.want, func() bool { return strings.Contains(log.String(), c.want) })
			// The log and the list of problems are written one after the other.
			eventually(t, "another try", func() bool {
				return slices.ContainsFunc(b.Problems(), func(p Problem) bool { return p.Text == c.want && p.Lasting })
			})
			if n := strings.Count(log.String(), c.want); n != 1 {
				t.Errorf("logged %d times:\n%s", n, &log)
			}
			if len(a.Connected())+len(b.Connected()) != 0 {
				t.Error("connected")
			}
		})
	}
}

func TestAnotherNodeAnswers(t *testing.T) {
	a, other := open(t, testConfig(t)), open(t, testConfig(t))
	cfg := testConfig(t)
	cfg.Bootstrap = []string{strings.Replace(a.Addresses()[0], a.ID().String(), other.ID().String(), 1)}
	b := open(t, cfg)
	eventually(t, otherNode, func() bool {
		return slices.ContainsFunc(b.Problems(), func(p Problem) bool { return p.Text == otherNode && p.Lasting })
	})
}

func TestQUIC(t *testing.T) {
	cfg := testConfig(t)
	cfg.Listen = []string{"/ip4/127.0.0.1/udp/0/quic-v1"}
	a := open(t, cfg)
	if got := a.Addresses(); len(got) != 1 || !strings.Contains(got[0], "/quic-v1/") {
		t.Fatalf("addresses: %v", got)
	}
	cfg = testConfig(t)
	cfg.Bootstrap = a.Addresses()
	b := open(t, cfg)
	eventually(t, "connected", func() bool { return linked(a, b) })
}

func TestPrivateLeavesQUICOut(t *testing.T) {
	var log logBuffer
	cfg := testConfig(t)
	cfg.SwarmKey = NewSwarmKey()
	cfg.Log = log.logger()
	cfg.Listen = append(cfg.Listen, "/ip4/127.0.0.1/udp/0/quic-v1")
	h := open(t, cfg)
	if got := h.Addresses(); len(got) != 1 || strings.Contains(got[0], "quic") {
		t.Errorf("addresses: %v", got)
	}
	if n := strings.Count(log.String(), "QUIC"); n != 1 {
		t.Errorf("%d lines say so:\n%s", n, &log)
	}
	cfg.Listen = cfg.Listen[1:]
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), exampleListen) {
		t.Errorf("QUIC alone: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	busy := open(t, testConfig(t))
	inUse, _, _ := strings.Cut(busy.Addresses()[0], "/p2p/")
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	inUseUDP := fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", udp.LocalAddr().(*net.UDPAddr).Port)
	for _, c := range []struct {
		name string
		set  func(*Config)
		want []string
	}{
		{"no directory", func(c *Config) { c.Dir = "" }, []string{"data directory"}},
		{"directory is absent", func(c *Config) { c.Dir = filepath.Join(c.Dir, "absent") }, []string{"absent", "must exist"}},
		{"empty swarm key", func(c *Config) { c.SwarmKey = new(SwarmKey) }, []string{"swarm key is empty"}},
		{"small", func(c *Config) { c.Small = 0 }, []string{"small swarm size 0", "between 1 and"}},
		{"keep-alive", func(c *Config) { c.KeepAlive = 0 }, []string{"keep-alive 0s", "at least 1s"}},
		{"reachability", func(c *Config) { c.Reachability = "perhaps" }, []string{`"perhaps"`, `"public"`}},
		{"listen", func(c *Config) { c.Listen = []string{"0.0.0.0:7883"} }, []string{`"0.0.0.0:7883"`, exampleListen}},
		{"listen on websocket", func(c *Config) { c.Listen = []string{"/ip4/127.0.0.1/tcp/0/ws"} }, []string{"/ws", "neither TCP nor QUIC"}},
		{"no such address", func(c *Config) { c.Listen = []string{"/ip4/192.0.2.1/tcp/7883"} }, []string{"192.0.2.1", "no such address"}},
		{"port in use", func(c *Config) { c.Listen = []string{inUse} }, []string{inUse, "in use", "/tcp/0"}},
		{"UDP port in use", func(c *Config) { c.Listen = append(c.Listen, inUseUDP) }, []string{inUseUDP, "in use"}},
		{"bootstrap", func(c *Config) { c.Bootstrap = []string{"example.org:7883"} }, []string{`"example.org:7883"`, examplePeer}},
		{"bootstrap without ID", func(c *Config) { c.Bootstrap = []string{exampleListen} }, []string{exampleListen, examplePeer}},
		{"bootstrap without address", func(c *Config) { c.Bootstrap = []string{"/p2p/" + busy.ID().String()} }, []string{"where the peer is", examplePeer}},
		{"damaged key", func(c *Config) { damage(t, c.Dir, nodeKeyFile) }, []string{nodeKeyFile, "damaged", "backup"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t)
			c.set(&cfg)
			h, err := Open(t.Context(), cfg)
			if err == nil {
				shut(t, h)
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

func damage(t *testing.T, dir, file string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte("not what it was"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedPeersAreSetAside(t *testing.T) {
	var log logBuffer
	cfg := testConfig(t)
	cfg.Log = log.logger()
	damage(t, cfg.Dir, bookFile)
	open(t, cfg)
	aside := filepath.Join(cfg.Dir, bookFile+".damaged")
	if _, err := os.Stat(aside); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), aside) {
		t.Errorf("the log does not say so:\n%s", &log)
	}
}

func TestKeyFilesAreSecret(t *testing.T) {
	cfg := testConfig(t)
	cfg.SwarmKey = NewSwarmKey()
	if err := cfg.SwarmKey.Save(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	open(t, cfg)
	for _, name := range []string{nodeKeyFile, SwarmKeyFile} {
		st, err := os.Stat(filepath.Join(cfg.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
}

func TestMetrics(t *testing.T) {
	cfg := testConfig(t)
	reg := prometheus.NewRegistry()
	cfg.Metrics = reg
	open(t, cfg)
	got, err := reg.Gather()
	if err != nil || len(got) == 0 {
		t.Errorf("%d metrics, %v", len(got), err)
	}
}

func TestAddressOrder(t *testing.T) {
	var addrs []ma.Multiaddr
	for _, s := range []string{
		"/ip6/::1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1",
		"/ip4/198.51.100.7/tcp/1", "/ip4/172.17.0.1/tcp/1", "/ip4/192.168.1.10/udp/1/quic-v1", "/ip4/192.168.1.10/tcp/1",
	} {
		addrs = append(addrs, ma.StringCast(s))
	}
	sortAddrs(addrs, net.IPv4(192, 168, 1, 10))
	want := "[/ip4/192.168.1.10/tcp/1 /ip4/192.168.1.10/udp/1/quic-v1 /ip4/172.17.0.1/tcp/1 /ip4/198.51.100.7/tcp/1 " +
		"/ip6/fe80::1/tcp/1 /ip6/::1/tcp/1 /ip4/127.0.0.1/tcp/1 /ip4/127.0.0.1/udp/1/quic-v1]"
	if got := fmt.Sprint(addrs); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
