package mqttfront

import (
	"net"
	"time"
)

// place is one of the connections that the node takes, from when it is accepted until it is closed.
type place struct {
	host string        // that it counts for
	wait time.Duration // until it is its turn
}

// admit finds a place for a connection from an address, see hostOf, or says why there is none. Whoever gets one gives it
// back with leave. It is where all limits on connections are; what is over one is counted here.
func (b *Broker) admit(host string) (place, *Refusal) {
	now := time.Now()
	b.reg.Lock()
	defer b.reg.Unlock()
	if b.draining {
		return place{}, errDraining
	}
	if b.places >= b.cfg.MaxConnections {
		b.stats.RefusedConns.Add(1)
		return place{}, b.manyConns
	}
	if limit := b.cfg.MaxConnectionsPerAddress; limit > 0 && host != "" && b.byHost[host] >= limit {
		b.stats.RefusedOfAddress.Add(1)
		return place{}, b.manyOfHost
	}
	wait, ok := b.arrivals.take(now, host, b.cfg.MaxConnectionRate, b.cfg.MaxConnectionRatePerAddress)
	if !ok {
		b.stats.RefusedRate.Add(1)
		return place{}, b.quickConns
	}
	if wait > 0 {
		b.stats.Paced.Add(1)
	}
	b.places++
	b.byHost[host]++
	b.stats.Connections.Add(1)
	return place{host, wait}, nil
}

var errDraining = &Refusal{reasonShuttingDown, "connect to another node, or again when this one is back"}

// leave gives a place back.
func (b *Broker) leave(p place) {
	b.reg.Lock()
	defer b.reg.Unlock()
	b.places--
	if b.byHost[p.host]--; b.byHost[p.host] == 0 {
		delete(b.byHost, p.host)
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

// refuseConn says why to a connection that there is no place for, unless many are being told, and closes it.
func (b *Broker) refuseConn(nc net.Conn, r *Refusal) {
	if b.mayTell(nc, r) {
		b.turnAway(nc, r)
	} else {
		nc.Close()
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
