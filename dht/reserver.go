package dht

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	circuitpb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// maxReserveAnswer bounds a relay's answer; circuit relay v2 allows 4 KiB.
	maxReserveAnswer = 4 << 10
	// reserveBatch is how long changes of peers are collected before the reserver looks at them.
	reserveBatch = 100 * time.Millisecond
	// reserveTag protects the connections that reservations hang on from being trimmed.
	reserveTag = "mozzie-reservation"
)

// reserver carries reservations out: it has the clock, and asks relays.
type reserver struct {
	h    *Host
	log  *slog.Logger
	wake chan struct{} // of capacity 1: peers have changed, or a relay has answered

	mu   sync.Mutex
	plan *reservations
}

func newReserver(h *Host) *reserver {
	return &reserver{h: h, log: h.log, wake: make(chan struct{}, 1), plan: newReservations()}
}

// reserves reports whether this node is to be reached through relays: not where it listens for this machine alone,
// and not where it is said that everybody reaches it.
func (c *Config) reserves(listen []ma.Multiaddr) bool {
	return c.Relay && c.Reachability != ReachabilityPublic && (c.Reachability == ReachabilityPrivate || !onlyLoopback(listen))
}

// poke has the reserver look at the peers again.
func (r *reserver) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// runReserver keeps reservations until ctx ends, and tells of them.
func (r *reserver) runReserver(ctx context.Context) {
	emitter, err := r.h.host.EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated))
	if err != nil {
		r.log.Warn("not to be reached through relays", "error", err)
		return
	}
	defer func() { _ = emitter.Close() }()
	var wg sync.WaitGroup
	defer wg.Wait()
	var protected []peer.ID
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
			timer.Reset(reserveBatch)
			continue
		case <-timer.C:
		}
		relays := r.h.relayPeers()
		now := time.Now()
		r.mu.Lock()
		r.plan.see(now, relays)
		ask, again := r.plan.next(now)
		circuits, news, settled := r.plan.tell(now)
		held := r.plan.held()
		r.mu.Unlock()
		for _, id := range ask {
			wg.Go(func() { r.runReserve(ctx, id) })
		}
		protected = r.protect(protected, held)
		if news {
			r.tell(emitter, circuits)
		}
		timer.Reset(time.Until(minTime(again, settled)))
	}
}

// tell has libp2p ask for this node's addresses again (see addrsFactory) and push them to peers: that it does when it
// hears of relays. The addresses are not in the event, since it would take them only with AutoNAT's verdict.
func (r *reserver) tell(emitter event.Emitter, circuits []ma.Multiaddr) {
	r.log.Debug("can be reached through relays", "addresses", circuits)
	r.h.circuits.Store(&circuits)
	if err := emitter.Emit(event.EvtAutoRelayAddrsUpdated{}); err != nil {
		r.log.Debug("telling of relays", "error", err)
	}
}

// protect keeps the connections to relays from being trimmed.
func (r *reserver) protect(before []peer.ID, held []*relayPeer) (now []peer.ID) {
	cm := r.h.host.ConnManager()
	for _, p := range held {
		now = append(now, p.id)
		cm.Protect(p.id, reserveTag)
	}
	for _, id := range before {
		if !slices.Contains(now, id) {
			cm.Unprotect(id, reserveTag)
		}
	}
	return now
}

// runReserve asks one relay.
func (r *reserver) runReserve(ctx context.Context, id peer.ID) {
	over, err := r.h.reserve(ctx, id)
	r.mu.Lock()
	if err == nil {
		r.plan.reserved(time.Now(), id, over)
	} else {
		r.plan.refused(time.Now(), id)
	}
	r.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		r.log.Debug("asking a node to relay for this one", "peer", id.String(), "error", err)
	}
	r.poke()
}

// reservations returns how many relays have granted one.
func (r *reserver) reservations() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.plan.held())
}

// reserve asks a relay for a reservation, and returns the connection that it was granted over. libp2p's own function
// for it refuses what the relay has granted where the clock of one of them is wrong.
func (h *Host) reserve(ctx context.Context, id peer.ID) (over string, err error) {
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "a reservation hangs on the connection there is"), reserveTimeout)
	defer cancel()
	s, err := h.host.NewStream(ctx, id, circuit.ProtoIDv2Hop)
	if err != nil {
		return "", err
	}
	defer func() { _ = s.Reset() }()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	deadline, _ := ctx.Deadline()
	_ = s.SetDeadline(deadline)
	if isRelayed(s.Conn().RemoteMultiaddr()) {
		return "", fmt.Errorf("the connection to it is relayed itself")
	}
	if err := pbio.NewDelimitedWriter(s).WriteMsg(&circuitpb.HopMessage{Type: circuitpb.HopMessage_RESERVE.Enum()}); err != nil {
		return "", err
	}
	answer := new(circuitpb.HopMessage)
	if err := pbio.NewDelimitedReader(s, maxReserveAnswer).ReadMsg(answer); err != nil {
		return "", err
	}
	if answer.GetType() != circuitpb.HopMessage_STATUS || answer.GetStatus() != circuitpb.Status_OK {
		return "", fmt.Errorf("it answers %v", answer.GetStatus())
	}
	if answer.GetLimit() != nil {
		return "", fmt.Errorf("its circuits are limited, nodes do not talk over those")
	}
	_ = s.Close()
	return s.Conn().ID(), nil
}

// addrsFactory adds the circuit addresses to those that this node tells of itself.
func (h *Host) addrsFactory(addrs []ma.Multiaddr) []ma.Multiaddr {
	if c := h.circuits.Load(); c != nil {
		return slices.Concat(addrs, *c)
	}
	return addrs
}

// speaks reports whether a peer has said that it speaks a protocol.
func (h *Host) speaks(id peer.ID, p protocol.ID) bool {
	got, err := h.host.Peerstore().FirstSupportedProtocol(id, p)
	return err == nil && got != ""
}

// relayPeers returns the nodes that this one is connected to directly and that relay.
func (h *Host) relayPeers() []relayPeer {
	networks, _ := net.InterfaceAddrs()
	onLink := func(ip net.IP) bool {
		return slices.ContainsFunc(networks, func(a net.Addr) bool {
			n, ok := a.(*net.IPNet)
			return ok && n.Contains(ip)
		})
	}
	self := PeerPoint(string(h.ID()))
	var out []relayPeer
	for _, id := range h.peers.list() {
		c := h.direct(id)
		if c == nil || !h.speaks(id, circuit.ProtoIDv2Hop) {
			continue
		}
		p := relayPeer{id: id, rank: rankRelay(c, onLink), addrs: relayAddrs(c, h.host.Peerstore().Addrs(id)), near: PeerPoint(string(id))}
		for i := range p.near {
			p.near[i] ^= self[i]
		}
		for _, c := range h.host.Network().ConnsToPeer(id) {
			p.conns = append(p.conns, c.ID())
		}
		out = append(out, p)
	}
	return out
}

// rankRelay judges a relay by the connection to it.
func rankRelay(c network.Conn, onLink func(net.IP) bool) relayRank {
	a := c.RemoteMultiaddr()
	ip, err := manet.ToIP(a)
	switch {
	case err != nil:
		return relayNeighbour
	case ip.IsLoopback():
		return relayHere
	case onLink(ip):
		return relayNeighbour
	case c.Stat().Direction != network.DirOutbound:
		return relayDialledUs
	case manet.IsPublicAddr(a):
		return relayPublic
	}
	return relayRouted
}

// relayAddrs returns where others are likely to reach a relay: where this node has, then what it says of itself, public
// addresses first.
func relayAddrs(c network.Conn, said []ma.Multiaddr) []ma.Multiaddr {
	rank := func(a ma.Multiaddr) int {
		ip, err := manet.ToIP(a)
		switch {
		case err != nil || ip.IsLinkLocalUnicast():
			return 4
		case ip.IsLoopback():
			return 3
		case c.Stat().Direction == network.DirOutbound && a.Equal(c.RemoteMultiaddr()):
			return 0
		case manet.IsPublicAddr(a):
			return 1
		}
		return 2
	}
	var out []ma.Multiaddr
	if c.Stat().Direction == network.DirOutbound {
		out = append(out, c.RemoteMultiaddr())
	}
	for _, a := range said {
		if !isRelayed(a) && !slices.ContainsFunc(out, a.Equal) {
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(a, b ma.Multiaddr) int { return rank(a) - rank(b) })
	// What leads to this machine, or this link, alone is told only where there is nothing else.
	if n := slices.IndexFunc(out, func(a ma.Multiaddr) bool { return rank(a) >= 3 }); n > 0 {
		out = out[:n]
	}
	return out
}
