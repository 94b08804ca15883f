package dht

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

func addrInfo(t *testing.T, s string) peer.AddrInfo {
	t.Helper()
	infos, err := ParsePeers([]string{s})
	if err != nil {
		t.Fatal(err)
	}
	return infos[0]
}

func TestBook(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	b := openBook(dir, log)
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, bookFile)); err == nil {
		t.Error("an empty book is written")
	}
	one, two := addrInfo(t, "/ip4/192.0.2.1/tcp/1/p2p/"+idA), addrInfo(t, "/ip4/192.0.2.2/tcp/1/p2p/"+idB)
	b.met(one)
	b.met(two)
	b.met(peer.AddrInfo{ID: "no address"})
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	b.met(one)
	if b.dirty {
		t.Error("meeting again is a change")
	}
	b = openBook(dir, log)
	got := b.list()
	slices.SortFunc(got, func(x, y peer.AddrInfo) int { return slices.Compare([]byte(x.ID), []byte(y.ID)) })
	want := []peer.AddrInfo{one, two}
	slices.SortFunc(want, func(x, y peer.AddrInfo) int { return slices.Compare([]byte(x.ID), []byte(y.ID)) })
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	b.forget(one.ID)
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	if got := openBook(dir, log).list(); fmt.Sprint(got) != fmt.Sprint([]peer.AddrInfo{two}) {
		t.Errorf("after forgetting: %v", got)
	}
}

// TestBookIsWrittenSoon runs in fake time: a new node is on disk within seconds, but not each by itself.
func TestBookIsWrittenSoon(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	one, two := addrInfo(t, "/ip4/192.0.2.1/tcp/1/p2p/"+idA), addrInfo(t, "/ip4/192.0.2.2/tcp/1/p2p/"+idB)
	moved := addrInfo(t, "/ip4/192.0.2.3/tcp/1/p2p/"+idA)
	synctest.Test(t, func(t *testing.T) {
		b := openBook(dir, log)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { b.runBook(ctx) })
		for _, step := range []struct {
			do   func()
			wait time.Duration
			want int // on disk
		}{
			{func() { b.met(one) }, bookSoon - time.Second, 0},
			{func() {}, 2 * time.Second, 1},
			{func() { b.met(two) }, bookGap - 2*time.Second, 1},
			{func() {}, 2 * time.Second, 2},
			{func() { b.met(moved) }, bookGap + time.Second, 2},
			{func() { b.forget(two.ID) }, bookGap + time.Second, 1},
		} {
			step.do()
			time.Sleep(step.wait)
			synctest.Wait()
			if got := openBook(dir, log).list(); len(got) != step.want {
				t.Errorf("%v after the start of the test: %v, want %d", time.Now(), got, step.want)
			}
		}
		if got := openBook(dir, log).list(); fmt.Sprint(got) != fmt.Sprint([]peer.AddrInfo{moved}) {
			t.Errorf("%v, want %v", got, moved)
		}
		cancel()
		wg.Wait()
	})
}

func TestBookIsBounded(t *testing.T) {
	dir := t.TempDir()
	b := openBook(dir, slog.New(slog.DiscardHandler))
	var addrs []ma.Multiaddr
	for i := range 2 * maxAddrs {
		addrs = append(addrs, ma.StringCast(fmt.Sprintf("/dns4/a.rather.long.name.of.a.host.at.example.org/udp/%d/quic-v1", i)))
	}
	for i := range maxBook + 5 {
		id := append([]byte{0, 36, 8, 1, 18, 32}, make([]byte, 32)...)
		id[6], id[7] = byte(i), byte(i>>8)
		b.met(peer.AddrInfo{ID: peer.ID(id), Addrs: addrs})
	}
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	b = openBook(dir, slog.New(slog.DiscardHandler))
	if got := b.list(); len(got) != maxBook || len(got[0].Addrs) != maxAddrs {
		t.Errorf("%d peers, %d addresses", len(got), len(got[0].Addrs))
	}
}

// TestBookFiles reads what others left there.
func TestBookFiles(t *testing.T) {
	peerJSON := func(seen time.Time) string {
		return fmt.Sprintf(`{"version":1,"peers":[{"id":%q,"addrs":["/ip4/192.0.2.1/tcp/1"],"seen":%q}]}`, idA, seen.Format(time.RFC3339))
	}
	for _, c := range []struct {
		name, text string
		peers      int
		aside      bool
	}{
		{"fresh", peerJSON(time.Now()), 1, false},
		{"from the future, or the clock is wrong", peerJSON(time.Now().Add(1000 * time.Hour)), 1, false},
		{"stale", peerJSON(time.Now().Add(-bookAge - time.Hour)), 0, false},
		{"empty file", "", 0, true},
		{"newer", `{"version":2,"peers":[]}`, 0, true},
		{"bad ID", `{"version":1,"peers":[{"id":"x","addrs":["/ip4/192.0.2.1/tcp/1"]}]}`, 0, true},
		{"bad address", fmt.Sprintf(`{"version":1,"peers":[{"id":%q,"addrs":["x"]}]}`, idA), 0, true},
		{"too long", fmt.Sprintf(`{"version":1}%*s`, maxBookBytes, ""), 0, true},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, bookFile)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := openBook(dir, slog.New(slog.DiscardHandler)).list(); len(got) != c.peers {
			t.Errorf("%s: %v", c.name, got)
		}
		if _, err := os.Stat(path + ".damaged"); (err == nil) != c.aside {
			t.Errorf("%s: set aside: %v", c.name, err == nil)
		}
	}
}

// FuzzBook reads a book: what is taken is bounded, and the same after it was saved.
func FuzzBook(f *testing.F) {
	one := fmt.Sprintf(`{"id":%q,"addrs":["/ip4/192.0.2.1/tcp/1"],"seen":"2126-01-01T00:00:00Z"}`, idA)
	f.Add([]byte(`{"version":1,"peers":[` + one + `]}`))
	f.Add([]byte(`{"version":1,"peers":[` + one + `,` + one + `,{"id":"x"},null]}`))
	f.Add([]byte(`{"version":2,"peers":[]}`))
	f.Add([]byte(`[` + strings.Repeat("[", 1000)))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), bookFile)
		b := &book{path: path, peers: make(map[peer.ID]bookEntry), dirty: true}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if b.load(time.Now()) != nil {
			return
		}
		if err := b.save(); err != nil {
			t.Fatal(err)
		}
		again := &book{path: path, peers: make(map[peer.ID]bookEntry)}
		if err := again.load(time.Now()); err != nil || len(again.peers) != len(b.peers) || len(b.peers) > maxBook {
			t.Fatalf("%q: %v, then %v, %v", data, b.peers, again.peers, err)
		}
		for id, e := range b.peers {
			if len(e.addrs) > maxAddrs || !sameAddrs(again.peers[id].addrs, e.addrs) {
				t.Errorf("%q: %v has %v, then %v", data, id, e.addrs, again.peers[id].addrs)
			}
		}
	})
}
