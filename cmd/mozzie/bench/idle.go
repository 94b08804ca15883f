package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// Idle is many clients that do nothing, to see what they cost a broker.
type Idle struct {
	Client  client.Options // as in Load
	Brokers []string       // host:port, used in turn
	Clients int
	Rate    float64       // connections/s while they come; 0: as fast as can be
	Offline bool          // they have left a session behind, with one subscription, instead of being connected
	Hold    time.Duration // how long they have been there when the memory is read
	PIDs    []int         // processes of the brokers
}

// IdleResult is what they cost.
type IdleResult struct {
	Clients   int       `json:"clients"`
	Offline   bool      `json:"offline"`
	Latency   Latency   `json:"connect_us"`
	RSS       int64     `json:"rss_bytes"`            // of all brokers, before
	PerClient float64   `json:"rss_bytes_per_client"` // how much it grew by
	CPU       float64   `json:"cores"`                // of all brokers, while they were held
	Brokers   []Process `json:"brokers"`
}

// idleAtOnce is how many connections are opened at a time.
const idleAtOnce = 32

// DefaultIdleRate is how fast the clients come, unless somebody says otherwise: brokers have limits on that.
const DefaultIdleRate = 800

// minIdleHold is how long at least the clients are held: less says nothing about CPU time.
const minIdleHold = time.Second

// Complete says what makes no sense. The errors name the flags of mozzie bench.
func (i *Idle) Complete() error {
	switch {
	case i.Clients < 1 || i.Clients > maxConnections:
		return fmt.Errorf("--clients %d: want 1 to %d", i.Clients, maxConnections)
	case len(i.PIDs) == 0:
		return errors.New("what idle clients cost is read from the broker's process; name it with --pid")
	case i.Rate < 0:
		return fmt.Errorf("--rate %g: want 0 or more", i.Rate)
	case i.Hold < minIdleHold:
		return fmt.Errorf("--duration %v: want %v at least", i.Hold, minIdleHold)
	}
	return nil
}

// MeasureIdle connects the clients, holds them, and lets them go. It calls watch, if there is one, about once a second.
func MeasureIdle(ctx context.Context, i Idle, watch func(connected int)) (*IdleResult, error) {
	r := &idleRun{Idle: i, id: rand.Uint32(), held: make([]*client.Raw, i.Clients)}
	defer r.release()
	res := &IdleResult{Clients: i.Clients, Offline: i.Offline}
	before, err := r.usage()
	if err != nil {
		return nil, err
	}
	if err := r.each(ctx, watch, r.enter); err != nil {
		return nil, err
	}
	res.Latency = latencyOf(&r.took)
	settled, err := r.usage()
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, i.Hold); err != nil {
		return nil, err
	}
	after, err := r.usage()
	if err != nil {
		return nil, err
	}
	for n, u := range after {
		cpu := (u.cpu - settled[n].cpu).Seconds() / i.Hold.Seconds()
		res.Brokers = append(res.Brokers, Process{PID: i.PIDs[n], CPU: cpu, RSS: u.rss})
		res.RSS += before[n].rss
		res.CPU += cpu
		res.PerClient += float64(u.rss-before[n].rss) / float64(i.Clients)
	}
	return res, nil
}

type idleRun struct {
	Idle
	id   uint32
	held []*client.Raw

	mu   sync.Mutex
	took histogram
	done int
}

func (r *idleRun) usage() (all []usage, err error) {
	for _, pid := range r.PIDs {
		u, err := usageOf(pid)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

// each does something for each client, some at a time and no faster than the rate, until one fails.
func (r *idleRun) each(ctx context.Context, watch func(int), do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var working sync.WaitGroup
	next := make(chan int)
	for range idleAtOnce {
		working.Go(func() {
			for n := range next {
				if err := do(ctx, n); err != nil {
					cancel(fmt.Errorf("client %d: %w", n+1, err))
				}
			}
		})
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	began := time.Now()
	for n := 0; n < r.Clients && ctx.Err() == nil; {
		if r.Rate > 0 && float64(n) > r.Rate*time.Since(began).Seconds() {
			if sleep(ctx, time.Duration(float64(time.Second)/r.Rate)) != nil {
				break
			}
		}
		select {
		case next <- n:
			n++
		case <-ctx.Done():
		case <-tick.C:
			if watch != nil {
				watch(n)
			}
		}
	}
	close(next)
	working.Wait()
	return context.Cause(ctx)
}

func (r *idleRun) options(n int) client.Options {
	o := r.Client
	o.Address = r.Brokers[n%len(r.Brokers)]
	o.ClientID = fmt.Sprintf("idle%08x%d", r.id, n)
	o.Clean = true
	return o
}

// enter makes a client be there: connected, or with a session behind it.
func (r *idleRun) enter(ctx context.Context, n int) error {
	o := r.options(n)
	if r.Offline {
		o.Clean = false
		if o.Version == client.Version5 {
			o.SessionExpiry = client.NeverExpires
		}
	}
	began := time.Now()
	raw, err := client.OpenRaw(ctx, o)
	if err != nil {
		return err
	}
	took := time.Since(began)
	if r.Offline {
		filter := fmt.Sprintf("idle-%08x/%d", r.id, n)
		err = raw.Subscribe(ctx, []client.Subscription{{Filter: filter, QoS: 1}})
		goodbye(raw)
	} else {
		r.held[n] = raw
	}
	r.mu.Lock()
	r.took.add(took)
	r.done++
	r.mu.Unlock()
	return err
}

// goodbye ends a connection politely.
func goodbye(raw *client.Raw) {
	raw.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = raw.Conn.Write([]byte{disconnectFirst, 0}) // it may be gone already
	raw.Conn.Close()
}

// release lets all clients go, and removes the sessions that they left.
func (r *idleRun) release() {
	_ = r.each(context.Background(), nil, func(ctx context.Context, n int) error {
		if r.held[n] != nil {
			goodbye(r.held[n])
		} else if r.Offline && n < r.done+idleAtOnce { // some beyond those that are known to have got in
			if raw, err := client.OpenRaw(ctx, r.options(n)); err == nil {
				goodbye(raw)
			}
		}
		return nil
	})
}
