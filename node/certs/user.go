package certs

import (
	"crypto/x509"
	"strings"
	"unicode"
	"unicode/utf8"
)

// UserFrom is where in a client's certificate the name of the user is.
type UserFrom string

// Where the name of the user is: nowhere, in the common name, or in the first subject alternative name of a kind.
const (
	UserFromNone  UserFrom = "none"
	UserFromCN    UserFrom = "cn"
	UserFromDNS   UserFrom = "san_dns"
	UserFromEmail UserFrom = "san_email"
	UserFromURI   UserFrom = "san_uri"
)

// maxUser is the longest name that is taken from a certificate, in bytes.
const maxUser = 256

// User returns the user that a certificate names; "" where it names none, or one that no user can have.
func (f UserFrom) User(c *x509.Certificate) string {
	name := ""
	switch f {
	case UserFromCN:
		name = c.Subject.CommonName
	case UserFromDNS:
		if len(c.DNSNames) > 0 {
			name = c.DNSNames[0]
		}
	case UserFromEmail:
		if len(c.EmailAddresses) > 0 {
			name = c.EmailAddresses[0]
		}
	case UserFromURI:
		if len(c.URIs) > 0 {
			name = c.URIs[0].String()
		}
	}
	if len(name) > maxUser || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return ""
	}
	return name
}
