package node

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/certs"
	"github.com/mozzie-mqtt/mozzie/node/config"
	"github.com/mozzie-mqtt/mozzie/node/datadir"
	"github.com/mozzie-mqtt/mozzie/node/memory"
	"github.com/mozzie-mqtt/mozzie/node/roam"
	"github.com/mozzie-mqtt/mozzie/node/store"
	"github.com/mozzie-mqtt/mozzie/node/watch"
)

// Options are what a node can be told beside its configuration.
type Options struct {
	Log *slog.Logger
	// Version of the program.
	Version string
	// OwnProcess says that the process is the node's alone: its memory is limited and watched.
	OwnProcess bool
	// Tap, for tests, sees every frame before it is sent to another node.
	Tap func(to peer.ID, frame any)
}

// Node is a running node. Its methods are safe for concurrent use.
type Node struct {
	cfg     config.Config
	opt     Options
	log     *slog.Logger
	started time.Time

	founds    bool // a private swarm of its own: nobody else has been there
	joins     bool // a swarm that it remembers nobody of, though others may have been there for long
	dir       *datadir.Dir
	host      *dht.Host
	service   atomic.Pointer[rendezvous.Service] // nil until the swarm is joined
	broker    atomic.Pointer[mqttfront.Broker]
	watch     *watch.Watch                 // set before broker is
	wills     *watch.Store                 // between the service and the database
	roam      *roam.Roam                   // nil in an open swarm: sessions stay with their node; set before broker is
	admin     atomic.Pointer[admin.Server] // nil until it serves, which it does before it can be noted here
	registry  *prometheus.Registry
	db        *store.DB
	auth      *auth
	clock     *certs.Clock
	certs     *certs.Keeper
	listeners []listener
	memory    atomic.Pointer[memory.Watcher] // nil: memory has no limit
	stopping  atomic.Bool
	left      atomic.Bool   // for good
	gone      chan struct{} // closed when it has left for good, or tried to
	stopOnce  sync.Once
	stopErr   error

	backupMu sync.Mutex // held while there is a backup that is not closed
	closed   bool       // guarded by backupMu: no more begin

	reloadMu    sync.Mutex // held while reloading
	reloadables []reloadable

	earlyMu         sync.Mutex
	earlyDeliveries []core.Delivery // that came before there was a broker

	peersMu sync.Mutex
	early   []peerEvent // what OnPeer said before there was a service
	met     bool        // there was another node
}

type peerEvent struct {
	id        peer.ID
	connected bool
}

// Start starts a node and returns when clients are served. When it fails, nothing is left running.
func Start(ctx context.Context, cfg config.Config, opt Options) (_ *Node, err error) {
	n := &Node{cfg: cfg, opt: opt, log: opt.Log, started: time.Now(), registry: prometheus.NewRegistry(), gone: make(chan struct{})}
	if n.dir, err = datadir.Open(cfg.Data); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	_ = os.RemoveAll(n.dir.Path(backupDir)) // of a node that was killed
	if err := n.startAuth(); err != nil {
		return nil, err
	}
	if n.db, err = store.Open(filepath.Join(cfg.Data, "db"), store.Options{Interval: cfg.Storage.Interval(), Log: n.log}); err != nil {
		return nil, err
	}
	if err := n.join(ctx); err != nil {
		return nil, err
	}
	if err := n.startService(); err != nil {
		return nil, err
	}
	if err := n.startBroker(); err != nil {
		return nil, err
	}
	n.watchMemory()
	n.collect()
	token, err := n.adminToken()
	if err != nil {
		return nil, err
	}
	api, err := admin.Start(n, admin.Options{Address: cfg.Admin.Listen, Token: token, Pprof: cfg.Admin.Pprof, Metrics: n.registry, Log: n.log})
	if err != nil {
		return nil, err
	}
	n.admin.Store(api)
	if err := n.dir.SetAdmin(api.Address()); err != nil {
		return nil, err
	}
	return n, nil
}

// join opens the libp2p host, which finds the swarm.
func (n *Node) join(ctx context.Context) error {
	key, bootstrap, err := n.membership()
	if err != nil {
		return err
	}
	c := n.hostConfig(key, bootstrap)
	n.joins = n.db.New() && !n.founds && (key != nil || len(c.Bootstrap) > 0)
	n.host, err = dht.Open(ctx, c)
	return err
}

func (n *Node) hostConfig(key *dht.SwarmKey, bootstrap []string) dht.Config {
	c := dht.DefaultConfig(n.cfg.Data)
	c.Listen, c.SwarmKey = n.cfg.Swarm.Listen, key
	c.Bootstrap = append(append(c.Bootstrap, n.cfg.Swarm.Bootstrap...), bootstrap...)
	c.MDNS, c.Small, c.NAT, c.Relay = n.cfg.Swarm.MDNS, n.cfg.Swarm.Small, n.cfg.Swarm.NAT, n.cfg.Swarm.Relay
	if r := n.cfg.Swarm.Reachability; r != config.ReachabilityAuto {
		c.Reachability = dht.Reachability(r)
	}
	c.UserAgent = "mozzie/" + n.opt.Version
	c.OnPeer = n.onPeer
	c.Log = n.log
	c.Metrics = n.registry
	return c
}

// onPeer passes on who connects and who is lost, also from before the service was there.
func (n *Node) onPeer(id peer.ID, connected bool) {
	n.peersMu.Lock()
	s := n.service.Load()
	if s == nil {
		n.early = append(n.early, peerEvent{id, connected})
	}
	n.peersMu.Unlock()
	if s != nil {
		s.OnPeer(id, connected)
	}
	n.activateRoaming()
}

// activateRoaming lets sessions roam, and others know wills, once there is another node.
func (n *Node) activateRoaming() {
	n.peersMu.Lock()
	n.met = n.met || n.host != nil && len(n.host.Connected()) > 0
	r, w, met := n.roam, n.watch, n.met
	n.peersMu.Unlock()
	if w != nil && met {
		w.Activate()
	}
	if r != nil && met {
		r.Activate()
	}
}

func (n *Node) startService() error {
	life, err := n.dir.NextLife(time.Now())
	if err != nil {
		return err
	}
	n.wills = watch.NewStore(n.db.Retained(), n.db.Retained().Each)
	s := rendezvous.New(rendezvous.Config{
		Host:      n.host.Libp2p(),
		Database:  n.db.ID(),
		Life:      life,
		Private:   !n.cfg.Swarm.Open,
		Joins:     n.joins,
		Restoring: true,
		Depth:     n.cfg.Locations.Depth,
		Small:     n.cfg.Swarm.Small,
		Limits:    n.coreLimits(),
		Pending:   n.pending(),
		Custody:   n.db.Custody(),
		Retained:  n.wills,
		Journal:   n.db.Journal(),
		Received:  n.db.Received(),
		Log:       n.log,
		Addresses: n.addresses,
		Dial:      n.host.Dial,
		Closest:   n.host.Closest,
		Forget:    n.host.Forget,
		Reconnect: n.host.Reconnect,
		Deliver:   n.deliver,
		Accept:    n.accept,
		Sync:      n.db.Sync, SyncInTime: n.db.SyncInTime,
		Tap: n.opt.Tap,
	})
	n.peersMu.Lock()
	n.service.Store(s)
	early := n.early
	n.early = nil
	for _, e := range early {
		s.OnPeer(e.id, e.connected)
	}
	n.peersMu.Unlock()
	return nil
}

// coreLimits are the limits of what the node keeps at locations.
func (n *Node) coreLimits() core.Limits {
	p := n.cfg.Limits.Peers
	l := core.DefaultLimits()
	l.Nodes, l.Locations, l.Registrations, l.UnknownEpochs = p.MaxNodes, p.MaxLocations, p.MaxFilters, p.MaxEpochs
	l.Outbox, l.OutboxBytes = p.MaxOutboxMessages, asInt(p.MaxOutboxBytes)
	l.Away, l.AwayBytes = p.MaxAwayMessages, asInt(p.MaxAwayBytes)
	l.Waiting, l.WaitingBytes = p.MaxWaitingMessages, asInt(p.MaxWaitingBytes)
	l.Unsettled, l.UnsettledBytes = p.MaxUnsettledMessages, asInt(p.MaxUnsettledBytes)
	l.Custody, l.CustodyBytes = p.MaxCustodyMessages, asInt(p.MaxCustodyBytes)
	l.RetainedTopics, l.RetainedBytes = n.cfg.Limits.MaxRetainedMessages, asInt(n.cfg.Limits.MaxRetainedBytes)
	return l
}

// pending are the limits of what waits to be written to other nodes.
func (n *Node) pending() rendezvous.Pending {
	p := n.cfg.Limits.Peers
	return rendezvous.Pending{Peer: asInt(p.MaxPendingBytes), All: asInt(p.MaxTotalPendingBytes)}
}

// addresses returns this node's multiaddresses without /p2p.
func (n *Node) addresses() []string { return peerAddresses(n.host.Addrs()) }

func (n *Node) startBroker() error {
	b, err := mqttfront.New(n.brokerConfig(), &swarm{n.service.Load(), n.db.Retained(), n.cfg.MQTT.Acknowledge == config.AcknowledgeSwarm}, n.auth, n.db.Sessions(), n.log)
	if err != nil {
		return err
	}
	n.service.Load().Restored()
	n.startWatching(b)
	n.startRoaming(b)
	n.earlyMu.Lock()
	n.pass(b, n.earlyDeliveries) // before others come
	n.earlyDeliveries = nil
	n.broker.Store(b)
	n.earlyMu.Unlock()
	n.sayFound()
	return n.listen()
}

// startWatching has wills known to others, and others' wills sent.
func (n *Node) startWatching(b *mqttfront.Broker) {
	w := watch.New(watch.Config{Host: n.host.Libp2p(), Swarm: n.service.Load(), Broker: b, Store: n.wills, Log: n.log})
	b.KeepWills(w)
	n.peersMu.Lock()
	n.watch = w
	n.peersMu.Unlock()
	n.activateRoaming()
}

// startRoaming lets the sessions of a private swarm go where their clients connect.
func (n *Node) startRoaming(b *mqttfront.Broker) {
	if n.cfg.Swarm.Open {
		return
	}
	r := roam.New(roam.Config{Host: n.host.Libp2p(), Database: n.db.ID(), Joins: n.joins, Swarm: n.service.Load(), Broker: b, Resumed: n.watch.Resumed, Log: n.log})
	b.Roam(r)
	n.peersMu.Lock()
	n.roam = r
	n.peersMu.Unlock()
	n.activateRoaming()
}

func (n *Node) brokerConfig() mqttfront.Config {
	l := n.cfg.Limits
	c := mqttfront.DefaultConfig()
	c.MaxConnections, c.MaxConnectionsPerAddress = l.MaxConnections, l.MaxConnectionsPerAddress
	c.MaxConnectionRate, c.MaxConnectionRatePerAddress = l.MaxConnectionRate, l.MaxConnectionRatePerAddress
	c.ConnectTimeout = l.ConnectTimeout
	c.MaxPacketSize = asInt(l.MaxPacketSize)
	c.ReceiveMaximum, c.MaxInflight = l.ReceiveMaximum, l.MaxInflightMessages
	c.TopicAliasMaximum, c.MaxOutboundAliases = l.TopicAliasMaximum, l.TopicAliasMaximum
	c.MaxKeepAlive, c.MaxSessionExpiry = l.MaxKeepAlive, l.MaxSessionExpiry
	c.MaxSessions, c.MaxSubscriptions = l.MaxSessions, l.MaxSubscriptions
	c.MaxRetainedMessages, c.MaxRetainedBytes = l.MaxRetainedMessages, int64(l.MaxRetainedBytes)
	c.Topics.Length, c.Topics.Levels = l.MaxTopicLength, l.MaxTopicLevels
	c.MaxQueuedMessages, c.MaxQueuedBytes = l.MaxQueuedMessages, int64(l.MaxQueuedBytes)
	c.MaxStoredMessages, c.MaxStoredBytes, c.MaxTotalStoredBytes = l.MaxStoredMessages, int64(l.MaxStoredBytes), int64(l.MaxTotalStoredBytes)
	c.MaxPendingBytes = asInt(l.MaxPendingBytes)
	c.MaxTotalQueuedBytes, c.MaxTotalPendingBytes = int64(l.MaxTotalQueuedBytes), int64(l.MaxTotalPendingBytes)
	c.SysInterval, c.Sys = n.cfg.MQTT.SysInterval, n.sayUnderSys
	c.Version = "mozzie " + n.opt.Version
	return c
}

// asInt is a size as an int, which is short on 32-bit machines: more than they can have is as good as no limit.
func asInt(b config.Bytes) int { return int(min(int64(b), math.MaxInt)) }

// peerAddresses are multiaddresses as text.
func peerAddresses(addrs []ma.Multiaddr) []string {
	all := make([]string, 0, len(addrs))
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return all
}
