package store_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/store"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// TestCheckpoint: a copy has what was there at one moment, and not what came later. Made another database, it has what clients
// have, and not what other nodes count on.
func TestCheckpoint(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(filepath.Join(dir, "db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	message := func(text string) *proto.Message {
		return &proto.Message{Topic: "a", Payload: []byte(text), QoS: 1}
	}
	log := db.Sessions().Create("s")
	log.Save(mqttfront.SessionRecord{Expiry: time.Hour})
	log.Append(&mqttfront.Entry{Msg: message("queued"), Pos: 1, QoS: 1})
	own, theirs, later := core.Identity{Epoch: 1, Seq: 5}, core.Identity{Epoch: 2, Seq: 5}, core.Identity{Epoch: 1, Seq: 6}
	db.Custody().Put(own, message("own"), &pb.StoredCustody{Own: true, Copy: &pb.Custody{Epoch: 1, Seq: 5}})
	db.Custody().Put(theirs, message("theirs"), &pb.StoredCustody{Copy: &pb.Custody{Epoch: 2, Seq: 5}})
	db.Journal().Put("l", &pb.StoredLocation{})
	copied := filepath.Join(dir, "copy")
	if err := db.Checkpoint(copied); err != nil {
		t.Fatal(err)
	}
	if err := db.Checkpoint(copied); err == nil {
		t.Error("a copy takes the place of another")
	}
	db.Custody().Put(later, message("later"), &pb.StoredCustody{Own: true})
	log.Append(&mqttfront.Entry{Msg: message("later"), Pos: 2, QoS: 1})
	synced(t, db)

	if err := store.Renew(copied, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	again, err := store.Open(copied, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.ID() == db.ID() || again.ID() == 0 {
		t.Errorf("ID %x, was %x", again.ID(), db.ID())
	}
	sessions := 0
	err = again.Sessions().Load(func(key string, rec mqttfront.SessionRecord, log mqttfront.SessionLog) {
		sessions++
		if es := log.Fetch(0, 10); key != "s" || rec.Expiry != time.Hour || len(es) != 1 || string(es[0].Msg.Payload) != "queued" {
			t.Errorf("session %q, %+v with %d entries", key, rec, len(es))
		}
	})
	if err != nil || sessions != 1 {
		t.Errorf("%d sessions, %v", sessions, err)
	}
	var kept []core.Identity
	again.Custody().Load(func(id core.Identity, m *proto.Message, r *pb.StoredCustody) {
		if kept = append(kept, id); id != own || string(m.Payload) != "own" || !r.GetOwn() || r.GetCopy() != nil {
			t.Errorf("%v: %q, %v", id, m.Payload, r)
		}
	})
	again.Journal().Load(func(key string, _ []byte) { t.Errorf("%q is in the journal", key) })
	if len(kept) != 1 {
		t.Errorf("%v in custody", kept)
	}
}

// noRoom is a file system on which there is no room for what is outside of the database.
type noRoom struct{ vfs.FS }

func (n noRoom) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(name, "copy") {
		return nil, &os.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
	}
	return n.FS.Create(name, c)
}

func (n noRoom) Link(from, to string) error {
	if strings.HasPrefix(to, "copy") {
		return &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.ENOSPC}
	}
	return n.FS.Link(from, to)
}

// TestCheckpointWithoutRoom: a copy that there is no room for fails, and the database goes on.
func TestCheckpointWithoutRoom(t *testing.T) {
	db, err := store.Open("db", store.Options{FS: noRoom{vfs.NewMem()}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.Sessions().Create("s").Save(mqttfront.SessionRecord{Expiry: time.Hour})
	if err := db.Checkpoint("copy"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if err := db.Err(); err != nil {
		t.Errorf("the database is taken for broken: %v", err)
	}
	db.Sessions().Create("t").Save(mqttfront.SessionRecord{Expiry: time.Hour})
	synced(t, db)
}
