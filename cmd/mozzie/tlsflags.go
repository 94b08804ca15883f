package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// tlsFlags are the flags of pub, sub and bench that have to do with TLS.
type tlsFlags struct {
	tls         bool
	cafile      string
	fingerprint string
	insecure    bool
	cert, key   string
}

// tlsPort is where brokers speak TLS.
const tlsPort = 8883

func (f *tlsFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&f.tls, "tls", false, "speak TLS, at port 8883 unless -p says otherwise; the flags below imply it")
	fs.StringVar(&f.cafile, "cafile", "", "trust the certificates in `FILE` (PEM), such as a node's own tls.crt, and no others")
	fs.StringVar(&f.fingerprint, "fingerprint", "", "trust the certificate with this `SHA256` alone, as mozzie status prints it, whatever its name")
	fs.BoolVar(&f.insecure, "insecure", false, "do not check that the certificate is for the host; without --cafile, do not check it at all")
	fs.StringVar(&f.cert, "cert", "", "show the broker the certificate in `FILE` (PEM)")
	fs.StringVar(&f.key, "key", "", "its private key, in `FILE` (PEM)")
}

// config returns how TLS is spoken to a host; nil: it is not.
func (f *tlsFlags) config(host string) (*tls.Config, error) {
	if !f.tls && f.cafile == "" && f.fingerprint == "" && !f.insecure && f.cert == "" && f.key == "" {
		return nil, nil
	}
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if (f.cert == "") != (f.key == "") {
		return nil, usagef("--cert and --key belong together: give both")
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, usagef("--cert, --key: %v", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if f.cafile != "" {
		text, err := os.ReadFile(f.cafile)
		if err != nil {
			return nil, usagef("--cafile: %v", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, usagef("--cafile %s: there is no certificate in it; want PEM", f.cafile)
		}
	}
	if f.fingerprint != "" {
		want, err := hex.DecodeString(strings.ReplaceAll(f.fingerprint, ":", ""))
		if err != nil || len(want) != sha256.Size {
			return nil, usagef("--fingerprint %s: want the SHA-256 of a certificate in hex, 64 digits with colons or without", f.fingerprint)
		}
		c.InsecureSkipVerify = true // the fingerprint says it all
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if sum := sha256.Sum256(s.PeerCertificates[0].Raw); !bytes.Equal(sum[:], want) {
				return fmt.Errorf("the broker's certificate is another one: its SHA-256 is %x", sum)
			}
			return nil
		}
		return c, nil
	}
	if f.insecure {
		c.InsecureSkipVerify = true //nolint:gosec // as asked for
		if c.RootCAs != nil {
			c.VerifyConnection = f.trusts(c.RootCAs)
		}
	}
	return c, nil
}

// trusts checks a certificate but for the name of the host.
func (f *tlsFlags) trusts(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("the broker shows no certificate")
		}
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
		return err
	}
}
