package mqttfront_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

// tlsPair returns what a server and a client need to talk by TLS; the client is called name.
func tlsPair(t testing.TB, name string) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots},
		&tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{pair}}
}

// asking is an Auth that remembers what clients say of themselves.
type asking struct {
	mqttfront.AllowAll
	mu     sync.Mutex
	logins []mqttfront.Login
}

func (a *asking) Connect(ctx context.Context, l mqttfront.Login) (mqttfront.Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.logins = append(a.logins, l)
	return a.AllowAll.Connect(ctx, l)
}

func (a *asking) last() mqttfront.Login {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.logins[len(a.logins)-1]
}

// listenAt makes a broker listen at one more place.
func listenAt(t testing.TB, b *mqttfront.Broker, lc mqttfront.ListenerConfig) string {
	t.Helper()
	addr, err := b.Listen(lc)
	if err != nil {
		t.Fatal(err)
	}
	return addr.String()
}

// over is a client over a connection that stands.
func over(t testing.TB, nc net.Conn) *raw {
	t.Helper()
	t.Cleanup(func() { nc.Close() })
	return &raw{t: t, nc: nc, br: newReader(nc), version: 5}
}

// dialWeb opens an MQTT connection over WebSocket.
func dialWeb(t testing.TB, url string, by *http.Transport) net.Conn {
	t.Helper()
	by.DisableKeepAlives = true
	ws, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPClient: &http.Client{Transport: by}}) //nolint:bodyclose // the connection is its body
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(-1)
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
}

// hello connects with a client ID, and returns the reason in the CONNACK.
func (r *raw) hello(id string) byte {
	r.t.Helper()
	r.send(connectOpts{version: 5, id: id}.encode())
	return r.expect(packets.Connack).ReasonCode
}

// TestListeners: everybody talks to everybody, whatever the listener, with messages of all sizes.
func TestListeners(t *testing.T) {
	b, _, tcp := start(t, nil)
	server, client := tlsPair(t, "device")
	secure := listenAt(t, b, mqttfront.ListenerConfig{URL: "tls://127.0.0.1:0", TLS: server})
	web := listenAt(t, b, mqttfront.ListenerConfig{URL: "ws://127.0.0.1:0"})
	secureWeb := listenAt(t, b, mqttfront.ListenerConfig{URL: "wss://127.0.0.1:0/mqtt", TLS: server})
	path := filepath.Join(t.TempDir(), "s")
	socket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Serve(socket, mqttfront.ListenerConfig{URL: "unix://" + path}); err != nil {
		t.Fatal(err)
	}
	must := func(nc net.Conn, err error) net.Conn {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return nc
	}
	clients := map[string]*raw{
		"tcp":  over(t, dial(t, tcp)),
		"tls":  over(t, must(tls.Dial("tcp", secure, client))),
		"unix": over(t, must(net.Dial("unix", path))),
		"ws":   over(t, dialWeb(t, "ws://"+web, &http.Transport{})),
		"wss":  over(t, dialWeb(t, "wss://"+secureWeb+"/mqtt", &http.Transport{TLSClientConfig: client})),
	}
	for name, c := range clients {
		if code := c.hello(name); code != 0 {
			t.Fatalf("%s: CONNACK 0x%02x", name, code)
		}
		c.subscribe(filter{"from/#", 1})
	}
	for name, c := range clients {
		for i, size := range []int{10, 3000, 200_000} {
			text := fmt.Sprintf("%s %d %s", name, i, strings.Repeat("x", size))
			c.send(c.publishPacket(0, 0, "from/"+name, text))
			for _, to := range clients {
				to.expectPublish(text)
			}
		}
	}
	for name, c := range clients {
		t.Log(name)
		c.bye()
	}
	eventually(t, "all are gone", func() bool { return b.Stats().Connections.Load() == 0 })
}

// TestListenerURL: what cannot be listened at is refused.
func TestListenerURL(t *testing.T) {
	b, _, _ := start(t, nil)
	server, _ := tlsPair(t, "x")
	for _, lc := range []mqttfront.ListenerConfig{
		{URL: "tls://127.0.0.1:0"}, {URL: "wss://127.0.0.1:0"}, {URL: "tcp://127.0.0.1:0", TLS: server}, {URL: "ssl://127.0.0.1:0", TLS: server},
		{URL: "tls://127.0.0.1", TLS: server}, {URL: "%"}, {URL: "unix:///tmp/x"},
	} {
		if _, err := b.Listen(lc); err == nil {
			t.Errorf("%s is listened at", lc.URL)
		}
	}
}

// TestHandshakes: TLS is set up within the time for CONNECT, and is counted where it fails. Whoever is at it counts as a
// connection.
func TestHandshakes(t *testing.T) {
	b, _, _ := start(t, func(c *mqttfront.Config) {
		c.ConnectTimeout = 400 * time.Millisecond
		c.MaxConnections = 2
	})
	server, client := tlsPair(t, "device")
	at := listenAt(t, b, mqttfront.ListenerConfig{URL: "tls://127.0.0.1:0", TLS: server})
	silent, half := over(t, dial(t, at)), over(t, dial(t, at))
	half.send([]byte{22, 3, 1, 2, 0, 1})
	eventually(t, "both count", func() bool { return b.Stats().Connections.Load() == 2 })
	silent.expectEnd()
	half.expectEnd()
	eventually(t, "both are counted", func() bool { return b.Stats().ConnectTimeout.Load() == 2 })
	plain := over(t, dial(t, at))
	plain.send(connectOpts{version: 5, id: "c"}.encode())
	io.Copy(io.Discard, plain.nc) // an alert, and the end
	stranger := client.Clone()
	stranger.RootCAs = x509.NewCertPool()
	if _, err := tls.Dial("tcp", at, stranger); err == nil {
		t.Error("the stranger trusts the certificate")
	}
	eventually(t, "both are counted", func() bool { return b.Stats().BadHandshakes.Load() == 2 })
	nc, err := tls.Dial("tcp", at, client)
	if err != nil {
		t.Fatal(err)
	}
	slow := over(t, nc)
	slow.expectEnd() // the time is over for CONNECT too
	eventually(t, "it is counted", func() bool { return b.Stats().ConnectTimeout.Load() == 3 && b.Stats().Connections.Load() == 0 })
}

// lumps sends what is written in lumps of a size, the last of which waits for flush.
type lumps struct {
	net.Conn
	size  int
	waits []byte
}

func (l *lumps) Write(b []byte) (int, error) {
	l.waits = append(l.waits, b...)
	for len(l.waits) >= l.size {
		if _, err := l.Conn.Write(l.waits[:l.size]); err != nil {
			return 0, err
		}
		l.waits = l.waits[l.size:]
	}
	return len(b), nil
}

func (l *lumps) flush() {
	l.Conn.Write(l.waits)
	l.waits = nil
}

// TestTLSRecords: packets, records and what the socket brings at a time are in no relation; what is there is handled, and
// what is not is waited for.
func TestTLSRecords(t *testing.T) {
	b, _, _ := start(t, nil)
	server, client := tlsPair(t, "device")
	at := listenAt(t, b, mqttfront.ListenerConfig{URL: "tls://127.0.0.1:0", TLS: server})
	for _, sizes := range [][2]int{{7, 10}, {7, 1 << 20}, {900, 100}, {16 << 10, 1 << 20}, {20_000, 5000}} { // of records and lumps
		under := &lumps{Conn: dial(t, at), size: 1}
		nc := tls.Client(under, client)
		if err := nc.Handshake(); err != nil {
			t.Fatal(err)
		}
		c := over(t, nc)
		if code := c.hello("c"); code != 0 {
			t.Fatalf("CONNACK 0x%02x", code)
		}
		c.subscribe(filter{"a", 0})
		var all []byte
		var texts []string
		for i, size := range []int{1, 600, 5000, 3, 70_000, 2} {
			texts = append(texts, fmt.Sprint(i, strings.Repeat("x", size)))
			all = append(all, c.publishPacket(0, 0, "a", texts[i])...)
		}
		under.size = sizes[1]
		for len(all) > 0 {
			n := min(sizes[0], len(all))
			c.send(all[:n])
			all = all[n:]
		}
		under.flush()
		for _, text := range texts {
			c.expectPublish(text)
		}
		under.size = 1
		c.bye()
	}
	eventually(t, "all are gone", func() bool { return b.Stats().Connections.Load() == 0 })
}

// TestTurnedAwayByTLS: who is over the limit is told by TLS as well.
func TestTurnedAwayByTLS(t *testing.T) {
	b, _, _ := start(t, nil)
	server, client := tlsPair(t, "device")
	for _, scheme := range []string{"tls", "wss"} {
		at := listenAt(t, b, mqttfront.ListenerConfig{URL: scheme + "://127.0.0.1:0", TLS: server, MaxConnections: 1})
		connectTo := func() *raw {
			if scheme == "tls" {
				nc, err := tls.Dial("tcp", at, client)
				if err != nil {
					t.Fatal(err)
				}
				return over(t, nc)
			}
			return over(t, dialWeb(t, "wss://"+at, &http.Transport{TLSClientConfig: client}))
		}
		first := connectTo()
		if code := first.hello("first"); code != 0 {
			t.Fatalf("CONNACK 0x%02x", code)
		}
		second := connectTo()
		second.send(connectOpts{version: 5, id: "second"}.encode())
		if pk := second.expect(packets.Connack); pk.ReasonCode != 0x97 || !strings.Contains(pk.Properties.ReasonString, "this listener takes at most 1 ") {
			t.Errorf("%s: CONNACK 0x%02x %q", scheme, pk.ReasonCode, pk.Properties.ReasonString)
		}
		second.expectEnd()
	}
}

// TestMaxConnections of one listener does not touch the others, and there is room again when somebody leaves.
func TestMaxConnections(t *testing.T) {
	b, _, free := start(t, nil)
	at := listenAt(t, b, mqttfront.ListenerConfig{URL: "tcp://127.0.0.1:0", MaxConnections: 2})
	one, two := over(t, dial(t, at)), over(t, dial(t, at))
	if one.hello("one") != 0 || two.hello("two") != 0 {
		t.Fatal("no room for two")
	}
	for i := range 5 {
		c := over(t, dial(t, at))
		if code := c.hello("three"); code != 0x97 {
			t.Errorf("the third gets 0x%02x", code)
		}
		if code := over(t, dial(t, free)).hello(fmt.Sprint("free", i)); code != 0 {
			t.Errorf("elsewhere one gets 0x%02x", code)
		}
	}
	if n := b.Stats().RefusedOfListener.Load(); n != 5 {
		t.Errorf("%d refused, want 5", n)
	}
	two.bye()
	eventually(t, "it is gone", func() bool { return b.Stats().Connections.Load() == 6 })
	if code := over(t, dial(t, at)).hello("three"); code != 0 {
		t.Errorf("with room again, one gets 0x%02x", code)
	}
}

// TestCertUser: whom a certificate names is told to Auth; one that names nobody is refused.
func TestCertUser(t *testing.T) {
	auth := &asking{}
	b, _, _ := startWith(t, newLoner(), storetest.NewSessions(), auth, nil)
	server, client := tlsPair(t, "device 7")
	server.ClientAuth = tls.VerifyClientCertIfGiven
	name := func(c *x509.Certificate) string { return strings.TrimPrefix(c.Subject.CommonName, "nobody") }
	at := listenAt(t, b, mqttfront.ListenerConfig{URL: "tls://127.0.0.1:0", TLS: server, UserOf: name, Anonymous: true})
	connectWith := func(c *tls.Config) byte {
		nc, err := tls.Dial("tcp", at, c)
		if err != nil {
			t.Fatal(err)
		}
		return over(t, nc).hello("c")
	}
	if code := connectWith(client); code != 0 || auth.last().CertUser != "device 7" || !auth.last().Anonymous || auth.last().Listener != "tls://127.0.0.1:0" {
		t.Errorf("0x%02x, %+v", code, auth.last())
	}
	without := client.Clone()
	without.Certificates = nil
	if code := connectWith(without); code != 0 || auth.last().CertUser != "" {
		t.Errorf("without a certificate: 0x%02x, %+v", code, auth.last())
	}
	server2, client2 := tlsPair(t, "nobody")
	server2.ClientAuth = tls.RequireAndVerifyClientCert
	at = listenAt(t, b, mqttfront.ListenerConfig{URL: "tls://127.0.0.1:0", TLS: server2, UserOf: name})
	before := len(auth.logins)
	if code := connectWith(client2); code != 0x87 || len(auth.logins) != before {
		t.Errorf("a certificate that names nobody: 0x%02x", code)
	}
}

// TestRecheckCertificates: whose certificate is not accepted any more is told so and disconnected, also where that came
// about between its handshake and its CONNACK; the others stay.
func TestRecheckCertificates(t *testing.T) {
	b, _, plain := start(t, nil)
	server, device := tlsPair(t, "device")
	server.ClientAuth = tls.VerifyClientCertIfGiven
	nameless := device.Clone()
	nameless.Certificates = nil
	var trusted atomic.Bool
	trusted.Store(true)
	trusts := func(shown []*x509.Certificate) bool {
		return len(shown) == 0 || shown[0].Subject.CommonName == "device" && trusted.Load()
	}
	at := listenAt(t, b, mqttfront.ListenerConfig{URL: "tls://127.0.0.1:0", TLS: server, Trusts: trusts})
	web := listenAt(t, b, mqttfront.ListenerConfig{URL: "wss://127.0.0.1:0", TLS: server, Trusts: trusts})
	open := func(client *tls.Config) *raw {
		t.Helper()
		nc, err := tls.Dial("tcp", at, client)
		if err != nil {
			t.Fatal(err)
		}
		return over(t, nc)
	}
	five, byWeb, late := open(device), over(t, dialWeb(t, "wss://"+web, &http.Transport{TLSClientConfig: device})), open(device)
	stay := []*raw{open(nameless), over(t, dial(t, plain))}
	for i, c := range append([]*raw{five, byWeb}, stay...) {
		if code := c.hello(fmt.Sprint("c", i)); code != 0 {
			t.Fatalf("CONNACK 0x%02x", code)
		}
	}
	trusted.Store(false)
	b.RecheckCertificates()
	five.expectDisconnect(0x87)
	byWeb.expectDisconnect(0x87)
	if code := late.hello("late"); code != 0 {
		t.Fatalf("CONNACK 0x%02x", code)
	}
	late.expectDisconnect(0x87)
	for _, c := range stay {
		c.silent()
	}
	if n := b.Stats().LostRight.Load(); n != 3 {
		t.Errorf("%d disconnected, want 3", n)
	}
}

// TestWebRequests: an HTTP request gets its answer and the connection ends, and is bounded in size and time.
func TestWebRequests(t *testing.T) {
	b, _, _ := start(t, func(c *mqttfront.Config) { c.ConnectTimeout = time.Second })
	at := listenAt(t, b, mqttfront.ListenerConfig{URL: "ws://127.0.0.1:0/mqtt", Origins: []string{"*.example"}})
	const good = "GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n"
	for i, tc := range []struct{ request, want string }{
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 "},
		{"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 426 "},
		{strings.Replace(good, "GET", "POST", 1) + "\r\n", "HTTP/1.1 405 "},
		{good + "Origin: https://evil.test\r\n\r\n", "HTTP/1.1 403 "},
		{"nonsense\r\n\r\n", "HTTP/1.1 400 "},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 "},
		{good + "Cookie: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", "HTTP/1.1 431 "},
		{strings.Replace(good, "Protocol: mqtt", "Protocol: chat", 1) + "\r\n", "HTTP/1.1 101 "}, // and is closed
	} {
		nc := dial(t, at)
		if _, err := nc.Write([]byte(tc.request)); err != nil {
			t.Fatal(err)
		}
		nc.SetReadDeadline(time.Now().Add(patience))
		answer, _ := io.ReadAll(nc) // a reset, where not all of the request was read
		if !bytes.HasPrefix(answer, []byte(tc.want)) {
			t.Errorf("%.40q: %q, want %s", tc.request, answer, tc.want)
		}
		eventually(t, "it is counted", func() bool { return b.Stats().BadUpgrades.Load() == uint64(i+1) })
	}
	nc := dial(t, at)
	nc.Write([]byte(good + "Origin: https://a.example\r\n\r\n"))
	nc.SetReadDeadline(time.Now().Add(patience))
	head := make([]byte, 12)
	if _, err := io.ReadFull(nc, head); err != nil || string(head) != "HTTP/1.1 101" {
		t.Errorf("a page of %s: %q, %v", "a.example", head, err)
	}
}
