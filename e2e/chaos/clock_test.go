package chaos

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Time namespaces of Linux do not cover CLOCK_REALTIME, Go programs read it without a system call that could be intercepted, and to set
// the machine's clock would hit everything on it. So mozzie is built with a package time that adds to the wall clock what a file
// says, which every node has for itself; see testdata/clock.

// build builds mozzie, with clocks that can be set, into a folder.
func build(dir string, race bool) (program string, err error) {
	source, err := filepath.Abs("testdata/clock")
	if err != nil {
		return "", err
	}
	where, err := exec.Command("go", "list", "-f", "{{.Dir}}", "time", "github.com/mozzie-mqtt/mozzie/cmd/mozzie").Output()
	if err != nil {
		return "", fmt.Errorf("look for what is to be built: %w", err)
	}
	std, command, _ := strings.Cut(strings.TrimSpace(string(where)), "\n")
	text, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		return "", err
	}
	read := []byte("func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n")
	if bytes.Count(text, read) != 1 {
		return "", fmt.Errorf("time.Now does not begin as expected in %s: have build look for what it does now", std)
	}
	text = bytes.Replace(text, read, append(read, "\tsec, nsec = skewed(sec, nsec)\n"...), 1)
	program = filepath.Join(dir, "mozzie")
	now, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(std, "time.go"):          now,
		filepath.Join(std, "skew.go"):          filepath.Join(source, "std.go"),
		filepath.Join(command, "skew_main.go"): filepath.Join(source, "main.go"),
	}})
	if err != nil {
		return "", err
	}
	for path, text := range map[string][]byte{now: text, overlay: list} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return "", err
		}
	}
	args := []string{"build", "-overlay", overlay, "-o", program}
	if race {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "github.com/mozzie-mqtt/mozzie/cmd/mozzie")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build mozzie: %w\n%s", err, out)
	}
	return program, nil
}

// setClock sets the node's clock to so much more than the machine's, whether it runs or not.
func (n *node) setClock(ahead time.Duration) error {
	f, err := os.OpenFile(n.skew(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("set the clock of node %d: %w", n.number, err)
	}
	defer f.Close()
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(ahead)), 0) //nolint:gosec // as it is
	return err
}

// skew is the file that says how many nanoseconds the node's clock is ahead, in 8 bytes.
func (n *node) skew() string { return filepath.Join(n.dir, "clock") }

// TestClock has the clock of a program that is built so jump, and looks what it takes the time for.
func TestClock(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds mozzie anew, and -short was given")
	}
	n := &node{dir: t.TempDir(), number: 1}
	program, err := build(n.dir, false) // which TestChaos has again, mostly
	if err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []time.Duration{0, 5 * time.Hour, -5 * time.Hour} {
		if err := n.setClock(ahead); err != nil {
			t.Fatal(err)
		}
		run := exec.Command(program, "run", "--data", filepath.Join(n.dir, "data"), "--mqtt", "unix://"+n.dir+"/no/such/folder/mqtt.sock")
		run.Env = append(os.Environ(), "CLOCK_SKEW="+n.skew())
		out, _ := run.CombinedOutput() // it can't listen there
		var at time.Time
		for _, word := range strings.Fields(string(out)) {
			if value, ok := strings.CutPrefix(word, "time="); ok {
				at, err = time.Parse(time.RFC3339, value)
			}
		}
		if off := time.Until(at) - ahead; err != nil || off.Abs() > time.Hour {
			t.Errorf("with a clock that is %v ahead mozzie logs %v, %v off: %v\n%s", ahead, at, off, err, out)
		}
	}
}
