package rendezvous

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// finish carries out the effects of the events so far, and lets go of mu.
func (s *Service) finish() {
	effects := s.core.Take(s.effects)
	now := time.Now()
	var safe, inTime []func()
	rest := 0 // effects that are for outside of the lock, moved to the front
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case core.Send:
			s.sendLocked(e, now)
		case core.Lookup:
			s.lookUpLocked(e.Place)
		case core.Quiet:
			s.quietLocked(e.Place.Prefix, e.Until-quietMargin)
		case core.Awake:
			s.awakeLocked()
		case core.Safe:
			safe = append(safe, e.Call)
		case core.SafeInTime:
			inTime = append(inTime, e.Call)
		default:
			effects[rest] = *e
			rest++
		}
	}
	if len(safe) > 0 {
		s.cfg.Sync(func(err error) { s.whenSafe(safe, err) })
	}
	if len(inTime) > 0 {
		s.cfg.SyncInTime(func(err error) { s.whenSafe(inTime, err) })
	}
	if rest > 0 {
		s.outsides++
	}
	s.tellDetoursLocked()
	s.full.Store(s.core.Full())
	s.wakeLinksLocked()
	if rest == 0 {
		clear(effects)
		s.effects = effects
		s.mu.Unlock()
		return
	}
	s.effects = nil
	s.deliverMu.Lock()
	s.mu.Unlock()
	s.outside(effects[:rest])
	s.deliverMu.Unlock()
	clear(effects)
	s.mu.Lock()
	s.outsides--
	s.tellDetoursLocked()
	if s.effects == nil {
		s.effects = effects
	}
	s.mu.Unlock()
}

// quietLocked has Wanted know where nobody else wants QoS 0. It may forget: then the core is asked again.
func (s *Service) quietLocked(prefix string, until time.Duration) {
	if _, there := s.quiet.Load().Swap(prefix, until); there {
		return
	}
	if s.quiets++; s.quiets > s.cfg.Limits.Locations {
		s.awakeLocked()
	}
}

func (s *Service) awakeLocked() {
	s.quiet.Store(new(sync.Map))
	s.quiets = 0
}

// tellDetoursLocked has Detour ask the core while there are messages on their way that come back, or what came back may
// still be on the way to the broker.
func (s *Service) tellDetoursLocked() {
	if n := int64(s.core.Detours()); n > 0 || s.outsides == 0 {
		s.detours.Store(n)
	}
}

// outside carries out the effects that are not under the lock; deliverMu keeps their order.
func (s *Service) outside(effects []core.Effect) {
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case core.Deliver:
			s.deliveries = append(s.deliveries, e.Delivery)
		case core.Accept, core.AcceptKept:
			s.accepted = append(s.accepted, Accepted{e.Delivery.Origin, e.Once, e.Packet, e.Custody, e.Kind == core.AcceptKept})
		case core.Call:
			s.called = append(s.called, e.Call)
		case core.Dial:
			s.dial(e)
		case core.Reconnect:
			s.cfg.Reconnect(peer.ID(e.To.Peer()))
		case core.Forget:
			if id := peer.ID(e.To.Peer()); id.Validate() == nil {
				s.cfg.Forget(id)
			}
		case core.Left:
			close(s.left)
		}
	}
	if len(s.accepted) > 0 {
		s.cfg.Accept(s.accepted)
		clear(s.accepted)
		s.accepted = s.accepted[:0]
	}
	if len(s.deliveries) > 0 {
		s.cfg.Deliver(s.deliveries)
		clear(s.deliveries)
		s.deliveries = s.deliveries[:0]
	}
	for i, f := range s.called { // what was found of retained messages is not what has just come
		s.queueCall(f)
		s.called[i] = nil
	}
	s.called = s.called[:0]
}

// whenSafe has the core go on with what waited for the disk. It may be called with mu held.
func (s *Service) whenSafe(calls []func(), err error) {
	if err != nil {
		return // the node is about to end
	}
	s.doneMu.Lock()
	s.safeCalls = append(s.safeCalls, calls...)
	s.doneMu.Unlock()
	wake(s.doneWake)
}

func (s *Service) dial(e *core.Effect) {
	id, err := peer.IDFromBytes([]byte(e.To.Peer()))
	if err != nil {
		return
	}
	info := peer.AddrInfo{ID: id}
	for _, a := range e.Addresses {
		if m, err := ma.NewMultiaddr(a); err == nil {
			info.Addrs = append(info.Addrs, m)
		}
	}
	s.cfg.Dial(info)
}

// lookUpLocked starts the lookup of a place, a few at a time; what it finds goes into the core. Under mu nothing
// is started that Close would not wait for.
func (s *Service) lookUpLocked(place core.Place) {
	if s.closed {
		return
	}
	s.wg.Go(func() {
		select {
		case s.lookups <- struct{}{}:
			defer func() { <-s.lookups }()
		case <-s.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(s.ctx, lookupTimeout)
		defer cancel()
		found, err := s.cfg.Closest(ctx, dht.LocationKey(place.Prefix, place.Depth))
		if err != nil {
			s.log.Debug("lookup of a location", "prefix", place.Prefix, "found", len(found), "error", err)
		}
		ids := make([]string, len(found))
		for i, id := range found {
			ids[i] = string(id)
		}
		s.step(func(n *core.Node) { n.LookedUp(place, ids) })
	})
}
