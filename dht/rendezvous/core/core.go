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
// quiet.go, custody.go, streams.go, debts.go, copies.go (the rendezvous and its replicas), untold.go (the publisher's node to both), acknowledge.go (both), receive.go (the subscriber's node). The way of a
// subscription: registrant.go (its node), register.go and replicate.go (the rendezvous and the other members),
// inherit.go (locations below), unsettled.go (what is owed to those that were missed). Retained messages:
// retained.go, query.go. Who is responsible: peers.go, lease.go, heard.go, set.go, location.go, founding.go, lookup.go, change.go,
// handover.go, pump.go, leave.go, gone.go. What a Node is given and gives is in config.go, store.go and effects.go.
package core

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
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

// is reports whether id is a peer with a database, or, where that is 0, with any.
func (id NodeID) is(peer string, db uint64) bool {
	return id.Peer() == peer && (db == 0 || binary.BigEndian.Uint64([]byte(id[:8])) == db)
}

// valid reports whether id can be a node's name.
func (id NodeID) valid() bool { return len(id) >= proto.MinNodeSize && len(id) <= proto.MaxNodeSize }

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

	peers      map[NodeID]*peer
	leftBefore map[NodeID]leftNode // that have left, as others say, and that this node has not heard of else
	ordered    []*peer             // of peers, in the order of their names, so that what happens is the same every time
	locations  map[dht.Location]*location
	routes     map[Place]*route
	inherited  map[dht.Location]*inherited
	epochs     map[uint64]*received
	mine       map[uint64]*sending     // this node's epochs as a publisher
	arrivals   map[*pending][]newcomer // sessions that have come while a message was on its way
	arriving   int                     // in these
	streams    map[uint64]*stream      // epochs that come here, as a rendezvous or a second copy
	handed     map[uint64]*handed      // epochs that went with a location to another node, and are not here any more
	relayed    map[uint64]relayed      // epochs that were passed on, and where their acknowledgements go
	queries    map[uint64]*query
	asked      []*query
	toAsk      fifo[*query] // that wait for others to end
	lacking    []lacking
	lookups    map[dht.Location]*lookup
	strangers  map[NodeID]time.Duration // nodes that are no peers, and when they were dialled last
	timers     timers

	op    uint64   // the last number given to an operation
	seqs  uint64   // the highest number of a registration that was forgotten
	clock uint64   // hybrid logical clock: the last stamp given or seen
	lead  int64    // the latest time given or seen, less what now was then, in milliseconds
	told  int64    // that of what others were told
	dated []*entry // messages of which is to be written who is done with them

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
	joined  bool          // it came to others that served, with empty hands
	brings  bool          // it has locations from an earlier life, or has made a set of which it is the only member
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
		mine: map[uint64]*sending{}, arrivals: map[*pending][]newcomer{}, trails: map[any]*trail{}, streams: map[uint64]*stream{},
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

// Stats returns the counters.
func (n *Node) Stats() Stats { return n.stats }

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
