package watch

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// Swarm is what wills stand at and travel by; rendezvous.Service is one.
type Swarm interface {
	Self() core.NodeID
	Clock() time.Duration
	Register(filter string, interest core.Interest, done func(local bool))
	Retained(filter string, each func([]*proto.Message), done func())
	Publish(batch []core.Publication)
	Done(r *core.Receipt)
	Seat(at dht.Location) core.Seat
	Heard(id core.NodeID) (ago time.Duration, ever bool)
	Backed(topic string) bool
	Peers() []core.PeerView
}

// Broker is what has the clients; *mqttfront.Broker is one.
type Broker interface {
	Wills(each func(key string, w mqttfront.WillRecord, expiry time.Duration, since time.Time))
	WillSent(key string, epoch uint64, looked bool, before *proto.Message) bool
	WillOver(key string, epoch uint64)
}

// Config is what a Watch is made with.
type Config struct {
	Host   host.Host
	Swarm  Swarm
	Broker Broker
	Store  *Store
	Log    *slog.Logger
}

// Stats counts what happened, for metrics.
type Stats struct {
	Fired atomic.Uint64 // wills of other nodes' clients that were sent from here
}

// Watch is mqttfront.WillKeeping.
type Watch struct {
	cfg    Config
	self   core.NodeID
	stats  Stats
	active atomic.Bool // there are, or were, other nodes

	mu    sync.Mutex
	trust trust
	held  []held
	work  []func() // for runWork
	wake  chan struct{}

	// Of runWork.
	watcher   *watcher
	own       map[string]*own // by key
	byTopic   map[string]*own
	refreshed time.Time
	// registered: what others say of this node's wills comes here. It does not before there are any, so that a node that has none
	// founds no location. tidied: what was left by an earlier process is gone.
	registered, tidied bool

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var _ mqttfront.WillKeeping = (*Watch)(nil)

// held is a will that waits for this node to know whether it may send it.
type held struct {
	key        string
	epoch      uint64
	send, drop func()
}

// New makes a Watch, which watches from then on. It lets nobody know of this node's wills before Activate.
func New(cfg Config) *Watch {
	w := &Watch{cfg: cfg, self: cfg.Swarm.Self(), watcher: newWatcher(cfg.Swarm.Self()), own: map[string]*own{}, byTopic: map[string]*own{}, wake: make(chan struct{}, 1),
		refreshed: time.Now()}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	cfg.Broker.Wills(w.restore)
	cfg.Host.SetStreamHandler(Protocol, w.runAnswer)
	w.wg.Go(w.runWork)
	return w
}

// Close ends what is under way, and waits for it.
func (w *Watch) Close() {
	w.cfg.Host.RemoveStreamHandler(Protocol)
	w.mu.Lock()
	w.cancel()
	w.mu.Unlock()
	w.wg.Wait()
}

// Stats returns the counters, which go on counting.
func (w *Watch) Stats() *Stats { return &w.stats }

// Activate says that there are other nodes. From then on they know this node's wills.
func (w *Watch) Activate() {
	if w.active.Swap(true) {
		return
	}
	w.do(func() { w.cfg.Broker.Wills(w.armFound) })
}

// do has runWork call f. What waits there is at most what clients have done since it last came round, each thing once.
func (w *Watch) do(f func()) {
	w.mu.Lock()
	w.work = append(w.work, f)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// goes runs f in a goroutine that Close waits for.
func (w *Watch) goes(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() == nil {
		w.wg.Go(f)
	}
}

// runWork does one thing after another.
func (w *Watch) runWork() {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-w.wake:
		case <-t.C:
			w.tick()
		}
		w.mu.Lock()
		work := w.work
		w.work = nil
		w.mu.Unlock()
		for _, f := range work {
			f()
		}
		w.carryOut()
	}
}

// tick lets time pass.
func (w *Watch) tick() {
	w.takeChanges()
	w.watcher.tick(view{now: w.cfg.Swarm.Clock(), wall: time.Now(), heard: w.cfg.Swarm.Heard, seat: w.cfg.Swarm.Seat,
		reach: w.reach, sees: w.sees})
	w.mu.Lock()
	waits := len(w.held) > 0
	w.mu.Unlock()
	if w.active.Load() || waits {
		backed := w.cfg.Swarm.Backed(nameOf(w.cfg.Host.ID(), ""))
		w.mu.Lock()
		asks, round := w.trust.tick(w.cfg.Swarm.Clock(), backed), w.trust.round
		w.mu.Unlock()
		switch {
		case asks && len(w.own) == 0 && !waits: // there is nothing that could have been sent, and nobody is bothered
			w.heardOwn(round, nil)
		case asks, w.registered && !w.tidied:
			w.tidied = true
			w.askOwn(round)
		}
	}
	if time.Since(w.refreshed) > refreshEvery {
		w.refreshed = time.Now()
		for _, o := range w.own {
			w.push(o)
		}
	}
}

// takeChanges tells the watcher what stands here now.
func (w *Watch) takeChanges() {
	for topic, c := range w.cfg.Store.take() {
		name, isMark := willOf(topic)
		if isMark {
			var f *fired
			if c.payload != nil {
				var err error
				if f, err = parseFired(c.payload); err != nil {
					w.cfg.Log.Debug("the mark of a will can't be read", "topic", topic, "error", err)
				}
			}
			w.watcher.marks(name, c.at, f)
			continue
		}
		var x *will
		if c.payload != nil {
			var err error
			if x, err = parseWill(c.payload); err != nil {
				w.cfg.Log.Debug("a will can't be read", "topic", topic, "error", err)
			}
		}
		w.watcher.stands(name, c.at, x)
	}
}

// reach reports whether a node can be talked to.
func (w *Watch) reach(id core.NodeID) bool {
	return slices.ContainsFunc(w.cfg.Swarm.Peers(), func(p core.PeerView) bool { return p.ID == id && p.InReach && p.Up })
}

// sees reports whether any node but one can be talked to.
func (w *Watch) sees(except core.NodeID) bool {
	for _, p := range w.cfg.Swarm.Peers() {
		if p.ID != except && p.InReach && p.Up && !p.Left {
			return true
		}
	}
	return false
}
