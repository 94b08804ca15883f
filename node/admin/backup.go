package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// ErrBusy says that another backup is being made.
var ErrBusy = errors.New("another backup is being made")

// Snapshot is a backup that is ready to be written. It belongs to whoever asked for it, who closes it.
type Snapshot interface {
	// Bytes is how much is in it, before it is compressed.
	Bytes() int64
	// Write writes it, once.
	Write(w io.Writer) error
	Close() error
}

const (
	backupPath = "/api/v1/backup"
	backupType = "application/gzip"
	// bytesHeader says how much there is before it is compressed.
	bytesHeader = "Mozzie-Backup-Bytes"
	// stallTimeout is how long a backup may stand still because nobody reads it.
	stallTimeout = 30 * time.Second
)

func backupRoutes(mux *http.ServeMux, node Node) {
	mux.HandleFunc("GET "+backupPath, func(w http.ResponseWriter, _ *http.Request) { sendBackup(w, node) })
}

func sendBackup(w http.ResponseWriter, node Node) {
	s, err := node.Backup()
	switch {
	case errors.Is(err, ErrBusy):
		writeError(w, http.StatusConflict, err.Error())
		return
	case err != nil:
		writeError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer func() { _ = s.Close() }() // the node says what it could not remove
	w.Header().Set("Content-Type", backupType)
	w.Header().Set(bytesHeader, strconv.FormatInt(s.Bytes(), 10))
	rc := http.NewResponseController(w)
	_ = rc.Flush() // so that who reads knows that it is a backup which ends early, if it does
	if err := s.Write(patientWriter{w, rc}); err != nil {
		panic(http.ErrAbortHandler) // so that who reads sees that it is not whole
	}
}

// patientWriter writes for as long as something is read.
type patientWriter struct {
	w  io.Writer
	rc *http.ResponseController
}

func (p patientWriter) Write(b []byte) (int, error) {
	if err := p.rc.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.w.Write(b)
}

// Backup asks for a backup, which read gets as it comes, with how much is in it before it was compressed (0: not known). It
// takes as long as it takes, until ctx ends.
func (c *Client) Backup(ctx context.Context, read func(r io.Reader, bytes int64) error) error {
	unhurried := *c.http
	unhurried.Timeout = 0
	resp, err := (&Client{c.address, c.token, &unhurried}).send(ctx, http.MethodGet, backupPath, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") != backupType {
		return fmt.Errorf("ask the node at %s: what answers there makes no backups", c.address)
	}
	n, _ := strconv.ParseInt(resp.Header.Get(bytesHeader), 10, 64)
	return read(resp.Body, n)
}
