package bench

import (
	"encoding/binary"
	"fmt"
	"time"
)

// subscriber is a client that subscribes.
type subscriber struct {
	run   *run
	conn  *conn
	flows []*flow // by the number of their stream; nil where it does not subscribe to it

	untold []*publisher // of whose messages some have arrived

	open     [1024]uint64 // bits: the packet identifiers of QoS 2 messages whose PUBREL is to come
	repeated uint64       // QoS 2 messages that the broker sent again before their PUBREL, which is its right
}

// receive reads, counts and acknowledges until the connection is closed.
func (s *subscriber) receive() error {
	for {
		if err := s.receiveBatch(); err != nil {
			return err
		}
		if err := s.conn.flush(); err != nil {
			return err
		}
	}
}

// creditStep is how many messages of a publisher arrive before it is told, where more has been read. Told of each, it would
// send one message with a write.
const creditStep = 32

// credited counts a message for its publisher, which is told at the end of what was read at the latest.
func (s *subscriber) credited(p *publisher) {
	if p.delivered.Add(1)%creditStep == 0 {
		p.poke(credit)
	} else if n := len(s.untold); n == 0 || s.untold[n-1] != p {
		s.untold = append(s.untold, p)
	}
}

// receiveBatch reads once, and counts what has come.
func (s *subscriber) receiveBatch() error {
	if err := s.conn.fill(); err != nil {
		return err
	}
	defer func() {
		for _, p := range s.untold {
			p.poke(credit)
		}
		s.untold = s.untold[:0]
	}()
	now := s.run.now()
	for {
		first, body, ok, err := s.conn.next()
		if err != nil || !ok {
			return err
		}
		if err := s.handle(first, body, now); err != nil {
			return err
		}
	}
}

// handle deals with one packet that came at a time of the run.
func (s *subscriber) handle(first byte, body []byte, now time.Duration) error {
	switch first & 0xf0 {
	case publishFirst:
		id, p, err := payload(first, body, s.conn.version)
		if err != nil {
			return err
		}
		switch first >> 1 & 3 {
		case 0:
			return s.count(p, now)
		case 1:
			if err := s.count(p, now); err != nil {
				return err
			}
			return s.conn.acknowledge(pubackFirst, id)
		}
		word, bit := &s.open[id>>6], uint64(1)<<(id&63)
		if *word&bit != 0 {
			s.repeated++
		} else if err := s.count(p, now); err != nil {
			return err
		}
		*word |= bit
		return s.conn.acknowledge(pubrecFirst, id)
	case pubrelFirst & 0xf0:
		if len(body) < 2 {
			return fmt.Errorf("the broker sends a PUBREL that cannot be read")
		}
		id := binary.BigEndian.Uint16(body)
		s.open[id>>6] &^= 1 << (id & 63)
		return s.conn.acknowledge(pubcompFirst, id)
	case disconnectFirst:
		return ended(body)
	}
	return nil
}

// count counts a message.
func (s *subscriber) count(p []byte, now time.Duration) error {
	m, ok := readStamp(p)
	if !ok || m.run != s.run.id {
		return nil // somebody else's
	}
	if uint64(m.stream) >= uint64(len(s.flows)) || s.flows[m.stream] == nil {
		return fmt.Errorf("the broker sends a message of stream %d to a subscriber that has not asked for it", m.stream)
	}
	f := s.flows[m.stream]
	if !f.tally.add(m.number) {
		return nil
	}
	s.credited(f.stream.publisher)
	if s.run.measuring.Load() {
		f.took.add(now - m.sent)
	}
	return nil
}
