package roam

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// TestClaims has several nodes claim one session at random moments, at the same time too, while claims and questions take their time
// and links break. At the end one node holds it, the one with the highest number, and everybody else has given it up.
func TestClaims(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 2+int(seed%4)) //nolint:gosec // small
		defer w.close()
		const key = "\x00c"
		claims := 0
		var under sync.WaitGroup
		turns := make([]chan struct{}, len(w.nodes)) // at one node one after another, as brokers have it
		for i := range turns {
			turns[i] = make(chan struct{}, 1)
		}
		for range 5 + w.below(15) {
			n := w.nodes[w.below(len(w.nodes))]
			claims++
			under.Go(func() {
				turns[n.i] <- struct{}{}
				defer func() { <-turns[n.i] }()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				if n.r.Holds(key) { // as brokers ask before
					return
				}
				a, err := n.r.Claim(ctx, key)
				switch {
				case err != nil:
					n.r.Release(key)
				case a != nil:
					a.Close()
				}
				n.r.Keep(key, mqttfront.SessionRecord{Version: 5, Expiry: time.Hour}, nil)
			})
			if w.chance(3) {
				w.cutOne(w.chance(2))
			}
			time.Sleep(w.pause())
		}
		w.cutOne(false)
		under.Wait()
		settle(t, time.Minute, func() error { // those that are refused may claim again, as clients do
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if w.nodes[0].r.Holds(key) {
				return nil
			}
			_, err := w.nodes[0].r.Claim(ctx, key)
			return err
		})
		w.nodes[0].r.Keep(key, mqttfront.SessionRecord{Version: 5, Expiry: time.Hour}, nil)
		settle(t, time.Minute, func() error { return w.oneHolder(key) })
		t.Logf("%d nodes, %d claims", len(w.nodes), claims)
	})
}

// oneHolder fails until one node holds a session, and that is the one of the highest claim.
func (w *world) oneHolder(key string) error {
	var holder peer.ID
	var highest uint64
	for _, n := range w.nodes {
		n.r.mu.Lock()
		h := n.r.held[key]
		mine := h != nil && h.mine
		if mine && holder != "" {
			n.r.mu.Unlock()
			return fmt.Errorf("%v and %v hold it", holder, n.id)
		}
		if mine {
			holder, highest = n.id, h.number
		}
		n.r.mu.Unlock()
	}
	w.mu.Lock()
	var c claim
	ok := false
	if m := w.retained[NameOf(key)]; m != nil {
		c, ok = parse(m)
	}
	w.mu.Unlock()
	if !ok || c.node != holder || c.GetNumber() != highest {
		return fmt.Errorf("%v holds it by %d, %v is known to by %d", holder, highest, c.node, c.GetNumber())
	}
	return nil
}
