package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/certs"
	"github.com/mozzie-mqtt/mozzie/node/config"
	"github.com/mozzie-mqtt/mozzie/node/unixsock"
)

// listener is a place that clients connect to, as it is while the node runs.
type listener struct {
	url  string // with the port that was taken
	from config.Listener
	tls  *certs.Listener // nil: without
}

// listen begins to serve clients at every listener of the configuration.
func (n *Node) listen() error {
	n.clock = certs.NewClock(n.dir)
	n.certs = certs.NewKeeper(n.dir, n.clock)
	if n.clock.Wrong() {
		n.log.Warn("the clock of this machine is before this program was made: certificates of clients are checked as of the latest time that the node knows of",
			"clock_says", time.Now(), "checked_as_of", n.clock.Now())
	}
	for _, l := range n.cfg.MQTT.Listeners {
		at, err := n.serve(l)
		if err != nil {
			return err
		}
		n.listeners = append(n.listeners, at)
		if l.Anonymous == config.Yes {
			n.log.Warn("anybody who reaches this listener may connect", "listener", at.url)
		}
		if l.Plaintext {
			n.log.Warn("whoever is between clients and this listener can read passwords and messages", "listener", at.url)
		}
		if at.tls != nil {
			n.log.Info("TLS for clients", "listener", at.url, "certificate", orOwn(l.Certificate, n.dir.Path(certs.OwnCertificate)), "sha256", at.tls.Fingerprint())
		}
	}
	n.reloadables = append(n.reloadables, reloadable{"certificates", n.readCertificates})
	return nil
}

func orOwn(file, own string) string {
	if file == "" {
		return own
	}
	return file
}

// serve begins to serve clients at one listener.
func (n *Node) serve(l config.Listener) (listener, error) {
	at := listener{url: l.URL, from: l}
	lc := mqttfront.ListenerConfig{
		URL: l.URL, Anonymous: l.AllowsAnonymous(), MaxConnections: l.MaxConnections, Mount: l.Mount, Proxies: l.Proxies(), Origins: l.Origins,
	}
	if len(l.Origins) == 0 {
		lc.Origins = n.cfg.MQTT.WebSocketOrigins
	}
	if l.Secure() {
		tls, err := n.certs.Listener(certs.Files{Certificate: l.Certificate, Key: l.Key, ClientCA: l.ClientCA,
			Optional: l.ClientCertificate == config.OptionalCertificate})
		if err != nil {
			return at, fmt.Errorf("listen for MQTT clients at %s: %w", l.URL, err)
		}
		at.tls, lc.TLS, lc.Trusts = tls, tls.Config(), tls.Trusts
		if from := certs.UserFrom(l.UserFrom); from != certs.UserFromNone {
			lc.UserOf = from.User
		}
	}
	b := n.broker.Load()
	if path, ok := l.Socket(); ok {
		socket, err := unixsock.Listen(path, l.SocketMode())
		if err != nil {
			return at, explainListen(l.URL, err)
		}
		if err := b.Serve(socket, lc); err != nil {
			socket.Close()
			return at, fmt.Errorf("listen for MQTT clients: %w", err)
		}
		return at, nil
	}
	addr, err := b.Listen(lc)
	if err != nil {
		return at, explainListen(l.URL, err)
	}
	u, err := url.Parse(l.URL)
	if err != nil {
		return at, fmt.Errorf("listener %q: %w", l.URL, err)
	}
	u.Host = addr.String()
	at.url = u.String()
	return at, nil
}

// readCertificates reads the certificates of all listeners again. Who would not be let in with them does not stay.
func (n *Node) readCertificates() (func(), error) {
	use, err := n.certs.Read()
	if err != nil {
		return nil, err
	}
	return func() { use(); n.broker.Load().RecheckCertificates() }, nil
}

// listenerStatus is what a listener tells of itself.
func (n *Node) listenerStatus() (urls []string, all []admin.Listener) {
	for _, l := range n.listeners {
		s := admin.Listener{URL: l.url, Anonymous: l.from.AllowsAnonymous(), Mount: l.from.Mount}
		if l.tls != nil {
			s.Fingerprint, s.OwnCertificate = l.tls.Fingerprint(), l.tls.Own()
		}
		urls, all = append(urls, l.url), append(all, s)
	}
	return urls, all
}

// explainListen words why there can be no listener for the person who asked for it.
func explainListen(at string, err error) error {
	var unknown *net.DNSError
	switch {
	case errors.Is(err, unixsock.ErrNoSocket):
		return fmt.Errorf("listen for MQTT clients at %s: something that is no socket is in the way: choose another path with --mqtt", at)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen for MQTT clients at %s: the address is in use, perhaps by another node or broker: "+
			"stop that, or choose another with --mqtt (port 0 for any free one)", at)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("listen for MQTT clients at %s: no permission for user %d: choose a port above 1023, or for a socket a directory of this user's, with --mqtt", at, os.Getuid())
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("listen for MQTT clients at %s: the directory of the socket is not there: make it, or choose another path with --mqtt", at)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen for MQTT clients at %s: this machine has no such address: choose one of its own with --mqtt, or 0.0.0.0 for all", at)
	case errors.As(err, &unknown):
		return fmt.Errorf("listen for MQTT clients at %s: the name %q is not known: choose an address of this machine with --mqtt", at, unknown.Name)
	}
	return fmt.Errorf("listen for MQTT clients: %w", err)
}
