package dht

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	kaddht "github.com/libp2p/go-libp2p-kad-dht"
	kadpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// rttInterval is how often yamux measures the round trip, from which it grows windows.
	rttInterval = 10 * time.Minute
	// maxWindow is how much one stream may have under way: 20 MB/s at a round trip of 100 ms. libp2p's
	// 16 MiB would let a single slow reader cost that much.
	maxWindow = 2 << 20
	// quicDelay is how much later than TCP QUIC is tried, and relayDelay how much later than both relays: longer
	// than a handshake takes on a busy Pi, or the relays of a house that has its power back would have it all.
	quicDelay, relayDelay = 250 * time.Millisecond, 2 * time.Second
	// ip4Delay is how much later than IPv6 IPv4 is tried (RFC 8305 has 250 ms, for the Internet).
	ip4Delay = 30 * time.Millisecond
)

// newLibp2p makes the libp2p host, listening on listen.
func (h *Host) newLibp2p(listen []ma.Multiaddr) (host.Host, error) {
	key, err := loadNodeKey(h.cfg.Dir)
	if err != nil {
		return nil, err
	}
	rm, err := newResourceManager(h.cfg.Small, h.cfg.Metrics != nil)
	if err != nil {
		return nil, err
	}
	cm, err := newConnManager(h.cfg.Small)
	if err != nil {
		return nil, errors.Join(err, rm.Close())
	}
	opts := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.ListenAddrs(listen...),
		libp2p.UserAgent(h.cfg.UserAgent),
		libp2p.ResourceManager(rm),
		libp2p.ConnectionManager(cm),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New), // a third of the bytes of TLS, and of its time on a Pi without AES
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Muxer(yamux.ID, newYamux(h.cfg.KeepAlive)),
		libp2p.WithDialTimeout(dialTimeout),
		libp2p.SwarmOpts(swarm.WithDialRanker(rankDials), swarm.WithDialTimeoutLocal(dialTimeoutLocal)),
	}
	if h.cfg.SwarmKey != nil {
		opts = append(opts, libp2p.PrivateNetwork(h.cfg.SwarmKey.psk()))
	} else {
		opts = append(opts, libp2p.Transport(quic.NewTransport))
	}
	if h.cfg.Metrics != nil {
		opts = append(opts, libp2p.PrometheusRegisterer(h.cfg.Metrics))
	} else {
		opts = append(opts, libp2p.DisableMetrics())
	}
	opts = append(opts, h.reachOptions(listen)...)
	lh, err := libp2p.New(opts...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting libp2p: %w", err), cm.Close(), rm.Close())
	}
	return lh, nil
}

// reachOptions are about being reached from outside. Loopback needs none of it. AutoNAT, libp2p's way to find out whether
// a node can be reached from the Internet, is not asked: see relay.go.
func (h *Host) reachOptions(listen []ma.Multiaddr) []libp2p.Option {
	opts := []libp2p.Option{libp2p.ForceReachabilityPublic()} // its client has nothing to do then
	outside := !onlyLoopback(listen)
	if h.cfg.NAT && outside {
		opts = append(opts, libp2p.NATPortMap())
	}
	if !h.cfg.Relay {
		return append(opts, libp2p.DisableRelay())
	}
	opts = append(opts, libp2p.EnableRelay(), libp2p.AddrsFactory(h.addrsFactory))
	if h.cfg.NAT && outside {
		opts = append(opts, libp2p.EnableHolePunching())
	}
	return opts
}

// newYamux is libp2p's multiplexer with less idle chatter and smaller windows. Any traffic puts the
// keep-alive off, so that only idle links pay for it.
func newYamux(keepAlive time.Duration) *yamux.Transport {
	c := *yamux.DefaultTransport.Config()
	c.KeepAliveInterval = keepAlive
	c.MeasureRTTInterval = rttInterval
	c.MaxStreamWindowSize = maxWindow
	c.MaxMessageSize = noise.MaxPlaintextLength // its 64 KiB are two messages to Noise, one of them of 17 bytes
	return (*yamux.Transport)(&c)
}

// rankDials tries TCP first, unlike libp2p: the kernel carries it, where QUIC costs a Pi's CPU several times
// as much for a byte. QUIC follows for where TCP does not get through, relays last. (Hole punching dials
// all at once and does not ask.)
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	direct := slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return !isRelayed(a) })
	tcp := slices.ContainsFunc(addrs, isTCP)
	ip6 := slices.ContainsFunc(addrs, isIP6)
	out := make([]network.AddrDelay, 0, len(addrs))
	for _, a := range addrs {
		var d time.Duration
		if isQUIC(a) && tcp {
			d += quicDelay
		}
		if isRelayed(a) && direct {
			d += relayDelay
		} else if ip6 && !isIP6(a) {
			d += ip4Delay
		}
		out = append(out, network.AddrDelay{Addr: a, Delay: d})
	}
	slices.SortStableFunc(out, func(a, b network.AddrDelay) int { return int(a.Delay - b.Delay) })
	return out
}

func isIP6(a ma.Multiaddr) bool {
	p := a.Protocols()
	return len(p) > 0 && p[0].Code == ma.P_IP6
}

// newKad makes the DHT: a server always, also behind a NAT (relays inside the swarm carry it), without
// filters on addresses (kad-dht's PublicQueryFilter would empty the table of a LAN), without records.
func newKad(lh host.Host) (*kaddht.IpfsDHT, error) {
	kad, err := kaddht.New(lh,
		kaddht.Mode(kaddht.ModeServer),
		kaddht.ProtocolPrefix(kadPrefix),
		kaddht.BucketSize(kadK),
		kaddht.Concurrency(kadAlpha),
		kaddht.Resiliency(kadBeta),
		kaddht.RoutingTableRefreshPeriod(kadRefresh),
		kaddht.RoutingTableRefreshQueryTimeout(kadRefreshTimeout),
		kaddht.LookupCheckConcurrency(kadLookupChecks),
		kaddht.WithCustomMessageSender(func(h host.Host, protos []protocol.ID) kadpb.MessageSenderWithDisconnect {
			return newSender(h, protos)
		}),
		kaddht.DisableProviders(),
		kaddht.DisableValues(),
	)
	if err != nil {
		return nil, fmt.Errorf("starting Kademlia: %w", err)
	}
	return kad, nil
}
