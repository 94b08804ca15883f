package core

import (
	"maps"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// Interest is what the subscribers of one node want of one filter.
type Interest struct {
	Groups []GroupInterest
	Hold   time.Duration // the longest session expiry behind it
	Plain  bool          // there are subscribers outside of shared groups
	QoS    byte          // the highest that any of them asked for
	// Sessions are among them that were at nodes which cannot be reached.
	Sessions []SessionInterest
}

// SessionInterest is a session that was at another node: what that has not done with it wants to have.
type SessionInterest struct {
	Name     string // of the session; a topic
	From     string // peer ID in bytes
	Database uint64 // the one that it had there; 0: any
}

// group is what the messages for the session alone are addressed to.
func (s SessionInterest) group() proto.Group { return proto.Group{Name: sessionGroup, Filter: s.Name} }

// SessionGroup returns what core.Delivery names a session by that it is for alone.
func SessionGroup(name string) proto.Group { return SessionInterest{Name: name}.group() }

// sessionGroup is the name of the group that a session is by itself. Its filter is a topic that nobody can subscribe to.
const sessionGroup = "session"

// GroupInterest is a node's share in a shared subscription.
type GroupInterest struct {
	Name    string
	Members int
	QoS     byte
	Online  bool // Members counts members with a connection
}

func (i *Interest) zero() bool { return !i.Plain && len(i.Groups) == 0 }

func (i *Interest) pb(filter string) *pb.Interest {
	p := &pb.Interest{Filter: filter, Plain: i.Plain, Qos: uint32(i.QoS), HoldS: uint32(min(i.Hold, MaxHold) / time.Second)} //nolint:gosec // bounded
	for _, g := range i.Groups {
		p.Groups = append(p.Groups, &pb.GroupInterest{Name: g.Name, Qos: uint32(g.QoS), Members: uint32(g.Members), Online: g.Online}) //nolint:gosec // a count
	}
	for _, s := range i.Sessions {
		p.Sessions = append(p.Sessions, &pb.SessionInterest{Name: s.Name, From: []byte(s.From), Database: s.Database})
	}
	return p
}

func interestOf(p *pb.Interest) *Interest {
	i := &Interest{Plain: p.GetPlain(), QoS: byte(min(p.GetQos(), 2)), Hold: min(time.Duration(p.GetHoldS())*time.Second, MaxHold)}
	for _, g := range p.GetGroups() {
		if !validGroup(g.GetName()) {
			continue
		}
		i.Groups = append(i.Groups, GroupInterest{Name: g.GetName(), QoS: byte(min(g.GetQos(), 2)),
			Members: int(min(g.GetMembers(), 1<<20)), Online: g.GetOnline()})
	}
	for _, s := range p.GetSessions() {
		if topic.ValidName(s.GetName(), topic.Limits{}) == nil && len(s.GetFrom()) > 0 && len(s.GetFrom()) <= proto.MaxNodeSize {
			i.Sessions = append(i.Sessions, SessionInterest{s.GetName(), string(s.GetFrom()), s.GetDatabase()})
		}
	}
	return i
}

// validGroup reports whether a shared subscription can have a name. A message for one that cannot is malformed to whoever it
// is sent to: a name that is taken from one peer must not end the stream to another.
func validGroup(name string) bool { return topic.ValidName(name, topic.Limits{Levels: 1}) == nil }

// registration is what one node wants at one location.
type registration struct {
	owner     NodeID
	seq       uint64
	interests map[string]*Interest
	refreshed time.Duration
	coming    *coming // the parts of the next that have come
	full      bool    // some interests are beyond the limit, and do not stand
}

// coming is a registration that comes in parts, as far as it has come.
type coming struct {
	seq       uint64
	part      uint32
	mentioned map[string]bool
}

func (r *registration) groups() bool {
	for _, i := range r.interests {
		if len(i.Groups) > 0 {
			return true
		}
	}
	return false
}

// hold is how long the registration stands without being refreshed, beyond MinHold; 0: no longer.
func (r *registration) hold() time.Duration {
	h := time.Duration(0)
	for _, i := range r.interests {
		h = max(h, i.Hold)
	}
	return min(h, MaxHold)
}

func (r *registration) pb() []*pb.Registration {
	return wholeRegistration(r.owner, r.seq, r.seq, r.interests)
}

// wholeRegistration is everything that a node wants at a location, in parts that fit a frame.
func wholeRegistration(owner NodeID, seq, stood uint64, interests map[string]*Interest) []*pb.Registration {
	p := &pb.Registration{Owner: []byte(owner), Seq: seq, Stood: stood}
	parts := []*pb.Registration{p}
	size := 0
	for _, f := range sortedKeys(interests) {
		if size > proto.SoftFrame {
			p.More = true
			p, size = &pb.Registration{Owner: []byte(owner), Seq: seq, Stood: stood, Part: p.GetPart() + 1}, 0
			parts = append(parts, p)
		}
		i := interests[f].pb(f)
		p.Interests = append(p.Interests, i)
		size += interestSize(i)
	}
	return parts
}

// interestSize is about how many bytes an interest has on the wire.
func interestSize(i *pb.Interest) int {
	size := 16 + len(i.GetFilter())
	for _, g := range i.GetGroups() {
		size += 16 + len(g.GetName())
	}
	for _, s := range i.GetSessions() {
		size += 25 + len(s.GetName()) + len(s.GetFrom())
	}
	return size
}

func registrationSize(r *pb.Registration) int {
	size := 64
	for _, i := range r.GetInterests() {
		size += interestSize(i)
	}
	return size
}

// batches puts registrations together as they fit into frames, in their order.
func batches(all []*pb.Registration) [][]*pb.Registration {
	var b [][]*pb.Registration
	size := proto.SoftFrame
	for _, r := range all {
		if by := registrationSize(r); size+by > proto.SoftFrame {
			b, size = append(b, nil), by
		} else {
			size += by
		}
		b[len(b)-1] = append(b[len(b)-1], r)
	}
	return b
}

// put puts a value into a map, which is made where there is none.
func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// table is the registrations that stand at a place, of one's own or inherited.
type table struct {
	owners  map[NodeID]*registration
	changed []string // filters that the last registration that was applied has changed
	tree    topic.Tree[NodeID, *Interest]
}

// verdict is what came of applying a registration.
type verdict int

const (
	applied verdict = iota // the table changed
	partly                 // it did, and the rest of the registration is still to come
	known                  // it was there already, or something newer
	unknown                // it is a change of something that is not here
	refused                // it is no registration for this place, or too large
)

// apply takes over a registration, or the change of one. It reports the interests that are new.
func (t *table) apply(r *pb.Registration, limit int, now time.Duration) (verdict, []string) {
	owner := NodeID(r.GetOwner())
	if !owner.valid() || r.GetSeq() == 0 {
		return refused, nil
	}
	have := t.owners[owner]
	if have != nil && have.seq >= r.GetSeq() {
		have.refreshed = now
		return known, nil
	}
	if r.GetBase() != 0 && (have == nil || have.seq != r.GetBase()) {
		return unknown, nil
	}
	if p := r.GetPart(); p > 0 && (have == nil || have.coming == nil || have.coming.seq != r.GetSeq() || have.coming.part+1 != p) {
		return unknown, nil
	}
	for _, i := range r.GetInterests() {
		if topic.ValidFilter(i.GetFilter(), topic.Limits{}) != nil {
			return refused, nil
		}
	}
	if have == nil {
		have = &registration{owner: owner, interests: map[string]*Interest{}}
		put(&t.owners, owner, have)
	}
	have.refreshed = now
	t.changed = t.changed[:0]
	mentioned := map[string]bool{}
	if r.GetPart() > 0 {
		mentioned = have.coming.mentioned
	} else if r.GetBase() == 0 {
		have.full = false
	}
	var added []string
	for _, i := range r.GetInterests() {
		filter, interest := i.GetFilter(), interestOf(i)
		mentioned[filter] = true
		t.changed = append(t.changed, filter)
		switch {
		case interest.zero():
			delete(have.interests, filter)
			t.tree.Delete(filter, owner)
		case have.interests[filter] != nil || len(have.interests) < limit:
			have.interests[filter] = interest
			t.tree.Set(filter, owner, interest)
			added = append(added, filter)
		default:
			have.full = true
		}
	}
	if r.GetMore() {
		have.coming = &coming{r.GetSeq(), r.GetPart(), mentioned}
		return partly, added
	}
	have.seq, have.coming = r.GetSeq(), nil
	if r.GetBase() == 0 {
		for _, f := range sortedKeys(have.interests) {
			if !mentioned[f] {
				t.changed = append(t.changed, f)
				delete(have.interests, f)
				t.tree.Delete(f, owner)
			}
		}
	}
	return applied, added
}

// drop forgets an owner.
func (t *table) drop(owner NodeID) {
	r := t.owners[owner]
	if r == nil {
		return
	}
	for f := range r.interests {
		t.tree.Delete(f, owner)
	}
	delete(t.owners, owner)
}

// merge takes over what another table has that is newer.
func (t *table) merge(o *table) {
	for owner, r := range o.owners {
		if have := t.owners[owner]; have != nil && have.seq >= r.seq {
			continue
		}
		t.drop(owner)
		own := *r
		own.interests = maps.Clone(r.interests)
		put(&t.owners, owner, &own)
		for f, i := range own.interests {
			t.tree.Set(f, owner, i)
		}
	}
}

// have lists what stands, for a comparison with another's.
func (t *table) have() []*pb.Seq {
	var s []*pb.Seq
	for _, o := range sortedKeys(t.owners) {
		s = append(s, &pb.Seq{Owner: []byte(o), Seq: t.owners[o].seq})
	}
	return s
}

// missing returns the registrations that somebody who has these lacks, as they fit into frames. fresh tells those of which nothing that the
// other lacks stood before: it has not missed them.
func (t *table) missing(have []*pb.Seq, fresh func(owner NodeID, has uint64) bool) [][]*pb.Registration {
	theirs := map[NodeID]uint64{}
	for _, h := range have {
		theirs[NodeID(h.GetOwner())] = h.GetSeq()
	}
	var m []*pb.Registration
	for _, o := range sortedKeys(t.owners) {
		if r := t.owners[o]; r.seq > theirs[o] {
			stood := r.seq
			if fresh(o, theirs[o]) {
				stood = theirs[o]
			}
			m = append(m, wholeRegistration(o, r.seq, stood, r.interests)...)
		}
	}
	return batches(m)
}
