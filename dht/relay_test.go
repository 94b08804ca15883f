package dht

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// TestRelay joins two nodes that listen nowhere, through one that relays. The connection is a full one: the
// two see each other as nodes, and Kademlia works over it.
func TestRelay(t *testing.T) {
	t.Parallel()
	for _, key := range []*SwarmKey{nil, NewSwarmKey()} {
		t.Run(key.name(), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			cfg.SwarmKey = key
			cfg.Reachability = ReachabilityPublic
			relay := open(t, cfg)

			cfg = testConfig(t)
			cfg.SwarmKey = key
			cfg.Listen = nil
			cfg.Reachability = ReachabilityPrivate
			cfg.Bootstrap = relay.Addresses()
			hidden := open(t, cfg)
			eventually(t, "hidden is connected to the relay", func() bool { return linked(relay, hidden) })

			cfg = testConfig(t)
			cfg.SwarmKey = key
			cfg.Listen = nil // or hidden, told by the relay, is the one who dials
			other := open(t, cfg)
			circuit := ma.StringCast(relay.Addresses()[0] + "/p2p-circuit")
			other.Dial(peer.AddrInfo{ID: hidden.ID(), Addrs: []ma.Multiaddr{circuit}})
			eventually(t, "connected through the relay", func() bool { return linked(other, hidden) })
			for _, c := range other.Libp2p().Network().ConnsToPeer(hidden.ID()) {
				if c.Stat().Limited || !isRelayed(c.RemoteMultiaddr()) {
					t.Errorf("limited %v, by %v", c.Stat().Limited, c.RemoteMultiaddr())
				}
			}
			if got := other.Libp2p().Network().Connectedness(hidden.ID()); got != network.Connected {
				t.Errorf("connectedness %v", got)
			}
			eventually(t, "found by a lookup", func() bool {
				got, err := other.Closest(t.Context(), []byte(hidden.ID()))
				return err == nil && slices.Contains(got, hidden.ID())
			})
		})
	}
}

func (k *SwarmKey) name() string {
	if k == nil {
		return "open"
	}
	return "private"
}
