package mqttfront

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// TestPace: a second's worth comes at once, more waits for its turn, and what would wait for too long is refused
// without taking a turn.
func TestPace(t *testing.T) {
	const perSecond, patience = 10, 2 * time.Second
	now := time.Unix(1e9, 0)
	var p pace
	for i, want := range []time.Duration{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000,
		1100, 1200, 1300, 1400, 1500, 1600, 1700, 1800, 1900, 2000, -1, -1} {
		wait, ok := p.take(now, perSecond, patience)
		if want *= time.Millisecond; ok != (want >= 0) || ok && wait != want {
			t.Errorf("number %d waits for %v (%v), want %v", i, wait, ok, want)
		}
	}
	for _, c := range []struct {
		after, want time.Duration
		ok, idle    bool
	}{
		{time.Millisecond, 0, false, false},
		{100 * time.Millisecond, 2 * time.Second, true, false},
		{1500 * time.Millisecond, 700 * time.Millisecond, true, false},
		{3200 * time.Millisecond, 0, true, false},
		{3400 * time.Millisecond, 0, true, true},
		{time.Hour, 0, true, true},
	} {
		at := now.Add(c.after)
		if p.idle(at) != c.idle {
			t.Errorf("after %v: idle is %v", c.after, !c.idle)
		}
		if wait, ok := p.take(at, perSecond, patience); wait != c.want || ok != c.ok {
			t.Errorf("after %v: waits for %v (%v), want %v (%v)", c.after, wait, ok, c.want, c.ok)
		}
	}
}

// TestTurnEnds: who waits for its turn is sent away when the broker takes leave.
func TestTurnEnds(t *testing.T) {
	b := &Broker{registry: registry{leaving: make(chan struct{})}}
	time.AfterFunc(10*time.Millisecond, func() { close(b.leaving) })
	if b.waitTurn(time.Hour) {
		t.Error("it was its turn")
	}
}

// TestArrivals: each address has its turns, and one that comes too fast takes none of the others'. What is remembered of
// addresses is bounded.
func TestArrivals(t *testing.T) {
	now := time.Unix(1e9, 0)
	var a arrivals
	count := func(host string, tries, perSecond, ofHost int) (n int) {
		for range tries {
			if _, ok := a.take(now, host, perSecond, ofHost); ok {
				n++
			}
		}
		return n
	}
	const seconds = int(1 + connPatience/time.Second) // burst and patience
	if n := count("flood", 1000, 50, 10); n != 10*seconds+1 {
		t.Errorf("one address has %d connections", n)
	}
	if n := count("other", 1000, 50, 10); n != 10*seconds+1 {
		t.Errorf("another has %d", n)
	}
	if n := count("", 1000, 50, 10); n != 50*seconds+1-2*(10*seconds+1) {
		t.Errorf("without an address there are %d", n)
	}
	if n := count("x", 1000, 0, 0); n != 1000 {
		t.Errorf("without a limit there are %d", n)
	}
	now = now.Add(time.Minute)
	for i := range 2 * maxPacedHosts {
		a.take(now, fmt.Sprint(i), 0, 1)
	}
	if len(a.byHost) != maxPacedHosts {
		t.Errorf("%d addresses are remembered, want %d", len(a.byHost), maxPacedHosts)
	}
	if n := count("one more", 10, 0, 1) + count("and another", 10, 0, 1); n != 0 {
		t.Errorf("addresses that are not remembered have %d connections beside others", n)
	}
	now = now.Add(time.Minute)
	if n := count("later", 10, 0, 1); n != seconds+1 || len(a.byHost) != 1 {
		t.Errorf("later, %d connections of %d addresses", n, len(a.byHost))
	}
	a.sweep(now.Add(time.Minute))
	if a.byHost != nil {
		t.Errorf("%d are remembered after a while", len(a.byHost))
	}
}

func TestHostOf(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:1883": "192.0.2.7", "[::ffff:192.0.2.7]:1883": "192.0.2.7", "127.0.0.1:5": "127.0.0.1", "[::1]:5": "::1",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64", "[2001:db8:1:2::1]:2": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1": "fe80::1%eth0", "[fd00::1:2]:1": "fd00::1:2",
	} {
		if got := hostOf(addrOf(addr)); got != want {
			t.Errorf("%s counts for %q, want %q", addr, got, want)
		}
	}
	if got := hostOf(&net.UnixAddr{Name: "@", Net: "unix"}) + hostOf(nil); got != "" {
		t.Errorf("a Unix socket counts for %q", got)
	}
}

type addrOf string

func (a addrOf) Network() string { return "tcp" }
func (a addrOf) String() string  { return string(a) }
