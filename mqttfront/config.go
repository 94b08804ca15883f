package mqttfront

import (
	"errors"
	"fmt"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// Config is what can be set about a broker. DefaultConfig has values fit for a Raspberry Pi 3.
type Config struct {
	// MaxConnections is the number of connections at a time, those that have not said CONNECT yet included.
	// One more is refused (MQTT 5: 0x97, before: 3); where many come at once, some are closed without a word.
	MaxConnections int
	// MaxConnectionsPerAddress is the same for one IP address, of IPv6 for one network of 64 bits; 0: no limit of
	// its own.
	MaxConnectionsPerAddress int
	// MaxConnectionRate is how many connections may begin in a second. More wait for up to 5 s, and are refused
	// beyond that (MQTT 5: 0x9F, before: 3). MaxConnectionRatePerAddress is the same for one address. 0: no limit.
	MaxConnectionRate, MaxConnectionRatePerAddress int
	// ConnectTimeout is how long a new connection may take until its CONNECT is whole.
	ConnectTimeout time.Duration
	// CloseTimeout is how long a client has to read the last that we have to say before the connection is cut.
	CloseTimeout time.Duration

	// MaxPacketSize is the largest packet that clients may send, in bytes with the header. It is announced.
	MaxPacketSize int
	// ReceiveMaximum is the number of QoS 1 and 2 messages that a client may have unacknowledged. It is
	// announced to MQTT 5 clients and enforced; older ones are not read from while they have more.
	ReceiveMaximum int
	// MaxUnacceptedBytes is how much payload of one client may wait for being accepted before the client is
	// not read from for a while.
	MaxUnacceptedBytes int
	// MaxInflight bounds the QoS 1 and 2 messages on their way to one client, beside its own Receive Maximum.
	MaxInflight int
	// TopicAliasMaximum is the number of topic aliases that a client may set.
	TopicAliasMaximum int
	// MaxOutboundAliases is the number of topic aliases that we set towards a client that allows it.
	MaxOutboundAliases int
	// MaxKeepAlive caps the keep alive that clients ask for (MQTT 5 clients are told), and stands in for 0.
	MaxKeepAlive time.Duration
	// MaxSessionExpiry caps session expiry; MQTT 3 sessions without "clean" last that long.
	MaxSessionExpiry time.Duration

	// MaxSessions bounds sessions, offline ones included. Beyond it, new ones are refused (MQTT 5: 0x97).
	MaxSessions int
	// MaxSubscriptions bounds the subscriptions of one session. One more is refused (MQTT 5: 0x97).
	MaxSubscriptions int
	// MaxRetainedMessages and MaxRetainedBytes bound the retained messages below $local. One more is refused
	// (MQTT 5, QoS 1 and 2: 0x97), or goes to those who are subscribed and is not kept.
	MaxRetainedMessages int
	MaxRetainedBytes    int64
	// Topics bounds the topics and filters of clients.
	Topics topic.Limits

	// MaxQueuedMessages and MaxQueuedBytes bound what waits in one session, in memory: QoS 0, and all of a session that ends with its
	// connection. MaxStoredMessages and MaxStoredBytes do so where it is kept by the SessionStore. Beyond, the newest is dropped.
	MaxQueuedMessages int
	MaxQueuedBytes    int64
	MaxStoredMessages int
	MaxStoredBytes    int64
	// MaxPendingBytes bounds what waits for the socket of one client. Beyond, QoS 0 messages to it are
	// dropped, the newest first. A client that lets as much pile up is not read from at its next SUBSCRIBE or
	// UNSUBSCRIBE, and one that lets four times as much of what it asked for itself pile up (ping responses,
	// acknowledgements) is disconnected.
	MaxPendingBytes int
	// MaxTotalPendingBytes bounds what waits for the sockets of all clients together, in memory for it. What may wait
	// for one is an eighth of what is free of it, so that slow clients leave something for the others: beyond, QoS 0
	// messages to it are dropped, the newest first, and others stay in its session.
	MaxTotalPendingBytes int64
	// MaxTotalQueuedBytes bounds the memory for what waits in all sessions together. Beyond it, a session that has more
	// than its share (by the number of sessions) gets no more: the newest is dropped.
	MaxTotalQueuedBytes int64
	// MaxTotalStoredBytes bounds what waits in all sessions together, in memory or kept by the SessionStore, in the same way: what
	// waits in several sessions counts for each.
	MaxTotalStoredBytes int64

	// SysInterval is how often $SYS topics are published; 0: never.
	SysInterval time.Duration
	// Sys, which may be nil, says what is to be published below $SYS/broker/mozzie/ beside the broker's own.
	Sys func(say func(name, value string))
	// Version is what $SYS/broker/version says.
	Version string
}

// DefaultConfig returns what a node runs with unless told otherwise.
func DefaultConfig() Config {
	return Config{
		MaxConnections: 20000,

		MaxConnectionsPerAddress: 15000,
		MaxConnectionRate:        2000, MaxConnectionRatePerAddress: 1000,

		ConnectTimeout:      10 * time.Second,
		CloseTimeout:        2 * time.Second,
		MaxPacketSize:       8 << 20,
		ReceiveMaximum:      1024,
		MaxUnacceptedBytes:  16 << 20,
		MaxInflight:         1024,
		TopicAliasMaximum:   64,
		MaxOutboundAliases:  64,
		MaxKeepAlive:        65535 * time.Second,
		MaxSessionExpiry:    7 * 24 * time.Hour,
		MaxSessions:         100000,
		MaxSubscriptions:    10000,
		MaxRetainedMessages: 10000,
		MaxRetainedBytes:    64 << 20,
		Topics:              topic.Limits{Length: 4096, Levels: 128},
		MaxQueuedMessages:   100000,
		MaxQueuedBytes:      32 << 20,
		MaxStoredMessages:   1_000_000,
		MaxStoredBytes:      256 << 20,
		MaxPendingBytes:     2 << 20,

		MaxTotalPendingBytes: 64 << 20,
		MaxTotalQueuedBytes:  128 << 20,
		MaxTotalStoredBytes:  1 << 30,

		SysInterval: 10 * time.Second,
		Version:     "mozzie",
	}
}

// Bounds that the protocol or this implementation sets.
const (
	maxPacketIDs     = 65535     // [MQTT-2.2.1-4]: 1 to 65535
	maxPacketLimit   = 268435460 // the largest remaining length and its header
	minPacketLimit   = 1024
	maxKeepAliveSecs = 65535
	maxRate          = 1e6      // as good as no limit
	minTotalPending  = 32 << 20 // the largest message has room
)

// Validate reports the first setting that can't work, with what would.
func (c *Config) Validate() error {
	between := func(name string, v, low, high int64) error {
		if v < low || v > high {
			return fmt.Errorf("%s is %d, must be between %d and %d", name, v, low, high)
		}
		return nil
	}
	const lots = 1 << 40
	return errors.Join(
		between("MaxConnections", int64(c.MaxConnections), 1, lots),
		between("MaxConnectionsPerAddress", int64(c.MaxConnectionsPerAddress), 0, lots),
		between("MaxConnectionRate", int64(c.MaxConnectionRate), 0, maxRate),
		between("MaxConnectionRatePerAddress", int64(c.MaxConnectionRatePerAddress), 0, maxRate),
		between("ConnectTimeout", int64(c.ConnectTimeout), int64(time.Millisecond), int64(time.Hour)),
		between("CloseTimeout", int64(c.CloseTimeout), int64(time.Millisecond), int64(time.Minute)),
		between("MaxPacketSize", int64(c.MaxPacketSize), minPacketLimit, maxPacketLimit),
		between("ReceiveMaximum", int64(c.ReceiveMaximum), 1, maxPacketIDs),
		between("MaxUnacceptedBytes", int64(c.MaxUnacceptedBytes), 1, lots),
		between("MaxInflight", int64(c.MaxInflight), 1, maxPacketIDs),
		between("TopicAliasMaximum", int64(c.TopicAliasMaximum), 0, 65535),
		between("MaxOutboundAliases", int64(c.MaxOutboundAliases), 0, 65535),
		between("MaxKeepAlive", int64(c.MaxKeepAlive/time.Second), 1, maxKeepAliveSecs),
		between("MaxSessionExpiry", int64(c.MaxSessionExpiry/time.Second), 0, lots),
		between("MaxSessions", int64(c.MaxSessions), 1, lots),
		between("MaxSubscriptions", int64(c.MaxSubscriptions), 1, lots),
		between("MaxRetainedMessages", int64(c.MaxRetainedMessages), 0, lots),
		between("MaxRetainedBytes", c.MaxRetainedBytes, 0, lots),
		between("MaxQueuedMessages", int64(c.MaxQueuedMessages), 1, lots),
		between("MaxQueuedBytes", c.MaxQueuedBytes, 1, lots),
		between("MaxStoredMessages", int64(c.MaxStoredMessages), 1, lots),
		between("MaxStoredBytes", c.MaxStoredBytes, 1, lots),
		between("MaxPendingBytes", int64(c.MaxPendingBytes), 1<<10, lots),
		between("MaxTotalPendingBytes", c.MaxTotalPendingBytes, minTotalPending, lots),
		between("MaxTotalQueuedBytes", c.MaxTotalQueuedBytes, 1<<10, lots),
		between("MaxTotalStoredBytes", c.MaxTotalStoredBytes, 1<<10, lots),
		between("SysInterval", int64(c.SysInterval), 0, int64(24*time.Hour)),
	)
}
