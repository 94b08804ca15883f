package rendezvous

import (
	"context"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// attempts is a host that tells of the attempts to open a stream.
type attempts struct {
	host.Host
	made chan struct{}
}

func (h *attempts) NewStream(ctx context.Context, id peer.ID, ps ...protocol.ID) (network.Stream, error) {
	select {
	case h.made <- struct{}{}:
	default:
	}
	return h.Host.NewStream(ctx, id, ps...)
}

func disconnect(t *testing.T, a, b host.Host) {
	t.Helper()
	if err := a.Network().ClosePeer(b.ID()); err != nil {
		t.Fatal(err)
	}
	for _, p := range [][2]host.Host{{a, b}, {b, a}} {
		eventually(t, "they are not connected", func() bool {
			return p[0].Network().Connectedness(p[1].ID()) == network.NotConnected
		})
	}
}

// TestLinksDoNotDial: a link to a peer that is not there opens no connection, however long it is not told so.
func TestLinksDoNotDial(t *testing.T) {
	h := &attempts{newHost(t), make(chan struct{})}
	a := startUntold(t, h)
	b := newHost(t)
	connect(t, h, b) // so that its addresses are known
	disconnect(t, h, b)
	a.OnPeer(b.ID(), true)
	for range 3 {
		<-h.made
	}
	if len(b.Network().Conns()) > 0 || len(h.Network().Conns()) > 0 {
		t.Error("a link has dialled")
	}
	if broken := a.Stats().Broken.Load(); broken > 0 {
		t.Errorf("%d streams are counted as broken where there was none", broken)
	}
	a.OnPeer(b.ID(), false)
	if a.linked() > 0 {
		t.Error("the link stays")
	}
}

// TestStreamAfterLoss: a stream that is taken up when its peer is lost makes no link.
func TestStreamAfterLoss(t *testing.T) {
	a := start(t, newHost(t))
	came := make(chan network.Stream, 1)
	a.host.SetStreamHandler(proto.RouteProtocol, func(s network.Stream) { came <- s })
	b := newHost(t)
	connect(t, b, a.host)
	if _, err := openRoute(t, b, a.host).Write(frame(hello(b.ID(), 1))); err != nil {
		t.Fatal(err)
	}
	s := <-came
	disconnect(t, a.host, b)
	eventually(t, "the loss is told", func() bool { return a.linked() == 0 })
	returns(t, "incoming", func() { a.incoming(s) })
	if a.linked() > 0 {
		t.Error("a stream of a peer that is lost makes a link")
	}
}

// TestStreamBeforeTold: a stream may come before OnPeer tells of its peer. The link that it makes is the one that
// OnPeer then finds, and ends with the connection also where OnPeer never tells of it.
func TestStreamBeforeTold(t *testing.T) {
	a, b := startUntold(t, newHost(t)), start(t, newHost(t))
	connect(t, b.host, a.host)
	eventually(t, "the link is up", func() bool { return a.up() == 1 && b.up() == 1 })
	l := a.linkTo(b.host)
	disconnect(t, a.host, b.host)
	eventually(t, "the link is gone", func() bool { return a.linked() == 0 && b.linked() == 0 })
	if a.up() > 0 {
		t.Error("a peer is up without a link")
	}

	connect(t, b.host, a.host)
	eventually(t, "the link is up again", func() bool { return a.up() == 1 && b.up() == 1 })
	if l == a.linkTo(b.host) {
		t.Error("it is the old link")
	}
	l = a.linkTo(b.host)
	a.OnPeer(b.host.ID(), true)
	if a.linkTo(b.host) != l || a.up() != 1 {
		t.Error("OnPeer makes another link")
	}
	b.subscribe(t, "t/#")
	crosses(t, a, b, "t/x", "told")
	disconnect(t, a.host, b.host)
	a.OnPeer(b.host.ID(), false)
	if a.linked() > 0 || a.up() > 0 {
		t.Error("the link outlives its peer")
	}
}

// TestLostAndBack: a peer that is lost and back before anybody told of it is up again.
func TestLostAndBack(t *testing.T) {
	a, b := startUntold(t, newHost(t)), startUntold(t, newHost(t))
	connect(t, a.host, b.host)
	a.OnPeer(b.host.ID(), true)
	b.OnPeer(a.host.ID(), true)
	eventually(t, "the link is up", func() bool { return a.up() == 1 && b.up() == 1 })
	disconnect(t, a.host, b.host)
	eventually(t, "the loss is noticed", func() bool { return a.up() == 0 && b.up() == 0 })
	connect(t, a.host, b.host)
	eventually(t, "the link is up again", func() bool { return a.up() == 1 && b.up() == 1 })
}
