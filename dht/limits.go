package dht

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Limits on what peers may make this node hold, fit for a Raspberry Pi 3 (1 GB) and enough for a full mesh of
// Config.Small nodes. A link costs about 75 kB of memory: stacks of some five
// goroutines, and buffers.
const (
	// connSlack is how many connections above those of a full mesh are held before the least useful are
	// closed, and connTrim how many more start that.
	connSlack, connTrim = 16, 32
	// connGrace is how long a new connection is left alone.
	connGrace = time.Minute
	// connsHard bounds connections, as a factor of the number at which trimming starts: two for each pair
	// (both may dial at once) and those being set up.
	connsHard = 3
	// streamsPerConn bounds streams in all: Kademlia and the node's own, both ways, and identify.
	streamsPerConn = 32
	// memoryBytes bounds what libp2p accounts for, which is more than it uses: 256 KiB of window for each
	// stream from the start, whether anything is in it or not.
	memoryBytes = 1 << 30
	// publicConnsPerIP is how many connections one public address may have, a house behind one router, say.
	publicConnsPerIP = 64
	// publicConnRate is how many of those may be new in a second, after publicConnsPerIP at once.
	publicConnRate = 2
)

// localPrefixes are networks in which many nodes behind one address, or a storm of connections after a power
// cut, are ordinary: loopback, private, link-local and carrier-grade NAT (which VPNs like to use).
var localPrefixes = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"),
}

// newConnManager trims connections that nobody protects or tags down to somewhat more than small.
func newConnManager(small int) (*connmgr.BasicConnMgr, error) {
	low := small + small/meshSlack + connSlack
	m, err := connmgr.NewConnManager(low, low+connTrim, connmgr.WithGracePeriod(connGrace))
	if err != nil {
		return nil, fmt.Errorf("making the connection manager: %w", err)
	}
	return m, nil
}

// newResourceManager bounds connections, streams and memory.
func newResourceManager(small int, metrics bool) (network.ResourceManager, error) {
	limits := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&limits)
	conns := rcmgr.LimitVal(connsHard * (small + small/meshSlack + connSlack + connTrim))
	streams := conns * streamsPerConn
	all := rcmgr.ResourceLimits{
		Conns: conns, ConnsInbound: conns, ConnsOutbound: conns, FD: conns,
		Streams: streams, StreamsInbound: streams, StreamsOutbound: streams,
		Memory: memoryBytes,
	}
	// What is being set up and belongs to no peer yet: after a power cut everyone connects at once.
	transient := rcmgr.ResourceLimits{
		Conns: conns, ConnsInbound: conns, ConnsOutbound: conns, FD: conns,
		Streams: streams, StreamsInbound: streams, StreamsOutbound: streams,
		Memory: memoryBytes / 4,
	}
	identities := rcmgr.ResourceLimits{Streams: 2 * conns, StreamsInbound: conns, StreamsOutbound: conns, Memory: memoryBytes / 8}
	// A circuit is a stream from one node and one to the other at the relay; at its ends it is a stream as well.
	circuits := rcmgr.ResourceLimits{
		Streams: 2 * relayCircuits, StreamsInbound: relayCircuits, StreamsOutbound: relayCircuits,
		Memory: 4 * relayCircuits * relayBuffer,
	}
	circuitsOfPeer := rcmgr.ResourceLimits{
		Streams: 2 * relayCircuitsPerPeer, StreamsInbound: relayCircuitsPerPeer, StreamsOutbound: relayCircuitsPerPeer,
		Memory: 4 * relayCircuitsPerPeer * relayBuffer,
	}
	partial := rcmgr.PartialLimitConfig{
		System:          all,
		Transient:       transient,
		ProtocolDefault: rcmgr.ResourceLimits{Streams: streams, StreamsInbound: streams, StreamsOutbound: streams, Memory: memoryBytes / 2},
		PeerDefault:     rcmgr.ResourceLimits{Conns: 8, ConnsInbound: 8, ConnsOutbound: 8, FD: 8},
		// After such a storm everyone identifies everyone: the defaults refuse all but 64.
		Service:     map[string]rcmgr.ResourceLimits{identify.ServiceName: identities, relay.ServiceName: circuits},
		ServicePeer: map[string]rcmgr.ResourceLimits{relay.ServiceName: circuitsOfPeer},
		Protocol: map[protocol.ID]rcmgr.ResourceLimits{
			identify.ID: identities, identify.IDPush: identities,
			circuit.ProtoIDv2Hop: circuits, circuit.ProtoIDv2Stop: circuits,
		},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{
			circuit.ProtoIDv2Hop:  circuitsOfPeer,
			circuit.ProtoIDv2Stop: circuitsOfPeer,
			peersProtocol:         {Streams: 4, StreamsInbound: 2, StreamsOutbound: 2}, // a node asks one thing at a time
		},
	}
	opts := connLimits()
	if !metrics {
		opts = append(opts, rcmgr.WithMetricsDisabled())
	}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(partial.Build(limits.Scale(0, 0))), opts...)
	if err != nil {
		return nil, fmt.Errorf("making the resource manager: %w", err)
	}
	return m, nil
}

// connLimits lifts libp2p's limits on connections from one address (8, and a new one in 5 s) for local
// networks and raises them for public addresses.
func connLimits() []rcmgr.Option {
	var v4, v6 []rcmgr.NetworkPrefixLimit
	rates := make([]rate.PrefixLimit, 0, len(localPrefixes))
	for _, p := range localPrefixes {
		l := rcmgr.NetworkPrefixLimit{Network: p, ConnCount: math.MaxInt}
		if p.Addr().Is4() {
			v4 = append(v4, l)
		} else {
			v6 = append(v6, l)
		}
		rates = append(rates, rate.PrefixLimit{Prefix: p}) // the zero Limit is none
	}
	perIP := rate.Limit{RPS: publicConnRate, Burst: publicConnsPerIP}
	return []rcmgr.Option{
		rcmgr.WithNetworkPrefixLimit(v4, v6),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: publicConnsPerIP}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: publicConnsPerIP}},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: rates,
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perIP}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: perIP}},
				GracePeriod:      time.Minute,
			},
		}),
	}
}
