// Package core decides what a node does at a location and how it reaches others: sets and their versions,
// leases, registrations, custody, message identities and retained messages, as DESIGN.md's "Locations" and
// "The way of an open message" say.
//
// It is a pure state machine, after the model of etcd's raft: events go in by the methods of Node, effects
// come out by Take; there is no clock, no goroutine, no lock and no I/O in it. The driver (package
// rendezvous) carries the effects out in their order; the simulation in the tests does the same with a
// thousand seeds. The same events at the same times give the same effects.
//
// The way of a message through the files: publish.go and route.go (the publisher's node), arrive.go, match.go, serve.go,
// quiet.go, custody.go, streams.go, debts.go, copies.go (the rendezvous and its replicas), acknowledge.go (both), receive.go (the subscriber's node). The way of a
// subscription: registrant.go (its node), register.go and replicate.go (the rendezvous and the other members),
// inherit.go (locations below), unsettled.go (what is owed to those that were missed). Retained messages:
// retained.go, query.go. Who is responsible: peers.go, lease.go, heard.go, set.go, location.go, founding.go, lookup.go, change.go,
// handover.go, pump.go, leave.go, gone.go.
package core

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// NodeID names a node with its database: 8 bytes of database ID, then the peer ID in bytes. A node whose
// database was lost comes back under another name, and so counts as a new node until it is refilled.
type NodeID string

// MakeNodeID joins the ID of a database and a peer ID in bytes.
func MakeNodeID(db uint64, peer string) NodeID {
	return NodeID(binary.BigEndian.AppendUint64(nil, db)) + NodeID(peer)
}

// Peer returns the peer ID in bytes.
func (id NodeID) Peer() string { return string(id[8:]) }

// valid reports whether id can be a node's name.
func (id NodeID) valid() bool { return len(id) >= proto.MinNodeSize && len(id) <= proto.MaxNodeSize }

// What the protocol fixes: every node must agree on these.
const (
	// SetSize is r, the number of nodes responsible for a location.
	SetSize = 3
	// LeaseTime is how long a lease lasts at most.
	LeaseTime = 5 * time.Second
	// MinHold is how long a registration stands at least without being refreshed.
	MinHold = 10 * time.Minute
	// MaxHold bounds what anything is kept for.
	MaxHold = 7 * 24 * time.Hour
)

// What is ours to tune.
const (
	// promiseTime is how long a subscription waits for a majority before it is promised locally.
	promiseTime = 2 * time.Second
	// copyAfter is how long the publisher's own copy counts as the second.
	copyAfter = time.Second
	// deadAfter is how long a member is out of reach before it is replaced.
	deadAfter = time.Minute
	// leaseEvery is how often a lease is asked for again: three chances before it ends.
	leaseEvery = 1500 * time.Millisecond
	// useFor is how long a node that was published through counts as one that is depended on.
	useFor = 30 * time.Second
	// mergeTime is how long sets may take to become one after swarms have met: some changes of them.
	mergeTime = 10 * time.Second
	// retryAfter is when a message that nobody has answered for is sent again, retryLeaving when its node is leaving.
	retryAfter   = 2 * LeaseTime
	retryLeaving = 3 * time.Second
	// epochLife and epochSize end a publisher's epoch, so that it says nothing about who publishes.
	epochLife = 10 * time.Minute
	epochSize = 10_000
	// epochIdle ends an epoch that is not used, so that nobody has to remember it for longer.
	epochIdle = time.Minute
	// identityTime is for how long identities are remembered that nobody says are over: who published or passed them
	// on may be away for MaxHold, and send them again.
	identityTime = 2 * MaxHold
	// opTime is how long an operation may go unanswered at a node in reach.
	opTime = 30 * time.Second
	// refreshEvery is how often registrations are refreshed: three chances within MinHold.
	refreshEvery = 3 * time.Minute
	// changeTime is how long one attempt to change a set may take.
	changeTime = 3 * time.Second
	// digestEvery is how often a member compares what it has with the rendezvous.
	digestEvery = time.Minute
	// fullTick is how often everything is gone through, not only what waits for something.
	fullTick = 2 * time.Second
	// bareTurns is in how many of these those locations have their turn that hold nothing.
	bareTurns = 5
	// forgetEvery is how often subscribers' nodes are told what they may forget, where no message tells it.
	forgetEvery = time.Second
)

// Limits bounds what a node keeps for others and itself. What they drop is counted in Stats.
type Limits struct {
	Outbox         int // messages of this node that nobody else has yet; beyond it, PUBACKs wait
	OutboxBytes    int
	Away           int // messages kept for one node that is out of reach or has them itself; the oldest are dropped
	AwayBytes      int
	Custody        int // messages beyond which publishers' nodes are not relieved of theirs; beyond twice that, none is taken
	CustodyBytes   int
	Unsettled      int // messages kept at a location that lacks a majority; the oldest are dropped
	UnsettledBytes int // at all locations
	Waiting        int // messages that wait at a location until it can serve; beyond it, QoS 0 is dropped
	WaitingBytes   int // at all locations
	Nodes          int // nodes that this node remembers
	Locations      int // locations that this node keeps state for, or knows how to reach; no new ones are taken on beyond it
	Registrations  int // filters that one node may register at one location
	RetainedReply  int // bytes in one frame of retained messages
	UnknownEpochs  int // epochs remembered that nobody has said are over; beyond it, those unused for longest are forgotten
	RetainedTopics int // retained messages at the locations of this node
	RetainedBytes  int
}

// DefaultLimits returns limits that fit a Raspberry Pi 3.
func DefaultLimits() Limits {
	return Limits{Outbox: 20_000, OutboxBytes: 64 << 20, Away: 20_000, AwayBytes: 32 << 20, Custody: 200_000, CustodyBytes: 128 << 20,
		Unsettled: 20_000, UnsettledBytes: 32 << 20, Waiting: 20_000, WaitingBytes: 32 << 20, Nodes: 10_000, Locations: 100_000, Registrations: 100_000, RetainedReply: proto.SoftFrame, UnknownEpochs: 100_000,
		RetainedTopics: 1_000_000, RetainedBytes: 256 << 20}
}

// Config is what a Node is made with.
type Config struct {
	Self NodeID
	// Depth is how many levels of a topic make its location when this node publishes.
	Depth int
	// Small is the number of nodes up to which sets are computed from the nodes known; above it they are
	// looked up.
	Small    int
	Limits   Limits
	Rand     *rand.Rand
	Custody  Custody
	Retained Retained
	Journal  Journal
	Received Received
	// Life rises with every start of the node.
	Life uint64
	// Private says that all nodes are trusted: what one says of another that is not here, that it is gone for good, is believed.
	Private bool
	// Restoring says that sessions from an earlier life are about to be registered: what stands for them is not touched before
	// Node.Restored is called.
	Restoring bool
	Log       *slog.Logger
}

// EffectKind tells what the driver is to do.
type EffectKind uint8

// The effects.
const (
	// Send: send Frame to node To, after everything that was sent to it before. Frames to a node that is not
	// up are dropped; the core knows.
	Send EffectKind = iota
	// Deliver: hand Delivery to this node's broker, after the deliveries before it.
	Deliver
	// Call: run Call, outside of the core.
	Call
	// Dial: connect to node To at Addresses, and keep trying.
	Dial
	// Forget: stop trying to connect to node To.
	Forget
	// Lookup: find the nodes closest to Place, and report them by Node.LookedUp.
	Lookup
	// Accept: acknowledge packet Packet of the client at Delivery.Origin, saying Custody, once what was said so far to Custody will
	// survive, unless AcceptKept came first: Once tells.
	Accept
	// Quiet: until Until, nobody beyond this node wants QoS 0 messages to Place, which its own plain
	// subscribers have had.
	Quiet
	// Awake: take back every Quiet, before anything else is done.
	Awake
	// Left: this node has left politely; nobody needs it any more.
	Left
	// Reconnect: what node To is sent seems to go nowhere: give the connection up, and make another.
	Reconnect
	// Safe: call Call, as an event, once what was said so far to Custody, Retained, Journal and Received will survive.
	Safe
	// SafeInTime: the same, where nobody waits for it: what is gone before it is written need not be.
	SafeInTime
	// AcceptKept: as Accept, but at once: others keep the message, or those that it is for have it.
	AcceptKept
)

// Effect is something that the driver is to do.
type Effect struct {
	Frame     any // *proto.Publish, *proto.Deliver or a frame of package pb
	Call      func()
	To        NodeID
	Addresses []string
	Place     Place
	Until     time.Duration
	Delivery  Delivery
	Once      *Once
	Packet    uint16
	Kind      EffectKind
	Custody   CustodyAt // Accept: who has the message
}

// Delivery is a message for subscribers at this node.
type Delivery struct {
	Message *proto.Message // without a Receipt it is lent, and Groups are: good until the effect is carried out
	Groups  []proto.Group
	Origin  any      // what was given to Publish, when the message is this node's own
	Receipt *Receipt // to be given to Node.Done; nil where nobody waits for it
	Plain   bool
}

// Place is a topic prefix with its number of levels; its location is a hash of it.
type Place struct {
	Prefix string
	Depth  int
}

// root is where registrations stand whose filter begins with a wildcard.
var root = Place{}

// Location returns where the place is in the keyspace.
func (p Place) Location() dht.Location { return dht.Locate(p.Prefix, p.Depth) }

func (p Place) pb() *pb.Place {
	return &pb.Place{Prefix: p.Prefix, Depth: uint32(p.Depth)} //nolint:gosec // a count of levels
}

// placeOf converts a place from the wire; ok is false where its depth and its prefix disagree.
func placeOf(p *pb.Place) (place Place, ok bool) {
	if p == nil {
		return root, false
	}
	place = Place{p.Prefix, int(p.Depth)}
	prefix, depth := dht.Prefix(p.Prefix, place.Depth)
	return place, prefix == place.Prefix && depth == place.Depth && len(prefix) <= 65535
}

// above returns the places whose registrations concern p, nearest first, p itself left out. Registrations
// stand at the first level or at the root.
func (p Place) above() []Place {
	switch {
	case p.Depth == 0:
		return nil
	case p.Depth == 1:
		return []Place{root}
	}
	prefix, depth := dht.Prefix(p.Prefix, 1)
	return []Place{{prefix, depth}, root}
}

// Identity names a message: the same through every failover and retry, and nothing about who published it.
type Identity struct{ Epoch, Seq uint64 }

// Node is the state machine of one node.
type Node struct {
	cfg   Config
	self  NodeID
	point dht.Location
	now   time.Duration // a clock that counts on while the machine sleeps
	wall  time.Time
	ahead time.Duration // what has to be added to wall, where that is not set, for the time; see clock.go

	peers     map[NodeID]*peer
	ordered   []*peer // of peers, in the order of their names, so that what happens is the same every time
	locations map[dht.Location]*location
	routes    map[Place]*route
	inherited map[dht.Location]*inherited
	epochs    map[uint64]*received
	mine      map[uint64]*sending        // this node's epochs as a publisher
	arrivals  map[*pending][]proto.Group // sessions that have come while a message was on its way
	arriving  int                        // in these
	streams   map[uint64]*stream         // epochs that come here, as a rendezvous or a second copy
	relayed   map[uint64]relayed         // epochs that were passed on, and where their acknowledgements go
	queries   map[uint64]*query
	asked     []*query
	toAsk     fifo[*query] // that wait for others to end
	lacking   []lacking
	lookups   map[dht.Location]*lookup
	strangers map[NodeID]time.Duration // nodes that are no peers, and when they were dialled last
	timers    timers

	op    uint64 // the last number given to an operation
	seqs  uint64 // the highest number of a registration that was forgotten
	clock uint64 // hybrid logical clock: the last stamp given or seen

	timeless  bool  // the time was not known at the last tick
	sinceBoot int64 // the time at the last tick, less what now was, in milliseconds

	turn uint64 // shared subscriptions at QoS 0 take turns by it

	pulls      int // locations that wait for what they inherit
	detours    int // messages that this node's own subscribers get from the rendezvous
	waiting    int // messages that wait at locations
	waitBytes  int
	unsetBytes int // unsettled
	outCount   int // messages in the outbox
	outBytes   int
	unaccepted fifo[*pending] // messages that are not acknowledged because it is full
	awaited    fifo[*pending] // messages whose acknowledgements wait for another node, in order; some are answered
	hasty      []*location    // with messages to be copied before the effects are taken
	deleted    []deleted      // since the effects were last taken
	freed      []freed        // since the effects were last taken
	trails     map[any]*trail // by client
	trailing   fifo[*trail]   // with a message that waits

	unstored   fifo[Identity] // deliveries whose senders are to be told that they are stored
	nextForget time.Duration
	nextSweep  time.Duration
	lively     []*stream // that something has changed about since they were last gone through

	changed  bool // who is there has changed since the last full tick
	nextFull time.Duration
	fulls    uint64      // full ticks so far
	busy     []*location // that wait for something
	active   []*route
	quiet    map[dht.Location]*location // where somebody was told that nobody is interested

	born    time.Duration // when At was called first
	cut     bool          // see cutOff
	cutAt   time.Duration // when that was found out
	merging time.Duration // until then sets may stand that this node's are about to be joined with

	restoring bool // see Config

	leaving      bool
	leavingSince time.Duration
	forGood      bool // not to come back
	parting      bool // nothing is left to be handed over
	parted       bool // and everybody has heard of it
	left         bool

	out     []Effect
	dirty   []*peer // with acknowledgements to be sent
	scratch matching
	tables  []*table
	stats   Stats

	// Memory for what nobody keeps.
	frames, takenFrames proto.Frames // takenFrames: of the effects that Take has returned
	sparePending        *pending
	spareFreed          []freed
	spareArrival        *arrival
}

// Stats counts what happened, for metrics.
type Stats struct {
	Published, Forwarded, Matched, Delivered, Duplicates uint64
	DroppedQoS0, DroppedAway, DroppedUnsettled           uint64
	DroppedWaiting, DroppedRetained, Suppressed          uint64
	Malformed, SetChanges, HandOvers, Failovers, Copies  uint64
	PromisesLocal, NoMember                              uint64
	RegistrationsFull, LocationsFull, PeersFull          uint64
	WaitersFull                                          uint64
	DroppedCustody, Refused, Unanswered, ForgottenEpochs uint64
	Held, GivenUp, Unreadable, Late                      uint64
	CustodyNode, SharesMoved                             uint64

	// Kept is how long this node's messages of QoS 1 and 2 waited until others kept them or they were delivered,
	// Promised how long its subscriptions waited for their promise.
	Kept, Promised Histogram
}

// New makes the state machine of a node that knows nobody.
func New(cfg Config) *Node {
	n := &Node{
		cfg: cfg, self: cfg.Self, restoring: cfg.Restoring, point: dht.PeerPoint(cfg.Self.Peer()),
		peers: map[NodeID]*peer{}, locations: map[dht.Location]*location{}, routes: map[Place]*route{},
		inherited: map[dht.Location]*inherited{}, epochs: map[uint64]*received{}, relayed: map[uint64]relayed{},
		mine: map[uint64]*sending{}, arrivals: map[*pending][]proto.Group{}, trails: map[any]*trail{}, streams: map[uint64]*stream{},
		queries: map[uint64]*query{}, quiet: map[dht.Location]*location{}, lookups: map[dht.Location]*lookup{},
	}
	n.op = cfg.Rand.Uint64() >> 1 // so that an answer meant for an earlier life means nothing
	return n
}

// At tells the time before an event: mono on a clock that never jumps, wall for messages' lives and stamps.
func (n *Node) At(mono time.Duration, wall time.Time) {
	n.now, n.wall = mono, wall
	if n.born == 0 {
		n.born = mono
		n.restore()
	}
}

// Take returns the effects of the events since the last Take. The slice is reused by the events after the
// next Take, so that at most two are in use. A Publish or a Deliver in them is good until the next Take.
func (n *Node) Take(reuse []Effect) []Effect {
	n.flushHasty()
	n.flushAcks()
	n.flushFreed()
	n.flushDeleted()
	n.frames, n.takenFrames = n.takenFrames, n.frames
	n.frames.Reset() // whose effects have been carried out
	out := n.out
	n.out = reuse[:0]
	return out
}

// Stats returns the counters.
func (n *Node) Stats() Stats { return n.stats }

func (n *Node) send(to NodeID, frame any) {
	n.out = append(n.out, Effect{Kind: Send, To: to, Frame: frame})
}

func (n *Node) call(f func()) {
	if f != nil {
		n.out = append(n.out, Effect{Kind: Call, Call: f})
	}
}

// safe has do run as an event of its own, once what was said to the stores so far will survive.
func (n *Node) safe(do func()) {
	n.out = append(n.out, Effect{Kind: Safe, Call: do})
}

// safeInTime is safe for what nobody waits for.
func (n *Node) safeInTime(do func()) {
	n.out = append(n.out, Effect{Kind: SafeInTime, Call: do})
}

// request sends a frame made for a new operation number, and has done called with whether it was
// acknowledged: false when the node cannot, has said nothing for opTime, or went out of reach first.
func (n *Node) request(to NodeID, frame func(op uint64) any, done func(ok bool)) {
	p := n.peers[to]
	if p == nil || !p.up {
		done(false)
		return
	}
	n.op++
	p.ops[n.op] = operation{done, n.now}
	n.send(to, frame(n.op))
}

// operation is a request that is waited for.
type operation struct {
	done func(ok bool)
	at   time.Duration
}

// answered ends an operation.
func (p *peer) answered(op uint64, ok bool) {
	if o, waits := p.ops[op]; waits {
		delete(p.ops, op)
		o.done(ok)
	}
}

// tickOperations ends what nodes in reach have left unanswered.
func (n *Node) tickOperations() {
	for _, p := range slices.Clone(n.ordered) {
		for _, op := range sortedKeys(p.ops) {
			if o, waits := p.ops[op]; waits && n.now-o.at > opTime {
				n.stats.Unanswered++
				p.answered(op, false)
			}
		}
	}
}

// Tick lets time do its work. The driver calls it several times a second.
func (n *Node) Tick() {
	n.tickClock()
	n.tickTimers()
	n.tickLeases()
	full := n.changed || n.now >= n.nextFull
	if full {
		n.changed, n.nextFull = false, n.now+fullTick
	}
	if full {
		n.forgetPeers()
		n.tickOperations()
		n.tickTrails()
		n.tickShared()
	}
	n.tickRoutes(full)
	n.tickAwaited()
	n.acceptMore()
	n.tickLocations(full)
	n.tickInherited()
	n.tickLookups()
	n.tickReceived()
	n.tickQueries()
	n.tickLeave()
}

func (n *Node) sortedLocations() []*location {
	all := make([]*location, 0, len(n.locations))
	for _, l := range n.locations {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *location) int { return cmpLocation(a.at, b.at) })
	return all
}

// tickLocations goes through the locations that wait for something, or through all.
func (n *Node) tickLocations(full bool) {
	all := n.busy
	if full {
		all = n.attended()
	}
	slices.SortFunc(all, func(a, b *location) int { return cmpLocation(a.at, b.at) })
	n.busy = nil
	for _, l := range all {
		l.busy = false
	}
	for _, l := range all {
		if n.locations[l.at] != l {
			continue
		}
		if n.tickLocation(l, full); l.waits() {
			n.watch(l)
		}
	}
}

// watch has a location looked after at every tick.
func (n *Node) watch(l *location) {
	if !l.busy {
		l.busy = true
		n.busy = append(n.busy, l)
	}
}

// waits reports whether a location needs every tick.
func (l *location) waits() bool {
	return l.phase != serving && l.phase != standby || len(l.registers) > 0 || l.change != nil || l.unsettled.len() > 0 ||
		len(l.onListed) > 0 || l.pulling || l.order.len() > 0 || l.waiting.len() > 0 || len(l.calls) > 0
}

func cmpLocation(a, b dht.Location) int { return bytes.Compare(a[:], b[:]) }

// sortedKeys returns the keys of a map in order, where the order of effects depends on it.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
