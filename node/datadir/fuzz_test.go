package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzFiles opens a directory whose files say anything: it is opened or refused with a reason that names it, and a
// directory that was opened is in order afterwards.
func FuzzFiles(f *testing.F) {
	f.Add("1\n", "127.0.0.1:7880\n", "4711\n")
	f.Add(" 1", "/run/mozzie.sock", "-1")
	f.Add("2", "", "")
	f.Add("", "\x00", "99999999999999999999")
	f.Add("0x1", strings.Repeat("x", 5000), "1 2 3")
	f.Fuzz(func(t *testing.T, version, admin, lock string) {
		dir := t.TempDir()
		for name, text := range map[string]string{versionFile: version, adminFile: admin, lockFile: lock} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if a, err := Admin(dir); err == nil && a != strings.TrimSpace(admin) {
			t.Errorf("%q is read as %q", admin, a)
		}
		d, err := Open(dir)
		if err != nil {
			var newer *NewerError
			if !strings.Contains(err.Error(), dir) || errors.As(err, &newer) && newer.Version <= Version {
				t.Errorf("version %q: %v", version, err)
			}
			return
		}
		var inUse *InUseError
		if _, err := Open(dir); !errors.As(err, &inUse) || inUse.PID != os.Getpid() {
			t.Errorf("opened twice: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, versionFile)); err != nil || strings.TrimLeft(strings.TrimSpace(string(text)), "+0") != "1" {
			t.Errorf("version %q became %q, %v", version, text, err)
		}
		if _, err := Admin(dir); !errors.Is(err, ErrNotRunning) {
			t.Errorf("the address of a node that is gone: %v", err)
		}
	})
}

// FuzzLife starts nodes in a directory whose number of the last start says anything, with a clock that stands: every start
// has a higher number than the one before, and than what was there, where that is a number.
func FuzzLife(f *testing.F) {
	f.Add("1764288000000\n", int64(1764288000000))
	f.Add("-1", int64(-5))
	f.Add("9223372036854775807", int64(0))
	f.Add(strings.Repeat("0", 70_000)+"7", int64(3))
	f.Add("", int64(1)<<62)
	f.Fuzz(func(t *testing.T, text string, ms int64) {
		d, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := os.WriteFile(d.Path(lifeFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		now := time.UnixMilli(ms)
		first, err := d.NextLife(now)
		if len(text) > maxSmall {
			if err == nil || !strings.Contains(err.Error(), lifeFile) {
				t.Fatalf("a file of %d bytes: %v", len(text), err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if last, err := strconv.ParseUint(strings.TrimSpace(text), 10, 63); err == nil && first <= last {
			t.Errorf("%d after %d", first, last)
		}
		if first >= 1<<63 {
			return // the last number that there is
		}
		if second, err := d.NextLife(now); err != nil || second <= first {
			t.Errorf("%d after %d, %v", second, first, err)
		}
	})
}
