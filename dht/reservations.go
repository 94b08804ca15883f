package dht

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// reservations decides at which relays to hold a reservation, and which circuit addresses to tell others. It has no
// clock and does nothing itself; reserver drives it.
type reservations struct {
	relays map[peer.ID]*relayPeer
	told   []ma.Multiaddr // the circuit addresses that others were told
	toldAt time.Time
}

// relayPeer is a node that this one is connected to directly, and that relays.
type relayPeer struct {
	id    peer.ID
	rank  relayRank
	near  Location       // its distance from this node, which spreads the load
	addrs []ma.Multiaddr // where others are most likely to reach it, the best first
	conns []string       // the connections to it

	over  string    // the connection that the reservation was made over, and ends with; "" for none
	until time.Time // when it ends anyway
	due   time.Time // when to ask, or ask again
	tries int       // failures in a row
	busy  bool      // being asked
}

// relayRank says how likely others are to reach a relay that this node is connected to, the best first.
type relayRank uint8

const (
	relayPublic    relayRank = iota // this node has dialled it at a public address
	relayRouted                     // or at one of another network
	relayDialledUs                  // it has dialled this node from another network, and may be behind a router itself
	relayNeighbour                  // it is in this node's network, perhaps behind the same router
	relayHere                       // it is on the same machine
)

func newReservations() *reservations { return &reservations{relays: make(map[peer.ID]*relayPeer)} }

// see takes in which relays this node is connected to now. A reservation ends with its connection.
func (r *reservations) see(now time.Time, relays []relayPeer) {
	seen := make(map[peer.ID]bool, len(relays))
	for _, p := range relays {
		seen[p.id] = true
		old := r.relays[p.id]
		if old == nil {
			p.due = now
			r.relays[p.id] = &p
			continue
		}
		old.rank, old.near, old.addrs, old.conns = p.rank, p.near, p.addrs, p.conns
		if old.over != "" && (!slices.Contains(p.conns, old.over) || now.After(old.until)) {
			old.over, old.due = "", now
		}
	}
	for id := range r.relays {
		if !seen[id] {
			delete(r.relays, id)
		}
	}
}

// next returns the relays to ask for a reservation now, marked busy, and when to call again. The best
// maxReservations are wanted; one that has refused gives way to the next until it is due again.
func (r *reservations) next(now time.Time) (ask []peer.ID, again time.Time) {
	again = now.Add(time.Hour)
	var wanted []*relayPeer
	for _, p := range r.relays {
		if p.due.After(now) {
			again = minTime(again, p.due)
		}
		if p.over != "" || p.busy || !p.due.After(now) {
			wanted = append(wanted, p)
		}
	}
	slices.SortFunc(wanted, (*relayPeer).compare)
	for _, p := range wanted[:min(len(wanted), maxReservations)] {
		if !p.busy && !p.due.After(now) {
			p.busy = true
			ask = append(ask, p.id)
		}
	}
	return ask, again
}

func (p *relayPeer) compare(o *relayPeer) int {
	return cmp.Or(cmp.Compare(p.rank, o.rank), slices.Compare(p.near[:], o.near[:]))
}

// reserved notes that a relay has granted a reservation over a connection. How long it stands is not taken from the
// answer, which has the time of the relay's clock: a Pi's may be years behind.
func (r *reservations) reserved(now time.Time, id peer.ID, over string) {
	if p := r.relays[id]; p != nil {
		p.busy, p.tries, p.over = false, 0, over
		p.until, p.due = now.Add(reservationTTL), now.Add(reservationTTL/2)
	}
}

// refused notes that a relay was asked in vain. A reservation that it had granted before stands as long as it did.
func (r *reservations) refused(now time.Time, id peer.ID) {
	if p := r.relays[id]; p != nil {
		p.busy = false
		p.due = now.Add(min(firstReserveWait<<min(p.tries, 16), maxReserveWait))
		p.tries++
	}
}

// held returns the relays with a reservation, the best first.
func (r *reservations) held() []*relayPeer {
	var out []*relayPeer
	for _, p := range r.relays {
		if p.over != "" {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, (*relayPeer).compare)
	return out
}

// circuits returns the circuit addresses to tell: one of each relay, then a second.
func (r *reservations) circuits() []ma.Multiaddr {
	held := r.held()
	var out []ma.Multiaddr
	for i := range maxCircuits {
		for _, p := range held {
			if i >= len(p.addrs) || len(out) == maxCircuits {
				continue
			}
			if a, err := circuitThrough(p.addrs[i], p.id); err == nil {
				out = append(out, a)
			}
		}
	}
	return out
}

// tell reports whether others are to be told now of other circuit addresses than before, and which; if not, when to
// call again. Where none of those that they know is any good, they are told at once.
func (r *reservations) tell(now time.Time) (circuits []ma.Multiaddr, yes bool, again time.Time) {
	again = now.Add(time.Hour)
	circuits = r.circuits()
	if sameAddrs(circuits, r.told) {
		return nil, false, again
	}
	good := slices.ContainsFunc(r.told, func(a ma.Multiaddr) bool { return slices.ContainsFunc(circuits, a.Equal) })
	if settled := r.toldAt.Add(circuitsSettle); good && settled.After(now) {
		return nil, false, settled
	}
	r.told, r.toldAt = circuits, now
	return circuits, true, again
}
