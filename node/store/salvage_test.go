package store_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/store"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// TestDamaged damages a database in many ways: it opens all the same, as that of another node, with what can be read, and the
// damaged one is set aside.
func TestDamaged(t *testing.T) {
	const messages = 20_000
	whole := filepath.Join(t.TempDir(), "db")
	db, err := store.Open(whole, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := db.ID()
	log := db.Sessions().Create("s")
	log.Save(mqttfront.SessionRecord{Expiry: time.Hour})
	log.Subscribe(mqttfront.SubscriptionRecord{Filter: "a/#", QoS: 2})
	r := rand.New(rand.NewPCG(1, 1))
	for i := range messages {
		payload := make([]byte, 1000)
		for k := range payload {
			payload[k] = byte(r.Uint32())
		}
		m := &proto.Message{Topic: "a/b", Payload: append(fmt.Appendf(nil, "%d ", i), payload...), QoS: 1}
		log.Append(&mqttfront.Entry{Msg: m, Pos: uint64(i) + 1, QoS: 1})
		own := core.Identity{Epoch: 1, Seq: uint64(i) + 1}
		db.Custody().Put(own, m, &pb.StoredCustody{Own: true})
		if i%2 == 0 {
			db.Custody().Delete(own)
		}
		if i%1000 == 0 {
			synced(t, db)
		}
	}
	synced(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		least  int // of the messages that are to be there
	}{
		{"a manifest of zeroes", func(t *testing.T, dir string) {
			rewrite(t, one(t, dir, "MANIFEST"), func(b []byte) []byte { return make([]byte, len(b)) })
		}, messages},
		{"no manifest", func(t *testing.T, dir string) { remove(t, one(t, dir, "MANIFEST")) }, messages},
		{"no marker", func(t *testing.T, dir string) { remove(t, one(t, dir, "marker.manifest")) }, messages},
		{"a table is missing", func(t *testing.T, dir string) { remove(t, one(t, dir, ".sst")) }, 1},
		{"a table is cut short", func(t *testing.T, dir string) {
			rewrite(t, one(t, dir, ".sst"), func(b []byte) []byte { return b[:len(b)/2] })
		}, 1},
		{"a table has a hole", func(t *testing.T, dir string) {
			rewrite(t, one(t, dir, ".sst"), func(b []byte) []byte { clear(b[len(b)/2 : len(b)/2+4096]); return b })
		}, 1},
		{"all is noise", func(t *testing.T, dir string) {
			for _, e := range list(t, dir) {
				rewrite(t, filepath.Join(dir, e), func(b []byte) []byte {
					for i := range b {
						b[i] = byte(r.Uint32())
					}
					return b
				})
			}
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "db")
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			c.damage(t, dir)
			var text bytes.Buffer
			db, err := store.Open(dir, store.Options{Log: slog.New(slog.NewTextHandler(&text, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			got, queued := 0, 0
			for i := range messages {
				if m := db.Custody().Get(core.Identity{Epoch: 1, Seq: uint64(i) + 1}); m != nil {
					if i%2 == 0 {
						t.Fatalf("message %d is back, which was let go", i)
					}
					if !strings.HasPrefix(string(m.Payload), fmt.Sprintf("%d ", i)) {
						t.Fatalf("message %d is another", i)
					}
					got++
				}
			}
			err = db.Sessions().Load(func(_ string, rec mqttfront.SessionRecord, log mqttfront.SessionLog) {
				for _, e := range all(log) {
					if !strings.HasPrefix(string(e.Msg.Payload), fmt.Sprintf("%d ", e.Pos-1)) {
						t.Fatalf("entry %d is another", e.Pos)
					}
					queued++
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if got < c.least/2 || queued < c.least {
				t.Errorf("%d messages are in custody, %d in the queue, want %d, %d:\n%s", got, queued, c.least/2, c.least, text.String())
			}
			aside := 0
			for _, name := range list(t, parent) {
				if strings.HasPrefix(name, "db.damaged-") && strings.Contains(text.String(), name) {
					aside++
				}
			}
			if set := db.ID() != id; set != (aside == 1) {
				t.Errorf("another database: %v, set aside: %d", set, aside)
			}
			t.Logf("%d in custody, %d queued, set aside: %d", got, queued, aside)
			log := db.Sessions().Create("new") // it can be written
			log.Save(mqttfront.SessionRecord{Expiry: time.Hour})
			synced(t, db)
		})
	}
}

// all returns the entries of a queue.
func all(log mqttfront.SessionLog) (entries []mqttfront.Entry) {
	for after := uint64(0); ; {
		es := log.Fetch(after, 1000)
		if len(es) == 0 {
			return entries
		}
		entries = append(entries, es...)
		after = es[len(es)-1].Pos
	}
}

func synced(t *testing.T, db *store.DB) {
	t.Helper()
	done := make(chan error, 1)
	db.Sync(func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// one returns the largest file whose name has something in it.
func one(t *testing.T, dir, what string) string {
	t.Helper()
	found, size := "", int64(-1)
	for _, name := range list(t, dir) {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && strings.Contains(name, what) && info.Size() > size {
			found, size = filepath.Join(dir, name), info.Size()
		}
	}
	if found == "" {
		t.Fatalf("there is no %s", what)
	}
	return found
}

func rewrite(t *testing.T, file string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, change(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}
