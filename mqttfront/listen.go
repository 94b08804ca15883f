package mqttfront

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// ListenerConfig is one place that clients connect to, and its rules.
type ListenerConfig struct {
	// URL is tcp://HOST:PORT or ws://HOST:PORT/PATH, where the port may be 0.
	URL string
	// Anonymous takes clients that do not say who they are.
	Anonymous bool
}

// listener is something that connections come from.
type listener struct {
	ListenerConfig

	b    *Broker
	l    net.Listener
	http *http.Server // for WebSocket
	once sync.Once
}

// Listen begins to accept clients. It returns the address that they can connect to.
func (b *Broker) Listen(lc ListenerConfig) (net.Addr, error) {
	rawURL := lc.URL
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("MQTT listener %q: %w", rawURL, err)
	}
	switch u.Scheme {
	case "tcp", "mqtt", "ws":
	default:
		return nil, fmt.Errorf("MQTT listener %q: scheme %q is not known, tcp:// and ws:// are", rawURL, u.Scheme)
	}
	if u.Port() == "" {
		return nil, fmt.Errorf("MQTT listener %q: the port is missing", rawURL)
	}
	l, err := net.Listen("tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("MQTT listener %q: %w", rawURL, err)
	}
	if u.Scheme == "ws" {
		err = b.ServeWebSocket(l, lc, u.Path)
	} else {
		err = b.Serve(l, lc)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l.Addr(), nil
}

// Serve begins to accept MQTT connections from l, which may be anything that brings byte streams; the URL in
// lc is for Auth and the log. The broker closes l.
func (b *Broker) Serve(l net.Listener, lc ListenerConfig) error {
	ln := &listener{ListenerConfig: lc, b: b, l: l}
	if err := b.addListener(ln); err != nil {
		return err
	}
	b.wg.Go(ln.runAccept)
	return nil
}

// ServeWebSocket begins to accept MQTT over WebSocket from l. An empty path stands for /mqtt and /.
func (b *Broker) ServeWebSocket(l net.Listener, lc ListenerConfig, path string) error {
	ln := &listener{ListenerConfig: lc, b: b, l: l}
	mux := http.NewServeMux()
	if path == "" || path == "/" {
		mux.HandleFunc("/mqtt", ln.upgrade)
		path = "/{$}"
	}
	mux.HandleFunc(path, ln.upgrade)
	ln.http = &http.Server{Handler: mux, ReadHeaderTimeout: b.cfg.ConnectTimeout,
		IdleTimeout: b.cfg.ConnectTimeout, MaxHeaderBytes: 16 << 10, ConnContext: withGated}
	if err := b.addListener(ln); err != nil {
		return err
	}
	b.wg.Go(ln.runHTTP)
	return nil
}

func (b *Broker) addListener(l *listener) error {
	b.reg.Lock()
	defer b.reg.Unlock()
	if b.draining {
		return errDraining
	}
	b.listeners[l] = struct{}{}
	return nil
}

// enter counts a goroutine that the broker did not start, unless it is too late.
func (b *Broker) enter() bool {
	b.reg.Lock()
	defer b.reg.Unlock()
	if !b.draining {
		b.wg.Add(1)
	}
	return !b.draining
}

func (l *listener) close() {
	l.once.Do(func() {
		if l.http != nil {
			l.http.Close()
		}
		l.l.Close()
	})
}

// runAccept accepts connections until the listener is closed.
func (l *listener) runAccept() {
	for {
		nc, err := l.accept()
		if err != nil {
			return
		}
		l.b.wg.Go(func() { l.b.runConn(nc, l) })
	}
}

// accept waits for a connection. It fails when the listener is closed; other errors, such as running out of file
// descriptors, are waited out.
func (l *listener) accept() (net.Conn, error) {
	const most = time.Second
	pause := time.Duration(0)
	for {
		nc, err := l.l.Accept()
		if err == nil {
			return nc, nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		l.b.stats.AcceptErrors.Add(1)
		pause = min(max(2*pause, 5*time.Millisecond), most)
		l.b.log.Warn("accepting a client", "listener", l.URL, "error", err, "retry_in", pause)
		select {
		case <-l.b.stopped:
			return nil, net.ErrClosed
		case <-time.After(pause):
		}
	}
}

func (l *listener) runHTTP() {
	if err := l.http.Serve(gate{l.l, l}); err != nil && !errors.Is(err, http.ErrServerClosed) {
		l.b.log.Error("serving WebSocket clients", "listener", l.URL, "error", err)
	}
}

// upgrade turns an HTTP request into an MQTT connection [MQTT-6.0.0-1] [MQTT-6.0.0-2] [MQTT-6.0.0-3]
// [MQTT-6.0.0-4].
func (l *listener) upgrade(w http.ResponseWriter, r *http.Request) {
	gc, err := gatedOf(r)
	if err != nil {
		l.b.log.Error("serving WebSocket clients", "listener", l.URL, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:    []string{"mqtt", "mqttv3.1"},
		OriginPatterns:  l.b.cfg.WebSocketOrigins,
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		l.b.stats.BadUpgrades.Add(1)
		l.b.log.Debug("refusing a WebSocket client", "remote", r.RemoteAddr, "error", err)
		return
	}
	if ws.Subprotocol() == "" {
		l.b.stats.BadUpgrades.Add(1)
		ws.Close(websocket.StatusPolicyViolation, "the subprotocol must be mqtt")
		return
	}
	if !l.b.enter() {
		ws.CloseNow()
		return
	}
	defer l.b.wg.Done()
	nc := &wsConn{Conn: websocket.NetConn(context.Background(), ws, websocket.MessageBinary), remote: remoteOf(r), ws: ws}
	if gc.refusal != nil {
		l.b.turnAway(nc, gc.refusal)
		return
	}
	if !gc.overdue.Stop() {
		_ = nc.Close()
		return
	}
	l.b.runAdmitted(nc, l, gc.before) // from now on there is a deadline
}

// wsConn is a WebSocket connection as a byte stream that knows its peer.
type wsConn struct {
	net.Conn
	remote net.Addr
	ws     *websocket.Conn
	over   sync.Once
}

func (c *wsConn) RemoteAddr() net.Addr { return c.remote }

// linger implements lingerer: a deadline on a read would end writing too.
func (c *wsConn) linger(drained <-chan struct{}, timeout time.Duration) {
	c.over.Do(func() {
		t := time.AfterFunc(timeout, func() { c.ws.CloseNow() })
		defer t.Stop()
		select {
		case <-drained:
			c.ws.Close(websocket.StatusNormalClosure, "")
		case <-time.After(timeout):
		}
		c.ws.CloseNow()
	})
}

// Close does not wait for the peer to agree.
func (c *wsConn) Close() error { return c.ws.CloseNow() }

func remoteOf(r *http.Request) net.Addr {
	if a, err := net.ResolveTCPAddr("tcp", r.RemoteAddr); err == nil {
		return a
	}
	return &net.TCPAddr{}
}
