// Package ether is a switched Ethernet between network namespaces, for tests that run nodes as if each had a machine of
// its own. Every link, in each direction, takes a while, loses frames or is cut: what "tc netem" does, but without that
// kernel module, which many virtual machines lack. The switch is the process itself; each namespace has one end of a tap
// device. Only root can make one, on Linux, with the programs ip and nsenter.
//
// Goroutines: a Network has one for each host, which takes in what the host sends and exits when the tap device is
// closed, and one for each pair of hosts, which delivers and exits with the network. Close waits for all.
package ether

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Link is what a way from one host to another is like.
type Link struct {
	Delay  time.Duration // of every frame
	Jitter time.Duration // up to so much more, by chance; frames stay in order
	Loss   float64       // the part of the frames that are lost, 0 to 1
	Cut    bool          // nothing comes through
}

// Network is a switch with its hosts.
type Network struct {
	hosts []*Host
	end   chan struct{}
	wg    sync.WaitGroup

	mu     sync.Mutex
	rng    *rand.Rand
	learn  map[[6]byte]*Host // who has which Ethernet address
	links  map[[2]int]Link   // by the indexes of the hosts, from and to
	filter func(from, to int, data []byte) bool
}

// Host is a network namespace.
type Host struct {
	Name    string // of the namespace, as "ip netns" has it
	Address string // IPv4

	index int
	tap   *os.File
	to    []chan frame // by index
}

type frame struct {
	due  time.Time
	data []byte
}

const (
	tapName  = "eth0"
	maxFrame = 1514
	// switchQueue is how many frames may be under way on a link; more are lost, as on a real switch.
	switchQueue = 2048
)

// ErrNotPermitted says that this machine, or this user, may not make namespaces or tap devices.
var ErrNotPermitted = errors.New("network namespaces are not permitted here")

// New makes n namespaces on one network, with addresses from prefix+"1" on: prefix is that of a /24, such as "10.77.0.".
// The seed decides which frames are lost.
func New(n int, prefix string, seed uint64) (*Network, error) {
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("%w: by root only", ErrNotPermitted)
	}
	w := &Network{end: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, 0)), learn: map[[6]byte]*Host{}, links: map[[2]int]Link{}} //nolint:gosec // it is to be repeatable
	for i := range n {
		h := &Host{Name: fmt.Sprintf("mozzie-%d-%d", os.Getpid(), i+1), Address: fmt.Sprint(prefix, i+1), index: i}
		for range n {
			h.to = append(h.to, make(chan frame, switchQueue))
		}
		if out, err := exec.Command("ip", "netns", "add", h.Name).CombinedOutput(); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w: %s", ErrNotPermitted, err, out), w.Close())
		}
		w.hosts = append(w.hosts, h)
		if err := h.plug(); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", ErrNotPermitted, err), w.Close())
		}
		for _, args := range []string{"addr add " + h.Address + "/24 dev " + tapName, "link set lo up", "link set " + tapName + " up"} {
			if out, err := exec.Command("ip", append([]string{"-n", h.Name}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
				return nil, errors.Join(fmt.Errorf("ip %s: %w: %s", args, err, out), w.Close())
			}
		}
	}
	for _, h := range w.hosts {
		w.wg.Go(func() { w.runPort(h) })
		for _, to := range w.hosts {
			w.wg.Go(func() { w.runWire(h, to) })
		}
	}
	return w, nil
}

// Hosts returns the hosts.
func (w *Network) Hosts() []*Host { return w.hosts }

// Set says what the links from each host to each other are like from now on: from and to are indexes into Hosts.
// Links that the function is not asked for, of a host to itself, do not exist.
func (w *Network) Set(link func(from, to int) Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for from := range w.hosts {
		for to := range w.hosts {
			if from != to {
				w.links[[2]int{from, to}] = link(from, to)
			}
		}
	}
}

// Filter has a function say which frames come through, such as a router would: it is called for every frame, one at a time, with
// the indexes of the hosts. It must not call the network.
func (w *Network) Filter(through func(from, to int, data []byte) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.filter = through
}

// Command returns the words before a command that have it run in the host's namespace. The process is the command's own.
func (h *Host) Command() []string { return []string{"nsenter", "--net=/run/netns/" + h.Name} }

// plug makes the tap device inside the namespace.
func (h *Host) plug() error {
	return h.Inside(func() error {
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
			return errors.Join(fmt.Errorf("make a tap device: %w", err), unix.Close(fd))
		}
		h.tap = os.NewFile(uintptr(fd), "/dev/net/tun") //nolint:gosec // not negative
		return nil
	})
}

// Inside calls f in the namespace.
func (h *Host) Inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := os.Open(filepath.Join("/run/netns", h.Name))
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil { //nolint:gosec // a file descriptor
			done <- fmt.Errorf("enter the namespace %s: %w", h.Name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// runPort takes in what a host sends.
func (w *Network) runPort(from *Host) {
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
		to := w.learn[[6]byte(data[:6])]
		for _, h := range w.hosts {
			if h != from && (to == nil || h == to) {
				w.sendLocked(from, h, data[:n])
			}
		}
		w.mu.Unlock()
	}
}

func (w *Network) sendLocked(from, to *Host, data []byte) {
	l := w.links[[2]int{from.index, to.index}]
	if w.filter != nil && !w.filter(from.index, to.index, data) || l.Cut || l.Loss > 0 && w.rng.Float64() < l.Loss {
		return
	}
	due := time.Now().Add(l.Delay)
	if l.Jitter > 0 {
		due = due.Add(time.Duration(w.rng.Int64N(int64(l.Jitter))))
	}
	select {
	case from.to[to.index] <- frame{due, data}:
	default:
	}
}

// runWire delivers from one host to another.
func (w *Network) runWire(from, to *Host) {
	for {
		select {
		case f := <-from.to[to.index]:
			time.Sleep(time.Until(f.due)) // what the wire takes
			if _, err := to.tap.Write(f.data); err != nil && errors.Is(err, os.ErrClosed) {
				return
			}
		case <-w.end:
			return
		}
	}
}

// Close removes the namespaces. Processes in them should have ended.
func (w *Network) Close() (err error) {
	close(w.end)
	for _, h := range w.hosts {
		if h.tap != nil {
			_ = h.tap.Close() // ends runPort
		}
	}
	w.wg.Wait()
	for _, h := range w.hosts {
		if out, e := exec.Command("ip", "netns", "del", h.Name).CombinedOutput(); e != nil {
			err = errors.Join(err, fmt.Errorf("remove the namespace %s: %w: %s", h.Name, e, out))
		}
	}
	return err
}
