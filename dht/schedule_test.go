package dht

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// at is some moment: a schedule has no clock.
var at = time.Unix(1e9, 0)

func newTestSchedule(small int) *schedule {
	return newSchedule("m", small, func(d time.Duration) time.Duration { return d })
}

func info(id string) peer.AddrInfo {
	return peer.AddrInfo{ID: peer.ID(id), Addrs: []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1")}}
}

// dialled returns whom to dial now, as text.
func dialled(s *schedule, now time.Time, connected, room int) string {
	due, _ := s.next(now, connected, room)
	var out string
	for _, t := range due {
		out += string(t.info.ID)
	}
	return out
}

func TestScheduleOrder(t *testing.T) {
	s := newTestSchedule(100)
	s.add(at, info("h"), heard)
	s.add(at, info("k"), met)
	s.add(at, info("a"), asked)
	s.add(at, info("b"), bootstrap)
	if got := dialled(s, at, 0, 3); got != "bak" {
		t.Errorf("dialled %q, want the ones that matter most", got)
	}
	if got := dialled(s, at, 0, 3); got != "" {
		t.Errorf("dialled %q with room, but heard ones first wait for the other's dial", got)
	}
	if got := dialled(s, at.Add(mayBeDialled), 0, 3); got != "h" {
		t.Errorf("dialled %q, want h", got)
	}
	if got := dialled(s, at.Add(time.Hour), 0, 3); got != "" {
		t.Errorf("dialled %q again while being dialled", got)
	}
}

func TestScheduleRefuses(t *testing.T) {
	s := newTestSchedule(100)
	if s.add(at, info("m"), bootstrap) {
		t.Error("dials itself")
	}
	if s.add(at, peer.AddrInfo{ID: "x"}, asked) {
		t.Error("dials no address")
	}
}

func TestScheduleBacksOff(t *testing.T) {
	for _, c := range []struct {
		why  reason
		last time.Duration
	}{{bootstrap, 15 * time.Second}, {asked, time.Minute}, {met, 5 * time.Minute}} {
		s := newTestSchedule(100)
		s.add(at, info("x"), c.why)
		now, wait := at, time.Duration(0)
		for range 12 {
			if got := dialled(s, now, 0, 1); got != "x" {
				t.Fatalf("reason %d: dialled %q after %v", c.why, got, wait)
			}
			s.failed(now, "x")
			_, again := s.next(now, 0, 1)
			if again < wait {
				t.Errorf("reason %d: %v after %v", c.why, again, wait)
			}
			wait = again
			now = now.Add(wait)
		}
		if wait != c.last {
			t.Errorf("reason %d: waits %v in the end, want %v", c.why, wait, c.last)
		}
	}
}

func TestScheduleGivesHeardOnesUp(t *testing.T) {
	s := newTestSchedule(100)
	s.add(at, info("x"), heard)
	now := at
	for range maxHeardTries {
		now = now.Add(time.Hour)
		if got := dialled(s, now, 0, 1); got != "x" {
			t.Fatalf("dialled %q", got)
		}
		s.failed(now, "x")
	}
	if len(s.targets) != 0 {
		t.Error("not given up")
	}
}

func TestScheduleAfterLoss(t *testing.T) {
	s := newTestSchedule(100)
	s.add(at, info("b"), bootstrap)
	s.add(at, info("x"), asked)
	dialled(s, at, 0, 2)
	for _, id := range []peer.ID{"b", "x"} {
		s.connected(at, id)
		s.targets["b"].busy = false
	}
	if got := dialled(s, at.Add(time.Hour), 2, 2); got != "" || s.targets["x"] != nil {
		t.Errorf("dialled %q while connected", got)
	}
	s.lost(at, info("b"))
	s.lost(at, info("x"))
	if got := dialled(s, at.Add(2*firstWait), 0, 2); got != "x" {
		t.Errorf("dialled %q: of two, the one with the smaller ID goes first", got)
	}
	if got := dialled(s, at.Add(2*firstWait+mayBeDialled), 0, 2); got != "b" {
		t.Errorf("dialled %q", got)
	}
}

// TestScheduleAfterCut: peers that were lost are tried often for a while, and at once when one of them is there again.
func TestScheduleAfterCut(t *testing.T) {
	s := newTestSchedule(100)
	for _, id := range []string{"a", "b"} {
		s.lost(at, info(id))
	}
	now := at
	for now.Sub(at) < lostFor {
		_, again := s.next(now, 0, 0)
		if again > soon {
			t.Fatalf("%v after the loss it waits for %v", now.Sub(at), again)
		}
		now = now.Add(again)
		for range len(dialled(s, now, 0, 2)) {
			for id := range s.targets {
				if s.targets[id].busy {
					s.failed(now, id)
				}
			}
		}
	}
	now = now.Add(time.Hour)
	for range 10 {
		dialled(s, now, 0, 2)
		s.failed(now, "a")
		s.failed(now, "b")
		now = now.Add(time.Hour)
	}
	dialled(s, now, 0, 2)
	s.failed(now, "a")
	s.failed(now, "b")
	if got := dialled(s, now.Add(soon), 0, 2); got != "" {
		t.Fatalf("dialled %q as often as right after the loss", got)
	}
	s.connected(now.Add(soon), "a")
	if got := dialled(s, now.Add(soon+firstWait), 1, 2); got != "b" {
		t.Errorf("dialled %q, want b, now that a is back", got)
	}
}

// TestScheduleSizes has a small swarm mesh, and a large one not.
func TestScheduleSizes(t *testing.T) {
	s := newTestSchedule(50)
	for i := range 30 {
		s.add(at, info(fmt.Sprint("z", i)), heard)
	}
	if due, _ := s.next(at, 10, 1000); len(due) != 30 {
		t.Errorf("dials %d of 30 in a swarm of 41", len(due))
	}
	for _, x := range s.targets {
		x.busy = false
	}
	for i := range 30 {
		s.add(at, info(fmt.Sprint("y", i)), heard)
	}
	if due, _ := s.next(at, sparseDegree, 1000); len(due) != 0 {
		t.Errorf("dials %d more in a large swarm", len(due))
	}
	if due, _ := s.next(at, sparseDegree-1, 1000); len(due) == 0 {
		t.Error("dials nobody with too few links")
	}
	s.add(at, info("asked"), asked)
	if got := dialled(s, at, 1000, 1000); got != "asked" {
		t.Errorf("dials %q", got)
	}
	for _, x := range s.targets {
		x.busy = false
	}
	if due, _ := s.next(at.Add(2*freshFor), sparseDegree, 1000); len(due) != 61 {
		t.Errorf("dials %d: who is long gone does not make a swarm large", len(due))
	}
}

func TestScheduleIsBounded(t *testing.T) {
	s := newTestSchedule(100)
	s.add(at, info("b"), bootstrap)
	for i := range 2 * maxTargets {
		s.add(at, info(fmt.Sprint("x", i)), heard)
	}
	if len(s.targets) != maxTargets || s.targets["b"] == nil {
		t.Errorf("%d targets", len(s.targets))
	}
	if !s.add(at, info("a"), asked) || s.targets["a"] == nil {
		t.Error("one that was asked for finds no room")
	}
}

func TestScheduleMergesAddresses(t *testing.T) {
	s := newTestSchedule(100)
	for i := range 2 * maxAddrs {
		s.add(at, peer.AddrInfo{ID: "x", Addrs: []ma.Multiaddr{ma.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", i))}}, heard)
	}
	got := s.targets["x"].info.Addrs
	if len(got) != maxAddrs || got[0].String() != fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", 2*maxAddrs-1) {
		t.Errorf("addresses %v", got)
	}
}

func TestFailuresAreLoggedOnce(t *testing.T) {
	var x target
	for i, c := range []struct {
		d    diagnosis
		want bool
	}{
		{diagnosis{text: dialRefused}, true},
		{diagnosis{text: dialRefused}, false},
		{diagnosis{text: keyMismatch, sure: likely}, false},
		{diagnosis{text: dialRefused}, false},
		{diagnosis{text: keyMismatch, sure: likely}, true},
		{diagnosis{text: keyMismatch, sure: certain}, false},
		{diagnosis{text: otherNode, sure: certain}, true},
	} {
		if got := x.newsworthy(c.d); got != c.want {
			t.Errorf("%d: %v %v", i, c.d, got)
		}
	}
}

// TestScheduleRelayed tries a peer that is connected through a relay directly, ever more rarely, and no more when that
// has worked.
func TestScheduleRelayed(t *testing.T) {
	for _, why := range []reason{heard, bootstrap} {
		s := newTestSchedule(100)
		s.add(at, info("x"), why)
		dialled(s, at.Add(time.Second), 0, 1)
		s.relayed(at, info("x"))
		s.failed(at, "x") // the dial returns after the connection is known
		now, wait := at, time.Duration(0)
		for range 12 {
			if got := dialled(s, now, 1000, 1); got != "" {
				t.Fatalf("dialled %q at once", got)
			}
			_, again := s.next(now, 1000, 1)
			if again < wait || again > directMaxWait {
				t.Errorf("%v after %v", again, wait)
			}
			wait = again
			now = now.Add(wait)
			due, _ := s.next(now, 1000, 1)
			if len(due) != 1 || !due[0].relayed {
				t.Fatalf("after %v due are %v", wait, due)
			}
			s.relayed(now, info("x")) // an event of no news
			s.failed(now, "x")
		}
		s.connected(now, "x")
		if got := dialled(s, now.Add(time.Hour), 0, 1); got != "" {
			t.Errorf("dialled %q, which is connected directly", got)
		}
		s.lost(now, info("x"))
		if due, _ := s.next(now.Add(time.Hour), 0, 1); len(due) != 1 || due[0].relayed {
			t.Errorf("lost, due are %v", due)
		}
	}
}
