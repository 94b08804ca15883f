package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := open(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := d.WriteFile("key", []byte("k")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(d.Path("key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	open(t, path)
}

func TestInUse(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	_, err := Open(path)
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.PID != os.Getpid() {
		t.Fatalf("%v", err)
	}
	d.Close()
	open(t, path)
}

func TestNewer(t *testing.T) {
	path := t.TempDir()
	open(t, path).Close()
	if err := os.WriteFile(filepath.Join(path, versionFile), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path)
	var newer *NewerError
	if !errors.As(err, &newer) || newer.Version != 99 {
		t.Fatalf("%v", err)
	}
	if err := os.WriteFile(filepath.Join(path, versionFile), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Fatalf("%v", err)
	}
}

func TestNotOurs(t *testing.T) {
	path := t.TempDir()
	for name, ours := range map[string]bool{"mozzie.yaml": true, ".profile": true, "thesis.tex": false} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(path)
		if (err == nil) != ours {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			d.Close()
		}
		os.Remove(filepath.Join(path, name))
		os.Remove(filepath.Join(path, versionFile))
	}
	file := filepath.Join(path, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil || !strings.Contains(err.Error(), "a file of that name") {
		t.Errorf("%v", err)
	}
}

func TestTightened(t *testing.T) {
	path := t.TempDir()
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	path := t.TempDir()
	if err := os.Chmod(path, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(path, "new")); err == nil || !strings.Contains(err.Error(), "no permission") {
		t.Errorf("%v", err)
	}
}

func TestAdmin(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	if _, err := Admin(path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
	if err := d.SetAdmin("127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if a, err := Admin(path); err != nil || a != "127.0.0.1:1" {
		t.Errorf("%q, %v", a, err)
	}
	d.Close()
	if _, err := Admin(path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after Close: %v", err)
	}
}

func TestNextLife(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	set, unset := time.UnixMilli(1_800_000_000_000), time.UnixMilli(5000)
	for i, tc := range []struct {
		now  time.Time
		want uint64
	}{
		{unset, 5000}, {unset, 5001}, {set, 1_800_000_000_000}, {unset, 1_800_000_000_001}, {time.UnixMilli(-7), 1_800_000_000_002},
		{set.Add(time.Second), 1_800_000_001_000},
	} {
		if got, err := d.NextLife(tc.now); got != tc.want || err != nil {
			t.Errorf("start %d: %d, %v; want %d", i, got, err, tc.want)
		}
	}
	for _, damaged := range []string{"", "x", "99999999999999999999", "-1"} {
		if err := d.WriteFile("life", []byte(damaged)); err != nil {
			t.Fatal(err)
		}
		if got, err := d.NextLife(set); got != 1_800_000_000_000 || err != nil {
			t.Errorf("after %q: %d, %v", damaged, got, err)
		}
	}
}

// TestLeft: the directory of a node that has left its swarm is not used again, unless a backup is put into it.
func TestLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SetLeft(time.Unix(1_800_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	d.Close()
	for range 2 {
		d, err = Open(path)
		var left *LeftError
		if !errors.As(err, &left) || left.When != "2027-01-15T08:00:00Z" || d != nil {
			t.Fatalf("%v, %v", d, err)
		}
	}
	if d, err = OpenToRestore(path); err != nil {
		t.Fatal(err)
	}
	for _, restoring := range []bool{true, false} {
		if err := d.SetRestoring(restoring); err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	if d, err = Open(path); err != nil {
		t.Fatal(err)
	}
	d.Close()
}
