package node

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/backup"
	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

// backupDir is where the copy of the database is, in the data directory, while a backup is written.
const backupDir = ".backup"

// snapshot implements admin.Snapshot.
type snapshot struct {
	n     *Node
	head  backup.Head
	files []backup.File
}

// Backup implements admin.Node.
func (n *Node) Backup() (_ admin.Snapshot, err error) {
	if !n.backupMu.TryLock() {
		return nil, admin.ErrBusy
	}
	s := &snapshot{n: n, head: backup.Head{Layout: datadir.Version, Made: time.Now().UTC().Truncate(time.Second),
		PeerID: n.host.ID().String(), Version: n.opt.Version}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if n.closed {
		return nil, errors.New("the node is stopping")
	}
	db := filepath.Join(n.dir.Path(backupDir), "db")
	if err := errors.Join(os.RemoveAll(n.dir.Path(backupDir)), os.Mkdir(n.dir.Path(backupDir), 0o700)); err != nil {
		return nil, err
	}
	if err := n.db.Checkpoint(db); err != nil {
		return nil, err
	}
	files, left, err := backup.Collect(n.cfg.Data, db)
	if err != nil {
		return nil, err
	}
	if s.files = files; len(left) > 0 {
		n.log.Warn("a backup leaves out what is no file of mozzie's", "directory", n.cfg.Data, "left_out", left)
	}
	return s, nil
}

// Bytes implements admin.Snapshot.
func (s *snapshot) Bytes() int64 { return backup.Bytes(s.files) }

// Write implements admin.Snapshot.
func (s *snapshot) Write(w io.Writer) error {
	began := time.Now()
	err := backup.Write(w, s.head, s.files)
	if err != nil {
		s.n.log.Warn("a backup was not written to its end", "error", err)
		return err
	}
	s.n.log.Info("a backup was made", "files", len(s.files), "bytes", s.Bytes(), "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// Close implements admin.Snapshot.
func (s *snapshot) Close() error {
	defer s.n.backupMu.Unlock()
	err := os.RemoveAll(s.n.dir.Path(backupDir))
	if err != nil {
		s.n.log.Warn("what a backup was made of cannot be removed", "error", err)
	}
	return err
}

// endBackups waits for a backup that is being made, whose reader is gone, and lets no more begin.
func (n *Node) endBackups() {
	n.backupMu.Lock()
	defer n.backupMu.Unlock()
	n.closed = true
}
