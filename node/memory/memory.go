// Package memory says how much memory a node may use, and watches how much of that is taken.
//
// Limit finds what there is: of the machine, and of the cgroups that the process is in (a container, a systemd service).
// Watch has somebody told when it gets tight, in time to shed what may be shed. What is compared with the limit is what is
// in use as of the last garbage collection, and stacks, not what Go has of the system: garbage costs nobody a message. As
// the limit comes near, Go collects more often, so that the figure is up to date when it matters.
//
// The package is used by the program, which sets the limit of the process, and by package node.
package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// What of the memory that there is a node may use: the rest of a machine is for its system, its files and what else runs
// on it; the rest of a cgroup is for what the kernel counts beside Go's memory, such as the buffers of sockets.
const (
	machinePercent = 60
	cgroupPercent  = 80
)

// Least is the smallest limit that makes sense: an idle node in a swarm needs about half of it.
const Least = 64 << 20

// Source is where a limit comes from, for people.
type Source string

// Where a limit may come from.
const (
	FromMachine     Source = "60 % of the machine's memory"
	FromCgroup      Source = "80 % of the cgroup's limit"
	FromEnvironment Source = "GOMEMLIMIT"
	FromSetting     Source = "limits.memory"
)

// Limit returns how many bytes the process may use, given the files of the system that it runs on: os.DirFS("/"). 0 where
// nothing says how much there is.
func Limit(root fs.FS) (bytes int64, from Source) {
	machine, cgroup := machineMemory(root), cgroupLimit(root)
	if machine > 0 {
		bytes, from = machine/100*machinePercent, FromMachine
	}
	if c := cgroup / 100 * cgroupPercent; cgroup > 0 && (bytes == 0 || c < bytes) {
		bytes, from = c, FromCgroup
	}
	if bytes > 0 {
		bytes = max(bytes, Least)
	}
	return bytes, from
}

// Choose returns the limit that is to hold: the setting where there is one, else what GOMEMLIMIT says (current is what the
// runtime has made of it), else what Limit finds. 0 is none.
func Choose(setting, current int64, env string, root fs.FS) (bytes int64, from Source) {
	switch {
	case setting > 0:
		return setting, FromSetting
	case env == "":
		return Limit(root)
	case current < math.MaxInt64:
		return current, FromEnvironment
	}
	return 0, FromEnvironment // "off"
}

// machineMemory is what /proc/meminfo says there is, less what the hardware keeps; 0 where it says nothing.
func machineMemory(root fs.FS) int64 {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, "MemTotal:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil || kib < 0 || kib > math.MaxInt64>>10 {
			return 0
		}
		return kib << 10
	}
	return 0
}

// cgroupLimit is the lowest limit of the cgroups that the process is in, of version 1 or 2; 0: none.
func cgroupLimit(root fs.FS) (lowest int64) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3) // number:controllers:path
		if len(parts) != 3 {
			continue
		}
		var base string
		var names []string
		switch {
		case parts[0] == "0" && parts[1] == "":
			base, names = "sys/fs/cgroup", []string{"memory.max", "memory.high"}
		case contains(parts[1], "memory"):
			base, names = "sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}
		default:
			continue
		}
		for _, l := range limitsUp(root, base, parts[2], names) {
			if lowest == 0 || l < lowest {
				lowest = l
			}
		}
	}
	return lowest
}

func contains(list, name string) bool {
	for s := range strings.SplitSeq(list, ",") {
		if s == name {
			return true
		}
	}
	return false
}

// limitsUp are the limits of a cgroup and of those that it is in. In a container its path may be the host's, of which
// nothing but the top is there to be seen.
func limitsUp(root fs.FS, base, name string, files []string) (all []int64) {
	for dir := path.Join("/", name); ; dir = path.Dir(dir) {
		for _, file := range files {
			if l := readLimit(root, path.Join(base, dir, file)); l > 0 {
				all = append(all, l)
			}
		}
		if dir == "/" {
			return all
		}
	}
}

// readLimit reads a file of one number; 0 where there is none, or no limit: "max", or of version 1 more than any machine
// has.
func readLimit(root fs.FS, name string) int64 {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n < 0 || n >= 1<<60 {
		return 0
	}
	return n
}

// Root is the file system of the machine.
func Root() fs.FS { return os.DirFS("/") }

// Check says what is wrong with a limit that somebody has set; 0 is none.
func Check(bytes int64) error {
	if bytes != 0 && bytes < Least {
		return fmt.Errorf("want at least %d MiB, not %d bytes", Least>>20, bytes)
	}
	if bytes < 0 {
		return errors.New("want a size")
	}
	return nil
}
