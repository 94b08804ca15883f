package dht

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// dialer carries schedule out: it has the clock and makes the dials.
type dialer struct {
	host  host.Host
	peers *peerSet
	book  *book
	log   *slog.Logger
	// private tells how to read a failure: see diagnose.
	private bool
	wake    chan struct{} // of capacity 1: something changed

	mu   sync.Mutex
	plan *schedule
	busy int
}

func newDialer(h *Host) *dialer {
	return &dialer{
		host: h.host, peers: h.peers, book: h.book, log: h.log, private: h.cfg.SwarmKey != nil,
		wake: make(chan struct{}, 1),
		plan: newSchedule(h.host.ID(), h.cfg.Small, func(d time.Duration) time.Duration {
			return rand.N(d) //nolint:gosec // jitter
		}),
	}
}

// add asks for a peer.
func (d *dialer) add(info peer.AddrInfo, why reason) {
	if why != bootstrap && d.peers.has(info.ID) {
		return
	}
	d.mu.Lock()
	ok := d.plan.add(time.Now(), info, why)
	d.mu.Unlock()
	if ok {
		d.poke()
	}
}

func (d *dialer) forget(id peer.ID) {
	d.mu.Lock()
	d.plan.forget(id)
	d.mu.Unlock()
}

func (d *dialer) connected(id peer.ID) {
	d.mu.Lock()
	d.plan.connected(time.Now(), id)
	d.mu.Unlock()
}

// lost asks for a peer again, unless it was forgotten meanwhile.
func (d *dialer) lost(id peer.ID) {
	info, ok := d.book.get(id)
	d.mu.Lock()
	if ok || d.plan.targets[id] != nil {
		d.plan.lost(time.Now(), info)
	}
	d.mu.Unlock()
	d.poke()
}

func (d *dialer) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// runDialer starts the dials that are due.
func (d *dialer) runDialer(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-timer.C:
		}
		d.mu.Lock()
		due, again := d.plan.next(time.Now(), d.peers.len(), maxDials-d.busy)
		d.busy += len(due)
		infos := make([]peer.AddrInfo, 0, len(due))
		for _, t := range due {
			infos = append(infos, t.info)
		}
		d.mu.Unlock()
		for _, info := range infos {
			wg.Go(func() { d.runDial(ctx, info) })
		}
		timer.Reset(again)
	}
}

// runDial dials one peer, and tells the schedule how it went.
func (d *dialer) runDial(ctx context.Context, info peer.AddrInfo) {
	err := d.dial(ctx, info)
	d.mu.Lock()
	d.busy--
	t := d.plan.targets[info.ID]
	var why reason
	var first bool
	var found diagnosis
	if t != nil {
		why = t.why
		t.busy = false
		if err != nil {
			found = diagnose(err, d.private)
			first = found.text != t.logged
			t.logged = found.text
		}
		// A peer that is reached is connected only once it is known to be a node (runPeers). One that is
		// none, or whose identification is slow, is due again.
		if err != nil || !t.up {
			d.plan.failed(time.Now(), info.ID)
		}
	}
	d.mu.Unlock()
	d.poke()
	if err != nil && ctx.Err() == nil {
		d.report(info, why, found, first, err)
	}
}

// report logs a failure: once for each peer and kind, and only where somebody can do something about it.
func (d *dialer) report(info peer.AddrInfo, why reason, found diagnosis, first bool, err error) {
	addr := found.addr
	if addr == "" && len(info.Addrs) > 0 {
		addr = info.Addrs[0].String()
	}
	switch {
	case first && found.serious && why != heard:
		d.log.Warn("a node can't be joined: "+found.text, "peer", info.ID.String(), "address", addr)
	case first && why >= asked:
		d.log.Info("a node can't be reached, trying again until it answers", "peer", info.ID.String(), "address", addr, "reason", found.text)
	default:
		d.log.Debug("a node can't be reached", "peer", info.ID.String(), "address", addr, "error", err)
	}
}

func (d *dialer) dial(ctx context.Context, info peer.AddrInfo) error {
	if d.host.Network().Connectedness(info.ID) == network.Connected {
		return nil
	}
	// The swarm has a back-off of its own, for dials that nobody paces. Ours are paced.
	if s, ok := d.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID)
	}
	d.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	return d.host.Connect(ctx, info)
}
