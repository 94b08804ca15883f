package watch

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// What the protocol fixes.
const (
	// silence is for how long nothing must have been heard of a node before its wills are sent.
	silence = 15 * time.Second
)

// What is ours to tune.
const (
	// tickEvery is how often it is looked who was heard, and who is to be asked.
	tickEvery = time.Second
	// hangs is how long a tick may be late before this node counts as one that was stopped: what it has not heard
	// meanwhile says nothing.
	hangs = 3 * time.Second
	// answerLife is for how long another's word is good.
	answerLife = 3 * time.Second
	// againAfter is when what was begun is begun again, where nobody said that it was done.
	againAfter = 30 * time.Second
	// wantedFor is for how long a node is watched that a member has asked about, and maxLives how many nodes there may be.
	wantedFor = time.Minute
	maxLives  = 10_000
)

// view is what a watcher sees of the world at a tick.
type view struct {
	now   time.Duration // on a clock that counts on while the machine sleeps
	wall  time.Time
	heard func(core.NodeID) (ago time.Duration, ever bool)
	seat  func(dht.Location) core.Seat
	// reach reports whether a node can be talked to.
	reach func(core.NodeID) bool
	// sees reports whether any node but one can be talked to.
	sees func(except core.NodeID) bool
}

// deedKind is what is to be done.
type deedKind int

const (
	ask  deedKind = iota // ask member how long it has not heard of node; answered follows
	mark                 // write that the will named topic is fired; marked follows
	send                 // send it; sent follows
	seal                 // write that it was sent
)

// deed is something to be done.
type deed struct {
	kind   deedKind
	topic  string
	epoch  uint64
	node   core.NodeID
	member core.NodeID
}

// watcher decides when the wills of other nodes that stand at this one are sent. It is a state machine without clock and I/O:
// what happens goes in by its methods, what is to be done comes out of take.
//
//	standing ── silent, confirmed, due: mark ──> marking ── marked: send ──> sending ── sent: seal ──> over
//	    ^                                           │
//	    └── it stands no more, or another one does ─┘
//
// Another watcher that becomes the rendezvous goes on from what the mark says.
type watcher struct {
	self   core.NodeID
	now    time.Duration
	ticked time.Duration
	lives  map[core.NodeID]*life
	wills  map[string]*standing
	deeds  []deed
}

// life is what is known of a node that is watched.
type life struct {
	from    time.Duration // when this node began to watch it
	alive   time.Duration // when it was heard last, or from
	wills   map[string]*standing
	answers map[core.NodeID]answer // by member
	wanted  time.Duration          // somebody asked about it: it is watched until then, whatever stands here
}

// answer is what a member has said of a node.
type answer struct {
	at      time.Duration // when it was asked
	pending bool
	reached bool
	alive   time.Duration // when it heard of the node last
}

// standing is a will that stands here.
type standing struct {
	topic   string
	at      dht.Location
	will    *will  // nil: only a mark is here
	mark    *fired // nil: none
	began   uint64 // the epoch that was begun with; 0: none
	beganAt time.Duration
}

func newWatcher(self core.NodeID) *watcher {
	return &watcher{self: self, lives: map[core.NodeID]*life{}, wills: map[string]*standing{}}
}

func (w *watcher) do(d deed) { w.deeds = append(w.deeds, d) }

// take returns what is to be done.
func (w *watcher) take() []deed {
	d := w.deeds
	w.deeds = nil
	return d
}

func (w *watcher) at(topic string, at dht.Location) *standing {
	s := w.wills[topic]
	if s == nil {
		s = &standing{topic: topic, at: at}
		w.wills[topic] = s
	}
	s.at = at
	return s
}

// stands tells that a will stands here; nil: it does no more.
func (w *watcher) stands(topic string, at dht.Location, x *will) {
	s := w.at(topic, at)
	before := s.will
	if before != nil && w.lives[before.node] != nil {
		delete(w.lives[before.node].wills, topic)
	}
	if s.will = x; x != nil && !x.resumed && x.node != w.self {
		w.life(x.node).wills[topic] = s
	}
	if before != nil {
		w.forget(before.node)
	}
	w.drop(s)
}

// marks tells that a will is marked as fired; nil: it is no more.
func (w *watcher) marks(topic string, at dht.Location, f *fired) {
	s := w.at(topic, at)
	s.mark = f
	w.drop(s)
}

func (w *watcher) drop(s *standing) {
	if s.will == nil && s.mark == nil {
		delete(w.wills, s.topic)
	}
}

// epoch is that of the will that is to be sent; 0: none is.
func (s *standing) epoch() uint64 {
	if s.will == nil || s.will.resumed || s.markedAs() && s.mark.sent {
		return 0
	}
	return s.will.record.Epoch
}

// markedAs reports whether the mark is of the will that stands.
func (s *standing) markedAs() bool {
	return s.mark != nil && s.will != nil && s.mark.epoch == s.will.record.Epoch
}

// life returns what is known of a node, which is watched from now on.
func (w *watcher) life(node core.NodeID) *life {
	l := w.lives[node]
	if l == nil {
		l = &life{from: w.now, alive: w.now, wills: map[string]*standing{}, answers: map[core.NodeID]answer{}}
		w.lives[node] = l
	}
	return l
}

// forget ends the watch over a node that nobody wants watched.
func (w *watcher) forget(node core.NodeID) {
	if l := w.lives[node]; l != nil && len(l.wills) == 0 && w.now >= l.wanted {
		delete(w.lives, node)
	}
}

// silent tells a member for how long a node was not heard, as far as this one can say, which watches it from now on.
func (w *watcher) silent(node core.NodeID) time.Duration {
	if w.lives[node] == nil && len(w.lives) >= maxLives {
		return 0
	}
	l := w.life(node)
	l.wanted = w.now + wantedFor
	return w.now - l.alive
}

// tick looks who was heard, and begins what is to be begun.
func (w *watcher) tick(v view) {
	stopped := v.now-w.ticked > hangs // also at the first
	w.now, w.ticked = v.now, v.now
	for _, node := range slices.SortedFunc(maps.Keys(w.lives), cmp.Compare[core.NodeID]) {
		if w.forget(node); w.lives[node] == nil {
			continue
		}
		l := w.lives[node]
		if stopped {
			l.from = w.now
			clear(l.answers)
		}
		ago, ever := v.heard(node)
		if l.alive = l.from; ever && w.now-ago > l.alive {
			l.alive = w.now - ago
		}
		if w.now-l.alive < silence {
			clear(l.answers)
			continue
		}
		w.suspect(v, node, l)
	}
}

// suspect deals with a node that was not heard for long.
func (w *watcher) suspect(v view, node core.NodeID, l *life) {
	seats := map[dht.Location]core.Seat{}
	for _, topic := range slices.Sorted(maps.Keys(l.wills)) {
		s := l.wills[topic]
		if s.epoch() == 0 || s.began == s.epoch() && w.now-s.beganAt < againAfter || w.now < w.due(v, s, l) {
			continue
		}
		seat, ok := seats[s.at]
		if !ok {
			seat = v.seat(s.at)
			seats[s.at] = seat
		}
		if !seat.Serving || !w.confirmed(v, node, l, seat.Members) {
			continue
		}
		s.began, s.beganAt = s.epoch(), w.now
		if s.markedAs() { // by another watcher, or before this one was started
			w.do(deed{kind: send, topic: topic, epoch: s.began})
		} else {
			w.do(deed{kind: mark, topic: topic, epoch: s.began})
		}
	}
}

// due tells when a will may be sent at the earliest: after its delay, which counts from when its client lost its connection; where
// that was with the node, from when the node was heard last.
func (w *watcher) due(v view, s *standing, l *life) time.Duration {
	if since := s.will.disconnected; !since.IsZero() {
		return w.now + since.Add(s.will.delay()).Sub(v.wall)
	}
	return l.alive + s.will.delay()
}

// confirmed reports whether enough members say that a node is silent: two, this one included, or all that are left. Who reaches
// nobody at all can't tell whether the others are dead or it is cut off itself, unless there is no other member.
func (w *watcher) confirmed(v view, node core.NodeID, l *life, members []core.NodeID) bool {
	say, reached, others, waits := 1, 0, 0, false
	for _, m := range members {
		if m == w.self || m == node {
			continue
		}
		others++
		a, asked := l.answers[m]
		if !asked || !a.pending && w.now-a.at >= tickEvery || w.now-a.at >= againAfter {
			pending := a
			pending.at, pending.pending = w.now, true
			l.answers[m] = pending
			w.do(deed{kind: ask, node: node, member: m})
		}
		switch {
		case a.pending || !asked || w.now-a.at >= answerLife, !a.reached && v.reach(m):
			waits = true
		case a.reached:
			reached++
			if w.now-a.alive >= silence {
				say++
			}
		}
	}
	return say >= 2 || !waits && reached == 0 && (others == 0 || v.sees(node))
}

// answered tells what a member has said: it has not heard of a node for some time, or could not be asked.
func (w *watcher) answered(member, node core.NodeID, silent time.Duration, reached bool) {
	l := w.lives[node]
	if l == nil {
		return
	}
	if a := l.answers[member]; a.pending {
		a.pending, a.reached, a.alive = false, reached, w.now-silent
		l.answers[member] = a
	}
}

// marked tells that all members in reach have the mark of a will: it is sent, unless its client has gone on elsewhere or its node
// has armed another one before that was in order.
func (w *watcher) marked(topic string, epoch uint64) {
	s := w.wills[topic]
	if s == nil || s.began != epoch {
		return
	}
	if s.epoch() != epoch {
		s.began = 0
		return
	}
	s.beganAt = w.now
	w.do(deed{kind: send, topic: topic, epoch: epoch})
}

// sent tells that a will's rendezvous has passed it on.
func (w *watcher) sent(topic string, epoch uint64) {
	s := w.wills[topic]
	if s == nil || s.began != epoch {
		return
	}
	s.beganAt = w.now
	w.do(deed{kind: seal, topic: topic, epoch: epoch})
}
