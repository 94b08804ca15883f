package backup

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mozzie-mqtt/mozzie/node/datadir"
	"github.com/mozzie-mqtt/mozzie/node/store"
)

// backedUp is the file of a backup with a database.
func backedUp(t *testing.T) (path string, id uint64) {
	t.Helper()
	data := t.TempDir()
	db, err := store.Open(filepath.Join(data, "db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := os.WriteFile(filepath.Join(data, "node.key"), []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := db.Checkpoint(filepath.Join(data, "copy")); err != nil {
		t.Fatal(err)
	}
	files, _, err := Collect(data, filepath.Join(data, "copy"))
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "backup")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(Write(f, Head{Layout: 1, PeerID: "12D3"}, files), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, db.ID()
}

// listed are the names in a directory, but for those of the lock and of the layout.
func listed(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lock" && e.Name() != "version" {
			names = append(names, e.Name())
		}
	}
	return names
}

var quiet = Options{Log: slog.New(slog.DiscardHandler)}

// TestRestore: a backup is put into a new directory, with a database that counts as another one, for its owner alone.
func TestRestore(t *testing.T) {
	path, id := backedUp(t)
	data := filepath.Join(t.TempDir(), "data")
	progress := int64(0)
	o := quiet
	o.Progress = func(done, all int64) {
		if done < progress || done > all {
			t.Errorf("%d of %d are done, after %d", done, all, progress)
		}
		progress = done
	}
	done, err := Restore(path, data, o)
	if err != nil || done.PeerID != "12D3" || done.SetAside != "" || progress == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	if got := strings.Join(listed(t, data), " "); got != "db node.key" {
		t.Errorf("restored %s", got)
	}
	for _, name := range []string{"node.key", "db"} {
		if info, err := os.Stat(filepath.Join(data, name)); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	db, err := store.Open(filepath.Join(data, "db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if db.ID() == id {
		t.Error("it counts as the same database")
	}
}

// TestRestoreRefused: what is there stays as it is where a backup is damaged, the directory is in use, has data or is something
// else's; with Force the data is set aside.
func TestRestoreRefused(t *testing.T) {
	path, _ := backedUp(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut")
	if err := os.WriteFile(cut, text[:len(text)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	force := quiet
	force.Force = true
	data := filepath.Join(t.TempDir(), "data")
	var damaged *Error
	if _, err := Restore(cut, data, force); !errors.As(err, &damaged) || !strings.Contains(err.Error(), cut) {
		t.Errorf("a damaged one: %v", err)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("the directory was made for it")
	}
	if _, err := Restore(filepath.Join(data, "none"), data, force); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: %v", err)
	}

	d, err := datadir.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	var inUse *datadir.InUseError
	if _, err := Restore(path, data, force); !errors.As(err, &inUse) {
		t.Errorf("in use: %v", err)
	}
	if err := errors.Join(d.WriteFile("node.key", []byte("other")), d.Close()); err != nil {
		t.Fatal(err)
	}
	var occupied *OccupiedError
	if _, err := Restore(path, data, quiet); !errors.As(err, &occupied) {
		t.Errorf("with data: %v", err)
	}
	if text, _ := os.ReadFile(filepath.Join(data, "node.key")); string(text) != "other" || len(listed(t, data)) != 1 {
		t.Errorf("%q is left, of %v", text, listed(t, data))
	}
	done, err := Restore(path, data, force)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(filepath.Join(done.SetAside, "node.key"))
	now, _ := os.ReadFile(filepath.Join(data, "node.key"))
	if string(before) != "other" || string(now) != "key" {
		t.Errorf("%q is set aside in %s, %q is there", before, done.SetAside, now)
	}

	others := t.TempDir()
	if err := os.WriteFile(filepath.Join(others, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(path, others, force); err == nil || !strings.Contains(err.Error(), "letter") {
		t.Errorf("into something else: %v", err)
	}
}

// TestRestoreCutOff: no node starts where a restore was cut off, and it can be done again.
func TestRestoreCutOff(t *testing.T) {
	path, _ := backedUp(t)
	data := t.TempDir()
	d, err := datadir.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.SetRestoring(true), d.WriteFile("node.key", []byte("half")), os.Mkdir(d.Path(staging), 0o700), d.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := datadir.Open(data); err == nil || !strings.Contains(err.Error(), "mozzie restore") {
		t.Errorf("it is opened: %v", err)
	}
	if _, err := Restore(path, data, quiet); err != nil {
		t.Fatal(err)
	}
	d, err = datadir.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if text, _ := os.ReadFile(d.Path("node.key")); string(text) != "key" {
		t.Errorf("%q", text)
	}
}
