package dht

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// dialer carries schedule out: it has the clock and makes the dials.
type dialer struct {
	host  host.Host
	peers *peerSet
	book  *book
	// relaysTo returns circuit addresses for a peer that did not answer at its own.
	relaysTo func(peer.ID) []ma.Multiaddr
	log      *slog.Logger
	// private tells how to read a failure: see diagnose.
	private bool
	wake    chan struct{} // of capacity 1: something changed

	mu   sync.Mutex
	plan *schedule
	busy int
}

func newDialer(h *Host) *dialer {
	return &dialer{
		host: h.host, peers: h.peers, book: h.book, log: h.log, relaysTo: h.relaysTo, private: h.cfg.SwarmKey != nil,
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

// relayed notes that a peer is connected, through relays alone.
func (d *dialer) relayed(id peer.ID) {
	info := d.host.Peerstore().PeerInfo(id)
	info.Addrs = slices.DeleteFunc(info.Addrs, isRelayed)
	d.mu.Lock()
	d.plan.relayed(time.Now(), info)
	d.mu.Unlock()
	d.poke()
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

// Problem is a peer that is wanted and can't be reached.
type Problem struct {
	Peer peer.ID
	// Text says why, as far as the last try showed.
	Text string
	// Lasting tells that somebody has to do something about it.
	Lasting bool
}

// problems returns those of the peers that were configured or asked for, in the order of their IDs.
func (d *dialer) problems() []Problem {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Problem
	for id, t := range d.plan.targets {
		if t.why >= asked && t.failed != "" {
			lasting := t.failed == otherNode || t.failed == keyMismatch || t.failed == isPrivate
			out = append(out, Problem{Peer: id, Text: t.failed, Lasting: lasting})
		}
	}
	slices.SortFunc(out, func(a, b Problem) int { return cmp.Compare(a.Peer, b.Peer) })
	return out
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
		dials := make([]dial, 0, len(due))
		for _, t := range due {
			dials = append(dials, dial{t.info, t.tries > 0, t.relayed})
		}
		d.mu.Unlock()
		for _, it := range dials {
			wg.Go(func() { d.runDial(ctx, it) })
		}
		timer.Reset(again)
	}
}

// dial is one try to connect to a peer.
type dial struct {
	info   peer.AddrInfo
	again  bool // the last one failed: by relays too
	direct bool // there is a connection through a relay: not by relays
}

// runDial dials one peer, and tells the schedule how it went.
func (d *dialer) runDial(ctx context.Context, it dial) {
	err, info := d.dial(ctx, it), it.info
	d.mu.Lock()
	d.busy--
	var what diagnosis
	var log, why = false, heard
	if t := d.plan.targets[info.ID]; t != nil {
		t.busy = false
		why = t.why
		if err != nil && !it.direct {
			what = diagnose(err, d.private)
			log = t.newsworthy(what)
		}
		// A peer that is reached is connected only once it is known to be a node (runPeers). One that is
		// none, or whose identification is slow, is due again.
		if !t.up || t.relayed {
			d.plan.failed(time.Now(), info.ID)
		}
	}
	d.mu.Unlock()
	d.poke()
	if err != nil && ctx.Err() == nil {
		d.report(info, why, what, log, err)
	}
}

// newsworthy reports whether a failure is to be logged: once for each kind, the likely ones not before the
// second.
func (t *target) newsworthy(what diagnosis) bool {
	t.failed = what.text
	if what.sure >= doubtful {
		t.doubts++
	}
	if slices.Contains(t.logged, what.text) || what.sure == likely && t.doubts < 2 {
		return false
	}
	t.logged = append(t.logged, what.text)
	return true
}

// report logs a failure where somebody can do something about it.
func (d *dialer) report(info peer.AddrInfo, why reason, what diagnosis, log bool, err error) {
	addr := what.addr
	if addr == "" && len(info.Addrs) > 0 {
		addr = info.Addrs[0].String()
	}
	switch {
	case log && what.sure >= likely && why > heard:
		d.log.Warn("can't join a node: "+what.text, "peer", info.ID.String(), "address", addr)
	case log && why > met:
		d.log.Info("can't reach a node yet: "+what.text, "peer", info.ID.String(), "address", addr)
	default:
		d.log.Debug("can't reach a node", "peer", info.ID.String(), "address", addr, "error", err)
	}
}

func (d *dialer) dial(ctx context.Context, it dial) error {
	if !it.direct && d.host.Network().Connectedness(it.info.ID) == network.Connected {
		return nil
	}
	// The swarm has a back-off of its own, for dials that nobody paces. Ours are paced.
	if s, ok := d.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(it.info.ID)
	}
	addrs := it.info.Addrs
	if it.again && !it.direct {
		addrs = slices.Concat(addrs, d.relaysTo(it.info.ID))
	}
	d.host.Peerstore().AddAddrs(it.info.ID, addrs, peerstore.TempAddrTTL)
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	if it.direct {
		_, err := d.host.Network().DialPeer(network.WithForceDirectDial(ctx, "there is a relayed connection"), it.info.ID)
		return err
	}
	return d.host.Connect(ctx, it.info)
}
