package mqttfront_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// TestStorm has more clients than there are client IDs connect, take each other's sessions over, subscribe, publish and
// vanish, all at once: nobody waits for ever, whatever meets whatever. Then the broker drains in the middle of it.
func TestStorm(t *testing.T) {
	for _, end := range []string{"calm", "drain"} {
		t.Run(end, func(t *testing.T) {
			b, _, addr := start(t, func(c *mqttfront.Config) {
				c.MaxSessionExpiry = 2 * time.Second
				c.MaxConnectionRate, c.MaxConnectionRatePerAddress = 0, 0
			})
			beside, _ := connect(t, addr, connectOpts{id: "beside"})
			stop, ending := make(chan struct{}), make(chan struct{})
			var storm sync.WaitGroup
			for i := range 12 {
				storm.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(i), 1))
					for !closedChan(stop) {
						if err := gust(rng, addr); err != nil {
							if !closedChan(ending) { // else nobody listens any more
								t.Error(err)
							}
							return
						}
					}
				})
			}
			for began := time.Now(); time.Since(began) < 1500*time.Millisecond; {
				beside.silent()
			}
			if end == "drain" {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				close(ending)
				if err := b.Drain(ctx); err != nil {
					t.Errorf("it does not drain: %v", err)
				}
				storm.Wait()
				return // start closes it
			}
			close(stop)
			storm.Wait()
			beside.silent()
			st := b.Stats()
			eventually(t, "all are gone", func() bool { return st.Connections.Load() == 1 && st.Sessions.Load() == 1 })
			// A session that ends is not counted any more while what it had is still being undone.
			eventually(t, "no subscription is left", func() bool { return st.Subscriptions.Load() == 0 })
			eventually(t, "no message is left in a queue", func() bool { return st.QueuedMessages.Load() == 0 })
		})
	}
}

func closedChan(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// gust is one connection: it must be answered, or closed because another has taken its session over.
func gust(rng *rand.Rand, addr string) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	r := &raw{nc: nc, version: byte(4 + rng.IntN(2))}
	o := connectOpts{id: fmt.Sprint("storm-", rng.IntN(4)), version: r.version, resume: rng.IntN(3) > 0}
	if rng.IntN(2) == 0 {
		o.will = &willOpts{topic: "storm/will", payload: "w", qos: byte(rng.IntN(3)), retain: rng.IntN(4) == 0}
	}
	if r.version == 5 {
		o.props = bytes.Join([][]byte{sessionExpiry(uint32(rng.IntN(3))), u16(0x21, uint16(1+rng.IntN(5)))}, nil)
		if o.will != nil {
			o.will.props = u32(0x18, uint32(rng.IntN(2)))
		}
	}
	say := [][]byte{o.encode()}
	for range rng.IntN(12) {
		id := uint16(1 + rng.IntN(5))
		switch rng.IntN(6) {
		case 0:
			say = append(say, r.subscribePacket(id, nil, filter{"storm/#", byte(rng.IntN(3))}, filter{"$share/g/storm/+", byte(rng.IntN(3))}))
		case 1:
			say = append(say, ackPacket(byte(4+rng.IntN(4)), id))
		case 2:
			say = append(say, []byte{0xc0, 0})
		default:
			flags := byte(rng.IntN(3))<<1 | byte(rng.IntN(8)/7)
			say = append(say, r.publishPacket(flags, id, fmt.Sprint("storm/", rng.IntN(3)), "p"))
		}
	}
	if rng.IntN(3) == 0 {
		say = append(say, []byte{0xe0, 0})
	}
	if _, err := nc.Write(bytes.Join(say, nil)); err != nil {
		return nil // taken over already
	}
	if rng.IntN(3) == 0 {
		if tc, ok := nc.(*net.TCPConn); ok {
			tc.SetLinger(0)
		}
		return nil
	}
	head := make([]byte, 4)
	if n, err := io.ReadFull(nc, head); err != nil {
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			return fmt.Errorf("CONNECT is not answered: %d bytes came, %w", n, err)
		}
	}
	return nil
}
