package dht

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	kadpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
)

// The neighbour exchange, /mozzie/peers/1.0.0: how the nodes of a small swarm all come to know each other,
// which Kademlia's lookups, made to find a few, would take many messages for.
//
// A node opens a stream and sends one message; the other answers with one and closes the stream. Both are
// Kademlia's Message (kad-dht's dht.pb, protobuf), preceded by its length as a varint, at most
// maxExchange bytes. The question has type PING and in key the digest of the asker's neighbours: the first
// 8 bytes of the SHA-256 of the IDs, in bytes and in their order, of all nodes that it is connected to and
// its own. The answer has type PING and the answerer's digest in key. If the digests differ, closerPeers
// has the nodes that the answerer is connected to, without the asker, at most maxNeighbours, each with at
// most maxAddrs addresses. Fields that are not named here are ignored, and so are peers without an address.
//
// So a full mesh at rest costs a few hundred bytes for each question, whatever its size.

const (
	maxExchange   = 128 << 10
	maxNeighbours = 256
	// exchangeTimeout bounds a question with its answer.
	exchangeTimeout = 5 * time.Second
	// exchangeMin is the time from one question to the next while neighbours come and go; it doubles up to
	// exchangeMax while nothing changes.
	exchangeMin = 500 * time.Millisecond
	exchangeMax = 5 * time.Minute
	// askAtOnce is how many of the first neighbours are asked as soon as they are there.
	askAtOnce = 3
	// digestBytes is how much of the hash goes over the wire.
	digestBytes = 8
)

// exchange asks neighbours for theirs, and answers.
type exchange struct {
	host    host.Host
	peers   *peerSet
	addrsOf func(peer.ID) []ma.Multiaddr
	found   func(peer.AddrInfo)
	log     *slog.Logger
	fresh   chan peer.ID // a neighbour to ask at once; "" for one that was lost
}

func newExchange(h *Host) *exchange {
	return &exchange{
		host: h.host, peers: h.peers, log: h.log, addrsOf: h.addrsOf,
		found: func(info peer.AddrInfo) { h.dialer.add(info, heard) },
		fresh: make(chan peer.ID, 16),
	}
}

// changed notes that a neighbour came or went. It does not block: a note that finds no room is one of many.
func (x *exchange) changed(id peer.ID, connected bool) {
	if !connected {
		id = ""
	}
	select {
	case x.fresh <- id:
	default:
	}
}

// runExchange asks one neighbour at a time: the first ones as they come, then any.
func (x *exchange) runExchange(ctx context.Context) {
	wait := exchangeMin
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		var ask peer.ID
		select {
		case <-ctx.Done():
			return
		case id := <-x.fresh:
			if x.peers.len() <= askAtOnce {
				ask = id
			}
			wait = exchangeMin
		case <-timer.C:
			if ids := x.peers.list(); len(ids) > 0 {
				ask = ids[rand.N(len(ids))] //nolint:gosec // any will do
			}
			wait = min(2*wait, exchangeMax)
		}
		if ask != "" {
			if news, err := x.ask(ctx, ask); err != nil {
				x.log.Debug("asking a node for its neighbours", "peer", ask.String(), "error", err)
			} else if news {
				wait = exchangeMin
			}
		}
		timer.Reset(wait/2 + rand.N(wait)) //nolint:gosec // jitter
	}
}

// ask asks one neighbour, and reports whether it named anyone new.
func (x *exchange) ask(ctx context.Context, id peer.ID) (news bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	s, err := x.host.NewStream(ctx, id, peersProtocol)
	if err != nil {
		return false, err
	}
	defer func() { _ = s.Reset() }()
	deadline, _ := ctx.Deadline()
	_ = s.SetDeadline(deadline)
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	if err := writeMessage(s, &kadpb.Message{Type: kadpb.Message_PING, Key: x.digest()}); err != nil {
		return false, err
	}
	infos, err := readNeighbours(s)
	if err != nil {
		return false, err
	}
	_ = s.Close()
	for _, info := range infos {
		if info.ID == x.host.ID() || x.peers.has(info.ID) {
			continue
		}
		news = true
		x.found(info)
	}
	return news, nil
}

// readNeighbours reads an answer, and returns the nodes that it names with an address.
func readNeighbours(r io.Reader) ([]peer.AddrInfo, error) {
	answer := new(kadpb.Message)
	if err := pbio.NewDelimitedReader(r, maxExchange).ReadMsg(answer); err != nil {
		return nil, err
	}
	if len(answer.CloserPeers) > maxNeighbours {
		return nil, fmt.Errorf("%d neighbours are more than the %d allowed", len(answer.CloserPeers), maxNeighbours)
	}
	var infos []peer.AddrInfo
	for _, info := range kadpb.PBPeersToPeerInfos(answer.CloserPeers) {
		if info.ID.Validate() == nil && len(info.Addrs) > 0 {
			infos = append(infos, peer.AddrInfo{ID: info.ID, Addrs: someAddrs(info.Addrs, maxAddrs)})
		}
	}
	return infos, nil
}

// readQuestion reads a question, and returns the digest of the asker's neighbours.
func readQuestion(r io.Reader) (digest []byte, err error) {
	q := new(kadpb.Message)
	if err := pbio.NewDelimitedReader(bufio.NewReader(r), digestBytes+64).ReadMsg(q); err != nil {
		return nil, err
	}
	return q.Key, nil
}

// answer is the stream handler.
func (x *exchange) answer(s network.Stream) {
	_ = s.SetDeadline(time.Now().Add(exchangeTimeout))
	if err := x.serve(s); err != nil {
		x.log.Debug("telling a node the neighbours", "peer", s.Conn().RemotePeer().String(), "error", err)
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

func (x *exchange) serve(s network.Stream) error {
	asked, err := readQuestion(s)
	if err != nil {
		return err
	}
	a := &kadpb.Message{Type: kadpb.Message_PING, Key: x.digest()}
	if !slices.Equal(a.Key, asked) {
		asker := s.Conn().RemotePeer()
		var infos []peer.AddrInfo
		for _, id := range x.peers.list() {
			if addrs := x.addrsOf(id); id != asker && len(addrs) > 0 && len(infos) < maxNeighbours {
				infos = append(infos, peer.AddrInfo{ID: id, Addrs: addrs})
			}
		}
		a.CloserPeers = kadpb.RawPeerInfosToPBPeers(infos)
	}
	return writeMessage(s, a)
}

// digest is the same at two nodes that are each connected to all that the other is.
func (x *exchange) digest() []byte {
	ids := append(x.peers.list(), x.host.ID())
	slices.Sort(ids)
	h := sha256.New()
	for _, id := range ids {
		h.Write([]byte(id))
	}
	return h.Sum(nil)[:digestBytes]
}
