package mqttfront

import (
	"context"
	"slices"
	"time"
)

// How another node fetches a session that it has taken over; see departure.go.

// DepartureHead is the part of a session that its client needs for going on.
type DepartureHead struct {
	Record  SessionRecord
	Inbound []uint16
	Sent    int       // how many of the first entries were sent to the client
	Had     []MarkRun // what the session has had
	Heard   int       // as in Fetched
}

// Head waits until the connection that the session had is not read from any more, and what came on it is kept, and returns what the
// client needs. It fails if the session has come to wait for another node meanwhile, or ctx is over.
func (d *Departure) Head(ctx context.Context, to string) (h DepartureHead, err error) {
	s := d.s
	s.handled()
	d.awaitAnswers(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.over || d.to != to {
		return h, errEnded
	}
	d.given = true
	h.Record = s.recordLocked()
	for id := range s.inbound {
		h.Inbound = append(h.Inbound, id)
	}
	slices.Sort(h.Inbound)
	h.Had, h.Heard = s.throughLocked(), d.heard
	for after := uint64(0); ; {
		es := s.log.Fetch(after, headEntries)
		for _, e := range es {
			if e.PacketID == 0 {
				return h, nil
			}
			h.Sent++
			after = e.Pos
		}
		if len(es) == 0 {
			return h, nil
		}
	}
}

// answerTime is how long a session waits for what its client published at QoS 2 to be kept. It is so in milliseconds, but where the
// disk hangs, or other nodes are to have it as well.
const answerTime = 3 * time.Second

// awaitAnswers waits until what the client published at QoS 2 is kept, or refused: the other node says to the client that it is kept.
func (d *Departure) awaitAnswers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for ctx.Err() == nil {
		d.s.mu.Lock()
		open := false
		for _, in := range d.s.inbound {
			open = open || !in.accepted
		}
		if open && d.answered == nil {
			d.answered = make(chan struct{})
		}
		answered := d.answered
		d.s.mu.Unlock()
		if !open {
			return
		}
		select {
		case <-answered:
		case <-ctx.Done():
		}
	}
}

// answeredLocked has awaitAnswers look again. session.mu is held.
func (d *Departure) answeredLocked() {
	if d.answered != nil {
		close(d.answered)
		d.answered = nil
	}
}

// Fetched is what Fetch returns.
type Fetched struct {
	Entries []Entry
	More    <-chan struct{} // gets one when there may be more again, or the session is all here
	// Here is how much of the session is here that has come from another node itself.
	Here  Wholeness
	Known bool // no more will be known of what the session has had, unless a part of it comes up
	// Heard rises when more is known of what the session has had elsewhere, which Had returns. Who fetches is to know it before Entries.
	Heard int
}

// Wholeness is how much of a session is at a node.
type Wholeness int

// A session comes in parts.
const (
	Partly  Wholeness = iota // some of what waited is elsewhere
	Drained                  // something that is late may be elsewhere
	Whole
)

// Fetch returns entries behind a position, at most n and about so many bytes; none, for now, while the store has no room. With n = 0 it returns the
// rest alone, and what was fetched last stays so.
func (d *Departure) Fetch(after uint64, n, size int) (f Fetched, err error) {
	s := d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.over {
		return f, errEnded
	}
	f.More, f.Here, f.Heard = d.more, Whole, d.heard
	after = max(after, d.taken)
	if a := s.move.arriving; a == nil && (s.joins > 0 || d.carrying > 0) || a != nil && a.Drained {
		f.Here = Drained
	} else if a != nil {
		f.Here = Partly
	}
	f.Known = s.joins == 0 && (s.move.arriving == nil || s.move.known)
	if n == 0 {
		return f, nil
	}
	if !s.b.store.Room(d.poke) { // what is taken has to be removed here
		s.b.stats.Paused.Add(1)
		f.Here = Partly // for all that is said
		return f, nil
	}
	d.fetched = slices.DeleteFunc(d.fetched, func(e Entry) bool { return e.Pos > after })
	for _, e := range s.fetchableLocked(s.log.Fetch(after, n)) {
		d.fetched = append(d.fetched, e)
		f.Entries = append(f.Entries, e)
		if size -= e.Msg.Size() + entryCost; size <= 0 {
			break
		}
	}
	return f, nil
}

// Had returns what the session has had.
func (d *Departure) Had() []MarkRun {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.s.throughLocked()
}

// hadAs returns what the session has had, if it began when another did that is known, too.
func (d *Departure) hadAs(born uint64) []MarkRun {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if d.s.born != born && d.s.born != 0 && born != 0 {
		return nil
	}
	return d.s.throughLocked()
}

// Taken forgets entries up to a position, which the other node has, as soon as the swarm waits for that with them.
func (d *Departure) Taken(upto uint64) {
	s := d.s
	u := d.b.begin(time.Now())
	var going []Entry
	var marks []Mark
	s.mu.Lock()
	d.begun = d.begun || upto > 0
	if d.taken == 0 && !d.over {
		d.fetchedBeforeLocked(upto)
	}
	n := 0
	for n < len(d.fetched) && d.fetched[n].Pos <= upto && !d.over {
		e := d.fetched[n]
		n++
		m := d.handOverLocked(&e)
		if m == (Mark{}) {
			s.overLocked(u, e)
			continue
		}
		going, marks = append(going, e), append(marks, m)
	}
	d.fetched, d.taken = slices.Delete(d.fetched, 0, n), max(d.taken, upto)
	d.carrying += len(going)
	to, hold := d.to, s.expiry
	s.mu.Unlock()
	u.end()
	if len(going) > 0 {
		d.b.swarm.Carried(marks, string(s.key), to, hold, func() { d.carried(going) })
	}
}

// Known forgets entries that were fetched and not taken, of which the other node has said that the session has had them.
func (d *Departure) Known(had []MarkRun) {
	known := newMarks()
	for _, r := range had {
		known.addRun(r)
	}
	s := d.s
	u := d.b.begin(time.Now())
	s.mu.Lock()
	if !d.over {
		d.fetched = slices.DeleteFunc(d.fetched, func(e Entry) bool {
			is := known.has(e.mark())
			if is {
				d.handOverLocked(&e)
				s.overLocked(u, e)
			}
			return is
		})
	}
	s.mu.Unlock()
	u.end()
}

// handOverLocked has an entry that the other node has, or has had, wait here no more, and returns its identity.
func (d *Departure) handOverLocked(e *Entry) Mark {
	s := d.s
	e.Receipt = d.receipts[e.Pos]
	delete(d.receipts, e.Pos)
	d.b.reopen(e)
	s.spilled--
	m := e.mark()
	if s.had != nil { // it waits there, or may: who gets what is left here must take it from them
		s.had.remove(m)
	}
	return m
}

// fetchedBeforeLocked finds what was fetched from an earlier process, up to a position.
func (d *Departure) fetchedBeforeLocked(upto uint64) {
	var before []Entry
	for after := uint64(0); ; {
		es := d.s.log.Fetch(after, headEntries)
		for _, e := range es {
			if e.Pos > upto || len(d.fetched) > 0 && e.Pos >= d.fetched[0].Pos {
				es = nil
				break
			}
			before, after = append(before, e), e.Pos
		}
		if len(es) == 0 {
			break
		}
	}
	d.fetched = append(before, d.fetched...)
}

// carried forgets entries that are at the other node.
func (d *Departure) carried(es []Entry) {
	u := d.b.begin(time.Now())
	d.s.mu.Lock()
	if !d.over { // else that is done
		d.carrying -= len(es)
		for _, e := range es {
			d.s.overLocked(u, e)
		}
		d.poke()
	}
	d.s.mu.Unlock()
	u.end()
}
