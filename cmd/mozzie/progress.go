package main

import (
	"fmt"
	"io"
	"os"
	"time"

	terminal "golang.org/x/term"

	"github.com/mozzie-mqtt/mozzie/node/backup"
)

// progress tells on a terminal how far something is. Elsewhere it says nothing.
type progress struct {
	w    io.Writer // nil: it is no terminal, or over
	what string
	last time.Time
}

func newProgress(w io.Writer, what string) *progress {
	if f, ok := w.(*os.File); ok && onTerminal(f) {
		return &progress{w: w, what: what}
	}
	return &progress{}
}

// onTerminal reports whether a file is a terminal.
func onTerminal(f *os.File) bool { return terminal.IsTerminal(int(f.Fd())) } //nolint:gosec // a file descriptor

// at says that so much of all is done; all is 0 where that is not known.
func (p *progress) at(done, all int64) {
	if p.w == nil || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last = time.Now()
	if all > 0 {
		fmt.Fprintf(p.w, "\r%s: %3d %% of %s \x1b[K", p.what, min(100*done/all, 100), humanBytes(all))
	} else {
		fmt.Fprintf(p.w, "\r%s: %s \x1b[K", p.what, humanBytes(done))
	}
}

// end clears the line.
func (p *progress) end() {
	if p.w != nil && !p.last.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.w = nil
}

// watchedBackup reads the files of a backup and tells how far it is.
type watchedBackup struct {
	show      *progress
	done, all int64
}

// Begin implements backup.Take.
func (w *watchedBackup) Begin(h backup.Head) error {
	w.all = h.Bytes
	return nil
}

// File implements backup.Take.
func (w *watchedBackup) File(_ string, _ int64, _ time.Time, r io.Reader) error {
	_, err := io.Copy(w, r)
	return err
}

// Write implements io.Writer: what is read is counted.
func (w *watchedBackup) Write(b []byte) (int, error) {
	w.done += int64(len(b))
	w.show.at(w.done, w.all)
	return len(b), nil
}

// humanBytes writes a size.
func humanBytes(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", (n+1023)>>10)
}
