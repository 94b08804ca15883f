package mqttfront

import (
	"bytes"
	"io"
	"net"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A connection over a limit is told so, which takes a goroutine until its CONNECT is there and the answer is read.
// What is ours to tune:
const (
	// maxTurnedAway is how many are told at a time. More are closed without a word, so that a flood costs no more
	// than accepting it.
	maxTurnedAway = 64
	// turnAwayTime is how long one of them may take for its CONNECT, and again for reading the answer (Broker.tellTime).
	turnAwayTime = time.Second
)

// turnAway answers the CONNECT of a connection that there is no room for, and closes it.
func (b *Broker) turnAway(nc net.Conn, r *Refusal) {
	defer nc.Close()
	nc.SetReadDeadline(time.Now().Add(b.tellTime))
	version, maxPacket, ok := beginningOf(nc)
	if !ok {
		return
	}
	nc.SetWriteDeadline(time.Now().Add(b.tellTime))
	if _, err := nc.Write(encodeRefusal(version, r, maxPacket)); err != nil {
		return
	}
	if l, ok := nc.(lingerer); ok {
		written := make(chan struct{})
		close(written)
		l.linger(written, b.tellTime)
		return
	}
	// Closing with unread input makes some systems throw away what we have written.
	if half, ok := nc.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	nc.SetReadDeadline(time.Now().Add(b.tellTime))
	var sink [512]byte
	for range maxConnect / len(sink) {
		if _, err := nc.Read(sink[:]); err != nil {
			return
		}
	}
}

// beginningOf reads the start of a CONNECT. It returns the version of MQTT in which a refusal can be understood, and
// how large that may be.
func beginningOf(nc io.Reader) (version byte, maxPacket int, ok bool) {
	var buf [256]byte // 5 bytes of header, 9 of protocol name and level, 3 of flags and keep alive, and the properties
	for n := 0; n < len(buf); {
		more, err := nc.Read(buf[n:])
		if n += more; n > 0 && buf[0] != typeConnect<<4 { // [MQTT-3.1.0-1]
			return 0, 0, false
		}
		if head, _, short := header(buf[:n]); short == nil {
			if name, level, tail, whole := protocolOf(buf[head:n]); whole {
				version, ok = spoken(name, level)
				if !ok || level != v5 {
					return version, maxPacketLimit, ok
				}
				if len(tail) > 3 {
					if _, _, whole = sizedProperties(tail[3:]); whole {
						return version, announcedMaximum(tail), true
					}
				}
			}
		}
		if err != nil {
			break
		}
	}
	return version, leastPacket, ok // who has so many properties is told no more than the code
}

// spoken returns the version of MQTT in which a client understands a CONNACK.
func spoken(name string, level byte) (version byte, ok bool) {
	switch {
	case name == "MQTT" && level >= v5 && level&bridgeBit == 0:
		return v5, true
	case name == "MQTT", name == "MQIsdp":
		return v311, true // 3.1 has the same
	}
	return 0, false
}

// leastPacket is the size of the smallest CONNACK of MQTT 5.
const leastPacket = 5

// encodeRefusal encodes the CONNACK that says no [MQTT-3.2.2-6], if the client takes one, with a reason string if it takes
// that too [MQTT-3.2.2-19] [MQTT-3.2.2-20].
func encodeRefusal(version byte, r *Refusal, maxPacket int) []byte {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ProtocolVersion: version}
	pk.ReasonCode = byte(lawful(typeConnack, r.Code))
	if version < v5 {
		pk.ReasonCode = v3Connack(r.Code)
	}
	for _, text := range []string{clip(r.Text), ""} {
		pk.Properties.ReasonString = text
		var buf bytes.Buffer
		if pk.ConnackEncode(&buf) == nil && buf.Len() <= maxPacket {
			return buf.Bytes()
		}
	}
	return nil
}
