package mqttfront

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// Swarm is what the broker needs of the nodes around it. It is implemented by the node; a node without
// peers has one too, which is its own rendezvous for every topic.
//
// All methods are safe for concurrent use, return at once and never wait for a peer or a disk. Topics that
// begin with "$" never go to it.
type Swarm interface {
	// Detour reports whether m, about to be published, is to be served to this node's own plain
	// subscribers only when the swarm brings it back through Broker.Deliver. That is so for retained
	// messages, which their rendezvous puts in order, and for those right behind them. It is asked once
	// for each message, before Publish, from the publisher's goroutine; for one without Retain when all
	// messages of that publisher for which it was true have gone through Publish. m is good during the call
	// only.
	Detour(m *proto.Message) bool

	// Wanted reports whether QoS 0 messages of a topic have to go through Publish: false when nobody beyond
	// this node's own plain subscribers wants them now, which the broker serves itself. It is consulted for
	// QoS 0 messages without Retain that need no detour, for each of them, and must cost next to nothing.
	Wanted(topic string) bool

	// Room reports whether a message on a topic can be taken over: false while the node deals with as many locations as
	// it may, and that is at none of them. It is asked for each message of QoS 1 or 2, before anybody gets it, and must
	// cost next to nothing. What is published all the same, of those that were asked for together, is taken over.
	Room(topic string) bool

	// RoomToRegister reports the same of a filter that somebody is about to subscribe to.
	RoomToRegister(filter string) bool

	// Publish takes over a batch of messages that one client of this node published, in order. The slice
	// belongs to the caller again when Publish returns; the messages belong to everybody, but for those that are Lent.
	Publish(batch []Outgoing)

	// Register tells the swarm what this node's subscribers want of a filter, all of them taken together;
	// the zero Interest withdraws it. done, which may be nil, is called once, from any goroutine or from
	// within Register: when whatever anybody publishes anywhere reaches this interest (or a later one of
	// the same filter), or when the swarm gives up promising more than this node. It must not block.
	Register(filter string, interest Interest, done func(Promise))

	// Retained asks for the retained messages that match a filter. each is called with some at a time,
	// from any goroutine, one call after another; then done, once. Messages come with Retain set, at most
	// one for each topic. Asked after Register for the same filter, it misses nothing: a retained message
	// that is not in the answer comes through Broker.Deliver. A few questions of one client are open at a time.
	Retained(filter string, each func([]*proto.Message), done func())

	// Receipt returns what is to be told of a delivery from before this process was started, of which a session has an entry
	// with its Mark.
	Receipt(m Mark) Receipt

	// OpenFor says that deliveries wait for some sessions alone, MaxOpen at most, or for none that outlives its connection. Others, which were
	// through with them in time, will not get them again elsewhere where this node is destroyed. It must not block.
	OpenFor(ms []Mark, keys []string)

	// Through says that a session is through with deliveries that OpenFor may have said wait for it, of each before Done of its Receipt. It
	// must not block.
	Through(ms []Mark, key string)

	// Arrived says that a session has come from another node, with the filters of its subscriptions that are not shared. What clients
	// of this node have published that may not have gone to where it was comes through Broker.Deliver, for it alone, once: it was not
	// here when they were served. lost says that it comes without what is sent to where it was. done, which may be nil, is called once, from any goroutine or from within: when nothing of that is on its
	// way any more to where the session was.
	Arrived(key string, filters []string, lost bool, done func())

	// TakeUp says that a session has taken over a message from another node, as it came here: it is done when the Receipt of its Mark says
	// so. What it returns is the entry's Alone.
	TakeUp(m Mark, key string) (alone string)

	// Carried says that another node has taken over messages of a session that has gone there, which were delivered here, and for how
	// long the swarm is to keep them while that node is away. done is called once, from any goroutine: when whoever waits to hear that they are
	// done waits for the other node, or can't be told. Until then they are to be kept here.
	Carried(ms []Mark, key, to string, hold time.Duration, done func())

	// RetainedHere is the number of retained messages of the swarm that this node keeps, for statistics.
	RetainedHere() int
}

// Outgoing is a message from a client of this node on its way to the swarm.
type Outgoing struct {
	Msg *proto.Message
	// Origin is nil for wills. For QoS 0 it is only there to be handed back in Delivery.
	Origin Origin
	// PacketID is handed back in Origin.Accepted.
	PacketID uint16
	// ServedHere says that this node's plain subscribers have the message already (see Swarm.Detour).
	ServedHere bool
	// Note, which may be nil, tells the session store what tells Msg, of QoS 1 or 2, from the same one that comes after a crash.
	// It is called once, from within Publish or later, and what it says is kept with the message, as a whole: what the one and
	// the other tell their stores is in one database. Nobody gets the message before both are safe.
	Note func()
	// ServeHere has this node's plain subscribers get Msg, of QoS 1 or 2, by Broker.Deliver, though Detour was false: with an identity, and kept by
	// others too until they are done with it.
	ServeHere bool
	// Lent says that Msg, but for its Topic, is good until Publish returns, and to be cloned by whoever needs it longer.
	// It is so for messages of QoS 0 that are not retained and are ServedHere.
	Lent bool
	// Epoch, where it is not 0, and 1 are the message's identity, so that it comes once though another node sends it too.
	Epoch uint64
}

// Origin is the connection that a message came from. The broker compares origins to keep No Local.
type Origin interface {
	// Accepted says that a QoS 1 or 2 message is kept by somebody until it is delivered, so that its
	// PUBACK or PUBREC may go out; or, with an error, that it was refused. It is called exactly once for each
	// message with QoS above 0, from any goroutine or from within Publish, and must not block.
	Accepted(packetID uint16, custody Custody, err error)
}

// Custody is what a client is told of where its message is kept.
type Custody uint8

const (
	// CustodyUnsaid: at its node, which goes without saying.
	CustodyUnsaid Custody = iota
	// CustodyNode: at its node alone, though it was to be kept at another one too.
	CustodyNode
	// CustodySwarm: at another node too, or it is with all that it was for.
	CustodySwarm
)

// Interest is what the subscribers of one node want of one filter.
type Interest struct {
	Plain  bool // there are subscribers outside of shared groups
	QoS    byte // the highest that any subscriber asked for
	Groups []GroupInterest
	Hold   time.Duration // the longest session expiry behind it; 0: only while clients are connected
	// Sessions are among the plain ones that were at nodes which cannot be reached: what was sent there for them is wanted here.
	Sessions []SessionInterest
}

// SessionInterest is a session that was at another node.
type SessionInterest struct {
	Key string
	Lost
}

// Lost is a node that can't be reached, or has lost its database. The zero Lost is none.
type Lost struct {
	From     string // peer ID
	Database uint64 // that it had; 0: not known
}

// Zero reports whether nobody wants anything.
func (i Interest) Zero() bool { return !i.Plain && len(i.Groups) == 0 }

// GroupInterest is a node's share in a shared subscription ($share/NAME/FILTER).
type GroupInterest struct {
	Name string
	QoS  byte
	// Members is the number of members with a connection, or of all members if none has one.
	Members int
	// Online says that Members counts members with a connection.
	Online bool
}

// Promise is what the answer to a subscription is worth.
type Promise int

const (
	// PromiseSwarm: what is published anywhere in the swarm from now on reaches the subscription.
	PromiseSwarm Promise = iota
	// PromiseLocal: so much holds for the nodes that can be reached now; for the others once they can be.
	PromiseLocal
)

// Delivery is a message from the swarm for clients of this node.
type Delivery struct {
	// Msg is lent where there is no Receipt: good until Deliver returns.
	Msg *proto.Message
	// Plain: it is for all matching subscribers outside of shared groups.
	Plain bool
	// Groups are the shared subscriptions that this node was picked for: one member of each is served.
	Groups []Group
	// Sessions are those that the message is for beside, because it was meant for them at another node.
	Sessions []ForSession
	// Origin is set when a message of this node's own client comes back.
	Origin Origin
	// Receipt is told when nobody here needs the message any more; nil for QoS 0.
	Receipt Receipt
	// Recent: it was matched with what all nodes' subscribers want a moment ago.
	Recent bool
}

// ForSession is a session that a message is for alone.
type ForSession struct {
	Key   string
	Alone string // as in Entry
}

// Group names a shared subscription; its Filter is without $share/NAME/.
type Group = proto.Group

// Mark names a delivery: the swarm knows it again by that after a restart. It says nothing about who published it. The zero
// Mark is none.
type Mark struct{ Epoch, Seq uint64 }

// Receipt is told the fate of one delivery.
type Receipt interface {
	// Mark returns the delivery's.
	Mark() Mark
	// Done says that every client that the delivery was for has acknowledged it or will never need it. It is
	// called once, from any goroutine or from within Deliver, and must not block.
	Done()
	// More says that Done will be called once more for the delivery, by another Receipt with its Mark. Like Done it must not block.
	More()
	// Refused says that no member of a shared subscription is left here that can take the message, so that
	// another node's may. Done still follows. Like Done it must not block.
	Refused(g Group)
}
