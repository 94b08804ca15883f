package storetest

import (
	"maps"
	"sync"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core/keep"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
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

// MemoryRetained is core.Retained in the same way.
type MemoryRetained struct{ *keep.Memory }

// NewRetained returns an empty one.
func NewRetained() *MemoryRetained { return &MemoryRetained{keep.New(nil)} }

// Clone returns a copy.
func (r *MemoryRetained) Clone() *MemoryRetained {
	d := NewRetained()
	r.Each(d.Restore)
	return d
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
