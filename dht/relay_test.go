package dht

import (
	"fmt"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
)

// hidden opens a host that listens nowhere, as if nobody could reach it, and knows another.
func hidden(t *testing.T, knows *Host) *Host {
	t.Helper()
	cfg := testConfig(t)
	cfg.SwarmKey = knows.cfg.SwarmKey
	cfg.Listen = nil
	cfg.Reachability = ReachabilityPrivate // so that it reserves, although it is on loopback
	cfg.Bootstrap = knows.Addresses()
	return open(t, cfg)
}

// openRelay opens a host with the defaults of a node.
func openRelay(t *testing.T, key *SwarmKey) *Host {
	t.Helper()
	cfg := testConfig(t)
	cfg.SwarmKey = key
	return open(t, cfg)
}

// TestRelay joins two nodes that listen nowhere, through one that has not been told anything of relaying. The
// connection is a full one: the two see each other as nodes, and Kademlia works over it.
func TestRelay(t *testing.T) {
	t.Parallel()
	for _, key := range []*SwarmKey{nil, NewSwarmKey()} {
		t.Run(key.name(), func(t *testing.T) {
			t.Parallel()
			relay := openRelay(t, key)
			a, b := hidden(t, relay), hidden(t, relay)
			eventually(t, "connected through the relay", func() bool { return linked(a, b) })
			for _, c := range a.Libp2p().Network().ConnsToPeer(b.ID()) {
				if c.Stat().Limited || !isRelayed(c.RemoteMultiaddr()) {
					t.Errorf("limited %v, by %v", c.Stat().Limited, c.RemoteMultiaddr())
				}
			}
			if got := a.Libp2p().Network().Connectedness(b.ID()); got != network.Connected {
				t.Errorf("connectedness %v", got)
			}
			if !a.Relayed(b.ID()) || a.Relayed(relay.ID()) {
				t.Errorf("relayed: %v; to the relay: %v", a.Relayed(b.ID()), a.Relayed(relay.ID()))
			}
			eventually(t, "found by a lookup", func() bool {
				got, err := a.Closest(t.Context(), []byte(b.ID()))
				return err == nil && slices.Contains(got, b.ID())
			})
			eventually(t, "told where it is", func() bool {
				return slices.ContainsFunc(b.Addrs(), isRelayed) && slices.ContainsFunc(b.Invite().Addrs, func(s string) bool {
					return isRelayed(ma.StringCast(s))
				})
			})
			eventually(t, "each has its reservation", func() bool { return a.Reservations() == 1 && b.Reservations() == 1 })
		})
	}
}

// TestRelayForMany has one relay connect more nodes to one another than libp2p's limits would let it: 128 circuits.
func TestRelayForMany(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	relay := openRelay(t, NewSwarmKey())
	all := []*Host{relay}
	for range 18 {
		all = append(all, hidden(t, relay))
	}
	t.Cleanup(func() { closeAll(t, all) })
	eventually(t, "all connected to all", func() bool { return meshed(all) })
}

// TestJoinThroughRelay joins by the invite of a node that can be reached through a relay only.
func TestJoinThroughRelay(t *testing.T) {
	t.Parallel()
	key := NewSwarmKey()
	relay := openRelay(t, key)
	inviting := hidden(t, relay)
	eventually(t, "it has a circuit address", func() bool { return len(inviting.Invite().Addrs) > 0 })
	inv, err := ParseInvite(inviting.Invite().String())
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.SwarmKey, cfg.Bootstrap = inv.Key, inv.Addrs
	joined := open(t, cfg)
	eventually(t, "connected", func() bool { return linked(joined, inviting) && linked(joined, relay) })
}

// TestRelayAgain restarts the relay: reservations and links come back.
func TestRelayAgain(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Listen = []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", freePort(t))}
	relay := open(t, cfg)
	a, b := hidden(t, relay), hidden(t, relay)
	eventually(t, "connected through the relay", func() bool { return linked(a, b) })
	shut(t, relay)
	eventually(t, "lost", func() bool { return len(a.Connected()) == 0 && a.Reservations() == 0 })
	open(t, cfg)
	eventually(t, "connected through the relay again", func() bool { return linked(a, b) && a.Reservations() == 1 })
}

// TestDirectAtLast has two nodes connected through a relay find the direct way, and leave the relay.
func TestDirectAtLast(t *testing.T) {
	t.Parallel()
	relay := openRelay(t, nil)
	a := hidden(t, relay)
	b := openRelay(t, nil)
	eventually(t, "a circuit address", func() bool { return slices.ContainsFunc(a.Addrs(), isRelayed) })
	infos, err := ParsePeers(relay.Addresses())
	if err != nil {
		t.Fatal(err)
	}
	b.Dial(infos[0])
	eventually(t, "connected to the relay", func() bool { return linked(b, relay) })
	// By hand and one-sided: a node would have dialled directly first.
	circuit, err := circuitThrough(nil, relay.ID())
	if err != nil {
		t.Fatal(err)
	}
	b.host.Peerstore().AddAddrs(a.ID(), []ma.Multiaddr{circuit}, peerstore.TempAddrTTL)
	eventually(t, "connected", func() bool { // not at once where b has heard of a and dialled it too soon itself
		c, err := b.host.Network().DialPeer(t.Context(), a.ID())
		if err == nil && !isRelayed(c.RemoteMultiaddr()) {
			t.Skip("the other was quicker, and has dialled directly")
		}
		return err == nil
	})
	eventually(t, "connected directly alone", func() bool {
		conns := append(a.host.Network().ConnsToPeer(b.ID()), b.host.Network().ConnsToPeer(a.ID())...)
		return linked(a, b) && !a.Relayed(b.ID()) && !slices.ContainsFunc(conns, func(c network.Conn) bool { return isRelayed(c.RemoteMultiaddr()) })
	})
}

// TestRelayForNodesOnly has a stranger, who may connect in an open swarm, ask a node to relay for it.
func TestRelayForNodesOnly(t *testing.T) {
	t.Parallel()
	relay := openRelay(t, nil)
	a := hidden(t, relay)
	eventually(t, "a reservation", func() bool { return a.Reservations() == 1 })
	stranger, err := libp2p.New(libp2p.NoListenAddrs, libp2p.EnableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Close() }()
	info := *host.InfoFromHost(relay.host)
	if err := stranger.Connect(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Reserve(t.Context(), stranger, info); err == nil {
		t.Error("a stranger was granted a reservation")
	}
	circuit, err := circuitThrough(nil, relay.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Connect(t.Context(), peer.AddrInfo{ID: a.ID(), Addrs: []ma.Multiaddr{circuit}}); err == nil {
		t.Error("a stranger was connected to a node")
	}
}

// TestNoRelay has nodes that are not to relay, or need no relays.
func TestNoRelay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		set      func(*Config)
		reserves bool
	}{
		{"auto", func(*Config) {}, true},
		{"public", func(c *Config) { c.Reachability = ReachabilityPublic }, false},
		{"private", func(c *Config) { c.Reachability = ReachabilityPrivate }, true},
		{"off", func(c *Config) { c.Relay = false }, false},
	} {
		cfg := testConfig(t)
		c.set(&cfg)
		if got := cfg.reserves([]ma.Multiaddr{ma.StringCast("/ip4/0.0.0.0/tcp/1")}); got != c.reserves {
			t.Errorf("%s: reserves: %v", c.name, got)
		}
	}
	for _, off := range []func(*Config){
		func(c *Config) { c.Relay = false },
		func(c *Config) { c.Reachability = ReachabilityPrivate },
	} {
		cfg := testConfig(t)
		off(&cfg)
		none := open(t, cfg)
		a := hidden(t, none)
		eventually(t, "connected", func() bool { return linked(a, none) })
		if relays := a.relaysTo("x"); len(relays) > 0 {
			t.Errorf("takes %v for a relay", relays)
		}
	}
}

func TestSomeAddrs(t *testing.T) {
	direct, relayed := ma.StringCast("/ip4/192.0.2.1/tcp/1"), ma.StringCast("/ip4/192.0.2.2/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5/p2p-circuit")
	for _, c := range []struct{ direct, relayed, wantDirect, wantRelayed int }{
		{2, 1, 2, 1}, {20, 0, 8, 0}, {20, 1, 7, 1}, {20, 9, 5, 3}, {1, 9, 1, 7}, {0, 9, 0, 8},
	} {
		for _, in := range [][]ma.Multiaddr{
			slices.Concat(slices.Repeat([]ma.Multiaddr{direct}, c.direct), slices.Repeat([]ma.Multiaddr{relayed}, c.relayed)),
			slices.Concat(slices.Repeat([]ma.Multiaddr{relayed}, c.relayed), slices.Repeat([]ma.Multiaddr{direct}, c.direct)),
		} {
			gotDirect, gotRelayed := 0, 0
			for _, a := range someAddrs(in, 8) {
				if isRelayed(a) {
					gotRelayed++
				} else {
					gotDirect++
				}
			}
			if gotDirect != c.wantDirect || gotRelayed != c.wantRelayed {
				t.Errorf("%+v: got %d and %d", c, gotDirect, gotRelayed)
			}
		}
	}
}

func (k *SwarmKey) name() string {
	if k == nil {
		return "open"
	}
	return "private"
}
