package mqttfront

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// maxRequest is how large a request for WebSocket may be. Browsers send cookies with it.
const maxRequest = 16 << 10

// frameBuffer is the size of the two buffers that a WebSocket has for its frames. What is larger goes past them.
const frameBuffer = 512

// upgrade turns an HTTP request into an MQTT connection [MQTT-6.0.0-1] [MQTT-6.0.0-2] [MQTT-6.0.0-3]
// [MQTT-6.0.0-4].
// There is one request for each connection, and nothing but WebSocket to ask for.
func (c *conn) upgrade(l *listener) error {
	from := &io.LimitedReader{R: c.nc, N: maxRequest}
	w := &webResponse{nc: c.nc, header: make(http.Header), br: bufio.NewReaderSize(from, frameBuffer)}
	r, err := http.ReadRequest(w.br)
	if err != nil {
		if from.N <= 0 {
			http.Error(w, "the request is too large", http.StatusRequestHeaderFieldsTooLarge)
			return fmt.Errorf("the request has more than %d bytes", maxRequest)
		}
		if !errors.Is(err, io.EOF) {
			http.Error(w, "that is no HTTP request", http.StatusBadRequest)
		}
		return err
	}
	from.N = math.MaxInt64
	if p := r.URL.Path; p != l.path && (l.path != "" && l.path != "/" || p != "/mqtt" && p != "/") {
		http.Error(w, "there is nothing here", http.StatusNotFound)
		return fmt.Errorf("a request for %.100q", p)
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:    []string{"mqtt", "mqttv3.1"},
		OriginPatterns:  l.Origins,
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return err
	}
	if ws.Subprotocol() == "" {
		ws.Close(websocket.StatusPolicyViolation, "the subprotocol must be mqtt")
		return errors.New("the subprotocol is not mqtt")
	}
	c.speakOver(&wsConn{Conn: websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws: ws})
	return nil
}

// webResponse answers the one request of a connection. It implements http.ResponseWriter and http.Hijacker.
type webResponse struct {
	nc     net.Conn
	br     *bufio.Reader
	header http.Header
	said   bool
	err    error
}

func (w *webResponse) Header() http.Header { return w.header }

func (w *webResponse) WriteHeader(status int) {
	if w.said {
		return
	}
	w.said = true
	if status != http.StatusSwitchingProtocols {
		w.header.Set("Connection", "close")
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	_ = w.header.Write(&head) // memory takes it
	head.WriteString("\r\n")
	_, w.err = w.nc.Write(head.Bytes())
}

func (w *webResponse) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.err != nil {
		return 0, w.err
	}
	return w.nc.Write(b)
}

// Hijack gives the connection to the WebSocket.
func (w *webResponse) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.nc, bufio.NewReadWriter(w.br, bufio.NewWriterSize(w.nc, frameBuffer)), w.err
}

// wsConn is a WebSocket connection as a byte stream.
type wsConn struct {
	net.Conn
	ws   *websocket.Conn
	over sync.Once
}

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
