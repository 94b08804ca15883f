package client

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// recorded is a connection to a broker that says what is given, whatever it is told.
type recorded struct {
	net.Conn // none: what is not here must not be called
	in       *bytes.Reader
	out      bytes.Buffer
}

func (r *recorded) Read(b []byte) (int, error)       { return r.in.Read(b) }
func (r *recorded) Write(b []byte) (int, error)      { return r.out.Write(b) }
func (r *recorded) Close() error                     { return nil }
func (r *recorded) SetReadDeadline(time.Time) error  { return nil }
func (r *recorded) SetWriteDeadline(time.Time) error { return nil }

// FuzzBroker has a broker say anything: the client must not panic, hand over a message twice at QoS 2, nor keep more than
// it was sent.
func FuzzBroker(f *testing.F) {
	for _, s := range []string{
		connack5,
		connack5 + "30 06 0001 61 00 6869" + "32 06 0001 61 0001 00" + "34 06 0001 61 0002 00" + "62 02 0002" + "d0 00",
		"20 0f 01 00 0c 21 0005 12 0001 61 13 0009 22 0001" + "90 04 0001 00 01" + "b0 04 0001 00 00",
		connack5 + "30 08 0001 61 03 23 0001" + "30 07 0000 03 23 0001 78",
		"20 02 00 05", "20 03 00 87 00", "20 0a 00 97 07 1f 0004 66756c6c",
		connack5 + "40 02 0001" + "50 04 0002 80 00" + "70 02 0003" + "e0 00",
		connack5 + "e0 02 8e 00", connack5 + "30 ff ff ff 7f 00", connack5 + "90 03 0001 ff", "20 02 00 00 32 05 0001 61 0001",
	} {
		for version := byte(Version31); version <= Version5; version++ {
			f.Add(version, unhex(f, s))
		}
	}
	f.Fuzz(func(t *testing.T, version byte, said []byte) {
		conn := &recorded{in: bytes.NewReader(said)}
		open := map[uint16]bool{}
		heard := 0
		c := &Client{
			options: Options{Version: Version31 + version%3, ClientID: "c", Clean: true, KeepAlive: 10, MaxInflight: 4, OnMessage: func(m Message) bool {
				if heard += len(m.Payload); heard > len(said) {
					t.Errorf("%d bytes are handed over of %d", heard, len(said))
				}
				if m.QoS == 2 {
					if open[m.PacketID] {
						t.Errorf("message %d is handed over twice", m.PacketID)
					}
					open[m.PacketID] = true
				}
				return true
			}},
			conn: conn, reader: bufio.NewReader(conn), done: make(chan struct{}), waiting: map[uint16]*exchange{}, received: map[uint16]bool{}, aliases: map[uint16]string{},
		}
		if c.handshake() != nil {
			return
		}
		if cap(c.window) < 1 || cap(c.window) > 4 {
			t.Errorf("%d messages may be on the way", cap(c.window))
		}
		answers := 0
		for _, pk := range []exchange{{message: true}, {}, {message: true}} { // three that wait for the broker's answer
			if pk.message {
				select {
				case c.window <- struct{}{}:
				default:
					continue
				}
			}
			c.nextID++
			c.waiting[c.nextID] = &exchange{message: pk.message, answer: func(packets.Packet, error) { answers++ }}
		}
		for more := true; more; {
			pk, err := c.read()
			if err != nil {
				break
			}
			before := len(open)
			if more, err = c.handle(pk); err != nil {
				break
			}
			if len(open) == before && len(c.received) < len(open) { // PUBREL
				clear(open)
				for id := range c.received {
					open[id] = true
				}
			}
		}
		c.end(io.EOF)
		if answers > 3 {
			t.Errorf("%d answers to 3", answers)
		}
		if len(c.aliases) > len(said) || len(c.received) > len(said) {
			t.Errorf("%d aliases, %d open messages of %d bytes", len(c.aliases), len(c.received), len(said))
		}
	})
}
