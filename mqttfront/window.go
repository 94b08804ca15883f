package mqttfront

// window has the messages that are on their way to one client, in the order in which they were sent. Packet
// IDs are given out one after another, so that the place of one follows from its ID. Messages that are over
// leave a hole until all before them are over.
type window struct {
	ring  []Entry
	head  int
	n     int    // places, holes included
	live  int    // messages
	first uint16 // packet ID of the first place; 0: that of the block
	block byte   // of packet IDs, 1 to idBlocks; 0: all are one
}

// A session that other nodes can go on with uses one block of packet IDs. A node that goes on without the one that had it, and so without
// what was on its way to the client, uses the next block: the client, which waits for PUBREL under IDs of the last one, would take another
// message under one of these for the same. That comes about when a session has lost idBlocks nodes.
const (
	idBlocks    = 16
	idBlockSize = maxPacketIDs / idBlocks
)

// ids returns the packet IDs that may be used: the first, and how many.
func (w *window) ids() (first, n int) {
	if w.block == 0 {
		return 1, maxPacketIDs
	}
	return int(w.block-1)*idBlockSize + 1, idBlockSize
}

// uses reports whether a packet ID is one that may be used.
func (w *window) uses(packetID uint16) bool {
	first, n := w.ids()
	return int(packetID) >= first && int(packetID) < first+n
}

// BlockOf returns a block of packet IDs as it was kept or sent, 0 for what is none.
func BlockOf(n uint32) byte {
	if n > idBlocks {
		return 0
	}
	return byte(n)
}

// nextBlock is the block for going on without what was sent under IDs of one.
func nextBlock(block byte) byte { return block%idBlocks + 1 }

// next returns the packet ID of the next message; 0 when none is free.
func (w *window) next() uint16 {
	if _, n := w.ids(); w.n >= n {
		return 0
	}
	return w.idAt(w.n)
}

func (w *window) idAt(i int) uint16 {
	first, n := w.ids()
	return uint16(first + (max(int(w.first), first)-first+i)%n) //nolint:gosec // at most 65535
}

func (w *window) at(i int) *Entry { return &w.ring[(w.head+i)&(len(w.ring)-1)] }

// find returns the message with a packet ID, or nil.
func (w *window) find(packetID uint16) *Entry {
	if w.n == 0 || !w.uses(packetID) {
		return nil
	}
	_, n := w.ids()
	i := (int(packetID) - int(w.first) + n) % n
	if i >= w.n {
		return nil
	}
	if e := w.at(i); e.Msg != nil {
		return e
	}
	return nil
}

// push adds a message under the ID that next returned.
func (w *window) push(e Entry) {
	if w.n == 0 {
		w.first = w.idAt(0)
	}
	w.grow()
	*w.at(w.n) = e
	w.n++
	w.live++
}

// hole adds a place for an ID that is over.
func (w *window) hole() {
	w.grow()
	*w.at(w.n) = Entry{}
	w.n++
}

func (w *window) grow() {
	if w.n < len(w.ring) {
		return
	}
	bigger := entryRings.next(len(w.ring)) // a power of two
	for i := range w.n {
		bigger[i] = *w.at(i)
	}
	entryRings.put(w.ring)
	w.ring, w.head = bigger, 0
}

// remove takes a message out. trimmed is the number of places that went from the front.
func (w *window) remove(e *Entry) (trimmed int) {
	*e = Entry{}
	w.live--
	for w.n > 0 && w.at(0).Msg == nil {
		w.first = w.idAt(1)
		w.head = (w.head + 1) & (len(w.ring) - 1)
		w.n--
		trimmed++
	}
	if w.n == 0 && len(w.ring) > fewPlaces {
		entryRings.put(w.ring)
		w.ring, w.head = nil, 0
	}
	return trimmed
}

// fifo is a queue of entries.
type fifo struct {
	list []Entry
	head int
}

func (q *fifo) len() int { return len(q.list) - q.head }

func (q *fifo) push(e Entry) { q.list = append(q.list, e) }

func (q *fifo) front() *Entry { return &q.list[q.head] }

func (q *fifo) pop() {
	q.list[q.head] = Entry{}
	q.head++
	switch {
	case q.head == len(q.list):
		if cap(q.list) > 16 {
			q.list = nil
		}
		q.list, q.head = q.list[:0], 0
	case q.head > 32 && q.head > len(q.list)/2:
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
}
