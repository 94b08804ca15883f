package mqttfront

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestAlive: a broker is alive while it looks after its connections, and not while it cannot get at them.
func TestAlive(t *testing.T) {
	b := &Broker{stats: new(Stats), stopped: make(chan struct{}), ticked: make(chan struct{})}
	b.wg.Go(b.runTicker)
	defer b.wg.Wait()
	defer close(b.stopped)
	alive := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return b.Alive(ctx)
	}
	if err := alive(30 * time.Second); err != nil {
		t.Fatalf("at the start: %v", err)
	}
	b.reg.Lock()
	_ = alive(1500 * time.Millisecond) // a turn that had begun before may still end
	err := alive(1500 * time.Millisecond)
	b.reg.Unlock()
	if err == nil || !strings.Contains(err.Error(), "connections") {
		t.Errorf("with the connections held: %v", err)
	}
	if err := alive(30 * time.Second); err != nil {
		t.Errorf("with the connections let go: %v", err)
	}
}
