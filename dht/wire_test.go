package dht

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	kadpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
)

// TestLookupPassesAHungNode has one of four accept questions and never answer.
func TestLookupPassesAHungNode(t *testing.T) {
	t.Parallel()
	hosts := openSwarm(t, 4)
	eventually(t, "routing tables are full", func() bool {
		return !slices.ContainsFunc(hosts, func(h *Host) bool { return h.kad.RoutingTable().Size() < 3 })
	})
	hung := hosts[3]
	stop := make(chan struct{})
	defer close(stop)
	for _, h := range hosts[:3] { // the streams that are open have a handler that answers
		for _, c := range h.Libp2p().Network().ConnsToPeer(hung.ID()) {
			for _, s := range c.GetStreams() {
				_ = s.Reset()
			}
		}
	}
	hung.Libp2p().SetStreamHandler(KadProtocol, func(s network.Stream) {
		<-stop
		_ = s.Reset()
	})
	start := time.Now()
	got, err := hosts[0].Closest(t.Context(), []byte(hung.ID()))
	took := time.Since(start)
	if err != nil || len(got) != 3 || slices.Contains(got, hung.ID()) {
		t.Errorf("got %v, %v", got, err)
	}
	if took > requestTimeout+2*time.Second {
		t.Errorf("took %v", took)
	}
	// With a context that ends first, there is what has answered.
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if got, _ := hosts[1].Closest(ctx, []byte(hung.ID())); !slices.Contains(got, hosts[0].ID()) || slices.Contains(got, hung.ID()) {
		t.Errorf("got %v in 200 ms", got)
	}
}

// TestExchangeBytes fixes what a question looks like on the wire.
func TestExchangeBytes(t *testing.T) {
	var b bytes.Buffer
	err := writeMessage(&b, &kadpb.Message{Type: kadpb.Message_PING, Key: []byte{1, 2, 3, 4, 5, 6, 7, 8}})
	if got, want := fmt.Sprintf("%x", b.Bytes()), "0c080512080102030405060708"; err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

// TestExchange asks by hand.
func TestExchange(t *testing.T) {
	hosts := openSwarm(t, 3)
	ask := func(key []byte) *kadpb.Message {
		t.Helper()
		s, err := hosts[0].Libp2p().NewStream(t.Context(), hosts[1].ID(), peersProtocol)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Reset() }()
		if err := writeMessage(s, &kadpb.Message{Type: kadpb.Message_PING, Key: key}); err != nil {
			t.Fatal(err)
		}
		a := new(kadpb.Message)
		if err := pbio.NewDelimitedReader(s, maxExchange).ReadMsg(a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := ask([]byte("another"))
	if !bytes.Equal(a.Key, hosts[0].exchange.digest()) {
		t.Error("digests of a mesh differ")
	}
	if len(a.CloserPeers) != 1 || peer.ID(a.CloserPeers[0].Id) != hosts[2].ID() || len(a.CloserPeers[0].Addrs) == 0 {
		t.Errorf("neighbours %v", a.CloserPeers)
	}
	if a := ask(hosts[0].exchange.digest()); len(a.CloserPeers) != 0 {
		t.Errorf("neighbours %v for the same digest", a.CloserPeers)
	}
}

// TestExchangeIsBounded has a neighbour that answers with rubbish: it costs one stream.
func TestExchangeIsBounded(t *testing.T) {
	hosts := openSwarm(t, 2)
	a, bad := hosts[0], hosts[1]
	many := func(n int) *kadpb.Message {
		m := &kadpb.Message{Type: kadpb.Message_PING}
		for i := range n {
			id := append([]byte{0, 36, 8, 1, 18, 32}, make([]byte, 32)...) // an Ed25519 key in a peer ID
			binary.BigEndian.PutUint32(id[6:], uint32(i))
			m.CloserPeers = append(m.CloserPeers, &kadpb.Message_Peer{Id: id, Addrs: [][]byte{ma.StringCast("/ip4/192.0.2.1/tcp/1").Bytes()}})
		}
		return m
	}
	for _, c := range []struct {
		name   string
		answer func(io.Writer) error
		fails  bool
	}{
		{"a claim of 1 GB", func(w io.Writer) error { _, err := w.Write([]byte{0x80, 0x80, 0x80, 0x80, 4}); return err }, true},
		{"noise", func(w io.Writer) error { _, err := w.Write([]byte{3, 0xff, 0xff, 0xff}); return err }, true},
		{"nothing", func(io.Writer) error { return nil }, true},
		{"too many", func(w io.Writer) error { return writeMessage(w, many(maxNeighbours+1)) }, true},
		{"no IDs and no addresses", func(w io.Writer) error {
			return writeMessage(w, &kadpb.Message{CloserPeers: []*kadpb.Message_Peer{{}, {Id: []byte("x")}, {Id: []byte(a.ID()), Addrs: [][]byte{{1}}}}})
		}, false},
		{"many", func(w io.Writer) error { return writeMessage(w, many(maxNeighbours)) }, false},
	} {
		bad.Libp2p().SetStreamHandler(peersProtocol, func(s network.Stream) {
			_ = c.answer(s)
			_ = s.Close()
		})
		if _, err := a.exchange.ask(t.Context(), bad.ID()); (err != nil) != c.fails {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	a.dialer.mu.Lock()
	defer a.dialer.mu.Unlock()
	if n := len(a.dialer.plan.targets); n < maxNeighbours || n > maxNeighbours+1 {
		t.Errorf("%d targets", n)
	}
}
