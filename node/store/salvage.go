package store

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// isDamage reports whether an error says that a database is damaged, and not that the disk, its owner, another process or a later
// version of the program keeps it from being opened.
func isDamage(err error) bool {
	for _, e := range []error{fs.ErrPermission, syscall.EAGAIN, syscall.EWOULDBLOCK} {
		if errors.Is(err, e) {
			return false
		}
	}
	later := strings.Contains(err.Error(), "format major version") // Pebble has no other word for it
	return !ofDisk(err) && !later
}

// headless says that there are tables and nothing that says which of them count: Pebble would take that for no database, and
// begin one in its place.
func headless(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	has := func(what string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, what) })
	}
	if (has(".sst") || has(".log")) && !has("marker.manifest.") {
		return errHeadless
	}
	return nil
}

var errHeadless = errors.New("its manifest's marker is missing")

// setAside gives a damaged database another name, which it returns.
func setAside(fsys vfs.FS, dir string) (string, error) {
	for n := 0; ; n++ {
		aside := dir + ".damaged-" + time.Now().UTC().Format("20060102T150405Z")
		if n > 0 {
			aside += fmt.Sprint("-", n)
		}
		if _, err := fsys.Stat(aside); err == nil {
			continue
		}
		return aside, fsys.Rename(dir, aside)
	}
}

// salvager reads what it can of a damaged database.
type salvager struct {
	fs     vfs.FS
	log    *slog.Logger
	seed   maphash.Seed
	latest map[uint64]uint64 // key → number of the latest write of it that was seen
	ranges removals
	looks  bool // for ranges alone, which have to be known first
	put    func(key, value []byte)
	remove func(key []byte)
	errs   int
}

// salvage puts what can be read of a damaged database into this one, which is new: what clients and sessions have, and not what
// other nodes count on, since this one is another node to them now.
func (d *DB) salvage(from string) error {
	b := d.pb.NewBatch()
	var failed error
	flush := func(force bool) {
		if force || b.Len() > 1<<20 {
			failed = errors.Join(failed, d.pb.Apply(b, pebble.NoSync))
			b = d.pb.NewBatch()
		}
	}
	kept := map[byte]int{}
	s := &salvager{fs: d.opt.FS, log: d.log, seed: maphash.MakeSeed(), latest: map[uint64]uint64{},
		put: func(key, value []byte) {
			if value = salvaged(key, value); value == nil {
				return
			}
			_ = b.Set(key, value, nil) // it fails for no batch of this kind
			kept[key[0]]++
			flush(false)
		},
		remove: func(key []byte) {
			_ = b.Delete(key, nil)
			flush(false)
		}}
	names, err := s.fs.List(from)
	if err != nil {
		return err
	}
	for _, s.looks = range []bool{true, false} {
		for _, name := range names {
			switch path := filepath.Join(from, name); {
			case strings.HasSuffix(name, ".sst"):
				s.read(path, s.table)
			case strings.HasSuffix(name, ".log"):
				s.read(path, s.wal)
			}
		}
		if s.looks {
			s.ranges.sort()
		}
	}
	flush(true)
	if err := errors.Join(failed, d.pb.LogData(nil, pebble.Sync)); err != nil {
		return err
	}
	d.log.Warn("what could be read of the damaged database was taken over", "messages", kept[kindMessage], "sessions", kept[kindSession],
		"queued", kept[kindEntry], "outbox", kept[kindCustody], "retained", kept[kindRetained]+kept[kindLocal], "unreadable_files", s.errs)
	return nil
}

// salvaged returns the value that a record of a damaged database has in the new one; nil: none.
func salvaged(key, value []byte) []byte {
	switch key[0] {
	case kindCustody:
		var c pb.StoredCustody
		if decode(value, &c) != nil || !c.GetOwn() {
			return nil
		}
		c.Copy = nil
		return encode(&c)
	case kindHad, kindInbound, kindMessage, kindEntry, kindRetained, kindLocal, kindSession, kindSubscription, kindRun:
		return append([]byte{}, value...)
	}
	return nil
}

// read reads a file as far as it can be.
func (s *salvager) read(path string, do func(f vfs.File, path string) error) {
	f, err := s.fs.Open(path)
	if err == nil {
		err = do(f, path)
	}
	if err != nil && !s.looks { // it is told once
		s.errs++
		s.log.Warn("a file of the damaged database can't be read to its end", "file", path, "error", err)
	}
}

// write takes in a write of a key, unless a later one was seen.
func (s *salvager) write(kind pebble.InternalKeyKind, key, value []byte, number uint64) {
	if s.looks {
		if kind == pebble.InternalKeyKindRangeDelete {
			s.ranges.add(key, value, number)
		}
		return
	}
	if len(key) == 0 || s.ranges.of(key) > number {
		return
	}
	h := maphash.Bytes(s.seed, key)
	if last, seen := s.latest[h]; seen && last >= number {
		return
	}
	switch kind {
	case pebble.InternalKeyKindSet, pebble.InternalKeyKindSetWithDelete:
		s.latest[h] = number
		s.put(key, value)
	case pebble.InternalKeyKindDelete, pebble.InternalKeyKindDeleteSized, pebble.InternalKeyKindSingleDelete:
		s.latest[h] = number
		s.remove(key)
	}
}

func (s *salvager) table(f vfs.File, _ string) (err error) {
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, sstable.ReaderOptions{})
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if s.looks {
		return s.ranges.readFrom(r)
	}
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	for kv := it.First(); kv != nil; kv = it.Next() {
		value, _, err := kv.Value(nil)
		if err != nil {
			return errors.Join(err, it.Close())
		}
		s.write(kv.K.Kind(), kv.K.UserKey, value, uint64(kv.K.SeqNum()))
	}
	return errors.Join(it.Error(), it.Close())
}

func (s *salvager) wal(f vfs.File, path string) error {
	defer f.Close()
	var number uint64
	if _, err := fmt.Sscanf(filepath.Base(path), "%d", &number); err != nil {
		return err
	}
	r := readLog(record.NewReader, f, number)
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		repr, err := io.ReadAll(rec)
		if err != nil {
			return err
		}
		h, ok := batchrepr.ReadHeader(repr)
		if !ok {
			continue
		}
		at := uint64(h.SeqNum)
		for b := batchrepr.Read(repr); ; at++ {
			kind, key, value, ok, err := b.Next()
			if err != nil {
				return err
			} else if !ok {
				break
			}
			s.write(kind, key, value, at)
		}
	}
}

// readLog is record.NewReader: the type of a log's number has no name outside of Pebble.
func readLog[N ~uint64](open func(io.Reader, N) *record.Reader, f io.Reader, number uint64) *record.Reader {
	return open(f, N(number))
}
