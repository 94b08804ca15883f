package dht

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// reason says why a peer is dialled, the weakest first.
type reason uint8

const (
	// heard: a neighbour or mDNS named it. Given up after maxHeardTries, since anybody may name anything.
	heard reason = iota
	// met: connected before. Tried for good, at longer and longer intervals.
	met
	// asked: Dial was called. Tried until connected.
	asked
	// bootstrap: configured. Tried whenever it is not connected.
	bootstrap
)

const (
	firstWait     = 500 * time.Millisecond
	maxHeardTries = 6
	// doubtfulTries is how many tries follow at once one that looked as if it would never work.
	doubtfulTries = 4
	// mayBeDialled is how much longer the node with the larger ID waits before it dials one that it has just
	// lost or heard of, so that the two do not dial each other at once and end up with two connections.
	mayBeDialled = 300 * time.Millisecond
	// freshFor is how long a peer that can't be reached counts as part of the swarm, when the size of the
	// swarm is estimated.
	freshFor = time.Hour
	// For lostFor, a peer that was lost is tried every soon at the latest: a cable that was pulled, or a router that starts again, is
	// back before long.
	lostFor = 10 * time.Minute
	soon    = 5 * time.Second
)

// maxWait bounds the interval between two tries.
func (r reason) maxWait() time.Duration {
	switch r {
	case bootstrap:
		return 15 * time.Second
	case asked:
		return time.Minute
	default:
		return 5 * time.Minute
	}
}

// target is a peer that is to be dialled.
type target struct {
	info    peer.AddrInfo
	why     reason
	tries   int
	due     time.Time
	since   time.Time // last heard of or connected
	lost    time.Time // when it was connected last; 0: it was not
	up      bool      // connected: of those that are directly, only bootstrap targets stay, to be dialled again
	relayed bool      // connected through relays alone: tried directly now and then
	busy    bool      // being dialled
	failed  string    // the diagnosis of the last failure
	logged  []string  // those that were logged since it was last connected
	doubts  int       // failures since then that may mean that it will never work
}

// schedule decides whom to dial and when. It has no clock and does nothing itself; dialer drives it.
type schedule struct {
	self    peer.ID
	small   int
	rnd     func(time.Duration) time.Duration // a random share of it
	targets map[peer.ID]*target
	hurried time.Time // when all were made due because one is there again
}

func newSchedule(self peer.ID, small int, rnd func(time.Duration) time.Duration) *schedule {
	return &schedule{self: self, small: small, rnd: rnd, targets: make(map[peer.ID]*target)}
}

// add asks for a peer. Its addresses replace what was known, or are added where that is as good. It reports
// false where the peer is this node, has no addresses or there is no room.
func (s *schedule) add(now time.Time, info peer.AddrInfo, why reason) bool {
	if info.ID == s.self || info.ID == "" || len(info.Addrs) == 0 {
		return false
	}
	t := s.targets[info.ID]
	if t == nil {
		if len(s.targets) >= maxTargets && !s.makeRoom(why) {
			return false
		}
		t = &target{info: peer.AddrInfo{ID: info.ID}, why: why, due: now.Add(s.headStart(info.ID, why))}
		s.targets[info.ID] = t
	}
	if why > t.why {
		t.why = why
		t.due = minTime(t.due, now)
		t.tries = 0
	}
	t.since = now
	t.info.Addrs = mergeAddrs(info.Addrs, t.info.Addrs)
	return true
}

// headStart is how long to leave the peer the first move.
func (s *schedule) headStart(id peer.ID, why reason) time.Duration {
	if why == heard && s.self > id {
		return mayBeDialled
	}
	return 0
}

// mergeAddrs puts the newer addresses first and bounds them.
func mergeAddrs(newer, older []ma.Multiaddr) []ma.Multiaddr {
	out := slices.Clone(newer)
	for _, a := range older {
		if !slices.ContainsFunc(out, a.Equal) {
			out = append(out, a)
		}
	}
	return someAddrs(out, maxAddrs)
}

// makeRoom drops the target that matters least, if it matters less than why.
func (s *schedule) makeRoom(why reason) bool {
	var worst *target
	for _, t := range s.targets {
		if t.busy || t.why >= why && t.why != heard || t.why > why {
			continue
		}
		if worst == nil || t.why < worst.why || t.why == worst.why && t.tries > worst.tries {
			worst = t
		}
	}
	if worst == nil {
		return false
	}
	delete(s.targets, worst.info.ID)
	return true
}

func (s *schedule) forget(id peer.ID) { delete(s.targets, id) }

// connected notes that a peer is there, by whoever's dial.
func (s *schedule) connected(now time.Time, id peer.ID) {
	t := s.targets[id]
	if t == nil {
		return
	}
	if t.tries > 0 {
		s.hurry(now, t)
	}
	if t.why != bootstrap {
		delete(s.targets, id)
		return
	}
	t.up, t.relayed, t.tries, t.since = true, false, 0, now
	t.failed, t.logged, t.doubts = "", nil, 0
}

// hurry has all peers that were lost tried soon, since one that could not be reached is there: what kept it away may have kept the
// others.
func (s *schedule) hurry(now time.Time, but *target) {
	if now.Sub(s.hurried) < soon {
		return
	}
	s.hurried = now
	for _, t := range s.targets {
		if t != but && !t.up && !t.lost.IsZero() {
			t.due = minTime(t.due, now.Add(s.rnd(firstWait)))
		}
	}
}

// relayed notes that a peer is there, through relays alone: it is tried directly, more and more rarely.
func (s *schedule) relayed(now time.Time, info peer.AddrInfo) {
	if t := s.targets[info.ID]; t == nil && !s.add(now, info, met) {
		return
	}
	t := s.targets[info.ID]
	t.info.Addrs = mergeAddrs(info.Addrs, t.info.Addrs)
	if t.relayed {
		return
	}
	t.up, t.relayed, t.tries, t.since = true, true, 0, now
	t.failed, t.logged, t.doubts = "", nil, 0
	t.due = now.Add(directWait/2 + s.rnd(directWait/2))
}

// lost notes that a peer that was connected is not any more. Where it can be dialled again is what info says.
func (s *schedule) lost(now time.Time, info peer.AddrInfo) {
	if t := s.targets[info.ID]; t == nil {
		if !s.add(now, info, met) {
			return
		}
	}
	t := s.targets[info.ID]
	t.up, t.relayed, t.tries, t.since, t.lost = false, false, 0, now, now
	t.due = now.Add(firstWait + s.rnd(firstWait))
	if s.self > info.ID {
		t.due = t.due.Add(mayBeDialled)
	}
}

// failed notes that a dial came to nothing, and sets the next.
func (s *schedule) failed(now time.Time, id peer.ID) {
	t := s.targets[id]
	if t == nil {
		return
	}
	t.busy = false
	t.tries++
	if t.relayed {
		wait := min(directWait<<min(t.tries, 16), directMaxWait)
		t.due = now.Add(wait/2 + s.rnd(wait/2))
		return
	}
	if t.why == heard && t.tries >= maxHeardTries {
		delete(s.targets, id)
		return
	}
	wait := min(firstWait<<min(t.tries-1, 16), t.why.maxWait())
	if !t.lost.IsZero() && now.Sub(t.lost) < lostFor {
		wait = min(wait, soon)
	}
	if t.doubts > 0 && t.tries <= doubtfulTries {
		wait = firstWait // to know, and tell
	}
	t.due = now.Add(wait/2 + s.rnd(wait/2))
}

// size estimates how many nodes the swarm has, besides this one.
func (s *schedule) size(now time.Time, connected int) int {
	n := connected
	for _, t := range s.targets {
		if !t.up && now.Sub(t.since) < freshFor {
			n++
		}
	}
	return n
}

// next returns the targets to dial now, at most room, and marks them busy; and when to ask again.
func (s *schedule) next(now time.Time, connected, room int) (dial []*target, again time.Duration) {
	want := s.small + s.small/meshSlack
	if s.size(now, connected) > want {
		want = min(sparseDegree, s.small)
	}
	again = time.Hour
	var due []*target
	for _, t := range s.targets {
		switch {
		case t.busy || t.up && !t.relayed || !t.up && t.why <= met && connected >= want:
		case t.due.After(now):
			again = min(again, t.due.Sub(now))
		default:
			due = append(due, t)
		}
	}
	slices.SortFunc(due, func(a, b *target) int {
		if a.why != b.why {
			return int(b.why) - int(a.why)
		}
		return a.due.Compare(b.due)
	})
	for _, t := range due[:min(len(due), max(room, 0))] {
		t.busy = true
		dial = append(dial, t)
	}
	return dial, again
}
