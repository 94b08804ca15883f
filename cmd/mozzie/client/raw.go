package client

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Raw is a connection that a broker has accepted, for who reads and writes packets itself: the codec and a call for
// each message are too slow for a load generator. Nothing runs on it, nothing keeps it alive, and no deadline is set.
type Raw struct {
	Conn net.Conn
	// ReceiveMaximum is how many QoS 1 and 2 messages may be unacknowledged at the broker.
	ReceiveMaximum int

	client *Client
}

// maxReceiveMaximum is what the broker's Receive Maximum is where it does not say.
const maxReceiveMaximum = 65535

// OpenRaw connects and returns when the broker has accepted, as Connect does. Of the options it has no use for
// MaxInflight and OnMessage.
func OpenRaw(ctx context.Context, o Options) (*Raw, error) {
	o.MaxInflight = maxReceiveMaximum
	c, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	r := &Raw{Conn: c.conn, ReceiveMaximum: cap(c.window), client: c}
	c.options.KeepAlive = 0 // who uses it may be silent for as long as it likes
	if err := r.clear(); err != nil {
		return nil, err
	}
	return r, nil
}

// Subscribe subscribes and waits for the answer. It is an error when a filter is refused, or granted less than its QoS.
// It must not be called any more once Conn has been read from.
func (r *Raw) Subscribe(ctx context.Context, subscriptions []Subscription) error {
	c := r.client
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1}
	for _, s := range subscriptions {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: s.Filter, Qos: s.QoS})
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	answer, err := c.roundTrip(pk, packets.Suback)
	if !stop() && ctx.Err() != nil {
		return fmt.Errorf("subscribe at %s: %w", c.options.Address, cause(ctx.Err()))
	}
	if err != nil {
		return err
	}
	for i, code := range answer.ReasonCodes {
		switch {
		case i >= len(subscriptions):
		case code >= 0x80:
			return c.refused(fmt.Sprintf("subscription to %q", subscriptions[i].Filter), code, answer.Properties)
		case code < subscriptions[i].QoS:
			return fmt.Errorf("the broker grants QoS %d for %q, where QoS %d was asked for", code, subscriptions[i].Filter, subscriptions[i].QoS)
		}
	}
	return r.clear()
}

// clear takes the deadline of the last write away.
func (r *Raw) clear() error {
	if err := r.Conn.SetDeadline(time.Time{}); err != nil {
		r.Conn.Close()
		return fmt.Errorf("the connection to %s: %w", r.client.options.Address, err)
	}
	return nil
}

// Unread returns what the broker has sent since and was read with its last answer. It goes ahead of what Conn brings.
func (r *Raw) Unread() []byte {
	b, _ := r.client.reader.Peek(r.client.reader.Buffered())
	return b
}

// roundTrip sends a packet and reads until its answer comes. What comes in between is dropped.
func (c *Client) roundTrip(pk packets.Packet, answer byte) (packets.Packet, error) {
	if err := c.write(pk); err != nil {
		return packets.Packet{}, err
	}
	for {
		got, err := c.read()
		switch {
		case err != nil:
			return packets.Packet{}, err
		case got.FixedHeader.Type == answer:
			return got, nil
		case got.FixedHeader.Type == packets.Disconnect:
			return packets.Packet{}, c.refused("", got.ReasonCode, got.Properties)
		}
	}
}

// Ended is the error of a connection that the broker ended with a DISCONNECT.
func Ended(code byte) error {
	c := Client{options: Options{Version: Version5}}
	return c.refused("", code, Properties{})
}
