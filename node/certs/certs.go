// Package certs has the certificates of a node's listeners: those that somebody put into files, which are read again on
// request while clients stay connected, and one of the node's own for listeners that were given none. It also verifies
// the certificates of clients and says whom they name.
//
// Package node makes a Keeper, asks it for a Listener for each tls:// and wss:// listener, and hands the Listener's
// Config to the MQTT side. All methods are safe for concurrent use. The package has no goroutines.
package certs

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// Dir is the data directory, where the node's own certificate is.
type Dir interface {
	Path(name string) string
	WriteFile(name string, data []byte) error
}

// Files says which certificates a listener has. All of them are PEM.
type Files struct {
	// Certificate is the chain, the listener's own certificate first, and Key its private key. Both are "" for the
	// node's own.
	Certificate, Key string
	// ClientCA has the authorities whose certificates clients must show; "": clients show none.
	ClientCA string
	// Optional takes clients that show no certificate, too.
	Optional bool
}

// Keeper has the certificates of one node.
type Keeper struct {
	dir   Dir
	clock *Clock
	slots chan struct{} // held while something is signed

	mu        sync.Mutex
	own       *tls.Certificate // once it was needed
	listeners []*Listener
}

// NewKeeper returns the keeper of a node.
func NewKeeper(dir Dir, clock *Clock) *Keeper {
	// Signing is what a handshake costs us most. Of many handshakes at a time, few compute, and messages go on between.
	return &Keeper{dir: dir, clock: clock, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// Listener is the TLS of one listener.
type Listener struct {
	k       *Keeper
	files   Files
	current atomic.Pointer[state]
	base    *tls.Config
}

// state is what new connections use. It does not change.
type state struct {
	config      *tls.Config
	fingerprint string
	clientCAs   *x509.CertPool // nil: clients show no certificate
}

// Listener reads the certificates of a listener. The error names the file, and the line where there is one.
func (k *Keeper) Listener(files Files) (*Listener, error) {
	l := &Listener{k: k, files: files}
	s, err := l.read()
	if err != nil {
		return nil, err
	}
	l.current.Store(s)
	l.base = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return l.current.Load().config, nil },
	}
	k.mu.Lock()
	k.listeners = append(k.listeners, l)
	k.mu.Unlock()
	return l, nil
}

// Config returns what the listener is served with. Each connection gets what was read last when it begins.
func (l *Listener) Config() *tls.Config { return l.base }

// Own reports whether the listener uses the node's own certificate.
func (l *Listener) Own() bool { return l.files.Certificate == "" }

// Fingerprint returns the SHA-256 of the listener's certificate, as openssl prints it.
func (l *Listener) Fingerprint() string { return l.current.Load().fingerprint }

// Trusts reports whether what a client has shown, its own certificate first, would still be accepted.
func (l *Listener) Trusts(shown []*x509.Certificate) bool {
	s := l.current.Load()
	if s.clientCAs == nil || len(shown) == 0 {
		return s.clientCAs == nil || l.files.Optional
	}
	return l.k.verify(s.clientCAs, shown) == nil
}

// Read reads the certificates of all listeners again. They take effect with use, unless something is wrong with one.
func (k *Keeper) Read() (use func(), err error) {
	k.mu.Lock()
	listeners := k.listeners
	k.mu.Unlock()
	states := make([]*state, len(listeners))
	var wrong []error
	for i, l := range listeners {
		if states[i], err = l.read(); err != nil {
			wrong = append(wrong, err)
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return func() {
		for i, l := range listeners {
			l.current.Store(states[i])
		}
	}, nil
}

// read reads what the listener's files have now.
func (l *Listener) read() (*state, error) {
	cert, err := l.certificate()
	if err != nil {
		return nil, err
	}
	s := &state{fingerprint: Fingerprint(cert.Leaf)}
	limited := *cert
	limited.PrivateKey = signer{cert.PrivateKey.(crypto.Signer), l.k.slots}
	s.config = &tls.Config{
		Certificates: []tls.Certificate{limited},
		MinVersion:   tls.VersionTLS12,
		Time:         l.k.clock.Now,
	}
	if l.files.ClientCA == "" {
		return s, nil
	}
	if s.clientCAs, err = readAuthorities(l.files.ClientCA); err != nil {
		return nil, err
	}
	s.config.ClientCAs = s.clientCAs
	s.config.ClientAuth = tls.RequireAndVerifyClientCert
	if l.files.Optional {
		s.config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	s.config.VerifyConnection = func(c tls.ConnectionState) error {
		// A resumed session was verified when it began, perhaps against other authorities.
		if c.DidResume && !l.Trusts(c.PeerCertificates) {
			return errors.New("the client's certificate is not accepted any more")
		}
		return nil
	}
	return s, nil
}

func (l *Listener) certificate() (*tls.Certificate, error) {
	if l.Own() {
		return l.k.ownCertificate()
	}
	return readPair(l.files.Certificate, l.files.Key)
}

// verify checks what a client has shown, as crypto/tls does.
func (k *Keeper) verify(roots *x509.CertPool, shown []*x509.Certificate) error {
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	_, err := shown[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: k.clock.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// Fingerprint returns the SHA-256 of a certificate, as openssl prints it.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = strings.ToUpper(hex.EncodeToString([]byte{b}))
	}
	return strings.Join(parts, ":")
}

// signer signs a few things at a time.
type signer struct {
	crypto.Signer
	slots chan struct{}
}

// Sign implements crypto.Signer.
func (s signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.slots <- struct{}{}
	defer func() { <-s.slots }()
	signature, err := s.Signer.Sign(rand, digest, opts)
	if err != nil {
		return nil, fmt.Errorf("sign a handshake: %w", err)
	}
	return signature, nil
}
