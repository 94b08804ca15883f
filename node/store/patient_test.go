package store_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/node/store"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// moody is a file system whose writes, syncs or both may fail. Where a sync fails, what it was to write is forgotten, as
// kernels do.
type moody struct {
	vfs.FS
	writes, syncs atomic.Pointer[error]
	failed        atomic.Int64
	mu            sync.Mutex
	files         map[string]*moodyState
}

func newMoody(fs vfs.FS) *moody { return &moody{FS: fs, files: map[string]*moodyState{}} }

func (m *moody) fail(what *atomic.Pointer[error]) error {
	if err := what.Load(); err != nil {
		m.failed.Add(1)
		return *err
	}
	return nil
}

func (m *moody) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.files[name]
	if st == nil {
		st = new(moodyState)
		m.files[name] = st
	}
	return &moodyFile{File: f, m: m, name: name, moodyState: st}, nil
}

// moodyState is how much of a file was written, and synced.
type moodyState struct {
	mu           sync.Mutex
	size, synced int64
}

func (m *moody) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := m.fail(&m.writes); err != nil {
		return nil, err
	}
	m.mu.Lock()
	delete(m.files, name)
	m.mu.Unlock()
	f, err := m.FS.Create(name, c)
	return m.wrap(name, f, err)
}

func (m *moody) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := m.FS.OpenReadWrite(name, c, opts...)
	return m.wrap(name, f, err)
}

func (m *moody) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := m.fail(&m.writes); err != nil {
		return nil, err
	}
	f, err := m.FS.ReuseForWrite(from, to, c)
	return m.wrap(to, f, err)
}

type moodyFile struct {
	vfs.File
	m    *moody
	name string
	*moodyState
}

func (f *moodyFile) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.m.fail(&f.m.writes); err != nil {
		n, _ := f.File.Write(b[:len(b)/2]) // a part of it has room
		f.size += int64(n)
		return n, err
	}
	n, err := f.File.Write(b)
	f.size += int64(n)
	return n, err
}

func (f *moodyFile) WriteAt(b []byte, at int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.m.fail(&f.m.writes); err != nil {
		return 0, err
	}
	f.synced = min(f.synced, at)
	f.size = max(f.size, at+int64(len(b)))
	return f.File.WriteAt(b, at)
}

func (f *moodyFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *moodyFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *moodyFile) sync(do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.m.fail(&f.m.syncs); err != nil {
		if f.size > f.synced && strings.HasSuffix(f.name, ".log") {
			if _, err := f.File.WriteAt(make([]byte, f.size-f.synced), f.synced); err != nil {
				panic(err)
			}
		}
		return err
	}
	f.synced = f.size
	return do()
}

// TestDiskFails has the disk full, read-only or broken for a while, at different calls: nothing is said to be safe meanwhile,
// nothing that was said to be is lost, and what waited is safe when the disk is well again.
func TestDiskFails(t *testing.T) {
	for _, c := range []struct {
		name          string
		writes, syncs error
	}{
		{"full", syscall.ENOSPC, nil}, {"read-only", syscall.EROFS, nil}, {"broken", syscall.EIO, syscall.EIO}, {"syncs fail", nil, syscall.EIO},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			disk := newMoody(mem)
			db, err := store.Open("db", store.Options{FS: disk})
			if err != nil {
				t.Fatal(err)
			}
			next, safe := 0, 0
			put := func(n int) chan error {
				for range n {
					m := &proto.Message{Topic: "a", Payload: fmt.Appendf(make([]byte, 0, 1000), "message %0990d", next), QoS: 1}
					db.Custody().Put(core.Identity{Epoch: 1, Seq: uint64(next)}, m, &pb.StoredCustody{Own: true})
					next++
				}
				done := make(chan error, 1)
				db.Sync(func(err error) { done <- err })
				return done
			}
			for range 3 {
				if err := <-put(100); err != nil {
					t.Fatal(err)
				}
				safe = next
				if c.writes != nil {
					disk.writes.Store(&c.writes)
				}
				if c.syncs != nil {
					disk.syncs.Store(&c.syncs)
				}
				done := put(100)
				eventually(t, "the database says that it can't be written", func() bool { return db.Err() != nil })
				if !errors.Is(db.Err(), c.writes) && !errors.Is(db.Err(), c.syncs) {
					t.Errorf("it says %v", db.Err())
				}
				later := put(100)
				failures := disk.failed.Load()
				eventually(t, "it tries again", func() bool { return disk.failed.Load() > failures })
				select {
				case err := <-done:
					t.Fatalf("told %v while the disk could not be written", err)
				case err := <-later:
					t.Fatalf("told %v while the disk could not be written", err)
				default:
				}
				check(t, mem, safe)
				disk.writes.Store(nil)
				disk.syncs.Store(nil)
				for _, done := range []chan error{done, later} {
					if err := <-done; err != nil {
						t.Fatal(err)
					}
				}
				safe = next
				if err := db.Err(); err != nil {
					t.Errorf("it still says %v", err)
				}
				check(t, mem, safe)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// check cuts the power of a copy of a disk, and looks for the first messages.
func check(t *testing.T, mem *vfs.MemFS, want int) {
	t.Helper()
	clone := mem.CrashClone(vfs.CrashCloneCfg{})
	db, err := store.Open("db", store.Options{FS: clone})
	if err != nil {
		t.Log(clone.String())
		t.Fatal(err)
	}
	defer db.Close()
	for i := range want {
		if db.Custody().Get(core.Identity{Epoch: 1, Seq: uint64(i)}) == nil {
			t.Fatalf("message %d of %d is lost", i, want)
		}
	}
}

// TestCloseWhileFull: a node ends though its disk is full.
func TestCloseWhileFull(t *testing.T) {
	disk := newMoody(vfs.NewMem())
	db, err := store.Open("db", store.Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	full := error(syscall.ENOSPC)
	disk.writes.Store(&full)
	db.Custody().Put(core.Identity{Epoch: 1, Seq: 1}, &proto.Message{Topic: "a", QoS: 1}, &pb.StoredCustody{Own: true})
	done := make(chan error, 1)
	db.Sync(func(err error) { done <- err })
	eventually(t, "the disk is full", func() bool { return db.Err() != nil })
	if err := db.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close: %v", err)
	}
	disk.writes.Store(nil) // so that what is left behind ends
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}
