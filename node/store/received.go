package store

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Received is core.Received: which messages the sessions in the database have, and have had. An entry that goes leaves a mark
// until the message can't come again.
type Received struct {
	db    *DB
	marks map[uint64][]mark // by epoch, guarded by DB.mu
}

// mark is a message that the sessions have had. Of an epoch there are no more than messages, and they go when it is forgotten: the
// core remembers a limited number.
type mark struct {
	seq uint64
	key string // of one for a shared subscription; "": markKey knows
}

// Received returns what the sessions in the database have received.
func (d *DB) Received() *Received { return &d.received }

func markKey(m mqttfront.Mark, g *proto.Group) string {
	key := string(binary.BigEndian.AppendUint64(number(kindHad, m.Epoch), m.Seq))
	if g == nil {
		return key
	}
	return key + g.Name + "\x00" + g.Filter
}

// hadLocked leaves a mark of an entry that goes.
func (r *Received) hadLocked(m mqttfront.Mark, e *mqttfront.Entry) {
	g := e.Group
	if e.Alone != "" {
		alone := core.SessionGroup(e.Alone)
		g = &alone
	}
	key := markKey(m, g)
	r.addLocked(m.Epoch, markOfKey(m.Seq, key, g != nil))
	r.db.putLocked(key, []byte{}, true)
}

// markOfKey keeps a key only where it has to: there may be very many.
func markOfKey(seq uint64, key string, shared bool) mark {
	if !shared {
		key = ""
	}
	return mark{seq, key}
}

func (r *Received) addLocked(epoch uint64, m mark) {
	if r.marks == nil {
		r.marks = map[uint64][]mark{}
	}
	r.marks[epoch] = append(r.marks[epoch], m)
}

// Forget implements core.Received.
func (r *Received) Forget(epoch, upto uint64) {
	r.db.update(func() {
		marks := r.marks[epoch]
		if marks == nil {
			return
		}
		left := marks[:0]
		for _, m := range marks {
			if m.seq > upto {
				left = append(left, m)
				continue
			}
			if m.key == "" {
				m.key = markKey(mqttfront.Mark{Epoch: epoch, Seq: m.seq}, nil)
			}
			r.db.removeLocked(m.key)
		}
		clear(marks[len(left):])
		if r.marks[epoch] = left; len(left) == 0 {
			delete(r.marks, epoch)
		}
	})
}

// Load implements core.Received.
func (r *Received) Load(each func(id core.Identity, g proto.Group, open bool)) {
	err := r.db.each([]byte{kindEntry}, func(_, value []byte) bool {
		var e pb.StoredEntry
		if decode(value, &e) == nil && e.GetEpoch() != 0 {
			g := proto.Group{Name: e.GetGroupName(), Filter: e.GetGroupFilter()}
			if e.GetAlone() != "" {
				g = core.SessionGroup(e.GetAlone())
			}
			each(core.Identity{Epoch: e.GetEpoch(), Seq: e.GetSeq()}, g, true)
		}
		return true
	})
	if err != nil {
		r.db.damaged(fmt.Errorf("queues: %w", err))
	}
	err = r.db.each([]byte{kindHad}, func(key, _ []byte) bool {
		if len(key) < 16 {
			return true
		}
		id := core.Identity{Epoch: binary.BigEndian.Uint64(key), Seq: binary.BigEndian.Uint64(key[8:])}
		name, filter, _ := strings.Cut(string(key[16:]), "\x00")
		r.db.update(func() { r.addLocked(id.Epoch, markOfKey(id.Seq, string(kindHad)+string(key), len(key) > 16)) })
		each(id, proto.Group{Name: name, Filter: filter}, false)
		return true
	})
	if err != nil {
		r.db.damaged(fmt.Errorf("marks: %w", err))
	}
}
