package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxFile is far more than certificates need: a bundle of all authorities that browsers know has 200 KiB.
const maxFile = 4 << 20

// readFile reads a file of limited size, and words the error for who named it.
func readFile(what, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err == nil {
		defer f.Close()
		var text []byte
		if text, err = io.ReadAll(io.LimitReader(f, maxFile+1)); err == nil {
			if len(text) > maxFile {
				return nil, fmt.Errorf("%s: %s of more than %d bytes is none", name, what, maxFile)
			}
			return text, nil
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: there is no such file, and %s was to be in it", name, what)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: user %d, which the node runs as, may not read it", name, os.Getuid())
	}
	return nil, fmt.Errorf("%s: read %s: %w", name, what, err)
}

// block is a PEM block and the line that it begins in.
type block struct {
	*pem.Block
	line int
}

// blocks returns the PEM blocks of a text.
func blocks(text []byte) (all []block) {
	const begin = "-----BEGIN"
	for at := 0; ; {
		b, rest := pem.Decode(text[at:])
		if b == nil {
			return all
		}
		end := len(text) - len(rest)
		// A block that cannot be read is passed over, so that the one that was read is the last that begins here.
		start := at + max(0, bytes.LastIndex(text[at:end], []byte(begin+" "+b.Type)))
		all = append(all, block{b, 1 + bytes.Count(text[:start], []byte("\n"))})
		at = end
	}
}

// readCertificates reads the certificates in a file, of which there must be one at least.
func readCertificates(what, name string) ([]*x509.Certificate, error) {
	text, err := readFile(what, name)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	all := blocks(text)
	for _, b := range all {
		if b.Type != "CERTIFICATE" {
			continue // openssl puts more into files than asked for
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: the certificate cannot be read: %w", name, b.line, err)
		}
		certs = append(certs, c)
	}
	if want := bytes.Count(text, []byte("-----BEGIN CERTIFICATE-----")); len(certs) < want {
		return nil, fmt.Errorf("%s:%d: the certificate is damaged", name, damagedLine(text, all))
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s:1: want %s in PEM, beginning with -----BEGIN CERTIFICATE-----", name, what)
	}
	return certs, nil
}

// damagedLine returns the first line that begins a certificate which is none of all.
func damagedLine(text []byte, all []block) int {
	good := map[int]bool{}
	for _, b := range all {
		good[b.line] = true
	}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if bytes.HasPrefix(line, []byte("-----BEGIN CERTIFICATE-----")) && !good[n] {
			return n
		}
	}
	return n
}

// readPair reads a listener's certificate and its key.
func readPair(certFile, keyFile string) (*tls.Certificate, error) {
	chain, err := readCertificates("the listener's certificate", certFile)
	if err != nil {
		return nil, err
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	type comparable interface{ Equal(crypto.PublicKey) bool }
	if public, ok := key.Public().(comparable); !ok || !public.Equal(chain[0].PublicKey) {
		return nil, fmt.Errorf("%s: it is not the key of the first certificate in %s (%q)", keyFile, certFile, chain[0].Subject)
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// readKey reads a private key.
func readKey(name string) (crypto.Signer, error) {
	text, err := readFile("a private key", name)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks(text) {
		var key any
		switch b.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(b.Bytes)
		case "RSA PRIVATE KEY":
			if b.Headers["DEK-Info"] != "" {
				return nil, fmt.Errorf("%s:%d: the key is behind a password, which nobody can type when the node starts: store it without", name, b.line)
			}
			key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, fmt.Errorf("%s:%d: the key is behind a password, which nobody can type when the node starts: store it without", name, b.line)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: the private key cannot be read: %w", name, b.line, err)
		}
		if s, ok := key.(crypto.Signer); ok {
			return s, nil
		}
		return nil, fmt.Errorf("%s:%d: a key of type %T does not sign; want one for ECDSA, RSA or Ed25519", name, b.line, key)
	}
	return nil, fmt.Errorf("%s:1: want a private key in PEM, beginning with -----BEGIN PRIVATE KEY-----", name)
}

// readAuthorities reads the authorities that vouch for clients.
func readAuthorities(name string) (*x509.CertPool, error) {
	certs, err := readCertificates("the certificates of the authorities that vouch for clients", name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}
