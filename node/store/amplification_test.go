package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/store"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// BenchmarkWritten tells how many bytes are written to the database's files for a message, in all: its log, its tables, and what
// of them is written anew.
//
//	outbox    kept until others have it, and removed
//	queued    queued for a session that is away, and removed in the end
//	at once   delivered before it is written
func BenchmarkWritten(b *testing.B) {
	for _, size := range []int{64, 1024} {
		for _, way := range []string{"outbox", "queued", "at once"} {
			b.Run(fmt.Sprintf("%s/%d", way, size), func(b *testing.B) { written(b, way, size) })
		}
	}
}

func written(b *testing.B, way string, size int) {
	db, err := store.Open(b.TempDir(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	log := db.Sessions().Create("session")
	log.Save(mqttfront.SessionRecord{Expiry: time.Hour})
	sync := func() {
		done := make(chan error, 1)
		db.Sync(func(err error) { done <- err })
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	sync()
	before := db.Stats().Disk.Load()
	const group = 100 // messages that a sync is for
	payload := make([]byte, size)
	var ids []core.Identity
	var entries []*mqttfront.Entry
	end := func() {
		for _, id := range ids {
			db.Custody().Delete(id)
		}
		for _, e := range entries {
			log.Remove(e)
		}
		ids, entries = ids[:0], entries[:0]
	}
	for i := range uint64(b.N) { //nolint:gosec // not negative
		m := &proto.Message{Topic: "house/floor/room", Payload: payload, QoS: 1}
		if way == "queued" {
			e := &mqttfront.Entry{Msg: m, Pos: i + 1, QoS: 1, Mark: mqttfront.Mark{Epoch: 1, Seq: i + 1}}
			log.Append(e)
			entries = append(entries, e)
		} else {
			id := core.Identity{Epoch: 1, Seq: i + 1}
			db.Custody().Put(id, m, &pb.StoredCustody{Place: &pb.Place{Prefix: "house", Depth: 1}, Own: true, AtMs: 1e12})
			ids = append(ids, id)
		}
		if way == "at once" {
			end()
		}
		if i%group == group-1 {
			sync()
		}
		if way == "outbox" && i%group == group-1 {
			end()
		}
	}
	sync()
	end()
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(db.Stats().Disk.Load()-before)/float64(b.N), "B/message")
}
