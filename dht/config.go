package dht

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says how a Host is made. Start from DefaultConfig. Nothing of it may change while the Host runs.
type Config struct {
	// Dir is the data directory. The Host keeps node.key (the node's identity) and peers (peers met before)
	// there. It must exist.
	Dir string
	// Listen has the multiaddresses to listen on. Port 0 takes any free port. In a private swarm QUIC
	// addresses are left out, since libp2p's pre-shared key works over TCP alone.
	Listen []string
	// Bootstrap has full multiaddresses, ending in /p2p/ID, of nodes to join by. They are dialled until they
	// answer, and again whenever they are lost. The node's own may be among them.
	Bootstrap []string
	// SwarmKey makes the swarm private: only nodes with the same key can talk to this one. Nil: open to anyone.
	SwarmKey *SwarmKey
	// MDNS finds nodes of the same swarm on the local network by multicast.
	MDNS bool
	// Small is the number of nodes up to which everyone keeps a connection to everyone. It also sets how many
	// connections the node holds before it trims the least useful: somewhat more.
	Small int
	// NAT asks the router for a port (UPnP, NAT-PMP), and punches holes. Without effect while all listen
	// addresses are loopback.
	NAT bool
	// Relay lets the node be reached through relays where it can't be directly, and makes it a relay for
	// other nodes of the swarm. While all listen addresses are loopback it is a relay only.
	Relay bool
	// Reachability says more of that than the node can know.
	Reachability Reachability
	// KeepAlive is how long a silent TCP link waits before it is asked whether it still lives. A dead one is
	// noticed 10 s after. Longer saves traffic on metered links: about 150 bytes each time and link. (The
	// kernel's own TCP keep-alive probes a silent link every 30 s besides; libp2p has no setting for it.)
	KeepAlive time.Duration
	// UserAgent is what other nodes are told about this program, such as "mozzie/1.0".
	UserAgent string
	// OnPeer is told of every node of the swarm that connects (after it is known to be one) and that is lost.
	// It is called by one goroutine, in order, and must not block or call Close. Nil: nobody is told.
	OnPeer func(id peer.ID, connected bool)
	// Log receives what an operator should know; nil is slog.Default.
	Log *slog.Logger
	// Metrics registers libp2p's own collectors. Nil: none.
	Metrics prometheus.Registerer
}

// Reachability is what the node takes for granted about being reached by the others of its swarm.
type Reachability string

// The values of Reachability.
const (
	ReachabilityAuto    Reachability = ""        // perhaps by some: has relays, and is one
	ReachabilityPublic  Reachability = "public"  // by all: needs no relays
	ReachabilityPrivate Reachability = "private" // by few: is no relay
)

// DefaultPort is where nodes listen for one another, TCP and UDP.
const DefaultPort = 7883

// DefaultListen is all interfaces, TCP and QUIC.
func DefaultListen() []string {
	return []string{
		fmt.Sprintf("/ip4/0.0.0.0/tcp/%d", DefaultPort),
		fmt.Sprintf("/ip6/::/tcp/%d", DefaultPort),
		fmt.Sprintf("/ip4/0.0.0.0/udp/%d/quic-v1", DefaultPort),
		fmt.Sprintf("/ip6/::/udp/%d/quic-v1", DefaultPort),
	}
}

// DefaultConfig returns the configuration of a node of an open swarm that keeps its files in dir.
func DefaultConfig(dir string) Config {
	return Config{
		Dir:       dir,
		Listen:    DefaultListen(),
		MDNS:      true,
		Small:     100,
		NAT:       true,
		Relay:     true,
		KeepAlive: time.Minute,
		UserAgent: "mozzie",
		Log:       slog.Default(),
	}
}

// Validate reports the first value that can't work, and what would.
func (c *Config) Validate() error {
	if c.Dir == "" {
		return errors.New("no data directory given")
	}
	if c.SwarmKey != nil && c.SwarmKey.secret == nil {
		return errors.New("the swarm key is empty; make one with NewSwarmKey, or give none for an open swarm")
	}
	if c.Small < 1 || c.Small > maxSmall {
		return fmt.Errorf("small swarm size %d: must be between 1 and %d", c.Small, maxSmall)
	}
	if c.KeepAlive < time.Second {
		return fmt.Errorf("keep-alive %v: must be at least 1s", c.KeepAlive)
	}
	switch c.Reachability {
	case ReachabilityAuto, ReachabilityPublic, ReachabilityPrivate:
	default:
		return fmt.Errorf("reachability %q: must be %q, %q or empty", c.Reachability, ReachabilityPublic, ReachabilityPrivate)
	}
	if _, err := parseListen(c.Listen); err != nil {
		return err
	}
	_, err := ParsePeers(c.Bootstrap)
	return err
}
