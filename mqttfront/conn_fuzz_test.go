package mqttfront_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/packets"
	paho3 "github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

// pipes is a listener for connections within the process, which have no socket.
type pipes struct {
	conns chan net.Conn
	over  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), over: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.over) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// FuzzConn gives a broker the bytes of two connections, the first of which may leave a session behind, in pieces of some
// size. What it answers must be MQTT, and somebody else beside them must be served all the while.
func FuzzConn(f *testing.F) {
	for version := byte(3); version <= 5; version++ {
		all := conversation(version)
		f.Add(bytes.Join(all, nil), bytes.Join(all[:3], nil), uint16(1000))
		f.Add(bytes.Join(all[:4], nil), bytes.Join(all, nil), uint16(1))
		for _, one := range all[1:] { // by itself, and again
			f.Add(bytes.Join([][]byte{all[0], one, one}, nil), []byte{}, uint16(7))
		}
	}
	f.Add([]byte("\x10\xff\xff\xff\x7f"), []byte("GET / HTTP/1.1\r\n\r\n"), uint16(2))
	f.Fuzz(func(t *testing.T, first, second []byte, piece uint16) {
		l, listener := newLoner(), newPipes()
		b, _, addr := startWith(t, l, storetest.NewSessions(), nil, func(c *mqttfront.Config) {
			c.MaxPacketSize, c.ConnectTimeout, c.CloseTimeout, c.MaxSessionExpiry = 1<<16, time.Second, 100*time.Millisecond, time.Second
		})
		if err := b.Serve(listener, mqttfront.ListenerConfig{URL: "pipe", Anonymous: true}); err != nil {
			t.Fatal(err)
		}
		beside, _ := connect(t, addr, connectOpts{id: "beside"})
		beside.subscribe(filter{"beside/+", 1})
		for _, stream := range [][]byte{first, second} {
			judgeAnswers(t, stream, talk(t, listener.dial(), stream, 1+int(piece)))
			eventually(t, "the connection is over", func() bool { return b.Stats().Connections.Load() == 1 })
		}
		beside.publishAndHear()
		if n := b.Stats().DecodePanics.Load(); n > 0 {
			t.Errorf("the codec panicked %d times", n)
		}
		beside.nc.Close()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

// publishAndHear publishes to its own subscription and takes in what comes until it is back.
func (r *raw) publishAndHear() {
	r.t.Helper()
	r.send(r.publishPacket(2, 99, "beside/me", "still here"))
	for {
		pk, err := r.next(patience)
		if err != nil {
			r.t.Fatalf("the client beside it is not served any more: %v", err)
		}
		if pk.TopicName == "beside/me" && string(pk.Payload) == "still here" {
			return
		}
	}
}

// talk sends a stream in pieces, reads what comes meanwhile and a little longer, and hangs up.
func talk(t *testing.T, nc net.Conn, stream []byte, piece int) []byte {
	t.Helper()
	var heard bytes.Buffer
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(&heard, nc) })
	_ = nc.SetWriteDeadline(time.Now().Add(patience))
	for rest := stream; len(rest) > 0; {
		n, err := nc.Write(rest[:min(piece, len(rest))])
		if errors.Is(err, io.ErrClosedPipe) {
			break
		}
		if err != nil {
			t.Fatalf("the broker does not read: %v", err)
		}
		rest = rest[n:]
	}
	_ = nc.SetReadDeadline(time.Now().Add(time.Millisecond))
	reading.Wait()
	nc.Close()
	return heard.Bytes()
}

// judgeAnswers checks that what the broker says is MQTT, of 3 or of 5, and begins as it must.
func judgeAnswers(t *testing.T, said, heard []byte) {
	t.Helper()
	if len(heard) == 0 {
		return
	}
	if heard[0] != 0x20 { // [MQTT-3.2.0-1]
		t.Fatalf("to %x the broker says %x, which begins without CONNACK", said, heard)
	}
	read5 := func(r io.Reader) error { _, err := paho5.ReadPacket(r); return err }
	read3 := func(r io.Reader) error { _, err := paho3.ReadPacket(r); return err }
	err5, err3 := readAll(heard, read5), readAll(heard, read3)
	if err5 != nil && err3 != nil {
		t.Fatalf("to %x the broker says %x: %v, %v", said, heard, err5, err3)
	}
}

// readAll reads packets until their bytes end, which may be in the middle of one.
func readAll(b []byte, read func(io.Reader) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the oracle panics: %v", r)
		}
	}()
	for r := bytes.NewReader(b); r.Len() > 0; {
		if err := read(r); err != nil && r.Len() > 0 {
			return err
		}
	}
	return nil
}

// conversation is a bit of everything that a client can say, CONNECT first and DISCONNECT last.
func conversation(version byte) [][]byte {
	r := &raw{version: version}
	o := connectOpts{id: "fuzz", version: version, resume: true, keepAlive: 9, user: "u", password: "p",
		will: &willOpts{topic: "beside/will", payload: "w", qos: 1}}
	var props []byte
	if version == 5 {
		o.props = bytes.Join([][]byte{sessionExpiry(1), u16(0x21, 3), u16(0x22, 2)}, nil)
		o.will.props = u32(0x18, 1)
		props = bytes.Join([][]byte{u16(0x23, 1), u32(2, 60), {1, 1}}, nil)
	}
	all := [][]byte{
		o.encode(),
		r.subscribePacket(1, nil, filter{"a/#", 2}, filter{"+/b", 1}, filter{"$share/g/a/b", 1}),
		r.publishPacket(0, 0, "a/b", "zero", props...),
		r.publishPacket(3, 2, "a/b", "one, retained"),
		r.publishPacket(4, 3, "beside/x", "two"),
		ackPacket(6, 3),
		ackPacket(4, 1), ackPacket(5, 2), ackPacket(7, 2),
		{0xc0, 0},
		r.subscribePacket(4, nil, filter{"a/b", 0}, filter{"$SYS/#", 0}, filter{"$local/x", 1}),
		r.publishPacket(1, 0, "a/b", ""),
	}
	unsubscribe := [][]byte{{0, 5}, str("a/#"), str("nothing")}
	bye := []byte{0xe0, 0}
	if version == 5 {
		unsubscribe = [][]byte{{0, 5}, {0}, str("a/#"), str("nothing")}
		all = append(all, r.publishPacket(0, 0, "", "by alias", u16(0x23, 1)...))
		bye = packet(0xe0, []byte{4}, sized(sessionExpiry(2)))
	}
	return append(all, packet(0xa2, unsubscribe...), bye)
}

// FuzzWebSocket gives a WebSocket listener the bytes of a connection: of the HTTP request, or behind one that is right. What
// comes of it is over when the connection is, and somebody beside it is served all the while.
func FuzzWebSocket(f *testing.F) {
	frame := func(first byte, payload []byte) []byte { // masked with zeros
		b := []byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}
		return append(b, payload...)
	}
	whole := bytes.Join(conversation(5)[:3], nil)
	for _, s := range [][]byte{
		frame(0x82, conversation(4)[0]), append(frame(0x02, whole[:7]), frame(0x80, whole[7:min(len(whole), 120)])...),
		frame(0x81, []byte("text")), append(frame(0x89, []byte("ping")), frame(0x82, conversation(5)[0])...), frame(0x88, []byte{3, 0xe8}),
		{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, {0xf2, 0x80, 1, 2, 3, 4}, {0x82, 5, 1, 2, 3, 4, 5},
	} {
		f.Add(true, s)
	}
	f.Add(false, []byte("GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"))
	f.Add(false, []byte("GET / HTTP/1.1\r\nHost: h\r\nOrigin: http://evil.example\r\nContent-Length: 99999\r\n\r\n"))
	f.Add(false, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Fuzz(func(t *testing.T, upgraded bool, stream []byte) {
		listener := newPipes()
		b, _, addr := start(t, func(c *mqttfront.Config) {
			c.MaxPacketSize, c.ConnectTimeout, c.CloseTimeout, c.MaxSessionExpiry = 1<<16, time.Second, 50*time.Millisecond, time.Second
		})
		if err := b.Serve(listener, mqttfront.ListenerConfig{URL: "ws://pipe", Anonymous: true}); err != nil {
			t.Fatal(err)
		}
		beside, _ := connect(t, addr, connectOpts{id: "beside"})
		beside.subscribe(filter{"beside/+", 1})
		if upgraded {
			stream = append([]byte("GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
				"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"), stream...)
		}
		heard := talk(t, listener.dial(), stream, len(stream)+1)
		if upgraded && len(heard) > 0 && !bytes.HasPrefix(heard, []byte("HTTP/1.1 101 ")) {
			t.Errorf("the handshake is answered with %q", heard)
		}
		eventually(t, "the connection is over", func() bool { return b.Stats().Connections.Load() == 1 })
		beside.publishAndHear()
		if n := b.Stats().DecodePanics.Load(); n > 0 {
			t.Errorf("the codec panicked %d times", n)
		}
		beside.nc.Close()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}
