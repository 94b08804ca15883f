package storetest

import (
	"maps"
	"sync"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// MemoryCustody is core.Custody in memory, without a disk: for tests of what uses one. All its methods are safe for concurrent use.
type MemoryCustody struct {
	mu       sync.Mutex
	messages map[core.Identity]*proto.Message
	records  map[core.Identity]*pb.StoredCustody
	most     int // that were in messages since it was made: a map does not shrink by itself
	bytes    int
}

// fewMessages is how many messages the map may have room for without being made anew.
const fewMessages = 256

// NewCustody returns an empty one.
func NewCustody() *MemoryCustody {
	return &MemoryCustody{messages: map[core.Identity]*proto.Message{}, records: map[core.Identity]*pb.StoredCustody{}}
}

// Put implements core.Custody.
func (c *MemoryCustody) Put(id core.Identity, m *proto.Message, record *pb.StoredCustody) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.messages[id]; !ok {
		c.messages[id] = m
		c.most = max(c.most, len(c.messages))
		c.bytes += m.Size()
	}
	if record != nil {
		c.records[id] = record
	}
}

// Clone returns a copy: what is kept over a restart.
func (c *MemoryCustody) Clone() *MemoryCustody {
	d := NewCustody()
	c.Load(d.Put)
	return d
}

// Together implements core.Custody.
func (c *MemoryCustody) Together(do func()) { do() }

// Load implements core.Custody.
func (c *MemoryCustody) Load(each func(core.Identity, *proto.Message, *pb.StoredCustody)) {
	c.mu.Lock()
	records := maps.Clone(c.records)
	c.mu.Unlock()
	for id, r := range records {
		each(id, c.Get(id), r)
	}
}

// Get implements core.Custody.
func (c *MemoryCustody) Get(id core.Identity) *proto.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.messages[id]
}

// Delete implements core.Custody.
func (c *MemoryCustody) Delete(id core.Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m, ok := c.messages[id]; ok {
		delete(c.messages, id)
		delete(c.records, id)
		c.bytes -= m.Size()
		if c.most > fewMessages && len(c.messages) <= c.most/8 {
			c.most = len(c.messages)
			c.messages = maps.Collect(maps.All(c.messages))
		}
	}
}

// Len implements core.Custody.
func (c *MemoryCustody) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.messages)
}

// Bytes implements core.Custody.
func (c *MemoryCustody) Bytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// MemoryRetained is core.Retained in the same way. All its methods are safe for concurrent use.
type MemoryRetained struct {
	mu        sync.Mutex
	at        map[dht.Location]*topic.Names[*core.Kept]
	total     int // tombstones left out
	bytes     int
	tombs     int
	tombBytes int
}

// NewRetained returns an empty one.
func NewRetained() *MemoryRetained {
	return &MemoryRetained{at: map[dht.Location]*topic.Names[*core.Kept]{}}
}

// Clone returns a copy.
func (r *MemoryRetained) Clone() *MemoryRetained {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := NewRetained()
	for at, names := range r.at {
		names.All(func(_ string, k *core.Kept) bool { return d.Set(at, k) })
	}
	return d
}

// Set implements core.Retained.
func (r *MemoryRetained) Set(at dht.Location, k *core.Kept) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
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
func (r *MemoryRetained) count(k *core.Kept, by int) {
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

// Bytes implements core.Retained.
func (r *MemoryRetained) Bytes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}

// Tombstones implements core.Retained.
func (r *MemoryRetained) Tombstones() (number, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tombs, r.tombBytes
}

// Get implements core.Retained.
func (r *MemoryRetained) Get(at dht.Location, name string) *core.Kept {
	r.mu.Lock()
	defer r.mu.Unlock()
	if names := r.at[at]; names != nil {
		k, _ := names.Get(name)
		return k
	}
	return nil
}

// Delete implements core.Retained.
func (r *MemoryRetained) Delete(at dht.Location, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if names := r.at[at]; names != nil {
		old, _ := names.Delete(name)
		r.count(old, -1)
		if names.Len() == 0 {
			delete(r.at, at)
		}
	}
}

// Drop implements core.Retained.
func (r *MemoryRetained) Drop(at dht.Location) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if names := r.at[at]; names != nil {
		names.All(func(_ string, k *core.Kept) bool {
			r.count(k, -1)
			return true
		})
		delete(r.at, at)
	}
}

// Match implements core.Retained.
func (r *MemoryRetained) Match(at dht.Location, filter string, visit func(*core.Kept) bool) {
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
func (r *MemoryRetained) Len(at dht.Location) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if names := r.at[at]; names != nil {
		return names.Len()
	}
	return 0
}

// Total implements core.Retained.
func (r *MemoryRetained) Total() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// NoneReceived is core.Received of a broker that forgets everything at a restart.
type NoneReceived struct{}

// Load implements core.Received.
func (NoneReceived) Load(func(core.Identity, proto.Group, bool)) {}

// Forget implements core.Received.
func (NoneReceived) Forget(uint64, uint64) {}

// MemoryJournal is core.Journal in memory. It is for one goroutine.
type MemoryJournal struct{ records map[string][]byte }

// NewJournal returns an empty one.
func NewJournal() *MemoryJournal { return &MemoryJournal{records: map[string][]byte{}} }

// Clone returns a copy.
func (j *MemoryJournal) Clone() *MemoryJournal { return &MemoryJournal{maps.Clone(j.records)} }

// Put implements core.Journal.
func (j *MemoryJournal) Put(key string, record protobuf.Message) {
	b, err := protobuf.Marshal(record)
	if err != nil {
		panic(err)
	}
	j.records[key] = b
}

// Delete implements core.Journal.
func (j *MemoryJournal) Delete(key string) { delete(j.records, key) }

// Load implements core.Journal.
func (j *MemoryJournal) Load(each func(string, []byte)) {
	for k, r := range j.records {
		each(k, r)
	}
}
