package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

var _ admin.Node = (*Node)(nil)

// Status implements admin.Node.
func (n *Node) Status() admin.Status {
	ready, reasons := n.Ready()
	s := admin.Status{
		PeerID: n.host.ID().String(), Version: n.opt.Version, UptimeS: time.Since(n.started).Seconds(),
		Ready: ready, Reasons: reasons, Swarm: "open", Addresses: n.host.Addresses(), Data: n.cfg.Data,
	}
	s.MQTT, s.Listeners = n.listenerStatus()
	if api := n.admin.Load(); api != nil {
		s.Admin = api.Address()
	}
	if key := n.host.Invite().Key; key != nil {
		s.Swarm, s.Fingerprint = "private", key.Fingerprint()
	}
	s.Memory = n.memoryStatus()
	svc := n.service.Load()
	g := svc.Gauges()
	s.Nodes, s.Peers = g.Nodes, int(svc.Stats().Up.Load())
	b := n.broker.Load().Stats()
	s.Connections, s.Sessions = int(b.Connections.Load()), int(b.Sessions.Load())
	s.Subscriptions = int(b.Subscriptions.Load())
	s.Retained = n.db.Retained().Total()
	for i := range b.Received {
		s.Received += int64(b.Received[i].Load()) //nolint:gosec // a count
		s.Sent += int64(b.Sent[i].Load())         //nolint:gosec // a count
	}
	s.Dropped = int64(b.Dropped()) //nolint:gosec // a count
	s.Locations, s.Rendezvous, s.Registrations = g.Locations, g.Serving, g.Registrations
	s.Streams, s.Custody = 2*s.Peers, g.Custody
	return s
}

// Ready implements admin.Node.
func (n *Node) Ready() (ok bool, reasons []string) {
	if n.stopping.Load() {
		return false, []string{"the node is stopping"}
	}
	if err := n.db.Err(); err != nil {
		return false, []string{fmt.Sprintf("the database can't be written, and QoS 1 and 2 messages are refused: %v", err)}
	}
	return true, nil
}

// Peers implements admin.Node.
func (n *Node) Peers() []admin.Peer {
	h := n.host.Libp2p()
	var all []admin.Peer
	seen := map[peer.ID]bool{}
	for _, p := range n.service.Load().Peers() {
		id, err := peer.IDFromBytes([]byte(p.ID.Peer()))
		if err != nil || p.Gone || seen[id] {
			continue
		}
		seen[id] = true
		a := admin.Peer{PeerID: id.String(), Addresses: p.Addresses, Connected: p.Up, Left: p.Left}
		if len(a.Addresses) == 0 {
			a.Addresses = peerAddresses(h.Peerstore().Addrs(id))
		}
		if !p.Up {
			a.SeenS = p.Since.Seconds()
		}
		if rtt := h.Peerstore().LatencyEWMA(id); rtt > 0 {
			a.RTTms = float64(rtt.Microseconds()) / 1000
		}
		if v, err := h.Peerstore().Get(id, "AgentVersion"); err == nil {
			text, _ := v.(string)
			a.Version = printable(text)
		}
		a.Relayed = n.host.Relayed(id)
		all = append(all, a)
	}
	return all
}

// printable is what another node says of itself, fit for a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, clip(s))
}

// Locate implements admin.Node.
func (n *Node) Locate(_ context.Context, name string) (admin.Location, error) {
	if err := topic.ValidName(name, topic.Limits{}); err != nil {
		return admin.Location{}, fmt.Errorf("%w: %w", admin.ErrBadTopic, err)
	}
	var v core.View
	var reach []bool
	svc := n.service.Load()
	svc.View(func(c *core.Node) {
		v = c.Locate(name)
		for _, m := range v.Set.Members {
			reach = append(reach, c.InReach(m))
		}
	})
	l := admin.Location{Topic: name, Prefix: v.Place.Prefix, Depth: v.Place.Depth, Location: hex.EncodeToString(v.At[:]), Version: v.Set.Version}
	for i, m := range v.Set.Members {
		id, err := peer.IDFromBytes([]byte(m.Peer()))
		if err != nil {
			return l, errors.New("a member of the set has no peer ID")
		}
		l.Members = append(l.Members, admin.Member{PeerID: id.String(), Self: m == svc.Self(), Rendezvous: m == v.Rendezvous,
			Reachable: reach[i], Distance: distance(v.At, dht.PeerPoint(m.Peer()))})
	}
	return l, nil
}

func distance(a, b dht.Location) string {
	for i := range a {
		a[i] ^= b[i]
	}
	return hex.EncodeToString(a[:])
}

// Invite implements admin.Node.
func (n *Node) Invite() (string, error) { return n.host.Invite().String(), nil }

// Config implements admin.Node.
func (n *Node) Config() string { return n.cfg.Show() }
