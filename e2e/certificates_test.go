package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// authority signs certificates, which it keeps in a folder.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.make(name, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// make makes a certificate and its key, and writes both to files.
func (a *authority) make(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), time.Now().AddDate(10, 0, 0)
	parent, signer := a.cert, a.key
	if c.IsCA {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for ending, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(a.file(name+ending), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return c, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// server makes a certificate for a server at localhost, and client one that names a user and, as SAN, another.
func (a *authority) server(name string) *x509.Certificate {
	a.t.Helper()
	c, _ := a.make(name, &x509.Certificate{DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return c
}

func (a *authority) client(name, san string) {
	a.t.Helper()
	var sans []string
	if san != "" {
		sans = append(sans, san)
	}
	a.make(name, &x509.Certificate{DNSNames: sans, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

const certificateRules = `
rules:
  - everyone: true
    publish: ["%u/#"]
    subscribe: ["%u/#"]
`

// TestCertificates has clients log in by certificates, whose common name or SAN is their name, and the node's own certificate
// and one of the authorities change while they are connected: those of that authority are disconnected and told so, the
// others stay, and new ones see the new certificate.
func TestCertificates(t *testing.T) {
	long(t)
	need(t, "mosquitto_sub", "mosquitto_pub", "stdbuf")
	house, former := newAuthority(t, "house"), newAuthority(t, "former")
	house.server("first")
	second := house.server("second")
	house.client("alice", "door.house")
	former.client("bob", "")
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	put := func(name string, from ...string) {
		t.Helper()
		var text []byte
		for _, f := range from {
			part, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, part...)
		}
		if err := os.WriteFile(file(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("node.crt", house.file("first.crt"))
	put("node.key", house.file("first.key"))
	put("devices.crt", house.file("house.crt"), former.file("former.crt"))

	byName, bySAN := freePort(t), freePort(t)
	options := fmt.Sprintf("?certificate=%s&key=%s&client_ca=%s", file("node.crt"), file("node.key"), file("devices.crt"))
	n := newNode(t, "node", "--mqtt", "tls://"+loopback(byName)+options, "--mqtt", "tls://"+loopback(bySAN)+options+"&user_from=san_dns")
	n.urls = map[string]string{"name": "tls://localhost:" + byName, "san": "tls://localhost:" + bySAN}
	n.authority = house.file("house.crt")
	n.start()
	n.ready()
	n.write("access.yaml", certificateRules)
	if _, stderr, code := mozzie(t, "reload", "--data", n.data); code != 0 {
		t.Fatal(stderr)
	}
	as := func(tl tool, a *authority, who string) tool {
		return tl.with("--cert", a.file(who+".crt"), "--key", a.file(who+".key"))
	}
	refused := func(tl tool) { // mosquitto_pub would try again for ever
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if out, err := tl.command(ctx, "pub", n, 1, "x").CombinedOutput(); err == nil || ctx.Err() != nil {
			t.Errorf("who may not come in came: %v, %s", ctx.Err(), out)
		}
	}
	name, san := as(tool{"mosquitto", "5", "name", mosquitto}, house, "alice"), as(tool{"mosquitto", "5", "san", mosquitto}, house, "alice")
	ours := tool{"mozzie", "5", "name", mozzieClient}
	alice, door := name.subscribe(t, n, 1, "alice/#"), san.subscribe(t, n, 1, "door.house/#")
	refused(ours)                                                        // without a certificate
	refused(as(tool{"mozzie", "5", "san", mozzieClient}, former, "bob")) // whose certificate names nobody there
	stays, goes := connect5Over(t, n.dialAs(house, "alice")), connect5Over(t, n.dialAs(former, "bob"))

	rounds := func(first int) {
		t.Helper()
		name.publish(t, n, 1, "alice/x", 1)
		as(ours, house, "alice").publish(t, n, 1, "alice/x", 1)
		stays.publish("alice/x", numbered(0), 1)
		san.publish(t, n, 1, "door.house/x", 1)
		for _, box := range []*inbox{alice, door} {
			want := first + 1
			if box == alice {
				want = 3 * want
			}
			if got := box.wait(t, want); len(got) != want {
				t.Errorf("%d messages came, want %d: %s", len(got), want, brief(got))
			}
		}
	}
	rounds(0)
	before := n.status().Listeners[2].Fingerprint
	put("node.crt", house.file("second.crt"))
	put("node.key", house.file("second.key"))
	put("devices.crt", house.file("house.crt"))
	n.signal(syscall.SIGHUP)
	n.until("has another certificate", func(s admin.Status) bool { return s.Listeners[2].Fingerprint != before })
	goes.expectEnd(0x87)
	rounds(1)
	if lost := n.metric("mozzie_disconnected_rights_total"); lost != 1 {
		t.Errorf("%v clients were disconnected, want 1", lost)
	}
	refused(as(ours, former, "bob"))
	seen := n.dialAs(house, "alice").ConnectionState().PeerCertificates[0]
	if !bytes.Equal(seen.Raw, second.Raw) {
		t.Errorf("a new client sees the certificate of %s", seen.Subject.CommonName)
	}
}

// dialAs connects by TLS with a certificate.
func (n *node) dialAs(a *authority, who string) *tls.Conn {
	n.t.Helper()
	pair, err := tls.LoadX509KeyPair(a.file(who+".crt"), a.file(who+".key"))
	if err != nil {
		n.t.Fatal(err)
	}
	c := trust(n.t, n.trusted())
	c.Certificates = []tls.Certificate{pair}
	return dial(n.t, n.url("name"), &net.Dialer{}, c).(*tls.Conn)
}
