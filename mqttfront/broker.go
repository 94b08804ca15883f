package mqttfront

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// Broker is the MQTT side of a node.
type Broker struct {
	cfg   Config
	swarm Swarm
	auth  Auth
	store SessionStore
	log   *slog.Logger
	stats *Stats
	start time.Time

	subs      topic.Tree[*session, *subscription] // outside of shared groups
	shares    topic.Tree[string, *group]          // by filter and name
	shareMu   sync.Mutex                          // held by those that change shares; before group.mu
	local     localRetained
	slots     *slots
	wide      wideSlots
	arrivals  arrivals
	tellTime  time.Duration // turnAwayTime
	crowd     crowd
	strain    strain
	shorts    shorts
	interests interests

	// What is said at limits.
	manyConns, manyOfHost, quickConns, manySessions, localFull *Refusal

	checks        atomic.Uint64 // rises with each Recheck
	trusts        atomic.Uint64 // rises with each RecheckCertificates
	rightsVersion atomic.Uint64 // rises when what a session may receive changes

	storeSaid atomic.Int64 // when the log last had an error of the store, nanoseconds since start
	impatient impatient
	found     Found

	registry

	roaming   Roaming                     // nil: every session stays here; set before anybody is served
	wills     atomic.Pointer[WillKeeping] // nil: nobody else knows them; set before anybody is served
	moves     context.Context             // of sessions that come from other nodes; over in Close
	stopMoves context.CancelFunc

	deliverMu  sync.Mutex
	delivering outMessage // guarded by deliverMu

	logins     context.Context // of those who connect; over when no more may
	stopLogins context.CancelFunc

	wg      sync.WaitGroup // every goroutine
	stopped chan struct{}  // closed by Close
	opening opening
	ticked  chan struct{} // gets one at each turn of runTicker that somebody waits for
	once    sync.Once
}

// registry knows what is there.
type registry struct {
	reg        sync.Mutex
	sessions   map[sessionKey]*session
	departures map[sessionKey][]*Departure
	fetches    map[sessionKey]chan struct{} // sessions that are being brought here; closed when they are
	conns      map[*conn]struct{}
	turned     map[net.Conn]struct{} // over a limit, and being told so
	places     int                   // taken, by conns and by what may become some
	byHost     map[string]int        // of them, by address
	listeners  map[*listener]struct{}
	draining   bool
	leaving    chan struct{} // closed when draining begins
	idle       chan struct{} // closed when draining and the last connection is gone
}

// New returns a broker that serves nobody yet: see Listen. It brings back the sessions that store kept.
func New(cfg Config, swarm Swarm, auth Auth, store SessionStore, log *slog.Logger) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if auth == nil {
		auth = AllowAll{}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{
		cfg: cfg, swarm: swarm, auth: auth, store: store, log: log, stats: new(Stats), start: time.Now(),
		manyConns:    refuse(ReasonQuotaExceeded, "this node takes at most %d connections: connect to another one", cfg.MaxConnections),
		manyOfHost:   refuse(ReasonQuotaExceeded, "this node takes at most %d connections from one address", cfg.MaxConnectionsPerAddress),
		quickConns:   refuse(reasonConnectionRate, "connect again in a minute"),
		manySessions: refuse(ReasonQuotaExceeded, "this node keeps at most %d sessions: connect to another one", cfg.MaxSessions),
		localFull: refuse(ReasonQuotaExceeded, "at most %d messages and %d bytes are retained below $local: nobody got this one",
			cfg.MaxRetainedMessages, cfg.MaxRetainedBytes),
		tellTime: turnAwayTime, slots: new(slots), interests: interests{byFilter: make(map[string]*demand)},
		registry: registry{
			sessions: make(map[sessionKey]*session), conns: make(map[*conn]struct{}), byHost: make(map[string]int),
			turned: make(map[net.Conn]struct{}), listeners: make(map[*listener]struct{}), leaving: make(chan struct{}),
			idle: make(chan struct{}),
		},
		stopped: make(chan struct{}), ticked: make(chan struct{}),
	}
	b.logins, b.stopLogins = context.WithCancel(context.Background())
	b.moves, b.stopMoves = context.WithCancel(context.Background())
	b.local.strain, b.local.store = &b.strain, b.store
	b.crowd.limit, b.crowd.used, b.crowd.stuck = cfg.MaxTotalPendingBytes, &b.stats.PendingMemory, crowdStuck
	b.crowd.more = make(chan struct{}, 1)
	b.local.stats, b.local.most, b.local.bytes = b.stats, cfg.MaxRetainedMessages, cfg.MaxRetainedBytes
	if err := b.restore(); err != nil {
		return nil, err
	}
	b.wg.Go(b.runTicker)
	b.wg.Go(b.runFeed)
	return b, nil
}

// Stats returns the counters, which go on counting.
func (b *Broker) Stats() *Stats { return b.stats }

func (b *Broker) idleLocked() {
	select {
	case <-b.idle:
	default:
		close(b.idle)
	}
}

// drainLocked lets no more connections in. It reports whether any were.
func (b *Broker) drainLocked() bool {
	if b.draining {
		return false
	}
	b.draining = true
	close(b.leaving)
	return true
}

// Drain takes leave of all clients: no more are accepted, those that are there are told (MQTT 5: 0x8B) and
// disconnected, and their wills go to the swarm, which must still be there; those with a delay stay with their sessions, and
// their delays go on, whenever there is a broker again. It returns when all are gone, or ctx is over. Deliver goes on
// working, for the sessions.
func (b *Broker) Drain(ctx context.Context) error {
	b.reg.Lock()
	first := b.drainLocked()
	var ls []*listener
	for l := range b.listeners {
		ls = append(ls, l)
	}
	cs := b.connsLocked()
	if len(cs) == 0 {
		b.idleLocked()
	}
	b.reg.Unlock()
	if first {
		b.stopLogins()
		for _, l := range ls {
			l.close()
		}
		for _, c := range cs {
			if c.ready() {
				c.stop(errDraining)
			} else {
				c.raw.Close()
			}
		}
	}
	select {
	case <-b.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Queued returns how many QoS 1 and 2 messages wait in sessions that outlive their connections, or are not
// acknowledged by their clients, and the number of those sessions.
func (b *Broker) Queued() (messages, sessions int) {
	b.reg.Lock()
	defer b.reg.Unlock()
	for _, s := range b.sessions {
		s.mu.Lock()
		if n := s.waiting - s.zeros; n > 0 && s.expiry > 0 && !s.ended {
			messages += n
			sessions++
		}
		s.mu.Unlock()
	}
	return messages, sessions
}

// Kept returns how many sessions are here that outlive their connections, and how many QoS 1 and 2 messages wait in them; those of connected
// clients, and those that another node is fetching, only where all is said. A session of which all is elsewhere is not here.
func (b *Broker) Kept(all bool) (sessions, messages int) {
	b.reg.Lock()
	defer b.reg.Unlock()
	for _, s := range b.sessions {
		s.mu.Lock()
		if s.expiry > 0 && !s.ended && (all || s.conn.Load() == nil) {
			sessions++
			messages += s.waiting - s.zeros
		}
		s.mu.Unlock()
	}
	for _, ds := range b.departures {
		for _, d := range ds {
			d.s.mu.Lock()
			if !d.over && (all || d.streams == 0) && !d.emptyLocked() {
				sessions++
				messages += d.s.waiting - d.s.zeros
			}
			d.s.mu.Unlock()
		}
	}
	return sessions, messages
}

func (b *Broker) connsLocked() []*conn {
	cs := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		cs = append(cs, c)
	}
	return cs
}

// ready reports whether the client is past CONNECT.
func (c *conn) ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sess != nil
}

// Close cuts what is left and waits for every goroutine of the broker. Without Drain before, clients are not
// told. Sessions stay as the store has them. Only what a callback into Auth, Swarm or SessionStore may still
// be waiting for is waited for without a limit.
func (b *Broker) Close() error {
	b.once.Do(func() {
		b.reg.Lock()
		b.drainLocked()
		turned := slices.Collect(maps.Keys(b.turned))
		var ls []*listener
		for l := range b.listeners {
			ls = append(ls, l)
		}
		cs := b.connsLocked()
		var ss []*session
		for _, s := range b.sessions {
			ss = append(ss, s)
		}
		b.reg.Unlock()
		for _, l := range ls {
			l.close()
		}
		close(b.stopped)
		for _, nc := range turned {
			nc.Close()
		}
		b.stopLogins()
		b.stopMoves()
		for _, c := range cs {
			c.mu.Lock()
			c.abandonLocked()
			c.mu.Unlock()
			c.raw.Close()
		}
		for _, s := range ss {
			s.mu.Lock()
			if s.timer != nil {
				s.timer.Stop()
			}
			s.mu.Unlock()
		}
	})
	b.wg.Wait()
	return nil
}

// Found is what a broker has found in its store when it was made.
type Found struct {
	Sessions, Subscriptions int
	Queued                  int // messages that wait to be sent to clients
	Inflight                int // that were sent and are not acknowledged
	Inbound                 int // QoS 2 messages from clients that wait for PUBREL
	Wills                   int // that are due now or later, unless their clients come back in time
	LocalRetained           int // messages below $local
}

// Found tells what the broker has found in its store when it was made.
func (b *Broker) Found() Found { return b.found }

// restore brings back the sessions that the store kept.
func (b *Broker) restore() error {
	now := time.Now()
	var found Found
	var back []*session
	if err := b.local.load(); err != nil {
		return err
	}
	err := b.store.Load(func(key string, rec SessionRecord, log SessionLog) {
		if b.restoreHeld(key, rec, log) {
			found.Wills++
			return
		}
		s := b.newSession(beforeDeparture(key))
		s.version, s.expiry, s.will, s.born = rec.Version, rec.Expiry, rec.Will, rec.Born
		s.number, s.win.block = rec.Claim, rec.IDs
		s.asked = 1
		s.setRights(b.rightsOf(s))
		if s.since = rec.Disconnected; s.since.IsZero() {
			s.since = now // it was connected when the node stopped
		}
		if s.will != nil {
			found.Wills++
		}
		if rec.Arriving != nil {
			s.logTo(log)
			s.move = &move{arriving: &arriving{Arriving: *rec.Arriving, own: map[Mark]Entry{}}}
			s.moving.Store(true)
		}
		b.stats.Sessions.Add(1)
		switch {
		case rec.Departing != nil:
			s.logTo(log)
			s.restoreMarks(rec.Arriving != nil)
			s.restoreDeparture(rec.Departing)
		case s.expiry == 0: // it ended with its connection, and has left its will
			s.willLog = log
		default:
			s.logTo(log)
			s.restoreMarks(rec.Arriving != nil)
			s.restoreQueue()
			found.Sessions++
			found.Subscriptions += len(rec.Subs)
			found.Queued += s.waiting - s.win.live
			found.Inflight += s.win.live
			found.Inbound += len(s.inbound)
		}
		if rec.Departing == nil {
			b.sessions[s.key] = s
			b.stats.Offline.Add(1)
		}
		var from Lost
		if a := rec.Arriving; a != nil {
			from = a.lost()
		}
		s.subscribeAll(rec.Subs, from, nil)
		back = append(back, s)
	})
	if err != nil {
		return err
	}
	for _, s := range back { // once all are there: what ends at once takes itself out
		s.mu.Lock()
		s.armLocked(now, now.Add(afterRestart))
		s.mu.Unlock()
	}
	found.LocalRetained = int(b.stats.LocalRetained.Load())
	b.found = found
	return nil
}

// restoreEntries is how many entries are looked at at a time for those that were sent.
const restoreEntries = 16

// placeLocked takes an entry that was sent from the log into the window: those come before the others.
func (s *session) placeLocked(e *Entry) {
	s.spilled--
	s.b.reopen(e)
	s.b.holdFetched(e)
	s.behind = e.Pos
	if s.win.n == 0 {
		if s.win.first = e.PacketID; !s.win.uses(e.PacketID) {
			s.win.block = 0
		}
	}
	for next := s.win.next(); s.win.n > 0 && next != e.PacketID && next != 0; next = s.win.next() {
		s.win.hole()
	}
	s.win.push(*e)
}

// restoreQueue takes the window from the log. The queue stays there until its client comes: all that sessions have would be
// too much at once.
func (s *session) restoreQueue() {
	s.restoreCounts()
	for s.spilled > 0 {
		es := s.fetchableLocked(s.log.Fetch(s.behind, min(restoreEntries, s.spilled)))
		if len(es) == 0 {
			return
		}
		for i := range es {
			if es[i].PacketID == 0 {
				return
			}
			s.placeLocked(&es[i])
		}
	}
}

// restoreCounts takes from the log what is known without its entries.
func (s *session) restoreCounts() {
	all := s.log.Queued()
	s.lastPos = all.Last
	if s.move != nil && s.move.arriving != nil {
		s.lastPos = max(s.lastPos, s.move.Own)
	}
	s.spilled = all.Entries
	s.count(all.Entries, all.Bytes)
	for _, id := range s.log.Inbound() {
		if s.inbound == nil {
			s.inbound = make(map[uint16]inbound)
		}
		s.inbound[id] = inbound{accepted: true}
	}
}

// restoreDeparture has a session go on waiting to be fetched.
func (s *session) restoreDeparture(to *Departing) {
	s.restoreCounts()
	s.lastPos = max(s.lastPos, to.Reserved)
	d := s.leaveTo(to.To, to.Number)
	d.reserved = to.Reserved // it may be saved, and there be another crash, before anything more is queued
}

// storeSayEvery is how often the log may have an error of the store.
const storeSayEvery = time.Minute

// storeDone counts what the store could not keep, and says so.
func (b *Broker) storeDone(err error) {
	if err == nil {
		return
	}
	n := b.stats.StoreErrors.Add(1)
	now, said := int64(time.Since(b.start)), b.storeSaid.Load()
	if (said == 0 || now-said >= int64(storeSayEvery)) && b.storeSaid.CompareAndSwap(said, now) {
		b.log.Error("sessions cannot be stored: what clients publish and subscribe to that would have to be is refused", "error", err, "errors_so_far", n)
	}
}
