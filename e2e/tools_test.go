package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// tool is an MQTT client that people use, as a program of its own.
type tool struct {
	name    string
	version string // of MQTT: 3 (3.1), 4 (3.1.1) or 5
	kind    string // of listener
	make    func(tl tool, what string, n *node, qos byte, topic string) []string
}

// tools are the clients that the tests know, each in the versions of MQTT and by the ways that it can.
func tools(t *testing.T) []tool {
	t.Helper()
	need(t, "mosquitto_sub", "mosquitto_pub", "stdbuf", "node", "/usr/bin/python3")
	if err := exec.Command("/usr/bin/python3", "-c", "import paho.mqtt.client").Run(); err != nil {
		missing(t, "the paho client for Python is not installed: run e2e/setup")
	}
	if _, err := os.Stat(filepath.Join("node_modules", "mqtt")); err != nil {
		missing(t, "MQTT.js is not installed: run e2e/setup")
	}
	var all []tool
	for _, version := range []string{"3", "4", "5"} {
		all = append(all, tool{"mosquitto", version, "tcp", mosquitto}, tool{"pahopy", version, "tcp", python},
			tool{"mqttjs", version, "tcp", mqttJS}, tool{"mozzie", version, "tcp", mozzieClient})
	}
	return append(all, tool{"mqttjs", "4", "ws", mqttJS})
}

// toolsByKind are the clients in MQTT 5, each by every kind of listener that it knows.
func toolsByKind(t *testing.T) (all []tool) {
	t.Helper()
	tools(t) // they are here
	for _, kind := range []string{"tcp", "tls", "unix"} {
		all = append(all, tool{"mosquitto", "5", kind, mosquitto}, tool{"mozzie", "5", kind, mozzieClient})
	}
	for _, kind := range []string{"tcp", "tls", "ws", "wss"} {
		all = append(all, tool{"mqttjs", "5", kind, mqttJS}, tool{"pahopy", "5", kind, python})
	}
	return all
}

// String is a name that does for a topic's level.
func (tl tool) String() string { return tl.name + "-" + tl.version + "-" + tl.kind }

// command is how the tool is run. It trusts what clients of the node trust.
func (tl tool) command(ctx context.Context, what string, n *node, qos byte, topic string) *exec.Cmd {
	words := tl.make(tl, what, n, qos, topic)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(cleanEnv(), "NODE_EXTRA_CA_CERTS="+n.trusted(), "SSL_CERT_FILE="+n.trusted())
	return cmd
}

// with is the tool with further flags.
func (tl tool) with(flags ...string) tool {
	without := tl.make
	tl.make = func(tl tool, what string, n *node, qos byte, topic string) []string {
		return append(without(tl, what, n, qos, topic), flags...)
	}
	return tl
}

// where are the flags that mosquitto's clients and ours have for where to connect.
func (tl tool) where(n *node) []string {
	scheme, address, _ := strings.Cut(n.url(tl.kind), "://")
	if scheme == "unix" {
		return []string{"--unix", address}
	}
	host, port, _ := net.SplitHostPort(address)
	flags := []string{"-h", host, "-p", port}
	if scheme == "tls" {
		flags = append(flags, "--cafile", n.trusted())
	}
	return flags
}

// mosquitto prints what "ready" stands for in its debugging output.
func mosquitto(tl tool, what string, n *node, qos byte, topic string) []string {
	version := map[string]string{"3": "mqttv31", "4": "mqttv311", "5": "mqttv5"}[tl.version]
	args := append([]string{"mosquitto_" + what, "-V", version, "-q", fmt.Sprint(qos), "-t", topic}, tl.where(n)...)
	if what == "pub" {
		return append(args, "-l")
	}
	return append([]string{"stdbuf", "-oL"}, append(args, "-d", "-F", "%j")...)
}

func mozzieClient(tl tool, what string, n *node, qos byte, topic string) []string {
	version := map[string]string{"3": "31", "4": "311", "5": "5"}[tl.version]
	args := append([]string{program, what, "-V", version, "-q", fmt.Sprint(qos), "-t", topic}, tl.where(n)...)
	if what == "pub" {
		return append(args, "-l")
	}
	return append(args, "--json")
}

func python(tl tool, what string, n *node, qos byte, topic string) []string {
	return []string{"/usr/bin/python3", "clients/pahopy.py", what, n.url(tl.kind), tl.version, fmt.Sprint(qos), topic}
}

func mqttJS(tl tool, what string, n *node, qos byte, topic string) []string {
	return []string{"node", "clients/mqttjs.mjs", what, n.url(tl.kind), tl.version, fmt.Sprint(qos), topic}
}

// subscribe starts the tool as a subscriber and returns when its subscription stands. It ends with the test.
func (tl tool) subscribe(t testing.TB, n *node, qos byte, filter string) *inbox {
	t.Helper()
	before := n.status().Subscriptions
	cmd := tl.command(context.Background(), "sub", n, qos, filter)
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := startProcess(cmd); err != nil {
		t.Fatalf("start %s: %v", tl, err)
	}
	box := newInbox()
	ready, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			tl.line(lines.Text(), box, ready)
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		<-over
		_ = cmd.Wait() // how clients end is their own affair
		if t.Failed() && problems.Len() > 0 {
			t.Logf("--- %s says:\n%s", tl, problems.String())
		}
	})
	if tl.name == "mozzie" { // says nothing when it is ready
		n.until("has another subscription", standing(before+1))
		return box
	}
	select {
	case <-ready:
	case <-over:
		_ = cmd.Wait()
		t.Fatalf("%s ended before it was ready: %v", tl, cmd.ProcessState)
	}
	return box
}

// line takes in a line that a subscriber has printed.
func (tl tool) line(text string, box *inbox, ready chan struct{}) {
	switch {
	case text == "ready", strings.HasSuffix(text, " received SUBACK"):
		close(ready)
	case strings.HasPrefix(text, "{"):
		var m struct {
			Topic   string
			Payload any
			QoS     byte
			Retain  any
		}
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			box.add(message{payload: fmt.Sprintf("not JSON: %q: %v", text, err)})
			return
		}
		retained := m.Retain == true || m.Retain == float64(1)
		box.add(message{m.Topic, fmt.Sprint(m.Payload), m.QoS, retained})
	}
}

// publish has the tool publish numbered messages and returns when they are acknowledged.
func (tl tool) publish(t testing.TB, n *node, qos byte, topic string, count int) {
	t.Helper()
	var lines strings.Builder
	for i := range count {
		lines.WriteString(numbered(i) + "\n")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := tl.command(ctx, "pub", n, qos, topic)
	cmd.Stdin = strings.NewReader(lines.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", tl, err, out)
	}
}

// TestClients has every client publish at every QoS, and every client hear all of it, at another node. They
// know of MQTT what its specifications say [MQTT3-7.0.0-2].
func TestClients(t *testing.T) {
	long(t)
	all := tools(t)
	nodes := startSwarm(t, 3, setup{})
	const each = 5
	boxes := map[string]*inbox{}
	for i, tl := range all {
		boxes[tl.String()] = tl.subscribe(t, nodes[i%3], 2, "clients/#")
	}
	for i, tl := range all {
		for qos := range byte(3) {
			tl.publish(t, nodes[(i+1)%3], qos, fmt.Sprintf("clients/%s/%d", tl, qos), each)
		}
	}
	for name, box := range boxes {
		got := box.wait(t, 3*each*len(all))
		next := map[string]int{}
		for _, m := range got {
			if m.payload != numbered(next[m.topic]) || m.topic[len(m.topic)-1:] != strconv.Itoa(int(m.qos)) || m.retained {
				t.Errorf("%s got %+v, want number %d of its topic", name, m, next[m.topic])
			}
			next[m.topic]++
		}
		if len(next) != 3*len(all) {
			t.Errorf("%s heard %d publishers, want %d", name, len(next), 3*len(all))
		}
	}
}
