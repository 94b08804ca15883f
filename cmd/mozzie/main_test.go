package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

func TestMain(m *testing.M) {
	testscript.Main(leakless{m}, map[string]func(){"mozzie": main})
}

// leakless is tests that must not leave goroutines behind.
type leakless struct{ *testing.M }

// Run implements testscript.TestingM.
func (m leakless) Run() int {
	code := m.M.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "cmd/mozzie:", err)
			return 1
		}
	}
	return code
}

// TestScripts runs the program without a node: what it refuses, and what it prints.
func TestScripts(t *testing.T) { runScripts(t, "testdata") }

// TestNodeScripts runs real nodes.
func TestNodeScripts(t *testing.T) { runScripts(t, filepath.Join("testdata", "node")) }

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(4 * time.Minute),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"hold":  hold,
			"ready": ready,
			"term":  term,
			"until": until,
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Getuid() == 0, nil
			}
			return false, errors.New("unknown condition " + name)
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("STATE_DIRECTORY", filepath.Join(e.WorkDir, "data")) // what nodes use without --data
			return nil
		},
	})
}

// exits CODE COMMAND... runs a command that must end with an exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// hold DIR opens a data directory and keeps it until the end of the script.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	d, err := datadir.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { d.Close() })
	ts.Setenv("HOLDER", strconv.Itoa(os.Getpid()))
}

// until REGEXP COMMAND... runs a command until its output matches.
func until(ts *testscript.TestScript, neg bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	deadline := time.Now().Add(20 * time.Second)
	for ; time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { // commands tell only by being run
		if err := ts.Exec(args[1], args[2:]...); err == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("%v does not print %q", args[1:], args[0])
}

// term DIR sends SIGTERM to the node of a data directory.
func term(ts *testscript.TestScript, neg bool, args []string) {
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(filepath.Join(args[0], "lock"))))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, syscall.SIGTERM))
}

// ready DIR [PEERS] waits until the node of a data directory is ready and has so many peers. It puts its first MQTT port
// into $PORT_name, the last one into $LAST_name, and its administration address into $ADMIN_name, with the directory's name.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	dir, peers := args[0], 0
	if len(args) > 1 {
		peers, _ = strconv.Atoi(args[1])
	}
	deadline := time.Now().Add(20 * time.Second)
	why := "nothing"
	for ; time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { // a node tells only by being asked
		address, err := datadir.Admin(ts.MkAbs(dir))
		if err != nil {
			why = err.Error()
			continue
		}
		c, err := admin.NewClient(address)
		ts.Check(err)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		s, err := c.Status(ctx)
		cancel()
		if err != nil {
			why = err.Error()
			continue
		}
		if s.Ready && s.Peers >= peers {
			ts.Setenv("ADMIN_"+dir, address)
			for name, url := range map[string]string{"PORT_": s.MQTT[0], "LAST_": s.MQTT[len(s.MQTT)-1]} {
				ts.Setenv(name+dir, url[strings.LastIndexByte(url, ':')+1:])
			}
			return
		}
		why = "ready: " + strconv.FormatBool(s.Ready) + ", peers: " + strconv.Itoa(s.Peers)
	}
	ts.Fatalf("the node in %s is not ready with %d peers: %s", dir, peers, why)
}
