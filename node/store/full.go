package store

import "github.com/mozzie-mqtt/mozzie/proto"

// What waits to be written is in memory. Most of it is bounded by those who wait for the disk: a client has so many messages
// without their acknowledgements, a node so many in its outbox. What is done with queues that are on the disk is not: who takes
// a million messages from one waits for nothing. So a group that is full is written though nobody waits for it, and who can put
// off what makes it grow asks for room before.
const (
	// fullRecords and fullSize are when a group is full: some megabytes, and more than passes through a node while a group is
	// gathered for, since of what is written early more is written.
	fullRecords = 32 << 10
	fullSize    = 8 << 20 // bytes
	// recordSize is about what a record takes beside its key and message.
	recordSize = 64
)

// full reports whether the group is to be written, whoever waits for it.
func (g *group) full() bool {
	return len(g.writes)+g.open >= fullRecords || g.size+g.openSize >= fullSize
}

// sizeOf is about how many bytes the latest that was said of a key takes.
func (w write) sizeOf(key string) int {
	n := recordSize + len(key)
	switch r := w.record.(type) {
	case *proto.Message:
		n += r.Size()
	case []byte:
		n += len(r)
	}
	return n
}

// set has the latest of a key in the group.
func (g *group) set(key string, w write) {
	if old, there := g.writes[key]; there {
		g.size -= old.sizeOf(key)
	}
	g.size += w.sizeOf(key)
	g.writes[key] = w
}

// drop has nothing said of a key in the group.
func (g *group) drop(key string) {
	g.size -= g.writes[key].sizeOf(key)
	delete(g.writes, key)
}

// fillLocked has the group written if it is full.
func (d *DB) fillLocked() {
	if d.group.full() {
		wake(d.wake)
	}
}

// Room reports whether more may be done that makes what waits to be written grow. Where it may not, because the disk takes
// longer than what comes, again is called once there is room, or the database is closed. It must not block.
func (d *DB) Room(again func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.group.full() {
		return true
	}
	d.stats.NoRoom.Add(1)
	d.roomless = append(d.roomless, again)
	wake(d.wake)
	return false
}

// tellRoom tells those who wait for room that there is some.
func (d *DB) tellRoom() {
	d.mu.Lock()
	all := d.roomless
	d.roomless = nil
	d.mu.Unlock()
	for _, again := range all {
		again()
	}
}

// Waiting says how many records wait to be written, and about how many bytes they take.
func (d *DB) Waiting() (records, bytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.group
	return len(g.writes) + g.open, g.size + g.openSize
}
