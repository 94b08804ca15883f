package store_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/store"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// TestDrain has a long queue taken, by somebody who waits for nothing but room: what waits to be written has a limit all the same,
// and most of it is written before anybody asks. BenchmarkDrain in package node does it with a client, and more messages.
func TestDrain(t *testing.T) {
	const messages = 25_000
	dir := t.TempDir()
	db, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := fill(t, db, messages)
	waited, most := 0, 0
	after := uint64(0)
	for {
		again := make(chan struct{})
		if !db.Room(func() { close(again) }) {
			waited++
			<-again
			continue
		}
		es := log.Fetch(after, 1024)
		if len(es) == 0 {
			break
		}
		for i := range es {
			after++
			if es[i].Pos != after {
				t.Fatalf("entry %d comes, want %d", es[i].Pos, after)
			}
			log.Remove(&es[i])
		}
		records, _ := db.Waiting()
		most = max(most, records)
	}
	if after != messages {
		t.Errorf("%d entries came", after)
	}
	const limit = store.FullRecords + 2*1024 // what is done of one part after there was room
	if largest := db.Stats().Largest.Load(); most > limit || largest > limit {
		t.Errorf("%d records waited, %d were written at once, at most %d should", most, largest, limit)
	}
	t.Logf("%d records waited at most; it was waited %d times, %d groups were full", most, waited, db.Stats().Full.Load())
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = store.Open(dir, store.Options{}); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if n := records(t, db, 'q') + records(t, db, 'm'); n > 0 {
		t.Errorf("%d records of entries and messages are left", n)
	}
}

// TestFull: a group that is full is written though nobody asks for it, be it by its records or by their size, and it is told when
// there is room.
func TestFull(t *testing.T) {
	for name, m := range map[string]*proto.Message{
		"many":  {Topic: "a/b", Payload: []byte("v"), QoS: 1},
		"large": {Topic: "a/b", Payload: make([]byte, 1<<20), QoS: 1},
	} {
		t.Run(name, func(t *testing.T) {
			db := newDisk(t).fresh(t)
			log := db.Sessions().Create("s")
			again := make(chan struct{})
			db.Together(func() { // no group ends meanwhile
				n := uint64(0)
				for db.Room(func() { close(again) }) {
					n++
					one := *m
					log.Append(&mqttfront.Entry{Msg: &one, Pos: n, QoS: 1})
				}
				if records, bytes := db.Waiting(); records < store.FullRecords && bytes < store.FullSize {
					t.Errorf("there is no room, with %d records, %d bytes", records, bytes)
				}
			})
			<-again
			if n := db.Stats().Full.Load(); n != 1 {
				t.Errorf("%d groups were full", n)
			}
			if !db.Room(func() {}) {
				t.Error("there is still no room")
			}
		})
	}
}

// TestRoomAtClose: who waits for room is told when the database is closed.
func TestRoomAtClose(t *testing.T) {
	db := newDisk(t).fresh(t)
	log := db.Sessions().Create("s")
	again := make(chan struct{})
	db.Together(func() {
		for n := uint64(1); db.Room(func() { close(again) }); n++ {
			log.Append(&mqttfront.Entry{Msg: &proto.Message{Topic: "a", QoS: 1}, Pos: n, QoS: 1})
		}
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	<-again
}

// TestRecent appends, removes and fetches in any order, while groups end at any time: what is fetched is what is there.
func TestRecent(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 5))
		d := newDisk(t)
		log := d.fresh(t).Sessions().Create("s")
		log.Save(mqttfront.SessionRecord{Expiry: time.Hour})
		there := map[uint64]*mqttfront.Entry{}
		own, others := uint64(100_000), uint64(0) // others' go before one's own
		var order []uint64
		for range 4000 {
			switch r.IntN(9) {
			case 0, 1, 2, 3:
				pos := &own
				if r.IntN(3) == 0 {
					pos = &others
				}
				*pos += 1 + r.Uint64N(3)
				e := &mqttfront.Entry{Msg: &proto.Message{Topic: "a", Payload: fmt.Append(nil, *pos), QoS: 1}, Pos: *pos, QoS: 1}
				log.Append(e)
				there[e.Pos] = e
				order = append(order, e.Pos)
			case 4, 5, 6:
				if len(order) == 0 {
					continue
				}
				i := 0 // mostly the first
				if r.IntN(3) == 0 {
					i = r.IntN(len(order))
				}
				log.Remove(there[order[i]])
				delete(there, order[i])
				order = append(order[:i], order[i+1:]...)
			case 7:
				if r.IntN(20) == 0 {
					synced(t, d.db)
				} else if r.IntN(3) == 0 {
					d.db.Sync(func(error) {}) // and it goes on meanwhile
				}
			default:
				after, n := r.Uint64N(3)*r.Uint64N(own), 1+r.IntN(40)
				es := log.Fetch(after, n)
				last := after
				for _, e := range es {
					if there[e.Pos] == nil || e.Pos <= last || string(e.Msg.Payload) != fmt.Sprint(e.Pos) {
						t.Fatalf("seed %d: behind %d: entry %d comes after %d: %v", seed, after, e.Pos, last, there[e.Pos])
					}
					last = e.Pos
				}
				due := 0
				for pos := range there {
					if pos > after && (pos <= last || len(es) < n) {
						due++
					}
				}
				if due != len(es) {
					t.Fatalf("seed %d: %d entries behind %d, %d were asked for, %d should be there", seed, len(es), after, n, due)
				}
			}
		}
	}
}

// TestDamagedRows: what was removed in rows is not taken over from a damaged database, whether that stands in its log or in a table.
func TestDamagedRows(t *testing.T) {
	const messages, taken = 3000, 2000
	for _, reopened := range []int{0, 1} { // what is in the log goes into tables when it is opened again
		dir := filepath.Join(t.TempDir(), "db")
		open := func() *store.DB {
			t.Helper()
			db, err := store.Open(dir, store.Options{FS: vfs.Default})
			if err != nil {
				t.Fatal(err)
			}
			return db
		}
		db := open()
		fill(t, db, messages)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open()
		var log mqttfront.SessionLog
		if err := db.Sessions().Load(func(_ string, _ mqttfront.SessionRecord, l mqttfront.SessionLog) { log = l }); err != nil {
			t.Fatal(err)
		}
		es := all(log)
		db.Together(func() { // in one group
			for i := range es[:taken] {
				log.Remove(&es[i])
			}
		})
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		for range reopened {
			if err := open().Close(); err != nil {
				t.Fatal(err)
			}
		}
		remove(t, one(t, dir, "MANIFEST"))
		db = open()
		if n := records(t, db, 'q'); n != messages-taken {
			t.Errorf("opened again %d times: %d entries are there, want %d", reopened, n, messages-taken)
		}
		if n := records(t, db, 'm'); n != messages-taken {
			t.Errorf("opened again %d times: %d messages are there, want %d", reopened, n, messages-taken)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// fill has a session with so many entries, on the disk.
func fill(t *testing.T, db *store.DB, messages int) mqttfront.SessionLog {
	t.Helper()
	log := db.Sessions().Create("s")
	log.Save(mqttfront.SessionRecord{Expiry: time.Hour})
	for i := range uint64(messages) { //nolint:gosec // not negative
		m := &proto.Message{Topic: "a/b", Payload: fmt.Append(nil, i), QoS: 1}
		log.Append(&mqttfront.Entry{Msg: m, Pos: i + 1, QoS: 1})
		if i%10_000 == 0 {
			synced(t, db)
		}
	}
	synced(t, db)
	return log
}

// records counts what is in a database of a kind.
func records(t *testing.T, db *store.DB, kind byte) (n int) {
	t.Helper()
	err := db.Records(func(key, _ []byte, _ store.Subject) {
		if key[0] == kind {
			n++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
