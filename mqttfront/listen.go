package mqttfront

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// ListenerConfig is one place that clients connect to, and its rules.
type ListenerConfig struct {
	// URL is tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST:PORT/PATH, where the port may be 0,
	// or unix://PATH. Without a path, WebSocket is at /mqtt and /.
	URL string
	// Anonymous takes clients that do not say who they are.
	Anonymous bool
	// MaxConnections is the number of connections at a time; 0: no limit but the node's.
	MaxConnections int
	// Proxies, where there are any, are the only ones that may connect. Each connection has to begin with a header of
	// version 2 of the PROXY protocol, which says who the client is.
	Proxies []netip.Prefix
	// TLS is how tls:// and wss:// are served. Where it asks for certificates, it verifies them.
	TLS *tls.Config
	// UserOf returns the user that a client's certificate names, "" where it names none; nil: certificates name nobody.
	UserOf func(*x509.Certificate) string
	// Trusts reports whether what a client has shown, its own certificate first, would be accepted now. It is asked when
	// Broker.RecheckCertificates is called; nil: what was accepted stays so.
	Trusts func(shown []*x509.Certificate) bool
	// Mount stands before all topics of the listener's clients, who do not see it: levels with a / behind each.
	Mount string
	// Origins are the host patterns that web pages may come from, beside the listener's own host.
	Origins []string
}

// listener is something that connections come from.
type listener struct {
	ListenerConfig

	b    *Broker
	l    net.Listener
	web  bool
	path string   // of the WebSocket
	many *Refusal // what is said at MaxConnections
	once sync.Once

	places int // guarded by registry.reg
}

// Listen begins to accept clients at a TCP port. It returns the address that they can connect to.
func (b *Broker) Listen(lc ListenerConfig) (net.Addr, error) {
	u, err := url.Parse(lc.URL)
	if err != nil {
		return nil, fmt.Errorf("MQTT listener %q: %w", lc.URL, err)
	}
	switch u.Scheme {
	case "tcp", "tls", "ws", "wss":
	default:
		return nil, fmt.Errorf("MQTT listener %q: scheme %q is not known, tcp://, tls://, ws:// and wss:// are", lc.URL, u.Scheme)
	}
	if u.Port() == "" {
		return nil, fmt.Errorf("MQTT listener %q: the port is missing", lc.URL)
	}
	l, err := net.Listen("tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("MQTT listener %q: %w", lc.URL, err)
	}
	if err := b.Serve(l, lc); err != nil {
		l.Close()
		return nil, err
	}
	return l.Addr(), nil
}

// Serve begins to accept clients from l, which may be anything that brings byte streams. The URL says what is spoken
// over them, plain MQTT where it has no scheme that is known. The broker closes l.
func (b *Broker) Serve(l net.Listener, lc ListenerConfig) error {
	ln := &listener{ListenerConfig: lc, b: b, l: l,
		many: refuse(ReasonQuotaExceeded, "this listener takes at most %d connections", lc.MaxConnections)}
	if u, err := url.Parse(lc.URL); err == nil {
		switch u.Scheme {
		case "ws", "wss":
			ln.web, ln.path = true, u.Path
		}
		if secure := u.Scheme == "tls" || u.Scheme == "wss"; secure != (lc.TLS != nil) {
			return fmt.Errorf("MQTT listener %q: TLS belongs to tls:// and wss://, and they need it", lc.URL)
		}
	}
	if err := b.addListener(ln); err != nil {
		return err
	}
	b.wg.Go(ln.runAccept)
	return nil
}

func (b *Broker) addListener(l *listener) error {
	b.reg.Lock()
	defer b.reg.Unlock()
	if b.draining {
		return errDraining
	}
	b.listeners[l] = struct{}{}
	return nil
}

// enter counts a goroutine that the broker did not start, unless it is too late.
func (b *Broker) enter() bool {
	b.reg.Lock()
	defer b.reg.Unlock()
	if !b.draining {
		b.wg.Add(1)
	}
	return !b.draining
}

func (l *listener) close() {
	l.once.Do(func() { l.l.Close() })
}

// runAccept accepts connections until the listener is closed. Other errors, such as running out of file
// descriptors, are waited out.
func (l *listener) runAccept() {
	const most = time.Second
	pause := time.Duration(0)
	for {
		nc, err := l.l.Accept()
		if err == nil {
			pause = 0
			l.b.wg.Go(func() { l.b.runConn(nc, l) })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		l.b.stats.AcceptErrors.Add(1)
		pause = min(max(2*pause, 5*time.Millisecond), most)
		l.b.log.Warn("accepting a client", "listener", l.URL, "error", err, "retry_in", pause)
		select {
		case <-l.b.stopped:
			return
		case <-time.After(pause):
		}
	}
}

// openAside is open. TLS and HTTP take a deep stack, which a goroutine keeps for long once it has it: so theirs is another's,
// which ends.
func (l *listener) openAside(c *conn) (over *Refusal, counter *atomic.Uint64, err error) {
	if l.TLS == nil && !l.web {
		return l.open(c)
	}
	done := make(chan struct{})
	runOpening := func() {
		defer close(done)
		over, counter, err = l.open(c)
	}
	l.b.wg.Go(runOpening)
	<-done
	return over, counter, err
}

// open does what comes before MQTT on a new connection: the header of the PROXY protocol, TLS, WebSocket. It is bound
// by the deadline of the connection, which has a place before. A refusal is for the client to read, an error is not and
// has its counter, unless it is a proxy's own connection: it only looks whether we are there.
func (l *listener) open(c *conn) (over *Refusal, counter *atomic.Uint64, err error) {
	st := l.b.stats
	badTLS, badWeb := &st.BadHandshakes, &st.BadUpgrades
	if len(l.Proxies) > 0 {
		client, err := readProxyHeader(c.raw, l.Proxies)
		if err != nil {
			return nil, &st.BadProxy, fmt.Errorf("PROXY protocol: %w", err)
		}
		if client == nil {
			badTLS, badWeb = nil, nil
		} else if c.remote = client; !c.refused {
			over = l.b.admitHost(c)
		}
	}
	if l.TLS != nil {
		if err := c.handshake(l); err != nil {
			return nil, badTLS, fmt.Errorf("TLS: %w", err)
		}
	}
	if l.web {
		if err := c.upgrade(l); err != nil {
			return nil, badWeb, fmt.Errorf("WebSocket: %w", err)
		}
	}
	return over, nil, nil
}

// speakOver says what MQTT is spoken over from here on.
func (c *conn) speakOver(nc net.Conn) {
	c.mu.Lock()
	c.nc = nc
	c.mu.Unlock()
}

// tlsConn is a connection by TLS. Close cuts it: saying goodbye first could wait for a peer that does not read.
type tlsConn struct {
	*tls.Conn
	beneath *beneath
}

func (c *tlsConn) Close() error { return c.beneath.Close() }

// readNow reads what has come without waiting, from the socket fd, which is the one beneath.
func (c *tlsConn) readNow(fd int, b []byte) (int, error) {
	c.beneath.fd = fd
	defer func() { c.beneath.fd = noFD }()
	return c.Read(b)
}

// beneath is the connection beneath TLS. Only one goroutine reads.
type beneath struct {
	net.Conn
	fd int // the socket's, while reading must not wait; else noFD
}

const noFD = -1

// Read implements net.Conn.
func (u *beneath) Read(b []byte) (int, error) {
	if u.fd == noFD {
		return u.Conn.Read(b)
	}
	return readNow(u.fd, b)
}

// errNothingYet says that one would have to wait for more. For TLS it is as a deadline is: it takes no harm, and goes on
// where it was.
var errNothingYet error = nothingYet{}

type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing has come yet" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }

// handshake sets TLS up, and notes whom the client's certificate names.
func (c *conn) handshake(l *listener) error {
	c.trusts = c.b.trusts.Load()
	under := &beneath{c.raw, noFD}
	tc := tls.Server(under, l.TLS)
	if err := tc.Handshake(); err != nil {
		return err
	}
	s := tc.ConnectionState()
	c.shown = s.PeerCertificates
	if len(s.VerifiedChains) > 0 && l.UserOf != nil {
		c.certUser = l.UserOf(s.PeerCertificates[0])
		if c.certUser == "" {
			c.noCertUser = true
		}
	}
	c.speakOver(&tlsConn{tc, under})
	return nil
}
