// Package rendezvous is what a node does at locations, and how it reaches those of others: it carries
// messages from publishers to the rendezvous of their topic and from there to subscribers' nodes, and keeps
// registrations and retained messages where they belong. Package core decides; this package is the driver:
// streams, clock, queues, locks.
//
// # How events and effects flow
//
// Events are frames from peers, calls of the node's broker, and ticks. Each batch of them goes through the
// core under Service.mu; its effects are carried out in their order before the next batch's. Frames are
// encoded into their links' buffers under that lock, so that the order in which the core sends is the order on
// the wire; deliveries are handed to the broker outside of it, under deliverMu, which is taken before mu is
// let go. Calls back to the owner (promises, retained messages) go through a queue of their own.
//
// # Goroutines
//
//   - runTick: lets the core's time pass. Owner Service, ends in Close.
//   - runCalls: calls back to the owner. Owner Service, ends in Close, when the queue is empty.
//   - runDones: takes in what the broker has done with deliveries, and what has become safe. Owner Service, ends in Close.
//   - lookups: one for each location being looked up, at most maxLookups at work. Owner Service, bounded.
//   - runLink: one for each connected peer: has the stream to it opened, again when it breaks. Owner link, ends when
//     the peer is lost or in Close.
//
// These are in libp2p, which does not always let go when it is told to (see routeStream). Nobody waits for them,
// and what they do when their stream has been given up comes to nothing:
//
//   - runOpen, runReset: for a stream that is opened, or given up. They end when libp2p has done it.
//   - runWriter, runWatch: for the stream that is written. They end with it.
//   - link.read: for a stream that is read, in libp2p's goroutine. It ends with it, which is with its link at the
//     latest.
//
// Locks, in this order: Service.mu, Service.deliverMu; Service.mu, outbound.mu or routeStream.mu; callMu and doneMu
// are taken last.
package rendezvous

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// Config is what a Service is made with.
type Config struct {
	Host host.Host
	// Database is the random ID of this node's database: a node that lost its database is another node.
	Database uint64
	// Life rises with every start of the node.
	Life uint64
	// Private and Joins: see core.Config.
	Private, Joins bool
	// Restoring: Restored will be called.
	Restoring bool
	// Depth is how many levels of a topic make its location when this node publishes.
	Depth int
	// Small is the number of nodes up to which sets are computed from the nodes known.
	Small    int
	Limits   core.Limits
	Custody  core.Custody
	Retained core.Retained
	Journal  core.Journal
	Received core.Received
	Log      *slog.Logger

	// Addresses returns where other nodes reach this one, as multiaddresses without /p2p.
	Addresses func() []string
	// Dial asks for a connection to a node that others know; Forget withdraws that. They do not block.
	Dial   func(peer.AddrInfo)
	Forget func(peer.ID)
	// Reconnect gives up the connections to a node, and makes others, because they seem to carry nothing. It does not block.
	Reconnect func(peer.ID)
	// Closest looks up the peers closest to the SHA-256 of a key, only such as have answered; see dht.Host.
	Closest func(ctx context.Context, key []byte) ([]peer.ID, error)
	// Deliver hands messages to the broker, in order, one call at a time. It must not block, and may call
	// Service.Done but nothing else of it. The slice is the Service's again when it returns.
	Deliver func([]core.Delivery)
	// Accept says that the clients that messages came from may have their acknowledgements, those that are not Kept once what
	// Custody was told so far is safe. It must not block. The slice is the Service's again when it returns.
	Accept func([]Accepted)
	// Sync calls done once when everything that the stores were told so far will survive, or, with an error, when it can't be
	// made to. It must not block; done may be called from within, and does not. SyncInTime is Sync for who is in no hurry.
	Sync       func(done func(error))
	SyncInTime func(done func(error))
	Pending    Pending
	// Tap, for tests, sees every frame before it is sent. nil: nobody does.
	Tap func(to peer.ID, frame any)
}

// Accepted is a client's message that is kept. It may come twice, the second time with Kept; the first of those who acknowledge
// it does, as Once says.
type Accepted struct {
	Origin  any // as it was given to Publish
	Once    *core.Once
	Packet  uint16
	Custody core.CustodyAt
	Kept    bool // by others, or those have it that it is for: this node's disk need not be waited for
}

// What is ours to tune.
const (
	tickEvery = 100 * time.Millisecond
	// quietMargin is taken off a lease before it is relied on outside of the core: runTick's clock, which the
	// hot path reads, may be that much behind.
	quietMargin = 3 * tickEvery
	// maxLookups bounds the lookups at a time, lookupTimeout each of them.
	maxLookups    = 8
	lookupTimeout = 8 * time.Second
)

// Service runs a node's part in the locations of its swarm. All methods are safe for concurrent use.
type Service struct {
	cfg  Config
	self core.NodeID
	log  *slog.Logger

	mu       sync.Mutex
	core     *core.Node
	links    map[peer.ID]*link
	byNode   map[core.NodeID]*link
	dirty    []*link             // with something to write
	warned   map[proto.Kind]bool // kinds of frames of which one was too long
	effects  []core.Effect
	quiets   int // prefixes in quiet
	outsides int // how many goroutines are to carry out effects outside of mu
	leaving  bool
	closed   bool

	deliverMu  sync.Mutex
	deliveries []core.Delivery
	accepted   []Accepted
	called     []func()

	callMu   sync.Mutex
	calls    []func()
	callWake chan struct{}

	doneMu    sync.Mutex
	dones     []done
	safeCalls []func() // for the core: what they waited for is safe
	doneWake  chan struct{}

	quiet   atomic.Pointer[sync.Map] // prefix → time.Duration until which nobody else wants QoS 0
	full    atomic.Bool              // there are places that there is no room for
	detours atomic.Int64
	coarse  atomic.Int64 // the clock, as of the last tick

	stats   Stats
	left    chan struct{}
	ticked  chan struct{} // gets one at each turn of runTick that somebody waits for
	lookups chan struct{} // holds one for each that runs

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New makes a Service and starts it. Tell it of connected peers by OnPeer.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg, log: cfg.Log, links: map[peer.ID]*link{}, byNode: map[core.NodeID]*link{}, warned: map[proto.Kind]bool{},
		callWake: make(chan struct{}, 1), doneWake: make(chan struct{}, 1), left: make(chan struct{}), ticked: make(chan struct{}),
		lookups: make(chan struct{}, maxLookups)}
	s.self = core.MakeNodeID(cfg.Database, string(cfg.Host.ID()))
	s.core = core.New(core.Config{Self: s.self, Depth: cfg.Depth, Small: cfg.Small,
		Limits: cfg.Limits, Rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), //nolint:gosec // identities need not be secret
		Custody: cfg.Custody, Retained: cfg.Retained, Journal: cfg.Journal, Received: cfg.Received, Life: cfg.Life, Private: cfg.Private, Joins: cfg.Joins, Restoring: cfg.Restoring, Log: cfg.Log})
	s.quiet.Store(new(sync.Map))
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.coarse.Store(int64(bootTime()))
	cfg.Host.SetStreamHandler(proto.RouteProtocol, s.incoming)
	s.wg.Go(s.runTick)
	s.wg.Go(s.runCalls)
	s.wg.Go(s.runDones)
	return s
}

// Self returns the name of this node.
func (s *Service) Self() core.NodeID { return s.self }

// step puts events through the core and carries out their effects.
func (s *Service) step(events func(*core.Node)) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.core.At(bootTime(), time.Now())
	events(s.core)
	s.finish()
}

// Publish takes over messages of one client, in order.
func (s *Service) Publish(batch []core.Publication) {
	s.step(func(n *core.Node) {
		for i := range batch {
			n.Publish(batch[i])
		}
	})
}

// Wanted reports whether anybody beyond this node's own plain subscribers may want QoS 0 messages of a
// topic. It takes no lock.
func (s *Service) Wanted(topic string) bool {
	prefix, _ := dht.Prefix(topic, s.cfg.Depth)
	until, ok := s.quiet.Load().Load(prefix)
	return !ok || until.(time.Duration) <= time.Duration(s.coarse.Load())
}

// Room reports whether messages on a topic can be taken over: there is a limit on the locations that this node deals with.
// It takes no lock while that is far.
func (s *Service) Room(topic string) bool {
	if !s.full.Load() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Room(topic)
}

// RoomToRegister reports the same of a filter.
func (s *Service) RoomToRegister(filter string) bool {
	if !s.full.Load() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.RoomToRegister(filter)
}

// Detour reports whether a message about to be published is to reach this node's own subscribers by way of
// its rendezvous alone.
func (s *Service) Detour(m *proto.Message) bool {
	if m.Retain {
		return true
	}
	if s.detours.Load() == 0 {
		return false
	}
	s.mu.Lock()
	detour := s.core.Detour(m)
	if !detour { // what came back, and so is no detour any more, may still be on the way to the broker
		s.mu.Unlock()
		s.deliverMu.Lock()
		s.deliverMu.Unlock() //nolint:staticcheck // it was waited for
		return false
	}
	s.mu.Unlock()
	return detour
}

// Register tells what this node's subscribers want of a filter; see core.Node.Register.
func (s *Service) Register(filter string, interest core.Interest, done func(local bool)) {
	s.step(func(n *core.Node) { n.Register(filter, interest, done) })
}

// Arrived says that a session has come to this node; see core.Node.Arrived.
func (s *Service) Arrived(name string, filters []string, lost bool, done func()) {
	s.step(func(n *core.Node) { n.Arrived(name, filters, lost, done) })
}

// Carried says that another node has taken over messages with a session; see core.Node.Carried.
func (s *Service) Carried(ids []core.Identity, to, name string, hold time.Duration, done func()) {
	s.step(func(n *core.Node) { n.Carried(ids, to, name, hold, done) })
}

// Restored says that everything is registered that sessions from before this process was started want. Until then what stands
// for them is left alone.
func (s *Service) Restored() { s.step(func(n *core.Node) { n.Restored() }) }

// Retained asks for the retained messages that match a filter; see core.Node.Retained.
func (s *Service) Retained(filter string, each func([]*proto.Message), done func()) {
	s.step(func(n *core.Node) { n.Retained(filter, each, done) })
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Service) queueCall(f func()) {
	s.callMu.Lock()
	s.calls = append(s.calls, f)
	s.callMu.Unlock()
	wake(s.callWake)
}

func (s *Service) runCalls() {
	for {
		select {
		case <-s.callWake:
		case <-s.ctx.Done():
		}
		s.callMu.Lock()
		calls := s.calls
		s.calls = nil
		s.callMu.Unlock()
		for _, f := range calls {
			f()
		}
		if len(calls) == 0 && s.ctx.Err() != nil {
			return
		}
	}
}

func (s *Service) runTick() {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-s.ctx.Done():
			return
		}
		s.coarse.Store(int64(bootTime()))
		s.step(func(n *core.Node) { n.Tick() })
		select {
		case s.ticked <- struct{}{}:
		default:
		}
	}
}

// Alive returns nil when the Service has shown that it does its work: its time has passed once more, and what was
// queued for the owner has been called. At the end of ctx it says what hangs. It is for who restarts a node that does
// not answer any more.
func (s *Service) Alive(ctx context.Context) error {
	called := make(chan struct{})
	s.queueCall(func() {
		s.deliverMu.Lock()   // which is held as long as the broker takes a delivery in
		s.deliverMu.Unlock() //nolint:staticcheck // SA2001: that it can be had is all that is wanted
		close(called)
	})
	select {
	case <-s.ticked:
	case <-ctx.Done():
		return errors.New("the time of the locations stands still")
	}
	select {
	case <-called:
		return nil
	case <-ctx.Done():
		return errors.New("messages or answers from the swarm are not taken in")
	}
}

// OnPeer tells that a node of the swarm has connected, or is lost.
func (s *Service) OnPeer(id peer.ID, connected bool) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	if !connected {
		if l := s.links[id]; l != nil {
			s.dropLocked(l, errors.New("the connection is gone"))
			delete(s.links, id)
			l.end()
		}
		s.finish()
		return
	}
	s.linkLocked(id).told = true
	s.finish()
}

// Close stops at once, without leaving politely. When it returns nothing is delivered, accepted or called back any
// more. It waits for no peer: goroutines that are in libp2p may end a little later.
func (s *Service) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	links := s.links
	s.links = map[peer.ID]*link{}
	s.mu.Unlock()
	s.cfg.Host.RemoveStreamHandler(proto.RouteProtocol)
	for _, l := range links {
		l.end()
	}
	s.cancel()
	s.wg.Wait()
	s.deliverMu.Lock()   // who came before is still carrying effects out
	s.deliverMu.Unlock() //nolint:staticcheck // SA2001: waiting is all that is wanted
	return nil
}

// incoming takes the stream that another node has opened.
func (s *Service) incoming(stream network.Stream) {
	in, id := newRouteStream(stream), stream.Conn().RemotePeer()
	s.mu.Lock()
	l := s.links[id]
	if l == nil && !s.closed && s.connected(id) { // a stream may come before OnPeer tells of the peer, or after it is lost
		l = s.linkLocked(id)
	}
	if l == nil {
		s.mu.Unlock()
		in.cut()
		return
	}
	s.mu.Unlock()
	l.read(in)
}
