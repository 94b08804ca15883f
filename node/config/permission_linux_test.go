package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestUnreadable: a file that this user may not read is told from one that is not there.
func TestUnreadable(t *testing.T) {
	file := write(t, "log: {level: info}\n")
	dir := filepath.Dir(file)
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Chmod(file, 0o000)); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Getuid() == 0 { // root may read everything, but not as another
		if err := syscall.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer syscall.Setfsuid(0)
	}
	if _, err := os.Stat(file); err != nil {
		t.Skipf("others have no way to the tests' directory: %v", err)
	}
	_, err := Load(Sources{File: file})
	if !errors.Is(err, fs.ErrPermission) || !strings.HasPrefix(err.Error(), "read the configuration "+file+": no permission for user ") {
		t.Errorf("%v", err)
	}
	_, err = Load(Sources{File: file + "x"})
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != "read the configuration "+file+"x: there is no such file" {
		t.Errorf("%v", err)
	}
}
