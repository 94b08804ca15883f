package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), key: newKey(t)}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: written, NotAfter: written.AddDate(20, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// file writes the authority's certificate to a file.
func (a *authority) file() string { return a.write("ca.crt", "CERTIFICATE", a.cert.Raw) }

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes a certificate, and returns its files and itself.
func (a *authority) issue(name string, change func(*x509.Certificate)) (certFile, keyFile string, cert tls.Certificate) {
	a.t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: written, NotAfter: written.AddDate(10, 0, 0),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(c)
	}
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certFile, keyFile = a.write(name+".crt", "CERTIFICATE", der), a.write(name+".key", "PRIVATE KEY", secret)
	if cert, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		a.t.Fatal(err)
	}
	return certFile, keyFile, cert
}

func openDir(t testing.TB, path string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// clock is a machine's clock that tests set.
type clock struct{ atomic.Pointer[time.Time] }

func clockAt(now time.Time) *clock {
	c := new(clock)
	c.Store(&now)
	return c
}

func (c *clock) now() time.Time      { return *c.Load() }
func (c *clock) add(d time.Duration) { now := c.now().Add(d); c.Store(&now) }
func (c *clock) set(now time.Time)   { c.Store(&now) }

var today = written.AddDate(1, 0, 0)

func newKeeper(t *testing.T, now func() time.Time) *Keeper {
	t.Helper()
	d := openDir(t, filepath.Join(t.TempDir(), "data"))
	return NewKeeper(d, newClock(d, written, now))
}

// shake sets TLS up between a listener and a client. It returns what each has to say about it.
func shake(l *Listener, client *tls.Config) (seen tls.ConnectionState, server, clientErr error) {
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return seen, err, err
	}
	defer at.Close()
	limit := time.Now().Add(time.Minute)
	done := make(chan error, 1)
	go func() {
		nc, err := at.Accept()
		if err == nil {
			defer nc.Close()
			nc.SetDeadline(limit)
			_, err = tls.Server(nc, l.Config()).Write([]byte("x"))
		}
		done <- err
	}()
	nc, err := net.Dial("tcp", at.Addr().String())
	if err != nil {
		return seen, err, err
	}
	defer nc.Close()
	nc.SetDeadline(limit)
	c := tls.Client(nc, client)
	_, clientErr = io.ReadFull(c, make([]byte, 1)) // what the server thinks of our certificate comes with the first bytes
	nc.Close()
	return c.ConnectionState(), <-done, clientErr
}

func pool(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// TestOwnCertificate: it is made once, is for its owner alone, has a fingerprint, and is valid in 1970 as in 2090 for
// whoever trusts it.
func TestOwnCertificate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	d := openDir(t, path)
	k := NewKeeper(d, newClock(d, written, clockAt(time.Unix(0, 0)).now))
	l, err := k.Listener(Files{})
	if err != nil {
		t.Fatal(err)
	}
	if !l.Own() || len(l.Fingerprint()) != 32*3-1 || strings.Count(l.Fingerprint(), ":") != 31 {
		t.Errorf("own %v, fingerprint %s", l.Own(), l.Fingerprint())
	}
	for _, name := range []string{OwnCertificate, OwnKey} {
		if info, err := os.Stat(d.Path(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	certs, err := readCertificates("it", d.Path(OwnCertificate))
	if err != nil || Fingerprint(certs[0]) != l.Fingerprint() {
		t.Fatalf("in the file: %v", err)
	}
	host, _ := os.Hostname()
	for _, year := range []int{1970, 2026, 2090} {
		when := func() time.Time { return time.Date(year, 1, 1, 12, 0, 0, 0, time.UTC) }
		for _, name := range []string{"localhost", "127.0.0.1", "::1", host} {
			if !isHostName(strings.ToLower(host)) && name == host {
				continue
			}
			if _, server, client := shake(l, &tls.Config{RootCAs: pool(certs...), ServerName: name, Time: when}); server != nil || client != nil {
				t.Errorf("%d, %s: %v, %v", year, name, server, client)
			}
		}
	}
	if _, _, err := shake(l, &tls.Config{RootCAs: pool(certs...), ServerName: "elsewhere.example"}); err == nil {
		t.Error("it is good for any name")
	}
	d.Close()
	again := openDir(t, path)
	l2, err := NewKeeper(again, NewClock(again)).Listener(Files{})
	if err != nil || l2.Fingerprint() != l.Fingerprint() {
		t.Errorf("after a restart: %v, %v", l2.Fingerprint(), err)
	}
	if err := os.Remove(again.Path(OwnKey)); err != nil {
		t.Fatal(err)
	}
	if _, err := NewKeeper(again, NewClock(again)).Listener(Files{}); err == nil || !strings.Contains(err.Error(), "the next start makes new ones") {
		t.Errorf("without its key: %v", err)
	}
}

// TestReload: what is read again takes effect for new connections, all of it or nothing.
func TestReload(t *testing.T) {
	ca := newAuthority(t, "ca")
	certFile, keyFile, first := ca.issue("first", nil)
	k := newKeeper(t, clockAt(today).now)
	l, err := k.Listener(Files{Certificate: certFile, Key: keyFile, ClientCA: ca.file()})
	if err != nil {
		t.Fatal(err)
	}
	other, err := k.Listener(Files{})
	if err != nil {
		t.Fatal(err)
	}
	own := other.Fingerprint()
	_, _, mine := ca.issue("client", nil)
	client := &tls.Config{RootCAs: pool(ca.cert), ServerName: "localhost", Certificates: []tls.Certificate{mine}, Time: clockAt(today).now}
	see := func() string {
		t.Helper()
		seen, server, err := shake(l, client)
		if server != nil || err != nil {
			t.Fatalf("%v, %v", server, err)
		}
		return seen.PeerCertificates[0].Subject.CommonName
	}
	if have := see(); have != "first" || l.Fingerprint() != Fingerprint(first.Leaf) {
		t.Errorf("the first certificate is %s, %s", have, l.Fingerprint())
	}
	newCert, newKey, second := ca.issue("second", nil)
	copyFile(t, newCert, certFile)
	if _, err := k.Read(); err == nil || !strings.HasPrefix(err.Error(), keyFile+": it is not the key of the first certificate in "+certFile) {
		t.Errorf("half of it: %v", err)
	}
	if have := see(); have != "first" {
		t.Errorf("after half of a reload, the certificate is %s", have)
	}
	copyFile(t, newKey, keyFile)
	use, err := k.Read()
	if err != nil {
		t.Fatal(err)
	}
	if have := see(); have != "first" {
		t.Errorf("before it is put to use, the certificate is %s", have)
	}
	use()
	if have := see(); have != "second" || l.Fingerprint() != Fingerprint(second.Leaf) || other.Fingerprint() != own {
		t.Errorf("after the reload, the certificate is %s, %s", have, l.Fingerprint())
	}
	// Another authority: those of the one before are out, resumed sessions too.
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	see()
	if seen, _, _ := shake(l, client); !seen.DidResume {
		t.Error("a session is not resumed")
	}
	if !l.Trusts([]*x509.Certificate{mine.Leaf}) {
		t.Error("what was accepted is not trusted")
	}
	copyFile(t, newAuthority(t, "other").file(), ca.file())
	// ca.file wrote the old one again; the other is put over it now.
	strange := newAuthority(t, "strange")
	copyFile(t, strange.file(), filepath.Join(ca.dir, "ca.crt"))
	if use, err = k.Read(); err != nil {
		t.Fatal(err)
	}
	use()
	if _, server, err := shake(l, client); server == nil || err == nil {
		t.Errorf("a client of the authority before is taken: %v, %v", server, err)
	}
	if l.Trusts([]*x509.Certificate{mine.Leaf}) || l.Trusts(nil) {
		t.Error("what is not accepted any more is trusted")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestClientCertificates: who must show one, and whose is taken.
func TestClientCertificates(t *testing.T) {
	ca, strange := newAuthority(t, "ca"), newAuthority(t, "strange")
	_, _, good := ca.issue("good", nil)
	_, _, other := strange.issue("other", nil)
	_, _, late := ca.issue("late", func(c *x509.Certificate) { c.NotAfter = today.AddDate(0, -1, 0) })
	_, _, server := ca.issue("server", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })
	k := newKeeper(t, clockAt(today).now)
	for _, optional := range []bool{false, true} {
		l, err := k.Listener(Files{ClientCA: ca.file(), Optional: optional})
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			certs []tls.Certificate
			want  bool
		}{
			"good": {[]tls.Certificate{good}, true}, "none": {nil, optional}, "of another authority": {[]tls.Certificate{other}, false},
			"expired": {[]tls.Certificate{late}, false}, "of a server": {[]tls.Certificate{server}, false},
		} {
			client := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // it is about the client's own certificate
			if len(c.certs) > 0 {
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.certs[0], nil }
			}
			if _, server, err := shake(l, client); (server == nil && err == nil) != c.want {
				t.Errorf("optional %v, %s: %v, %v", optional, name, server, err)
			}
		}
	}
}

// TestOldTLS: nothing below TLS 1.2 is spoken.
func TestOldTLS(t *testing.T) {
	l, err := newKeeper(t, time.Now).Listener(Files{})
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		_, server, err := shake(l, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version}) //nolint:gosec // as meant
		if (server == nil && err == nil) != want {
			t.Errorf("%s: %v, %v", tls.VersionName(version), server, err)
		}
	}
}

// TestMistakesInFiles: what is wrong is said with the file, and the line where there is one.
func TestMistakesInFiles(t *testing.T) {
	ca := newAuthority(t, "ca")
	certFile, keyFile, _ := ca.issue("it", nil)
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	cert, key := read(certFile), read(keyFile)
	lines := strings.Count(cert, "\n")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, time.Now)
	for _, tc := range []struct{ name, cert, key, ca, want string }{
		{"empty", "", key, cert, "CERT:1: want the listener's certificate in PEM"},
		{"no PEM", "certificate\n", key, cert, "CERT:1: want the listener's certificate in PEM"},
		{"a key instead", key, key, cert, "CERT:1: want the listener's certificate in PEM"},
		{"a damaged one", strings.Replace(cert, "M", "*", 1), key, cert, "CERT:1: the certificate is damaged"},
		{"a damaged second", "# mine\n" + cert + "\n" + strings.Replace(cert, "\n", "\n*", 2), key, cert, fmt.Sprintf("CERT:%d: the certificate is damaged", lines+3)},
		{"nonsense in PEM", "\n\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key, cert, "CERT:3: the certificate cannot be read"},
		{"no key", cert, cert, cert, "KEY:1: want a private key in PEM"},
		{"a key behind a password", cert, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", cert, "KEY:1: the key is behind a password"},
		{"another key", cert, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})), cert, "KEY: it is not the key of the first certificate in CERT"},
		{"no authority", cert, key, "", "CA:1: want the certificates of the authorities"},
		{"too large", cert, key, strings.Repeat("x", maxFile+1), "CA: the certificates of the authorities that vouch for clients of more than"},
		{"good", "text before\n" + cert + ca.dir, key, cert + cert, ""},
	} {
		dir := t.TempDir()
		f := Files{Certificate: filepath.Join(dir, "CERT"), Key: filepath.Join(dir, "KEY"), ClientCA: filepath.Join(dir, "CA")}
		for name, text := range map[string]string{f.Certificate: tc.cert, f.Key: tc.key, f.ClientCA: tc.ca} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		have := ""
		if _, err := k.Listener(f); err != nil {
			have = strings.ReplaceAll(err.Error(), dir+"/", "")
		}
		if tc.want == "" && have != "" || !strings.HasPrefix(have, tc.want) {
			t.Errorf("%s:\nhave %s\nwant %s", tc.name, have, tc.want)
		}
	}
	if _, err := k.Listener(Files{Certificate: "/nowhere/a", Key: "/nowhere/b"}); err == nil || !strings.HasPrefix(err.Error(), "/nowhere/a: there is no such file") {
		t.Errorf("no file: %v", err)
	}
}

func TestUserFrom(t *testing.T) {
	uri, _ := url.Parse("spiffe://house/door")
	c := &x509.Certificate{Subject: pkix.Name{CommonName: "alice"}, DNSNames: []string{"door.example", "x"}, EmailAddresses: []string{"a@example"}, URIs: []*url.URL{uri}}
	for from, want := range map[UserFrom]string{UserFromNone: "", UserFromCN: "alice", UserFromDNS: "door.example", UserFromEmail: "a@example", UserFromURI: "spiffe://house/door"} {
		if have := from.User(c); have != want {
			t.Errorf("%s: %q, want %q", from, have, want)
		}
		if have := from.User(&x509.Certificate{}); have != "" {
			t.Errorf("%s of nobody: %q", from, have)
		}
	}
	for _, name := range []string{"a\x00b", "a\nb", "\xff", strings.Repeat("a", maxUser+1)} {
		if have := UserFromCN.User(&x509.Certificate{Subject: pkix.Name{CommonName: name}}); have != "" {
			t.Errorf("%q is taken", have)
		}
	}
}

// TestFewSignAtATime: of many handshakes, no more than there are slots compute.
func TestFewSignAtATime(t *testing.T) {
	var now, most atomic.Int64
	slow := slowSigner{newKey(t), &now, &most}
	s := signer{slow, make(chan struct{}, 2)}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := s.Sign(rand.Reader, make([]byte, 32), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() != 2 {
		t.Errorf("%d sign at a time, want 2", most.Load())
	}
}
