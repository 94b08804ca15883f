package backup

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/datadir"
	"github.com/mozzie-mqtt/mozzie/node/store"
)

// Options say how a backup is restored.
type Options struct {
	// Force has what is in the directory set aside; else such a directory is refused.
	Force bool
	// Progress, which may be nil, is told how much of all is done, now and then.
	Progress func(done, all int64)
	Log      *slog.Logger
}

// Restored says what was restored.
type Restored struct {
	Head
	Data     string `json:"data"`
	SetAside string `json:"set_aside,omitempty"` // where what was in the directory is now
}

// OccupiedError says that a directory has data.
type OccupiedError struct {
	Path  string
	Names []string
}

func (e *OccupiedError) Error() string {
	return fmt.Sprintf("the data directory %s has data (%s): restore into another one, or have it set aside with --force", e.Path, strings.Join(e.Names, ", "))
}

// staging and aside are folders in the data directory: on the same disk, whatever is mounted there.
const (
	staging = ".restoring"
	aside   = "before-restore-"
)

// Restore brings a backup back into a data directory that no node uses. All of the backup is checked before anything is
// changed. A restore that is cut off leaves a directory that no node starts in, and that can be restored into again.
//
// The database counts as another one from now on: see store.Renew.
func Restore(path, data string, o Options) (done Restored, err error) {
	f, err := os.Open(path)
	if err != nil {
		return done, err
	}
	defer f.Close()
	if done.Head, err = Read(f, &check{o: o}); err != nil {
		return done, fmt.Errorf("%s: %w", path, err)
	}
	if data, err = filepath.Abs(data); err != nil {
		return done, err
	}
	done.Data = data
	d, err := datadir.OpenToRestore(data)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	names, err := occupants(data)
	if err != nil {
		return done, err
	}
	if len(names) > 0 && !o.Force && !d.Restoring() {
		return done, &OccupiedError{data, names}
	}
	stage := d.Path(staging)
	if err := os.RemoveAll(stage); err != nil { // of one that was cut off
		return done, err
	}
	defer os.RemoveAll(stage)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return done, err
	}
	x := &extract{data: data, dir: stage, check: check{o: o, half: 1}}
	if _, err := Read(f, x); err != nil {
		return done, fmt.Errorf("%s: %w", path, err)
	}
	if err := x.finish(o.Log); err != nil {
		return done, err
	}
	done.SetAside, err = swap(d, data, stage, names, done.Layout)
	return done, err
}

// occupants are the names of what in a data directory is a node's. What a restore before had set aside stays so.
func occupants(data string) (names []string, err error) {
	entries, err := os.ReadDir(data)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name[0] == '.', process[name], name == "lost+found", name == datadir.RestoringFile, strings.HasPrefix(name, aside):
		default:
			names = append(names, name)
		}
	}
	return names, nil
}

// swap puts what is staged into the place of what is in the directory.
func swap(d *datadir.Dir, data, stage string, old []string, layout int) (setAside string, err error) {
	if err := d.SetRestoring(true); err != nil {
		return "", err
	}
	if len(old) > 0 {
		setAside, err = os.MkdirTemp(data, aside+time.Now().UTC().Format("20060102T150405Z-*"))
		if err == nil {
			err = datadir.GiveToOwner(setAside, data)
		}
		if err != nil {
			return "", err
		}
		for _, name := range old {
			if err := os.Rename(d.Path(name), filepath.Join(setAside, name)); err != nil {
				return setAside, err
			}
		}
	}
	entries, err := os.ReadDir(stage)
	if err != nil {
		return setAside, err
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(stage, e.Name()), d.Path(e.Name())); err != nil {
			return setAside, err
		}
	}
	if err := errors.Join(d.SetVersion(layout), datadir.SyncDir(data)); err != nil {
		return setAside, err
	}
	return setAside, d.SetRestoring(false)
}

// check reads a backup without doing anything with it, and tells how far it is.
type check struct {
	o         Options
	half      int64 // 0: it is checked, 1: it is extracted
	all, done int64
}

// Begin implements Take.
func (c *check) Begin(h Head) error {
	c.all, c.done = h.Bytes, c.half*h.Bytes
	return nil
}

// File implements Take.
func (c *check) File(_ string, _ int64, _ time.Time, r io.Reader) error { return c.copy(io.Discard, r) }

func (c *check) copy(w io.Writer, r io.Reader) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		c.done += int64(n)
		if c.o.Progress != nil {
			c.o.Progress(c.done, 2*c.all)
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// extract writes the files of a backup into a directory.
type extract struct {
	check
	data, dir string
	names     []string
}

// Begin implements Take.
func (x *extract) Begin(h Head) error {
	if free, err := freeOn(x.data); err == nil && h.Bytes > free {
		return fmt.Errorf("the backup takes %d MiB, and the disk of %s has %d MiB left", h.Bytes>>20, x.data, free>>20)
	}
	return errors.Join(x.check.Begin(h), os.MkdirAll(filepath.Join(x.dir, dbDir), 0o700))
}

// freeOn returns how many bytes may be written to the disk of a directory.
func freeOn(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:gosec,unconvert // types differ by system
}

// File implements Take.
func (x *extract) File(name string, _ int64, date time.Time, r io.Reader) error {
	path := filepath.Join(x.dir, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = x.copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	x.names = append(x.names, name)
	return os.Chtimes(path, date, date) // that of the file "clock" tells something
}

// finish makes another database of the one that was extracted, and gives all to whom the directory belongs.
func (x *extract) finish(log *slog.Logger) error {
	db := filepath.Join(x.dir, dbDir)
	if slices.ContainsFunc(x.names, ofDatabase) {
		if err := store.Renew(db, log); err != nil {
			return fmt.Errorf("the backup cannot be used: %w", err)
		}
	}
	return filepath.WalkDir(x.dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return datadir.GiveToOwner(path, x.data)
	})
}
