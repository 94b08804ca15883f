package mqttfront

import "sync/atomic"

// Stats counts what a broker does. All fields are read and written atomically, by anyone.
type Stats struct {
	Connections  atomic.Int64 // now, said CONNECT or not
	Connected    atomic.Uint64
	Disconnected atomic.Uint64
	Accepted     atomic.Uint64 // connections, refused ones included
	// SessionsExpired are those that ended because nobody came back in time.
	SessionsExpired atomic.Uint64
	Sessions        atomic.Int64 // now, offline ones included
	Offline         atomic.Int64 // sessions without a connection, now
	// Subscriptions are those of all sessions, now.
	Subscriptions atomic.Int64

	Received      [3]atomic.Uint64 // messages from clients, by QoS
	Sent          [3]atomic.Uint64 // messages to clients, by QoS, without retransmissions
	Retransmitted atomic.Uint64
	// Bytes of the payloads of Received and Sent.
	ReceivedPayload [3]atomic.Uint64
	SentPayload     [3]atomic.Uint64
	BytesReceived   atomic.Uint64 // on the sockets
	BytesSent       atomic.Uint64

	QueuedMessages atomic.Int64 // in sessions, now: waiting or unacknowledged
	QueuedBytes    atomic.Int64 // of them; what waits in several sessions counts in each
	QueuedMemory   atomic.Int64 // what they take; what waits in several sessions counts once

	PendingMemory atomic.Int64 // what waits for the sockets of clients takes, but for small buffers

	// Messages to clients that were dropped, by cause.
	DropSlow     atomic.Uint64 // QoS 0, the client does not read
	DropCrowd    atomic.Uint64 // QoS 0, too much waits for the sockets of all clients
	DropMemory   atomic.Uint64 // QoS 0, memory is scarce
	DropQueue    atomic.Uint64 // the session's queue is full
	DropQueues   atomic.Uint64 // the queues of all sessions are, and this one has more than its share
	DropExpired  atomic.Uint64
	DropTooLarge atomic.Uint64 // over the client's Maximum Packet Size
	OpeningFull  atomic.Uint64 // deliveries of which the swarm is not told that they wait for few sessions alone: too many wait to be told
	DropNoMember atomic.Uint64 // of a shared subscription, no member can take it
	DropEnded    atomic.Uint64 // the session ended with it
	// Messages from clients that were refused; of these, and of wills, those that access rules do not allow.
	Refused    atomic.Uint64
	PubsDenied atomic.Uint64
	// DeliveriesDenied are messages to clients that match a subscription, and that access rules keep from them.
	DeliveriesDenied atomic.Uint64
	// LostRight are clients that were disconnected because they may not be there any more.
	LostRight atomic.Uint64
	// Retained messages below $local: how many there are and their size, now, and how many a limit has refused.
	LocalRetained atomic.Int64
	LocalBytes    atomic.Int64
	LocalRefused  atomic.Uint64

	// Subscriptions that were refused, by cause.
	SubsOverLimit atomic.Uint64
	SubsInvalid   atomic.Uint64 // the filter is none, too long or too deep
	SubsDenied    atomic.Uint64 // not allowed to this client
	SubsMemory    atomic.Uint64 // memory is scarce
	SubsNoRoom    atomic.Uint64 // too many locations

	// Connections that were refused or ended badly, by cause.
	AcceptErrors      atomic.Uint64
	RefusedConns      atomic.Uint64 // over the limit on connections
	RefusedOfAddress  atomic.Uint64 // over the limit on connections from one address
	RefusedOfListener atomic.Uint64 // over the limit of the listener
	RefusedRate       atomic.Uint64 // they came too fast
	RefusedMemory     atomic.Uint64 // there is too little memory
	Paced             atomic.Uint64 // waited for their turn because they came fast; these are no errors
	RefusedSessions   atomic.Uint64 // over the limit on sessions
	RefusedLogins     atomic.Uint64 // whatever else a CONNECT is refused for
	BadProxy          atomic.Uint64 // no good header of the PROXY protocol, or not from a proxy
	BadHandshakes     atomic.Uint64 // TLS that could not be set up
	BadUpgrades       atomic.Uint64 // requests for WebSocket that were refused
	ConnectTimeout    atomic.Uint64
	NoConnect         atomic.Uint64 // the first packet was no CONNECT
	KeepAlive         atomic.Uint64 // clients that fell silent
	Unread            atomic.Uint64 // clients that did not read what they asked for
	Malformed         atomic.Uint64
	ProtocolErrors    atomic.Uint64
	TooLarge          atomic.Uint64 // packets over MaxPacketSize
	ReceiveMaximum    atomic.Uint64 // more unacknowledged messages than ReceiveMaximum
	TopicAlias        atomic.Uint64 // topic aliases over TopicAliasMaximum, or never set
	TopicInvalid      atomic.Uint64 // messages to topics that are none, too long or too deep
	DecodePanics      atomic.Uint64 // caught in the codec

	PromisesLocal atomic.Uint64 // SUBACKs that hold for this node only, for now
	WillsSent     atomic.Uint64
	WillsFalse    atomic.Uint64 // other nodes sent them of clients that were connected all the time
	Takeovers     atomic.Uint64
	Arrivals      atomic.Uint64 // sessions that came from other nodes
	Departures    atomic.Uint64 // sessions that other nodes have taken over
	Joins         atomic.Uint64 // parts of sessions that were elsewhere beside the session
	Twice         atomic.Uint64 // messages that a session had at another node too
	Held          atomic.Uint64 // times that a client was not read from, see hold.go
	Short         atomic.Uint64 // times that no more was taken from a queue because little memory was left, see room.go
	Paused        atomic.Uint64 // times that no more was taken from a queue until the store had room, see room.go
	StoreErrors   atomic.Uint64 // times that the store could not keep what it was told

	SessionsNotKept atomic.Uint64 // sessions that end with their connection, though more was asked for: the store could not be written
}

// Dropped is the sum of all drops.
func (s *Stats) Dropped() uint64 {
	return s.DropSlow.Load() + s.DropCrowd.Load() + s.DropMemory.Load() + s.DropQueue.Load() + s.DropQueues.Load() + s.DropExpired.Load() + s.DropTooLarge.Load() +
		s.DropNoMember.Load() + s.DropEnded.Load()
}
