package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestExplainListen: who asked for a listener that cannot be is told why, and what to do.
func TestExplainListen(t *testing.T) {
	bind := func(e syscall.Errno) error {
		return fmt.Errorf("MQTT listener: %w", &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", e)})
	}
	for want, err := range map[string]error{
		"the address is in use, perhaps by another node or broker: stop that, or choose": bind(syscall.EADDRINUSE),
		"no permission for user":           bind(syscall.EACCES),
		"this machine has no such address": bind(syscall.EADDRNOTAVAIL),
		`the name "pi" is not known`:       fmt.Errorf("listen: %w", &net.DNSError{Name: "pi", IsNotFound: true}),
		"something else":                   errors.New("something else"),
	} {
		text := explainListen("tcp://pi:1883", err).Error()
		if !strings.HasPrefix(text, "listen for MQTT clients") || !strings.Contains(text, want) || strings.Contains(text, "bind") {
			t.Errorf("%v is explained as %s, want %s", err, text, want)
		}
	}
}
