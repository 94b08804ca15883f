package mqttfront

import "testing"

// TestWideSlots: what is cached of slots with many targets is bounded, and what was cached last stays.
func TestWideSlots(t *testing.T) {
	b := &Broker{slots: new(slots)}
	c := &b.wide
	const each = 3000
	var all []*slot
	for i := range 3 * maxWide / each {
		sl := &slot{topic: "t"}
		m := &matched{version: uint64(i % 2), targets: make([]target, each)}
		if !c.keep(sl, m) {
			t.Fatal("there is no room")
		}
		sl.matched.Store(m)
		all = append(all, sl)
		if c.targets > maxWide {
			t.Fatalf("%d targets are cached", c.targets)
		}
	}
	cached := 0
	for i, sl := range all {
		if sl.matched.Load() != nil {
			cached++
		} else if i > len(all)-maxWide/each {
			t.Errorf("slot %d of %d has fallen out", i, len(all))
		}
	}
	if cached*each != c.targets || cached != maxWide/each {
		t.Errorf("%d slots with %d targets each are cached, %d are counted", cached, each, c.targets)
	}
	if c.keep(&slot{}, &matched{targets: make([]target, maxWide+1)}) {
		t.Error("more than all is cached")
	}
	c.forgetStale(1)
	if want := (cached + 1) / 2 * each; c.targets > want || c.targets < want-each || len(c.slots)*each != c.targets {
		t.Errorf("%d targets in %d slots are of this version, want about %d", c.targets, len(c.slots), want)
	}
	b.forgetStale() // of version 0
	if c.targets != 0 || len(c.slots) != 0 {
		t.Errorf("%d targets in %d slots are left", c.targets, len(c.slots))
	}
}
