package store

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// unasked is how long what was put or removed, and nobody waits for, stays in memory at most: a process that is killed loses as much.
const unasked = time.Second

// runCommit commits what was put and removed. Owner DB, ends in Close.
func (d *DB) runCommit() {
	t := time.NewTicker(unasked)
	defer t.Stop()
	for {
		select {
		case <-d.wake:
		case <-t.C:
			if d.nothing() {
				continue
			}
		case <-d.closing:
			return
		}
		d.tellUnneeded()
		d.gather()
		d.apply()
		d.tellUnneeded()
		d.tellRoom()
		d.sync()
	}
}

// nothing reports whether there is nothing to commit.
func (d *DB) nothing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.group.empty()
}

// tellUnneeded tells those who waited for what was removed before it was written.
func (d *DB) tellUnneeded() {
	d.mu.Lock()
	waiters := d.unneeded
	d.unneeded = nil
	d.mu.Unlock()
	tell(waiters, nil)
}

func tell(waiters []func(error), err error) {
	for _, w := range waiters {
		w(err)
	}
}

// apply puts what has come into Pebble, where it can be read from then on. Who waits for it waits on for the sync.
func (d *DB) apply() {
	d.applyMu.Lock()
	defer d.applyMu.Unlock()
	d.joint.Lock()
	d.mu.Lock()
	g := d.group
	if g.full() {
		d.stats.Full.Add(1)
	}
	d.custody.writeLocked()
	d.group = newGroup()
	number := d.groups
	d.groups++
	d.messages.cut()
	d.applied = d.applied || len(g.writes) > 0
	if !d.joinLocked(g.waiters...) {
		d.unneeded = append(d.unneeded, g.waiters...)
	}
	d.mu.Unlock()
	d.joint.Unlock()
	defer d.update(func() {
		for _, l := range g.logs {
			l.recent.applied(number)
		}
	})
	if len(g.writes) == 0 {
		return
	}
	b := d.pb.NewBatch()
	size := 0
	var rows []string // that are removed
	for key, w := range g.writes {
		if w.record == nil && inRow(key) {
			rows = append(rows, key)
			continue
		}
		size += len(key)
		if w.record == nil {
			_ = b.Delete([]byte(key), nil) // it fails for no batch of this kind
			continue
		}
		value := w.encode()
		size += len(value)
		_ = b.Set([]byte(key), value, nil)
	}
	size += removeRows(b, rows)
	d.stats.Groups.Add(1)
	d.stats.Largest.Store(max(d.stats.Largest.Load(), int64(len(g.writes)))) // applyMu is held
	d.stats.Writes.Add(uint64(len(g.writes)))
	d.stats.Bytes.Add(uint64(size))                      //nolint:gosec // not negative
	if err := d.pb.Apply(b, pebble.NoSync); err != nil { // the log's errors never come here: see patient
		d.log.Error("records can't be put into the database", "records", len(g.writes), "error", err)
	}
}

// sync has what is in Pebble put on the disk, and tells who waits for that.
func (d *DB) sync() {
	d.mu.Lock()
	if !d.applied {
		d.mu.Unlock()
		return
	}
	d.applied, d.syncing = false, true
	d.current, d.next = d.next, nil
	d.mu.Unlock()
	err := d.pb.LogData(nil, pebble.Sync) // its log is in order: what was applied before is synced with it
	d.stats.Syncs.Add(1)
	d.mu.Lock()
	waiters := d.current
	d.current, d.syncing = nil, false
	d.mu.Unlock()
	tell(waiters, err)
}

// closePatience is how long Close waits for a disk that can't be written.
const closePatience = 5 * time.Second

// Close commits what is left and closes the database. Nothing may be written any more. Where the disk can't be written it
// gives up after a few seconds, with an error, and leaves the database as it is on the disk: the process is to end.
func (d *DB) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	d.mu.Unlock()
	closed := make(chan error, 1)
	go func() {
		close(d.closing)
		d.wg.Wait()
		d.apply()
		d.sync()
		d.tellUnneeded()
		d.tellRoom()
		closed <- d.pb.Close()
	}()
	for {
		select {
		case err := <-closed:
			return err
		case <-time.After(closePatience):
			if err := d.Err(); err != nil {
				return fmt.Errorf("the database is left as it was when the disk could last be written: %w", err)
			}
		}
	}
}
