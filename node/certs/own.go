package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"strings"
	"time"
)

// The node's own certificate, in the data directory.
const (
	OwnCertificate = "tls.crt"
	OwnKey         = "tls.key"
)

// The own certificate is valid whenever it is: a machine without a clock starts in 1970, and nobody renews it. Its end
// is what RFC 5280, section 4.1.2.5, has for "no well-defined expiration date".
var (
	ownFrom  = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	ownUntil = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// ownCertificate reads the node's own certificate, and makes it where there is none yet.
func (k *Keeper) ownCertificate() (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.own != nil {
		return k.own, nil // it does not change
	}
	certFile, keyFile := k.dir.Path(OwnCertificate), k.dir.Path(OwnKey)
	_, err := os.Stat(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err := k.makeOwn(); err != nil {
			return nil, err
		}
	}
	cert, err := readPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("the node's own certificate: %w (without %s and %s, the next start makes new ones)", err, certFile, keyFile)
	}
	k.own = cert
	return cert, nil
}

// makeOwn makes the own certificate. The key is written first, so that a certificate has one, whatever happens.
func (k *Keeper) makeOwn() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key for TLS: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	name, names, ips := whoWeAre()
	cert := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"Mozzie node"}},
		NotBefore:    ownFrom, NotAfter: ownUntil,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              names, IPAddresses: ips,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make a key for TLS: %w", err)
	}
	if err := k.dir.WriteFile(OwnKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})); err != nil {
		return err
	}
	return k.dir.WriteFile(OwnCertificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// whoWeAre returns the names and addresses that clients may know this machine by, as of now. What changes later is not
// in the certificate, which stays the same so that it can be pinned.
func whoWeAre() (name string, names []string, ips []net.IP) {
	names = []string{"localhost"}
	if host, err := os.Hostname(); err == nil {
		if host = strings.ToLower(strings.TrimSuffix(host, ".")); isHostName(host) && host != "localhost" {
			name = host
			names = append(names, host)
			if !strings.Contains(host, ".") {
				names = append(names, host+".local") // as mDNS has it
			}
		}
	}
	if name == "" {
		name = "mozzie"
	}
	ips = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	addrs, _ := net.InterfaceAddrs() // without it, the names have to do
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			ips = append(ips, n.IP)
		}
	}
	return name, names, ips
}

// isHostName reports whether a name may stand in a certificate.
func isHostName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-."
	return s != "" && len(s) <= 64 && strings.Trim(s, letters) == "" && s[0] != '-' && s[0] != '.'
}
