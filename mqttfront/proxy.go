package mqttfront

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
)

// Version 2 of the PROXY protocol, with which a load balancer says who the client is: 12 bytes of signature, version and
// command, address family and transport, the length of what follows, in network order; then source and destination
// address, source and destination port, and whatever else there is to say (TLVs), which is passed over. The header is
// read by itself, so that the connection is left as it was accepted. Nothing of version 1, which is text, is known.
//
// See https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2.
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyHead      = 16

	proxyLocal, proxyProxied = 0x20, 0x21 // version 2 and command
	proxyTCP4, proxyTCP6     = 0x11, 0x21 // family and transport
)

// maxProxyHeader bounds what follows the first 16 bytes, ours to tune: addresses take 36 bytes, a host name 255, and
// what is known of a client's certificate some hundreds more.
const maxProxyHeader = 4 << 10

// readProxyHeader reads the header that nc begins with, from one of those that are trusted. It returns the client's
// address; nil where the proxy speaks for itself (health checks) or for somebody that has none.
func readProxyHeader(nc net.Conn, trusted []netip.Prefix) (net.Addr, error) {
	if from := ipOf(nc.RemoteAddr()); from.IsValid() &&
		!slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return nil, fmt.Errorf("%v is none of the proxies that may connect", from)
	}
	var buf [proxyHead + 36]byte
	head := buf[:proxyHead]
	if _, err := io.ReadFull(nc, head); err != nil {
		return nil, fmt.Errorf("no header: %w", err)
	}
	if string(head[:12]) != proxySignature {
		return nil, errors.New("the connection does not begin with a header of version 2")
	}
	size := int(binary.BigEndian.Uint16(head[14:]))
	if size > maxProxyHeader {
		return nil, fmt.Errorf("a header of %d bytes, at most %d are taken", size, maxProxyHeader)
	}
	body := buf[proxyHead:][:min(size, 36)]
	if _, err := io.ReadFull(nc, body); err != nil {
		return nil, fmt.Errorf("the header is not whole: %w", err)
	}
	if _, err := io.CopyN(io.Discard, nc, int64(size-len(body))); err != nil {
		return nil, fmt.Errorf("the header is not whole: %w", err)
	}
	switch {
	case head[12] == proxyLocal:
		return nil, nil
	case head[12] != proxyProxied:
		return nil, fmt.Errorf("version and command 0x%02x", head[12])
	}
	var ip netip.Addr
	var port uint16
	switch {
	case head[13] == proxyTCP4 && size >= 12:
		ip, port = netip.AddrFrom4([4]byte(body)), binary.BigEndian.Uint16(body[8:])
	case head[13] == proxyTCP6 && size >= 36:
		ip, port = netip.AddrFrom16([16]byte(body)).Unmap(), binary.BigEndian.Uint16(body[32:])
	case head[13] == proxyTCP4, head[13] == proxyTCP6:
		return nil, fmt.Errorf("addresses in %d bytes", size)
	default:
		return nil, nil // Unix sockets and what else there may be: the address of the proxy has to do
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port)), nil
}

// ipOf returns the IP address of a peer; an invalid one where it has none.
func ipOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
