package core

import "github.com/mozzie-mqtt/mozzie/proto/pb"

// The outbox has the messages of this node's clients that nobody else is known to keep, until others do and that is safe.

// keep puts a message into the outbox.
func (n *Node) keep(e *pending) {
	if e.epoch == nil {
		return
	}
	if e.epoch.open.get(e.seq) != nil {
		n.count(e)
		return
	}
	e.epoch.open.put(e.seq, e)
	n.count(e)
	n.cfg.Custody.Put(e.id(), e.m, n.ownRecord(e))
	e.r.out.compact(func(e *pending) bool { return e.kept })
	e.r.out.push(e)
	n.use(e.r)
}

// linger keeps a message that cannot go yet.
func (n *Node) linger(e *pending) {
	n.keep(e)
	e.waits = true
}

// count counts a message that is in the outbox.
func (n *Node) count(e *pending) {
	if !e.counted {
		e.counted = true
		n.outCount++
		n.outBytes += e.m.Size()
	}
}

// uncount does so no more: it is with others, or in custody here, which has limits of its own. While this node is alone it is there
// for as long as that lasts, and must not keep clients waiting.
func (n *Node) uncount(e *pending) {
	if e.counted {
		e.counted = false
		n.outCount--
		n.outBytes -= e.m.Size()
	}
}

// ownRecord is what has to be known of a message of this node after a restart; nil where nothing has.
func (n *Node) ownRecord(e *pending) *pb.StoredCustody {
	if e.m.QoS == 0 {
		return nil
	}
	return &pb.StoredCustody{Place: e.r.pb, Own: true, Served: e.served, AtMs: n.wall.Add(e.at - n.now).UnixMilli()}
}

// freed is a message that others keep, and that is gone here.
type freed struct {
	s   *sending
	seq uint64
}

// letGo notes that a message is others', once that is safe: from then on it is not sent again, whatever happens, and what tells
// it from another may be forgotten everywhere.
func (n *Node) letGo(s *sending, seq uint64) {
	n.freed = append(n.freed, freed{s, seq})
}

// flushFreed has what others keep released when that is safe.
func (n *Node) flushFreed() {
	if len(n.freed) == 0 {
		return
	}
	batch := n.freed
	n.freed, n.spareFreed = n.spareFreed[:0], nil
	n.safeInTime(func() {
		for _, f := range batch {
			f.s.kept.add(f.seq)
			n.releaseKept(f.s)
		}
		clear(batch)
		n.spareFreed = batch[:0]
	})
}

// releaseKept has what others keep released, here too.
func (n *Node) releaseKept(s *sending) {
	s.releaseKept()
	if t := n.streams[s.id]; t != nil { // its rendezvous may be here
		t.release(s.release)
		n.enliven(t)
	}
}

// releaseKept notes that everything before the first number that others do not keep is theirs, or the first that some are to be told of.
func (s *sending) releaseKept() {
	if len(s.kept) > 0 && s.kept[0].from == s.release+1 {
		s.release = max(s.release, min(s.kept[0].to, s.firstUntold()-1))
		s.kept.trim(s.release)
	}
}
