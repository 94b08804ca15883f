package roam

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio/pbio"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Protocol is what a session is fetched by.
const Protocol = "/mozzie/session/1.0.0"

// What is ours to tune.
const (
	// answerTime is how long the node that has a session is waited for at a time, and openTime for a stream to it.
	answerTime = 2 * time.Second
	openTime   = time.Second
	// againEvery is how often a node is tried that still has some of a session.
	againEvery = 2 * time.Second
	// maxHops is how many nodes a session may have gone on to before it is given up.
	maxHops = 8
	// lostTime is after what time a node that can't be reached any more is not waited for with what came here meanwhile.
	lostTime = 10 * time.Second
	// maxMoved bounds a message of the protocol, which has one entry at least.
	maxMoved = proto.MaxFrame + 4<<10
)

// pull is mqttfront.Arrival.
type pull struct {
	r      *Roam
	key    string
	number uint64
	head   mqttfront.ArrivalHead
	from   peer.ID
	// database is the one that it has the session in; 0: not known
	database uint64
	until    time.Time // when what has not come by then is given up

	part bool // of a session that is here: who has it offers it again
	// drained: all that waited at the other node has come, or is taken for lost; failing: since when that can't be reached.
	drained bool
	failing time.Time

	stream wire // nil: none is open; used by Next alone
	reader pbio.Reader
	hops   int
	had    []mqttfront.MarkRun // which the other has said, and Next has not returned

	onClose func() // may be nil

	mu         sync.Mutex
	open       wire // the same
	taken      uint64
	registered bool
	answers    bool                // what was doubted, on the stream that is open
	known      []mqttfront.MarkRun // by this
	closed     bool
	wake       chan struct{}
}

func (r *Roam) newPull(key string, number uint64, from peer.ID) *pull {
	return &pull{r: r, key: key, number: number, from: from, until: time.Now().Add(core.MaxHold), wake: make(chan struct{}, 1)}
}

var (
	// errOutranked says that another node has claimed a session since.
	errOutranked = errors.New("another node has claimed the session since")
	// errSlow says that a node is there, and does not answer.
	errSlow = errors.New("the node that has the session does not answer")
)

// fetch begins to bring a session here from the node that had it last, as a claim says.
func (r *Roam) fetch(ctx context.Context, key string, number uint64, last *claim) (mqttfront.Arrival, error) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	from := last.node
	if _, _, here := r.cfg.Broker.Has(key); here && from == r.self {
		return nil, nil
	}
	if to := r.goneTo(key, r.self); from == r.self && to != "" { // its claim was the last, and the session is not here: where it has gone
		from = to
	}
	others := []peer.ID{last.from().node, r.goneTo(key, r.self), r.self}
	asked := map[peer.ID]bool{}
	var away []*pull // of those that can't be reached
	for range maxHops {
		for len(others) > 0 && (from == "" || asked[from]) { // they know of nothing newer: it has not got as far
			from, others = others[0], others[1:]
		}
		if from == "" || asked[from] {
			break
		}
		asked[from] = true
		p := r.newPull(key, number, from)
		m, err := p.ask(ctx)
		for err != nil && from != r.self && r.cfg.Swarm.Reaches(from, 0) && ctx.Err() == nil { // it is there, and busy
			m, err = p.ask(ctx)
		}
		r.cfg.Log.Debug("fetching a session", "key", key, "number", number, "from", from.String(), "here", m.GetHead() != nil, "elsewhere", peer.ID(m.GetElsewhere()).String(), "error", err)
		if err == nil && p.began(m) {
			if o := last.owner(); o.node == from {
				p.database = o.database
			}
			p.head.From.Database = p.database
			return p, nil
		}
		if err != nil && from != r.self && r.cfg.Swarm.Reaches(from, 0) {
			p.Close()
			r.hintAt(key, from)
			return nil, errSlow
		}
		if err != nil && from != r.self {
			away = append(away, p)
			r.cfg.Log.Info("a session goes on without the node that had it", "node", from.String(), "error", err)
			r.cfg.Resumed(whole, from, key)
			from = ""
			continue
		}
		p.Close()
		if len(m.GetElsewhere()) == 0 {
			from = ""
			continue
		}
		next, err := peer.IDFromBytes(m.GetElsewhere())
		if err != nil {
			return nil, err
		}
		if next == from && next != r.self {
			r.hintAt(key, from)
			return nil, errOutranked
		}
		from = next
	}
	if !r.holds(key, number) { // who has claimed it since has it, or will
		return nil, errOutranked
	}
	o := last.owner()
	at := slices.IndexFunc(away, func(p *pull) bool { return p.from == o.node })
	if at < 0 && len(away) > 0 && r.cfg.Swarm.Reaches(o.node, o.database) { // else what it had is lost with its database
		at = 0
	}
	if at >= 0 {
		return r.lost(away[at], last), nil
	}
	p := r.newPull(key, number, o.node) // whoever has some of it will offer it
	p.Close()
	return r.lost(p, last), nil
}

// ask asks for the session from its beginning, and waits for a time.
func (p *pull) ask(ctx context.Context) (*pb.Moved, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return p.connect(ctx, 0)
}

// holds reports whether a claim of this node stands.
func (r *Roam) holds(key string, number uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[key]
	return h != nil && h.mine && h.number == number
}

// began takes the head of a session from the first answer, and reports whether there is one.
func (p *pull) began(m *pb.Moved) bool {
	h := m.GetHead()
	if h == nil {
		return false
	}
	p.head = mqttfront.ArrivalHead{Record: recordOf(h.GetState()), Sent: int(min(h.GetSent(), maxInflight)), Had: marksOf(h.GetHad()),
		From: mqttfront.Arriving{From: string(p.from), Number: p.number}}
	for _, id := range h.GetInbound() {
		if id > 0 && id <= 65535 {
			p.head.Inbound = append(p.head.Inbound, uint16(id)) //nolint:gosec // checked
		}
	}
	return true
}

// lost goes on with what is retained of a session; its node may come back with the rest, unless p is closed: it has been asked.
func (r *Roam) lost(p *pull, last *claim) mqttfront.Arrival {
	s := last.GetState()
	if s.GetExpiryMs() == 0 {
		return nil
	}
	p.head = mqttfront.ArrivalHead{Record: recordOf(s), From: mqttfront.Arriving{From: string(p.from), Number: p.number, Drained: true}}
	if o := last.owner(); p.from == o.node {
		p.database = o.database
		p.head.From.Database = o.database
	}
	p.drained = true
	return p
}

const maxInflight = 65535

// Resume implements mqttfront.Roaming.
func (r *Roam) Resume(key string, from mqttfront.Arriving) mqttfront.Arrival {
	id, err := peer.IDFromBytes([]byte(from.From))
	if err != nil {
		return nil
	}
	p := r.newPull(key, from.Number, id)
	p.database, p.drained = from.Database, from.Drained
	return p
}

// Head implements mqttfront.Arrival.
func (p *pull) Head() mqttfront.ArrivalHead { return p.head }

// connect opens a stream, and returns the first answer.
func (p *pull) connect(ctx context.Context, after uint64) (*pb.Moved, error) {
	open, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	s, err := p.r.open(open, p.from)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = s.Reset()
		return nil, io.EOF
	}
	p.open = s
	p.mu.Unlock()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(answerTime)
	}
	_ = s.SetDeadline(deadline)
	p.stream, p.reader = s, pbio.NewDelimitedReader(s, maxMoved)
	m := new(pb.Moved)
	err = pbio.NewDelimitedWriter(s).WriteMsg(&pb.Pull{Key: []byte(p.key), Number: p.number, After: after})
	if err == nil {
		err = p.reader.ReadMsg(m)
	}
	if err != nil {
		p.drop()
		return nil, err
	}
	_ = s.SetDeadline(time.Time{})
	p.r.goes(func() { p.runTell(s) })
	return m, nil
}

// drop gives the stream up.
func (p *pull) drop() {
	if p.stream != nil {
		_ = p.stream.Reset()
	}
	p.mu.Lock()
	p.stream, p.reader, p.open, p.answers = nil, nil, nil, false
	p.mu.Unlock()
	p.poke()
}

// Next implements mqttfront.Arrival.
func (p *pull) Next(ctx context.Context, after uint64) (mqttfront.Arrived, error) {
	for {
		if p.isClosed() || time.Now().After(p.until) {
			return mqttfront.Arrived{}, io.EOF
		}
		if p.stream == nil {
			if err := p.again(ctx, after); err != nil {
				return mqttfront.Arrived{}, err
			}
			if p.lost() {
				p.drained = true
				p.r.cfg.Log.Info("a session goes on without what is left of it at a node that can't be reached", "key", p.key, "node", p.from.String())
				return mqttfront.Arrived{Drained: true, Lost: true}, nil
			}
			continue
		}
		if len(p.had) > 0 {
			got := mqttfront.Arrived{Had: p.had}
			p.had = nil
			return got, nil
		}
		stop := context.AfterFunc(ctx, func() { p.cut() })
		m := new(pb.Moved)
		err := p.reader.ReadMsg(m)
		stop()
		if err != nil {
			p.drop()
			continue
		}
		got := mqttfront.Arrived{Drained: m.GetDrained(), Known: m.GetKnown(), End: m.GetEnd(), Had: marksOf(m.GetHead().GetHad()), Doubted: marksOf(m.GetDoubted())}
		if got.End {
			_ = p.stream.Close()
		}
		p.drained = p.drained || got.Drained
		for _, e := range m.GetEntries() {
			entry, err := entryOf(e)
			if err != nil {
				p.r.cfg.Log.Warn("an entry of a session from another node can't be read, and is left out", "node", p.from.String(), "error", err)
				continue
			}
			got.Entries = append(got.Entries, entry)
		}
		return got, nil
	}
}

// again tries to reach the node that has the rest, until it is there.
func (p *pull) again(ctx context.Context, after uint64) error {
	if p.part {
		return io.EOF
	}
	m, err := p.connect(ctx, after)
	switch {
	case err == nil && m.GetHead() != nil:
		p.failing = time.Time{}
		p.had = marksOf(m.GetHead().GetHad())
		return nil
	case err == nil:
		p.drop()
		next, err := peer.IDFromBytes(m.GetElsewhere())
		if err != nil || next == p.from || next == p.r.self || p.hops >= maxHops || after > 0 {
			return io.EOF // it has nothing, or this session is not the one that goes on, or what is elsewhere is another part
		}
		p.from = next
		p.hops++
		return nil
	case errors.Is(err, io.EOF) && p.isClosed():
		return err
	case p.failing.IsZero():
		p.failing = time.Now()
	case p.r.cfg.Swarm.Forgotten(p.from): // what it still had is lost
		p.r.cfg.Log.Info("a session goes on without what was left of it at a node that is gone for good", "key", p.key, "node", p.from.String())
		return io.EOF
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.r.ctx.Done():
		return context.Canceled
	case <-time.After(againEvery):
		return nil
	}
}

// lost reports whether the other node has been out of reach for too long.
func (p *pull) lost() bool {
	return !p.drained && !p.failing.IsZero() && time.Since(p.failing) > lostTime && !p.r.cfg.Swarm.Reaches(p.from, p.database)
}

// runTell says what was taken, while its stream is open.
func (p *pull) runTell(s wire) {
	w := pbio.NewDelimitedWriter(s)
	var said uint64
	saidRegistered := false
	for {
		p.mu.Lock()
		mine, taken, registered, answers, known := p.open == s, p.taken, p.registered, p.answers, p.known
		p.answers = p.answers && !mine
		p.mu.Unlock()
		if !mine {
			return
		}
		if taken > said || registered && !saidRegistered || answers {
			said, saidRegistered = taken, registered
			t := &pb.Taken{Upto: taken, Registered: registered, Answers: answers}
			if answers {
				t.Had = marksToPB(known)
			}
			if w.WriteMsg(t) != nil {
				return
			}
		}
		select {
		case <-p.wake:
		case <-p.r.ctx.Done():
			_ = s.Reset()
			return
		}
	}
}

func (p *pull) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Taken implements mqttfront.Arrival.
func (p *pull) Taken(upto uint64) {
	p.mu.Lock()
	p.taken = max(p.taken, upto)
	p.mu.Unlock()
	p.poke()
}

// Known implements mqttfront.Arrival.
func (p *pull) Known(had []mqttfront.MarkRun) {
	p.mu.Lock()
	p.answers, p.known = true, had
	p.mu.Unlock()
	p.poke()
}

// Registered implements mqttfront.Arrival.
func (p *pull) Registered() {
	p.mu.Lock()
	p.registered = true
	p.mu.Unlock()
	p.poke()
}

func (p *pull) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// Close implements mqttfront.Arrival.
func (p *pull) Close() {
	p.mu.Lock()
	was := p.closed
	p.closed = true
	p.mu.Unlock()
	p.cut()
	if p.onClose != nil && !was {
		p.onClose()
	}
}

// cut ends the stream under whoever reads it.
func (p *pull) cut() {
	p.mu.Lock()
	s := p.open
	p.mu.Unlock()
	if s != nil {
		_ = s.Reset()
	}
}

// entryOf converts an entry from the wire.
func entryOf(m *pb.MovedEntry) (e mqttfront.Entry, err error) {
	sm, se := m.GetMessage(), m.GetEntry()
	if m.GetPosition() == 0 || sm.GetQos() > 2 || se.GetQos() == 0 || se.GetQos() > 2 || se.GetPacketId() > 65535 || se.GetState() > uint32(mqttfront.EntryReleased) {
		return e, fmt.Errorf("position %d, QoS %d and %d, packet ID %d, state %d", m.GetPosition(), sm.GetQos(), se.GetQos(), se.GetPacketId(), se.GetState())
	}
	msg := &proto.Message{Topic: sm.GetTopic(), Payload: sm.GetPayload(), Properties: sm.GetProperties(), QoS: byte(sm.GetQos()), Retain: sm.GetRetain()} //nolint:gosec // checked
	if sm.GetExpiresMs() != 0 {
		msg.Expires = time.UnixMilli(sm.GetExpiresMs())
	}
	if err := msg.Validate(); err != nil {
		return e, err
	}
	e = mqttfront.Entry{Msg: msg, Pos: m.GetPosition(), QoS: byte(se.GetQos()), Retain: se.GetRetain(), PacketID: uint16(se.GetPacketId()), //nolint:gosec // checked
		State: mqttfront.EntryState(se.GetState()), IDs: se.GetIds(), Mark: mqttfront.Mark{Epoch: se.GetEpoch(), Seq: se.GetSeq()}} //nolint:gosec // checked
	if se.GetGroupName() != "" {
		e.Group = &proto.Group{Name: se.GetGroupName(), Filter: se.GetGroupFilter()}
	}
	return e, nil
}

// entryToPB undoes entryOf.
func entryToPB(e *mqttfront.Entry) *pb.MovedEntry {
	m := &pb.StoredMessage{Topic: e.Msg.Topic, Payload: e.Msg.Payload, Properties: e.Msg.Properties, Qos: uint32(e.Msg.QoS), Retain: e.Msg.Retain}
	if !e.Msg.Expires.IsZero() {
		m.ExpiresMs = e.Msg.Expires.UnixMilli()
	}
	mark := markOf(e)
	s := &pb.StoredEntry{Qos: uint32(e.QoS), Retain: e.Retain, PacketId: uint32(e.PacketID), State: uint32(e.State), Ids: e.IDs, Epoch: mark.Epoch, Seq: mark.Seq}
	if e.Group != nil {
		s.GroupName, s.GroupFilter = e.Group.Name, e.Group.Filter
	}
	return &pb.MovedEntry{Position: e.Pos, Message: m, Entry: s}
}
