package certs

import (
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// clockFile is in the data directory: its modification time is the latest that the node knows to have been.
const clockFile = "clock"

// keepEvery is how often the time is kept at most: it is a write to an SD card.
const keepEvery = time.Hour

// written is when this was written, for a program that does not know when it was built.
var written = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// Clock tells the time by which certificates are checked. A machine without a battery for its clock starts in 1970, or
// where it was when it went off, and learns the time when it reaches the network, if ever. By a clock that is earlier
// than the program, every certificate would be from the future. So such a clock is not believed: the time is then the
// latest that the node has kept in its data directory, or when the program was built, and goes on from there. As soon as
// the clock is right, it is believed again.
type Clock struct {
	path  string
	built time.Time
	now   func() time.Time // time.Now, but for tests

	mu    sync.Mutex
	floor time.Time // where the time began, while the clock is not believed
	since time.Time // when that was, by the clock of the machine
	kept  time.Time // when the time was kept last
}

// NewClock returns the clock of a node.
func NewClock(dir Dir) *Clock { return newClock(dir, builtAt(), time.Now) }

func newClock(dir Dir, built time.Time, now func() time.Time) *Clock {
	c := &Clock{path: dir.Path(clockFile), built: built, now: now}
	c.floor, c.since = built, now()
	if info, err := os.Stat(c.path); err == nil && info.ModTime().After(c.floor) {
		c.floor = info.ModTime()
	}
	return c
}

// linked says when the source of the program is from, in seconds since 1970. It is set when a program that is installed
// elsewhere is linked (deploy/build, deploy/Dockerfile): such a one knows of no version control.
var linked = ""

// builtAt is when the program was built, or rather when what it was built from was committed.
func builtAt() time.Time {
	if seconds, err := strconv.ParseInt(linked, 10, 64); err == nil && time.Unix(seconds, 0).After(written) {
		return time.Unix(seconds, 0)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && t.After(written) {
				return t
			}
		}
	}
	return written
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	now := c.now()
	if !c.Wrong() {
		c.keep(now)
		return now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor.Add(max(now.Sub(c.since), 0))
}

// Wrong reports whether the machine's clock is not believed.
func (c *Clock) Wrong() bool { return c.now().Round(0).Before(c.built) }

// keep notes a time that is believed, now and then. Where that fails, there is less to go by after the next start.
func (c *Clock) keep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.kept) < keepEvery && now.After(c.kept) {
		return
	}
	c.kept = now
	if f, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		f.Close()
		_ = os.Chtimes(c.path, now, now)
	}
}
