package store

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Checkpoint makes a copy of the database, as it is at some moment of the call, in a directory that is not there yet, on the
// same disk: what does not change any more is in both. Writers do not wait for it. It fails where the disk can't be written.
func (d *DB) Checkpoint(dir string) error {
	if err := d.Err(); err != nil {
		return fmt.Errorf("the database can't be copied while the disk can't be written: %w", err)
	}
	d.apply()
	if err := d.pb.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	return nil
}

// Renew makes another database of a copy that nobody has open: it has no ID, and gets one when it is opened. It has what
// clients and sessions have, and not what other nodes count on, since to them its node is a new one: nobody relies on what it
// has forgotten, nor is it asked about what it has agreed to since. Messages in the outbox keep their identities, by which
// nodes that have had them know them; their epochs have no new messages.
func Renew(dir string, log *slog.Logger) error {
	d := &DB{opt: Options{FS: vfs.Default}, log: log}
	d.files = newPatient(vfs.Default, dir, log, &d.stats.Disk)
	err := headless(vfs.Default, dir)
	if err == nil {
		d.pb, err = pebble.Open(dir, d.pebbleOptions())
	}
	if err != nil {
		return fmt.Errorf("database %s: %w", dir, err)
	}
	if err := errors.Join(d.renew(), d.pb.Close()); err != nil {
		return fmt.Errorf("database %s: %w", dir, err)
	}
	return nil
}

func (d *DB) renew() error {
	b := d.pb.NewBatch()
	err := d.iterate(&pebble.IterOptions{}, func(key, value []byte) bool {
		switch {
		case salvaged(key, value) == nil:
			_ = b.Delete(key, nil) // it fails for no batch of this kind
		case key[0] == kindCustody:
			_ = b.Set(key, salvaged(key, value), nil)
		}
		return true
	})
	return errors.Join(err, d.pb.Apply(b, pebble.Sync))
}
