// Package admin is a node's administration API: HTTP with JSON, on loopback or a Unix socket only. What changes something,
// and accounts and access rules, need a token where every user of the machine reaches the API; the rest has no passwords.
// The mozzie commands are its first users, through Client; so are monitoring, by
// /metrics, and whatever supervises the process, by /healthz and /readyz.
//
//	GET /healthz              200 while the process serves requests
//	GET /readyz               200 when MQTT clients are served, else 503; Ready
//	GET /metrics              Prometheus
//	GET /api/v1/status        Status
//	GET /api/v1/peers         Peers
//	GET /api/v1/locate?topic= Location
//	GET /api/v1/invite        Invite
//	GET /api/v1/config        the effective configuration, as YAML
//	POST /api/v1/reload       reads again what may change while the node runs; Reloaded
//	GET /api/v1/accounts      Accounts; needs the token
//	PUT, DELETE /api/v1/accounts/NAME
//	                          makes or changes an account (AccountChange), deletes one; Changed
//	GET, PUT /api/v1/access   the access rules, as the YAML of their file; replaces them (Changed); both need the token
//	GET /api/v1/access/check?user=&client=&publish= (or &subscribe=)
//	                          what a client may do, and why; Verdict; needs the token
//	GET /api/v1/leave         what would be lost if the node left for good; AtStake
//	POST /api/v1/leave?timeout=&discard_sessions=
//	                          leaves for good, and ends the node; Left
//	POST /api/v1/nodes/forget?node=
//	                          takes another node for gone for good
//	GET /api/v1/backup        the node's data directory in one file (package node/backup); needs the token
//	GET /debug/pprof/         Go's profiles, where the configuration says so
//
// The token is in the file admin.token in the data directory, and goes into the header "Authorization: Bearer TOKEN". At a
// Unix socket, which is its owner's alone, none is needed.
//
// What is read with GET may be read as often as one likes and changes nothing. An error is Error, with a fitting HTTP
// status. Fields are added to the JSON over time, never removed or given another meaning.
//
// Goroutines: one accepts connections and net/http has one for each of them; all end with Close.
package admin

import "context"

// Node is what the API tells about. All methods are safe for concurrent use.
type Node interface {
	Status() Status
	// Peers returns the nodes that this one knows, itself not among them.
	Peers() []Peer
	// Locate finds out who serves a topic. It may ask other nodes, until ctx ends. The topic is a valid topic
	// name; ErrBadTopic, wrapped, says that it is not.
	Locate(ctx context.Context, topic string) (Location, error)
	// Invite returns one string that lets a node into the swarm.
	Invite() (string, error)
	// Ready reports whether MQTT clients are served, and if not, why: each reason for a person to read.
	Ready() (ok bool, reasons []string)
	// Config returns the effective configuration as YAML, without secrets.
	Config() string
	// Reload reads again what may change while the node runs, and returns what that was. Where something is wrong with
	// it, nothing changes, and the error says what it is.
	Reload() ([]string, error)
	// Accounts returns who may log in, by name.
	Accounts() []Account
	// SetAccount makes or changes an account. It may take a moment, until ctx ends. ErrNoAccount says that one is to be made
	// without a password, ErrBadAccount, wrapped, that it is impossible. DeleteAccount deletes one.
	SetAccount(ctx context.Context, name string, change AccountChange) (made bool, err error)
	DeleteAccount(name string) error
	// Rules returns the text of the access rules in force; ErrNoRules: there are none.
	Rules() ([]byte, error)
	// SetRules replaces them, or makes some. ErrBadRules, wrapped, says what is wrong with them, and with which line.
	SetRules(text []byte) (made bool, err error)
	// Backup makes a copy of what the node keeps, to be written into a backup. ErrBusy says that there is one already that
	// is not closed.
	Backup() (Snapshot, error)
	// AtStake is what would be lost if the node left for good now.
	AtStake() AtStake
	// Leave leaves the swarm for good, and has the node end when that is done, or ctx has ended it. Without discard it is refused where
	// sessions would be lost (ErrSessions, wrapped). ErrAlone says that there is nobody to hand over to, ErrLeaving that the node stops already.
	Leave(ctx context.Context, discard bool) (Left, error)
	// Forget takes another node for gone for good, by its peer ID. ErrBadNodeName, ErrNoNode and ErrNodeThere say why not.
	Forget(peerID string) error
	// Check says what a client may do. ErrBadQuestion, wrapped, says what is wrong with the question.
	Check(q Question) (Verdict, error)
}

// Status is a node in short.
type Status struct {
	PeerID  string   `json:"peer_id"`
	Version string   `json:"version"`
	UptimeS float64  `json:"uptime_s"`
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"` // why it is not ready

	Swarm       string   `json:"swarm"`                 // "private" or "open"
	Fingerprint string   `json:"fingerprint,omitempty"` // of the swarm key: the same at all nodes of a private swarm
	Nodes       int      `json:"nodes"`                 // known in the swarm, this one among them, connected or not
	Peers       int      `json:"peers"`                 // nodes that it is connected to
	Addresses   []string `json:"addresses"`             // its own, each ending in /p2p/ID; the first can be dialled
	MQTT        []string `json:"mqtt"`                  // URLs that clients connect to
	Admin       string   `json:"admin"`                 // where this API answers
	Data        string   `json:"data"`                  // the data directory

	Listeners []Listener `json:"listeners"`        // what is said of those of MQTT, in the same order
	Memory    *Memory    `json:"memory,omitempty"` // not there where memory has no limit

	Broker
	Route
}

// Listener is a place that clients connect to.
type Listener struct {
	URL       string `json:"url"`
	Anonymous bool   `json:"anonymous"`       // it takes clients that do not say who they are
	Mount     string `json:"mount,omitempty"` // what stands before their topics
	// Fingerprint is the SHA-256 of the listener's certificate, in hex with colons; "" without TLS.
	Fingerprint    string `json:"fingerprint,omitempty"`
	OwnCertificate bool   `json:"own_certificate,omitempty"` // the node has made it itself
}

// Memory is the memory of a node.
type Memory struct {
	Level string `json:"level"` // "ok", "tight" or "critical"
	Used  int64  `json:"used"`  // bytes in use as of a moment ago
	Limit int64  `json:"limit"` // bytes that may be
}

// Broker is the MQTT side in numbers. In JSON they are the status's own.
type Broker struct {
	Connections   int   `json:"connections"`
	Sessions      int   `json:"sessions"`
	Subscriptions int   `json:"subscriptions"`
	Retained      int   `json:"retained"` // retained messages that this node keeps
	Received      int64 `json:"received"` // messages from clients since the start
	Sent          int64 `json:"sent"`     // messages to clients since the start
	Dropped       int64 `json:"dropped"`  // messages that a limit cost, since the start
}

// Route is the work for the swarm in numbers. In JSON they are the status's own.
type Route struct {
	Locations     int `json:"locations"`     // that this node is a member of the set of, with something there
	Rendezvous    int `json:"rendezvous"`    // of these, where it is the rendezvous
	Registrations int `json:"registrations"` // that it holds
	Streams       int `json:"streams"`       // route streams, both directions
	Custody       int `json:"custody"`       // messages that it has custody of
}

// Peers is the answer of /api/v1/peers.
type Peers struct {
	Peers []Peer `json:"peers"`
}

// Peer is another node of the swarm.
type Peer struct {
	PeerID    string   `json:"peer_id"`
	Addresses []string `json:"addresses"`
	Connected bool     `json:"connected"`
	Relayed   bool     `json:"relayed,omitempty"` // connected by way of a third node
	Left      bool     `json:"left,omitempty"`    // it said goodbye
	RTTms     float64  `json:"rtt_ms,omitempty"`  // 0: not known
	Version   string   `json:"version,omitempty"`
	SeenS     float64  `json:"seen_s,omitempty"` // how long ago it was last connected, if it is not
}

// Location is who serves a topic.
type Location struct {
	Topic    string   `json:"topic"`
	Prefix   string   `json:"prefix"`   // the levels of the topic that its location is made of
	Depth    int      `json:"depth"`    // how many
	Location string   `json:"location"` // the point of the keyspace, in hex
	Version  uint64   `json:"version"`  // of the set
	Members  []Member `json:"members"`  // the set; the closest first
}

// Member is a node of a location's set.
type Member struct {
	PeerID     string `json:"peer_id"`
	Self       bool   `json:"self,omitempty"`       // it is the node that was asked
	Rendezvous bool   `json:"rendezvous,omitempty"` // the closest that can be reached; the others are replicas
	Reachable  bool   `json:"reachable"`
	Distance   string `json:"distance"` // XOR distance to the location, in hex
}

// Invite is the answer of /api/v1/invite.
type Invite struct {
	Invite string `json:"invite"`
}

// Reloaded is the answer of /api/v1/reload.
type Reloaded struct {
	Reloaded []string `json:"reloaded"` // what was read again
}

// Ready is the answer of /readyz.
type Ready struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"`
}

// Error is the answer to a request that failed.
type Error struct {
	Message string `json:"error"`
}

func (e *Error) Error() string { return e.Message }
