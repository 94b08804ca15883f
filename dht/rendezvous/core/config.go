package core

import (
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

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
	// missedFor is for how long a node that was out of reach may still have something of that time for others.
	missedFor = 10 * time.Second
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
	// Joins says that this node knows nobody yet, and others may have been there for long.
	Joins bool
	// Restoring says that sessions from an earlier life are about to be registered: what stands for them is not touched before
	// Node.Restored is called.
	Restoring bool
	Log       *slog.Logger
}
