package store

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// patient is a file system that, where a disk is full, read-only or broken, tries again until it is not. Pebble ends the process where its log or manifest can't be written. With patience it waits instead, and a node goes on
// with what needs no disk; see DB.Err.
//
// Where a sync fails, the kernel may have forgotten what it was to write. What was not synced before is then written again.
type patient struct {
	vfs.FS
	log    *slog.Logger
	dir    string
	active atomic.Bool // before, errors are passed on
	ailing ailing
	lazily lazily
	wrote  *atomic.Uint64 // bytes
}

// ailing knows what fails now.
type ailing struct {
	some  atomic.Bool // something does
	mu    sync.Mutex
	calls int
	err   error
	since time.Time
}

// retryWait is how long to wait before what failed is tried again.
const retryWait = 250 * time.Millisecond

func newPatient(under vfs.FS, dir string, log *slog.Logger, wrote *atomic.Uint64) *patient {
	return &patient{FS: under, dir: dir, log: log, wrote: wrote}
}

// err returns what keeps the disk from being written, if anything does.
func (p *patient) err() error {
	if !p.ailing.some.Load() {
		return nil
	}
	p.ailing.mu.Lock()
	defer p.ailing.mu.Unlock()
	return p.ailing.err
}

// try does something until it succeeds, or fails for a reason that is not the disk's.
func (p *patient) try(do func() error) error {
	err := do()
	if err == nil || !p.active.Load() || !ofDisk(err) {
		return err
	}
	a := &p.ailing
	a.mu.Lock()
	if a.calls++; a.err == nil {
		a.err, a.since = err, time.Now()
		a.some.Store(true)
		p.log.Error("the database can't be written: QoS 1 and 2 messages are refused until it can", "directory", p.dir, "error", err)
	}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		if a.calls--; a.calls == 0 {
			p.log.Info("the database can be written again", "directory", p.dir, "after", time.Since(a.since).Round(time.Millisecond))
			a.err = nil
			a.some.Store(false)
		}
		a.mu.Unlock()
	}()
	for {
		time.Sleep(retryWait)
		if err = do(); err == nil || !ofDisk(err) {
			return err
		}
	}
}

// ofDisk reports whether an error may go away by itself, or when somebody makes room.
func ofDisk(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// ours reports whether a file is the database's: others, such as those of a copy, are not waited for.
func (p *patient) ours(name string) bool {
	return name == p.dir || strings.HasPrefix(name, p.dir+string(filepath.Separator))
}

func (p *patient) open(name string, open func() (vfs.File, error)) (f vfs.File, err error) {
	if !p.ours(name) {
		return open()
	}
	err = p.try(func() (err error) { f, err = open(); return err })
	if err != nil {
		return nil, err
	}
	return &patientFile{File: f, p: p, name: name, keeps: rewritable(name)}, nil
}

// rewritable reports whether what was not synced of a file is kept, so that it can be written again: of those that are appended
// to and synced often. Of tables it is not: where one can't be synced Pebble makes another.
func rewritable(name string) bool {
	base := filepath.Base(name)
	return strings.HasSuffix(base, ".log") || strings.HasPrefix(base, "MANIFEST")
}

// Create implements vfs.FS.
func (p *patient) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return p.open(name, func() (vfs.File, error) { return p.FS.Create(name, c) })
}

// OpenReadWrite implements vfs.FS.
func (p *patient) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return p.open(name, func() (vfs.File, error) { return p.FS.OpenReadWrite(name, c, opts...) })
}

// ReuseForWrite implements vfs.FS.
func (p *patient) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return p.open(to, func() (vfs.File, error) {
		f, err := p.FS.ReuseForWrite(from, to, c)
		if errors.Is(err, fs.ErrNotExist) { // it was renamed, and could not be opened
			f, err = p.FS.Create(to, c)
		}
		return f, err
	})
}

// OpenDir implements vfs.FS.
func (p *patient) OpenDir(name string) (vfs.File, error) {
	return p.open(name, func() (vfs.File, error) { return p.FS.OpenDir(name) })
}

// Rename implements vfs.FS.
func (p *patient) Rename(from, to string) error {
	if !p.ours(to) {
		return p.FS.Rename(from, to)
	}
	return p.try(func() error { return p.FS.Rename(from, to) })
}

// Link implements vfs.FS.
func (p *patient) Link(from, to string) error {
	if !p.ours(to) {
		return p.FS.Link(from, to)
	}
	return p.try(func() error { return p.FS.Link(from, to) })
}

// Unwrap implements vfs.FS.
func (p *patient) Unwrap() vfs.FS { return p.FS }

// patientFile is a file that is written with patience. It is written by one goroutine at a time.
type patientFile struct {
	vfs.File
	p     *patient
	name  string
	keeps bool

	mu     sync.Mutex
	size   int64  // written
	tail   []byte // what of that was written since the last sync, where it is kept: of a log no more than a memtable has, or a group
	opened bool   // anew: it is written at size
}

// Write implements vfs.File.
func (f *patientFile) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	written := 0
	err := f.p.try(func() error {
		for written < len(b) {
			rest := b[written:]
			if f.keeps { // the file system may change what it writes
				rest = append([]byte(nil), rest...)
			}
			var n int
			var err error
			if f.opened {
				n, err = f.File.WriteAt(rest, f.size)
			} else {
				n, err = f.File.Write(rest)
			}
			if f.keeps {
				f.tail = append(f.tail, b[written:written+n]...)
			}
			f.size += int64(n)
			f.p.wrote.Add(uint64(n)) //nolint:gosec // not negative
			if written += n; err != nil {
				return err
			}
		}
		return nil
	})
	return written, err
}

// Sync implements vfs.File.
func (f *patientFile) Sync() error { return f.sync(func() error { return f.File.Sync() }) }

// SyncData implements vfs.File.
func (f *patientFile) SyncData() error { return f.sync(func() error { return f.File.SyncData() }) }

// SyncTo implements vfs.File.
func (f *patientFile) SyncTo(n int64) (full bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keeps {
		return false, nil // it is no more than a hint
	}
	return f.File.SyncTo(n)
}

func (f *patientFile) sync(do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.p.lazily.later(f) {
		return nil
	}
	f.p.lazily.forget(f)
	return f.syncLocked(do)
}

func (f *patientFile) syncLocked(do func() error) error {
	failed := false
	err := f.p.try(func() error {
		if failed && f.keeps {
			if err := f.rewrite(); err != nil {
				return err
			}
		}
		err := do()
		failed = failed || err != nil
		return err
	})
	if err == nil {
		f.tail = f.tail[:0]
		if cap(f.tail) > 1<<20 {
			f.tail = nil
		}
	}
	return err
}

// rewrite writes what was not synced again, to the file opened anew.
func (f *patientFile) rewrite() error {
	again, err := f.p.FS.OpenReadWrite(f.name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := again.WriteAt(append([]byte(nil), f.tail...), f.size-int64(len(f.tail))); err != nil {
		return errors.Join(err, again.Close())
	}
	_ = f.File.Close() // its error is the one that is being mended
	f.File, f.opened = again, true
	return nil
}
