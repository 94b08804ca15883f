// Package datadir keeps a node's directory: made for its owner alone, locked by the one process that uses
// it, and marked with the version of its layout, so that an older program does not misread a newer one's
// files. Package node opens it before anything else; the commands ask it where a running node answers.
package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Version is the layout of the directory that this program writes. It grows when an older program could not
// read what a newer one has written.
const Version = 1

// The files that this package keeps. Everything else in the directory belongs to others.
const (
	lockFile    = "lock"       // locked while in use, with the process ID of the user
	versionFile = "version"    // Version in decimal
	lifeFile    = "life"       // the number of the last start; see NextLife
	adminFile   = "admin.addr" // where the running node's administration API answers
	// RestoringFile is there while a backup is put into the directory.
	RestoringFile = "restoring"
	leftFile      = "left" // there when the node has left its swarm for good, with when
)

// atHome may be in a directory that no node has used yet: what an administrator or the system puts there.
var atHome = []string{"mozzie.yaml", "accounts.yaml", "access.yaml", "swarm.key", "node.key", "tls.crt", "tls.key", "lost+found", lockFile}

// Dir is an open data directory. It belongs to this process until Close.
type Dir struct {
	path string
	lock *os.File
}

// InUseError says that another process has the directory.
type InUseError struct {
	Path string
	PID  int // 0 where it is not known
}

func (e *InUseError) Error() string {
	by := "another node"
	if e.PID != 0 {
		by = fmt.Sprintf("another node (process %d)", e.PID)
	}
	return fmt.Sprintf("the data directory %s is in use by %s: stop it, or give this one a directory of its own with --data", e.Path, by)
}

// NewerError says that the directory was written by a newer program.
type NewerError struct {
	Path    string
	Version int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("the data directory %s was written by a newer version of mozzie (layout %d, this program knows up to %d): "+
		"use that version, or another directory with --data", e.Path, e.Version, Version)
}

// LeftError says that the directory is that of a node which has left its swarm for good.
type LeftError struct{ Path, When string }

func (e *LeftError) Error() string {
	return fmt.Sprintf("the node of the data directory %s has left its swarm for good at %s (mozzie leave): nobody counts on it any more. "+
		"To begin anew give another directory with --data, or remove this one; accounts.yaml, access.yaml, mozzie.yaml and swarm.key can be taken along", e.Path, e.When)
}

// Open makes the directory if it is not there, and takes it. The error says what to do.
func Open(path string) (*Dir, error) {
	d, err := OpenToRestore(path)
	if err != nil {
		return nil, err
	}
	if when, left := d.left(); left {
		_ = d.Close()
		return nil, &LeftError{Path: d.path, When: when}
	}
	if d.Restoring() {
		_ = d.Close()
		return nil, fmt.Errorf("putting a backup into the data directory %s was cut off: do it again with \"mozzie restore\"", d.path)
	}
	return d, nil
}

// OpenToRestore is Open for who puts a backup into the directory, perhaps once more.
func OpenToRestore(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the data directory %s: %w", path, err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, explain("create", path, err)
	}
	if err := checkOurs(path); err != nil {
		return nil, err
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, lock: lock}
	if err := d.prepare(); err != nil {
		_ = d.Close() // what went wrong first counts
		return nil, err
	}
	return d, nil
}

// checkOurs refuses a directory full of something else, which a slip in --data may name.
func checkOurs(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return explain("read", path, err)
	}
	stranger := ""
	for _, e := range entries {
		if e.Name() == versionFile {
			return nil
		}
		if !slices.Contains(atHome, e.Name()) && !strings.HasPrefix(e.Name(), ".") {
			stranger = e.Name()
		}
	}
	if stranger != "" {
		return fmt.Errorf("%s is no data directory of mozzie and not empty (it holds %q): give an empty or a new directory with --data", path, stranger)
	}
	return nil
}

func takeLock(path string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, explain("write to", path, err)
	}
	giveToOwner(lock, path)
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		inUse := &InUseError{Path: path, PID: readPID(lock)}
		lock.Close()
		return nil, inUse
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock the data directory %s: %w", path, err)
	}
	return lock, nil
}

func readPID(lock *os.File) int {
	buf := make([]byte, 16)
	n, _ := lock.ReadAt(buf, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	return pid
}

// prepare brings the directory, which is locked, into order: the process ID, the mode, the version.
func (d *Dir) prepare() error {
	if err := d.lock.Truncate(0); err != nil {
		return explain("write to", d.path, err)
	}
	if _, err := d.lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return explain("write to", d.path, err)
	}
	version, err := d.version()
	if err != nil {
		return err
	}
	if version > Version {
		return &NewerError{Path: d.path, Version: version}
	}
	// A directory that was made by others (a volume, a package) may be open to more eyes than ours. Where
	// it is not ours to change, its files are still readable by us alone.
	if info, err := os.Stat(d.path); err == nil && info.Mode().Perm()&0o077 != 0 {
		_ = os.Chmod(d.path, 0o700)
	}
	os.Remove(d.Path(adminFile)) // of a node that was killed
	if version == Version {
		return nil
	}
	return d.SetVersion(Version)
}

// SetVersion notes which layout the directory has.
func (d *Dir) SetVersion(v int) error {
	return d.WriteFile(versionFile, []byte(strconv.Itoa(v)+"\n"))
}

// version reads the version of the layout; 0 means a new directory.
func (d *Dir) version() (int, error) {
	text, err := ReadSmall(d.Path(versionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, explain("read", d.path, err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || v < 1 {
		return 0, fmt.Errorf("%s is damaged: it has %.20q; if the directory is a node's, write %d into it", d.Path(versionFile), text, Version)
	}
	return v, nil
}

// Path returns the path of a file in the directory.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// maxSmall is how long the files are at most that ReadSmall reads, in bytes.
const maxSmall = 64 << 10

// ReadSmall reads a file of a few bytes. One that cannot be what mozzie wrote, for its length, is refused.
func ReadSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(text) > maxSmall {
		return nil, fmt.Errorf("%s has more than %d bytes: that is no file of mozzie's, take it away", path, maxSmall)
	}
	return text, err
}

// WriteFile writes a small file for the owner's eyes only. After a crash at any moment there is the old file
// or the new one, never half of one.
func (d *Dir) WriteFile(name string, data []byte) error {
	f, err := os.CreateTemp(d.path, "."+name+".*")
	if err != nil {
		return explain("write to", d.path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	giveToOwner(f, d.path)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), d.Path(name))
	}
	if err != nil {
		os.Remove(f.Name())
		return explain("write "+name+" in", d.path, err)
	}
	return SyncDir(d.path)
}

// giveToOwner makes a file that root writes into somebody else's directory theirs: a node that runs as a user of its own
// could not read what an administrator has prepared for it.
func giveToOwner(f *os.File, dir string) {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 {
		_ = f.Chown(int(owner.Uid), int(owner.Gid)) // where it fails, the node says so
	}
}

// GiveToOwner does the same with a file or a folder that is there.
func GiveToOwner(path, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	giveToOwner(f, dir)
	return f.Close()
}

// SyncDir makes a rename last.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return explain("read", path, err)
	}
	defer dir.Close()
	// Some file systems cannot sync a directory and say so with EINVAL.
	if err := dir.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return explain("write to", path, err)
	}
	return nil
}

// NextLife returns a number that is higher at every start of the node: the time in milliseconds since 1970, or, where
// that is earlier than at the start before (a machine without a battery clock), the next number. A file that holds no
// number counts as none.
func (d *Dir) NextLife(now time.Time) (uint64, error) {
	text, err := ReadSmall(d.Path(lifeFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, explain("read", d.path, err)
	}
	last, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63)
	if err != nil {
		last = 0
	}
	life := max(uint64(max(1, now.UnixMilli())), last+1) //nolint:gosec // positive
	return life, d.WriteFile(lifeFile, strconv.AppendUint(nil, life, 10))
}

// SetAdmin notes where this node's administration API answers, for the commands; Close takes the note away.
func (d *Dir) SetAdmin(address string) error { return d.WriteFile(adminFile, []byte(address+"\n")) }

// SetLeft notes, for good, that the node has left its swarm.
func (d *Dir) SetLeft(now time.Time) error {
	return d.WriteFile(leftFile, []byte(now.UTC().Format(time.RFC3339)+"\n"))
}

// left reports whether the node has left its swarm, and when.
func (d *Dir) left() (when string, left bool) {
	if _, err := os.Lstat(d.Path(leftFile)); err != nil {
		return "", false
	}
	text, err := ReadSmall(d.Path(leftFile))
	if when = strings.TrimSpace(string(text)); err != nil || when == "" {
		when = "a time that is not known"
	}
	return when, true
}

// Restoring reports whether a backup is being put into the directory, or that was cut off.
func (d *Dir) Restoring() bool {
	_, err := os.Lstat(d.Path(RestoringFile))
	return err == nil
}

// SetRestoring notes, for good, that a backup is being put into the directory, or that it is in it.
func (d *Dir) SetRestoring(restoring bool) error {
	if restoring {
		_ = os.Remove(d.Path(leftFile)) // what is restored is another node than the one that left
		return d.WriteFile(RestoringFile, nil)
	}
	if err := os.Remove(d.Path(RestoringFile)); err != nil {
		return explain("write to", d.path, err)
	}
	return SyncDir(d.path)
}

// Close gives the directory back. It may be called again.
func (d *Dir) Close() error {
	if d.lock == nil {
		return nil
	}
	os.Remove(d.Path(adminFile))
	err := errors.Join(d.lock.Truncate(0), d.lock.Close()) // closing unlocks
	d.lock = nil
	return err
}

// ErrNotRunning says that no node uses a directory, or none that answers.
var ErrNotRunning = errors.New("no node is running")

// Admin returns where the node that uses a directory answers. The error wraps ErrNotRunning where there is
// no such node.
func Admin(path string) (string, error) {
	text, err := ReadSmall(filepath.Join(path, adminFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%w in the data directory %s", ErrNotRunning, path)
	case err != nil:
		if errors.Is(err, fs.ErrPermission) {
			return "", fmt.Errorf("read where the node in the data directory %s answers: no permission for user %d: "+
				"be the user that the node runs as, or root, or say with --admin where it answers", path, os.Getuid())
		}
		return "", explain("read", path, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// explain words an error of the file system for the person who chose the directory.
func explain(doing, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s the data directory %s: no permission for user %d: give it a directory of this user's own with --data, or change the owner",
			doing, path, os.Getuid())
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s the data directory %s: there is a file of that name in the way", doing, path)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s the data directory %s: its file system is read-only", doing, path)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%s the data directory %s: the disk is full", doing, path)
	}
	return fmt.Errorf("%s the data directory %s: %w", doing, path, err)
}
