package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/mozzie-mqtt/mozzie/e2e/ether"
)

// network is a network between namespaces that the test makes.
type network struct {
	*ether.Network
	hosts []*host

	mu sync.Mutex // guards the hosts' routers
}

// wire is what a network is like.
type wire struct {
	prefix string // of the hosts' IPv4 addresses, a /24: "10.77.0."
	delay  time.Duration
	loss   float64
}

// host is a network namespace.
type host struct {
	*ether.Host
	router *router // what it is behind, nil for nothing
}

// newNetwork makes n namespaces on one network. It skips the test where that is not permitted.
func newNetwork(t *testing.T, n int, is wire) *network {
	t.Helper()
	need(t, "ip", "nsenter")
	seed := rand.Uint64()
	t.Logf("frames take %v, %.1f %% are lost, seed %d", is.delay, 100*is.loss, seed)
	made, err := ether.New(n, is.prefix, seed)
	if errors.Is(err, ether.ErrNotPermitted) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := made.Close(); err != nil {
			t.Error(err)
		}
	})
	made.Set(func(int, int) ether.Link { return ether.Link{Delay: is.delay, Loss: is.loss} })
	w := &network{Network: made}
	for _, h := range made.Hosts() {
		w.hosts = append(w.hosts, &host{Host: h})
	}
	made.Filter(func(from, to int, data []byte) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.hosts[from].router.out(data) && w.hosts[to].router.in(data)
	})
	return w
}

// newNode prepares a node in a host's namespace, where it listens at the usual ports.
func (h *host) newNode(t *testing.T, flags ...string) *node {
	t.Helper()
	n := newNode(t, "node at "+h.Address)
	n.prefix = h.Command()
	n.admin = filepath.Join(filepath.Dir(n.data), "admin.sock") // a path leads across namespaces
	n.mqtt = "127.0.0.1:1883"
	n.args = append([]string{"run", "--data", n.data, "--mqtt", "tcp://" + n.mqtt, "--admin", n.admin}, flags...)
	n.ask(n.admin)
	return n
}

// within has a client connect from inside the namespace.
func (h *host) within(o *mqtt.ClientOptions) {
	o.SetCustomOpenConnectionFn(func(u *url.URL, _ mqtt.ClientOptions) (conn net.Conn, err error) {
		err = h.Inside(func() (err error) {
			conn, err = net.DialTimeout("tcp", u.Host, patience)
			return err
		})
		return conn, err
	})
}

// connect5 connects an MQTT 5 client to a node from inside the namespace.
func (h *host) connect5(t testing.TB, n *node) *client5 {
	t.Helper()
	var conn net.Conn
	if err := h.Inside(func() (err error) {
		conn, err = net.DialTimeout("tcp", n.mqtt, patience)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return connect5Over(t, conn)
}

// TestNetwork has three machines, as far as they can tell, on a network that is slow and loses packets. The nodes
// find each other by multicast.
func TestNetwork(t *testing.T) {
	long(t)
	for _, private := range []bool{false, true} {
		t.Run(fmt.Sprintf("private=%v", private), func(t *testing.T) {
			w := newNetwork(t, 3, wire{prefix: "10.77.0.", delay: 20 * time.Millisecond, loss: 0.01})
			nodes := w.start(t, private)
			meet(t, nodes...)
			for i, qos := range []byte{0, 1, 2} {
				from, to := w.hosts[i], w.hosts[(i+1)%3]
				sub, pub := connect(t, nodes[(i+1)%3].mqtt, to.within), connect(t, nodes[i].mqtt, from.within)
				topic := fmt.Sprintf("network%d/x", qos)
				sub.subscribe(qos, topic)
				pub.series(topic, qos, 200)
				inOrder(t, sub.exactly(t, 200, pub.fence(topic, qos)))
			}
		})
	}
}

// start starts a node on each host. They know nothing of each other; where the swarm is private, they have its key.
func (w *network) start(t *testing.T, private bool) (nodes []*node) {
	t.Helper()
	const key = "swarm.key"
	for i, h := range w.hosts {
		flags := []string{"--listen", "/ip4/" + h.Address + "/tcp/7883"}
		if !private {
			flags = append(flags, "--open", "--listen", "/ip4/"+h.Address+"/udp/7883/quic-v1")
		}
		n := h.newNode(t, flags...)
		if private && i > 0 {
			secret, err := os.ReadFile(filepath.Join(nodes[0].data, key))
			if err == nil {
				err = errors.Join(os.MkdirAll(n.data, 0o700), os.WriteFile(filepath.Join(n.data, key), secret, 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		n.start()
		n.ready()
		nodes = append(nodes, n)
	}
	return nodes
}
