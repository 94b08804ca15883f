package store_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// TestPowerCut cuts the power while messages come and go: what was said to be safe is there afterwards, and what is there is
// what there was at one moment, in custody and in the queues of sessions alike.
func TestPowerCut(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { cutPower(t, rand.New(rand.NewPCG(seed, 4))) })
	}
}

// moment is what a database has: the messages in custody and in each queue.
type moment struct {
	custody map[core.Identity]string
	queues  [3]map[uint64]string
}

func (m moment) clone() moment {
	c := moment{custody: maps.Clone(m.custody)}
	for i := range m.queues {
		c.queues[i] = maps.Clone(m.queues[i])
	}
	return c
}

func (m moment) equal(o moment) bool {
	for i := range m.queues {
		if !maps.Equal(m.queues[i], o.queues[i]) {
			return false
		}
	}
	return maps.Equal(m.custody, o.custody)
}

func cutPower(t *testing.T, r *rand.Rand) {
	d := newDisk(t)
	db := d.fresh(t)
	var logs []mqttfront.SessionLog
	now := moment{custody: map[core.Identity]string{}}
	entries := [3]map[uint64]*mqttfront.Entry{}
	for i := range now.queues {
		now.queues[i], entries[i] = map[uint64]string{}, map[uint64]*mqttfront.Entry{}
		logs = append(logs, db.Sessions().Create(fmt.Sprint(i)))
		logs[i].Save(mqttfront.SessionRecord{Expiry: time.Hour})
	}
	confirm := make(chan error, 1)
	db.Sync(func(err error) { confirm <- err })
	if err := <-confirm; err != nil {
		t.Fatal(err)
	}
	history := []moment{now.clone()}
	var confirmed atomic.Int64
	steps := 200 + r.IntN(2000)
	for step := range steps {
		text := fmt.Sprint("message ", step)
		m := &proto.Message{Topic: "a/b", Payload: []byte(text), QoS: 1}
		id := core.Identity{Epoch: 7, Seq: uint64(step)}
		db.Together(func() {
			for i := range logs { // the same message in several places
				if r.IntN(2) > 0 {
					continue
				}
				e := &mqttfront.Entry{Msg: m, Pos: uint64(step) + 1, QoS: 1}
				logs[i].Append(e)
				now.queues[i][e.Pos], entries[i][e.Pos] = text, e
			}
			db.Custody().Put(id, m, &pb.StoredCustody{Own: true})
			now.custody[id] = text
			for id := range now.custody { // about as many go as come
				if r.IntN(2*len(now.custody)) < 2 {
					db.Custody().Delete(id)
					delete(now.custody, id)
				}
			}
			for i := range logs {
				for _, pos := range slices.Sorted(maps.Keys(entries[i])) {
					if r.IntN(2*len(entries[i])) < 2 {
						logs[i].Remove(entries[i][pos])
						delete(entries[i], pos)
						delete(now.queues[i], pos)
					}
				}
			}
			history = append(history, now.clone())
		})
		if n := int64(len(history) - 1); r.IntN(10) == 0 {
			db.Sync(func(err error) {
				if err == nil {
					confirmed.Store(max(confirmed.Load(), n)) // calls come one at a time
				}
			})
		}
		if r.IntN(20) == 0 {
			time.Sleep(time.Duration(r.IntN(1500)) * time.Microsecond)
		}
	}
	safe := confirmed.Load()
	after := d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(2) * 50, RNG: r})
	d.close()
	d.fs = after
	db = d.open(t)
	got := moment{custody: map[core.Identity]string{}}
	for step := range steps {
		id := core.Identity{Epoch: 7, Seq: uint64(step)}
		if m := db.Custody().Get(id); m != nil {
			got.custody[id] = string(m.Payload)
		}
	}
	err := db.Sessions().Load(func(key string, _ mqttfront.SessionRecord, log mqttfront.SessionLog) {
		i := int(key[0] - '0')
		got.queues[i] = map[uint64]string{}
		for _, e := range log.Fetch(0, 1<<20) {
			got.queues[i][e.Pos] = string(e.Msg.Payload)
		}
		if q := log.Queued(); q.Entries != len(got.queues[i]) {
			t.Errorf("session %s: %d entries, %d were fetched", key, q.Entries, len(got.queues[i]))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := safe; i < int64(len(history)); i++ {
		if history[i].equal(got) {
			t.Logf("%d steps, %d were safe, %d are there", steps, safe, i)
			return
		}
	}
	t.Errorf("after %d steps, %d of which were safe, there is %d in custody and %d, %d, %d in queues, which there was at no moment since",
		steps, safe, len(got.custody), len(got.queues[0]), len(got.queues[1]), len(got.queues[2]))
}
