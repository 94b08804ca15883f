package dht

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
	ma "github.com/multiformats/go-multiaddr"
)

// testRelays returns n relays that a node may be connected to, all of one rank.
func testRelays(t *testing.T, n int, rank relayRank) []relayPeer {
	t.Helper()
	out := make([]relayPeer, n)
	for i := range out {
		id, err := test.RandPeerID()
		if err != nil {
			t.Fatal(err)
		}
		out[i] = relayPeer{id: id, rank: rank, near: PeerPoint(string(id)), conns: []string{"conn"}, addrs: []ma.Multiaddr{
			ma.StringCast(fmt.Sprintf("/ip4/192.0.2.%d/tcp/1", i+1)), ma.StringCast(fmt.Sprintf("/ip4/198.51.100.%d/tcp/1", i+1)),
		}}
	}
	return out
}

// grant asks those that are to be asked, and has them grant it; it returns how many there were.
func grant(r *reservations, now time.Time) int {
	ask, _ := r.next(now)
	for _, id := range ask {
		r.reserved(now, id, "conn")
	}
	return len(ask)
}

func TestReservationsTakeTheBest(t *testing.T) {
	r := newReservations()
	near := testRelays(t, 20, relayNeighbour)
	r.see(at, near)
	if n := grant(r, at); n != maxReservations {
		t.Fatalf("%d were asked", n)
	}
	if n := grant(r, at.Add(time.Second)); n != 0 {
		t.Errorf("%d more were asked", n)
	}
	far := testRelays(t, 3, relayPublic)
	r.see(at, append(near, far...))
	if n := grant(r, at); n != 3 {
		t.Errorf("%d of the 3 better ones were asked", n)
	}
	for i, p := range r.held()[:3] {
		if p.rank != relayPublic {
			t.Errorf("number %d is of rank %d", i, p.rank)
		}
	}
	// Those that were asked first and are not wanted any more lapse.
	now := at.Add(reservationTTL / 2)
	if n := grant(r, now); n != maxReservations {
		t.Errorf("%d were asked again", n)
	}
	now = at.Add(reservationTTL + time.Second)
	r.see(now, append(near, far...))
	if n := len(r.held()); n != maxReservations {
		t.Errorf("%d are held in the end", n)
	}
}

func TestReservationsEndWithTheConnection(t *testing.T) {
	r := newReservations()
	relays := testRelays(t, 2, relayRouted)
	r.see(at, relays)
	grant(r, at)
	relays[0].conns = []string{"another"}
	r.see(at, relays)
	if n := len(r.held()); n != 1 {
		t.Errorf("%d are held after one was connected anew", n)
	}
	ask, _ := r.next(at)
	if len(ask) != 1 || ask[0] != relays[0].id {
		t.Errorf("asked %v", ask)
	}
	r.see(at, relays[1:])
	r.reserved(at, relays[0].id, "another") // too late
	if n := len(r.held()); n != 1 {
		t.Errorf("%d are held after the other was lost", n)
	}
}

func TestReservationsRefused(t *testing.T) {
	r := newReservations()
	r.see(at, testRelays(t, maxReservations+1, relayPublic))
	var refuses peer.ID
	ask, _ := r.next(at)
	for i, id := range ask {
		if i == 0 {
			refuses = id
			r.refused(at, id)
		} else {
			r.reserved(at, id, "conn")
		}
	}
	ask, again := r.next(at)
	if len(ask) != 1 || ask[0] == refuses {
		t.Fatalf("asked %v in place of the one that refused", ask)
	}
	r.refused(at, ask[0])
	if !again.Equal(at.Add(firstReserveWait)) {
		t.Errorf("again after %v", again.Sub(at))
	}
	now, wait := at, time.Duration(0)
	for range 16 {
		_, again := r.next(now)
		if wait = again.Sub(now); wait > maxReserveWait {
			t.Fatalf("waits %v", wait)
		}
		now = again
		ask, _ := r.next(now)
		for _, id := range ask {
			r.refused(now, id)
		}
	}
}

func TestCircuits(t *testing.T) {
	r := newReservations()
	if _, yes, _ := r.tell(at); yes {
		t.Error("tells of nothing")
	}
	relays := testRelays(t, 3, relayPublic)
	r.see(at, relays[:1])
	grant(r, at)
	got, yes, _ := r.tell(at)
	if !yes || len(got) != 2 {
		t.Fatalf("tells %v of both addresses of the first relay: %v", yes, got)
	}
	r.see(at, relays)
	grant(r, at)
	if _, yes, again := r.tell(at.Add(time.Second)); yes || !again.Equal(at.Add(circuitsSettle)) {
		t.Errorf("tells of others at once: %v, again after %v", yes, again.Sub(at))
	}
	got, yes, _ = r.tell(at.Add(circuitsSettle))
	if !yes || len(got) != maxCircuits {
		t.Errorf("%v: %v", yes, got)
	}
	through := map[string]bool{}
	for _, a := range got {
		id, err := a.ValueForProtocol(ma.P_P2P)
		if err != nil || !isRelayed(a) || !isPlaced(a) {
			t.Errorf("%v: %v", a, err)
		}
		through[id] = true
	}
	if len(through) != 3 {
		t.Errorf("they lead through %d relays", len(through))
	}
	r.see(at.Add(circuitsSettle), nil)
	if got, yes, _ := r.tell(at.Add(circuitsSettle)); !yes || len(got) > 0 {
		t.Errorf("with all relays lost it tells %v at once: %v", got, yes)
	}
}
