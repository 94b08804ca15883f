package core

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// What a node has to know after a restart is in its journal, beside the messages in custody and those that are retained: the
// nodes that it has met, the locations where something stands, and what is registered there.

// Kinds of records; a key begins with one.
const (
	recordChild    = 'c' // location, depth, prefix of the place below
	recordInterest = 'i' // location, owner, filter
	recordLocation = 'l' // location
	recordOwner    = 'o' // location, owner
	recordPeer     = 'p' // node
)

func peerKey(id NodeID) string { return string(recordPeer) + string(id) }

func locationKey(at dht.Location) string { return string(recordLocation) + string(at[:]) }

func ownerKey(at dht.Location, owner NodeID) string {
	return string(recordOwner) + string(at[:]) + string(owner)
}

func interestKey(at dht.Location, owner NodeID, filter string) string {
	return string(recordInterest) + string(at[:]) + string([]byte{byte(len(owner))}) + string(owner) + filter //nolint:gosec // at most proto.MaxNodeSize
}

func childKey(at dht.Location, child Place) string {
	return string(recordChild) + string(at[:]) + string(binary.BigEndian.AppendUint16(nil, uint16(child.Depth))) + child.Prefix //nolint:gosec // a count of levels
}

// savePeer keeps a node that was met, or that one is gone.
func (n *Node) savePeer(p *peer) {
	if p.seen || p.gone {
		n.cfg.Journal.Put(peerKey(p.id), &pb.StoredPeer{Known: p.known(), Replaced: p.gone && !p.forgotten})
	}
}

// stands has a location kept over a restart: there is something at it.
func (n *Node) stands(l *location) {
	if !l.stands {
		l.stands = true
		n.saveLocation(l)
	}
}

// saveLocation keeps a location's set, and what this node has agreed to for the next.
func (n *Node) saveLocation(l *location) {
	if !l.stands || l.set.Version == 0 { // it is kept when it has a set
		return
	}
	r := &pb.StoredLocation{Place: l.place.pb(), Set: l.set.pb()}
	if l.promised != (ballot{}) {
		r.Promised = l.promised.pb()
	}
	if l.accepted.members != nil {
		r.Accepted, r.AcceptedMembers = l.accepted.ballot.pb(), idsToBytes(l.accepted.members)
	}
	n.cfg.Journal.Put(locationKey(l.at), r)
}

// forgetLocation takes a location out of the journal.
func (n *Node) forgetLocation(l *location) {
	for _, o := range sortedKeys(l.owners) {
		n.forgetOwner(l, o)
	}
	for _, c := range l.sortedChildren() {
		n.cfg.Journal.Delete(childKey(l.at, c))
	}
	if l.stands { // what is at it is read with it
		l.stands = false
		n.cfg.Journal.Delete(locationKey(l.at))
	}
}

// saveOwner keeps what has changed of a registration.
func (n *Node) saveOwner(l *location, owner NodeID, filters []string) {
	n.stands(l)
	r := l.owners[owner]
	for _, f := range filters {
		if i := r.interests[f]; i != nil {
			n.cfg.Journal.Put(interestKey(l.at, owner, f), i.pb(f))
		} else {
			n.cfg.Journal.Delete(interestKey(l.at, owner, f))
		}
	}
	n.cfg.Journal.Put(ownerKey(l.at, owner), &pb.StoredOwner{Owner: []byte(owner), Seq: r.seq}) // it says that those are there
}

// apply takes over a registration at a location.
func (n *Node) apply(l *location, r *pb.Registration) (verdict, []string) {
	v, added := l.table.apply(r, n.cfg.Limits.Registrations, n.now)
	if v == applied || v == partly {
		n.saveOwner(l, NodeID(r.GetOwner()), l.changed)
		l.changed = nil
	}
	return v, added
}

// forgetOwner takes a registration out of the journal.
func (n *Node) forgetOwner(l *location, owner NodeID) {
	r := l.owners[owner]
	if r == nil {
		return
	}
	n.cfg.Journal.Delete(ownerKey(l.at, owner))
	for _, f := range sortedKeys(r.interests) {
		n.cfg.Journal.Delete(interestKey(l.at, owner, f))
	}
}

// restore takes up what an earlier life of this node has left.
func (n *Node) restore() {
	records := map[byte]map[string][]byte{}
	n.cfg.Journal.Load(func(key string, record []byte) {
		if records[key[0]] == nil {
			records[key[0]] = map[string][]byte{}
		}
		records[key[0]][key[1:]] = slices.Clone(record)
	})
	for _, key := range sortedKeys(records[recordPeer]) {
		n.restorePeer(records[recordPeer][key])
	}
	for _, key := range sortedKeys(records[recordLocation]) {
		n.restoreLocation(records[recordLocation][key])
	}
	for _, key := range sortedKeys(records[recordOwner]) {
		n.restoreOwner(key, records[recordOwner][key])
	}
	for _, key := range sortedKeys(records[recordInterest]) {
		n.restoreInterest(key, records[recordInterest][key])
	}
	for _, key := range sortedKeys(records[recordChild]) {
		n.restoreChild(key)
	}
	n.restoreReceived() // before anything is delivered
	all := n.restoreCopies()
	for _, l := range n.sortedLocations() {
		n.eachRetained(l, func(k *Kept) { n.seeStamp(k.Stamp) })
		n.review(l)
	}
	n.restoreOutbox(all)
}

// unreadable counts a record that says nothing. It is left alone.
func (n *Node) unreadable(what string, err error) {
	n.stats.Unreadable++
	n.cfg.Log.Error("a record of the journal can't be read; what it stood for is lost here", "record", what, "error", err)
}

func (n *Node) restorePeer(record []byte) {
	var r pb.StoredPeer
	err := protobuf.Unmarshal(record, &r)
	id := NodeID(r.GetKnown().GetNode())
	if err != nil || !id.valid() || id == n.self || n.peers[id] != nil {
		n.unreadable("peer", err)
		return
	}
	p := n.addPeer(id)
	p.restored = true
	p.seen, p.addresses, p.life, p.left = true, bounded(r.GetKnown().GetAddresses()), r.GetKnown().GetLife(), r.GetKnown().GetLeft()
	p.forgotten = r.GetKnown().GetGone()
	p.gone = p.forgotten || r.GetReplaced()
	if !p.left && !p.gone && !n.large() {
		n.out = append(n.out, Effect{Kind: Dial, To: id, Addresses: p.addresses})
	}
}

func (n *Node) restoreLocation(record []byte) {
	var r pb.StoredLocation
	err := protobuf.Unmarshal(record, &r)
	place, ok := placeOf(r.GetPlace())
	set, fits := setOf(r.GetSet(), place.Location())
	if err != nil || !ok || !fits || n.locations[place.Location()] != nil {
		n.unreadable("location", err)
		return
	}
	l := n.newLocation(place, place.Location())
	if l == nil {
		return
	}
	l.phase, l.set, l.stands, l.blank = standby, set, true, map[NodeID]bool{}
	n.brings = true
	if r.GetPromised() != nil {
		l.promised = ballotOf(r.GetPromised())
	}
	if members, ok := idsOf(r.GetAcceptedMembers(), l.at); ok {
		l.accepted = proposal{ballotOf(r.GetAccepted()), members}
	}
	n.learnRoute(place, set)
}

// located splits a key that begins with a location.
func (n *Node) located(key string) (l *location, rest string) {
	if len(key) < len(dht.Location{}) {
		return nil, ""
	}
	return n.locations[dht.Location([]byte(key[:len(dht.Location{})]))], key[len(dht.Location{}):]
}

func (n *Node) restoreOwner(key string, record []byte) {
	var r pb.StoredOwner
	err := protobuf.Unmarshal(record, &r)
	l, _ := n.located(key)
	owner := NodeID(r.GetOwner())
	switch {
	case err != nil || l == nil && n.stats.Unreadable > 0 || !owner.valid():
		n.unreadable("registration", err)
		return
	case l == nil: // its location's record was still to be written, when that had a set: others have it
		n.cfg.Journal.Delete(string(recordOwner) + key)
		return
	}
	put(&l.owners, owner, &registration{owner: owner, seq: r.GetSeq(), interests: map[string]*Interest{}, refreshed: n.now})
}

func (n *Node) restoreInterest(key string, record []byte) {
	var p pb.Interest
	err := protobuf.Unmarshal(record, &p)
	l, rest := n.located(key)
	switch {
	case err == nil && l == nil && n.stats.Unreadable == 0: // as with its owner
		n.cfg.Journal.Delete(string(recordInterest) + key)
		return
	case err != nil || l == nil || len(rest) < 1 || len(rest) < 1+int(rest[0]):
		n.unreadable("interest", err)
		return
	}
	owner := NodeID(rest[1 : 1+rest[0]])
	r, i := l.owners[owner], interestOf(&p)
	if r == nil || i.zero() { // its owner's record was still to be written
		n.cfg.Journal.Delete(string(recordInterest) + key)
		return
	}
	r.interests[p.GetFilter()] = i
	l.tree.Set(p.GetFilter(), owner, i)
}

func (n *Node) restoreChild(key string) {
	l, rest := n.located(key)
	if l == nil || len(rest) < 2 {
		return
	}
	child := Place{rest[2:], int(binary.BigEndian.Uint16([]byte(rest[:2])))}
	put(&l.children, child, n.now)
}

// custody is a message in custody from an earlier life.
type custody struct {
	id Identity
	m  *proto.Message
	r  *pb.StoredCustody
}

// restoreCopies takes up the messages that are in custody here and at another member, and returns all that are in custody, in
// the order in which they came.
func (n *Node) restoreCopies() (all []custody) {
	first := map[uint64]int64{} // when the first of an epoch came
	n.cfg.Custody.Load(func(id Identity, m *proto.Message, r *pb.StoredCustody) {
		all = append(all, custody{id, m, r})
		if at, ok := first[id.Epoch]; !ok || r.GetAtMs() < at {
			first[id.Epoch] = r.GetAtMs()
		}
	})
	slices.SortFunc(all, func(a, b custody) int {
		return cmp.Or(cmp.Compare(first[a.id.Epoch], first[b.id.Epoch]), cmp.Compare(a.id.Epoch, b.id.Epoch), cmp.Compare(a.id.Seq, b.id.Seq))
	})
	for _, k := range all {
		c := k.r.GetCopy()
		if c == nil {
			continue
		}
		place, ok := placeOf(k.r.GetPlace())
		if !ok || k.id != (Identity{c.GetEpoch(), c.GetSeq()}) {
			n.unreadable("message in custody", nil)
			continue
		}
		if l := n.locations[place.Location()]; l != nil { // else it was about to become a member: who gave it that has it still
			n.takeCopy(l, c, k.m, "")
		}
		if s := n.streams[k.id.Epoch]; !k.r.GetOwn() && (s == nil || s.entries.get(k.id.Seq) == nil) {
			n.cfg.Custody.Delete(k.id) // it was over
		}
	}
	return all
}

// restoreOutbox takes up the messages of this node's clients that nobody else is known to keep. Their epochs go on, for them
// alone.
func (n *Node) restoreOutbox(all []custody) {
	for _, k := range all {
		if !k.r.GetOwn() {
			continue
		}
		place, ok := placeOf(k.r.GetPlace())
		if prefix, depth := dht.Prefix(k.m.Topic, place.Depth); !ok || place != (Place{prefix, depth}) {
			n.unreadable("message in the outbox", nil)
			continue
		}
		n.restorePending(n.route(place), k.id, k.m, k.r)
	}
	for _, epoch := range sortedKeys(n.mine) {
		s := n.mine[epoch]
		next := uint64(1)
		for _, seq := range s.open.sorted() {
			if seq > next {
				s.kept = append(s.kept, span{next, seq - 1})
			}
			next = seq + 1
		}
		s.releaseKept()
	}
}

// restoreReceived takes up what this node's broker has, and has had.
func (n *Node) restoreReceived() {
	n.cfg.Received.Load(func(id Identity, g proto.Group, open bool) {
		r := n.received(id.Epoch)
		if g == (proto.Group{}) {
			r.plain.add(id.Seq)
		} else {
			r.group(g).add(id.Seq)
		}
		if !open {
			return
		}
		u := r.open.get(id.Seq)
		u.stored = u.stored || u.left == 0
		u.left++
		r.open.put(id.Seq, u)
	})
}

func (n *Node) restorePending(r *route, id Identity, m *proto.Message, c *pb.StoredCustody) {
	s := n.mine[id.Epoch]
	if s == nil {
		s = &sending{id: id.Epoch, born: n.now, used: n.now}
		n.mine[id.Epoch] = s
		r.old = append(r.old, s)
	}
	age := time.Duration(0)
	if waited := n.wall.UnixMilli() - c.GetAtMs(); waited > 0 && n.hasTime() {
		age = min(time.Duration(waited)*time.Millisecond, MaxHold)
	}
	e := &pending{m: m, r: r, epoch: s, seq: id.Seq, at: n.now - age, served: c.GetServed(), detour: !c.GetServed(), accepted: true, restored: true}
	if e.detour {
		r.detours++
		n.detours++
	}
	s.seq = max(s.seq, id.Seq)
	if e.served {
		s.served.add(id.Seq)
	}
	s.open.put(id.Seq, e)
	n.count(e)
	r.out.push(e)
	n.use(r)
}
