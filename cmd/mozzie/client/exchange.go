package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Subscription is one filter of a SUBSCRIBE.
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
}

// Subscribe subscribes and waits for the answer. A filter that is refused is a *RefusedError, when the others
// have been subscribed to.
func (c *Client) Subscribe(ctx context.Context, subscriptions []Subscription, p Properties) error {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, Properties: p}
	for _, s := range subscriptions {
		pk.Filters = append(pk.Filters, packets.Subscription{
			Filter: s.Filter, Qos: s.QoS, NoLocal: s.NoLocal, RetainAsPublished: s.RetainAsPublished, RetainHandling: s.RetainHandling,
		})
	}
	answer, err := c.ask(ctx, pk)
	if err != nil {
		return err
	}
	for i, code := range answer.ReasonCodes {
		if code >= 0x80 && i < len(subscriptions) {
			return c.refused(fmt.Sprintf("subscription to %q", subscriptions[i].Filter), code, answer.Properties)
		}
	}
	return nil
}

// Unsubscribe takes subscriptions away and waits for the answer.
func (c *Client) Unsubscribe(ctx context.Context, filters []string, p Properties) error {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}, Properties: p}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f})
	}
	_, err := c.ask(ctx, pk)
	return err
}

// Publish publishes a message and waits until the broker has taken it: for QoS 1 and 2 until it says so.
func (c *Client) Publish(ctx context.Context, m Message) error {
	done := make(chan error, 1)
	if err := c.PublishAsync(ctx, m, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// PublishAsync publishes a message. It waits while MaxInflight messages are unacknowledged, and returns when
// the message is on its way; done is then called once, from any goroutine, and must not block. done is not
// called where PublishAsync fails.
func (c *Client) PublishAsync(ctx context.Context, m Message, done func(error)) error {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: m.QoS, Retain: m.Retain},
		TopicName:   m.Topic,
		Payload:     m.Payload,
		Properties:  m.Properties,
	}
	if m.QoS == 0 {
		if err := c.write(pk); err != nil {
			return err
		}
		done(nil)
		return nil
	}
	select {
	case c.window <- struct{}{}:
	case <-c.done:
		return c.over()
	case <-ctx.Done():
		return ctx.Err()
	}
	return c.send(pk, &exchange{message: true, answer: func(answer packets.Packet, err error) {
		if err == nil && answer.ReasonCode >= 0x80 {
			err = c.refused(fmt.Sprintf("message on %q", m.Topic), answer.ReasonCode, answer.Properties)
		}
		done(err)
	}})
}

// over says why nothing can be sent any more.
func (c *Client) over() error {
	if c.err != nil {
		return c.err
	}
	return errors.New("the connection is closed")
}

// ask sends a packet and waits for its answer.
func (c *Client) ask(ctx context.Context, pk packets.Packet) (packets.Packet, error) {
	type result struct {
		pk  packets.Packet
		err error
	}
	done := make(chan result, 1)
	if err := c.send(pk, &exchange{answer: func(pk packets.Packet, err error) { done <- result{pk, err} }}); err != nil {
		return packets.Packet{}, err
	}
	select {
	case r := <-done:
		return r.pk, r.err
	case <-ctx.Done():
		return packets.Packet{}, ctx.Err()
	}
}

// send gives a packet its ID and sends it. x is answered later, unless send fails.
func (c *Client) send(pk packets.Packet, x *exchange) error {
	c.mu.Lock()
	if c.waiting == nil {
		c.mu.Unlock()
		return c.over()
	}
	for {
		if c.nextID++; c.nextID != 0 && c.waiting[c.nextID] == nil {
			break
		}
	}
	pk.PacketID = c.nextID
	c.waiting[pk.PacketID] = x
	c.mu.Unlock()
	if err := c.write(pk); err != nil {
		if c.take(pk.PacketID) == nil {
			return nil // x has been answered with the end of the connection
		}
		return err
	}
	return nil
}

// take removes what waits for an answer.
func (c *Client) take(id uint16) *exchange {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.waiting[id]
	delete(c.waiting, id)
	if x != nil && x.message {
		<-c.window
	}
	return x
}

// runRead reads until the connection is over, and from then on throws away what comes until it is closed.
func (c *Client) runRead() {
	for more := true; more; {
		pk, err := c.read()
		select {
		case <-c.done:
			more = false
			continue
		default:
		}
		if err == nil {
			more, err = c.handle(pk)
		}
		if err != nil {
			c.lost(err)
			return
		}
	}
	c.end(nil)
	_, _ = io.Copy(io.Discard, c.conn)
}

// handle deals with one packet from the broker.
func (c *Client) handle(pk packets.Packet) (more bool, err error) {
	switch pk.FixedHeader.Type {
	case packets.Publish:
		return c.handlePublish(pk)
	case packets.Pubrel:
		delete(c.received, pk.PacketID)
		return true, c.acknowledge(packets.Pubcomp, pk.PacketID)
	case packets.Pubrec:
		if pk.ReasonCode < 0x80 {
			return true, c.acknowledge(packets.Pubrel, pk.PacketID)
		}
		c.answer(pk)
	case packets.Puback, packets.Pubcomp, packets.Suback, packets.Unsuback:
		c.answer(pk)
	case packets.Disconnect:
		return false, c.refused("", pk.ReasonCode, pk.Properties)
	}
	return true, nil
}

func (c *Client) answer(pk packets.Packet) {
	if x := c.take(pk.PacketID); x != nil {
		x.answer(pk, nil)
	}
}

func (c *Client) acknowledge(kind byte, id uint16) error {
	return c.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, PacketID: id})
}

func (c *Client) handlePublish(pk packets.Packet) (more bool, err error) {
	m := Message{
		Topic: pk.TopicName, Payload: pk.Payload, QoS: pk.FixedHeader.Qos, Retain: pk.FixedHeader.Retain,
		Dup: pk.FixedHeader.Dup, PacketID: pk.PacketID, Properties: pk.Properties,
	}
	if alias := pk.Properties.TopicAlias; pk.Properties.TopicAliasFlag {
		if m.Topic == "" {
			m.Topic = c.aliases[alias]
		}
		c.aliases[alias] = m.Topic
	}
	switch m.QoS {
	case 1:
		more = c.deliver(m)
		return more, c.acknowledge(packets.Puback, m.PacketID)
	case 2:
		more = true
		if !c.received[m.PacketID] {
			c.received[m.PacketID] = true
			more = c.deliver(m)
		}
		return more, c.acknowledge(packets.Pubrec, m.PacketID)
	}
	return c.deliver(m), nil
}

func (c *Client) deliver(m Message) (more bool) {
	return c.options.OnMessage == nil || c.options.OnMessage(m)
}
