package mqttfront

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"sync"
	"time"
)

// gate is a listener for an HTTP server whose connections have a place (admit) from the start, and to say CONNECT within
// Config.ConnectTimeout, whatever they do before they ask for WebSocket. TLS goes on top of it.
type gate struct {
	net.Listener
	l *listener
}

// Accept implements net.Listener.
func (g gate) Accept() (net.Conn, error) {
	for {
		nc, err := g.l.accept()
		if err != nil {
			return nil, err
		}
		if c := g.l.b.passGate(nc); c != nil {
			return c, nil
		}
	}
}

// passGate finds a place for a connection, or has it told that there is none as far as that can be said: nil where it is
// closed.
func (b *Broker) passGate(nc net.Conn) *gated {
	c := &gated{Conn: nc, b: b}
	var r *Refusal
	if c.place, r = b.admit(hostOf(nc.RemoteAddr())); r == nil {
		c.before = time.Now().Add(c.place.wait + b.cfg.ConnectTimeout)
		c.endIn(time.Until(c.before), c.late)
		return c
	}
	if !b.mayTell(c, r) {
		nc.Close()
		return nil
	}
	c.refusal = r
	c.endIn(3*turnAwayTime, func() { _ = c.Close() })
	return c
}

// endIn has how called in a while, which stops overdue.
func (c *gated) endIn(d time.Duration, how func()) {
	c.overdue = time.AfterFunc(math.MaxInt64, how) // how needs overdue to be there
	c.overdue.Reset(d)
}

// gated is a connection to an HTTP server.
type gated struct {
	net.Conn
	b       *Broker
	place   place
	refusal *Refusal // there is no place, which it is to be told
	before  time.Time
	overdue *time.Timer
	turn    sync.Once
	closed  sync.Once
}

// Read implements net.Conn: nothing is read before it is the connection's turn.
func (c *gated) Read(p []byte) (int, error) {
	c.turn.Do(func() {
		if !c.b.waitTurn(c.place.wait) {
			_ = c.Close()
		}
	})
	return c.Conn.Read(p)
}

// Close implements net.Conn.
func (c *gated) Close() error {
	err := net.ErrClosed
	c.closed.Do(func() {
		c.overdue.Stop()
		err = c.Conn.Close()
		if c.refusal != nil {
			c.b.turnedAway(c)
		} else {
			c.b.leave(c.place)
		}
	})
	return err
}

// late ends a connection that has not become one of MQTT in time.
func (c *gated) late() {
	c.b.stats.ConnectTimeout.Add(1)
	_ = c.Close()
}

type gatedKey struct{}

// withGated has the requests of a connection know it.
func withGated(ctx context.Context, nc net.Conn) context.Context {
	if over, ok := nc.(interface{ NetConn() net.Conn }); ok { // TLS
		nc = over.NetConn()
	}
	return context.WithValue(ctx, gatedKey{}, nc)
}

// gatedOf returns the connection that a request came on.
func gatedOf(r *http.Request) (*gated, error) {
	c, ok := r.Context().Value(gatedKey{}).(*gated)
	if !ok {
		return nil, errors.New("the connection came by no gate")
	}
	return c, nil
}
