package mqttfront

import (
	"slices"
	"sync"
)

// What the cache may hold of sessions. They are ours to tune.
const (
	// fewTargets are cached for every slot: 45 MiB if all have as many.
	fewTargets = 64
	// maxWide bounds the targets of all slots that have more, 22 MiB. Without it, thousands of subscribers to
	// everything would be in every slot.
	maxWide = 1 << 18
)

// wideSlots are the slots with many targets, the longest cached first.
type wideSlots struct {
	mu      sync.Mutex
	slots   []wideSlot
	targets int
}

type wideSlot struct {
	sl *slot
	m  *matched
}

// keep finds room for the targets of a slot, by dropping those of others; false where there is not so much.
func (c *wideSlots) keep(sl *slot, m *matched) bool {
	if len(m.targets) > maxWide {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.targets+len(m.targets) > maxWide {
		first := c.slots[0]
		c.slots[0] = wideSlot{}
		c.slots = c.slots[1:]
		c.targets -= len(first.m.targets)
		first.sl.matched.CompareAndSwap(first.m, nil)
	}
	c.slots = append(c.slots, wideSlot{sl, m})
	c.targets += len(m.targets)
	return true
}

// forgetStale drops what is not of a version any more.
func (c *wideSlots) forgetStale(version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slots = slices.DeleteFunc(c.slots, func(e wideSlot) bool {
		stale := e.m.version != version
		if stale {
			c.targets -= len(e.m.targets)
		}
		return stale
	})
}
