package dht

import (
	"fmt"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

// peerSet is the nodes that this one is connected to: connected, identified, and speaking KadProtocol.
type peerSet struct {
	mu  sync.Mutex
	ids map[peer.ID]struct{}
}

func newPeerSet() *peerSet { return &peerSet{ids: make(map[peer.ID]struct{})} }

// add and remove report whether anything changed.
func (s *peerSet) add(id peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.ids[id]
	s.ids[id] = struct{}{}
	return !ok
}

func (s *peerSet) remove(id peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.ids[id]
	delete(s.ids, id)
	return ok
}

func (s *peerSet) has(id peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.ids[id]
	return ok
}

func (s *peerSet) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids)
}

// list returns the peers in the order of their IDs.
func (s *peerSet) list() []peer.ID {
	s.mu.Lock()
	out := make([]peer.ID, 0, len(s.ids))
	for id := range s.ids {
		out = append(out, id)
	}
	s.mu.Unlock()
	slices.Sort(out)
	return out
}

// peerEventsBuffer is how many events may wait for runPeers. libp2p's own goroutines wait when it is full.
const peerEventsBuffer = 512

func subscribePeers(lh host.Host) (event.Subscription, error) {
	sub, err := lh.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtPeerIdentificationFailed),
		new(event.EvtPeerProtocolsUpdated),
		new(event.EvtPeerConnectednessChanged),
	}, eventbus.BufSize(peerEventsBuffer), eventbus.Name("mozzie peers"))
	if err != nil {
		return nil, fmt.Errorf("watching connections: %w", err)
	}
	return sub, nil
}

// runPeers follows who is connected.
func (h *Host) runPeers(sub event.Subscription) {
	defer func() { _ = sub.Close() }()
	for _, id := range h.host.Network().Peers() {
		h.checkPeer(id) // came before sub
	}
	for {
		select {
		case <-h.ctx.Done():
			return
		case e, ok := <-sub.Out():
			if !ok {
				return
			}
			switch e := e.(type) {
			case event.EvtPeerIdentificationCompleted:
				h.checkPeer(e.Peer)
			case event.EvtPeerIdentificationFailed:
				h.unidentified(e.Peer, e.Reason)
			case event.EvtPeerProtocolsUpdated: // identified before its Kademlia had started
				h.checkPeer(e.Peer)
			case event.EvtPeerConnectednessChanged:
				h.checkPeer(e.Peer)
			}
		}
	}
}

// unidentified gives a connection up on which the other has not said who it is. libp2p asks once for each connection, for
// 5 s, which a busy machine may let pass: it would stay connected, and never be known to be a node. Who wants the other
// dials again.
func (h *Host) unidentified(id peer.ID, why error) {
	if h.peers.has(id) {
		return // by another connection
	}
	h.log.Debug("closing a connection without identification", "peer", id.String(), "error", why)
	_ = h.host.Network().ClosePeer(id)
}

// checkPeer looks at how things stand with id, whatever event it was: events may be late.
func (h *Host) checkPeer(id peer.ID) {
	if h.reserver != nil {
		h.reserver.poke()
	}
	if h.host.Network().Connectedness(id) != network.Connected {
		if h.peers.remove(id) {
			h.dialer.lost(id)
			h.told(id, false)
		}
		return
	}
	p, err := h.host.Peerstore().FirstSupportedProtocol(id, KadProtocol)
	if err != nil || p == "" {
		return
	}
	h.book.met(peer.AddrInfo{ID: id, Addrs: h.addrsOf(id)})
	news := h.peers.add(id)
	if h.direct(id) == nil {
		h.dialer.relayed(id)
	} else {
		h.dialer.connected(id)
		h.closeRelayed(id)
	}
	if news {
		h.told(id, true)
	}
}

// told passes news on.
func (h *Host) told(id peer.ID, connected bool) {
	h.log.Debug("node", "peer", id.String(), "connected", connected)
	h.exchange.changed(id, connected)
	if h.cfg.OnPeer != nil {
		h.cfg.OnPeer(id, connected)
	}
}
