package core

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// What of messages in custody is known over a restart.

// store keeps a message in custody, over a restart where another relies on that.
func (n *Node) store(e *entry) {
	var r *pb.StoredCustody
	if e.own != nil && !e.own.kept {
		r = n.ownRecord(e.own)
	}
	if e.copy || e.copying || e.copied() || e.written {
		if r == nil {
			r = &pb.StoredCustody{Place: e.l.place.pb()}
		}
		r.Copy = n.sharesToPB(e)
		n.stands(e.l)
		e.stored = true
	}
	n.cfg.Custody.Put(e.id, e.m, r)
}

// rewrite has what has changed of a message in custody known over a restart too.
func (n *Node) rewrite(e *entry) {
	if e.stored && !e.gone {
		n.store(e)
	}
}

// unstore lets go of a message of this node's clients that others keep, unless it is in custody here beside that.
func (n *Node) unstore(id Identity) {
	if s := n.streams[id.Epoch]; s != nil {
		if e := s.entries.get(id.Seq); e != nil && !e.over() {
			n.store(e)
			return
		}
	}
	n.cfg.Custody.Delete(id)
}

// dateAfter is when it is written down that some of those that a message is for are done with it and others are not: mostly all are by then.
const dateAfter = time.Second

// date has it known over a restart too who is done with a QoS 2 message: a session that was there and goes on elsewhere must not get it again.
func (n *Node) date(e *entry) {
	if e.dated {
		return
	}
	e.dated = true
	n.dated = append(n.dated, e)
	if len(n.dated) > 1 {
		return
	}
	n.timers.set(n.now+dateAfter, func() {
		all := n.dated
		n.dated = nil
		for _, e := range all {
			e.dated = false
			n.rewrite(e)
		}
	})
}
