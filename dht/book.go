package dht

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// bookFile holds the peers met before, as JSON (bookJSON).
const bookFile = "peers"

// maxBookBytes bounds what is read of it: maxBook peers with maxAddrs addresses take half of that.
const maxBookBytes = 2 << 20

// seenStep is how coarsely the time of the last meeting is kept on disk, so that nothing is written while
// the same peers come and go.
const seenStep = 24 * time.Hour

// book is the peers met before. It is a hint where to dial, and nothing is lost with it.
type book struct {
	path string
	log  *slog.Logger
	news chan struct{} // of capacity 1: there is something that should not be lost

	mu    sync.Mutex
	peers map[peer.ID]bookEntry
	dirty bool
}

type bookEntry struct {
	addrs []ma.Multiaddr
	seen  time.Time
}

type bookJSON struct {
	Version int        `json:"version"`
	Peers   []bookPeer `json:"peers"`
}

type bookPeer struct {
	ID    string    `json:"id"`
	Addrs []string  `json:"addrs"`
	Seen  time.Time `json:"seen"`
}

// bookVersion is the format of the file. A newer one is set aside like a damaged one.
const bookVersion = 1

// openBook reads the file, and sets it aside where it can't be read.
func openBook(dir string, log *slog.Logger) *book {
	b := &book{path: filepath.Join(dir, bookFile), log: log, news: make(chan struct{}, 1), peers: make(map[peer.ID]bookEntry)}
	err := b.load(time.Now())
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return b
	}
	aside := b.path + ".damaged"
	if rerr := os.Rename(b.path, aside); rerr != nil {
		log.Warn("can't read the peers met before, going on without", "file", b.path, "error", err)
	} else {
		log.Warn("can't read the peers met before, set the file aside and go on without", "file", aside, "error", err)
	}
	clear(b.peers)
	return b
}

func (b *book) load(now time.Time) error {
	st, err := os.Stat(b.path)
	if err != nil {
		return err
	}
	if st.Size() > maxBookBytes {
		return fmt.Errorf("%d bytes are too many", st.Size())
	}
	data, err := os.ReadFile(b.path)
	if err != nil {
		return err
	}
	var f bookJSON
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	if f.Version != bookVersion {
		return fmt.Errorf("version %d is unknown", f.Version)
	}
	for _, p := range f.Peers[:min(len(f.Peers), maxBook)] {
		id, err := peer.Decode(p.ID)
		if err != nil {
			return fmt.Errorf("peer ID %q: %w", p.ID, err)
		}
		var addrs []ma.Multiaddr
		for _, s := range p.Addrs[:min(len(p.Addrs), maxAddrs)] {
			a, err := ma.NewMultiaddr(s)
			if err != nil {
				return fmt.Errorf("address %q: %w", s, err)
			}
			addrs = append(addrs, a)
		}
		// A clock that was wrong, as a Pi's is before it has asked for the time, must not make peers stale.
		if seen := p.Seen; len(addrs) > 0 && now.Sub(seen) < bookAge {
			b.peers[id] = bookEntry{addrs: addrs, seen: minTime(seen, now)}
		}
	}
	return nil
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// met notes that a peer is connected.
func (b *book) met(info peer.AddrInfo) {
	if len(info.Addrs) == 0 {
		return
	}
	now := time.Now()
	addrs := someAddrs(info.Addrs, maxAddrs)
	b.mu.Lock()
	defer b.mu.Unlock()
	old, ok := b.peers[info.ID]
	if ok && now.Sub(old.seen) < seenStep && sameAddrs(old.addrs, addrs) {
		return
	}
	b.peers[info.ID] = bookEntry{addrs: slices.Clone(addrs), seen: now}
	b.dirty = true
	if !ok || !slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return slices.ContainsFunc(old.addrs, a.Equal) }) {
		b.hurry()
	}
	if len(b.peers) > maxBook {
		b.dropOldestLocked()
	}
}

func (b *book) dropOldestLocked() {
	var oldest peer.ID
	for id, e := range b.peers {
		if oldest == "" || e.seen.Before(b.peers[oldest].seen) {
			oldest = id
		}
	}
	delete(b.peers, oldest)
}

func sameAddrs(a, b []ma.Multiaddr) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		if !slices.ContainsFunc(b, x.Equal) {
			return false
		}
	}
	return true
}

func (b *book) forget(id peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.peers[id]; ok {
		delete(b.peers, id)
		b.dirty = true
		b.hurry()
	}
}

// hurry has what has changed written soon.
func (b *book) hurry() {
	select {
	case b.news <- struct{}{}:
	default:
	}
}

func (b *book) get(id peer.ID) (peer.AddrInfo, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.peers[id]
	return peer.AddrInfo{ID: id, Addrs: slices.Clone(e.addrs)}, ok
}

// list returns the peers, those met last first.
func (b *book) list() []peer.AddrInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.listLocked()
}

func (b *book) listLocked() []peer.AddrInfo {
	out := make([]peer.AddrInfo, 0, len(b.peers))
	for id, e := range b.peers {
		out = append(out, peer.AddrInfo{ID: id, Addrs: slices.Clone(e.addrs)})
	}
	slices.SortFunc(out, func(x, y peer.AddrInfo) int {
		return cmp.Or(b.peers[y.ID].seen.Compare(b.peers[x.ID].seen), cmp.Compare(x.ID, y.ID))
	})
	return out
}

// save writes the file if anything changed.
func (b *book) save() error {
	b.mu.Lock()
	if !b.dirty {
		b.mu.Unlock()
		return nil
	}
	f := bookJSON{Version: bookVersion, Peers: []bookPeer{}}
	for _, info := range b.listLocked() {
		p := bookPeer{ID: info.ID.String(), Seen: b.peers[info.ID].seen.UTC().Truncate(time.Second)}
		for _, a := range info.Addrs {
			p.Addrs = append(p.Addrs, a.String())
		}
		f.Peers = append(f.Peers, p)
	}
	b.dirty = false
	b.mu.Unlock()

	data, err := json.MarshalIndent(f, "", " ")
	if err == nil {
		err = writeFile(b.path, append(data, '\n'))
	}
	if err != nil {
		b.mu.Lock()
		b.dirty = true
		b.mu.Unlock()
		return fmt.Errorf("can't save the peers met before: %w", err)
	}
	return nil
}

// runBook saves at intervals, soon after news, and in the end.
func (b *book) runBook(ctx context.Context) {
	var last time.Time
	due := time.Now().Add(bookInterval)
	for done := false; !done; {
		t := time.NewTimer(time.Until(due))
		select {
		case <-t.C:
		case <-b.news:
			t.Stop()
			due = minTime(due, maxTime(time.Now().Add(bookSoon), last.Add(bookGap)))
			continue
		case <-ctx.Done():
			t.Stop()
			done = true
		}
		if err := b.save(); err != nil {
			b.log.Warn(err.Error())
		}
		last = time.Now()
		due = last.Add(bookInterval)
	}
}

// addrsOf returns where a connected peer can be dialled: first where it was, then what it says of itself.
// Loopback addresses say nothing to who is not on the same machine, nor does a relay without its address to others.
func (h *Host) addrsOf(id peer.ID) []ma.Multiaddr {
	var out []ma.Multiaddr
	local := false
	for _, c := range h.host.Network().ConnsToPeer(id) {
		remote := c.RemoteMultiaddr()
		local = local || manet.IsIPLoopback(remote)
		if c.Stat().Direction == network.DirOutbound {
			out = append(out, remote)
		}
	}
	for _, a := range h.host.Peerstore().Addrs(id) {
		if !slices.ContainsFunc(out, a.Equal) && isPlaced(a) && (local || !manet.IsIPLoopback(a)) {
			out = append(out, a)
		}
	}
	return someAddrs(out, maxAddrs)
}
