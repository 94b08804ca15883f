package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// debianRelease is what the package is installed on in the tests: what Raspberry Pi OS is made from.
const debianRelease, debianMirror = "bookworm", "http://deb.debian.org/debian"

// chroot is a folder that programs run in as if it were the whole file system.
type chroot struct {
	t    testing.TB
	root string
}

// rootOnly skips a test that makes a chroot where that is not permitted; in CI that is a failure.
func rootOnly(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		missing(t, "only root may make a chroot")
	}
}

// newDebian returns a minimal Debian without systemd. It is fetched once, and kept in the folder for temporary files.
func newDebian(t *testing.T) chroot {
	t.Helper()
	rootOnly(t)
	need(t, "debootstrap")
	kept := filepath.Join(os.TempDir(), "mozzie-e2e-"+debianRelease)
	if _, err := os.Stat(kept); err != nil {
		fresh, err := os.MkdirTemp("", "mozzie-e2e-debootstrap-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(fresh)
		c := exec.Command("debootstrap", "--variant=minbase", debianRelease, filepath.Join(fresh, "root"), debianMirror)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("debootstrap: %v\n%s", err, out)
		}
		if err := os.Rename(filepath.Join(fresh, "root"), kept); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	root := filepath.Join(t.TempDir(), "root")
	if out, err := exec.Command("cp", "-a", kept, root).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", kept, err, out)
	}
	return chroot{t, root}
}

// run runs a command in the chroot to its end, as root and with no more environment than a service has, and returns
// what it printed.
func (c chroot) run(words ...string) string {
	c.t.Helper()
	out, err := c.try(words...)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return out
}

func (c chroot) try(words ...string) (string, error) {
	cmd := exec.Command("/usr/sbin/chroot", append([]string{c.root}, words...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return out.String(), err
}

func (c chroot) path(name string) string { return filepath.Join(c.root, name) }

func (c chroot) exists(name string) bool {
	_, err := os.Lstat(c.path(name))
	return err == nil
}

func (c chroot) read(name string) string {
	c.t.Helper()
	text, err := os.ReadFile(c.path(name))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// put copies a file into the chroot.
func (c chroot) put(from, to string, mode fs.FileMode) {
	c.t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(c.path(to)), 0o755)
	}
	if err == nil {
		err = os.WriteFile(c.path(to), text, mode)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// who says who a file belongs to and what they may, as in "mozzie:mozzie 700".
func (c chroot) who(name string) string {
	c.t.Helper()
	return strings.TrimSpace(c.run("stat", "-c", "%U:%G %a", name))
}

// all lists the files of the chroot, without those in which dpkg and the system keep their books.
func (c chroot) all() (names []string) {
	c.t.Helper()
	err := filepath.WalkDir(c.root, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, c.root)
		switch {
		case err != nil:
			return err
		case name == "/var/lib/dpkg", name == "/var/cache", name == "/var/log":
			return filepath.SkipDir
		case strings.HasPrefix(name, "/etc/") && strings.HasSuffix(name, "-"): // what useradd keeps of before
			return nil
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return names
}

// listenAsManager returns a socket of a service manager, with its name for NOTIFY_SOCKET, which leads out of a chroot.
func listenAsManager(t testing.TB) (l *net.UnixConn, socket string) {
	t.Helper()
	socket = fmt.Sprintf("@mozzie-e2e-%d-%s", os.Getpid(), clientID())
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, socket
}

// owner returns the name of the user that a process runs as, by the chroot's list of users.
func (c chroot) owner(pid int) string {
	c.t.Helper()
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		c.t.Fatal(err)
	}
	uid := info.Sys().(*syscall.Stat_t).Uid
	name, _, _ := strings.Cut(c.run("getent", "passwd", fmt.Sprint(uid)), ":")
	return name
}
