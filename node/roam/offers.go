package roam

import (
	"context"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio/pbio"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// A session can come to be in parts: nodes could not reach each other, or were slow, or a client did not wait. A part that its
// node has departed and that nobody fetches is offered to the holder, which joins it with what it has.

// What is ours to tune.
const (
	// lookForParts is how often a node looks for parts that nobody fetches. One is offered at the second look that finds it, and
	// where that was of no use after twice the time each, up to maxOfferPause.
	lookForParts  = 2 * time.Second
	maxOfferPause = 30 * time.Second
	// maxOffered is how many are offered at one look.
	maxOffered = 64
)

// offering is when a part is offered next.
type offering struct {
	at    time.Time
	pause time.Duration
}

// runOffers offers parts of sessions that nobody fetches.
func (r *Roam) runOffers() {
	t := time.NewTicker(lookForParts)
	defer t.Stop()
	known := map[mqttfront.Left]*offering{}
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-t.C:
		}
		now, n := time.Now(), 0
		r.checkAlone(now)
		before := known
		known = map[mqttfront.Left]*offering{}
		for _, l := range r.cfg.Broker.Left() {
			o := before[l]
			if o == nil {
				o = &offering{now.Add(lookForParts), lookForParts}
			}
			known[l] = o
			if now.Before(o.at) || n >= maxOffered {
				continue
			}
			n++
			o.pause = min(2*o.pause, maxOfferPause)
			o.at = now.Add(o.pause)
			r.latest(&hold{key: l.Key, name: NameOf(l.Key)}, func(last *claim) {
				if last != nil {
					r.goes(func() { r.runOffer(l, last.node) })
				}
			})
		}
	}
}

// runOffer offers a part of a session to the holder.
func (r *Roam) runOffer(l mqttfront.Left, to peer.ID) {
	ctx, cancel := context.WithTimeout(r.ctx, answerTime)
	defer cancel()
	if to == r.self {
		switch r.isPart(l.Key, l.Born) {
		case joined:
			r.cfg.Broker.Offer(l, string(to))
			r.runJoin(l, to)
		case over:
			r.cfg.Broker.Drop(l)
		case unknown:
		}
		return
	}
	s, err := r.cfg.Host.NewStream(ctx, to, Protocol)
	if err != nil {
		return // it is offered again
	}
	defer s.Reset() //nolint:errcheck // it is over
	_ = s.SetDeadline(time.Now().Add(answerTime))
	r.cfg.Broker.Offer(l, string(to))
	m := new(pb.Moved)
	if pbio.NewDelimitedWriter(s).WriteMsg(&pb.Pull{Key: []byte(l.Key), Number: l.Number, Offer: true, Born: l.Born}) != nil ||
		pbio.NewDelimitedReader(s, maxMoved).ReadMsg(m) != nil {
		return
	}
	r.cfg.Log.Debug("offered a part of a session", "key", l.Key, "to", to.String(), "number", l.Number, "wanted", m.GetWanted(), "over", m.GetNone())
	if m.GetNone() && m.GetWanted() {
		l.To = string(to)
		r.cfg.Broker.Drop(l)
	}
}

// takeOffer answers an offer, and fetches what is offered.
func (r *Roam) takeOffer(s wire, by peer.ID, p *pb.Pull) {
	l := mqttfront.Left{Key: string(p.GetKey()), Number: p.GetNumber()}
	is := r.isPart(l.Key, p.GetBorn())
	_ = pbio.NewDelimitedWriter(s).WriteMsg(&pb.Moved{Wanted: is != unknown, None: is != joined})
	_ = s.Close()
	if is == joined {
		r.runJoin(l, by)
	}
}

// part is what an offer is to this node.
type part byte

const (
	unknown part = iota // this node is not the holder
	joined              // of a session that is here
	over                // of another one that was before it
)

func (r *Roam) isPart(key string, born uint64) part {
	r.mu.Lock()
	h := r.held[key]
	mine := h != nil && h.mine && !h.claiming
	r.mu.Unlock()
	here, _, is := r.cfg.Broker.Has(key)
	switch {
	case !mine || !is:
		return unknown
	case here != born && here != 0 && born != 0:
		return over
	}
	return joined
}

// runJoin begins to bring a part of a session here that another node has, or this one, and has departed under a number.
func (r *Roam) runJoin(l mqttfront.Left, from peer.ID) {
	l.To = string(from)
	r.mu.Lock()
	_, under := r.joins[l]
	r.joins[l] = struct{}{}
	r.mu.Unlock()
	if under {
		return
	}
	p := r.newPull(l.Key, l.Number, from)
	p.part = true
	p.onClose = func() {
		r.mu.Lock()
		delete(r.joins, l)
		r.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(r.ctx, answerTime)
	defer cancel()
	m, err := p.connect(ctx, 0)
	r.cfg.Log.Debug("joining a part of a session", "key", l.Key, "number", l.Number, "from", from.String(), "here", m.GetHead() != nil, "error", err)
	if err != nil || m.GetHead() == nil {
		p.Close()
		return
	}
	p.head = mqttfront.ArrivalHead{Record: recordOf(m.GetHead().GetState()), From: mqttfront.Arriving{From: l.To, Number: l.Number}}
	p.had = marksOf(m.GetHead().GetHad())
	if !r.cfg.Broker.Join(l.Key, p) {
		p.Close()
	}
}

// wire is what of a stream is used.
type wire interface {
	io.ReadWriteCloser
	CloseWrite() error
	Reset() error
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
}

// self is a stream within this node, where nobody has to be waited for for long.
type self struct {
	*io.PipeReader
	*io.PipeWriter
}

func (s self) Close() error {
	_ = s.PipeReader.Close()
	return s.PipeWriter.Close()
}

func (s self) CloseWrite() error               { return nil } // the other end knows when to close
func (s self) Reset() error                    { return s.Close() }
func (s self) SetDeadline(time.Time) error     { return nil }
func (s self) SetReadDeadline(time.Time) error { return nil }

// open opens a stream to a node, which may be this one.
func (r *Roam) open(ctx context.Context, to peer.ID) (wire, error) {
	if to != r.self {
		return r.cfg.Host.NewStream(ctx, to, Protocol)
	}
	asked, asks := io.Pipe()
	answered, answers := io.Pipe()
	if !r.goes(func() { r.runServe(self{asked, answers}, to) }) {
		return nil, io.ErrClosedPipe
	}
	return self{answered, asks}, nil
}
