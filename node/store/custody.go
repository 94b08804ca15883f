package store

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Custody is core.Custody in the database, and in memory: what is in custody is mostly about to be sent.
type Custody struct {
	db       *DB
	messages map[core.Identity]inCustody // guarded by DB.mu, as the rest
	most     int                         // that were in messages since it was made: a map does not shrink by itself

	number, size atomic.Int64 // of the messages
}

// inCustody is a message in custody, and its number.
type inCustody struct {
	m      *proto.Message
	number uint64            // 0: it is in memory alone, or in the group
	record *pb.StoredCustody // as of the last start
	fresh  bool              // it is new in the group
	at     uint32            // where in that
}

// fewMessages is how many messages the map may have room for without being made anew.
const fewMessages = 256

// Custody returns the messages in custody.
func (d *DB) Custody() *Custody { return &d.custody }

// Put implements core.Custody.
func (c *Custody) Put(id core.Identity, m *proto.Message, record *pb.StoredCustody) {
	c.db.update(func() {
		kept, there := c.messages[id]
		if !there {
			kept.m = m
			c.keep(id, kept)
		}
		switch {
		case record == nil:
		case kept.number > 0:
			record.Message = kept.number
			c.db.putLocked(custodyKey(id), record, false)
		case kept.fresh:
			c.db.group.news[kept.at].record = record
		default:
			kept.fresh, kept.at = true, c.makeRoom()
			c.db.group.news = append(c.db.group.news, newCustody{id, record})
			c.db.group.open++
			c.db.group.openSize += recordSize + kept.m.Size()
			c.messages[id] = kept
			c.db.forecast.put(id, "")
			c.db.fillLocked()
		}
	})
}

// custodies are the messages that are new in custody in a group. Most are gone before it ends, and cost nothing more.
type custodies struct {
	news     []newCustody
	open     int // those that are not gone
	openSize int // of these, in bytes, about
}

type newCustody struct {
	id     core.Identity
	record *pb.StoredCustody // nil: it is gone
}

// makeRoom forgets what is gone of what is new, where that is most of it, and returns where the next one is to be.
func (c *Custody) makeRoom() uint32 {
	g := c.db.group
	if len(g.news) > 2*g.open+fewMessages {
		g.news = slices.DeleteFunc(g.news, func(n newCustody) bool { return n.record == nil })
		for i, n := range g.news {
			kept := c.messages[n.id]
			kept.at = uint32(i) //nolint:gosec // fewer are in memory
			c.messages[n.id] = kept
		}
	}
	return uint32(len(g.news)) //nolint:gosec // fewer are in memory
}

// writeLocked has the new messages that are still in custody written with the group.
func (c *Custody) writeLocked() {
	for _, n := range c.db.group.news {
		if n.record == nil {
			continue
		}
		kept := c.messages[n.id]
		kept.number, kept.fresh = c.db.needLocked(kept.m), false
		n.record.Message = kept.number
		c.db.putLocked(custodyKey(n.id), n.record, true)
		c.messages[n.id] = kept
	}
	c.db.group.custodies = custodies{}
}

func (c *Custody) keep(id core.Identity, m inCustody) {
	c.messages[id] = m
	c.most = max(c.most, len(c.messages))
	c.number.Add(1)
	c.size.Add(int64(m.m.Size()))
}

// Get implements core.Custody.
func (c *Custody) Get(id core.Identity) (m *proto.Message) {
	c.db.update(func() { m = c.messages[id].m })
	return m
}

// Delete implements core.Custody.
func (c *Custody) Delete(id core.Identity) {
	c.db.update(func() {
		kept, ok := c.messages[id]
		if !ok {
			return
		}
		delete(c.messages, id)
		c.size.Add(-int64(kept.m.Size()))
		c.number.Add(-1)
		if c.most > fewMessages && len(c.messages) <= c.most/8 {
			c.most = len(c.messages)
			c.messages = maps.Collect(maps.All(c.messages))
		}
		switch {
		case kept.number > 0:
			c.db.removeLocked(custodyKey(id))
			c.db.releaseLocked(kept.number, kept.m)
		case kept.fresh:
			c.db.group.news[kept.at].record = nil
			c.db.group.open--
			c.db.group.openSize -= recordSize + kept.m.Size()
			c.db.forecast.gone(id, "")
			c.db.unneededLocked()
		}
	})
}

// Together implements core.Custody.
func (c *Custody) Together(do func()) { c.db.Together(do) }

// Len implements core.Custody.
func (c *Custody) Len() int { return int(c.number.Load()) }

// Bytes implements core.Custody.
func (c *Custody) Bytes() int { return int(c.size.Load()) }

// Load implements core.Custody.
func (c *Custody) Load(each func(core.Identity, *proto.Message, *pb.StoredCustody)) {
	var all map[core.Identity]inCustody
	c.db.update(func() { all = maps.Clone(c.messages) })
	for id, kept := range all {
		if kept.record != nil {
			each(id, kept.m, kept.record)
		}
	}
}

// load reads what is in custody, and counts the messages that it needs.
func (c *Custody) load(needs map[uint64]int32) error {
	return c.db.each([]byte{kindCustody}, func(rest, value []byte) bool {
		record := new(pb.StoredCustody)
		err := decode(value, record)
		var m *proto.Message
		if err == nil {
			m, err = c.db.message(record.GetMessage())
		}
		if err != nil || len(rest) != 16 {
			c.db.damaged(fmt.Errorf("custody %x: %w", rest, err))
			return true
		}
		needs[record.GetMessage()]++
		c.keep(core.Identity{Epoch: binary.BigEndian.Uint64(rest), Seq: binary.BigEndian.Uint64(rest[8:])},
			inCustody{m: m, number: record.GetMessage(), record: record})
		return true
	})
}
