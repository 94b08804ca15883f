package mqttfront

import (
	"net"
	"time"
)

// place is one of the connections that the node takes, from when it is accepted until it is closed.
type place struct {
	host string        // that it counts for; "": none
	wait time.Duration // until it is its turn
}

// admit finds a place for a connection, or says why there is none. Whoever gets one gives it back with leave. It is
// where all limits on connections are; what is over one is counted here. Where a proxy says who the client is, admitHost
// has to follow.
func (b *Broker) admit(c *conn) *Refusal {
	now, l, host := time.Now(), c.listener, ""
	if len(l.Proxies) == 0 {
		host = hostOf(c.remote)
	}
	b.stats.Accepted.Add(1)
	b.reg.Lock()
	defer b.reg.Unlock()
	if b.draining {
		return errDraining
	}
	if b.strain.critical() {
		b.stats.RefusedMemory.Add(1)
		return errMemory
	}
	if b.places >= b.cfg.MaxConnections {
		b.stats.RefusedConns.Add(1)
		return b.manyConns
	}
	if l.MaxConnections > 0 && l.places >= l.MaxConnections {
		b.stats.RefusedOfListener.Add(1)
		return l.many
	}
	if b.hostFullLocked(host) {
		return b.manyOfHost
	}
	wait, ok := b.arrivals.take(now, host, b.cfg.MaxConnectionRate, b.cfg.MaxConnectionRatePerAddress)
	if !ok {
		b.stats.RefusedRate.Add(1)
		return b.quickConns
	}
	if wait > 0 {
		b.stats.Paced.Add(1)
	}
	b.places++
	l.places++
	b.stats.Connections.Add(1)
	b.placeLocked(c, host, wait)
	return nil
}

// admitHost has a connection with a place count for the address that its proxy has given, and wait for its turn.
func (b *Broker) admitHost(c *conn) *Refusal {
	host := hostOf(c.remote)
	wait, ok := b.arrivals.take(time.Now(), host, 0, b.cfg.MaxConnectionRatePerAddress)
	if !ok {
		b.stats.RefusedRate.Add(1)
		return b.quickConns
	}
	if wait > 0 {
		b.stats.Paced.Add(1)
	}
	b.reg.Lock()
	if b.hostFullLocked(host) {
		b.reg.Unlock()
		return b.manyOfHost
	}
	b.placeLocked(c, host, wait)
	b.reg.Unlock()
	b.waitTurn(wait)
	return nil
}

func (b *Broker) hostFullLocked(host string) bool {
	limit := b.cfg.MaxConnectionsPerAddress
	full := limit > 0 && host != "" && b.byHost[host] >= limit
	if full {
		b.stats.RefusedOfAddress.Add(1)
	}
	return full
}

func (b *Broker) placeLocked(c *conn, host string, wait time.Duration) {
	c.place = place{host, wait}
	if host != "" {
		b.byHost[host]++
	}
}

var errDraining = &Refusal{reasonShuttingDown, "connect to another node, or again when this one is back"}

// errMemory is the answer to what is new while memory is critically scarce.
var errMemory = &Refusal{ReasonServerBusy, "the node has too little memory: connect to another one, or again later"}

// leave gives a place back.
func (b *Broker) leave(c *conn) {
	b.reg.Lock()
	defer b.reg.Unlock()
	b.places--
	c.listener.places--
	if host := c.place.host; host != "" {
		if b.byHost[host]--; b.byHost[host] == 0 {
			delete(b.byHost, host)
		}
	}
	b.stats.Connections.Add(-1)
}

// waitTurn waits until it is a connection's turn. It fails when there is none any more.
func (b *Broker) waitTurn(wait time.Duration) bool {
	if wait <= 0 {
		return true
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-b.leaving:
		return false
	}
}

// mayTell reports whether a connection that is not let in is to be told why; turnAway does that.
func (b *Broker) mayTell(nc net.Conn, r *Refusal) bool {
	b.reg.Lock()
	defer b.reg.Unlock()
	if r == errDraining || b.draining || len(b.turned) >= maxTurnedAway {
		return false
	}
	b.turned[nc] = struct{}{}
	return true
}

func (b *Broker) turnedAway(nc net.Conn) {
	b.reg.Lock()
	defer b.reg.Unlock()
	delete(b.turned, nc)
}

// greet notes a connection that is going to be served, unless it is too late.
func (b *Broker) greet(c *conn) bool {
	b.reg.Lock()
	defer b.reg.Unlock()
	if b.draining {
		return false
	}
	b.conns[c] = struct{}{}
	return true
}

// dismiss forgets a connection.
func (b *Broker) dismiss(c *conn) {
	b.reg.Lock()
	defer b.reg.Unlock()
	delete(b.conns, c)
	if b.draining && len(b.conns) == 0 {
		b.idleLocked()
	}
}
