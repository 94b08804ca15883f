package e2e

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// TestAcknowledgeSwarm kills the node that clients publish at and wipes its disk right when messages have been acknowledged, while
// the node that they are for is dead too, or hangs. With acknowledge: swarm all that were acknowledged as such come when that one
// is back.
func TestAcknowledgeSwarm(t *testing.T) {
	long(t)
	for _, away := range []string{"dead", "hangs"} {
		t.Run(away, func(t *testing.T) {
			nodes := startSwarm(t, 3, setup{private: true, flags: []string{"--acknowledge", "swarm"}})
			publisher, other := nodes[0], nodes[2]
			topics := []string{topicAt(t, publisher, nodes[0], "safe"), topicAt(t, publisher, nodes[1], "safe"), topicAt(t, publisher, nodes[2], "safe")}
			sub := newDurable(t, other.mqtt, "sub", topics...)
			eventually(t, patience, sub.idle)
			var acked sync.Map // payload → where it was kept
			var swarm, sent atomic.Int64
			enough := make(chan struct{})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if away == "dead" {
				other.kill()
			} else {
				other.signal(syscall.SIGSTOP)
				t.Cleanup(func() { other.signal(syscall.SIGCONT) })
			}
			var all sync.WaitGroup
			for i := range 12 {
				c := connect5(t, publisher.mqtt)
				all.Go(func() {
					for ctx.Err() == nil {
						payload := fmt.Sprint(sent.Add(1))
						ack, err := c.mqtt.Publish(ctx, &paho.Publish{Topic: topics[i%3], QoS: 1, Payload: []byte(payload)})
						if err != nil || ack == nil || ack.ReasonCode >= 0x80 {
							return
						}
						if ack.Properties == nil {
							t.Errorf("%q was acknowledged without a word of where it is", payload)
							return
						}
						acked.Store(payload, ack.Properties.User.Get("custody"))
						if swarm.Add(1) == 300 {
							close(enough)
						}
					}
				})
			}
			select {
			case <-enough:
			case <-time.After(patience):
				t.Errorf("%d messages were acknowledged", swarm.Load())
			}
			publisher.kill()
			if err := os.RemoveAll(publisher.data); err != nil {
				t.Fatal(err)
			}
			cancel()
			all.Wait()
			if away == "dead" {
				other.start()
				other.ready()
			} else {
				other.signal(syscall.SIGCONT)
			}
			alone := 0
			acked.Range(func(payload, custody any) bool {
				switch custody {
				case "node": // after 2 s
					alone++
				case "swarm":
					eventually(t, patience, func() error {
						sub.mu.Lock()
						defer sub.mu.Unlock()
						if sub.got[payload.(string)] == 0 {
							return fmt.Errorf("%q was acknowledged by the swarm and has not come; %d of %d have", payload, len(sub.got), sent.Load())
						}
						return nil
					})
				default:
					t.Errorf("%q was acknowledged as kept at %q", payload, custody)
				}
				return !t.Failed()
			})
			t.Logf("%d of %d messages were acknowledged, %d of them at their node alone", swarm.Load(), sent.Load(), alone)
			if int64(alone) > swarm.Load()/2 {
				t.Errorf("%d messages were acknowledged at their node alone", alone)
			}
		})
	}
}
