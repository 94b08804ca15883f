package dht

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	kaddht "github.com/libp2p/go-libp2p-kad-dht"
	kbucket "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
)

// Closest looks up the nodes closest to the location whose key (LocationKey) is given: at most k, closest
// first, this node among them where it belongs. Only nodes that answered during the lookup are returned, and
// the β closest of all that can be reached have been asked; the ones after may have gaps. A node that knows
// nobody returns itself.
//
// A lookup takes a few round trips, and requestTimeout or dialTimeout more where it meets a node that hangs.
// When ctx ends before the lookup does, Closest returns what has answered together with ctx's error.
func (h *Host) Closest(ctx context.Context, key []byte) ([]peer.ID, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, answers := routing.RegisterForQueryEvents(ctx)
	ctx, progress := kaddht.RegisterForLookupEvents(ctx)

	answered := make(map[peer.ID]bool)
	over := make(chan struct{})
	lookup := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := h.kad.GetClosestPeers(ctx, string(key))
		lookup <- err
	})
	wg.Go(func() { watchLookup(progress, over) })

	// kad-dht ends a lookup when the β closest have answered, and then asks the rest of the k closest, whose
	// answers it throws away and whose silence it waits for: they get followUpGrace.
	var err error
	var grace <-chan time.Time
	in := answers
collect:
	for {
		select {
		case ev, ok := <-in:
			if !ok {
				in = nil // ctx ended, and the lookup will
			} else if ev.Type == routing.PeerResponse {
				answered[ev.ID] = true
			}
		case <-over:
			over = nil
			grace = time.After(followUpGrace)
		case <-grace:
			break collect
		case err = <-lookup:
			break collect
		}
	}
	finished := grace != nil
	cause := context.Cause(ctx)
	cancel()
	for ev := range answers { // closed once cancelled; what is still in it has answered
		if ev.Type == routing.PeerResponse {
			answered[ev.ID] = true
		}
	}
	wg.Wait()

	out := h.closestOf(key, answered)
	switch {
	case finished || err == nil && cause == nil, errors.Is(err, kbucket.ErrLookupFailure):
		return out, nil
	case cause != nil:
		return out, fmt.Errorf("looking up a location: %w", cause)
	default:
		return out, fmt.Errorf("looking up a location: %w", err)
	}
}

// watchLookup closes over when the lookup proper ended of itself. It reads to the end, since the events are
// sent while the lookup waits.
func watchLookup(progress <-chan *kaddht.LookupEvent, over chan<- struct{}) {
	for ev := range progress {
		if over != nil && ev.Terminate != nil && ev.Terminate.Reason != kaddht.LookupCancelled {
			close(over)
			over = nil
		}
	}
}

// closestOf returns the k of answered and this node that are closest to key.
func (h *Host) closestOf(key []byte, answered map[peer.ID]bool) []peer.ID {
	type point struct {
		id peer.ID
		at Location
	}
	target := Location(sha256.Sum256(key)) // kad-dht's conversion, and Locate's
	points := make([]point, 0, len(answered)+1)
	points = append(points, point{h.ID(), PeerPoint(string(h.ID()))})
	for id := range answered {
		if id != h.ID() {
			points = append(points, point{id, PeerPoint(string(id))})
		}
	}
	slices.SortFunc(points, func(a, b point) int {
		switch {
		case target.Closer(a.at, b.at):
			return -1
		case target.Closer(b.at, a.at):
			return 1
		}
		return 0
	})
	out := make([]peer.ID, 0, kadK)
	for _, p := range points[:min(len(points), kadK)] {
		out = append(out, p.id)
	}
	return out
}
