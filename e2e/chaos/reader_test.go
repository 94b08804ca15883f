package chaos

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// runReader reads what comes on a connection until that ends.
func (c *client) runReader(k *conn) {
	var sent string // what the node says at the end
	var err error
	for err == nil {
		c.mu.Lock()
		if !k.stale && !k.said {
			_ = k.SetReadDeadline(time.Now().Add(answerLimit)) // of a connection that may be gone
		}
		c.mu.Unlock()
		var p *packets.ControlPacket
		if p, err = packets.ReadPacket(k); err != nil {
			break
		}
		if d, ok := p.Content.(*packets.Disconnect); ok {
			sent = fmt.Sprintf("%s0x%02x", howSent, d.ReasonCode)
			continue
		}
		c.mu.Lock()
		c.handleLocked(k, p)
		c.mu.Unlock()
	}
	k.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	late := errors.Is(err, os.ErrDeadlineExceeded)
	e := c.event(k, Closed)
	switch {
	case k.how != "":
		e.Text = k.how
	case sent != "":
		e.Text = sent
	case k.stale && late:
		e.Text = howOpen
	case k.said && errors.Is(err, io.EOF):
		e.Text = howSaid
	case k.said:
		e.Text = howUnread
	default:
		e.Text = howLost
	}
	c.history.Add(e)
	if c.conn == k {
		c.conn = nil
	}
	close(k.done)
	c.changedLocked()
}

// runAcks acknowledges late.
func (c *client) runAcks(k *conn) {
	for {
		select {
		case <-k.done:
			return
		case a := <-k.acks:
			select {
			case <-k.done:
				return
			case <-time.After(time.Until(a.due)): // how long the client takes
				k.send(a.Packet)
			}
		}
	}
}

// answer answers a message, at once or late.
func (c *client) answerLocked(k *conn, p packets.Packet, after time.Duration) {
	if c.ackDelay == nil {
		k.send(p)
		return
	}
	k.acks <- ack{time.Now().Add(after), p} // there is room: Receive Maximum is less
}

func (c *client) handleLocked(k *conn, p *packets.ControlPacket) {
	if m, ok := p.Content.(*packets.Publish); ok {
		c.receivedLocked(k, m)
		return
	}
	if k.stale {
		return
	}
	switch p := p.Content.(type) {
	case *packets.Puback:
		c.ackedLocked(k, p.PacketID, p.ReasonCode)
	case *packets.Pubrec:
		c.ackedLocked(k, p.PacketID, p.ReasonCode)
	case *packets.Pubcomp:
		c.flying = slices.DeleteFunc(c.flying, func(f *flight) bool { return f.released && f.id == p.PacketID })
		c.changedLocked()
	case *packets.Pubrel:
		delete(c.open, p.PacketID)
		k.send(&packets.Pubcomp{PacketID: p.PacketID, Properties: &packets.Properties{}})
	case *packets.Suback:
		c.subackedLocked(k, p)
	case *packets.Unsuback:
		c.wants = slices.DeleteFunc(c.wants, func(w *want) bool { return w.gone && w.id == p.PacketID })
		c.changedLocked()
	}
}

// receivedLocked takes in a message.
func (c *client) receivedLocked(k *conn, m *packets.Publish) {
	e := c.event(k, Received)
	e.Topic, e.QoS, e.Retain, e.Dup, e.ID = m.Topic, m.QoS, m.Retain, m.Duplicate, int(m.PacketID)
	e.Msg, _, _ = strings.Cut(string(m.Payload), " ")
	for _, u := range m.Properties.User {
		if u.Key == idProperty {
			e.Msg = u.Value
		}
	}
	if k.stale { // the node will send it again where it was not acknowledged
		e.Kind = Stale
		c.history.Add(e)
		return
	}
	switch open, is := c.open[m.PacketID]; {
	case m.QoS < 2 || !is:
		c.history.Add(e)
	case open != e.Msg:
		e.Kind = Mistaken
		c.history.Add(e)
	}
	var after time.Duration
	if c.ackDelay != nil {
		after = c.ackDelay(c.delays)
	}
	switch m.QoS {
	case 1:
		c.answerLocked(k, &packets.Puback{PacketID: m.PacketID, Properties: &packets.Properties{}}, after)
	case 2:
		if _, is := c.open[m.PacketID]; !is {
			c.open[m.PacketID] = e.Msg
		}
		c.answerLocked(k, &packets.Pubrec{PacketID: m.PacketID, Properties: &packets.Properties{}}, after)
	}
	if m.Retain || len(m.Payload) == 0 {
		c.changedLocked()
	}
}

// ackedLocked takes in PUBACK and PUBREC.
func (c *client) ackedLocked(k *conn, id uint16, reason byte) {
	at := slices.IndexFunc(c.flying, func(f *flight) bool { return f.id == id })
	if at < 0 {
		return
	}
	f := c.flying[at]
	if !f.recorded {
		f.recorded = true
		e := c.event(k, Acked)
		e.Msg, e.Topic, e.QoS, e.Retain = f.msg, f.topic, f.qos, f.retain
		if reason >= 0x80 {
			e.Kind, e.Text = Refused, fmt.Sprintf("0x%02x", reason)
		}
		c.history.Add(e)
	}
	if f.qos == 2 && reason < 0x80 {
		f.released = true
		k.send(&packets.Pubrel{PacketID: id, Properties: &packets.Properties{}})
		return
	}
	c.flying = slices.Delete(c.flying, at, at+1)
	c.changedLocked()
}

func (c *client) subackedLocked(k *conn, p *packets.Suback) {
	for _, w := range c.wants {
		if w.id != p.PacketID || !w.waiting || w.gone || len(p.Reasons) != 1 {
			continue
		}
		w.waiting = false
		e := c.event(k, Subscribed)
		e.Filter, e.QoS = w.filter, w.qos
		if p.Reasons[0] >= 0x80 {
			e.Text = "refused"
		} else {
			w.stands = true
			for _, u := range p.Properties.User {
				if u.Key == "promise" {
					e.Text = u.Value
				}
			}
		}
		c.history.Add(e)
	}
	c.changedLocked()
}
