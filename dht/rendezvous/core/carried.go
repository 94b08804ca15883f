package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// A session that goes to another node takes along what waits for it. That is in custody until it is done, which only the other node will
// know. So the node that it comes from says where it has gone, and is done with it when that is known to whoever has custody: should the
// other node be destroyed, the session finds it where it goes on.

// carryTime is for how long who has custody of messages is waited for that can't be reached. Another has it by then, or it is not told.
const carryTime = 3 * LeaseTime

// maxMoved is how many messages holders of copies are told of in one frame.
const maxMoved = proto.SoftFrame / 256

// Carried says that another node has taken over messages of this node's broker, together with the session that they wait for: it
// says when they are done. to is its peer ID in bytes, name what a SessionInterest calls the session, hold for how long they are to be
// kept while the node is out of reach. done is called when those who wait to hear that the messages are done know of it, or can't be told:
// then Done may be called here.
func (n *Node) Carried(ids []Identity, to, name string, hold time.Duration, done func()) {
	c := &carrying{ids: ids, to: to, at: n.upAs(to), session: SessionInterest{Name: name}.group(), until: n.now + carryTime, done: done}
	for _, id := range ids {
		if r := n.epochs[id.Epoch]; r != nil {
			o := r.carriedWith(c)
			if o == nil {
				o = &carriedTo{to: to, session: c.session, hold: hold}
				r.carried = append(r.carried, o)
			}
			if o.at == "" {
				o.at = c.at
			}
			o.numbers.add(id.Seq)
		}
	}
	n.tellCarried(c)
}

// carriedTo are the messages of an epoch that another node has taken over with a session. Whoever asks for them later, since it had a copy and
// was away, is told too.
type carriedTo struct {
	to      string // peer ID
	at      NodeID // the node with that, which is another one where it comes with a new database; "": not known yet
	session proto.Group
	hold    time.Duration
	numbers spans
	told    map[NodeID]*confidence
}

// carriedWith returns what of an epoch has gone where some messages are going; nil for nothing.
func (r *received) carriedWith(c *carrying) *carriedTo {
	for _, o := range r.carried {
		if o.to == c.to && o.session == c.session && (o.at == c.at || o.at == "" || c.at == "") {
			return o
		}
	}
	return nil
}

func (r *received) trimCarried(upto uint64) {
	r.carried = slices.DeleteFunc(r.carried, func(o *carriedTo) bool {
		o.numbers.trim(upto)
		return len(o.numbers) == 0
	})
}

// answerDone tells a node that this one is done with a message, and before that where it has gone, if it has; r, what is known of its epoch, may
// be nil.
func (n *Node) answerDone(node NodeID, r *received, id Identity) {
	if r != nil {
		for _, o := range r.carried {
			if o.at == "" {
				o.at = n.upAs(o.to)
			}
			if o.at != "" && o.numbers.has(id.Seq) && !n.knows(node, o, id.Seq) {
				n.tellWhere(node, o.at, o.session, o.hold, []*pb.Ranges{{Epoch: id.Epoch, Ranges: []*pb.Range{{From: id.Seq, To: id.Seq}}}}, nil)
			}
		}
	}
	n.doneWith(node, id)
}

// knows reports whether a node has been told where a message has gone.
func (n *Node) knows(node NodeID, o *carriedTo, seq uint64) bool {
	t := o.told[node]
	return t != nil && t.ups == n.upsOf(node) && t.numbers.has(seq)
}

// upsOf is how often a stream to a node has come up.
func (n *Node) upsOf(node NodeID) int {
	if p := n.peers[node]; p != nil {
		return p.ups
	}
	return 0
}

// tellWhere tells a node where messages have gone, and calls answered, unless that is nil, when it knows.
func (n *Node) tellWhere(node, to NodeID, session proto.Group, hold time.Duration, messages []*pb.Ranges, answered func(ok bool)) {
	frame := func(op uint64) any {
		return &pb.Carried{Op: op, Node: []byte(to), Session: &pb.Group{Name: session.Name, Filter: session.Filter},
			HoldS: uint32(min(hold, MaxHold) / time.Second), Messages: messages} //nolint:gosec // bounded
	}
	switch {
	case node == n.self:
		n.carry(n.self, to, session, hold, messages, func() {
			if answered != nil {
				answered(true)
			}
		})
	case answered == nil:
		n.send(node, frame(0))
	default:
		n.request(node, frame, answered)
	}
}

// carrying are messages that another node has taken over, of which those are being told who wait to hear that they are done.
type carrying struct {
	ids     []Identity
	to      string // as in carriedTo, and at
	at      NodeID
	session proto.Group
	until   time.Duration
	done    func()
}

// tellCarried tells those who have not been told, until there is nobody else.
func (n *Node) tellCarried(c *carrying) {
	if c.at == "" {
		c.at = n.upAs(c.to)
	}
	to := c.at
	var hold time.Duration
	all, waits := map[NodeID]*acks{}, to == ""
	for _, id := range c.ids {
		r := n.epochs[id.Epoch]
		if r == nil || r.open.get(id.Seq).left == 0 {
			continue
		}
		o := r.carriedWith(c)
		if o == nil || !o.numbers.has(id.Seq) { // it has come back
			continue
		}
		hold = o.hold
		nodes := r.waiting(r.open.get(id.Seq))
		waits = waits || len(nodes) == 0 // it came here like this itself, and who has custody is still to hear of that
		for _, node := range nodes {
			switch {
			case n.knows(node, o, id.Seq):
			case to != "" && (node == n.self || n.inReach(node)):
				if all[node] == nil {
					all[node] = new(acks)
				}
				all[node].add(id)
				t := o.told[node]
				if t == nil || t.ups != n.upsOf(node) {
					t = &confidence{ups: n.upsOf(node)}
					put(&o.told, node, t)
				}
				t.numbers.add(id.Seq)
			case !n.destroyed(node):
				waits = true
			}
		}
	}
	switch {
	case len(all) == 0 && !waits, n.now >= c.until:
		n.call(c.done)
		return
	case len(all) == 0:
		n.timers.set(n.now+queryPause, func() { n.tellCarried(c) })
		return
	}
	g := &gather{n: n, left: 1}
	for _, node := range sortedKeys(all) {
		messages := all[node].take()
		g.left++
		n.tellWhere(node, to, c.session, hold, messages, func(ok bool) {
			if ok {
				g.one()
				return
			}
			for _, rs := range messages {
				if r := n.epochs[rs.GetEpoch()]; r != nil && r.carriedWith(c) != nil {
					delete(r.carriedWith(c).told, node)
				}
			}
			n.timers.set(n.now+queryPause, g.one)
		})
	}
	g.wait(func() { n.tellCarried(c) })
	g.one()
}

// upAs returns the name of a node that a stream is up to, or this node's, by its peer ID; "" where there is none.
func (n *Node) upAs(peer string) NodeID {
	if peer == n.self.Peer() {
		return n.self
	}
	for _, p := range n.ordered {
		if p.up && p.id.Peer() == peer {
			return p.id
		}
	}
	return ""
}

func (n *Node) receiveCarried(p *peer, f *pb.Carried) {
	to := NodeID(f.GetNode())
	g, ok := groupOf(f.GetSession())
	if !ok || g.Name != sessionGroup || !to.valid() {
		n.malformed("Carried")
		n.refuse(p.id, f.GetOp())
		return
	}
	n.carry(p.id, to, g, holdOf(f.GetHoldS()), f.GetMessages(), func() { n.ackSafe(p.id, f.GetOp()) })
}

// carry notes that of messages which are in custody here what was for a session at a node is at another now, and calls done when those
// who have copies know that too.
func (n *Node) carry(from, to NodeID, g proto.Group, hold time.Duration, messages []*pb.Ranges, done func()) {
	copies := map[NodeID][]*pb.CopyDone_Moved{}
	var all []*entry
	for _, rs := range messages {
		s := n.streams[rs.GetEpoch()]
		if s == nil {
			continue
		}
		s.eachEntry(rs.GetRanges(), func(e *entry) {
			sh := share{node: to, groups: []proto.Group{g}, hold: hold, turn: e.turn(g) + 1, stored: !e.copy}
			if e.doneFor(from) || e.isAt(to, g) || !n.moved(e, g, sh) || e.copy {
				return
			}
			if _, told := e.s.told[to]; !told {
				put(&e.s.told, to, e.s.low)
			}
			all = append(all, e)
			for _, c := range e.copies {
				if n.inReach(c) {
					copies[c] = append(copies[c], movedToPB(e.id, &sh, g))
				}
			}
		})
	}
	w := &gather{n: n, left: 1}
	for _, c := range sortedKeys(copies) {
		for moved := range slices.Chunk(copies[c], maxMoved) {
			w.ask(c, func(op uint64) any { return &pb.CopyDone{Op: op, Moved: moved} })
		}
	}
	n.redeliver(all, to) // which asks it to say when they are done
	w.wait(done)
	w.one()
}

// isAt reports whether what a message is for a group went to a node last, which has said that it is done with it, or is to. Two nodes that
// have each taken over a session from the other tell of both whenever they are asked.
func (e *entry) isAt(node NodeID, g proto.Group) bool {
	return slices.ContainsFunc(e.shares, func(s share) bool {
		return s.node == node && slices.Contains(s.groups, g) && (!s.done || s.turn > 0 && s.turn == e.turn(g))
	})
}

// TakeUp says that this node's broker has taken over a message from another node, together with the session that it waits for: until Done
// is called once more for it, it is not done. The node that had it has it until that is safe.
func (n *Node) TakeUp(id Identity, name string) {
	r := n.received(id.Epoch)
	if id.Seq <= r.low { // it is over
		return
	}
	g := SessionInterest{Name: name}.group()
	r.group(g).add(id.Seq)
	for _, o := range r.carried {
		if o.session == g { // and has come back
			o.numbers.remove(id.Seq)
		}
	}
	u := r.open.get(id.Seq)
	u.left++
	r.open.put(id.Seq, u)
}
