package node

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails where goroutines are left. libp2p does not wait for those of its own that deal with what a peer sent last;
// of a hundred nodes that stop in one process some may be at it for longer than goleak looks by itself.
func TestMain(m *testing.M) {
	code := m.Run()
	err := goleak.Find()
	for patience := time.Now().Add(20 * time.Second); code == 0 && err != nil; err = goleak.Find() {
		if time.Now().After(patience) {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
	}
	os.Exit(code)
}
