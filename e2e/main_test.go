// Package e2e tests Mozzie from outside: real processes of the program on loopback, and the clients that people
// use. "go test ./e2e" builds the program and runs everything that the machine has the clients for; setup, beside
// this file, installs them. With -short nothing runs.
//
//	MOZZIE=FILE   test this program instead of building one
//	CI=true       a client that is missing is a failure, not a reason to skip
//	DIST=FOLDER   test what "make dist" has built there, too: "make packages" does
//
// Where to look: harness_test.go starts and stops nodes, clients_test.go has the MQTT clients that the cases use,
// tools_test.go those that run as programs, dist_test.go and chroot_test.go what is installed. Each other file is a story.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

var (
	program  string // the mozzie that is tested
	buildDir string // where it is built
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if testing.Short() {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "mozzie-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	buildDir = dir
	if program = os.Getenv("MOZZIE"); program == "" {
		program = filepath.Join(dir, "mozzie")
		if err := build(program); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	go runSpawn()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(goleak.IgnoreTopFunction("github.com/mozzie-mqtt/mozzie/e2e.runSpawn")); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	return code
}

// spawn has a function run by a thread that lives as long as the tests: what it starts with Pdeathsig, which
// looks at the thread, ends with the tests, however they end.
var spawn = make(chan func())

func runSpawn() {
	runtime.LockOSThread()
	for f := range spawn {
		f()
	}
}

// startProcess starts a process that does not outlive the tests, in a group of its own.
func startProcess(c *exec.Cmd) error {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	spawn <- func() { started <- c.Start() }
	return <-started
}

// build builds the program, with the race detector where the tests have it.
func build(to string) error {
	args := []string{"build", "-o", to}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/mozzie-mqtt/mozzie/cmd/mozzie")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build mozzie: %w\n%s", err, out)
	}
	return nil
}

var staticProgram struct {
	once sync.Once
	err  error
}

// static returns the program as people install it: static, and without the race detector, under which it takes several
// times the memory. It is built beside the one that is tested everywhere else, once.
func static(t testing.TB) string {
	t.Helper()
	file := filepath.Join(buildDir, "mozzie-static")
	staticProgram.once.Do(func() {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, module+"/cmd/mozzie")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			staticProgram.err = fmt.Errorf("build mozzie: %w\n%s", err, out)
		}
	})
	if staticProgram.err != nil {
		t.Fatal(staticProgram.err)
	}
	return file
}

// long skips a test that runs processes where only short ones are wanted.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it runs real nodes, and -short was given")
	}
}

// need skips a test where a program is missing; in CI that is a failure.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		missing(t, p+" is not installed: run e2e/setup")
	}
}

// missing skips a test, in CI it fails it.
func missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}
