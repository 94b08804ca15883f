package e2e

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestServiceManager plays the service manager of a node: it is told when clients are served, that the node lives, as
// often as it asks for, that it reloads, and that it stops; at a socket with a path, and at an abstract one.
func TestServiceManager(t *testing.T) {
	long(t)
	for _, socket := range []string{filepath.Join(t.TempDir(), "notify"), "@mozzie-e2e-" + filepath.Base(t.TempDir())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		const within = 10 * time.Second
		n := newNode(t, "node", "--open")
		n.env = []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=10000000"}
		n.start()
		// hear waits for something in particular. What a service manager is told meanwhile is that the node lives.
		hear := func(what string) {
			t.Helper()
			buf := make([]byte, 4096)
			for deadline := time.Now().Add(patience); ; {
				if err := l.SetReadDeadline(deadline); err != nil {
					t.Fatal(err)
				}
				size, err := l.Read(buf)
				if err != nil {
					t.Fatalf("waiting for %s: %v", what, err)
				}
				lines := strings.Split(string(buf[:size]), "\n")
				if slices.Contains(lines, what) {
					return
				}
				if !slices.Contains(lines, "WATCHDOG=1") {
					t.Fatalf("heard %q, want %s", lines, what)
				}
			}
		}
		hear("READY=1")
		c, err := net.Dial("tcp", n.mqtt) // it was the promise
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		began := time.Now()
		for range 3 {
			hear("WATCHDOG=1")
		}
		if took := time.Since(began); took < within/2 {
			t.Errorf("it said three times in %v that it lives: want once in half of %v", took, within)
		}
		n.signal(syscall.SIGHUP)
		hear("RELOADING=1")
		hear("READY=1")
		n.term()
		hear("STOPPING=1")
		n.stopped()
	}
}
