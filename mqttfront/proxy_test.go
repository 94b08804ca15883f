package mqttfront_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

// proxied is a header of the PROXY protocol with addresses.
func proxied(command, family byte, body string) []byte {
	return append([]byte("\r\n\r\n\x00\r\nQUIT\n"), append([]byte{command, family, byte(len(body) >> 8), byte(len(body))}, body...)...)
}

const fromV4 = "\xc6\x33\x64\x07\x0a\x00\x00\x01\x30\x39\x07\x5b" // 198.51.100.7:12345 to 10.0.0.1:1883

// TestProxyProtocol: who the client is, is what the proxy says, for limits and for Auth.
func TestProxyProtocol(t *testing.T) {
	auth := &asking{}
	b, _, _ := startWith(t, newLoner(), storetest.NewSessions(), auth, func(c *mqttfront.Config) { c.MaxConnectionsPerAddress = 2 })
	server, client := tlsPair(t, "device")
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	plain := listenAt(t, b, mqttfront.ListenerConfig{URL: "tcp://127.0.0.1:0", Proxies: loopback})
	secure := listenAt(t, b, mqttfront.ListenerConfig{URL: "tls://127.0.0.1:0", Proxies: loopback, TLS: server})
	web := listenAt(t, b, mqttfront.ListenerConfig{URL: "ws://127.0.0.1:0", Proxies: loopback})
	connectBy := func(at string, header []byte) net.Conn {
		t.Helper()
		nc := dial(t, at)
		for _, part := range [][]byte{header[:1], header[1:13], header[13:]} { // in pieces
			if _, err := nc.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		switch at {
		case secure:
			return tls.Client(nc, client)
		case web:
			return dialWeb(t, "ws://"+at, &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nc, nil }})
		}
		return nc
	}
	v6 := "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x07" + strings.Repeat("\x00", 15) + "\x01\x30\x39\x07\x5b"
	for _, tc := range []struct {
		at     string
		header []byte
		want   string
	}{
		{plain, proxied(0x21, 0x11, fromV4), "198.51.100.7:12345"},
		{secure, proxied(0x21, 0x11, fromV4), "198.51.100.7:12345"},
		{web, proxied(0x21, 0x21, v6), "[2001:db8::7]:12345"},
		{plain, proxied(0x21, 0x21, v6+"\x04\x03\xe8"+strings.Repeat("\x00", 1000)), "[2001:db8::7]:12345"}, // with a TLV
		{plain, proxied(0x20, 0x00, ""), "127.0.0.1:"},                                                      // a health check
		{plain, proxied(0x20, 0x11, fromV4), "127.0.0.1:"},
		{plain, proxied(0x21, 0x00, ""), "127.0.0.1:"},                            // somebody whom the proxy does not know
		{plain, proxied(0x21, 0x31, strings.Repeat("x", 216)), "127.0.0.1:"},      // by a Unix socket
		{secure, proxied(0x21, 0x00, strings.Repeat("\x00", 4096)), "127.0.0.1:"}, // as large as it may be
	} {
		c := over(t, connectBy(tc.at, tc.header))
		if code := c.hello("c"); code != 0 || !strings.HasPrefix(auth.last().Remote.String(), tc.want) {
			t.Errorf("%q: 0x%02x, from %v, want %s", tc.header, code, auth.last().Remote, tc.want)
		}
		c.bye()
	}
	eventually(t, "all are gone", func() bool { return b.Stats().Connections.Load() == 0 })
	for _, want := range []byte{0, 0, 0x97, 0x97} {
		if code := over(t, connectBy(plain, proxied(0x21, 0x11, fromV4))).hello(fmt.Sprint(want, time.Now())); code != want {
			t.Errorf("0x%02x, want 0x%02x", code, want)
		}
	}
	if code := over(t, connectBy(plain, proxied(0x21, 0x21, v6))).hello("other"); code != 0 {
		t.Errorf("for another address, 0x%02x", code)
	}
}

// TestBadProxy: without a good header from a proxy that is trusted, there is no connection.
func TestBadProxy(t *testing.T) {
	b, _, _ := start(t, func(c *mqttfront.Config) { c.ConnectTimeout = 500 * time.Millisecond })
	at := listenAt(t, b, mqttfront.ListenerConfig{URL: "tcp://127.0.0.1:0", Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	wrong := proxied(0x21, 0x11, fromV4)
	wrong[5]++
	for i, bytes := range [][]byte{
		connectOpts{version: 5, id: "c"}.encode(),
		[]byte("PROXY TCP4 198.51.100.7 10.0.0.1 12345 1883\r\n"),
		wrong,
		proxied(0x11, 0x11, fromV4), proxied(0x22, 0x11, fromV4),
		proxied(0x21, 0x11, fromV4[:11]), proxied(0x21, 0x21, fromV4),
		proxied(0x21, 0x11, strings.Repeat("\x00", 4097)),
	} {
		c := over(t, dial(t, at))
		c.send(bytes)
		c.expectEnd()
		eventually(t, "it is counted", func() bool { return b.Stats().BadProxy.Load() == uint64(i+1) })
	}
	for i, bytes := range [][]byte{proxied(0x21, 0x11, fromV4)[:20], nil} { // and no more
		c := over(t, dial(t, at))
		c.send(bytes)
		c.expectEnd()
		eventually(t, "it is counted", func() bool { return b.Stats().ConnectTimeout.Load() == uint64(i+1) })
	}
	strict := listenAt(t, b, mqttfront.ListenerConfig{URL: "tcp://127.0.0.1:0", Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	c := over(t, dial(t, strict))
	c.nc.Write(proxied(0x21, 0x11, fromV4)) // it may be closed already
	if n, _ := io.Copy(io.Discard, c.nc); n != 0 {
		t.Error("something is answered to who is no proxy")
	}
	if n := b.Stats().Connected.Load(); n != 0 {
		t.Errorf("%d have connected", n)
	}
}

// FuzzProxyHeader: whatever comes instead of a header, it ends the connection or is understood, and nothing behind it is
// lost.
func FuzzProxyHeader(f *testing.F) {
	f.Add(proxied(0x21, 0x11, fromV4))
	f.Add(proxied(0x20, 0x00, ""))
	f.Add(proxied(0x21, 0x21, strings.Repeat("x", 50)))
	f.Add([]byte("PROXY TCP4"))
	f.Fuzz(func(t *testing.T, header []byte) {
		whole := append(header[:len(header):len(header)], "behind"...)
		nc := &scripted{Reader: bytes.NewReader(whole)}
		addr, err := mqttfront.ReadProxyHeader(nc, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
		if err != nil {
			if addr != nil {
				t.Error("an address and an error")
			}
			return
		}
		if tcp, ok := addr.(*net.TCPAddr); ok && whole[13] == 0x11 && (!tcp.IP.Equal(net.IP(whole[16:20])) || tcp.Port != int(whole[24])<<8|int(whole[25])) {
			t.Errorf("%x is %v", whole, addr)
		}
		left, _ := io.ReadAll(nc)
		if want := whole[16+int(whole[14])<<8+int(whole[15]):]; !bytes.Equal(left, want) {
			t.Errorf("%q is left, want %q", left, want)
		}
	})
}

// scripted is a connection of which the reading side is known.
type scripted struct {
	net.Conn
	io.Reader
}

func (s *scripted) Read(b []byte) (int, error) { return s.Reader.Read(b) }
func (s *scripted) RemoteAddr() net.Addr       { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
