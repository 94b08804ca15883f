package roam

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// world is a private swarm in one process: real brokers and real Roams, and between them something that does what the
// rendezvous of a swarm promise. It is for a synctest bubble. How long everything takes is by chance, from a seed.
type world struct {
	t     testing.TB
	nodes []*simNode
	wg    sync.WaitGroup // of everything that waits

	mu        sync.Mutex
	rng       *rand.Rand
	custody   []*simMessage // what somebody waits for, in order
	retained  map[string]*proto.Message
	seq       uint64
	came      map[string]int // payloads that clients published, by how often
	cut       map[[2]int]bool
	healed    map[[2]int]time.Time
	clients   []*client
	forgotten map[peer.ID]bool // nodes that are gone for good
	unmerged  bool             // nor are those that they reach told yet
	unsure    bool             // nodes reach nobody who knows what was claimed
	strange   bool             // nodes know of no other while they have met none
	shy       bool             // nodes that are started have not met others yet
	slowness  time.Duration    // the longest that a node takes to answer a stream
	old       bool             // nothing is said to be recent
}

// simMessage is a message in custody.
type simMessage struct {
	m      *proto.Message
	mark   mqttfront.Mark
	shares []*simShare
	at     time.Time // when it was published
}

// owedLocked reports whether a session that has gone on without a node is to get the message.
func (m *simMessage) owedLocked(si core.SessionInterest) (owed bool) {
	for _, s := range m.shares {
		own := slices.Contains(s.sessions, si.Name)
		switch open := !s.done && string(s.n.id) == si.From; {
		case open && (s.plain || own):
			owed = true
		case own:
			return false
		}
	}
	return owed
}

// simShare is what one node gets of it. Guarded by world.mu.
type simShare struct {
	n         *simNode
	m         *simMessage
	plain     bool
	sessions  []string
	delivered bool
	left      int // not done yet at the broker
	done      bool
}

// simNode is a node, over its crashes.
type simNode struct {
	w  *world
	i  int
	id peer.ID

	// Guarded by world.mu.
	life      int
	up        bool
	h         *simHost
	b         *mqttfront.Broker
	r         *Roam
	store     *simStore
	l         *simListener
	interests map[string]core.Interest
	named     map[string]bool // filters that this life has registered
	upLink    *line
	downLink  *line
	started   time.Time
}

func newWorld(t testing.TB, seed uint64, nodes int) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), retained: map[string]*proto.Message{}, came: map[string]int{}, cut: map[[2]int]bool{}, healed: map[[2]int]time.Time{}, forgotten: map[peer.ID]bool{}} //nolint:gosec // a simulation
	for i := range nodes {
		id := simID(t, i)
		w.nodes = append(w.nodes, &simNode{w: w, i: i, id: id, interests: map[string]core.Interest{}, store: newSimStore()})
	}
	for _, n := range w.nodes {
		n.start()
	}
	return w
}

func simID(t testing.TB, i int) peer.ID {
	seed := sha256.Sum256([]byte{byte(i)})
	key, _, err := crypto.GenerateEd25519Key(&repeating{seed[:]})
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

type repeating struct{ b []byte }

func (r *repeating) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.b[i%len(r.b)]
	}
	return len(p), nil
}

// chance is true once in n times.
func (w *world) chance(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n) == 0
}

func (w *world) below(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

// delay is how long something is on its way: mostly a moment, now and then long.
func (w *world) delay() time.Duration {
	switch n := w.below(100); {
	case n < 60:
		return 0
	case n < 97:
		return time.Duration(w.below(5000)) * time.Microsecond
	default:
		return time.Duration(w.below(300)) * time.Millisecond
	}
}

// logf says what happens, for who looks into one seed.
func (w *world) logf(format string, args ...any) {
	if os.Getenv("SIM_LOG") != "" {
		fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("04:05.000000"), fmt.Sprintf(format, args...))
	}
}

// link returns the node with a peer ID, where it can be reached, and how long it takes to get there.
func (w *world) link(n *simNode, to peer.ID) (*simNode, time.Duration) {
	wait := w.delay()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.nodes {
		if o.id == to && o != n && o.up && n.up && !w.cut[[2]int{min(n.i, o.i), max(n.i, o.i)}] {
			return o, wait
		}
	}
	return nil, 0
}

func (w *world) reach(n *simNode) (ids []peer.ID) {
	for _, o := range w.nodes {
		if to, _ := w.link(n, o.id); to != nil {
			ids = append(ids, o.id)
		}
	}
	return ids
}

// answers is how long a node takes to answer a stream.
func (w *world) answers(*simNode) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.slowness == 0 || w.rng.IntN(3) > 0 {
		return 0
	}
	return time.Duration(w.rng.Int64N(int64(w.slowness)))
}

func (n *simNode) listener() *simListener {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.l
}

func (n *simNode) host() *simHost {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.h
}

// line carries out one thing after another, each some time after it was given.
type line struct {
	mu   sync.Mutex
	ops  []func()
	wake chan struct{}
	over bool
}

func newLine(w *world) *line {
	l := &line{wake: make(chan struct{}, 1)}
	w.wg.Go(func() { l.run(w) })
	return l
}

func (l *line) run(w *world) {
	for {
		l.mu.Lock()
		ops, over := l.ops, l.over
		l.ops = nil
		l.mu.Unlock()
		if over {
			return
		}
		for _, op := range ops {
			if d := w.delay(); d > 0 {
				time.Sleep(d)
			}
			op()
		}
		if len(ops) == 0 {
			<-l.wake
		}
	}
}

func (l *line) do(op func()) {
	l.mu.Lock()
	if !l.over {
		l.ops = append(l.ops, op)
	}
	l.mu.Unlock()
	l.poke()
}

func (l *line) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *line) end() {
	l.mu.Lock()
	l.over, l.ops = true, nil
	l.mu.Unlock()
	l.poke()
}

// start starts a node with what its store has.
func (n *simNode) start() {
	w := n.w
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("SIM_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", n.i)
	}
	w.mu.Lock()
	n.life++
	life := n.life
	n.upLink, n.downLink, n.named = newLine(w), newLine(w), map[string]bool{}
	n.store = n.store.left()
	n.h = &simHost{n: n}
	n.l = newSimListener()
	store, h, l := n.store, n.h, n.l
	n.started = time.Now()
	shy := w.shy
	w.mu.Unlock()
	cfg := mqttfront.DefaultConfig()
	cfg.SysInterval, cfg.CloseTimeout = 0, 300*time.Millisecond
	b, err := mqttfront.New(cfg, &simSwarm{n, life}, nil, store, log)
	if err != nil {
		w.t.Fatal(err)
	}
	r := New(Config{Host: h, Swarm: &claimSwarm{n, life}, Broker: b, Resumed: func(context.Context, peer.ID, string) {}, Log: log})
	b.Roam(r)
	if err := b.Serve(l, mqttfront.ListenerConfig{URL: "tcp://127.0.0.1:1883"}); err != nil {
		w.t.Fatal(err)
	}
	open := store.open()
	w.mu.Lock()
	n.b, n.r, n.up = b, r, true
	var back []*simShare
	for _, m := range w.custody {
		for _, s := range m.shares {
			if s.n != n || s.done {
				continue
			}
			switch left := open[m.mark]; {
			case s.delivered && left > 0: // its receipts are asked for
				s.left = left
			case s.delivered && store.had(m.mark):
				s.done = true
			default:
				back = append(back, s)
			}
		}
	}
	late := time.Duration(w.rng.IntN(6000)) * time.Millisecond
	if w.rng.IntN(2) > 0 { // what it says comes behind that
		n.upLink.do(func() { time.Sleep(late) })
	}
	time.AfterFunc(late, func() { // what was kept for it comes when it is among the others
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range back {
			if n.life == life {
				s.deliverLocked()
			}
		}
	})
	up := n.upLink
	w.mu.Unlock()
	up.do(func() { // what it does not say any more is withdrawn
		w.mu.Lock()
		defer w.mu.Unlock()
		for f := range n.interests {
			if n.life == life && !n.named[f] {
				delete(n.interests, f)
			}
		}
	})
	if !shy {
		r.Activate()
	}
}

// crash ends a node as it is: what it has in its store stays.
func (n *simNode) crash() {
	w := n.w
	n.store.whole.Lock() // what is done together asks for world.mu in turn
	w.mu.Lock()
	for _, c := range w.clients {
		c.crashedLocked(n)
	}
	n.up = false
	n.life++
	h, b, r, l := n.h, n.b, n.r, n.l
	n.h = nil
	n.upLink.end()
	n.downLink.end()
	store := n.store
	n.store = store.left()
	w.mu.Unlock()
	store.whole.Unlock()
	l.cut()
	h.close()
	r.Close()
	_ = b.Close()
}

// publish is what a client of no node here publishes.
func (w *world) publish(topic, payload string, qos byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.publishLocked(nil, &proto.Message{Topic: topic, Payload: []byte(payload), QoS: qos}, 7, false)
}

// publishLocked takes a message into custody for all whom it concerns.
func (w *world) publishLocked(from *simNode, m *proto.Message, epoch uint64, served bool) {
	w.seq++
	w.logf("published %q", m.Payload)
	sm := &simMessage{m: m, mark: mqttfront.Mark{Epoch: epoch, Seq: w.seq}, at: time.Now()}
	for _, n := range w.nodes {
		if n == from && served {
			continue
		}
		for f, i := range n.interests {
			if i.Plain && topic.Match(f, m.Topic) {
				s := &simShare{n: n, m: sm, plain: true}
				sm.shares = append(sm.shares, s)
				s.deliverLocked()
				break
			}
		}
	}
	w.custody = append(slices.DeleteFunc(w.custody, func(o *simMessage) bool {
		return !slices.ContainsFunc(o.shares, func(s *simShare) bool { return !s.done })
	}), sm)
}

// deliverLocked sends a share to its node, if that is there.
func (s *simShare) deliverLocked() {
	n := s.n
	if !n.up {
		return
	}
	life := n.life
	n.downLink.do(func() {
		n.w.mu.Lock()
		if n.life != life || s.done {
			n.w.mu.Unlock()
			return
		}
		d := mqttfront.Delivery{Msg: s.m.m, Plain: s.plain, Receipt: &simReceipt{s, life}, Recent: !n.w.old && !s.delivered && time.Since(s.m.at) < 2*time.Second}
		s.delivered = true
		s.left = 1
		names := s.sessions
		b, r := n.b, n.r
		n.w.mu.Unlock()
		for _, name := range names {
			if key := r.KeyOf(name); key != "" {
				d.Sessions = append(d.Sessions, mqttfront.ForSession{Key: key, Alone: name})
			}
		}
		n.w.logf("deliver to %d %q plain %v sessions %q", n.i, d.Msg.Payload, d.Plain, d.Sessions)
		b.Deliver([]mqttfront.Delivery{d})
	})
}

// takeUpLocked has a message wait for a node that has taken it over with a session.
func (m *simMessage) takeUpLocked(n *simNode, name string) {
	for _, s := range m.shares {
		if s.n == n && !s.done && slices.Contains(s.sessions, name) {
			s.left++
			return
		}
		s.sessions = slices.DeleteFunc(slices.Clone(s.sessions), func(o string) bool { return o == name })
	}
	m.shares = append(m.shares, &simShare{n: n, m: m, sessions: []string{name}, delivered: true, left: 1})
}

// simReceipt is told the fate of a share.
type simReceipt struct {
	s    *simShare
	life int
}

func (r *simReceipt) Mark() mqttfront.Mark { return r.s.m.mark }

func (r *simReceipt) Done() {
	w := r.s.n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.s.n.life != r.life {
		return
	}
	w.logf("done at %d: %q", r.s.n.i, r.s.m.m.Payload)
	if r.s.left--; r.s.left <= 0 {
		r.s.done = true
	}
}

func (r *simReceipt) More() {
	w := r.s.n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.s.n.life == r.life {
		r.s.left++
	}
}

func (r *simReceipt) Refused(mqttfront.Group) {}

// noReceipt is that of a message that nobody waits for.
type noReceipt mqttfront.Mark

func (r noReceipt) Mark() mqttfront.Mark    { return mqttfront.Mark(r) }
func (r noReceipt) Done()                   {}
func (r noReceipt) More()                   {}
func (r noReceipt) Refused(mqttfront.Group) {}

// registerLocked has an interest stand, and what is in custody for a node that is gone go to who has its sessions now.
func (n *simNode) registerLocked(filter string, i core.Interest) {
	w := n.w
	if !i.Plain && len(i.Groups) == 0 {
		delete(n.interests, filter)
		return
	}
	n.interests[filter] = i
	for _, si := range i.Sessions {
		for _, m := range w.custody {
			owed := m.owedLocked(si)
			if owed && topic.Match(filter, m.m.Topic) {
				s := &simShare{n: n, m: m, sessions: []string{si.Name}}
				m.shares = append(m.shares, s)
				s.deliverLocked()
			}
		}
	}
}

func (n *simNode) register(life int, filter string, i core.Interest, done func(local bool)) {
	w := n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.life != life {
		return
	}
	n.named[filter] = true
	down, local := n.downLink, w.unsure
	n.upLink.do(func() {
		w.mu.Lock()
		if n.life == life {
			w.logf("node %d registers %q: %+v", n.i, filter, i)
			n.registerLocked(filter, i)
		}
		w.mu.Unlock()
		if done != nil {
			w.logf("node %d is promised %q", n.i, filter)
			down.do(func() { w.logf("node %d hears that %q is promised", n.i, filter); done(local) })
		}
	})
}
