package store

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// Options say how a database is kept.
type Options struct {
	// Interval is how long what was written may be on its way to the disk, while who waits for it is told that it is safe.
	// 0: that is told when it is on the disk.
	Interval time.Duration
	Log      *slog.Logger
	// FS is where the database is; nil: the machine's file system.
	FS vfs.FS
}

// DB is the one database of a node. What is put into it is gathered, and committed in groups: a group has everything that
// came while the one before was on its way to the disk. What is removed again before that is never written.
//
// All methods are safe for concurrent use. Puts and removals do not wait for the disk, where they are a second later; Sync tells when
// they are there.
type DB struct {
	pb   *pebble.DB
	id   uint64
	made bool // by this Open
	opt  Options
	log  *slog.Logger

	// joint is held for reading while several things are written that have to be in one group, for writing while a group ends.
	joint   sync.RWMutex
	applyMu sync.Mutex // held while a group goes into Pebble; taken before joint
	wake    chan struct{}

	mu sync.Mutex
	state

	sessions Sessions
	custody  Custody
	retained Retained
	received Received

	files     *patient
	sweepWake chan struct{}
	closing   chan struct{}
	wg        sync.WaitGroup
	stats     Stats
}

// state is guarded by DB.mu.
type state struct {
	group   *group // what was put and removed, and is not in Pebble yet
	groups  uint64 // its number
	applied bool   // something is in Pebble for which no sync has begun
	// Who waits has something that is bounded: a client has so many messages without an acknowledgement, other nodes' come in a
	// batch for each.
	next     []func(error) // wait for the next sync
	syncing  bool
	current  []func(error) // wait for the sync that runs
	unneeded []func(error) // waited for what was removed again
	roomless []func()      // wait until there is room
	forecast forecast
	closed   bool

	messages messages
	toSweep  []leftover // of sessions that are over, or have forgotten: a few bytes each, and none begin while the disk can't be written
}

// Stats counts what a database has done.
type Stats struct {
	Syncs    atomic.Uint64
	Writes   atomic.Uint64 // records written or deleted
	Bytes    atomic.Uint64 // of these, keys included
	Damaged  atomic.Uint64 // records that can't be read
	Unneeded atomic.Uint64 // records that were removed before they were written
	Groups   atomic.Uint64 // that records were written in
	Full     atomic.Uint64 // of these, those that were full
	Largest  atomic.Int64  // records in the largest of these
	NoRoom   atomic.Uint64 // times that there was no room
	Disk     atomic.Uint64 // bytes written to files, by whatever: the log, tables, what is written anew in the background
}

// Stats returns the counters.
func (d *DB) Stats() *Stats { return &d.stats }

// group is what goes to the disk together.
type group struct {
	writes  map[string]write
	size    int // of these, in bytes, about
	waiters []func(error)
	urgent  bool          // one of them is in a hurry
	logs    []*sessionLog // with entries that come or go in it
	custodies
}

// empty reports whether there is nothing to write in it.
func (g *group) empty() bool { return len(g.writes) == 0 && g.open == 0 }

// write is the latest that was said of a key.
type write struct {
	record any  // *proto.Message, protobuf.Message or []byte; nil: it is removed
	fresh  bool // it is not in Pebble yet
}

func newGroup() *group { return &group{writes: map[string]write{}} }

// errClosed is what those are told who wait for a database that is closed.
var errClosed = errors.New("the database is closed")

// Open opens the database in a directory, which is made where there is none. One that is damaged is set aside, under another name,
// and what can be read of it is put into a new one.
func Open(dir string, opt Options) (*DB, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.FS == nil {
		opt.FS = vfs.Default
	}
	d, err := open(dir, opt, "")
	if err == nil || !isDamage(err) {
		return d, err
	}
	aside, moved := setAside(opt.FS, dir)
	if moved != nil {
		return nil, errors.Join(err, moved)
	}
	opt.Log.Error("the database is damaged: it is set aside, and a new one takes over what can be read of it", "set_aside", aside, "error", err)
	return open(dir, opt, aside)
}

// open opens a database, a new one with what can be read of a damaged one, if that is not "".
func open(dir string, opt Options, damaged string) (*DB, error) {
	d := &DB{opt: opt, log: opt.Log, wake: make(chan struct{}, 1), sweepWake: make(chan struct{}, 1), closing: make(chan struct{})}
	d.group, d.groups = newGroup(), 1
	d.forecast.need = lasting
	d.messages.init()
	d.sessions.db, d.custody.db, d.received.db = d, d, d
	d.retained.init(d)
	d.custody.messages = map[core.Identity]inCustody{}
	d.files = newPatient(opt.FS, dir, opt.Log, &d.stats.Disk)
	d.files.lazily.every = opt.Interval
	err := headless(opt.FS, dir)
	if err == nil {
		d.pb, err = pebble.Open(dir, d.pebbleOptions())
	}
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", dir, err)
	}
	if damaged != "" {
		err = d.salvage(damaged)
	}
	if err == nil {
		err = d.load()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", dir, err), d.pb.Close())
	}
	d.files.active.Store(true)
	d.wg.Go(d.runCommit)
	d.wg.Go(d.runSweep)
	if opt.Interval > 0 {
		d.wg.Go(d.runLazySync)
	}
	wake(d.sweepWake)
	return d, nil
}

// update runs do with mu held: what it writes is in one group.
func (d *DB) update(do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	do()
}

// put has a key set. fresh says that it is not in Pebble: it need not be written where it is removed soon.
func (d *DB) put(key string, record any, fresh bool) {
	d.update(func() { d.putLocked(key, record, fresh) })
}

func (d *DB) putLocked(key string, record any, fresh bool) {
	if old, there := d.group.writes[key]; there {
		fresh = old.fresh
	} else if fresh {
		d.forecast.put(core.Identity{}, key)
	}
	d.group.set(key, write{record, fresh})
	d.fillLocked()
}

// remove has a key deleted.
func (d *DB) remove(key string) { d.update(func() { d.removeLocked(key) }) }

// removeLocked reports whether the key was written.
func (d *DB) removeLocked(key string) (written bool) {
	g := d.group
	d.forecast.gone(core.Identity{}, key)
	if old, there := g.writes[key]; !there || !old.fresh {
		g.set(key, write{})
		d.fillLocked()
		return true
	}
	g.drop(key)
	d.unneededLocked()
	return false
}

// unneededLocked has those told who wait for the group, if what was removed from it is all that was in it.
func (d *DB) unneededLocked() {
	d.stats.Unneeded.Add(1)
	g := d.group
	if !g.empty() || len(g.waiters) == 0 {
		return
	}
	if !d.joinLocked(g.waiters...) {
		d.unneeded = append(d.unneeded, g.waiters...)
		wake(d.wake)
	}
	g.waiters, g.urgent = nil, false
}

// joinLocked has waiters told with the sync that has to come or runs, where there is one.
func (d *DB) joinLocked(waiters ...func(error)) bool {
	switch {
	case d.applied:
		d.next = append(d.next, waiters...)
	case d.syncing:
		d.current = append(d.current, waiters...)
	default:
		return false
	}
	return true
}

// Together has everything that do writes committed in one group, however full that is: it is for what becomes of one message, or of
// a part of a queue, at a time. It does not nest, and do must not wait for the database.
func (d *DB) Together(do func()) {
	d.joint.RLock()
	defer d.joint.RUnlock()
	do()
}

// Sync calls done once when everything that was put or removed before is safe, or no longer there, or, with an error, when it
// cannot be made safe. done must not block; it is called from within where there is nothing to wait for.
func (d *DB) Sync(done func(error)) { d.await(done, true) }

// SyncInTime is Sync for who is in no hurry: what was put before has some milliseconds more to be removed again.
func (d *DB) SyncInTime(done func(error)) { d.await(done, false) }

func (d *DB) await(done func(error), urgent bool) {
	d.mu.Lock()
	switch {
	case d.closed:
		d.mu.Unlock()
		done(errClosed)
		return
	case !d.group.empty():
		d.group.waiters = append(d.group.waiters, done)
		d.group.urgent = d.group.urgent || urgent
	case !d.joinLocked(done):
		d.mu.Unlock()
		done(nil)
		return
	}
	d.mu.Unlock()
	wake(d.wake)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// encode returns the bytes of a record.
func (w write) encode() []byte {
	switch r := w.record.(type) {
	case *proto.Message:
		return encode(storedMessage(r))
	case protobuf.Message:
		return encode(r)
	}
	return w.record.([]byte)
}

func decode(b []byte, to protobuf.Message) error { return protobuf.Unmarshal(b, to) }

// Err returns what keeps the database from being written, nil if nothing does. It costs next to nothing.
func (d *DB) Err() error { return d.files.err() }

// damaged says that something in the database can't be read.
func (d *DB) damaged(err error) {
	d.stats.Damaged.Add(1)
	d.log.Error("the database is damaged: something in it is lost here", "error", err)
}

func encode(m protobuf.Message) []byte {
	b, err := protobuf.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("%T: %v", m, err)) // what is not UTF-8 never comes this far
	}
	return b
}
