package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

const (
	// patience is how long something may take that has no limit of its own.
	patience = 60 * time.Second
	// stopLimit is how long a node may take to stop: the 10 s that it promises, and what the machine takes.
	stopLimit = 12 * time.Second
	// poll is how often a node is asked, which tells nothing by itself.
	poll = 30 * time.Millisecond
)

// setup says which swarm is wanted.
type setup struct {
	private bool     // by a key of its own; else open
	flags   []string // for every node
	program string   // if it is another than the one that is tested everywhere else
}

// node is a node, which may run or not.
type node struct {
	t    testing.TB
	name string

	data, log       string            // directory, file
	mqtt, ws, admin string            // host:port
	urls            map[string]string // of further listeners, by kind
	authority       string            // the file of who has signed their certificates
	swarm           string            // the port for other nodes
	id              string            // peer ID, once it has been ready
	args            []string
	env             []string
	prefix          []string       // a command that the program is run by
	program         string         // if it is another than the one that is tested everywhere else
	expected        *regexp.Regexp // what it may log though it would be trouble elsewhere

	process *exec.Cmd
	exited  chan struct{} // closed when the process is gone
	api     *admin.Client
}

// newNode prepares a node. It is stopped at the end of the test, and what it logged is shown if the test failed.
func newNode(t testing.TB, name string, flags ...string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, name: name, data: filepath.Join(dir, "data"), log: filepath.Join(dir, "log")}
	n.mqtt, n.ws, n.admin = loopback(freePort(t)), loopback(freePort(t)), loopback(freePort(t))
	n.swarm = freePort(t)
	n.args = append([]string{"run", "--data", n.data, "--mqtt", "tcp://" + n.mqtt, "--mqtt", "ws://" + n.ws,
		"--admin", n.admin, "--listen", "/ip4/127.0.0.1/tcp/" + n.swarm, "--mdns=false"}, flags...)
	if logs := os.Getenv("E2E_LOGS"); logs != "" { // a directory for the whole logs of the last test
		n.args = append(n.args, "--set", "log.level=debug")
		n.log = filepath.Join(logs, strings.ReplaceAll(name, " ", ""))
		_ = os.Remove(n.log)
	}
	n.ask(n.admin)
	t.Cleanup(func() {
		n.stop()
		n.judgeLog()
	})
	return n
}

// url is where the node has a listener of a kind.
func (n *node) url(kind string) string {
	switch kind {
	case "tcp":
		return "tcp://" + n.mqtt
	case "ws":
		return "ws://" + n.ws + "/mqtt"
	}
	return n.urls[kind]
}

// trusted is the file of what clients trust: the node's own certificate, unless the test has given it another.
func (n *node) trusted() string { return cmp.Or(n.authority, filepath.Join(n.data, "tls.crt")) }

// ask tells where the node's administration API is.
func (n *node) ask(address string) {
	api, err := admin.NewClient(address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.api = api
}

func loopback(port string) string { return net.JoinHostPort("127.0.0.1", port) }

var (
	portMu   sync.Mutex
	nextPort = 12_000 + rand.IntN(8_000)
)

// freePort returns a port that nobody listens at. It is below the range that the system takes ports for outgoing
// connections from, so that a node which is restarted finds it free.
func freePort(t testing.TB) string {
	t.Helper()
	portMu.Lock()
	defer portMu.Unlock()
	for range 2_000 {
		nextPort++
		port := fmt.Sprint(nextPort)
		if portFree(port) {
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

func portFree(port string) bool {
	l, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// startSwarm starts n nodes and returns when each is ready and knows all others.
func startSwarm(t testing.TB, n int, s setup) []*node {
	t.Helper()
	var all []*node
	for i := range n {
		flags := slices.Clone(s.flags)
		if !s.private {
			flags = append(flags, "--open")
		}
		if i > 0 {
			flags = append(flags, all[0].toJoin(s.private)...)
		}
		n := newNode(t, fmt.Sprintf("node %d", i+1), flags...)
		n.program = s.program
		n.start()
		n.ready()
		all = append(all, n)
	}
	meet(t, all...)
	return all
}

// toJoin returns the flags with which a node joins this one's swarm.
func (n *node) toJoin(private bool) []string {
	if private {
		return []string{"--join", n.invite()}
	}
	return []string{"--bootstrap", n.status().Addresses[0]}
}

func (n *node) invite() string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	invite, err := n.api.Invite(ctx)
	if err != nil {
		n.t.Fatalf("%s: invite: %v", n.name, err)
	}
	return invite
}

// meet waits until each of the nodes is connected to all others, and to nobody else.
func meet(t testing.TB, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		n.until(fmt.Sprintf("has %d peers", len(nodes)-1), func(s admin.Status) bool { return s.Peers == len(nodes)-1 })
	}
}

// start starts the node's process.
func (n *node) start() {
	n.t.Helper()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close() // the process has its own
	words := append(append(slices.Clone(n.prefix), cmp.Or(n.program, program)), n.args...)
	n.process = exec.Command(words[0], words[1:]...)
	n.process.Stdout, n.process.Stderr = log, log
	n.process.Env = append(cleanEnv(), n.env...)
	if err := startProcess(n.process); err != nil {
		n.t.Fatalf("start %s: %v", n.name, err)
	}
	n.exited = make(chan struct{})
	go func() {
		_ = n.process.Wait() // its state says the same
		close(n.exited)
	}()
}

// cleanEnv is the environment without what would configure a node.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "MOZZIE") })
}

// ready waits until the node serves clients.
func (n *node) ready() {
	n.t.Helper()
	n.id = n.until("is ready", func(s admin.Status) bool { return s.Ready }).PeerID
}

// status asks the node how it is.
func (n *node) status() admin.Status {
	n.t.Helper()
	return n.until("answers", func(admin.Status) bool { return true })
}

// until waits until the node's status is as wanted, and returns it.
func (n *node) until(what string, ok func(admin.Status) bool) (s admin.Status) {
	n.t.Helper()
	eventually(n.t, patience, func() error {
		select {
		case <-n.exited:
			n.t.Fatalf("%s has ended by itself: %v", n.name, n.process.ProcessState)
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		var err error
		if s, err = n.api.Status(ctx); err != nil {
			return err
		}
		if !ok(s) {
			return fmt.Errorf("%s: not so that it %s: %+v", n.name, what, s)
		}
		return nil
	})
	return s
}

// eventually calls f until it succeeds. It is for what can be seen by looking only.
func eventually(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %v", limit, err)
		}
		time.Sleep(poll)
	}
}

// locate asks the node who serves a topic.
func (n *node) locate(topic string) admin.Location {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := n.api.Locate(ctx, topic)
	if err != nil {
		n.t.Fatalf("%s: locate %s: %v", n.name, topic, err)
	}
	return l
}

// rendezvous returns the node's idea of a topic's rendezvous: its peer ID, "" where there is none.
func (n *node) rendezvous(topic string) string {
	n.t.Helper()
	for _, m := range n.locate(topic).Members {
		if m.Rendezvous {
			return m.PeerID
		}
	}
	return ""
}

// term asks the node to stop.
func (n *node) term() { n.signal(syscall.SIGTERM) }

func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.process.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.t.Fatalf("signal %s: %v", n.name, err)
	}
}

// kill ends the node as a power cut does.
func (n *node) kill() {
	n.t.Helper()
	n.signal(syscall.SIGKILL)
	<-n.exited
	n.process = nil
}

// stop stops the node politely and checks that it does so in time, with exit code 0, and leaves nothing.
func (n *node) stop() {
	n.t.Helper()
	if n.process == nil {
		return
	}
	select {
	case <-n.exited:
		n.t.Errorf("%s had ended by itself: %v", n.name, n.process.ProcessState)
		n.process = nil
		return
	default:
	}
	n.term()
	n.stopped()
}

// stopped waits for a node that was told to stop.
func (n *node) stopped() {
	n.t.Helper()
	select {
	case <-n.exited:
	case <-time.After(stopLimit):
		n.t.Errorf("%s did not stop within %v of SIGTERM", n.name, stopLimit)
		n.signal(syscall.SIGQUIT) // prints its goroutines
		<-n.exited
	}
	if code := n.process.ProcessState.ExitCode(); code != 0 {
		n.t.Errorf("%s ended with exit code %d, want 0: %s", n.name, code, n.lastLine())
	}
	group := n.process.Process.Pid
	n.process = nil
	if err := syscall.Kill(-group, 0); !errors.Is(err, syscall.ESRCH) {
		n.t.Errorf("%s left processes (%v)", n.name, err)
	}
	if a, err := datadir.Admin(n.data); !errors.Is(err, datadir.ErrNotRunning) {
		n.t.Errorf("%s left the address of its API behind: %q, %v", n.name, a, err)
	}
	if len(n.prefix) > 0 {
		return // its ports are elsewhere
	}
	for _, address := range []string{n.mqtt, n.ws, n.admin, loopback(n.swarm)} {
		if _, port, _ := net.SplitHostPort(address); !portFree(port) {
			n.t.Errorf("%s left %s in use", n.name, address)
		}
	}
}

func (n *node) lastLine() string {
	text, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}

// trouble is what no node should ever log.
var trouble = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE|goroutine \d+ )|level=ERROR|breaks the protocol`)

// judgeLog fails the test for what must not be in the node's log, and shows the log where the test failed.
func (n *node) judgeLog() {
	text, err := os.ReadFile(n.log)
	if err != nil {
		return // it never started
	}
	judged := text
	if n.expected != nil {
		judged = n.expected.ReplaceAll(text, nil)
	}
	const show = 3_000
	if bad := trouble.FindIndex(judged); bad != nil {
		n.t.Errorf("%s logged %q", n.name, judged[bad[0]:min(len(judged), bad[0]+2*show)])
	}
	if n.t.Failed() {
		n.t.Logf("--- log of %s (%s)\n%s", n.name, n.id, text[max(0, len(text)-show):])
	}
}

// startServer starts a program that is no node, and returns when it listens at an address. It ends with the test.
func startServer(t testing.TB, address, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			missing(t, name+" is not installed: run e2e/setup")
		}
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the process has its own
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := startProcess(cmd); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()                          // for the same reason
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("--- log of %s\n%s", name, text[max(0, len(text)-6000):])
		}
	})
	eventually(t, patience, func() error {
		conn, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// mozzie runs a command of the program to its end, and returns what it printed.
func mozzie(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = cleanEnv()
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("mozzie %s: %v %v\n%s", strings.Join(args, " "), err, ctx.Err(), problems.String())
	}
	return out.String(), problems.String(), cmd.ProcessState.ExitCode()
}

// standing is a status with so many subscriptions.
func standing(n int) func(admin.Status) bool {
	return func(s admin.Status) bool { return s.Subscriptions >= n }
}

// metric returns the value of a metric without labels.
func (n *node) metric(name string) float64 {
	n.t.Helper()
	response, err := http.Get("http://" + n.admin + "/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				n.t.Fatal(err)
			}
			return v
		}
	}
	n.t.Fatalf("%s has no metric %s", n.name, name)
	return 0
}
