package store

import (
	"maps"
	"sync"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// Custody is core.Custody in memory. All its methods are safe for concurrent use.
type Custody struct {
	mu       sync.Mutex
	messages map[core.Identity]*proto.Message
	most     int // that were in messages since it was made: a map does not shrink by itself
	bytes    int
}

// fewMessages is how many messages the map may have room for without being made anew.
const fewMessages = 256

// NewCustody returns an empty one.
func NewCustody() *Custody { return &Custody{messages: map[core.Identity]*proto.Message{}} }

// Put implements core.Custody.
func (c *Custody) Put(id core.Identity, m *proto.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.messages[id]; !ok {
		c.messages[id] = m
		c.most = max(c.most, len(c.messages))
		c.bytes += m.Size()
	}
}

// Get implements core.Custody.
func (c *Custody) Get(id core.Identity) *proto.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.messages[id]
}

// Delete implements core.Custody.
func (c *Custody) Delete(id core.Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m, ok := c.messages[id]; ok {
		delete(c.messages, id)
		c.bytes -= m.Size()
		if c.most > fewMessages && len(c.messages) <= c.most/8 {
			c.most = len(c.messages)
			c.messages = maps.Collect(maps.All(c.messages))
		}
	}
}

// Len implements core.Custody.
func (c *Custody) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.messages)
}

// Bytes implements core.Custody.
func (c *Custody) Bytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// Retained is core.Retained in memory. All its methods are safe for concurrent use.
type Retained struct {
	mu        sync.Mutex
	at        map[dht.Location]*topic.Names[*core.Kept]
	total     int // tombstones left out
	bytes     int
	tombs     int
	tombBytes int
}

// NewRetained returns an empty one.
func NewRetained() *Retained { return &Retained{at: map[dht.Location]*topic.Names[*core.Kept]{}} }

// Set implements core.Retained.
func (r *Retained) Set(at dht.Location, k *core.Kept) bool {
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
	}
}

// Drop implements core.Retained.
func (r *Retained) Drop(at dht.Location) {
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
