package mqttfront

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// How fast connections may come. One that comes too early waits for its turn, unread; one that would have to wait for
// longer than connPatience is refused. So a house that comes back after a power cut is let in over some seconds, and a
// flood is not let in at all.
const (
	// connPatience is how long a connection waits at most.
	connPatience = 5 * time.Second
	// maxPacedHosts is for how many addresses it is known when they came last, some 100 bytes each. Those beyond share
	// one turn.
	maxPacedHosts = 16 << 10
)

// pace lets so many through per second, and that many at once after a pause (the generic cell rate algorithm). The
// zero time has never let anything through.
type pace struct{ next time.Time }

// take returns how long the next one has to wait; false, without taking its turn, where that is longer than patience.
func (p *pace) take(now time.Time, perSecond int, patience time.Duration) (wait time.Duration, ok bool) {
	const burst = time.Second
	next := p.next
	if next.Before(now) {
		next = now
	}
	if wait = next.Sub(now) - burst; wait > patience {
		return 0, false
	}
	p.next = next.Add(time.Second / time.Duration(perSecond))
	return max(wait, 0), true
}

// idle reports whether p remembers nothing that matters.
func (p *pace) idle(now time.Time) bool { return !p.next.After(now) }

// arrivals paces connections, those of all addresses and those of each.
type arrivals struct {
	mu     sync.Mutex
	all    pace
	byHost map[string]pace
	others pace // of addresses that there was no room for
	swept  time.Time
}

// take returns how long a connection from host has to wait; ok is false where it is to be refused. 0 is no limit. host
// is "" where all clients have one address.
func (a *arrivals) take(now time.Time, host string, perSecond, perSecondOfHost int) (wait time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.all
	if perSecond > 0 {
		if wait, ok = a.all.take(now, perSecond, connPatience); !ok {
			return 0, false
		}
	}
	if host == "" || perSecondOfHost == 0 {
		return wait, true
	}
	p, known := a.byHost[host]
	if !known && !a.roomLocked(now) {
		p = a.others
	}
	own, ok := p.take(now, perSecondOfHost, connPatience)
	if !ok {
		a.all = before // its turn is for somebody else
		return 0, false
	}
	if known || len(a.byHost) < maxPacedHosts {
		if a.byHost == nil {
			a.byHost = make(map[string]pace)
		}
		a.byHost[host] = p
	} else {
		a.others = p
	}
	return max(wait, own), true
}

// roomLocked reports whether one more address can be remembered. Those that have not come for a while are forgotten
// where there is none, once a second at most.
func (a *arrivals) roomLocked(now time.Time) bool {
	if len(a.byHost) >= maxPacedHosts && now.Sub(a.swept) >= time.Second {
		a.sweepLocked(now)
	}
	return len(a.byHost) < maxPacedHosts
}

func (a *arrivals) sweepLocked(now time.Time) {
	a.swept = now
	for host, p := range a.byHost {
		if p.idle(now) {
			delete(a.byHost, host)
		}
	}
}

// sweep forgets the addresses that have not come for a while.
func (a *arrivals) sweep(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweepLocked(now)
	if len(a.byHost) == 0 {
		a.byHost = nil // a map keeps the memory of all that it ever had
	}
}

// hostOf is what the limits for one address count by: the IP address, or, of a public one of IPv6, the network of 64
// bits that whoever has it has to himself; "" where there is none, such as on a Unix socket.
func hostOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return ""
	}
	ip := at.Addr().Unmap()
	if ip.Is4() || !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return ip.String()
	}
	network, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip.String()
	}
	return network.String()
}
