package store_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/store"
)

// TestInterval: with an interval, what is said to be safe outlives the process at once, and a power cut after the interval; it is
// said long before that.
func TestInterval(t *testing.T) {
	sessions := func(fs *vfs.MemFS) (n int) {
		t.Helper()
		db, err := store.Open("db", store.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.Sessions().Load(func(string, mqttfront.SessionRecord, mqttfront.SessionLog) { n++ }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	crash := vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}
	open := func(every time.Duration) (*store.DB, *vfs.MemFS) {
		t.Helper()
		fs := vfs.NewCrashableMem()
		db, err := store.Open("db", store.Options{FS: fs, Interval: every})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db, fs
	}
	db, fs := open(time.Hour)
	db.Sessions().Create("s").Save(mqttfront.SessionRecord{Expiry: time.Hour})
	synced(t, db)
	if n := sessions(fs.CrashClone(crash)); n != 1 {
		t.Errorf("%d sessions after a crash of the process", n)
	}
	if n := sessions(fs.CrashClone(vfs.CrashCloneCfg{})); n != 0 {
		t.Errorf("%d sessions after a power cut: it was synced at once", n)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if n := sessions(fs.CrashClone(vfs.CrashCloneCfg{})); n != 1 {
		t.Errorf("%d sessions after a power cut when it was closed", n)
	}

	db, fs = open(10 * time.Millisecond)
	db.Sessions().Create("s").Save(mqttfront.SessionRecord{Expiry: time.Hour})
	synced(t, db)
	for deadline := time.Now().Add(20 * time.Second); sessions(fs.CrashClone(vfs.CrashCloneCfg{})) != 1; {
		if time.Now().After(deadline) {
			t.Fatal("it is never synced")
		}
	}
}
