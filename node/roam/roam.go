package roam

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Swarm is what claims travel by; rendezvous.Service is one.
type Swarm interface {
	Register(filter string, interest core.Interest, done func(local bool))
	Retained(filter string, each func([]*proto.Message), done func())
	Publish(batch []core.Publication)
	Done(r *core.Receipt)
	Reaches(id peer.ID, database uint64) bool
	Forgotten(id peer.ID) bool
	Missing() bool
	Expects() bool
	Merged() bool
}

// Broker is what has the sessions; *mqttfront.Broker is one.
type Broker interface {
	Depart(ctx context.Context, key, to string, number uint64, fresh bool) *mqttfront.Departure
	Departing(key, to string, number uint64) *mqttfront.Departure
	GoneTo(key string) string
	Yield(key, to string, number uint64)
	Reclaim(key, to string, number uint64) *mqttfront.Departure
	Sessions(each func(key string, rec mqttfront.SessionRecord))
	Has(key string) (born, number uint64, here bool)
	Connected(key string) bool
	Adopt(key string, rec mqttfront.SessionRecord, from mqttfront.Lost)
	Join(key string, a mqttfront.Arrival) bool
	Left() []mqttfront.Left
	Offer(l mqttfront.Left, to string)
	Drop(l mqttfront.Left)
}

// Config is what a Roam is made with.
type Config struct {
	Host     host.Host
	Database uint64 // of this node; see core.NodeID
	Joins    bool   // a swarm that it knows nobody of yet, though others may have been there for long
	Swarm    Swarm
	Broker   Broker
	// Resumed says that a client has gone on here with a session that a node had which can't be reached, so that nobody sends its
	// will of there. It waits for that, until ctx is over.
	Resumed func(ctx context.Context, node peer.ID, key string)
	Log     *slog.Logger
}

// What is ours to tune.
const (
	// keepTime is how long a client waits for the swarm to know its session.
	keepTime = 2 * time.Second
	// holdFor is how long the registration for the claims to a session with an expiry stands while its node is away.
	holdFor = core.MaxHold
	// maxVerified is how many sessions are asked about at a time.
	maxVerified = 64
	// refreshEvery is how often a retained claim is made anew: half of the time after which it would be forgotten.
	refreshEvery = core.MaxHold / 2
	lookEvery    = time.Hour
)

// Roam is mqttfront.Roaming.
type Roam struct {
	cfg     Config
	self    peer.ID
	started time.Time

	// hearing is held while the swarm is told whether claims to a session come here, so that it is told last what is so last. It is
	// taken before mu.
	hearing sync.Mutex

	mu     sync.Mutex
	met    chan struct{} // closed when there is another node: there may be none any more
	held   map[string]*hold
	byName map[string]*hold
	// others has the keys of sessions that are here and of which nothing is known yet, as after a start, and of those that wait to be fetched, by
	// their names.
	others map[string]string
	hints  map[string]hint // by key
	asked  map[*ask]struct{}
	joins  map[mqttfront.Left]struct{} // under way
	alone  map[string]time.Time        // sessions that went on because no other node could be reached, since when

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var _ mqttfront.Roaming = (*Roam)(nil)

// hold is a session that is here, or about to be.
type hold struct {
	key, name string

	// Guarded by Roam.mu.
	number     uint64
	mine       bool             // this node is the holder, as far as it knows
	asks       bool             // whether it is: only a claim that outranks its own ends it meanwhile
	claiming   bool             // a client has it claimed now: until that is done nothing ends it
	ready      bool             // its claims come here, and which was the last is known
	settled    bool             // the claim has been heard of by whoever is registered
	over       bool             // it is not here any more
	fresh      bool             // to be said with the next claim
	from       owner            // has it while it has not come here; the zero one: not known, or it has
	state      *pb.SessionState // nil: without an expiry
	recorded   bool             // something is retained
	publishing bool
	dirty      bool
	pushed     time.Time // when it was said last
	waiters    []func()
	next       []func() // waiters for the claim that is not on its way yet
}

// New makes a Roam. It does nothing before Activate.
func New(cfg Config) *Roam {
	r := &Roam{cfg: cfg, self: cfg.Host.ID(), started: time.Now(), met: make(chan struct{}), held: map[string]*hold{}, byName: map[string]*hold{}, hints: map[string]hint{},
		asked: map[*ask]struct{}{}, joins: map[mqttfront.Left]struct{}{}, alone: map[string]time.Time{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.nameOthers()
	cfg.Host.SetStreamHandler(Protocol, func(s network.Stream) {
		if !r.goes(func() { r.runServe(s, s.Conn().RemotePeer()) }) { // Close waits for it: it reads what is kept
			_ = s.Reset()
		}
	})
	return r
}

// Close ends what is under way, and waits for it.
func (r *Roam) Close() {
	r.cfg.Host.RemoveStreamHandler(Protocol)
	r.mu.Lock()
	r.cancel()
	r.mu.Unlock()
	r.wg.Wait()
}

// goes runs f in a goroutine that Close waits for.
func (r *Roam) goes(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return false
	}
	r.wg.Go(f)
	return true
}

// Activate says that there are other nodes. From then on sessions roam.
func (r *Roam) Activate() {
	r.mu.Lock()
	was := r.Active()
	if !was {
		close(r.met)
	}
	r.mu.Unlock()
	if !was {
		r.goes(r.runVerify)
		r.goes(r.runRefresh)
		r.goes(r.runOffers)
	}
}

// runRefresh makes retained claims anew in time.
func (r *Roam) runRefresh() {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-t.C:
		}
		r.nameOthers()
		var old []*hold
		r.mu.Lock()
		for _, h := range r.held {
			if h.state != nil && h.ready && time.Since(h.pushed) > refreshEvery {
				old = append(old, h)
			}
		}
		r.mu.Unlock()
		for _, h := range old {
			r.push(h)
		}
	}
}

// outrankedLocked reports whether a claim ends that this node is the holder, or may turn out to be.
func (h *hold) outrankedLocked(c *claim, self peer.ID) bool {
	return !h.mine && !h.asks || outranks(c.GetNumber(), c.node, h.number, self)
}

// holdLocked returns what is known of a session here, and makes it where nothing is.
func (r *Roam) holdLocked(key string) *hold {
	h := r.held[key]
	if h == nil {
		h = &hold{key: key, name: NameOf(key)}
		r.held[key], r.byName[h.name] = h, h
	}
	return h
}

// KeyOf returns the key of a session here that has a name; "" where there is none.
func (r *Roam) KeyOf(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.byName[name]; h != nil {
		return h.key
	}
	return r.others[name]
}

// nameOthers finds the names of the sessions that are here, and of those that wait to be fetched.
func (r *Roam) nameOthers() {
	all := map[string]string{}
	r.cfg.Broker.Sessions(func(key string, _ mqttfront.SessionRecord) { all[NameOf(key)] = key })
	for _, l := range r.cfg.Broker.Left() {
		all[NameOf(l.Key)] = l.Key
	}
	r.mu.Lock()
	before := maps.Clone(r.others)
	r.mu.Unlock()
	for name, key := range before {
		if r.cfg.Broker.GoneTo(key) != "" { // being fetched
			all[name] = key
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, key := range r.others {
		if _, was := before[name]; !was {
			all[name] = key
		}
	}
	r.others = all
}

// Active implements mqttfront.Roaming.
func (r *Roam) Active() bool {
	select {
	case <-r.met:
		return true
	default:
		return false
	}
}

// Alone implements mqttfront.Roaming.
func (r *Roam) Alone() (number uint64, expects bool) {
	if r.Active() {
		return 0, false
	}
	return r.next(0), r.expects()
}

// expects reports whether there should be other nodes.
func (r *Roam) expects() bool { return r.cfg.Joins || r.cfg.Swarm.Expects() }

// Holds implements mqttfront.Roaming.
func (r *Roam) Holds(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[key]
	return h != nil && h.mine
}

func (r *Roam) me() owner { return owner{r.self, r.cfg.Database} }

// Release implements mqttfront.Roaming.
func (r *Roam) Release(key string) {
	r.mu.Lock()
	h := r.held[key]
	if h == nil || h.over || h.claiming {
		r.mu.Unlock()
		return
	}
	calls := r.dropLocked(h)
	r.mu.Unlock()
	for _, f := range calls {
		f()
	}
	r.unhear(h)
}

// Begin implements mqttfront.Roaming.
func (r *Roam) Begin(key string) {
	r.mu.Lock()
	if !r.Active() {
		r.mu.Unlock()
		return
	}
	h := r.holdLocked(key)
	h.fresh, h.state, h.from = true, nil, owner{}
	h.number = r.next(h.number)
	h.mine = true
	ready := h.ready
	r.mu.Unlock()
	if ready {
		r.push(h)
		return
	}
	r.take(h, true)
}

// Keep implements mqttfront.Roaming.
func (r *Roam) Keep(key string, rec mqttfront.SessionRecord, done func()) {
	r.mu.Lock()
	h := r.held[key]
	if !r.Active() || h == nil || h.over {
		r.mu.Unlock()
		if done != nil {
			done()
		}
		return
	}
	lasted := h.state != nil
	h.state = stateOf(rec)
	if done != nil {
		var once sync.Once
		h.next = append(h.next, func() { once.Do(done) })
		patience := keepTime
		if len(r.cfg.Host.Network().Peers()) == 0 { // nobody else is to know
			patience = 0
		}
		time.AfterFunc(patience, func() { once.Do(done) })
	}
	r.mu.Unlock()
	if !lasted {
		r.hear(h, true, nil)
	}
	r.push(h)
}

// End implements mqttfront.Roaming.
func (r *Roam) End(key string) {
	r.mu.Lock()
	h := r.held[key]
	if h == nil || h.over || h.claiming {
		r.mu.Unlock()
		return
	}
	clears := h.recorded && h.mine
	calls := r.dropLocked(h)
	r.mu.Unlock()
	for _, f := range calls {
		f()
	}
	if clears {
		r.publish(h, nil, true, nil)
	}
	r.unhear(h)
}

// dropLocked forgets a session; what is returned is to be called.
func (r *Roam) dropLocked(h *hold) (calls []func()) {
	h.over, h.mine, h.ready = true, false, false
	if r.held[h.key] == h {
		delete(r.held, h.key)
		delete(r.byName, h.name)
	}
	calls = slices.Concat(h.waiters, h.next)
	h.waiters, h.next = nil, nil
	return calls
}
