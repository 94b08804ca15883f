package dht

import (
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	identifypb "github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	"github.com/libp2p/go-msgio/pbio"
)

// TestIdentifiedLate has a node not say who it is on its first connections, as one does that is too busy: it is dialled
// again until it has.
func TestIdentifiedLate(t *testing.T) {
	const silent = 2
	late, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = late.Close() })
	key, err := crypto.MarshalPublicKey(late.Peerstore().PubKey(late.ID()))
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	late.SetStreamHandler(identify.ID, func(s network.Stream) {
		if asked.Add(1) <= silent {
			_ = s.Reset()
			return
		}
		defer s.Close()
		_ = pbio.NewDelimitedWriter(s).WriteMsg(&identifypb.Identify{PublicKey: key, Protocols: protocol.ConvertToStrings([]protocol.ID{KadProtocol})})
	})
	h := open(t, testConfig(t))
	h.Dial(peer.AddrInfo{ID: late.ID(), Addrs: late.Addrs()})
	eventually(t, "the node that is identified late is connected", func() bool { return h.peers.has(late.ID()) })
	if n := asked.Load(); n != silent+1 {
		t.Errorf("it was asked %d times who it is", n)
	}
}
