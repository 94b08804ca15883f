package roam

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio/pbio"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// What is ours to tune.
const (
	// maxPull and maxTaken bound what the other node sends.
	maxPull  = 4*65536 + 64
	maxTaken = 16 + 32*chunkEntries
	// pullTime is how long it may take to say what it wants.
	pullTime = 5 * time.Second
	// chunkEntries and chunkSize are about what one message has, and ahead how many entries may be on their way.
	chunkEntries = 512
	chunkSize    = 256 << 10
	ahead        = 8 * chunkEntries
	// lateTime is for how long what was sent here before the other node was registered may still come, and backTime from when on
	// that holds for a node that was started: before that it may not have what was kept for it while it was away.
	lateTime = time.Second
	backTime = 30 * time.Second
	// missingEvery is how often it is looked whether a node is out of reach that may have something that was sent here before.
	missingEvery = 5 * time.Second
)

// runServe lets another node fetch a session that it has claimed.
func (r *Roam) runServe(s wire, by peer.ID) {
	if r.ctx.Err() != nil {
		_ = s.Reset()
		return
	}
	stop := context.AfterFunc(r.ctx, func() { _ = s.Reset() })
	defer stop()
	defer s.Reset() //nolint:errcheck // it is over
	_ = s.SetDeadline(time.Now().Add(pullTime))
	var p pb.Pull
	in, out := pbio.NewDelimitedReader(s, maxPull), pbio.NewDelimitedWriter(s)
	if err := in.ReadMsg(&p); err != nil {
		r.cfg.Log.Debug("fetching a session: what is wanted can't be read", "error", err)
		return
	}
	if p.GetOffer() {
		r.takeOffer(s, by, &p)
		return
	}
	d, elsewhere := r.depart(by, &p)
	r.cfg.Log.Debug("asked for a session", "key", string(p.GetKey()), "by", by.String(), "number", p.GetNumber(), "after", p.GetAfter(), "here", d != nil, "elsewhere", peer.ID(elsewhere).String())
	if d == nil {
		_ = out.WriteMsg(&pb.Moved{None: elsewhere == "", Elsewhere: []byte(elsewhere)})
		_ = s.Close()
		return
	}
	d.Fetching(1)
	defer d.Fetching(-1)
	ctx, cancel := context.WithTimeout(r.ctx, pullTime)
	defer cancel()
	h, err := d.Head(ctx, string(by))
	if ctx.Err() != nil { // it asks again
		return
	}
	if err != nil {
		to := r.goneTo(string(p.GetKey()), by)
		_ = out.WriteMsg(&pb.Moved{None: to == "", Elsewhere: []byte(to)})
		_ = s.Close()
		return
	}
	head := &pb.MovedHead{State: stateOf(h.Record), Sent: uint32(h.Sent), Had: marksToPB(h.Had)} //nolint:gosec // at most 65535
	for _, id := range h.Inbound {
		head.Inbound = append(head.Inbound, uint32(id))
	}
	if out.WriteMsg(&pb.Moved{Head: head}) != nil {
		return
	}
	_ = s.SetDeadline(time.Time{})
	f := &fetching{d: d, missing: r.cfg.Swarm.Missing, out: out, heard: h.Heard, back: r.started.Add(backTime), after: p.GetAfter(), taken: p.GetAfter(), wake: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	wg.Go(func() { f.runAnswers(pbio.NewDelimitedReader(s, maxTaken)) })
	if f.run(r.ctx) { // the other ends the stream when it has read that
		_ = s.CloseWrite()
		_ = s.SetReadDeadline(time.Now().Add(pullTime))
		wg.Wait()
	}
	_ = s.Reset()
	wg.Wait()
}

// depart gives up the session that another node asks for, if that has claimed it.
func (r *Roam) depart(to peer.ID, p *pb.Pull) (d *mqttfront.Departure, elsewhere string) {
	key := string(p.GetKey())
	if d := r.cfg.Broker.Departing(key, string(to), p.GetNumber()); d != nil {
		return d, ""
	}
	if to == r.self { // it has gone nowhere
		return r.reclaim(to, p), ""
	}
	_, _, here := r.cfg.Broker.Has(key)
	r.mu.Lock()
	h := r.held[key]
	if h != nil && (h.mine || here) && !outranks(p.GetNumber(), to, h.number, r.self) {
		r.mu.Unlock()
		return nil, string(r.self) // it will hear of this node's claim
	}
	lost := h != nil && !h.claiming // a claim that is about to be made outranks this one
	var calls []func()
	if lost {
		calls = r.dropLocked(h)
	}
	r.mu.Unlock()
	for _, f := range calls {
		f()
	}
	if lost {
		r.unhear(h)
		r.hintAt(key, to)
	}
	ctx, stop := context.WithCancel(r.ctx)
	defer stop()
	a := &ask{key: key, number: p.GetNumber(), by: to, stop: stop}
	r.mu.Lock()
	r.asked[a] = struct{}{}
	r.mu.Unlock()
	d = r.cfg.Broker.Depart(ctx, key, string(to), p.GetNumber(), false)
	r.mu.Lock()
	delete(r.asked, a)
	h = r.held[key]
	ours := h != nil && h.mine && !outranks(p.GetNumber(), to, h.number, r.self)
	r.mu.Unlock()
	if d == nil && !ours {
		d = r.reclaim(to, p)
	}
	switch {
	case d != nil:
		r.mu.Lock()
		r.others[NameOf(key)] = key
		r.mu.Unlock()
		r.hintAt(key, to)
		return d, ""
	case ours:
		return nil, string(r.self)
	}
	return nil, string(r.goneTo(key, to))
}

// reclaim gives who asks for a session what is left of it here. Who has fetched something is somewhere in that, and not in this.
func (r *Roam) reclaim(to peer.ID, p *pb.Pull) *mqttfront.Departure {
	if p.GetAfter() > 0 {
		return nil
	}
	return r.cfg.Broker.Reclaim(string(p.GetKey()), string(to), p.GetNumber())
}

// ask is another node's question for a session that waits for an answer. stop ends that.
type ask struct {
	key    string
	number uint64
	by     peer.ID
	stop   func()
}

// fetching is one stream by which a session is fetched.
type fetching struct {
	d       *mqttfront.Departure
	out     pbio.Writer
	after   uint64      // what was sent
	heard   int         // and told of what the session has had
	back    time.Time   // when all that was kept for this node has come
	missing func() bool // a node may still have something that was kept for this one

	mu      sync.Mutex
	taken   uint64
	answers bool            // the other has said what it has of what was doubted
	drained <-chan struct{} // closed when the registrations here are over; nil: not asked for
	ended   bool            // the other does not read any more
	wake    chan struct{}
}

func (f *fetching) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// runAnswers reads what the other node says.
func (f *fetching) runAnswers(in pbio.Reader) {
	for {
		var t pb.Taken
		err := in.ReadMsg(&t)
		if err == nil {
			f.d.Taken(t.GetUpto())
		}
		if err == nil && t.GetAnswers() {
			f.d.Known(marksOf(t.GetHad()))
		}
		f.mu.Lock()
		f.answers = f.answers || t.GetAnswers()
		f.ended = err != nil
		f.taken = max(f.taken, t.GetUpto())
		stops := t.GetRegistered() && f.drained == nil
		f.mu.Unlock()
		if stops {
			drained := f.d.Stop()
			f.mu.Lock()
			f.drained = drained
			f.mu.Unlock()
		}
		f.poke()
		if err != nil {
			return
		}
	}
}

// run sends what there is, until everything has come, or the stream is over. It reports whether everything has.
func (f *fetching) run(ctx context.Context) bool {
	said, known := false, false
	onWay := []uint64{} // positions that were sent, and not taken
	late := time.NewTimer(time.Hour)
	defer late.Stop()
	over := false
	q := newDoubts()
	defer q.timer.Stop()
	for {
		f.mu.Lock()
		taken, draining, ended, answers := f.taken, f.drained, f.ended, f.answers
		f.answers = false
		f.mu.Unlock()
		if ended {
			return false
		}
		if answers {
			q.answered()
		}
		drained := false
		select {
		case <-draining:
			drained, draining = true, nil
		default:
		}
		for len(onWay) > 0 && onWay[0] <= taken {
			onWay = onWay[1:]
		}
		var more <-chan struct{}
		if len(onWay) < ahead {
			n := chunkEntries
			if said && q.wait(time.Now()) {
				n = 0
			}
			got, err := f.d.Fetch(f.after, n, chunkSize)
			if err != nil {
				return false
			}
			es := got.Entries
			more = got.More
			msg := &pb.Moved{}
			if said && n > 0 {
				var doubted []mqttfront.MarkRun
				es, doubted = q.sort(es, time.Now())
				msg.Doubted = marksToPB(doubted)
			}
			if got.Heard != f.heard { // the other drops what it knows of, so it has to know first
				f.heard = got.Heard
				msg.Head = &pb.MovedHead{Had: marksToPB(f.d.Had())}
			}
			for i := range es {
				msg.Entries = append(msg.Entries, entryToPB(&es[i]))
				f.after = es[i].Pos
				onWay = append(onWay, f.after)
			}
			if len(es) == 0 && drained && !said && got.Here >= mqttfront.Drained {
				said, msg.Drained = true, true
				late.Reset(max(lateTime, time.Until(f.back)))
			}
			if said && !known && got.Known {
				known, msg.Known = true, true
			}
			if n > 0 && len(got.Entries) == 0 && over && len(onWay) == 0 && got.Here == mqttfront.Whole {
				_ = f.out.WriteMsg(&pb.Moved{End: true})
				f.d.End()
				return true
			}
			if len(msg.Entries) > 0 || len(msg.Doubted) > 0 || msg.Drained || msg.Known || msg.Head != nil {
				if err := f.out.WriteMsg(msg); err != nil {
					return false
				}
				continue
			}
		}
		select {
		case <-more:
		case <-f.wake:
		case <-draining:
		case <-q.timer.C:
		case <-late.C:
			if over = said && (f.d.IsBack() || !f.missing()); over {
				f.d.NoMore()
			} else if said {
				late.Reset(missingEvery)
			}
		case <-ctx.Done():
			return false
		}
	}
}
