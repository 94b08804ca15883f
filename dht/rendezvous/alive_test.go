package rendezvous

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// TestAlive: a Service is alive while its time passes and its owner takes in what comes, and not when either hangs.
func TestAlive(t *testing.T) {
	stuck := make(chan struct{})
	entered := make(chan struct{}, 100)
	n := start(t, newHost(t), func(c *Config) {
		c.Deliver = func([]core.Delivery) {
			entered <- struct{}{}
			<-stuck
		}
	})
	alive := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return n.Alive(ctx)
	}
	if err := alive(30 * time.Second); err != nil {
		t.Fatalf("at the start: %v", err)
	}

	inside, leave := make(chan struct{}), make(chan struct{})
	go n.View(func(*core.Node) {
		close(inside)
		<-leave
	})
	<-inside
	if err := alive(time.Second); err == nil || !strings.Contains(err.Error(), "stands still") {
		t.Errorf("with the core held: %v", err)
	}
	close(leave)
	if err := alive(30 * time.Second); err != nil {
		t.Errorf("with the core let go: %v", err)
	}

	n.subscribe(t, "a")
	go n.publish("a", "x", 1, 1) // carries the delivery out itself, and so hangs too
	<-entered
	if err := alive(time.Second); err == nil || !strings.Contains(err.Error(), "not taken in") {
		t.Errorf("with a broker that takes nothing in: %v", err)
	}
	close(stuck)
	if err := alive(30 * time.Second); err != nil {
		t.Errorf("with a broker that goes on: %v", err)
	}
}
