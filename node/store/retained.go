package store

import (
	"fmt"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core/keep"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Retained is core.Retained in the database, and in memory. All its methods are safe for concurrent use.
type Retained struct {
	*keep.Memory
	db *DB
}

// Retained returns the retained messages of the database.
func (d *DB) Retained() *Retained { return &d.retained }

func (r *Retained) init(d *DB) { r.db, r.Memory = d, keep.New(r.changed) }

// changed has a change written.
func (r *Retained) changed(at dht.Location, topic string, k *core.Kept) {
	if k == nil {
		r.db.remove(retainedKey(at, topic))
		return
	}
	r.db.put(retainedKey(at, topic), storedRetained(k), false)
}

// load reads what is retained.
func (r *Retained) load() error {
	return r.db.each([]byte{kindRetained}, func(rest, value []byte) bool {
		var s pb.StoredRetained
		err := decode(value, &s)
		var m *proto.Message
		if err == nil {
			m, err = messageOf(s.GetMessage())
		}
		if err != nil || len(rest) < len(dht.Location{}) {
			r.db.damaged(fmt.Errorf("retained message %q: %w", rest, err))
			return true
		}
		r.Restore(dht.Location(rest[:len(dht.Location{})]), &core.Kept{Message: m, Stamp: s.GetStamp(),
			ID: core.Identity{Epoch: s.GetEpoch(), Seq: s.GetSeq()}, Cleared: s.GetCleared()})
		return true
	})
}

func storedRetained(k *core.Kept) *pb.StoredRetained {
	return &pb.StoredRetained{Message: storedMessage(k.Message), Stamp: k.Stamp, Epoch: k.ID.Epoch, Seq: k.ID.Seq, Cleared: k.Cleared}
}
