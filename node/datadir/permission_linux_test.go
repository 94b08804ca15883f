package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// asNobody runs f with the rights of a user who owns nothing, also where the tests are run by root.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := syscall.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer syscall.Setfsuid(0)
	}
	f()
}

// TestNoPermission: whoever may not use a directory is told so, and what to do.
func TestNoPermission(t *testing.T) {
	path := t.TempDir()
	open(t, path)
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o000)); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(path, 0o700)
	asNobody(t, func() {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("others have no way to the tests' directory: %v", err)
		}
	})
	for name, c := range map[string]struct {
		do   func() error
		want string
	}{
		"the directory":      {func() error { _, err := Open(path); return err }, "read the data directory " + path + ": no permission for user "},
		"one in it":          {func() error { _, err := Open(filepath.Join(path, "x")); return err }, "create the data directory " + path + "/x: no permission for user "},
		"a command":          {func() error { _, err := Admin(path); return err }, "be the user that the node runs as, or root, or say with --admin where it answers"},
		"a command, in full": {func() error { _, err := Admin(path); return err }, "read where the node in the data directory " + path + " answers: no permission for user "},
	} {
		asNobody(t, func() {
			if err := c.do(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
		})
	}
}
