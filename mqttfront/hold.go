package mqttfront

import (
	"net"
	"time"
)

// A client that asks for more than it may have open is not read from until some of it is done: messages that are not
// accepted, subscriptions that are not answered, answers that it does not read. What is ours to tune:
const (
	// maxOpenRequests is how many SUBSCRIBEs and UNSUBSCRIBEs of one connection may be without their answers.
	maxOpenRequests = 64
	// maxOpenFilters is how many filters may be in them; a packet with more is taken by itself.
	maxOpenFilters = 8 << 10
	// maxFilters is how many filters one packet may have. It costs several times its size while it is dealt with.
	maxFilters = 32 << 10
)

// hold is why a connection is not read from.
type hold byte

const (
	holdNot      hold = iota
	holdMessages      // the swarm has not accepted what the client published
	holdAnswers       // the swarm has not promised what the client subscribed to
	holdUnread        // the client does not read its answers
)

// holdsLocked is what the next packet of a type has to wait for; for DISCONNECT that is everything unanswered.
func (c *conn) holdsLocked(kind byte) hold {
	cfg := &c.b.cfg
	switch kind {
	case typePublish:
		if c.acks.n >= cfg.ReceiveMaximum || c.acks.bytes > cfg.MaxUnacceptedBytes {
			return holdMessages
		}
	case typeSubscribe:
		if c.pendingLocked() > cfg.MaxPendingBytes {
			return holdUnread
		}
		if len(c.answers) >= maxOpenRequests || c.openFilters >= maxOpenFilters {
			return holdAnswers
		}
	case typeDisconnect:
		if len(c.answers) > 0 {
			return holdAnswers
		}
		if c.acks.n > 0 {
			return holdMessages
		}
	}
	return holdNot
}

// waitForRoom keeps the reading goroutine until a packet of a type may be handled. It fails when the connection is to
// end meanwhile.
func (c *conn) waitForRoom(u *burst, kind byte) error {
	c.mu.Lock()
	free := c.holdsLocked(kind) == holdNot
	c.mu.Unlock()
	if free {
		return nil
	}
	u.pause()
	c.b.stats.Held.Add(1)
	err := c.waitWhileHeld(kind, nil)
	c.mu.Lock()
	c.dirty = true // u goes on
	c.mu.Unlock()
	return err
}

// waitWhileHeld waits until no packet of a type has to, or for timeout.
func (c *conn) waitWhileHeld(kind byte, timeout <-chan time.Time) error {
	for {
		c.mu.Lock()
		if c.closing {
			c.mu.Unlock()
			return net.ErrClosed
		}
		if c.holdsLocked(kind) == holdNot {
			c.mu.Unlock()
			return nil
		}
		if c.room == nil {
			c.room, c.waits = make(chan struct{}), kind
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-timeout:
			return nil
		case <-c.b.stopped:
			return net.ErrClosed
		}
	}
}

// wakeLocked lets the reading goroutine go on, if it waits and need not any more.
func (c *conn) wakeLocked() {
	if c.room != nil && (c.closing || c.holdsLocked(c.waits) == holdNot) {
		c.seen() // for all that we know
		close(c.room)
		c.room = nil
	}
}

// heldFor returns why the client is not read from now.
func (c *conn) heldFor() hold {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.room == nil {
		return holdNot
	}
	return c.holdsLocked(c.waits)
}

// answerRest waits, after the client has said its last, until it has been answered: it may only have closed its
// half of the connection.
func (c *conn) answerRest() {
	t := time.NewTimer(c.b.cfg.CloseTimeout)
	defer t.Stop()
	_ = c.waitWhileHeld(typeDisconnect, t.C) // it ends in any case
}
