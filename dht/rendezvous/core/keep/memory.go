// Package keep has core.Retained in memory: for who keeps it on a disk as well, since a rendezvous is asked for retained messages
// all the time, and for tests.
package keep

import (
	"sync"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// Memory is core.Retained in memory. All its methods are safe for concurrent use.
type Memory struct {
	changed func(at dht.Location, topic string, k *core.Kept)

	mu        sync.Mutex
	at        map[dht.Location]*topic.Names[*core.Kept]
	total     int // tombstones left out
	bytes     int
	tombs     int
	tombBytes int
}

// New returns an empty one. changed, unless it is nil, is told of each change in their order: what a topic has at a location now,
// nil where it has nothing any more. It must not block, nor call the Memory.
func New(changed func(at dht.Location, topic string, k *core.Kept)) *Memory {
	return &Memory{changed: changed, at: map[dht.Location]*topic.Names[*core.Kept]{}}
}

// Restore is Set for what was kept before: changed is not told.
func (m *Memory) Restore(at dht.Location, k *core.Kept) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setLocked(at, k)
}

// Set implements core.Retained.
func (m *Memory) Set(at dht.Location, k *core.Kept) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.setLocked(at, k) {
		return false
	}
	m.tell(at, k.Message.Topic, k)
	return true
}

func (m *Memory) tell(at dht.Location, name string, k *core.Kept) {
	if m.changed != nil {
		m.changed(at, name, k)
	}
}

func (m *Memory) setLocked(at dht.Location, k *core.Kept) bool {
	names := m.at[at]
	if names == nil {
		names = new(topic.Names[*core.Kept])
		m.at[at] = names
	}
	if old, ok := names.Get(k.Message.Topic); ok && !k.Newer(old) {
		return false
	}
	old, _ := names.Set(k.Message.Topic, k)
	m.count(old, -1)
	m.count(k, 1)
	return true
}

// count adds a retained message to the sums, or takes it out.
func (m *Memory) count(k *core.Kept, by int) {
	switch {
	case k == nil:
	case k.Cleared:
		m.tombs += by
		m.tombBytes += by * k.Message.Size()
	default:
		m.total += by
		m.bytes += by * k.Message.Size()
	}
}

// Each calls visit with everything that is kept, by location, tombstones too. visit must not call the Memory.
func (m *Memory) Each(visit func(at dht.Location, k *core.Kept)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for at, names := range m.at {
		names.All(func(_ string, k *core.Kept) bool {
			visit(at, k)
			return true
		})
	}
}

// Bytes implements core.Retained.
func (m *Memory) Bytes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes
}

// Tombstones implements core.Retained.
func (m *Memory) Tombstones() (number, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tombs, m.tombBytes
}

// Get implements core.Retained.
func (m *Memory) Get(at dht.Location, name string) *core.Kept {
	m.mu.Lock()
	defer m.mu.Unlock()
	if names := m.at[at]; names != nil {
		k, _ := names.Get(name)
		return k
	}
	return nil
}

// Delete implements core.Retained.
func (m *Memory) Delete(at dht.Location, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := m.at[at]
	if names == nil {
		return
	}
	old, _ := names.Delete(name)
	m.count(old, -1)
	if names.Len() == 0 {
		delete(m.at, at)
	}
	if old != nil {
		m.tell(at, name, nil)
	}
}

// Drop implements core.Retained.
func (m *Memory) Drop(at dht.Location) {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := m.at[at]
	if names == nil {
		return
	}
	names.All(func(name string, k *core.Kept) bool {
		m.count(k, -1)
		m.tell(at, name, nil)
		return true
	})
	delete(m.at, at)
}

// Match implements core.Retained.
func (m *Memory) Match(at dht.Location, filter string, visit func(*core.Kept) bool) {
	m.mu.Lock()
	names := m.at[at]
	m.mu.Unlock()
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
func (m *Memory) Len(at dht.Location) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if names := m.at[at]; names != nil {
		return names.Len()
	}
	return 0
}

// Total implements core.Retained.
func (m *Memory) Total() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}
