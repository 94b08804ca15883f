package store

import (
	"strings"
	"sync"
	"time"
)

// lazily has the log synced no more often than every so often, where that is wanted: a sync does nothing then but see to it
// that there is one later. What was written is with the system at once, so that it outlives the process, though not the power.
type lazily struct {
	every time.Duration // 0: it is synced when that is asked for
	mu    sync.Mutex
	dirty map[*patientFile]struct{} // to be synced
}

// mostUnsynced is how much may be written to a file before it is synced all the same: it is kept, to be written again.
const mostUnsynced = 8 << 20

// later notes that a file is to be synced, and reports whether that can wait. f.mu is held.
func (l *lazily) later(f *patientFile) bool {
	if l.every == 0 || !strings.HasSuffix(f.name, ".log") || len(f.tail) > mostUnsynced {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dirty == nil {
		l.dirty = map[*patientFile]struct{}{}
	}
	l.dirty[f] = struct{}{}
	return true
}

// forget reports whether a file was to be synced.
func (l *lazily) forget(f *patientFile) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, dirty := l.dirty[f]
	delete(l.dirty, f)
	return dirty
}

// runLazySync syncs the log every so often. Owner DB, ends in Close.
func (d *DB) runLazySync() {
	l := &d.files.lazily
	t := time.NewTicker(l.every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-d.closing:
			return
		}
		l.mu.Lock()
		dirty := make([]*patientFile, 0, len(l.dirty))
		for f := range l.dirty {
			dirty = append(dirty, f)
		}
		l.mu.Unlock()
		for _, f := range dirty {
			f.syncDirty()
		}
	}
}

// syncDirty syncs a file, if that is still to be done. What keeps it from being synced is said where that is tried again.
func (f *patientFile) syncDirty() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.p.lazily.forget(f) {
		_ = f.syncLocked(func() error { return f.File.SyncData() })
	}
}

// Close implements vfs.File.
func (f *patientFile) Close() error {
	f.syncDirty()
	return f.File.Close()
}
