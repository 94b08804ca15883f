package store

import (
	"fmt"
	"sync"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// Retained is core.Retained in the database, and in memory. All its methods are safe for concurrent use.
type Retained struct {
	db *DB

	mu        sync.Mutex
	at        map[dht.Location]*topic.Names[*core.Kept]
	total     int // tombstones left out
	bytes     int
	tombs     int
	tombBytes int
}

// Retained returns the retained messages of the database.
func (d *DB) Retained() *Retained { return &d.retained }

// Set implements core.Retained.
func (r *Retained) Set(at dht.Location, k *core.Kept) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.setLocked(at, k) {
		return false
	}
	r.db.put(retainedKey(at, k.Message.Topic), storedRetained(k), false)
	return true
}

func (r *Retained) setLocked(at dht.Location, k *core.Kept) bool {
	names := r.at[at]
	if names == nil {
		names = new(topic.Names[*core.Kept])
		r.at[at] = names
	}
	if old, ok := names.Get(k.Message.Topic); ok && !k.Newer(old) {
		return false
	}
	old, _ := names.Set(k.Message.Topic, k)
	r.count(old, -1)
	r.count(k, 1)
	return true
}

// count adds a retained message to the sums, or takes it out.
func (r *Retained) count(k *core.Kept, by int) {
	switch {
	case k == nil:
	case k.Cleared:
		r.tombs += by
		r.tombBytes += by * k.Message.Size()
	default:
		r.total += by
		r.bytes += by * k.Message.Size()
	}
}

// Each calls visit with everything that is kept, by location, tombstones too. visit must not change the store.
func (r *Retained) Each(visit func(at dht.Location, k *core.Kept)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at, names := range r.at {
		names.All(func(_ string, k *core.Kept) bool {
			visit(at, k)
			return true
		})
	}
}

// Bytes implements core.Retained.
func (r *Retained) Bytes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}

// Tombstones implements core.Retained.
func (r *Retained) Tombstones() (number, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tombs, r.tombBytes
}

// Get implements core.Retained.
func (r *Retained) Get(at dht.Location, name string) *core.Kept {
	r.mu.Lock()
	defer r.mu.Unlock()
	if names := r.at[at]; names != nil {
		k, _ := names.Get(name)
		return k
	}
	return nil
}

// Delete implements core.Retained.
func (r *Retained) Delete(at dht.Location, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if names := r.at[at]; names != nil {
		old, _ := names.Delete(name)
		r.count(old, -1)
		if names.Len() == 0 {
			delete(r.at, at)
		}
		if old != nil {
			r.db.remove(retainedKey(at, name))
		}
	}
}

// Drop implements core.Retained.
func (r *Retained) Drop(at dht.Location) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if names := r.at[at]; names != nil {
		names.All(func(name string, k *core.Kept) bool {
			r.count(k, -1)
			r.db.remove(retainedKey(at, name))
			return true
		})
		delete(r.at, at)
	}
}

// Match implements core.Retained.
func (r *Retained) Match(at dht.Location, filter string, visit func(*core.Kept) bool) {
	r.mu.Lock()
	names := r.at[at]
	r.mu.Unlock()
	if names == nil {
		return
	}
	each := func(_ string, k *core.Kept) bool { return visit(k) }
	if filter == "#" { // topics that begin with $ too, which "#" does not match for a subscriber
		names.All(each)
		return
	}
	names.Match(filter, each)
}

// Len implements core.Retained.
func (r *Retained) Len(at dht.Location) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if names := r.at[at]; names != nil {
		return names.Len()
	}
	return 0
}

// Total implements core.Retained.
func (r *Retained) Total() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// load reads what is retained.
func (r *Retained) load() error {
	r.at = map[dht.Location]*topic.Names[*core.Kept]{}
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
		r.setLocked(dht.Location(rest[:len(dht.Location{})]), &core.Kept{Message: m, Stamp: s.GetStamp(),
			ID: core.Identity{Epoch: s.GetEpoch(), Seq: s.GetSeq()}, Cleared: s.GetCleared()})
		return true
	})
}

func storedRetained(k *core.Kept) *pb.StoredRetained {
	return &pb.StoredRetained{Message: storedMessage(k.Message), Stamp: k.Stamp, Epoch: k.ID.Epoch, Seq: k.ID.Seq, Cleared: k.Cleared}
}
