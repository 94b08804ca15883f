package certs

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// FuzzFiles reads what the files of a certificate and its key may have in them: crypto/tls takes what we take, what is
// refused is refused with the file and the line, and the user that any certificate names is one that a log can show.
func FuzzFiles(f *testing.F) {
	data := openDir(f, filepath.Join(f.TempDir(), "data"))
	k := NewKeeper(data, NewClock(data))
	var files [2]string
	if err := k.makeOwn(); err != nil {
		f.Fatal(err)
	}
	for i, name := range []string{OwnCertificate, OwnKey} {
		text, err := os.ReadFile(data.Path(name))
		if err != nil {
			f.Fatal(err)
		}
		files[i] = string(text)
	}
	cert, key := files[0], files[1]
	f.Add(cert, key)
	f.Add("Subject: CN=x\n"+cert+cert, "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"+key)
	f.Add(strings.ReplaceAll(cert, "\n", "\r\n"), key[:60])
	f.Add(cert[:100]+"\n"+cert, strings.ReplaceAll(key, "PRIVATE", "ENCRYPTED PRIVATE"))
	f.Add(key, cert)
	f.Add("", "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: AES-128-CBC,00\n\nAA==\n-----END RSA PRIVATE KEY-----\n")
	place := regexp.MustCompile(`/[ck]:[1-9][0-9]*: |/k: it is not the key of`)
	f.Fuzz(func(t *testing.T, cert, key string) {
		dir := t.TempDir()
		certFile, keyFile := filepath.Join(dir, "c"), filepath.Join(dir, "k")
		for name, text := range map[string]string{certFile: cert, keyFile: key} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		pair, err := readPair(certFile, keyFile)
		switch theirs, problem := tls.X509KeyPair([]byte(cert), []byte(key)); {
		case err != nil && !place.MatchString(err.Error()):
			t.Errorf("%v names no line", err)
		case err == nil && (problem != nil || !theirs.Leaf.Equal(pair.Leaf) || len(theirs.Certificate) != len(pair.Certificate)):
			t.Errorf("%q, %q are taken; crypto/tls: %v", cert, key, problem)
		}
		certs, err := readCertificates("it", certFile)
		if (err == nil) != (len(certs) > 0) {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
		for _, c := range certs {
			judgeUser(t, c)
		}
	})
}

func judgeUser(t *testing.T, c *x509.Certificate) {
	t.Helper()
	for _, from := range []UserFrom{UserFromNone, UserFromCN, UserFromDNS, UserFromEmail, UserFromURI} {
		if u := from.User(c); len(u) > maxUser || strings.ContainsFunc(u, unicode.IsControl) || from == UserFromNone && u != "" {
			t.Errorf("%s: %q", from, u)
		}
	}
}
