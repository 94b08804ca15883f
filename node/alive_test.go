package node

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// TestAlive: a node is alive while its parts are, and says which is not.
func TestAlive(t *testing.T) {
	n := startSwarm(t, 1).nodes[0]
	alive := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return n.Alive(ctx)
	}
	if err := alive(patience); err != nil {
		t.Fatalf("at the start: %v", err)
	}
	inside, leave := make(chan struct{}), make(chan struct{})
	go n.service.Load().View(func(*core.Node) {
		close(inside)
		<-leave
	})
	<-inside
	err := alive(time.Second)
	close(leave)
	if err == nil || !strings.Contains(err.Error(), "the side of the swarm") {
		t.Errorf("with the core held: %v", err)
	}
	if err := alive(patience); err != nil {
		t.Errorf("with the core let go: %v", err)
	}
}
