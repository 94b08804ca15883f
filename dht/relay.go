package dht

import (
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// How nodes that cannot reach each other are connected: through a third that both are connected to, by libp2p's
// circuit relay v2. There are three parts, and none of them asks who can be reached from the Internet (AutoNAT would):
// addresses of a house or a VPN say nothing about that, and a swarm may have one node only that others reach.
//
//   - Every node whose Config.Relay is on relays, for nodes of its swarm only (startRelay).
//   - Every such node holds reservations with some of those that it is connected to, and tells its circuit addresses
//     with its others, so that it can be reached there (reserver).
//   - Who cannot dial a node directly tries its circuit addresses, and relays of its own connections besides
//     (relaysTo). Two that are connected through a relay alone go on trying the direct way (schedule.relayed).

// startRelay makes this node a relay, unless it is not to be one.
func (h *Host) startRelay() (io.Closer, error) {
	if !h.cfg.Relay || h.cfg.Reachability == ReachabilityPrivate {
		return io.NopCloser(nil), nil
	}
	// A circuit without limits is an ordinary connection to whoever uses it: kad-dht and the nodes' own
	// streams refuse the other kind. The limits are on how many: see also relayLimits.
	res := relay.DefaultResources()
	res.Limit = nil
	res.ReservationTTL = reservationTTL
	res.BufferSize = relayBuffer
	res.MaxReservations, res.MaxCircuits = relayReservations, relayCircuitsPerPeer
	res.MaxReservationsPerIP, res.MaxReservationsPerASN = relayReservations, relayReservations
	opts := []relay.Option{
		relay.WithResources(res),
		relay.WithACL(swarmOnly{h}),
		// Which addresses are any good, the one who reserves knows.
		relay.WithReservationAddressFilter(func(ma.Multiaddr) bool { return true }),
	}
	if h.cfg.Metrics != nil {
		opts = append(opts, relay.WithMetricsTracer(relay.NewMetricsTracer(relay.WithRegisterer(h.cfg.Metrics))))
	}
	r, err := relay.New(h.host, opts...)
	if err != nil {
		return nil, fmt.Errorf("starting the relay: %w", err)
	}
	return r, nil
}

// swarmOnly lets nodes of the swarm use the relay, and nobody else who may be connected in an open swarm.
type swarmOnly struct{ h *Host }

var _ relay.ACLFilter = swarmOnly{}

// AllowReserve implements relay.ACLFilter.
func (a swarmOnly) AllowReserve(p peer.ID, _ ma.Multiaddr) bool { return a.h.speaks(p, KadProtocol) }

// AllowConnect implements relay.ACLFilter. The destination holds a reservation.
func (a swarmOnly) AllowConnect(src peer.ID, _ ma.Multiaddr, _ peer.ID) bool {
	return a.h.speaks(src, KadProtocol)
}

// direct returns the connection to a peer that goes through no relay, nil where there is none. Of several, one that
// this node has made.
func (h *Host) direct(id peer.ID) network.Conn {
	var best network.Conn
	for _, c := range h.host.Network().ConnsToPeer(id) {
		if c.IsClosed() || isRelayed(c.RemoteMultiaddr()) {
			continue
		}
		if best == nil || c.Stat().Direction == network.DirOutbound && best.Stat().Direction != network.DirOutbound {
			best = c
		}
	}
	return best
}

// Relayed reports whether a peer is connected through relays alone.
func (h *Host) Relayed(id peer.ID) bool {
	return h.host.Network().Connectedness(id) == network.Connected && h.direct(id) == nil
}

// closeRelayed ends the connections through relays to a peer that is connected directly too: what goes over them
// costs others. Streams on them break once.
func (h *Host) closeRelayed(id peer.ID) {
	for _, c := range h.host.Network().ConnsToPeer(id) {
		if isRelayed(c.RemoteMultiaddr()) {
			_ = c.Close()
		}
	}
}

// relaysTo returns circuit addresses for a peer that cannot be dialled directly: some nodes that this one is
// connected to directly, any of which may be connected to the peer. They name the relay without its address.
func (h *Host) relaysTo(id peer.ID) []ma.Multiaddr {
	if !h.cfg.Relay {
		return nil
	}
	var relays []peer.ID
	for _, p := range h.peers.list() {
		if p != id && h.speaks(p, circuit.ProtoIDv2Hop) && h.direct(p) != nil {
			relays = append(relays, p)
		}
	}
	rand.Shuffle(len(relays), func(i, j int) { relays[i], relays[j] = relays[j], relays[i] })
	var out []ma.Multiaddr
	for _, p := range relays[:min(len(relays), relaysTried)] {
		if a, err := circuitThrough(nil, p); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// circuitThrough returns the circuit address that leads through a relay at an address, which may be nil.
func circuitThrough(at ma.Multiaddr, id peer.ID) (ma.Multiaddr, error) {
	c, err := ma.NewMultiaddr("/p2p/" + id.String() + "/p2p-circuit")
	if err != nil || at == nil {
		return c, err
	}
	return at.Encapsulate(c), nil
}

// isRelayed reports whether an address leads through a relay.
func isRelayed(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// isPlaced reports whether an address begins with where it leads, as those of relaysTo do not: they are of use to
// this node alone.
func isPlaced(a ma.Multiaddr) bool { return len(a) > 0 && a[0].Protocol().Code != ma.P_P2P }

// someAddrs returns at most n addresses, in their order: direct ones, and at least keptRelayed of those through relays,
// where there are so many.
func someAddrs(addrs []ma.Multiaddr, n int) []ma.Multiaddr {
	if len(addrs) <= n {
		return addrs
	}
	relayed := 0
	for _, a := range addrs {
		if isRelayed(a) {
			relayed++
		}
	}
	direct := min(len(addrs)-relayed, n-min(relayed, keptRelayed))
	relayed = n - direct
	out := make([]ma.Multiaddr, 0, n)
	for _, a := range addrs {
		left := &direct
		if isRelayed(a) {
			left = &relayed
		}
		if *left > 0 {
			*left--
			out = append(out, a)
		}
	}
	return out
}
