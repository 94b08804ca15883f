package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// First bytes of packets.
const (
	publishFirst    = 0x30
	retainFlag      = 0x01
	pubackFirst     = 0x40
	pubrecFirst     = 0x50
	pubrelFirst     = 0x62
	pubcompFirst    = 0x70
	pingreqFirst    = 0xc0
	disconnectFirst = 0xe0
)

// Sizes of a connection's buffers, bytes. A subscriber that reads much at a time costs the broker and itself fewer system
// calls; where there are many subscribers they share readBuffers.
const (
	maxReadBuffer = 256 << 10
	minReadBuffer = 16 << 10
	readBuffers   = 64 << 20
	ackBatch      = 32 << 10 // acknowledgements that wait for the end of what was read, at most
)

// conn is a connection to a broker. One goroutine reads; any may write.
type conn struct {
	net.Conn
	version byte
	window  int // the broker's Receive Maximum

	// What was read: buf[at:end] is not used yet.
	buf     []byte
	at, end int

	// writing is held while something is written. The lock order is writing, acksMu.
	writing sync.Mutex
	spare   []byte // what acks was before, empty

	// acks are acknowledgements that are not written yet. They never wait for a write, so that a broker that reads
	// nothing until it has got rid of its own is read from all the same.
	acksMu sync.Mutex
	acks   []byte
}

// newConn takes a connection over. bufSize is of the buffer for reading, bytes.
func newConn(raw *client.Raw, version byte, bufSize int) *conn {
	c := &conn{Conn: raw.Conn, version: version, window: raw.ReceiveMaximum, buf: make([]byte, bufSize)}
	c.end = copy(c.buf, raw.Unread())
	return c
}

// fill reads once, and waits for it. What next returned before is gone.
func (c *conn) fill() error {
	c.end = copy(c.buf, c.buf[c.at:c.end])
	c.at = 0
	if c.end == len(c.buf) { // a packet that is larger than the buffer
		if len(c.buf) > 2*maxSize {
			return errors.New("the broker sends a packet that is larger than what was published")
		}
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	n, err := c.Read(c.buf[c.end:])
	c.end += n
	switch {
	case n > 0:
		return nil
	case errors.Is(err, io.EOF):
		return errors.New("the broker closed the connection")
	}
	return err
}

// next returns the next packet of what was read: its first byte and what comes after its length. It is ok while there is
// a whole one. The body is valid until fill.
func (c *conn) next() (first byte, body []byte, ok bool, err error) {
	b := c.buf[c.at:c.end]
	length, shift := 0, 0
	for i := 1; i < len(b); i++ {
		length |= int(b[i]&0x7f) << shift
		if b[i] < 0x80 {
			i++
			if len(b)-i < length {
				return 0, nil, false, nil
			}
			c.at += i + length
			return b[0], b[i : i+length], true, nil
		}
		if shift += 7; shift > 21 {
			return 0, nil, false, errors.New("the broker sends a length of more than 4 bytes")
		}
	}
	return 0, nil, false, nil
}

// send writes packets, and the acknowledgements that came up meanwhile.
func (c *conn) send(b []byte) error {
	c.writing.Lock()
	err := c.write(b)
	c.writing.Unlock()
	if err != nil {
		return err
	}
	return c.flush()
}

// write writes with writing held.
func (c *conn) write(b []byte) error {
	_, err := c.Write(b)
	if err != nil {
		return fmt.Errorf("send to the broker: %w", err)
	}
	return nil
}

// acknowledge queues an acknowledgement, and sends where much waits.
func (c *conn) acknowledge(first byte, id uint16) error {
	c.acksMu.Lock()
	c.acks = append(c.acks, first, 2, byte(id>>8), byte(id))
	n := len(c.acks)
	c.acksMu.Unlock()
	if n >= ackBatch {
		return c.flush()
	}
	return nil
}

// flush writes what acknowledge has queued, or leaves it to the goroutine that is writing now.
func (c *conn) flush() error {
	for c.owes() && c.writing.TryLock() {
		c.acksMu.Lock()
		b := c.acks
		c.acks, c.spare = c.spare, nil
		c.acksMu.Unlock()
		err := c.write(b)
		c.spare = b[:0]
		c.writing.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) owes() bool {
	c.acksMu.Lock()
	defer c.acksMu.Unlock()
	return len(c.acks) > 0
}

// ping keeps the connection alive. Where something is being written it is alive anyway.
func (c *conn) ping() error {
	if !c.writing.TryLock() {
		return nil
	}
	err := c.write([]byte{pingreqFirst, 0})
	c.writing.Unlock()
	if err != nil {
		return err
	}
	return c.flush()
}

// hangUp says goodbye and closes. A write that waits is given up.
func (c *conn) hangUp() {
	c.SetWriteDeadline(time.Now().Add(time.Second))
	c.writing.Lock()
	_ = c.write([]byte{disconnectFirst, 0}) // it may be gone already
	c.writing.Unlock()
	c.Close()
}

// ended returns why a broker ended the connection, from the body of its DISCONNECT.
func ended(body []byte) error {
	code := byte(0)
	if len(body) > 0 {
		code = body[0]
	}
	return client.Ended(code)
}

// Made once: payload is called for every message.
var errBadPublish = errors.New("the broker sends a PUBLISH that cannot be read")

// payload returns the packet identifier and the payload of a PUBLISH.
func payload(first byte, body []byte, version byte) (id uint16, p []byte, err error) {
	if len(body) < 2 {
		return 0, nil, errBadPublish
	}
	at := 2 + int(binary.BigEndian.Uint16(body))
	if first&0x06 != 0 {
		if len(body) < at+2 {
			return 0, nil, errBadPublish
		}
		id = binary.BigEndian.Uint16(body[at:])
		at += 2
	}
	if version == client.Version5 {
		if len(body) <= at {
			return 0, nil, errBadPublish
		}
		n, used := binary.Uvarint(body[at:])
		if used <= 0 || n > uint64(len(body)) {
			return 0, nil, errBadPublish
		}
		at += used + int(n)
	}
	if len(body) < at {
		return 0, nil, errBadPublish
	}
	return id, body[at:], nil
}
