package core_test

import (
	"cmp"
	"maps"
	"slices"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// disk is what of a simulated node outlives its process. What is written is safe a while later; a crash loses what is not,
// but for a beginning of it.
type disk struct {
	s        *sim
	most     time.Duration     // until what is written is safe
	live     stores            // as the process sees them
	safe     stores            // as they are on the disk
	writes   [][]func(*stores) // not on the disk yet; what is in one of them gets there as a whole
	together bool
	syncing  bool // what was written is on its way, whether somebody waits for it or not
	done     int  // how many are
	crashes  int
}

type stores struct {
	custody  *storetest.MemoryCustody
	retained *storetest.MemoryRetained
	journal  *storetest.MemoryJournal
	noted    map[*published]bool // what the sessions of its clients have received
	entries  map[entryKey]bool   // what waits in their queues, and, false, what has
}

func newDisk(s *sim) *disk {
	d := &disk{s: s, most: s.diskTime, safe: newStores()}
	d.revert()
	return d
}

func newStores() stores {
	return stores{storetest.NewCustody(), storetest.NewRetained(), storetest.NewJournal(), map[*published]bool{}, map[entryKey]bool{}}
}

// revert has the process see what is on the disk.
func (d *disk) revert() {
	d.live = stores{d.safe.custody.Clone(), d.safe.retained.Clone(), d.safe.journal.Clone(), maps.Clone(d.safe.noted), maps.Clone(d.safe.entries)}
}

func (d *disk) write(do func(*stores)) {
	do(&d.live)
	if n := len(d.writes); d.together && n > 0 {
		d.writes[n-1] = append(d.writes[n-1], do)
	} else {
		d.writes = append(d.writes, []func(*stores){do})
	}
	if d.s.diskTime == 0 {
		d.commit(d.done + len(d.writes))
	} else if !d.syncing {
		if d.s.unhurried {
			d.syncing = true
			crashes := d.crashes
			d.s.after(time.Second, func() {
				if d.crashes == crashes {
					d.flush()
				}
			})
			return
		}
		d.flush()
	}
}

// flush puts what was written on the disk, and what is written meanwhile after that.
func (d *disk) flush() {
	d.syncing = len(d.writes) > 0
	if d.syncing {
		d.sync(d.flush)
	}
}

// commit puts what was written on the disk, up to a number.
func (d *disk) commit(upto int) {
	for ; d.done < upto; d.done++ {
		for _, do := range d.writes[0] {
			do(&d.safe)
		}
		d.writes = d.writes[1:]
	}
}

// sync has do called when what was written so far is safe.
func (d *disk) sync(do func()) {
	if len(d.writes) == 0 {
		do()
		return
	}
	upto, crashes := d.done+len(d.writes), d.crashes
	d.s.after(time.Duration(1+d.s.rng.Int64N(int64(d.most))), func() {
		if d.crashes == crashes {
			d.commit(upto)
			do()
		}
	})
}

func (d *disk) crash() {
	d.commit(d.done + d.s.rng.IntN(len(d.writes)+1))
	d.crashes++
	d.syncing = false
	d.writes = nil
	d.revert()
}

// close is what is done when a node has left: all is written.
func (d *disk) close() {
	d.commit(d.done + len(d.writes))
	d.crash()
}

// diskCustody is core.Custody on such a disk. What has no record is in memory alone.
type diskCustody struct{ d *disk }

func (c diskCustody) Put(id core.Identity, m *proto.Message, record *pb.StoredCustody) {
	if record == nil {
		c.d.live.custody.Put(id, m, nil)
		return
	}
	r := gproto.CloneOf(record)
	c.d.write(func(to *stores) { to.custody.Put(id, m, r) })
}

func (c diskCustody) Get(id core.Identity) *proto.Message { return c.d.live.custody.Get(id) }

func (c diskCustody) Delete(id core.Identity) {
	c.d.write(func(to *stores) { to.custody.Delete(id) })
}

func (c diskCustody) Together(do func()) {
	c.d.writes = append(c.d.writes, nil)
	c.d.together = true
	do()
	c.d.together = false
	if c.d.s.diskTime == 0 {
		c.d.commit(c.d.done + len(c.d.writes))
	}
}

func (c diskCustody) Len() int   { return c.d.live.custody.Len() }
func (c diskCustody) Bytes() int { return c.d.live.custody.Bytes() }

func (c diskCustody) Load(each func(core.Identity, *proto.Message, *pb.StoredCustody)) {
	c.d.live.custody.Load(each)
}

// diskRetained is core.Retained on such a disk.
type diskRetained struct{ d *disk }

func (r diskRetained) Set(at dht.Location, k *core.Kept) (news bool) {
	if old := r.Get(at, k.Message.Topic); old != nil && !k.Newer(old) {
		return false
	}
	r.d.write(func(to *stores) { to.retained.Set(at, k) })
	return true
}

func (r diskRetained) Get(at dht.Location, name string) *core.Kept {
	return r.d.live.retained.Get(at, name)
}

func (r diskRetained) Delete(at dht.Location, name string) {
	r.d.write(func(to *stores) { to.retained.Delete(at, name) })
}

func (r diskRetained) Drop(at dht.Location) {
	r.d.write(func(to *stores) { to.retained.Drop(at) })
}

func (r diskRetained) Match(at dht.Location, filter string, visit func(*core.Kept) bool) {
	r.d.live.retained.Match(at, filter, visit)
}

func (r diskRetained) Len(at dht.Location) int { return r.d.live.retained.Len(at) }
func (r diskRetained) Total() int              { return r.d.live.retained.Total() }
func (r diskRetained) Bytes() int              { return r.d.live.retained.Bytes() }
func (r diskRetained) Tombstones() (int, int)  { return r.d.live.retained.Tombstones() }

// diskJournal is core.Journal on such a disk.
type diskJournal struct{ d *disk }

func (j diskJournal) Put(key string, record gproto.Message) {
	r := gproto.Clone(record)
	j.d.write(func(to *stores) { to.journal.Put(key, r) })
}

func (j diskJournal) Delete(key string) {
	j.d.write(func(to *stores) { to.journal.Delete(key) })
}

func (j diskJournal) Load(each func(string, []byte)) { j.d.live.journal.Load(each) }

// entryKey is a message in the queue of a node's plain subscribers, or of a shared subscription.
type entryKey struct {
	id core.Identity
	g  proto.Group
}

// diskReceived is core.Received on such a disk.
type diskReceived struct{ d *disk }

func (r diskReceived) Load(each func(core.Identity, proto.Group, bool)) {
	for _, k := range r.d.live.sortedEntries() {
		each(k.id, k.g, r.d.live.entries[k])
	}
}

func (r diskReceived) Forget(epoch, upto uint64) {
	r.d.write(func(to *stores) {
		maps.DeleteFunc(to.entries, func(k entryKey, open bool) bool { return !open && k.id.Epoch == epoch && k.id.Seq <= upto })
	})
}

func (s *stores) sortedEntries() []entryKey {
	return slices.SortedFunc(maps.Keys(s.entries), func(a, b entryKey) int {
		return cmp.Or(cmp.Compare(a.id.Epoch, b.id.Epoch), cmp.Compare(a.id.Seq, b.id.Seq), cmp.Compare(a.g.Filter, b.g.Filter), cmp.Compare(a.g.Name, b.g.Name))
	})
}

// queue puts a message that came into the queues of sessions, and has the clients get it when it is safe there.
func (v *simNode) queue(p *published, id core.Identity, to []proto.Group, done func()) {
	life := v.life
	for _, g := range to {
		v.disk.write(func(to *stores) { to.entries[entryKey{id, g}] = true })
	}
	v.disk.sync(func() {
		if v.life != life {
			return
		}
		take := func() {
			to := slices.DeleteFunc(slices.Clone(to), func(g proto.Group) bool { return !v.disk.live.entries[entryKey{id, g}] }) // carried away
			if v.life != life || len(to) == 0 {
				return
			}
			for _, g := range to {
				v.clientGets(p, entryKey{id, g})
			}
			wait := v.s.delay()
			if v.s.lazy > 0 && v.s.rng.IntN(4) == 0 {
				wait = time.Duration(v.s.rng.Int64N(int64(v.s.lazy)))
			}
			v.s.after(wait, func() {
				v.doIn(life, func() {
					for _, g := range to {
						v.disk.write(func(to *stores) { to.entries[entryKey{id, g}] = false })
					}
					done()
				})
			})
		}
		if v.asleep {
			v.missed = append(v.missed, take)
			return
		}
		take()
	})
}

// wake has the clients back that were away.
func (v *simNode) wake() {
	v.asleep = false
	for _, take := range v.missed {
		take()
	}
	v.missed = nil
}

// clientGets has the clients get a message. One whose delivery had begun they know again by its packet ID, and at QoS 1 some may
// come twice.
func (v *simNode) clientGets(p *published, k entryKey) {
	if v.began[k] {
		return
	}
	v.began[k] = true
	switch {
	case k.g != (proto.Group{}):
		v.s.note("node %d takes %s for %v", v.i, p.id, k.g)
		p.took[k.g.Name+"/"+k.g.Filter]++
	case v.from[p] == 0 || p.m.QoS == 2:
		v.take(p)
	}
}

// resume has the clients get what waited when their node crashed.
func (v *simNode) resume() {
	for _, k := range v.disk.live.sortedEntries() {
		if !v.disk.live.entries[k] {
			continue
		}
		p := v.s.byID[k.id]
		if p == nil {
			v.s.fail("node %d has a message in its queue that never came: %v", v.i, k.id)
			continue
		}
		v.queue(p, k.id, []proto.Group{k.g}, func() {
			if c := v.n.Receipt(k.id); c != nil {
				v.n.Done(c)
			}
		})
	}
}
