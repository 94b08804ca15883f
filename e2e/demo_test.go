package e2e

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// demoLine is what the demo prints with --json.
type demoLine struct {
	Event, Topic, Payload string
	From, Via, At         int
	Nodes                 []struct{ MQTT, Admin, Data string }
}

// TestDemo starts the demo as "make demo" does, takes part in it with clients of its own, and ends it by Ctrl-C.
func TestDemo(t *testing.T) {
	long(t)
	need(t, "make")
	if out, err := exec.Command("make", "-s", "-n", "-C", "..", "demo", "ARGS=--json").Output(); err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "bin/mozzie demo --json") {
		t.Fatalf("make demo runs %s (%v)", out, err)
	}
	tmp := t.TempDir()
	cmd := exec.Command(program, "demo", "--json", "--interval", "100ms")
	cmd.Env = append(cleanEnv(), "TMPDIR="+tmp)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := startProcess(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended by itself, unless the test failed
	lines := make(chan demoLine)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			var l demoLine
			if err := json.Unmarshal(s.Bytes(), &l); err != nil {
				l.Event = err.Error()
			}
			lines <- l
		}
	}()

	first := demoNext(t, lines, func(demoLine) bool { return true })
	if first.Event != "nodes" || len(first.Nodes) != 3 {
		t.Fatalf("the demo began with %+v", first)
	}
	for _, from := range []int{2, 3} {
		demoNext(t, lines, func(l demoLine) bool { return l.Event == "message" && l.From == from && l.Via > 0 && l.At == 1 })
	}

	// What a client of one's own publishes, the demo shows; what the demo publishes, the client hears.
	sub, pub := connect(t, first.Nodes[2].MQTT), connect(t, first.Nodes[1].MQTT)
	sub.subscribe(1, "doors/#")
	pub.publish("doors/mine", "hello", 1)
	demoNext(t, lines, func(l demoLine) bool { return l.Topic == "doors/mine" && l.Payload == "hello" && l.From == 0 })
	sub.until(t, patience, "both", func(got []message) bool {
		return slices.ContainsFunc(got, func(m message) bool { return m.topic == "doors/mine" }) &&
			slices.ContainsFunc(got, func(m message) bool { return m.topic == "doors/front" })
	})

	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	ended := time.AfterFunc(stopLimit+2*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	defer ended.Stop()
	for range lines { // until it has closed its output
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the demo ended with %v", err)
	}
	for _, n := range first.Nodes {
		for _, address := range []string{n.MQTT, n.Admin} {
			if c, err := net.Dial("tcp", address); err == nil {
				c.Close()
				t.Errorf("%s is still there", address)
			}
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v (%v)", left, err)
	}
}

// demoNext waits for a line of the demo.
func demoNext(t *testing.T, lines <-chan demoLine, wanted func(demoLine) bool) demoLine {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case l, ok := <-lines:
			if !ok {
				t.Fatal("the demo has ended")
			}
			if wanted(l) {
				return l
			}
		case <-deadline:
			t.Fatalf("the demo did not print what was wanted within %v", patience)
		}
	}
}
