package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a broker that says what the test says, byte by byte.
type script struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// broker listens, and plays one connection in a goroutine of its own.
func broker(t *testing.T, play func(*script)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		play(&script{t, conn, bufio.NewReader(conn)})
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// want reads the bytes that the client must send now.
func (s *script) want(what, bytesInHex string) {
	want := unhex(s.t, bytesInHex)
	got := make([]byte, len(want))
	n, err := io.ReadFull(s.in, got)
	if err != nil || !bytes.Equal(got, want) {
		s.t.Errorf("%s: have %x (%v), want %x", what, got[:n], err, want)
	}
}

// wantEnd reads the end of the connection.
func (s *script) wantEnd() {
	if b, err := s.in.ReadByte(); !errors.Is(err, io.EOF) {
		s.t.Errorf("want the end of the connection, have %x, %v", b, err)
	}
}

func (s *script) say(bytesInHex string) {
	if _, err := s.conn.Write(unhex(s.t, bytesInHex)); err != nil {
		s.t.Error(err)
	}
}

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Error(err)
	}
	return b
}

const (
	connect5   = "10 0e 0004 4d515454 05 02 0000 00 0001 63" // client ID c, clean, no keep alive
	connack5   = "20 03 00 00 00"
	disconnect = "e0 02 00 00" // MQTT 5
)

func options(address string) Options {
	return Options{Address: address, Version: Version5, ClientID: "c", Clean: true, MaxInflight: 10}
}

func mustConnect(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := Connect(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestConnectBytes(t *testing.T) {
	for _, tc := range []struct {
		name, connect, connack, disconnect string
		change                             func(*Options)
	}{
		{"5", connect5, connack5, disconnect, func(*Options) {}},
		{"3.1.1", "10 0d 0004 4d515454 04 02 0000 0001 63", "20 02 00 00", "e0 00", func(o *Options) { o.Version = Version311 }},
		{"3.1", "10 0f 0006 4d5149736470 03 02 0000 0001 63", "20 02 00 00", "e0 00", func(o *Options) { o.Version = Version31 }},
		{"everything", "10 26 0004 4d515454 05 ec 0000 05 11 ffffffff 0001 63 05 18 00000007 0001 77 0002 6279 0001 75 0001 70", connack5, disconnect, func(o *Options) {
			o.Clean, o.SessionExpiry, o.Username, o.Password = false, NeverExpires, "u", []byte("p")
			o.Will = &Message{Topic: "w", Payload: []byte("by"), QoS: 1, Retain: true, Properties: Properties{WillDelayInterval: 7}}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := options(broker(t, func(s *script) {
				s.want("CONNECT", tc.connect)
				s.say(tc.connack)
				s.want("DISCONNECT", tc.disconnect)
				s.wantEnd()
			}))
			tc.change(&o)
			if err := mustConnect(t, o).Disconnect(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		version       byte
		connack, want string
	}{
		{Version5, "20 08 00 87 05 1f 0002 6e6f", "the broker refuses the connection: not authorized (code 135): no"},
		{Version5, "20 14 00 87 11 1f 000e 4e6f7420617574686f72697a6564", "the broker refuses the connection: not authorized (code 135)"},
		{Version5, "20 18 00 87 15 1f 0012 6e6f7420617574686f72697a65642c206e6f", "the broker refuses the connection: not authorized (code 135): no"},
		{Version311, "20 02 00 05", "the broker refuses the connection: not authorized (code 5)"},
	} {
		o := options(broker(t, func(s *script) {
			_, _ = s.in.ReadByte()
			s.say(tc.connack)
		}))
		o.Version = tc.version
		_, err := Connect(context.Background(), o)
		var refused *RefusedError
		if !errors.As(err, &refused) || err.Error() != tc.want {
			t.Errorf("have %v, want %s", err, tc.want)
		}
	}
}

// The window is the broker's Receive Maximum where that is smaller than ours.
func TestWindow(t *testing.T) {
	second := make(chan struct{})
	c := mustConnect(t, options(broker(t, func(s *script) {
		s.want("CONNECT", connect5)
		s.say("20 06 00 00 03 21 0001")
		s.want("PUBLISH 1", "32 06 0001 61 0001 00")
		select {
		case <-second:
			s.t.Error("the second message went out before the first was acknowledged")
		case <-time.After(50 * time.Millisecond): // nothing shows that nothing comes
		}
		s.say("40 02 0001")
		s.want("PUBLISH 2", "34 06 0001 61 0002 00")
		s.say("50 02 0002")
		s.want("PUBREL", "62 02 0002")
		s.say("70 02 0002")
		s.want("PUBLISH 3", "32 06 0001 61 0003 00")
		s.say("40 03 0003 97")
		s.want("DISCONNECT", disconnect)
	})))
	ctx := context.Background()
	if err := c.PublishAsync(ctx, Message{Topic: "a", QoS: 1}, func(err error) {
		if err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Error(err)
	}
	if err := c.Publish(ctx, Message{Topic: "a", QoS: 2}); err != nil {
		t.Error(err)
	}
	close(second)
	err := c.Publish(ctx, Message{Topic: "a", QoS: 1})
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Code != 0x97 {
		t.Errorf("%v", err)
	}
	if err := c.Disconnect(); err != nil {
		t.Error(err)
	}
}

// What OnMessage does not want any more is not acknowledged, and QoS 2 is handed over once.
func TestReceive(t *testing.T) {
	var got []string
	o := options(broker(t, func(s *script) {
		s.want("CONNECT", connect5)
		s.say(connack5)
		s.want("SUBSCRIBE", "82 07 0001 00 0001 61 02")
		s.say("90 04 0001 00 02")
		s.say("34 07 0001 61 0009 00 31") // 1 at QoS 2
		s.want("PUBREC", "50 02 0009")
		s.say("3c 07 0001 61 0009 00 31") // again
		s.want("PUBREC", "50 02 0009")
		s.say("62 02 0009")
		s.want("PUBCOMP", "70 02 0009")
		s.say("30 08 0001 61 03 23 0005 32") // 2 at QoS 0, with alias 5
		s.say("32 09 0000 0003 03 23 0005 33" + "32 07 0001 61 0004 00 34")
		s.want("PUBACK of 3", "40 02 0003")
		s.want("DISCONNECT", disconnect)
		s.wantEnd()
	}))
	o.OnMessage = func(m Message) bool {
		got = append(got, m.Topic+string(m.Payload))
		return len(got) < 3
	}
	c := mustConnect(t, o)
	if err := c.Subscribe(context.Background(), []Subscription{{Filter: "a", QoS: 2}}, Properties{}); err != nil {
		t.Error(err)
	}
	<-c.Done()
	if err := errors.Join(c.Err(), c.Disconnect()); err != nil {
		t.Error(err)
	}
	if s := strings.Join(got, " "); s != "a1 a2 a3" {
		t.Errorf("received %s", s)
	}
}

func TestLost(t *testing.T) {
	for _, tc := range []struct{ name, say, want string }{
		{"closed", "", "the broker closed the connection"},
		{"shut down", "e0 02 8b 00", "the broker ended the connection: server shutting down (code 139)"},
		{"plain goodbye", "e0 00", "the broker ended the connection: without an error (code 0)"},
		{"a client's packet", "c0 00", "the broker sends a packet that is none of its own (type 12)"},
		{"not MQTT", "48 54 54 50", "not MQTT, or not a broker"},
		{"cut short", "30 05 0001", "the broker closed the connection"},
		{"huge claim", "30 ffffff7f 00", "the broker closed the connection"},
		{"broken", "90 01 00", "the broker sends a Suback that cannot be read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := mustConnect(t, options(broker(t, func(s *script) {
				s.want("CONNECT", connect5)
				s.say(connack5)
				s.want("SUBSCRIBE", "82 07 0001 00 0001 61 00")
				s.say(tc.say)
			})))
			err := c.Subscribe(context.Background(), []Subscription{{Filter: "a"}}, Properties{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Subscribe: %v", err)
			}
			<-c.Done()
			if c.Err() == nil || !strings.Contains(c.Err().Error(), tc.want) {
				t.Errorf("Err: %v", c.Err())
			}
			if err := c.Publish(context.Background(), Message{Topic: "a", QoS: 1}); err == nil {
				t.Error("published over a lost connection")
			}
		})
	}
}

func TestKeepAlive(t *testing.T) {
	o := options(broker(t, func(s *script) {
		s.want("CONNECT", "10 0e 0004 4d515454 05 02 003c 00 0001 63")
		s.say("20 06 00 00 03 13 0001") // the server's keep alive is 1 s
		s.want("PINGREQ", "c0 00")
		s.say("d0 00")
		s.want("PINGREQ", "c0 00")
		s.want("DISCONNECT", disconnect)
	}))
	o.KeepAlive = 60
	c := mustConnect(t, o)
	select {
	case <-c.Done():
		t.Error(c.Err())
	case <-time.After(1200 * time.Millisecond):
	}
	_ = c.Disconnect()
}

func TestNoBroker(t *testing.T) {
	_, err := Connect(context.Background(), options("127.0.0.1:1"))
	if err == nil || err.Error() != "connect to the broker at 127.0.0.1:1: connect: connection refused" {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	address := broker(t, func(s *script) { _, _ = io.Copy(io.Discard, s.in) }) // listens and says nothing
	if _, err := Connect(ctx, options(address)); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("%v", err)
	}
}
