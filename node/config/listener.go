package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mozzie-mqtt/mozzie/node/strict"
)

// Choice is yes or no, or left to what is usual.
type Choice int8

// The values of a Choice.
const (
	Unset Choice = iota
	Yes
	No
)

// Or returns the choice; standard where none was made.
func (c Choice) Or(standard bool) bool {
	if c == Unset {
		return standard
	}
	return c == Yes
}

func parseChoice(s string) (Choice, error) {
	yes, err := parseBool(s)
	if yes {
		return Yes, err
	}
	return No, err
}

// NewListener returns a listener of which nothing was said but where it is.
func NewListener(at string) Listener {
	return Listener{URL: at, ClientCertificate: RequiredCertificate, UserFrom: "cn", Mode: "0660"}
}

// changed returns what of a listener is not as it is by default.
func (l Listener) changed() (all []leaf) {
	standard := NewListener(l.URL)
	have, usual := reflect.ValueOf(l), reflect.ValueOf(standard)
	for i := range have.NumField() {
		f := have.Field(i)
		if f.Kind() == reflect.Slice && f.Len() == 0 || reflect.DeepEqual(f.Interface(), usual.Field(i).Interface()) {
			continue
		}
		all = append(all, leaf{have.Type().Field(i).Tag.Get("yaml"), f})
	}
	return all
}

// listenerWant says what a listener looks like.
const listenerWant = "want tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH, wss://HOST:PORT/PATH or unix:///PATH"

// parseListener reads a listener from a URL, with the options in its query.
func parseListener(s string) (Listener, error) {
	base, query, _ := strings.Cut(s, "?")
	l := NewListener(base)
	options, err := url.ParseQuery(query)
	if err != nil {
		return l, fmt.Errorf("%q: the options behind the ? cannot be read: %v", s, err)
	}
	names := strict.KeysOf(reflect.TypeFor[Listener]())[1:] // without url
	for name, values := range options {
		f := strict.FieldNamed(reflect.ValueOf(&l).Elem(), name)
		if !f.IsValid() || name == "url" {
			return l, fmt.Errorf("%q: unknown option %q; %s", s, name, strict.Suggest(name, names))
		}
		if f.Kind() == reflect.Slice {
			f.Set(reflect.ValueOf(values))
			continue
		}
		if err := setText(values[len(values)-1], f); err != nil {
			return l, fmt.Errorf("%q: %s: %v", s, name, err)
		}
	}
	return l, nil
}

// listenerHint guesses what was meant by what is no listener's URL: a port, or an address without a scheme.
func listenerHint(s string) string {
	if filepath.IsAbs(s) {
		return "did you mean unix://" + s + "?"
	}
	if checkPort(s) == nil {
		s = "127.0.0.1:" + s
	}
	if host, port, ok := cutPort(s); ok && checkPort(port) == nil && !strings.ContainsAny(host, "/?#@ ") {
		return "did you mean tcp://" + s + "?"
	}
	return listenerWant
}

// sameScheme has the schemes that others have for what ours are.
var sameScheme = map[string]string{"mqtt": "tcp", "mqtts": "tls", "ssl": "tls", "tcps": "tls", "http": "ws", "https": "wss"}

// Scheme returns the scheme of the listener's URL: what is spoken there.
func (l Listener) Scheme() string {
	scheme, _, _ := strings.Cut(l.URL, "://")
	return scheme
}

// Secure reports whether the listener speaks TLS.
func (l Listener) Secure() bool { return l.Scheme() == "tls" || l.Scheme() == "wss" }

// Socket returns the path of the listener's Unix socket; ok is false where it has none.
func (l Listener) Socket() (path string, ok bool) {
	return strings.CutPrefix(l.URL, "unix://")
}

// SocketMode returns the mode of the listener's Unix socket.
func (l Listener) SocketMode() fs.FileMode {
	mode, _ := strconv.ParseUint(l.Mode, 8, 9) // Validate has seen it
	return fs.FileMode(mode)
}

// Local reports whether the listener can be reached from this machine only.
func (l Listener) Local() bool {
	if _, ok := l.Socket(); ok {
		return true
	}
	u, err := url.Parse(l.URL)
	return err == nil && isLoopback(u.Hostname())
}

// AllowsAnonymous reports whether clients may connect that do not say who they are.
func (l Listener) AllowsAnonymous() bool { return l.Anonymous.Or(l.Local() && l.ClientCA == "") }

// Proxies returns the networks of the load balancers, none where there is no PROXY protocol.
func (l Listener) Proxies() []netip.Prefix {
	if !l.ProxyProtocol {
		return nil
	}
	if len(l.ProxyFrom) == 0 {
		return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	var all []netip.Prefix
	for _, s := range l.ProxyFrom {
		if p, err := parsePrefix(s); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// parsePrefix reads a network, or an address.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.Unmap().Prefix(a.Unmap().BitLen())
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("want addresses and networks such as 10.1.2.3 or 10.1.0.0/16, not %q", s)
	}
	return p.Masked(), nil
}

// check says what is wrong with a listener, and with which option of it; "url" for the whole.
func (l Listener) check() (option string, err error) {
	for _, o := range l.changed() {
		if text := fmt.Sprint(o.value.Interface()); !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			return o.key, fmt.Errorf("%s: %q has characters that nobody can see", o.key, text)
		}
	}
	if !utf8.ValidString(l.URL) || strings.ContainsFunc(l.URL, unicode.IsControl) {
		return "url", fmt.Errorf("%q has characters that nobody can see", l.URL)
	}
	if err := l.checkURL(); err != nil {
		return "url", err
	}
	if option, err := l.checkFit(); err != nil {
		return option, err
	}
	for _, s := range l.ProxyFrom {
		if _, err := parsePrefix(s); err != nil {
			return "proxy_from", err
		}
	}
	if l.MaxConnections < 0 || int64(l.MaxConnections) > maxCount {
		return "max_connections", fmt.Errorf("want 0 to %d, not %d", int64(maxCount), l.MaxConnections)
	}
	for _, file := range []struct{ option, path string }{{"certificate", l.Certificate}, {"key", l.Key}, {"client_ca", l.ClientCA}} {
		if file.path != "" && !filepath.IsAbs(file.path) {
			return file.option, fmt.Errorf("want the absolute path of a PEM file, not %q", file.path)
		}
	}
	switch l.ClientCertificate {
	case RequiredCertificate, OptionalCertificate:
	default:
		return "client_certificate", fmt.Errorf("want %s or %s, not %q", RequiredCertificate, OptionalCertificate, l.ClientCertificate)
	}
	switch l.UserFrom {
	case "none", "cn", "san_dns", "san_email", "san_uri":
	default:
		return "user_from", fmt.Errorf("want cn, san_dns, san_email, san_uri or none, not %q", l.UserFrom)
	}
	if mode, err := strconv.ParseUint(l.Mode, 8, 9); err != nil || mode&0o600 != 0o600 {
		return "mode", fmt.Errorf("want a mode in octal that lets the node itself read and write, such as 0660 or 0666, not %q", l.Mode)
	}
	return "mount", checkMount(l.Mount)
}

// checkURL says what is wrong with the URL by itself, and where it may be reached from.
func (l Listener) checkURL() error {
	u, err := url.Parse(l.URL)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return fmt.Errorf("%q is not a listener's URL; %s", l.URL, listenerHint(l.URL))
	}
	switch u.Scheme {
	case "tcp", "tls":
		if u.Path != "" {
			return fmt.Errorf("%q: a %s:// listener has no path; want %s://HOST:PORT", l.URL, u.Scheme, u.Scheme)
		}
	case "ws", "wss":
	case "unix":
		if path, _ := l.Socket(); !filepath.IsAbs(path) || len(path) > 100 {
			return fmt.Errorf("%q: want the absolute path of a socket, of at most 100 bytes, such as unix:///run/mozzie/mqtt.sock", l.URL)
		}
		return nil
	default:
		want := listenerWant
		if ours := sameScheme[u.Scheme]; ours != "" {
			want = "did you mean " + ours + strings.TrimPrefix(l.URL, u.Scheme) + "?"
		}
		return fmt.Errorf("%q: listeners of kind %q are not known; %s", l.URL, u.Scheme, want)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q: a listener's URL has only a host, a port and a path; %s", l.URL, listenerWant)
	}
	if err := checkPort(u.Port()); err != nil {
		return fmt.Errorf("%q: %v; %s", l.URL, err, listenerWant)
	}
	if !l.Secure() && !l.Local() && !l.Plaintext && l.Anonymous != Yes {
		secure := map[string]string{"tcp": "tls", "ws": "wss"}[u.Scheme] + strings.TrimPrefix(l.URL, u.Scheme)
		return fmt.Errorf("%q can be reached from beyond this machine, and passwords would go there in clear: listen at %s, which needs no "+
			"more than that, or say that you want this with \"plaintext: true\", or, for clients without a password, with "+
			"\"anonymous: true\" (?plaintext=true or ?anonymous=true behind the URL)", l.URL, secure)
	}
	return nil
}

// checkFit says which option does not belong to this kind of listener.
func (l Listener) checkFit() (option string, err error) {
	_, unix := l.Socket()
	web := l.Scheme() == "ws" || l.Scheme() == "wss"
	for _, o := range l.changed() {
		switch {
		case !l.Secure() && (o.key == "certificate" || o.key == "key" || o.key == "client_ca" || o.key == "client_certificate" || o.key == "user_from"):
			return o.key, fmt.Errorf("%s is for tls:// and wss:// listeners, not for %s", o.key, l.URL)
		case !web && o.key == "origins":
			return o.key, fmt.Errorf("origins are for ws:// and wss:// listeners, not for %s", l.URL)
		case !unix && o.key == "mode":
			return o.key, fmt.Errorf("a mode is for unix:// listeners, not for %s", l.URL)
		case (unix || l.Secure()) && o.key == "plaintext":
			return o.key, fmt.Errorf("plaintext is for tcp:// and ws:// listeners, not for %s", l.URL)
		case l.ClientCA == "" && (o.key == "client_certificate" || o.key == "user_from"):
			return o.key, fmt.Errorf("%s needs the authorities whose certificates clients show: add client_ca", o.key)
		case !l.ProxyProtocol && o.key == "proxy_from":
			return o.key, errors.New("proxy_from is for listeners with proxy_protocol: true")
		}
	}
	switch {
	case l.Certificate != "" && l.Key == "":
		return "certificate", errors.New("a certificate needs its private key: add key")
	case l.Key != "" && l.Certificate == "":
		return "key", errors.New("a private key needs its certificate: add certificate")
	}
	return "", nil
}

// maxMount is the longest mount, in bytes: it is taken off the length that topics may have.
const maxMount = 1024

// checkMount says what is wrong with a mount.
func checkMount(s string) error {
	switch {
	case s == "":
		return nil
	case !strings.HasSuffix(s, "/"), strings.ContainsAny(s, "+#\x00"), s[0] == '$', s[0] == '@', strings.Contains(s, "/@"), len(s) > maxMount:
		return fmt.Errorf("want levels of topics with a / behind each, such as site1/ (no wildcards, no $ at the start, no @ before a level, "+
			"at most %d bytes), not %q", maxMount, s)
	}
	return nil
}
