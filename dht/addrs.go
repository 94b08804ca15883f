package dht

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"syscall"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Examples for error messages.
const (
	exampleListen = "/ip4/0.0.0.0/tcp/7883"
	examplePeer   = "/ip4/192.168.1.10/tcp/7883/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
)

// parseListen parses the addresses to listen on.
func parseListen(in []string) ([]ma.Multiaddr, error) {
	out := make([]ma.Multiaddr, 0, len(in))
	for _, s := range in {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("listen address %q is not a multiaddress (%w); one looks like %s", s, err, exampleListen)
		}
		if !isTCP(a) && !isQUIC(a) {
			return nil, fmt.Errorf("listen address %q is neither TCP nor QUIC; use one like %s or /ip4/0.0.0.0/udp/7883/quic-v1", s, exampleListen)
		}
		out = append(out, a)
	}
	return out, nil
}

// ParsePeers parses full multiaddresses, each ending in /p2p/ID, and joins those of one peer. An error
// quotes the address that is wrong and shows a right one.
func ParsePeers(in []string) ([]peer.AddrInfo, error) {
	var out []peer.AddrInfo
	for _, s := range in {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("peer address %q is not a multiaddress (%w); one looks like %s", s, err, examplePeer)
		}
		info, err := peer.AddrInfoFromP2pAddr(a)
		if err != nil {
			return nil, fmt.Errorf("peer address %q does not end in /p2p/ and the peer's ID; one looks like %s", s, examplePeer)
		}
		if len(info.Addrs) == 0 {
			return nil, fmt.Errorf("peer address %q does not say where the peer is; one looks like %s", s, examplePeer)
		}
		i := slices.IndexFunc(out, func(o peer.AddrInfo) bool { return o.ID == info.ID })
		if i < 0 {
			out = append(out, *info)
		} else if !slices.ContainsFunc(out[i].Addrs, info.Addrs[0].Equal) {
			out[i].Addrs = append(out[i].Addrs, info.Addrs[0])
		}
	}
	return out, nil
}

func isTCP(a ma.Multiaddr) bool {
	p := a.Protocols()
	return len(p) == 2 && (p[0].Code == ma.P_IP4 || p[0].Code == ma.P_IP6) && p[1].Code == ma.P_TCP
}

func isQUIC(a ma.Multiaddr) bool {
	p := a.Protocols()
	return len(p) == 3 && (p[0].Code == ma.P_IP4 || p[0].Code == ma.P_IP6) && p[1].Code == ma.P_UDP && p[2].Code == ma.P_QUIC_V1
}

// onlyLoopback reports whether all addresses are loopback.
func onlyLoopback(addrs []ma.Multiaddr) bool {
	return !slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) })
}

// checkListen tries every address before libp2p does. libp2p is content when one of several can be had, and
// shares TCP ports (SO_REUSEPORT), so that a second node on the same port would seem to work. It returns the
// addresses to use: those of ::, where the machine has no IPv6, are left out.
func checkListen(addrs []ma.Multiaddr) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for _, a := range addrs {
		err := tryListen(a)
		if err == nil {
			out = append(out, a)
			continue
		}
		noSuch := errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
		switch {
		case noSuch && manet.IsIPUnspecified(a) && len(addrs) > 1:
			continue
		case noSuch:
			return nil, fmt.Errorf("can't listen on %q: this machine has no such address; use one of its own, or all with %s", a, exampleListen)
		case errors.Is(err, syscall.EADDRINUSE):
			return nil, fmt.Errorf("can't listen on %q: the port is in use, perhaps by another node; stop that, or listen on another port, or on any with /tcp/0 (%w)", a, err)
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("can't listen on %q: not permitted; use a port above 1023 (%w)", a, err)
		default:
			return nil, fmt.Errorf("can't listen on %q: %w", a, err)
		}
	}
	return out, nil
}

// tryListen opens and closes a. It does so without SO_REUSEPORT, and so fails if anyone listens there.
func tryListen(a ma.Multiaddr) error {
	network, addr, err := manet.DialArgs(a)
	if err != nil {
		return err
	}
	if isTCP(a) {
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		return l.Close()
	}
	c, err := net.ListenPacket(network, addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// sortAddrs puts the addresses at which others most likely reach this machine first: those of the interface
// with the default route, other private ones, public ones (which a router may stand before), link-local and
// relayed ones, and loopback last; TCP before QUIC among equals.
func sortAddrs(addrs []ma.Multiaddr, preferred net.IP) {
	rank := func(a ma.Multiaddr) int {
		ip, err := manet.ToIP(a)
		r := 0
		switch {
		case isRelayed(a):
			r = 8
		case err != nil:
			r = 6
		case ip.IsLoopback():
			r = 12
		case ip.IsLinkLocalUnicast():
			r = 10
		case preferred != nil && ip.Equal(preferred):
			r = 0
		case manet.IsPrivateAddr(a):
			r = 2
		default:
			r = 4
		}
		if isQUIC(a) {
			r++
		}
		return r
	}
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int { return rank(a) - rank(b) })
}

// routeIP returns this machine's address on the way to the Internet, nil without one. No packet is sent:
// connecting a UDP socket only looks the route up. The destination is of a range kept for documentation.
func routeIP() net.IP {
	c, err := net.Dial("udp4", "192.0.2.1:9")
	if err != nil {
		return nil
	}
	defer func() { _ = c.Close() }()
	if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
		return a.IP
	}
	return nil
}

func isLoopback(a ma.Multiaddr) bool { return manet.IsIPLoopback(a) }
