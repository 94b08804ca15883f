package roam

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// hint says which node may have a session that this one was asked for, or had.
type hint struct {
	node peer.ID
	at   time.Time
}

// hintTime is for how long that is of use: claims that were under way at the same time have met by then.
const (
	hintTime = time.Minute
	maxHints = 10_000
)

// hintAt notes where a session is.
func (r *Roam) hintAt(key string, node peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.hints) >= maxHints {
		clear(r.hints)
	}
	r.hints[key] = hint{node, time.Now()}
}

// goneTo returns which node may have a session that is not here, for one that asks, and so has it not; "" where that is not known.
func (r *Roam) goneTo(key string, asks peer.ID) peer.ID {
	if to := peer.ID(r.cfg.Broker.GoneTo(key)); to != "" && to != asks {
		return to
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.hints[key]; h.node != asks && time.Since(h.at) < hintTime {
		return h.node
	}
	return ""
}
