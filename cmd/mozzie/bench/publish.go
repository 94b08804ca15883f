package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// How much goes with one write where nothing paces the publisher: writeBatch messages, as far as they fit into writeSize
// bytes. It is what a busy client does; much more would measure how fast a broker takes one large buffer.
const (
	writeBatch = 64
	writeSize  = 256 << 10
)

// stallAfter is how long nothing of a publisher may arrive before what it has out is given up, so that a loss does not
// use up its credit.
const stallAfter = time.Second

// publisher is a client that publishes.
type publisher struct {
	run     *run
	index   int
	conn    *conn
	streams []*stream
	fan     uint64 // subscribers of its streams, at most

	sent   counter // messages
	acked  counter // messages that the broker has taken over, QoS 1 and 2
	stalls uint64  // how often what was out was given up; for publish alone, until it has ended

	// For the credit, in deliveries: a message counts once for each of its subscribers.
	due       uint64 // of all that was sent; for publish alone
	forgiven  uint64 // given up; for publish alone
	delivered counter

	waiting atomic.Int32  // what publish waits for, with wake
	wake    chan struct{} // holds at most one token

	mu  sync.Mutex
	ids []uint16 // packet identifiers that are free

	sentAt []atomic.Int64 // by packet identifier, as time.Duration; nil: acknowledgements are not timed
	took   histogram      // until they came; for answers alone, until it has ended
}

// What publish waits for.
const (
	nothing int32 = iota
	credit
	identifiers
)

// publish sends until the run stops.
func (p *publisher) publish() error {
	batch := min(writeBatch, max(1, writeSize/len(p.streams[0].packet)))
	pace := p.run.pace(p.index)
	defer pace.end()
	buf := make([]byte, 0, batch*len(p.streams[0].packet))
	var ids []uint16
	for turn := 0; !p.run.stopped.Load(); {
		n := batch
		if pace != nil {
			if !pace.wait() {
				return nil
			}
			n = 1
		}
		if p.run.Credit > 0 {
			n = min(n, p.room())
		}
		if p.run.QoS > 0 && n > 0 {
			ids = p.take(ids[:0], n)
			n = len(ids)
		}
		if n == 0 {
			return nil // the run stopped while we waited
		}
		buf = buf[:0]
		for i := range n {
			s := p.streams[turn]
			if turn++; turn == len(p.streams) {
				turn = 0
			}
			id := uint16(0)
			if ids != nil {
				id = ids[i]
			}
			now := p.run.now()
			if p.sentAt != nil {
				p.sentAt[id].Store(int64(now))
			}
			buf = s.next(buf, id, now)
			p.due += s.fan
		}
		p.sent.Add(uint64(n))
		if err := p.conn.send(buf); err != nil {
			return err
		}
	}
	return nil
}

// room waits until the credit allows for another message, and returns how many; 0 when the run stops.
func (p *publisher) room() int {
	free := func() int {
		out := max(0, int64(p.due-p.forgiven-p.delivered.Load())) // what was given up may come after all
		return max(0, p.run.Credit-int(out)/int(p.fan))
	}
	for !p.run.stopped.Load() {
		if n := free(); n > 0 {
			return n
		}
		before := p.delivered.Load()
		if p.await(credit, func() bool { return free() > 0 }, stallAfter) {
			continue
		}
		if now := p.delivered.Load(); now == before {
			p.stalls++
			p.forgiven = p.due - now
		}
	}
	return 0
}

// take waits for packet identifiers that are free and takes up to n; none when the run stops.
func (p *publisher) take(to []uint16, n int) []uint16 {
	any := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.ids) > 0
	}
	for !p.run.stopped.Load() {
		p.mu.Lock()
		if n := min(n, len(p.ids)); n > 0 {
			rest := len(p.ids) - n
			to = append(to, p.ids[rest:]...)
			p.ids = p.ids[:rest]
			p.mu.Unlock()
			return to
		}
		p.mu.Unlock()
		p.await(identifiers, any, 0)
	}
	return to
}

// await waits until poke is called for what it waits for, unless ready says that there is no need. It reports whether
// that was within patience, if there is one.
func (p *publisher) await(what int32, ready func() bool, patience time.Duration) bool {
	p.waiting.Store(what) // from here on poke comes
	defer p.waiting.Store(nothing)
	if ready() || p.run.stopped.Load() {
		return true
	}
	var over <-chan time.Time
	if patience > 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-p.wake:
		return true
	case <-over:
		return false
	}
}

// poke wakes publish, if that is what it waits for.
func (p *publisher) poke(what int32) {
	if p.waiting.Load() != what {
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// answers reads what the broker says to a publisher, until the connection is closed.
func (p *publisher) answers() error {
	var done []uint16
	for {
		if err := p.conn.fill(); err != nil {
			return err
		}
		for {
			first, body, ok, err := p.conn.next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if done, err = p.answer(first, body, done); err != nil {
				return err
			}
		}
		if err := p.conn.flush(); err != nil {
			return err
		}
		if len(done) == 0 {
			continue
		}
		if p.sentAt != nil && p.run.measuring.Load() {
			now := p.run.now()
			for _, id := range done {
				if int(id) < len(p.sentAt) {
					p.took.add(now - time.Duration(p.sentAt[id].Load()))
				}
			}
		}
		p.mu.Lock()
		p.ids = append(p.ids, done...)
		tooMany := len(p.ids) > p.conn.window
		p.mu.Unlock()
		if tooMany {
			return errors.New("the broker acknowledges more messages than it was sent")
		}
		p.acked.Add(uint64(len(done)))
		done = done[:0]
		p.poke(identifiers)
	}
}

// answer deals with one packet, and appends the identifier that it frees.
func (p *publisher) answer(first byte, body []byte, done []uint16) ([]uint16, error) {
	kind := first & 0xf0
	if kind == disconnectFirst {
		return done, ended(body)
	}
	if kind != pubackFirst && kind != pubrecFirst && kind != pubcompFirst {
		return done, nil
	}
	if len(body) < 2 {
		return done, fmt.Errorf("the broker sends an acknowledgement that cannot be read")
	}
	id := binary.BigEndian.Uint16(body)
	if len(body) > 2 && body[2] >= 0x80 { // MQTT 5
		return done, fmt.Errorf("the broker refuses a message (code %d)", body[2])
	}
	if kind == pubrecFirst {
		return done, p.conn.acknowledge(pubrelFirst, id)
	}
	return append(done, id), nil
}
