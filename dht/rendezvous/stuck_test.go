package rendezvous

import (
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// wire is a TCP proxy that can stop carrying bytes, like a cable that is cut or a machine that is frozen.
type wire struct {
	at     multiaddr.Multiaddr
	frozen chan struct{} // closed when nothing is carried any more

	mu    sync.Mutex
	conns []net.Conn
}

// newWire starts a proxy to a host. It ends with the test.
func newWire(t *testing.T, to host.Host) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at, err := manet.FromNetAddr(listener.Addr())
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{at: at, frozen: make(chan struct{})}
	target, err := manet.ToNetAddr(to.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target.String())
			if err != nil {
				_ = in.Close()
				continue
			}
			_ = out.(*net.TCPConn).SetReadBuffer(4 << 10) // what is not carried is not hidden in buffers
			w.mu.Lock()
			w.conns = append(w.conns, in, out)
			w.mu.Unlock()
			all.Go(func() { w.carry(in, out) })
			all.Go(func() { w.carry(out, in) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		w.mu.Lock()
		for _, c := range w.conns {
			_ = c.Close()
		}
		w.mu.Unlock()
		all.Wait()
	})
	return w
}

func (w *wire) carry(to, from net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			break
		}
		select {
		case <-w.frozen:
			return // the connections stay open until the test ends
		default:
		}
		if _, err := to.Write(b[:n]); err != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close()
}

// patient makes a host that does not give a connection up on which nothing goes.
func patient(t *testing.T) host.Host {
	t.Helper()
	c := *yamux.DefaultTransport.Config()
	c.EnableKeepAlive, c.ConnectionWriteTimeout = false, time.Hour
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Muxer(yamux.ID, (*yamux.Transport)(&c)), libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

const fillProtocol = "/test/fill"

// fill writes to a peer that takes nothing until its connection holds no more.
func fill(t *testing.T, from host.Host, to peer.ID) {
	t.Helper()
	b := make([]byte, 200<<10) // less than a stream's window
	for range 1000 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		s, err := from.NewStream(ctx, to, fillProtocol)
		cancel()
		if err != nil {
			return
		}
		_ = s.SetWriteDeadline(time.Now().Add(2 * time.Second))
		if _, err := s.Write(b); err != nil {
			return
		}
	}
	t.Fatal("the connection takes everything")
}

// frozen returns a node and its peer, which is up, and with which no byte is exchanged any more; and nothing more
// fits on the connection.
func frozen(t *testing.T) (*node, host.Host) {
	t.Helper()
	a := start(t, patient(t))
	w := newWire(t, a.host)
	b := patient(t)
	b.SetStreamHandler(proto.RouteProtocol, func(s network.Stream) { _, _ = io.Copy(io.Discard, s); _ = s.Reset() })
	b.SetStreamHandler(fillProtocol, func(network.Stream) {})
	if err := b.Connect(t.Context(), peer.AddrInfo{ID: a.host.ID(), Addrs: []multiaddr.Multiaddr{w.at}}); err != nil {
		t.Fatal(err)
	}
	s := openRoute(t, b, a.host)
	if _, err := s.Write(frame(hello(b.ID(), 1))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the peer is up", func() bool { return a.up() == 1 })
	close(w.frozen)
	fill(t, a.host, b.ID())
	return a, b
}

// TestFrozenPeer: a peer that takes nothing off its connection, while libp2p still believes in it, stops nobody.
func TestFrozenPeer(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(a *node, b host.Host)
	}{
		{"Close", func(a *node, _ host.Host) { _ = a.Close() }},
		{"the peer is lost", func(a *node, b host.Host) { a.OnPeer(b.ID(), false) }},
		{"its stream is given up", func(a *node, b host.Host) {
			l := a.linkTo(b)
			a.Service.mu.Lock()
			a.dropLocked(l, errGivenUp)
			a.finish()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := frozen(t)
			returns(t, c.name, func() { c.do(a, b) })
			returns(t, "Peers", func() { a.Peers() })
			returns(t, "Close", func() { _ = a.Close() })
			if a.host.Network().Connectedness(b.ID()) != network.Connected {
				t.Error("the connection was given up meanwhile: nothing is shown")
			}
		})
	}
}

// hanging is a host that opens no route stream until it is told to, whatever its caller's context says.
type hanging struct {
	host.Host
	asked  chan struct{}
	let    chan struct{}
	opened chan error
}

func (h *hanging) NewStream(ctx context.Context, id peer.ID, ps ...protocol.ID) (network.Stream, error) {
	h.asked <- struct{}{}
	<-h.let
	s, err := h.Host.NewStream(context.WithoutCancel(ctx), id, ps...)
	h.opened <- err
	return s, err
}

// TestCloseWhileOpening: Close does not wait for a stream that is being opened. One that is opened too late is
// given up.
func TestCloseWhileOpening(t *testing.T) {
	h := &hanging{newHost(t), make(chan struct{}, 100), make(chan struct{}), make(chan error, 100)}
	a := start(t, h)
	other := newHost(t)
	other.SetStreamHandler(proto.RouteProtocol, func(s network.Stream) { _, _ = io.Copy(io.Discard, s); _ = s.Reset() })
	connect(t, a.host, other)
	<-h.asked
	returns(t, "Close", func() { _ = a.Close() })
	close(h.let)
	if err := <-h.opened; err != nil {
		t.Fatal(err)
	}
	eventually(t, "no stream is left", func() bool {
		return !slices.ContainsFunc(a.host.Network().Conns(), func(c network.Conn) bool {
			return slices.ContainsFunc(c.GetStreams(), func(s network.Stream) bool { return s.Protocol() == proto.RouteProtocol })
		})
	})
	eventually(t, "no goroutine of the service is left", func() bool { return running() == "" })
}
