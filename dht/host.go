package dht

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	kaddht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
)

// Host is this node's place in the swarm. All its methods may be called at any time by anyone, also after
// Close, when they do nothing or fail.
type Host struct {
	cfg Config
	log *slog.Logger

	host     host.Host
	kad      *kaddht.IpfsDHT
	peers    *peerSet
	book     *book
	dialer   *dialer
	exchange *exchange
	relay    io.Closer // this node as a relay for others
	reserver *reserver // relays for this node; nil where it needs none
	circuits atomic.Pointer[[]ma.Multiaddr]

	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// Open starts a host. It reads and writes files in cfg.Dir and binds ports, and does not wait for the
// network. ctx bounds Open, not the life of the Host. When Open fails it leaves nothing running.
func Open(ctx context.Context, cfg Config) (_ *Host, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	setLibraryLogs(cfg.Log)
	h := &Host{cfg: cfg, log: cfg.Log, peers: newPeerSet()}
	h.ctx, h.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	listen, err := h.listenAddrs()
	if err != nil {
		return nil, err
	}
	if h.host, err = h.newLibp2p(listen); err != nil {
		return nil, err
	}
	if err := checkBound(listen, h.host.Network().ListenAddresses()); err != nil {
		return nil, err
	}
	h.book = openBook(cfg.Dir, h.log)
	h.dialer = newDialer(h)
	h.exchange = newExchange(h)
	if cfg.reserves(listen) {
		h.reserver = newReserver(h)
	}
	if h.relay, err = h.startRelay(); err != nil {
		return nil, err
	}
	sub, err := subscribePeers(h.host)
	if err != nil {
		return nil, err
	}
	if h.kad, err = newKad(h.host); err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	h.run(sub)
	return h, nil
}

// listenAddrs returns the addresses that can be listened on.
func (h *Host) listenAddrs() ([]ma.Multiaddr, error) {
	listen, err := parseListen(h.cfg.Listen)
	if err != nil {
		return nil, err
	}
	if h.cfg.SwarmKey != nil {
		n := len(listen)
		listen = slices.DeleteFunc(listen, isQUIC)
		if n > 0 && len(listen) == 0 {
			return nil, fmt.Errorf("nothing to listen on: a private swarm works over TCP alone, and all addresses given are QUIC; add one like %s", exampleListen)
		}
		if n > len(listen) {
			h.log.Info("a private swarm works over TCP alone: not listening for QUIC", "left_out", n-len(listen))
		}
	}
	return checkListen(listen)
}

// checkBound makes sure that libp2p listens on all of want: it is content with one.
func checkBound(want, got []ma.Multiaddr) error {
	if len(got) >= len(want) {
		return nil
	}
	for _, a := range want {
		if !slices.ContainsFunc(got, a.Equal) && !strings.Contains(a.String(), "/tcp/0") && !strings.Contains(a.String(), "/udp/0") {
			return fmt.Errorf("can't listen on %q: the port was taken meanwhile", a)
		}
	}
	return fmt.Errorf("can't listen on all of %v", want)
}

// run starts the goroutines, and asks for the peers that are known from before.
func (h *Host) run(sub event.Subscription) {
	h.host.SetStreamHandler(peersProtocol, h.exchange.answer)
	h.wg.Go(func() { h.runPeers(sub) })
	h.wg.Go(func() { h.dialer.runDialer(h.ctx) })
	h.wg.Go(func() { h.exchange.runExchange(h.ctx) })
	h.wg.Go(func() { h.book.runBook(h.ctx) })
	if h.reserver != nil {
		h.wg.Go(func() { h.reserver.runReserver(h.ctx) })
	}
	if h.cfg.MDNS {
		d := &discovery{host: h.host, service: mdnsService(h.cfg.SwarmKey), log: h.log}
		d.found = func(info peer.AddrInfo) { h.dialer.add(info, heard) }
		h.wg.Go(func() { d.runMDNS(h.ctx) })
	}
	infos, _ := ParsePeers(h.cfg.Bootstrap) // Validate has seen them
	for _, info := range infos {
		if info.ID == h.ID() {
			continue // one list serves all nodes
		}
		h.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.PermanentAddrTTL)
		h.dialer.add(info, bootstrap)
	}
	for _, info := range h.book.list() {
		h.dialer.add(info, met)
	}
}

// ID returns the node's ID.
func (h *Host) ID() peer.ID { return h.host.ID() }

// Libp2p returns the libp2p host, for streams of the caller's own.
func (h *Host) Libp2p() host.Host { return h.host }

// Connected returns the nodes of the swarm that this one has a connection to, in the order of their IDs.
func (h *Host) Connected() []peer.ID { return h.peers.list() }

// Reservations returns with how many nodes this one holds a reservation, so that it can be reached through them.
func (h *Host) Reservations() int {
	if h.reserver == nil {
		return 0
	}
	return h.reserver.reservations()
}

// Dial asks for a connection to a peer, and tries until there is one or the peer is forgotten. It returns at
// once. At most maxTargets peers are tried at a time; where there are more, those that somebody only
// mentioned give way.
func (h *Host) Dial(info peer.AddrInfo) { h.dialer.add(info, asked) }

// Forget gives a peer up: it is not dialled any more, nor at the next start. A connection to it stays.
func (h *Host) Forget(id peer.ID) {
	h.dialer.forget(id)
	h.book.forget(id)
}

// Reconnect gives up the connections to a peer, which seem to carry nothing any more, and has it dialled as one that was lost. It
// returns at once.
func (h *Host) Reconnect(id peer.ID) {
	if h.ctx.Err() != nil {
		return // they all are about to go
	}
	h.wg.Go(func() {
		h.log.Debug("giving up connections that carry nothing", "peer", id.String())
		_ = h.host.Network().ClosePeer(id) // who hears of it or not, they are gone
	})
}

// Known returns the peers met before, those met last first. They are kept in the data directory.
func (h *Host) Known() []peer.AddrInfo { return h.book.list() }

// Problems returns the bootstrap peers, and those asked for with Dial, that could not be reached the last time.
func (h *Host) Problems() []Problem { return h.dialer.problems() }

// Addrs returns the multiaddresses of this node, at most maxAddrs: the one at which others are most likely to reach
// it first, those through relays and loopback last.
func (h *Host) Addrs() []ma.Multiaddr {
	addrs := slices.Clone(h.host.Addrs())
	sortAddrs(addrs, routeIP())
	return someAddrs(addrs, maxAddrs)
}

// Addresses returns all of them as full multiaddresses, ending in /p2p/ID.
func (h *Host) Addresses() []string {
	addrs := slices.Clone(h.host.Addrs())
	sortAddrs(addrs, routeIP())
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String()+"/p2p/"+h.ID().String())
	}
	return out
}

// Invite returns what another node needs to join: the swarm key, and where this node is. Loopback addresses
// are left out, unless there are no others.
func (h *Host) Invite() Invite {
	addrs := slices.Clone(h.host.Addrs())
	sortAddrs(addrs, routeIP())
	if !onlyLoopback(addrs) {
		addrs = slices.DeleteFunc(addrs, isLoopback)
	}
	inv := Invite{Key: h.cfg.SwarmKey}
	// The second circuit address leads through another relay, or to the same in another way: one is enough.
	if i := slices.IndexFunc(addrs, isRelayed); i >= inviteAddrs {
		addrs[inviteAddrs-1] = addrs[i]
	}
	for _, a := range addrs[:min(len(addrs), inviteAddrs)] {
		inv.Addrs = append(inv.Addrs, a.String()+"/p2p/"+h.ID().String())
	}
	return inv
}

// Close stops the host, after it has saved the peers met. It waits for its own goroutines, and for libp2p
// no longer than closeTimeout.
func (h *Host) Close() error {
	h.closeOnce.Do(func() {
		h.cancel()
		done := make(chan error, 1)
		go func() {
			var errs []error
			if h.relay != nil {
				errs = append(errs, h.relay.Close())
			}
			if h.kad != nil {
				errs = append(errs, h.kad.Close())
			}
			if h.host != nil {
				errs = append(errs, h.host.Close())
			}
			h.wg.Wait()
			done <- errors.Join(errs...)
		}()
		select {
		case h.closeErr = <-done:
		case <-time.After(closeTimeout):
			h.closeErr = fmt.Errorf("libp2p has not stopped within %v, going on without waiting", closeTimeout)
		}
	})
	return h.closeErr
}
