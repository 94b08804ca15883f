package mqttfront

import "sync/atomic"

// Stats counts what a broker does. All fields are read and written atomically, by anyone.
type Stats struct {
	Connections  atomic.Int64 // now, said CONNECT or not
	Connected    atomic.Uint64
	Disconnected atomic.Uint64
	Sessions     atomic.Int64 // now, offline ones included
	Offline      atomic.Int64 // sessions without a connection, now
	// Subscriptions are those of all sessions, now.
	Subscriptions atomic.Int64

	Received      [3]atomic.Uint64 // messages from clients, by QoS
	Sent          [3]atomic.Uint64 // messages to clients, by QoS, without retransmissions
	Retransmitted atomic.Uint64
	BytesReceived atomic.Uint64 // on the sockets
	BytesSent     atomic.Uint64

	QueuedMessages atomic.Int64 // in sessions, now: waiting or unacknowledged
	QueuedBytes    atomic.Int64

	// Messages to clients that were dropped, by cause.
	DropSlow     atomic.Uint64 // QoS 0, the client does not read
	DropQueue    atomic.Uint64 // the session's queue is full
	DropExpired  atomic.Uint64
	DropTooLarge atomic.Uint64 // over the client's Maximum Packet Size
	DropNoMember atomic.Uint64 // of a shared subscription, no member can take it
	DropEnded    atomic.Uint64 // the session ended with it
	// Messages from clients that were refused.
	Refused atomic.Uint64

	PromisesLocal  atomic.Uint64 // SUBACKs that hold for this node only, for now
	WillsSent      atomic.Uint64
	AcceptErrors   atomic.Uint64
	RefusedConns   atomic.Uint64 // over a limit on connections
	ConnectTimeout atomic.Uint64
	KeepAlive      atomic.Uint64 // clients that fell silent
	Malformed      atomic.Uint64
	ProtocolErrors atomic.Uint64
	DecodePanics   atomic.Uint64 // caught in the codec
	Takeovers      atomic.Uint64
	StoreErrors    atomic.Uint64
}

// Dropped is the sum of all drops.
func (s *Stats) Dropped() uint64 {
	return s.DropSlow.Load() + s.DropQueue.Load() + s.DropExpired.Load() + s.DropTooLarge.Load() +
		s.DropNoMember.Load() + s.DropEnded.Load()
}
