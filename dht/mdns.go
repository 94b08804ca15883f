package dht

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// mdnsRetry is how long to wait after multicast could not be had.
	mdnsRetry = time.Minute
	// mdnsSettle is how long addresses must have been the same before they are announced: an interface that
	// comes up gets several in a row.
	mdnsSettle = 2 * time.Second
)

// mdnsService returns the service name that nodes of one swarm have in common and others do not. Its first
// label has the 15 characters that RFC 6763 allows.
func mdnsService(key *SwarmKey) string {
	if key == nil {
		return "_mozzie-open._udp"
	}
	return "_mozzie-" + key.Fingerprint()[:7] + "._udp"
}

// discovery is one run of libp2p's mDNS service after another: each announces the addresses of its start.
type discovery struct {
	host    host.Host
	service string
	found   func(peer.AddrInfo)
	log     *slog.Logger
	said    string // what was logged last
}

// HandlePeerFound is called by libp2p for each answer, in a goroutine of its own.
func (d *discovery) HandlePeerFound(info peer.AddrInfo) { d.found(info) }

// runMDNS announces this node and looks for others, again whenever its addresses change.
func (d *discovery) runMDNS(ctx context.Context) {
	sub, err := d.host.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.Name("mozzie mdns"))
	if err != nil {
		d.log.Warn("not looking for nodes on the local network", "error", err)
		return
	}
	defer func() { _ = sub.Close() }()
	for ctx.Err() == nil {
		stop, err := d.start()
		d.say(err)
		addrs := d.addrs()
		d.waitForChange(ctx, sub, addrs, err != nil)
		stop()
	}
}

// start starts a run.
func (d *discovery) start() (stop func(), err error) {
	if !canMulticast() {
		return func() {}, errors.New("no network interface that is up has multicast")
	}
	s := mdns.NewMdnsService(d.host, d.service, d)
	err = s.Start()
	return func() { _ = s.Close() }, err
}

// say logs what is new.
func (d *discovery) say(err error) {
	text := "looking for nodes on the local network"
	if err != nil {
		text = "can't look for nodes on the local network: " + err.Error()
	}
	if text != d.said {
		d.log.Info(text, "service", d.service)
	}
	d.said = text
}

// waitForChange returns when addresses have changed and settled, or, after a failure, when it is time to try
// again.
func (d *discovery) waitForChange(ctx context.Context, sub event.Subscription, addrs []ma.Multiaddr, failed bool) {
	var retry, settled <-chan time.Time
	if failed {
		retry = time.After(mdnsRetry)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-retry:
			return
		case <-sub.Out():
			settled = time.After(mdnsSettle)
		case <-settled:
			if !sameAddrs(addrs, d.addrs()) {
				return
			}
			settled = nil
		}
	}
}

func (d *discovery) addrs() []ma.Multiaddr {
	addrs, err := d.host.Network().InterfaceListenAddresses()
	if err != nil {
		return nil
	}
	return addrs
}

func canMulticast() bool {
	ifaces, err := net.Interfaces()
	const need = net.FlagUp | net.FlagMulticast
	return err == nil && slices.ContainsFunc(ifaces, func(i net.Interface) bool { return i.Flags&need == need })
}
