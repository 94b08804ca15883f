package core_test

import (
	"container/heap"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// The simulation runs many nodes' state machines in one goroutine, with a clock and a network of its own:
// links keep their order, delays are random, nodes join and leave politely. Everything follows from the seed.

const (
	tickEvery = 200 * time.Millisecond
	lookEvery = 100 * time.Millisecond // how often what must always hold is checked
)

var epochStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

type sim struct {
	limit      func(*core.Limits) // nil: the defaults
	t          testing.TB
	rng        *rand.Rand
	now        time.Duration
	events     events
	count      uint64
	nodes      []*simNode
	links      map[[2]int]time.Duration // when the last frame on a link arrives
	frames     map[reflect.Type]int
	acks       map[ackKey]int           // acknowledgements on each link
	longest    map[reflect.Type]int     // of each kind of frame, in bytes
	apart      func(v, w *simNode) bool // nodes that cannot connect
	reconnects func(v, w *simNode) bool // where one finds the link to another stalled: whether the streams are made anew
	mute       func(frame any) bool     // frames that get lost on links that stay up
	silent     time.Duration            // until then some node hears or says nothing
	depth      int
	small      int
	slow       time.Duration // the longest delay
	diskTime   time.Duration // until what is written is safe, at most; 0: it is at once, and nobody waits for it
	loss       bool          // QoS 0 may be lost: nodes come and go
	merged     bool          // there is one swarm
	forgets    bool          // nodes are killed, with what only they had
	disorder   bool          // links break, so that order is not promised
	uneven     bool          // some links are much slower than others
	awaited    bool          // acknowledgements wait until messages are on two disks
	hold       time.Duration // what is asked for with registrations; 0: an hour; below: nothing
	unhurried  bool          // what is written is on its way to the disk when somebody waits for that, or a second later
	sparse     bool          // nodes tick rarely: nothing happens for days
	lazy       time.Duration // how long clients take at most to acknowledge some of what comes from a queue; 0: no time
	keeps      bool          // what nodes have from their own clients for their own is kept by others too
	open       bool          // nodes do not believe what others say of nodes that are away

	published []*published
	byID      map[core.Identity]*published // those that came to somebody
	owed      []*published                 // of these, accepted and not with everybody that they are due to
	nextLook  time.Duration
	connects  int // what was sent on a connection does not come on a later one
	stands    []*standing
	errors    []string
	decoder   proto.Decoder
}

type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	v := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return v
}

func (s *sim) after(d time.Duration, do func()) {
	s.count++
	heap.Push(&s.events, event{s.now + d, s.count, do})
}

// run lets time pass.
func (s *sim) run(d time.Duration) {
	end := s.now + d
	for len(s.events) > 0 && s.events[0].at <= end {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
		if s.now >= s.nextLook {
			s.nextLook = s.now + lookEvery
			s.look()
		}
	}
	s.now = end
}

// simNode is a node with its broker.
type simNode struct {
	s         *sim
	i         int
	id        core.NodeID
	n         *core.Node
	disk      *disk
	life      uint64
	up        map[int]int  // nodes that it is connected to, by how often anybody has connected
	wants     map[int]bool // nodes that it tries to connect to
	alive     bool
	frozen    time.Duration // its process is stopped until then
	behind    time.Duration // how wrong its clock is
	swarm     int           // before swarms have met: which of them it is in
	leaving   bool
	asleep    bool     // its clients are away, and what is for them waits in their sessions
	session   string   // one that has gone on here
	missed    []func() // has them get it
	interests map[string]*standing
	got       []*published // in the order of their delivery
	came      []*published // from other nodes or by way of a location, in order
	from      map[*published]int
	began     map[entryKey]bool     // deliveries that its clients know of
	versions  map[core.Place]uint64 // by which it served places
	effects   []core.Effect
}

// simStart is when a simulation begins.
const simStart = time.Hour

func newSim(t testing.TB, seed uint64, slow time.Duration) *sim {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 7)), links: map[[2]int]time.Duration{}, frames: map[reflect.Type]int{}, acks: map[ackKey]int{}, longest: map[reflect.Type]int{},
		depth: 1, small: 100, merged: true, byID: map[core.Identity]*published{}, slow: slow, now: simStart, keeps: seed%2 == 0}
	s.reconnects = func(*simNode, *simNode) bool { return s.rng.IntN(2) == 0 }
	return s
}

func (s *sim) add() *simNode {
	return s.addPeer(fmt.Sprintf("node-%04d-%016x", len(s.nodes), s.rng.Uint64()))
}

// addLimited adds a node with limits of its own.
func (s *sim) addLimited(limit func(*core.Limits)) *simNode {
	old := s.limit
	defer func() { s.limit = old }()
	s.limit = limit
	return s.add()
}

// grow adds nodes, each connected to some that is there.
func (s *sim) grow(n int) {
	for range n {
		v := s.add()
		if v.i > 0 {
			s.connect(v, s.nodes[s.rng.IntN(v.i)])
		}
	}
}

// addPeer adds a node with a database of its own to a peer, whose earlier one, if any, is lost.
func (s *sim) addPeer(peer string) *simNode {
	i := len(s.nodes)
	v := &simNode{s: s, i: i, id: core.MakeNodeID(s.rng.Uint64(), peer), up: map[int]int{}, wants: map[int]bool{},
		alive: true, interests: map[string]*standing{}, from: map[*published]int{}, began: map[entryKey]bool{}, versions: map[core.Place]uint64{}}
	v.disk = newDisk(s)
	v.boot(s.limits())
	s.nodes = append(s.nodes, v)
	return v
}

// boot starts a node with what is on its disk.
func (v *simNode) boot(limits core.Limits) {
	s := v.s
	v.life++
	v.alive = true
	v.n = core.New(core.Config{Self: v.id, Depth: s.depth, Small: s.small, Limits: limits, Life: v.life, Restoring: v.life > 1, Private: !s.open,
		Joins:   v.life == 1 && s.now > simStart && v.i%2 == 0,
		Rand:    rand.New(rand.NewPCG(s.rng.Uint64(), 3)),
		Custody: diskCustody{v.disk}, Retained: diskRetained{v.disk}, Journal: diskJournal{v.disk}, Received: diskReceived{v.disk}, Log: simLog()})
	s.after(time.Duration(s.rng.Int64N(int64(tickEvery))), func() { v.tick(v.life) })
}

// crash ends a node's process: what is in its memory alone is gone.
func (v *simNode) crash() {
	v.s.note("node %d crashes", v.i)
	v.alive = false
	for _, w := range v.s.nodes {
		v.s.disconnect(v, w)
	}
	v.disk.crash()
	for _, p := range v.s.published { // its client has to publish it again
		if p.node == v && !p.accepted {
			p.cut = true
		}
	}
}

// reboot starts a node again that has crashed. Its clients' sessions are there again.
func (v *simNode) reboot() {
	s := v.s
	s.note("node %d is back", v.i)
	v.boot(s.limits())
	if n := v.n.Stats().Unreadable; n > 0 {
		s.fail("node %d cannot read %d records of its journal", v.i, n)
	}
	filters := map[string]bool{}
	for _, f := range sortedFilters(v.interests) {
		if st := v.interests[f]; !filters[st.filter] {
			filters[st.filter] = true
			v.register(st.filter, nil)
		}
	}
	v.do(v.n.Restored)
	v.resume()
	s.join(v)
	for _, p := range s.published {
		switch {
		case p.node != v || p.m.QoS < 2 || !p.cut || p.accepted || s.diskTime == 0:
		case v.disk.live.noted[p]:
			p.accepted = true // its client is told so when it publishes it again
		default:
			p.cut, p.at = false, s.now
			v.send(p)
		}
	}
}

// limits are those of the nodes that are added.
func (s *sim) limits() core.Limits {
	l := core.DefaultLimits()
	if s.limit != nil {
		s.limit(&l)
	}
	return l
}

func simLog() *slog.Logger {
	if os.Getenv("SIM_TRACE") == "" {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (v *simNode) tick(life uint64) {
	if v.s.now < v.frozen {
		v.s.after(v.frozen-v.s.now, func() { v.tick(life) })
		return
	}
	if v.alive && v.life == life {
		v.do(func() { v.n.Tick() })
		every := tickEvery
		if v.s.sparse {
			every = time.Minute
		}
		v.s.after(every, func() { v.tick(life) })
	}
}

// at tells a node the time.
func (v *simNode) at() { v.n.At(v.s.now, epochStart.Add(v.s.now-v.behind)) }

// do has an event happen at a node and carries out what follows.
func (v *simNode) do(event func()) {
	if !v.alive {
		return
	}
	v.at()
	event()
	v.effects = v.n.Take(nil)
	for _, e := range v.effects {
		v.effect(e)
	}
}

// doIn is do, unless the node has crashed since it was in a life.
func (v *simNode) doIn(life uint64, event func()) {
	if v.s.now < v.frozen {
		v.s.after(v.frozen-v.s.now, func() { v.doIn(life, event) })
		return
	}
	if v.life == life {
		v.do(event)
	}
}

// acknowledge tells a client that its message is kept, unless it was told.
func acknowledge(e core.Effect) {
	if !e.Once.First() {
		return
	}
	switch from := e.Delivery.Origin.(type) {
	case *published:
		from.accepted, from.custody = true, e.Custody
	case *simClient:
		from.accept(e.Packet)
	}
}

func (v *simNode) effect(e core.Effect) {
	s, life := v.s, v.life
	switch e.Kind {
	case core.Send:
		s.send(v, e.To, e.Frame)
	case core.Deliver:
		v.deliver(e.Delivery)
	case core.Accept:
		v.disk.sync(func() { acknowledge(e) })
	case core.AcceptKept:
		acknowledge(e)
	case core.Safe, core.SafeInTime:
		v.disk.sync(func() { s.after(0, func() { v.doIn(life, e.Call) }) })
	case core.Call:
		s.after(0, func() { v.doIn(life, e.Call) })
	case core.Dial:
		for _, w := range s.nodes {
			if w.id.Peer() == e.To.Peer() {
				s.connect(v, w)
			}
		}
	case core.Reconnect: // or the streams stay as they are, for a while
		if i := slices.IndexFunc(s.nodes, func(w *simNode) bool { return w.id == e.To }); i >= 0 && s.reconnects(v, s.nodes[i]) {
			s.after(0, func() { // an event of its own: what is to be done now lends its frames
				s.disconnect(v, s.nodes[i])
				s.reconnect(v, s.nodes[i])
			})
		}
	case core.Lookup:
		s.after(5*s.delay(), func() {
			var alive []core.NodeID
			for _, w := range s.nodes {
				if w.alive {
					alive = append(alive, w.id)
				}
			}
			var peers []string
			for _, id := range closest(e.Place, alive) {
				peers = append(peers, id.Peer())
			}
			v.doIn(life, func() { v.n.LookedUp(e.Place, peers) })
		})
	case core.Left:
		v.alive = false
		for _, w := range s.nodes { // what it has sent arrives
			s.after(max(0, s.links[[2]int{v.i, w.i}]-s.now)+1, func() { s.disconnect(v, w) })
		}
	}
}

func (s *sim) delay() time.Duration {
	d := time.Duration(s.rng.Int64N(int64(s.slow))) + 50*time.Microsecond
	if s.rng.IntN(50) == 0 {
		d *= 5
	}
	return d
}

// send puts a frame on a link as bytes, as a stream would.
func (s *sim) send(v *simNode, to core.NodeID, frame any) {
	i := slices.IndexFunc(s.nodes, func(w *simNode) bool { return w.id == to })
	if i < 0 || v.up[i] == 0 {
		return
	}
	w := s.nodes[i]
	kind := reflect.TypeOf(frame)
	s.frames[kind]++
	s.trace(v, w, "->", frame)
	if d, ok := frame.(*proto.Deliver); ok && d.Message.QoS == 2 {
		s.noteSent(d, w)
	}
	if f, ok := frame.(*pb.PublishAck); ok {
		s.countAcks(v, w, f)
	}
	if s.mute != nil {
		if m, ok := frame.(gproto.Message); ok {
			frame = gproto.Clone(m) // it may be changed
		}
		if s.mute(frame) {
			return
		}
	}
	b := proto.AppendFrame(make([]byte, 0, 256), frame, epochStart.Add(s.now))
	s.longest[kind] = max(s.longest[kind], len(b))
	link, life, lives, stream := [2]int{v.i, i}, v.life, w.life, v.up[i]
	delay := s.delay()
	if s.uneven {
		delay *= time.Duration(1 + 7*v.i*i%31)
	}
	at := max(s.links[link]+1, s.now+delay)
	s.links[link] = at
	s.after(at-s.now, func() {
		if w.up[v.i] != stream || !w.alive || v.life != life || w.life != lives {
			return
		}
		number, body, rest, _, err := proto.Next(b)
		if err != nil || len(rest) > 0 {
			s.fail("frame %v does not come through: %v", kind, err)
			return
		}
		s.decoder.Reset()
		f, err := s.decoder.Decode(number, body, epochStart.Add(s.now))
		if err != nil {
			s.fail("frame %v does not decode: %v", kind, err)
			return
		}
		s.trace(v, w, "=>", f)
		w.do(func() { w.n.Receive(v.id, f) })
		for i := range b { // it was lent
			b[i] = '#'
		}
	})
}

// ackKey is what was said to be kept, and on which link.
type ackKey struct {
	from, to int
	id       core.Identity
}

// countAcks looks out for acknowledgements that go round: each comes on a link once for each time that its message did.
func (s *sim) countAcks(v, w *simNode, f *pb.PublishAck) {
	const most = 60
	for _, rs := range f.GetKept() {
		for _, r := range rs.GetRanges() {
			key := ackKey{v.i, w.i, core.Identity{Epoch: rs.GetEpoch(), Seq: r.GetFrom()}}
			if s.acks[key]++; s.acks[key] == most {
				s.fail("node %d has told node %d %d times that %x/%d is kept", v.i, w.i, most, key.id.Epoch, key.id.Seq)
			}
		}
	}
}

func (s *sim) connect(v, w *simNode) {
	s.after(s.delay(), func() {
		if v == w || v.up[w.i] > 0 || !v.alive || !w.alive || s.apart != nil && s.apart(v, w) {
			return
		}
		s.note("connect %d %d", v.i, w.i)
		s.connects++
		v.up[w.i], w.up[v.i] = s.connects, s.connects
		v.at()
		w.at()
		hv, hw := v.n.Hello(v.life, nil), w.n.Hello(w.life, nil)
		v.do(func() { v.n.Up(hw) })
		w.do(func() { w.n.Up(hv) })
	})
}

// reconnect connects two nodes when the link between them carries something.
func (s *sim) reconnect(v, w *simNode) {
	s.after(time.Second, func() {
		if max(s.links[[2]int{v.i, w.i}], s.links[[2]int{w.i, v.i}]) > s.now {
			s.reconnect(v, w)
			return
		}
		s.connect(v, w)
	})
}

func (s *sim) disconnect(v, w *simNode) {
	s.note("disconnect %d %d", v.i, w.i)
	if v.up[w.i] > 0 {
		delete(v.up, w.i)
		delete(w.up, v.i)
		w.do(func() { w.n.Down(v.id) })
		v.do(func() { v.n.Down(w.id) })
	}
}

func (s *sim) fail(format string, args ...any) {
	if len(s.errors) < 20 {
		s.errors = append(s.errors, fmt.Sprintf("%v: ", s.now-time.Hour)+fmt.Sprintf(format, args...))
	}
}
