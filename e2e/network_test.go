package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"golang.org/x/sys/unix"
)

// network is a switched Ethernet between network namespaces that the test makes. Every frame takes a while, and
// some are lost: what "tc netem" does on a bridge, but without that kernel module. The switch is the test itself;
// each namespace has one end of a tap device.
type network struct {
	wire
	t     testing.TB
	hosts []*host
	end   chan struct{}
	wg    sync.WaitGroup

	mu    sync.Mutex
	rng   *rand.Rand
	learn map[[6]byte]*host // who has which Ethernet address
}

// wire is what a network is like.
type wire struct {
	prefix string // of the hosts' IPv4 addresses, a /24: "10.77.0."
	delay  time.Duration
	loss   float64
}

// host is a network namespace.
type host struct {
	name    string  // of the namespace
	address string  // IPv4
	router  *router // what it is behind, nil for nothing
	tap     *os.File
	queue   chan frame // to this host
}

type frame struct {
	due  time.Time
	data []byte
}

const (
	tapName  = "eth0"
	maxFrame = 1514
	// switchQueue is how many frames may be under way to a host; more are lost, as on a real switch.
	switchQueue = 4096
)

// newNetwork makes n namespaces on one network. It skips the test where that is not permitted.
func newNetwork(t *testing.T, n int, is wire) *network {
	t.Helper()
	need(t, "ip", "nsenter")
	if os.Getuid() != 0 {
		t.Skip("network namespaces are made by root only")
	}
	seed := rand.Uint64()
	t.Logf("frames take %v, %.1f %% are lost, seed %d", is.delay, 100*is.loss, seed)
	w := &network{wire: is, t: t, end: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, 0)), learn: map[[6]byte]*host{}}
	t.Cleanup(w.close)
	for i := range n {
		h := &host{name: fmt.Sprintf("mozzie-%d-%d", os.Getpid(), i+1), address: fmt.Sprint(is.prefix, i+1), queue: make(chan frame, switchQueue)}
		if out, err := exec.Command("ip", "netns", "add", h.name).CombinedOutput(); err != nil {
			t.Skipf("this machine does not let the test make network namespaces: %v: %s", err, out)
		}
		w.hosts = append(w.hosts, h)
		if err := h.plug(); err != nil {
			t.Skipf("this machine does not let the test make a tap device: %v", err)
		}
		for _, args := range []string{"addr add " + h.address + "/24 dev " + tapName, "link set lo up", "link set " + tapName + " up"} {
			if out, err := exec.Command("ip", append([]string{"-n", h.name}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v: %s", args, err, out)
			}
		}
	}
	for _, h := range w.hosts {
		w.wg.Go(func() { w.runPort(h) })
		w.wg.Go(func() { w.runWire(h) })
	}
	return w
}

// plug makes the tap device inside the namespace.
func (h *host) plug() error {
	return h.inside(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		ifr, err := unix.NewIfreq(tapName)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		h.tap = os.NewFile(uintptr(fd), "/dev/net/tun") //nolint:gosec // not negative
		return nil
	})
}

// inside calls f in the namespace.
func (h *host) inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := os.Open(filepath.Join("/run/netns", h.name))
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil { //nolint:gosec // a file descriptor
			done <- fmt.Errorf("enter the namespace %s: %w", h.name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// runPort takes in what a host sends.
func (w *network) runPort(from *host) {
	for {
		data := make([]byte, maxFrame)
		n, err := from.tap.Read(data)
		if err != nil {
			return // closed
		}
		if n < 14 {
			continue
		}
		w.mu.Lock()
		w.learn[[6]byte(data[6:12])] = from
		to, out := w.learn[[6]byte(data[:6])], from.router.out(data[:n])
		for _, h := range w.hosts {
			if out && h != from && (to == nil || h == to) && h.router.in(data[:n]) && w.rng.Float64() >= w.loss {
				select {
				case h.queue <- frame{time.Now().Add(w.delay), data[:n]}:
				default:
				}
			}
		}
		w.mu.Unlock()
	}
}

// runWire delivers to a host.
func (w *network) runWire(to *host) {
	for {
		select {
		case f := <-to.queue:
			time.Sleep(time.Until(f.due)) // what the wire takes
			if _, err := to.tap.Write(f.data); err != nil && errors.Is(err, os.ErrClosed) {
				return
			}
		case <-w.end:
			return
		}
	}
}

func (w *network) close() {
	close(w.end)
	for _, h := range w.hosts {
		if h.tap != nil {
			_ = h.tap.Close() // ends runPort
		}
	}
	w.wg.Wait()
	for _, h := range w.hosts {
		if out, err := exec.Command("ip", "netns", "del", h.name).CombinedOutput(); err != nil {
			w.t.Errorf("remove the namespace %s: %v: %s", h.name, err, out)
		}
	}
}

// newNode prepares a node in a host's namespace, where it listens at the usual ports.
func (h *host) newNode(t *testing.T, flags ...string) *node {
	t.Helper()
	n := newNode(t, "node at "+h.address)
	n.prefix = []string{"nsenter", "--net=/run/netns/" + h.name}
	n.admin = filepath.Join(filepath.Dir(n.data), "admin.sock") // a path leads across namespaces
	n.mqtt = "127.0.0.1:1883"
	n.args = append([]string{"run", "--data", n.data, "--mqtt", "tcp://" + n.mqtt, "--admin", n.admin}, flags...)
	n.ask(n.admin)
	return n
}

// within has a client connect from inside the namespace.
func (h *host) within(o *mqtt.ClientOptions) {
	o.SetCustomOpenConnectionFn(func(u *url.URL, _ mqtt.ClientOptions) (conn net.Conn, err error) {
		err = h.inside(func() (err error) {
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
	if err := h.inside(func() (err error) {
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
		flags := []string{"--listen", "/ip4/" + h.address + "/tcp/7883"}
		if !private {
			flags = append(flags, "--open", "--listen", "/ip4/"+h.address+"/udp/7883/quic-v1")
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
