package dht

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	kadpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
)

// kadSeeds are messages as nodes send them, and what may be in the place of one.
func kadSeeds(f *testing.F) (all [][]byte) {
	id, err := peer.Decode(idA)
	if err != nil {
		f.Fatal(err)
	}
	infos := []peer.AddrInfo{
		{ID: id, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1"), ma.StringCast("/ip6/2001:db8::1/udp/1/quic-v1")}},
		{ID: id, Addrs: []ma.Multiaddr{ma.StringCast("/dns4/pi.example/tcp/7883/p2p/" + idA + "/p2p-circuit")}}, {ID: id},
	}
	for _, m := range []*kadpb.Message{
		{Type: kadpb.Message_PING, Key: []byte("12345678")},
		{Type: kadpb.Message_PING, Key: []byte("12345678"), CloserPeers: kadpb.RawPeerInfosToPBPeers(infos)},
		{Type: kadpb.Message_FIND_NODE, Key: []byte(id), CloserPeers: kadpb.RawPeerInfosToPBPeers(infos), ProviderPeers: kadpb.RawPeerInfosToPBPeers(infos)},
		{CloserPeers: []*kadpb.Message_Peer{{}, {Id: []byte("x")}, {Id: []byte(id), Addrs: [][]byte{{1}, nil}}}},
	} {
		var b bytes.Buffer
		if err := writeMessage(&b, m); err != nil {
			f.Fatal(err)
		}
		all = append(all, b.Bytes())
	}
	return append(all, nil, []byte{0x80, 0x80, 0x80, 0x80, 4}, []byte{3, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0x80}, 20))
}

// FuzzExchange reads questions and answers about neighbours: what is taken is bounded, and the same once more.
func FuzzExchange(f *testing.F) {
	for _, b := range kadSeeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if digest, err := readQuestion(bytes.NewReader(b)); err == nil && len(digest) > digestBytes+64 {
			t.Errorf("a digest of %d bytes", len(digest))
		}
		infos, err := readNeighbours(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(infos) > maxNeighbours {
			t.Fatalf("%d neighbours", len(infos))
		}
		var again bytes.Buffer
		if err := writeMessage(&again, &kadpb.Message{CloserPeers: kadpb.RawPeerInfosToPBPeers(infos)}); err != nil {
			t.Fatal(err)
		}
		back, err := readNeighbours(&again)
		if err != nil || len(back) != len(infos) {
			t.Fatalf("%v, then %v, %v", infos, back, err)
		}
		for i, info := range infos {
			if len(info.Addrs) == 0 || len(info.Addrs) > maxAddrs || info.ID.Validate() != nil {
				t.Errorf("neighbour %v", info)
			}
			if back[i].String() != info.String() {
				t.Errorf("%v comes back as %v", info, back[i])
			}
		}
	})
}

// FuzzKademlia reads what a node may answer to a Kademlia request.
func FuzzKademlia(f *testing.F) {
	for _, b := range kadSeeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(kadpb.Message)
		if pbio.NewDelimitedReader(bytes.NewReader(b), maxKadMessage).ReadMsg(m) != nil {
			return
		}
		for _, info := range append(kadpb.PBPeersToPeerInfos(m.CloserPeers), kadpb.PBPeersToPeerInfos(m.ProviderPeers)...) {
			_ = info.String()
			if kept := someAddrs(info.Addrs, maxAddrs); len(kept) > maxAddrs {
				t.Errorf("%d addresses", len(kept))
			}
		}
		var first, second bytes.Buffer
		back := new(kadpb.Message)
		if writeMessage(&first, m) != nil {
			return // text that is not UTF-8
		}
		if err := pbio.NewDelimitedReader(bytes.NewReader(first.Bytes()), 2*maxKadMessage).ReadMsg(back); err != nil {
			t.Fatal(err)
		}
		if err := writeMessage(&second, back); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("%x is written as %x, %v", first.Bytes(), second.Bytes(), err)
		}
	})
}

// FuzzSwarmKey reads what a swarm key file may have in it: a key is saved in the one form that we write, and read as the
// same from there.
func FuzzSwarmKey(f *testing.F) {
	const good = swarmKeyHeader + "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
	f.Add(good)
	f.Add(strings.ReplaceAll(good, "\n", "\r\n"))
	f.Add(strings.ToUpper(good))
	f.Add(strings.Replace(good, "base16", "base64", 1))
	f.Add(strings.Replace(good, "base16", "bin", 1))
	f.Add(good[:60])
	f.Add(good + good)
	f.Fuzz(func(t *testing.T, text string) {
		k, err := decodeSwarmKey(strings.NewReader(text))
		if err != nil {
			return
		}
		saved := k.encode()
		if want := swarmKeyHeader + hex.EncodeToString(k.secret[:]) + "\n"; string(saved) != want {
			t.Errorf("%q is saved as %q", text, saved)
		}
		if again, err := decodeSwarmKey(bytes.NewReader(saved)); err != nil || !again.Equal(k) {
			t.Errorf("%q: saved and not the same, %v", text, err)
		}
	})
}

// FuzzNodeKey reads a node key file: it is a key that makes a peer ID, or refused with the file's name.
func FuzzNodeKey(f *testing.F) {
	dir := f.TempDir()
	k, err := loadNodeKey(dir)
	if err != nil {
		f.Fatal(err)
	}
	good, err := crypto.MarshalPrivateKey(k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:30])
	f.Add([]byte{})
	for _, kind := range []int{crypto.RSA, crypto.Secp256k1, crypto.ECDSA} {
		other, _, err := crypto.GenerateKeyPair(kind, 2048)
		if err != nil {
			f.Fatal(err)
		}
		b, err := crypto.MarshalPrivateKey(other)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, nodeKeyFile)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := loadNodeKey(dir)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%x: %v", b, err)
			}
			return
		}
		if id, err := peer.IDFromPrivateKey(k); err != nil || id.Validate() != nil {
			t.Errorf("%x: no peer ID, %v", b, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
			t.Errorf("%x was changed to %x, %v", b, after, err)
		}
	})
}
