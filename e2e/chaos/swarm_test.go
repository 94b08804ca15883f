package chaos

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mozzie-mqtt/mozzie/e2e/ether"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

const (
	// stopLimit is how long a node may take to stop: the 10 s that it promises, and what the machine takes.
	stopLimit = 14 * time.Second
	swarmKey  = "swarm.key"
)

// swarm is the nodes, and the network between them. Clients reach each node by a Unix socket, whatever the network is like.
type swarm struct {
	o       Options
	history *History
	network *ether.Network
	nodes   []*node // by number; the first is nil. Those that may join are there from the start
	running sync.WaitGroup
	cancel  context.CancelFunc

	mu     sync.Mutex
	faults map[int]Step // going on, by ID
	count  int          // of faults so far
	joined int          // nodes that are part of the swarm: the first so many
}

// node is a node, which may run or not. Whoever starts and stops it holds mu.
type node struct {
	number int
	swarm  *swarm
	host   *ether.Host
	dir    string // of data, log and sockets
	mqtt   string // path of the socket for clients
	api    *admin.Client
	http   *http.Client // to the administration API

	mu      sync.Mutex
	process *exec.Cmd
	exited  chan struct{} // closed when the process is gone

	ends   sync.Mutex
	ending bool // it is to end
}

// startSwarm starts the nodes and returns when they have met.
func startSwarm(ctx context.Context, o Options, h *History) (*swarm, error) {
	network, err := ether.New(o.Nodes+joiners, "10.78.0.", o.Seed)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &swarm{o: o, history: h, network: network, nodes: []*node{nil}, cancel: cancel, faults: map[int]Step{}, joined: o.Nodes}
	for i, host := range network.Hosts() {
		n := &node{number: i + 1, swarm: s, host: host}
		if n.dir, err = o.mkdir(fmt.Sprint("node", i+1)); err != nil {
			return nil, errors.Join(err, s.close())
		}
		if err = n.setClock(0); err != nil {
			return nil, errors.Join(err, s.close())
		}
		n.mqtt = filepath.Join(n.dir, "mqtt.sock")
		if n.api, err = admin.NewClient(n.admin()); err != nil {
			return nil, errors.Join(err, s.close())
		}
		n.http = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", n.admin()) }}}
		s.nodes = append(s.nodes, n)
	}
	for i := range o.Nodes {
		if err := s.add(s.nodes[i+1]); err != nil {
			return nil, errors.Join(err, s.close())
		}
		if i == 0 { // which makes the swarm's key
			if err := s.until("the first node is ready", patience, func() error { _, err := s.nodes[1].ready(); return err }); err != nil {
				return nil, errors.Join(err, s.close())
			}
		}
	}
	if err := s.until("the nodes have met", patience, s.whole); err != nil {
		return nil, errors.Join(err, s.close())
	}
	h.Add(Event{Kind: Whole})
	s.running.Go(func() { s.runWatch(ctx) })
	return s, nil
}

// add starts a node that has never run, with the swarm's key.
func (s *swarm) add(n *node) error {
	if n.number > 1 {
		key, err := os.ReadFile(filepath.Join(s.nodes[1].dir, "data", swarmKey))
		if err == nil {
			err = os.MkdirAll(filepath.Join(n.dir, "data"), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(n.dir, "data", swarmKey), key, 0o600)
		}
		if err != nil {
			return fmt.Errorf("give node %d the swarm's key: %w", n.number, err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.start()
}

func (n *node) admin() string { return filepath.Join(n.dir, "admin.sock") }
func (n *node) log() string   { return filepath.Join(n.dir, "log") }

// spawn has a function run by a thread that lives as long as this process: what it starts with Pdeathsig, which looks at the
// thread, ends with this process, however that ends.
var spawn = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go runSpawn(c)
	return c
})

func runSpawn(c <-chan func()) {
	runtime.LockOSThread()
	for f := range c {
		f()
	}
}

// start starts the process, where it does not run.
func (n *node) start() error {
	if n.process != nil {
		select {
		case <-n.exited:
		default:
			return nil
		}
	}
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	words := append(n.host.Command(), n.swarm.o.Program, "run", "--data", filepath.Join(n.dir, "data"), "--mqtt", "unix://"+n.mqtt,
		"--admin", n.admin(), "--listen", "/ip4/"+n.host.Address+"/tcp/7883")
	p := exec.Command(words[0], words[1:]...)
	p.Stdout, p.Stderr = log, log
	p.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "MOZZIE") })
	p.Env = append(p.Env, "CLOCK_SKEW="+n.skew())
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	spawn() <- func() { started <- p.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("start node %d: %w", n.number, err)
	}
	n.ends.Lock()
	n.ending = false
	n.ends.Unlock()
	exited := make(chan struct{})
	n.process, n.exited = p, exited
	go func() {
		_ = p.Wait() // its state says the same
		n.ends.Lock()
		if !n.ending {
			n.swarm.history.Add(Event{Kind: Trouble, Node: n.number, Text: fmt.Sprintf("node %d has ended by itself: %v: %s", n.number, p.ProcessState, n.lastLine())})
		}
		n.ends.Unlock()
		close(exited)
	}()
	return nil
}

func (n *node) lastLine() string {
	text, err := os.ReadFile(n.log())
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}

// signal signals the process. It is no failure if that has ended.
func (n *node) signal(s syscall.Signal) {
	if s != syscall.SIGSTOP && s != syscall.SIGCONT {
		n.ends.Lock()
		n.ending = true
		n.ends.Unlock()
	}
	_ = n.process.Process.Signal(s) // where it has ended by itself there is an event of that
}

// kill ends the process as a power cut does.
func (n *node) kill() {
	n.signal(syscall.SIGKILL)
	<-n.exited
}

// stop stops the process politely.
func (n *node) stop() {
	n.signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(stopLimit):
		n.swarm.history.Add(Event{Kind: Trouble, Node: n.number, Text: fmt.Sprintf("node %d did not stop within %v of SIGTERM", n.number, stopLimit)})
		n.signal(syscall.SIGQUIT) // prints its goroutines
		<-n.exited
	}
}

// wipe destroys the disk, but for the swarm's key, without which it would be no node of the swarm.
func (n *node) wipe(key bool) error {
	data := filepath.Join(n.dir, "data")
	if !key {
		return os.RemoveAll(filepath.Join(data, "db"))
	}
	entries, err := os.ReadDir(data)
	for _, e := range entries {
		if e.Name() != swarmKey {
			err = errors.Join(err, os.RemoveAll(filepath.Join(data, e.Name())))
		}
	}
	return err
}

// ready asks the node how it is.
func (n *node) ready() (admin.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	s, err := n.api.Status(ctx)
	if err == nil && !s.Ready {
		err = fmt.Errorf("node %d is not ready: %v", n.number, s.Reasons)
	}
	return s, err
}

// members returns the nodes that are part of the swarm.
func (s *swarm) members() []*node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[1 : s.joined+1]
}

// whole says why the swarm is not whole, if so. That nodes are connected is not enough: where a link was cut for long, TCP sends
// again only seconds later.
func (s *swarm) whole() error {
	all := s.members()
	ids := map[string]bool{} // of nodes with the disk that they had at first
	self := map[*node]string{}
	wiped := s.wiped()
	for _, n := range all {
		status, err := n.ready()
		if others := len(all) - 1; err == nil && (status.Peers != others || status.Streams != 2*others) {
			err = fmt.Errorf("node %d is connected to %d nodes, with %d streams, not to %d with two each", n.number, status.Peers, status.Streams, others)
		}
		if err == nil {
			err = n.direct()
		}
		if err != nil {
			return err
		}
		ids[status.PeerID] = !wiped[n.number]
		self[n] = status.PeerID
	}
	for _, topic := range firstLevels() {
		rendezvous := ""
		for _, n := range all {
			l, err := n.locate(topic)
			if err != nil {
				return err
			}
			// Who is no member hears of another set when it sends something there.
			member := slices.ContainsFunc(l.Members, func(m admin.Member) bool { return m.PeerID == self[n] })
			for _, m := range l.Members {
				switch {
				case ids[m.PeerID] && !m.Reachable:
					return fmt.Errorf("node %d does not reach %s, for %s", n.number, m.PeerID, topic)
				case !member:
				case m.Rendezvous && rendezvous != "" && m.PeerID != rendezvous:
					return fmt.Errorf("node %d takes %s for the rendezvous of %s, another %s", n.number, m.PeerID, topic, rendezvous)
				case m.Rendezvous:
					rendezvous = m.PeerID
				}
			}
		}
	}
	return nil
}

// wiped returns the nodes that have lost a disk: what they were before is no member of any set that can be reached.
func (s *swarm) wiped() map[int]bool {
	all := map[int]bool{}
	for _, e := range s.history.Events() {
		if e.Kind == Wiped {
			all[e.Nodes[0]] = true
		}
	}
	return all
}

// direct says whether a node reaches another through a relay: such a connection is about to be replaced, which is as when a link
// breaks.
func (n *node) direct() error {
	by := "0"
	err := n.metrics(func(line string) {
		if m := relayed.FindStringSubmatch(line); m != nil {
			by = m[1]
		}
	})
	if err == nil && by != "0" {
		err = fmt.Errorf("node %d reaches %s nodes through relays", n.number, by)
	}
	return err
}

// firstLevels are the locations of what clients publish.
func firstLevels() []string {
	all := []string{"share", "will", "retained"}
	for i := range places {
		all = append(all, fmt.Sprint("c", i))
	}
	return all
}

func (n *node) locate(level string) (admin.Location, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return n.api.Locate(ctx, level+"/x")
}

func (s *swarm) until(what string, limit time.Duration, f func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(poll) {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not so within %v: %s: %w", limit, what, err)
		}
	}
}

// runWatch writes down when the swarm is whole again after faults.
func (s *swarm) runWatch(ctx context.Context) {
	known := 0 // faults before the last time
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.faults) > 0 {
				return known
			}
			return s.count
		}
		if count := now(); count != known && s.whole() == nil && now() == count {
			s.history.Add(Event{Kind: Whole})
			known = count
		}
	}
}

var relayed = regexp.MustCompile(`^mozzie_peers_relayed ([0-9.e+]+)$`)

// waiting is the metrics of what is on its way.
var waiting = regexp.MustCompile(`^(mozzie_outbox_messages|mozzie_custody_messages|mozzie_unsettled_messages|mozzie_waiting_messages|mozzie_queued_messages) ([0-9.e+]+)$`)

// kept is those of them that do not count where a disk was wiped: what was for the sessions there is kept for the holding time,
// since nobody can know that they will not come back, and the second copies of it do not hear that it is settled.
var kept = map[string]bool{"mozzie_custody_messages": true, "mozzie_unsettled_messages": true}

// waits says what waits at the nodes, "" for nothing.
func (s *swarm) waits() (text string) {
	wiped := len(s.wiped()) > 0
	for _, n := range s.members() {
		err := n.metrics(func(line string) {
			if m := waiting.FindStringSubmatch(line); m != nil && !(wiped && kept[m[1]]) {
				if v, err := strconv.ParseFloat(m[2], 64); err != nil || v != 0 {
					text += fmt.Sprintf("node %d: %s; ", n.number, line)
				}
			}
		})
		if err != nil {
			text += fmt.Sprintf("node %d: %v; ", n.number, err)
		}
	}
	return text
}

// locate writes down, beside the history, who every node takes for the set of each location.
func (s *swarm) locate() {
	var text strings.Builder
	for _, topic := range firstLevels() {
		for _, n := range s.members() {
			l, err := n.locate(topic)
			fmt.Fprintf(&text, "%s at node %d: version %d, %v", topic, n.number, l.Version, err)
			for _, m := range l.Members {
				fmt.Fprintf(&text, "; %s reachable %v rendezvous %v", m.PeerID, m.Reachable, m.Rendezvous)
			}
			fmt.Fprintln(&text)
		}
	}
	s.failed(os.WriteFile(filepath.Join(s.o.Dir, "locate.txt"), []byte(text.String()), 0o600))
}

// metrics calls f with each line of the node's metrics.
func (n *node) metrics(f func(line string)) error {
	r, err := n.http.Get("http://node/metrics")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		f(lines.Text())
	}
	return lines.Err()
}

// trouble is what no node should ever log.
var trouble = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE|goroutine \d+ ).*|.*(level=ERROR|breaks the protocol).*`)

// close stops the nodes, writes down what they should not have logged, and removes the network.
func (s *swarm) close() (err error) {
	s.cancel()
	s.running.Wait()
	var all sync.WaitGroup
	for _, n := range s.nodes[1:] {
		all.Go(func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.process == nil {
				return
			}
			n.signal(syscall.SIGCONT)
			n.stop()
		})
	}
	all.Wait()
	for _, n := range s.nodes[1:] {
		text, e := os.ReadFile(n.log())
		if e != nil {
			continue // it never ran
		}
		if bad := trouble.Find(text); bad != nil {
			err = errors.Join(err, fmt.Errorf("node %d logged: %s", n.number, bad))
		}
	}
	return errors.Join(err, s.network.Close())
}
