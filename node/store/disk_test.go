package store_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mozzie-mqtt/mozzie/node/store"
)

// disk is a disk in memory that can lose what was not synced.
type disk struct {
	fs *vfs.MemFS
	db *store.DB
}

func newDisk(t *testing.T) *disk {
	d := new(disk)
	t.Cleanup(d.close)
	return d
}

func (d *disk) close() {
	if d.db != nil {
		_ = d.db.Close()
		d.db = nil
	}
}

// fresh opens a database on an empty disk.
func (d *disk) fresh(t *testing.T) *store.DB {
	t.Helper()
	d.close()
	d.fs = vfs.NewCrashableMem()
	return d.open(t)
}

func (d *disk) open(t *testing.T) *store.DB {
	t.Helper()
	var err error
	if d.db, err = store.Open("db", store.Options{FS: d.fs}); err != nil {
		t.Fatal(err)
	}
	return d.db
}

// again cuts the power, once what was said is safe, and opens the database again.
func (d *disk) again(t *testing.T) *store.DB {
	t.Helper()
	done := make(chan error, 1)
	d.db.Sync(func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return d.cut(t)
}

// cut cuts the power and opens the database again: what was not synced is gone.
func (d *disk) cut(t *testing.T) *store.DB {
	t.Helper()
	after := d.fs.CrashClone(vfs.CrashCloneCfg{})
	d.close()
	d.fs = after
	return d.open(t)
}
