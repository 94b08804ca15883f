package bench

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// recorded is a connection to a broker that says what is given, whatever it is told.
type recorded struct {
	net.Conn // none: what is not here must not be called
	in       *bytes.Reader
	out      bytes.Buffer
}

func (r *recorded) Read(b []byte) (int, error)  { return r.in.Read(b) }
func (r *recorded) Write(b []byte) (int, error) { return r.out.Write(b) }

// FuzzBroker has a broker say anything to a subscriber and a publisher: what is read of a message is what mochi's codec
// reads of it, no more is counted than came, and what is kept of it is bounded.
func FuzzBroker(f *testing.F) {
	const mine = "00000001 00000001 0000000000000003 0000000000000009" // run, stream, number, time
	for _, s := range []string{
		"30 1b 0001 61" + mine + "30 1b 0001 61" + mine, "32 1d 0001 61 0001" + mine, "34 1d 0001 61 0007" + mine + "3c 1d 0001 61 0007" + mine + "62 02 0007",
		"30 1c 0001 61 00" + mine, "32 21 0001 61 0001 03 23 0001" + mine, "30 1b 0001 61" + strings.Replace(mine, "00000003", "ffffffff", 1),
		"40 02 0001 50 02 0002 70 02 0002", "40 03 0001 10", "50 04 0002 97 00", "e0 00", "e0 02 8e 00", "30 ff ff ff ff 01", "30 01 00", "32 04 0001 61 00", "62 01 00 d0 00",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(4), b)
		f.Add(byte(5), b)
	}
	f.Fuzz(func(t *testing.T, version byte, said []byte) {
		if version != client.Version5 {
			version = client.Version311
		}
		open := func() (*conn, *recorded) {
			r := &recorded{in: bytes.NewReader(said)}
			return &conn{Conn: r, version: version, window: 8, buf: make([]byte, 16)}, r
		}
		c, _ := open()
		messages := judgePackets(t, c)

		r := &run{id: 1}
		r.measuring.Store(true)
		p := &publisher{run: r, wake: make(chan struct{}, 1), ids: []uint16{7, 8}} // six are out
		s := &subscriber{run: r, flows: []*flow{nil, {stream: &stream{publisher: p}}}}
		var heard, answered *recorded
		s.conn, heard = open()
		if err := s.receive(); err == nil {
			t.Error("a connection that is over is no error")
		}
		if n := s.flows[1].tally.Unique + s.flows[1].tally.Duplicates + s.repeated; n > uint64(messages) || heard.out.Len() > 2*len(said) {
			t.Errorf("%d messages are counted of %d, and answered with %d bytes", n, messages, heard.out.Len())
		}
		p.conn, answered = open()
		if err := p.answers(); err == nil {
			t.Error("a connection that is over is no error")
		}
		if p.acked.Load() > 6 || answered.out.Len() > len(said) {
			t.Errorf("%d messages are acknowledged of 6, %d bytes are answered", p.acked.Load(), answered.out.Len())
		}
	})
}

// judgePackets reads all packets, and returns how many are messages. Those that mochi can read are read alike.
func judgePackets(t *testing.T, c *conn) (messages int) {
	t.Helper()
	for {
		first, body, ok, err := c.next()
		switch {
		case err != nil:
			return messages
		case !ok:
			if c.fill() != nil {
				return messages
			}
			continue
		case first&0xf0 != publishFirst:
			continue
		}
		messages++
		pk := packets.Packet{ProtocolVersion: c.version, FixedHeader: packets.FixedHeader{Remaining: len(body)}}
		if pk.FixedHeader.Decode(first) != nil || pk.PublishDecode(body) != nil {
			continue
		}
		id, p, err := payload(first, body, c.version)
		if err != nil && c.version == client.Version5 && overlong(first, body) {
			continue // mochi reads on
		}
		if err != nil || id != pk.PacketID || !bytes.Equal(p, pk.Payload) {
			t.Errorf("%x %x: %d, %x, %v; mochi: %d, %x", first, body, id, p, err, pk.PacketID, pk.Payload)
		}
	}
}

// overlong reports whether the length of a PUBLISH's properties has more bytes than it may.
func overlong(first byte, body []byte) bool {
	at := 2 + int(binary.BigEndian.Uint16(body))
	if first&6 != 0 {
		at += 2
	}
	return len(body) > at+3 && body[at]&body[at+1]&body[at+2]&body[at+3] >= 0x80
}

// TestStampsOfAnotherClock: a time that no clock of ours has told is counted as some latency, whatever it is.
func TestStampsOfAnotherClock(t *testing.T) {
	for _, sent := range []time.Duration{-1 << 63, -1, 0, 1<<63 - 1} {
		h := new(histogram)
		h.add(time.Second - sent)
		if h.count != 1 || h.quantile(0.5) < 0 {
			t.Errorf("sent at %d: %d, %v", sent, h.count, h.quantile(0.5))
		}
	}
}
