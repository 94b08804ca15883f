package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// encoders has what a client sends.
var encoders = map[byte]func(*packets.Packet, *bytes.Buffer) error{
	packets.Connect:     (*packets.Packet).ConnectEncode,
	packets.Publish:     (*packets.Packet).PublishEncode,
	packets.Puback:      (*packets.Packet).PubackEncode,
	packets.Pubrec:      (*packets.Packet).PubrecEncode,
	packets.Pubrel:      (*packets.Packet).PubrelEncode,
	packets.Pubcomp:     (*packets.Packet).PubcompEncode,
	packets.Subscribe:   (*packets.Packet).SubscribeEncode,
	packets.Unsubscribe: (*packets.Packet).UnsubscribeEncode,
	packets.Pingreq:     (*packets.Packet).PingreqEncode,
	packets.Disconnect:  (*packets.Packet).DisconnectEncode,
}

// decoders has what a client receives.
var decoders = map[byte]func(*packets.Packet, []byte) error{
	packets.Connack:    (*packets.Packet).ConnackDecode,
	packets.Publish:    (*packets.Packet).PublishDecode,
	packets.Puback:     (*packets.Packet).PubackDecode,
	packets.Pubrec:     (*packets.Packet).PubrecDecode,
	packets.Pubrel:     (*packets.Packet).PubrelDecode,
	packets.Pubcomp:    (*packets.Packet).PubcompDecode,
	packets.Suback:     (*packets.Packet).SubackDecode,
	packets.Unsuback:   (*packets.Packet).UnsubackDecode,
	packets.Pingresp:   (*packets.Packet).PingrespDecode,
	packets.Disconnect: (*packets.Packet).DisconnectDecode,
}

// write sends one packet.
func (c *Client) write(pk packets.Packet) error {
	pk.ProtocolVersion = c.options.Version
	pk.Mods.AllowResponseInfo = true // the codec's word for "response topics may be sent"
	switch pk.FixedHeader.Type {
	case packets.Pubrel, packets.Subscribe, packets.Unsubscribe:
		pk.FixedHeader.Qos = 1 // bits that MQTT fixes
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.buf.Reset()
	if err := encoders[pk.FixedHeader.Type](&pk, &c.buf); err != nil {
		return fmt.Errorf("encode %s: %w", packets.PacketNames[pk.FixedHeader.Type], err)
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := c.conn.Write(c.buf.Bytes()); err != nil {
		return fmt.Errorf("send to the broker: %w", cause(err))
	}
	return nil
}

// read receives one packet. Where there is a keep alive, a broker that is silent for longer is lost.
func (c *Client) read() (pk packets.Packet, err error) {
	var patience time.Time // none
	if k := c.options.KeepAlive; k > 0 {
		patience = time.Now().Add(time.Duration(k)*time.Second*3/2 + 5*time.Second)
	}
	_ = c.conn.SetReadDeadline(patience)
	first, err := c.reader.ReadByte()
	if err != nil {
		return pk, c.readError(err)
	}
	if err := pk.FixedHeader.Decode(first); err != nil {
		return pk, fmt.Errorf("not MQTT, or not a broker: %w", err)
	}
	decode := decoders[pk.FixedHeader.Type]
	if decode == nil {
		return pk, fmt.Errorf("the broker sends a packet that is none of its own (type %d)", pk.FixedHeader.Type)
	}
	if pk.FixedHeader.Remaining, _, err = packets.DecodeLength(c.reader); err != nil {
		return pk, c.readError(err)
	}
	// The buffer grows with what really comes, whatever the header claims.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, c.reader, int64(pk.FixedHeader.Remaining)); err != nil {
		return pk, c.readError(err)
	}
	pk.ProtocolVersion = c.options.Version
	defer func() {
		if recover() != nil { // the codec is known to panic
			err = fmt.Errorf("the broker sends a %s that cannot be read", packets.PacketNames[pk.FixedHeader.Type])
		}
	}()
	if pk.FixedHeader.Type == packets.Disconnect && body.Len() == 0 {
		return pk, nil
	}
	if err := decode(&pk, body.Bytes()); err != nil {
		return pk, fmt.Errorf("the broker sends a %s that cannot be read: %w", packets.PacketNames[pk.FixedHeader.Type], err)
	}
	return pk, nil
}

func (c *Client) readError(err error) error {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the broker closed the connection")
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("the broker is silent")
	}
	return fmt.Errorf("receive from the broker: %w", cause(err))
}

// returnCodes are the words for MQTT 3's CONNACK.
var returnCodes = map[byte]string{
	1: "unacceptable protocol version",
	2: "client identifier rejected",
	3: "server unavailable",
	4: "bad user name or password",
	5: "not authorized",
}

// reasonCodes are the words for MQTT 5's refusals.
var reasonCodes = map[byte]string{
	0: "without an error", 0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error", 0x83: "implementation specific error",
	0x84: "unsupported protocol version", 0x85: "client identifier not valid", 0x86: "bad user name or password",
	0x87: "not authorized", 0x88: "server unavailable", 0x89: "server busy", 0x8A: "banned",
	0x8B: "server shutting down", 0x8C: "bad authentication method", 0x8D: "keep alive timeout",
	0x8E: "session taken over", 0x8F: "topic filter invalid", 0x90: "topic name invalid",
	0x91: "packet identifier in use", 0x92: "packet identifier not found", 0x93: "receive maximum exceeded",
	0x94: "topic alias invalid", 0x95: "packet too large", 0x96: "message rate too high", 0x97: "quota exceeded",
	0x98: "administrative action", 0x99: "payload format invalid", 0x9A: "retain not supported",
	0x9B: "QoS not supported", 0x9C: "use another server", 0x9D: "server moved",
	0x9E: "shared subscriptions not supported", 0x9F: "connection rate exceeded", 0xA0: "maximum connect time",
	0xA1: "subscription identifiers not supported", 0xA2: "wildcard subscriptions not supported",
}

func (c *Client) refused(what string, code byte, p Properties) *RefusedError {
	reason := reasonCodes[code]
	if c.options.Version != Version5 && what == "connection" {
		reason = returnCodes[code]
	}
	if reason == "" {
		reason = "for a reason that has no name"
	}
	return &RefusedError{What: what, Code: code, Reason: reason, Text: beyond(reason, p.ReasonString)}
}

// beyond returns what of a broker's reason string the name of the reason does not say already.
func beyond(name, text string) string {
	text = strings.TrimSpace(text)
	if len(text) < len(name) || !strings.EqualFold(text[:len(name)], name) {
		return text
	}
	rest := strings.TrimLeft(text[len(name):], " ,.:;-")
	if rest != "" && len(rest) == len(text)-len(name) {
		return text // another word that begins the same
	}
	return rest
}
