package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
