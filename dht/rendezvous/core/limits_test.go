package core_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// TestLimits: what one node may make others keep is bounded, and what a limit refuses is counted.
func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limit   func(*core.Limits)
		ask     func(v *simNode, i int)
		counter func(core.Stats) uint64
	}{
		"filters of one node at a location": {func(l *core.Limits) { l.Registrations = 5 },
			func(v *simNode, i int) { v.subscribe(fmt.Sprintf("x/%d", i), 1) },
			func(st core.Stats) uint64 { return st.RegistrationsFull }},
		"locations": {func(l *core.Limits) { l.Locations = 5 },
			func(v *simNode, i int) { v.subscribe(fmt.Sprintf("x%d", i), 1) },
			func(st core.Stats) uint64 { return st.LocationsFull }},
		"retained messages": {func(l *core.Limits) { l.RetainedTopics = 5 },
			func(v *simNode, i int) { v.publish(fmt.Sprintf("x/%d", i), 1, true, "kept") },
			func(st core.Stats) uint64 { return st.DroppedRetained }},
		"bytes of retained messages": {func(l *core.Limits) { l.RetainedBytes = 100 },
			func(v *simNode, i int) { v.publish(fmt.Sprintf("x/%d", i), 1, true, "kept") },
			func(st core.Stats) uint64 { return st.DroppedRetained }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, limited := range []bool{false, true} {
				s := newSim(t, 1, time.Millisecond)
				if limited {
					s.limit = c.limit
				}
				a, b := s.add(), s.add()
				s.connect(a, b)
				s.run(time.Second)
				for i := range 20 {
					c.ask(a, i)
				}
				s.run(5 * time.Second)
				n := c.counter(a.n.Stats()) + c.counter(b.n.Stats())
				if limited != (n > 0) {
					t.Errorf("limited: %v, counted %d", limited, n)
				}
				if g := b.n.Gauges(); limited && name == "locations" && g.Locations > 5 {
					t.Errorf("it has %d locations", g.Locations)
				}
			}
		})
	}
}
