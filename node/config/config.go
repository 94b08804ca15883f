// Package config is the configuration of a node: one plain struct, its defaults, and how it is read from a
// YAML file, the environment and the command line.
//
// Each field has a key, its path in the YAML file ("swarm.listen"), and an environment variable, the key in
// capitals behind MOZZIE_ ("MOZZIE_SWARM_LISTEN"). A flag beats an environment variable, which beats the
// file, which beats the default. What is unknown, of the wrong type or impossible is refused, with the place
// that it comes from and what would be right: a node never starts with a setting that it has not understood.
//
// The package is used by the program and by package node, which maps these plain values to the options of
// the packages below it. It knows none of them.
package config

import (
	"fmt"
	"strings"
	"time"
)

// Config is everything that can be set. The comments in this file are printed by "mozzie config show".
type Config struct {
	// Directory of the node's key, its state and its lock: one for each node. A mozzie.yaml in it is read
	// when no other file is named.
	Data string `yaml:"data"`
	// What MQTT clients connect to.
	MQTT MQTT `yaml:"mqtt"`
	// The other nodes.
	Swarm Swarm `yaml:"swarm"`
	// How topics are spread over the swarm.
	Locations Locations `yaml:"locations"`
	// How the node keeps what it has promised not to lose.
	Storage Storage `yaml:"storage"`
	// Who may do what. The accounts are in accounts.yaml in the data directory: "mozzie passwd" changes them.
	Access Access `yaml:"access"`
	// The administration API, which the mozzie commands use too.
	Admin Admin `yaml:"admin"`
	// What the node says about its work, on standard error.
	Log Log `yaml:"log"`
	// What one node takes on. What a limit drops or refuses is counted in the metrics.
	Limits Limits `yaml:"limits"`

	origins map[string]string // where each key that is not a default was set
}

// MQTT is the side of the clients.
type MQTT struct {
	// Where to listen: a URL each, tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH, wss://HOST:PORT/PATH, with
	// port 0 for any free one, or unix:///PATH. A listener with rules of its own is a section ({url: URL, NAME: VALUE})
	// or has them behind its URL (?NAME=VALUE&NAME=VALUE): see "Rules of a listener" in docs/configuration.md.
	Listeners []Listener `yaml:"listeners"`
	// Web pages that may connect to ws:// and wss:// listeners without origins of their own, beside those that come
	// from the listener's own host: patterns of hosts, such as dashboard.example or *.example.
	WebSocketOrigins []string `yaml:"websocket_origins"`
	// When messages of QoS 1 and 2 are acknowledged to those who publish them: node, when they are on this node's disk; or
	// swarm, when they are on another node's disk too or delivered, so that no node that is destroyed takes one along. Where
	// no other node can be reached within 2 s they are acknowledged as with node; MQTT 5 clients are told which it was.
	Acknowledge string `yaml:"acknowledge"`
	// How often the topics under $SYS are published; 0s for never.
	SysInterval time.Duration `yaml:"sys_interval"`
}

// AcknowledgeNode and AcknowledgeSwarm are the values of MQTT.Acknowledge.
const (
	AcknowledgeNode  = "node"
	AcknowledgeSwarm = "swarm"
)

// Listener is one address that MQTT clients connect to, and its rules.
type Listener struct {
	// Where it listens.
	URL string `yaml:"url"`
	// Whether clients that do not say who they are may connect: by default at loopback and Unix sockets only. It is said
	// in the log for each listener where it is true.
	Anonymous Choice `yaml:"anonymous"`
	// Whether tcp:// and ws:// may be reached from other machines, though whoever is in between can read passwords and
	// all else. It need not be said where anonymous is true.
	Plaintext bool `yaml:"plaintext"`
	// Connections at a time; 0 for no limit but limits.max_connections.
	MaxConnections int `yaml:"max_connections"`
	// Levels that stand before all topics of its clients, such as site1/, and that they do not see.
	Mount string `yaml:"mount"`
	// Whether a load balancer in front says who the client is, by version 2 of the PROXY protocol.
	ProxyProtocol bool `yaml:"proxy_protocol"`
	// The load balancers, as addresses or networks (10.1.0.0/16): nobody else may connect then. The default is loopback.
	ProxyFrom []string `yaml:"proxy_from"`
	// PEM file with the certificate of a tls:// or wss:// listener and those that lead to its authority. Without one,
	// the listener has the node's own certificate, which is in the data directory.
	Certificate string `yaml:"certificate"`
	// PEM file with its private key.
	Key string `yaml:"key"`
	// PEM file with the authorities whose certificates clients must show.
	ClientCA string `yaml:"client_ca"`
	// required, or optional for clients without one, who then log in as others do.
	ClientCertificate string `yaml:"client_certificate"`
	// Where a client's certificate has the name of its user: cn, san_dns, san_email or san_uri (the first of them), or
	// none, where clients with a certificate log in as others do.
	UserFrom string `yaml:"user_from"`
	// Web pages that may connect to ws:// and wss://, instead of those of mqtt.websocket_origins.
	Origins []string `yaml:"origins"`
	// Mode of a Unix socket, in octal.
	Mode string `yaml:"mode"`
}

// RequiredCertificate and OptionalCertificate are the values of Listener.ClientCertificate.
const (
	RequiredCertificate = "required"
	OptionalCertificate = "optional"
)

// Swarm is the side of the nodes.
type Swarm struct {
	// Whether the swarm is open to anyone. If not, it is private: a key made at the first start, or taken
	// from an invite, keeps others out.
	Open bool `yaml:"open"`
	// Multiaddresses to listen at for other nodes. QUIC is for open swarms only. The default is all
	// interfaces in a private swarm and loopback in an open one.
	Listen []string `yaml:"listen"`
	// Multiaddresses, with /p2p/ID at the end, of nodes to connect to at the start.
	Bootstrap []string `yaml:"bootstrap"`
	// Invite to a swarm, as "mozzie invite" prints it. It is needed once: the node keeps what is in it.
	Join Secret `yaml:"join"`
	// Whether to look for nodes of the same swarm on the local network.
	MDNS bool `yaml:"mdns"`
	// Whether to ask the router for a port, and to punch holes through to others behind their routers.
	NAT bool `yaml:"nat"`
	// Whether to be reached through other nodes of the swarm where there is no direct way, and to be such a node for
	// others.
	Relay bool `yaml:"relay"`
	// Whether other nodes reach this one: auto, public or private. With auto it is prepared for both. With public it
	// never asks others to relay for it; with private it does not relay for others, who might not reach it.
	Reachability string `yaml:"reachability"`
	// Up to how many nodes, 1 to 500, every node keeps contact with every other. Above it, lookups find the
	// way. Must be the same at every node of a swarm.
	Small int `yaml:"small"`
}

// ReachabilityAuto, ReachabilityPublic and ReachabilityPrivate are the values of Swarm.Reachability.
const (
	ReachabilityAuto    = "auto"
	ReachabilityPublic  = "public"
	ReachabilityPrivate = "private"
)

// Locations says which part of a topic decides who serves it.
type Locations struct {
	// How many levels of a topic make its location, 1 to 8. With 1, everything below the same first level is
	// served by the same nodes; more spreads the load of a busy first level. Must be the same at every node
	// of a swarm.
	Depth int `yaml:"depth"`
}

// Storage is the node's database, in its directory.
type Storage struct {
	// always: a message of QoS 1 or 2 is acknowledged when it is synced to the disk, and a power cut loses none. Or
	// "interval DURATION", such as interval 1s, for SD cards that wear: the disk is synced that often and messages are
	// acknowledged at once, so that a power cut loses those of the last DURATION.
	Sync string `yaml:"sync"`
}

// SyncAlways is the value of Storage.Sync that loses nothing; others begin with SyncInterval.
const (
	SyncAlways   = "always"
	SyncInterval = "interval "
)

// Interval is how long what is acknowledged may be on its way to the disk: 0 for not at all.
func (s Storage) Interval() time.Duration {
	d, _ := s.interval() // Validate has looked
	return d
}

func (s Storage) interval() (time.Duration, error) {
	if s.Sync == SyncAlways {
		return 0, nil
	}
	text, ok := strings.CutPrefix(s.Sync, SyncInterval)
	if !ok {
		return 0, fmt.Errorf(`want always, or "interval DURATION" such as interval 1s, not %q`, s.Sync)
	}
	d, err := parseDuration(strings.TrimSpace(text))
	if err == nil && (d < 10*time.Millisecond || d > time.Hour) {
		err = fmt.Errorf("want an interval of 10ms to 1h, not %s", formatDuration(d))
	}
	return d, err
}

// Access says who may do what.
type Access struct {
	// File of access rules. A path that is not absolute is in the data directory. Without one, access.yaml in the data
	// directory is read if it is there; without that, who is let in may do everything.
	Rules string `yaml:"rules"`
	// Whether a client certificate lets in only who has an account of the name in it as well.
	CertificateNeedsAccount bool `yaml:"certificate_needs_account"`
}

// Admin is the administration API.
type Admin struct {
	// Loopback host:port (port 0 for any free one) or the absolute path of a Unix socket. On a machine that
	// you share with others, use a socket: who reaches the API can read the invite.
	Listen string `yaml:"listen"`
	// Whether to serve Go's profiles under /debug/pprof/.
	Pprof bool `yaml:"pprof"`
}

// Log is the node's log.
type Log struct {
	// debug, info, warn or error. What happens at every message is logged at debug only.
	Level string `yaml:"level"`
	// text or json, one line for each event.
	Format string `yaml:"format"`
}

// Limits are for one node. Sizes are in bytes, with an optional unit (KiB, MiB, GiB).
type Limits struct {
	// Memory that the node may use, from 64MiB: as it is approached, QoS 0 messages to slow clients are dropped, then
	// nothing new is taken on. 0 for what GOMEMLIMIT says, or else 60 % of the machine's memory or 80 % of what the
	// cgroup (container, service) allows, whichever is less.
	Memory Bytes `yaml:"memory"`
	// MQTT connections at a time.
	MaxConnections int `yaml:"max_connections"`
	// MQTT connections from one IP address at a time; 0 for no limit but max_connections. Public IPv6 addresses
	// count by their network of 64 bits.
	MaxConnectionsPerAddress int `yaml:"max_connections_per_address"`
	// How many MQTT connections may begin in a second. More wait for their turn, for 5 s at most, and are refused
	// beyond that; 0 for no limit.
	MaxConnectionRate int `yaml:"max_connection_rate"`
	// The same for one IP address; 0 for no limit but max_connection_rate.
	MaxConnectionRatePerAddress int `yaml:"max_connection_rate_per_address"`
	// How long a new connection may take to send its CONNECT.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// The largest MQTT packet that is taken from a client; at most 16MiB, which is what nodes pass on to each other.
	MaxPacketSize Bytes `yaml:"max_packet_size"`
	// How many unacknowledged QoS 1 and 2 messages a client may have on the way to the node, 1 to 65535
	// (Receive Maximum).
	ReceiveMaximum int `yaml:"receive_maximum"`
	// How many unacknowledged QoS 1 and 2 messages are on the way to a client, 1 to 65535. Less where the
	// client asks for less, and at most 4095 in sessions that other nodes can go on with.
	MaxInflightMessages int `yaml:"max_inflight_messages"`
	// How many topic aliases a client may use, 0 to 65535; also how many are used towards a client.
	TopicAliasMaximum int `yaml:"topic_alias_maximum"`
	// The longest keep alive, at most 18h12m15s. A client that asks for more, or for none, gets this.
	MaxKeepAlive time.Duration `yaml:"max_keep_alive"`
	// How long a session may outlive its connection. A client that asks for more gets this.
	MaxSessionExpiry time.Duration `yaml:"max_session_expiry"`
	// Sessions, with a connection or without.
	MaxSessions int `yaml:"max_sessions"`
	// Subscriptions of one session.
	MaxSubscriptions int `yaml:"max_subscriptions"`
	// Bytes of a topic or filter, 1 to 65535.
	MaxTopicLength int `yaml:"max_topic_length"`
	// Levels of a topic or filter, 1 to 65535.
	MaxTopicLevels int `yaml:"max_topic_levels"`
	// Messages that wait in memory for one session: QoS 0, and those of sessions that end with their connection.
	MaxQueuedMessages int `yaml:"max_queued_messages"`
	// Bytes that wait in memory for one session.
	MaxQueuedBytes Bytes `yaml:"max_queued_bytes"`
	// QoS 1 and 2 messages that wait, on the disk, for one session that outlives its connection.
	MaxStoredMessages int `yaml:"max_stored_messages"`
	// Bytes that wait, on the disk, for one session that outlives its connection.
	MaxStoredBytes Bytes `yaml:"max_stored_bytes"`
	// Bytes that wait for the socket of one client, before QoS 0 messages to it are dropped.
	MaxPendingBytes Bytes `yaml:"max_pending_bytes"`
	// Memory for what waits in all sessions. Beyond it, a session that has more than its share gets no more.
	MaxTotalQueuedBytes Bytes `yaml:"max_total_queued_bytes"`
	// Bytes that wait, in memory or on the disk, in all sessions, 64 more for each message; what waits in several sessions counts for
	// each. Beyond it, a session that has more than its share gets no more to keep on the disk.
	MaxTotalStoredBytes Bytes `yaml:"max_total_stored_bytes"`
	// Memory for what waits for the sockets of all clients, from 32MiB. One client has an eighth of what is free.
	MaxTotalPendingBytes Bytes `yaml:"max_total_pending_bytes"`
	// Retained messages that the node keeps for the swarm, and as many again of its own, below $local.
	MaxRetainedMessages int `yaml:"max_retained_messages"`
	// Bytes of retained messages that the node keeps for the swarm, and as many again of its own, below $local.
	MaxRetainedBytes Bytes `yaml:"max_retained_bytes"`
	// Accounts.
	MaxAccounts int `yaml:"max_accounts"`
	// Clients that wait until their password is looked at, or for the answer that it is wrong. More are told to try again.
	MaxWaitingLogins int `yaml:"max_waiting_logins"`
	// What other nodes may ask of this one, and what it keeps until others have it.
	Peers PeerLimits `yaml:"peers"`
}

// PeerLimits are for one node, which may have others than its peers.
type PeerLimits struct {
	// Nodes that are remembered.
	MaxNodes int `yaml:"max_nodes"`
	// Locations: first levels of topics (see locations.depth) that the node publishes to, subscribes to or serves. Where
	// nothing is kept they make room for others.
	MaxLocations int `yaml:"max_locations"`
	// Filters of one node at one location.
	MaxFilters int `yaml:"max_filters"`
	// Epochs of publishers that are remembered, so that no message comes twice.
	MaxEpochs int `yaml:"max_epochs"`
	// Messages of this node's clients that no other node keeps yet. Beyond it, acknowledgements wait.
	MaxOutboxMessages int `yaml:"max_outbox_messages"`
	// Bytes of them.
	MaxOutboxBytes Bytes `yaml:"max_outbox_bytes"`
	// Messages that are kept for one node that is out of reach, or that has them and waits for its clients.
	MaxAwayMessages int `yaml:"max_away_messages"`
	// Bytes of them.
	MaxAwayBytes Bytes `yaml:"max_away_bytes"`
	// Messages that wait at one location until it can be served.
	MaxWaitingMessages int `yaml:"max_waiting_messages"`
	// Bytes that wait at all locations.
	MaxWaitingBytes Bytes `yaml:"max_waiting_bytes"`
	// Messages that are kept at one location because a majority of its nodes is out of reach.
	MaxUnsettledMessages int `yaml:"max_unsettled_messages"`
	// Bytes that are kept so at all locations.
	MaxUnsettledBytes Bytes `yaml:"max_unsettled_bytes"`
	// Messages in custody beyond which publishers' nodes are not relieved of theirs; beyond twice that, none is taken.
	MaxCustodyMessages int `yaml:"max_custody_messages"`
	// Bytes of them.
	MaxCustodyBytes Bytes `yaml:"max_custody_bytes"`
	// Bytes that wait to be written to one node, from 32MiB. QoS 0 messages to it are dropped from a twelfth of that.
	MaxPendingBytes Bytes `yaml:"max_pending_bytes"`
	// Bytes that wait to be written to all nodes, 32MiB more than max_pending_bytes at least.
	MaxTotalPendingBytes Bytes `yaml:"max_total_pending_bytes"`
}

// Default returns the configuration of a node of which nothing was set, but for Data, which depends on the
// user: see DefaultData.
func Default() Config {
	return Config{
		MQTT: MQTT{Listeners: []Listener{
			NewListener("tcp://127.0.0.1:1883"),
			NewListener("ws://127.0.0.1:8083"),
		}, Acknowledge: AcknowledgeNode, SysInterval: 10 * time.Second},
		Swarm: Swarm{
			Listen:       defaultListen(false),
			MDNS:         true,
			NAT:          true,
			Relay:        true,
			Reachability: ReachabilityAuto,
			Small:        100,
		},
		Locations: Locations{Depth: 1},
		Storage:   Storage{Sync: SyncAlways},
		Admin:     Admin{Listen: "127.0.0.1:7880"},
		Log:       Log{Level: "info", Format: "text"},
		Limits: Limits{
			MaxConnections: 20_000,

			MaxConnectionsPerAddress:    15_000,
			MaxConnectionRate:           2_000,
			MaxConnectionRatePerAddress: 1_000,

			ConnectTimeout:      10 * time.Second,
			MaxPacketSize:       8 << 20,
			ReceiveMaximum:      1024,
			MaxInflightMessages: 1024,
			TopicAliasMaximum:   64,
			MaxKeepAlive:        65_535 * time.Second,
			MaxSessionExpiry:    7 * 24 * time.Hour,
			MaxSessions:         100_000,
			MaxSubscriptions:    10_000,
			MaxTopicLength:      4096,
			MaxTopicLevels:      128,
			MaxQueuedMessages:   100_000,
			MaxQueuedBytes:      32 << 20,
			MaxStoredMessages:   1_000_000,
			MaxStoredBytes:      256 << 20,
			MaxPendingBytes:     2 << 20,

			MaxTotalQueuedBytes:  128 << 20,
			MaxTotalStoredBytes:  1 << 30,
			MaxTotalPendingBytes: 64 << 20,

			MaxRetainedMessages: 100_000,
			MaxRetainedBytes:    64 << 20,
			MaxAccounts:         10_000,
			MaxWaitingLogins:    1000,

			Peers: PeerLimits{
				MaxNodes:             10_000,
				MaxLocations:         100_000,
				MaxFilters:           100_000,
				MaxEpochs:            100_000,
				MaxOutboxMessages:    20_000,
				MaxOutboxBytes:       64 << 20,
				MaxAwayMessages:      20_000,
				MaxAwayBytes:         32 << 20,
				MaxWaitingMessages:   20_000,
				MaxWaitingBytes:      32 << 20,
				MaxUnsettledMessages: 20_000,
				MaxUnsettledBytes:    32 << 20,
				MaxCustodyMessages:   200_000,
				MaxCustodyBytes:      128 << 20,
				MaxPendingBytes:      96 << 20,
				MaxTotalPendingBytes: 128 << 20,
			},
		},
	}
}

// defaultListen is where a node listens for others unless told: a private swarm's key keeps strangers out,
// so it may be reached from everywhere; an open swarm's node is reached from elsewhere only on request.
func defaultListen(open bool) []string {
	if open {
		return []string{"/ip4/127.0.0.1/tcp/7883", "/ip4/127.0.0.1/udp/7883/quic-v1"}
	}
	return []string{"/ip4/0.0.0.0/tcp/7883", "/ip6/::/tcp/7883"}
}
