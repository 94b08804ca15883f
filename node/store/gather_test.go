package store_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/node/store"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// TestUnneeded has messages come and go within a group: they are not written, and who waits for them is told.
func TestUnneeded(t *testing.T) {
	db := newDisk(t).fresh(t)
	wait := func(sync func(func(error))) {
		t.Helper()
		told := make(chan error, 1)
		sync(func(err error) { told <- err })
		if err := <-told; err != nil {
			t.Fatal(err)
		}
	}
	wait(db.Sync)
	c := db.Custody()
	put := func(seq uint64) {
		c.Put(core.Identity{Epoch: 1, Seq: seq}, &proto.Message{Topic: "a/b", Payload: []byte("v"), QoS: 1}, &pb.StoredCustody{Own: true})
	}
	before := db.Stats().Writes.Load()
	told := make(chan error, 2)
	db.Together(func() { // no group ends meanwhile
		for seq := range uint64(1000) {
			put(seq)
		}
		db.SyncInTime(func(err error) { told <- err })
		for round := range 3 { // some come again
			for seq := range uint64(1000) {
				c.Delete(core.Identity{Epoch: 1, Seq: seq})
				if round < 2 && seq%3 == 0 {
					put(seq)
				}
			}
		}
		db.SyncInTime(func(err error) { told <- err })
	})
	for range 2 {
		if err := <-told; err != nil {
			t.Fatal(err)
		}
	}
	if n := db.Stats().Writes.Load() - before; n != 0 {
		t.Errorf("%d records were written of messages that had gone", n)
	}
	put(7)
	put(8)
	c.Delete(core.Identity{Epoch: 1, Seq: 8})
	put(8)
	wait(db.SyncInTime)
	if n := db.Stats().Writes.Load() - before; n < 4 {
		t.Errorf("%d records were written of two messages with what is to be known of them", n)
	}
	c.Delete(core.Identity{Epoch: 1, Seq: 7})
	wait(db.SyncInTime)
	var kept []core.Identity
	c.Load(func(id core.Identity, _ *proto.Message, _ *pb.StoredCustody) { kept = append(kept, id) })
	if len(kept) > 0 {
		t.Errorf("%v is taken for what was kept over a restart", kept)
	}
}

// TestUnasked puts something that nobody asks to be safe: it soon is.
func TestUnasked(t *testing.T) {
	d := newDisk(t)
	d.fresh(t).Journal().Put("k", &pb.StoredOwner{Seq: 1})
	eventually(t, "what was put is on the disk", func() bool {
		after, err := store.Open("db", store.Options{FS: d.fs.CrashClone(vfs.CrashCloneCfg{})})
		if err != nil {
			t.Fatal(err)
		}
		defer after.Close()
		n := 0
		after.Journal().Load(func(string, []byte) { n++ })
		return n == 1
	})
}
