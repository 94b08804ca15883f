package mqttfront

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Roaming is how sessions go where their clients connect: each has one holder in the swarm, and who connects elsewhere under
// the same user and client ID makes that node the holder. It is implemented by the node. Without one every session stays with
// its node. Keys are those of the session store.
//
// All methods are safe for concurrent use; those that may wait say so.
type Roaming interface {
	// Alone returns the number of a claim that a client makes by connecting now, where no other node has been seen since this one was started;
	// else 0. It is kept with the session, and says who is the holder once others are there. expects says that there should be some.
	Alone() (number uint64, expects bool)
	// Active reports whether another node has been seen.
	Active() bool
	// Holds reports whether this node is known to be the holder of a session.
	Holds(key string) bool
	// Claim makes this node the holder of a session that a client wants to go on with, and returns what there is of it
	// elsewhere; nil if that is nothing or older than what is here, which it is joined with, or this node is the holder, or there is no other node now. It waits for that, until ctx is over at most. It fails
	// where it can't find out who has the session, or another node has claimed it since.
	Claim(ctx context.Context, key string) (Arrival, error)
	// Release says that a client did not get the session that was claimed for it, and that there is none here.
	Release(key string)
	// Begin says that a session has begun here. Whoever else has one of the same key ends it.
	Begin(key string)
	// Keep lets the swarm know a session with an expiry as it is now, for the case that this node is lost. done, which may be
	// nil, is called once, from any goroutine or from within: when the swarm knows, or can't be told now.
	Keep(key string, rec SessionRecord, done func())
	// End says that a session is over, or another node's.
	End(key string)
	// Resume goes on with what another node still has of a session, after a restart of this one.
	Resume(key string, from Arriving) Arrival
}

// Arrival is a session that comes from another node. Its methods are called by one goroutine, but for Close.
type Arrival interface {
	// Head returns the session as the other node had it, or as the swarm knows it.
	Head() ArrivalHead
	// Next waits for what comes behind a position, and returns it. An error says that there is nothing more to come.
	Next(ctx context.Context, after uint64) (Arrived, error)
	// Taken says that everything up to a position is safe here, so that the other node need not keep it.
	Taken(upto uint64)
	// Known answers what was doubted by what of that the session has had, and need not come.
	Known(had []MarkRun)
	// Registered says that what is published anywhere from now on comes here by itself, or that this has not been promised for long.
	Registered()
	// Close gives up what has not come.
	Close()
}

// ArrivalHead is the part of a session that its client needs for going on.
type ArrivalHead struct {
	Record  SessionRecord
	From    Arriving
	Inbound []uint16  // packet IDs of QoS 2 messages from the client that wait for PUBREL
	Sent    int       // how many of the first entries to come were sent to the client
	Had     []MarkRun // what the session has had elsewhere and may come once more to a node that is new to it
}

// Arrived is some more of a session.
type Arrived struct {
	Entries []Entry   // by rising position, each with its Mark where it has one
	Had     []MarkRun // as in ArrivalHead, where that is known only now
	Drained bool      // all that waited has come; what comes from now on has come here too, or goes to the end of the queue
	Known   bool      // with Drained, or after it: Had will not be followed by more, unless a part of the session comes up that is not known of now
	End     bool      // nothing will follow
	// Doubted is what has come to the other node since, which mostly comes here too: Known answers.
	Doubted []MarkRun
	// Lost says with Drained that the other node can't be reached: what was sent to it is asked for elsewhere. The rest follows where it
	// comes back.
	Lost bool
}

// MaxDoubted is how many messages may be doubted at once: of more, the session has not had any.
const MaxDoubted = 1024

// Arriving is what has to be known of a session over a restart that comes from another node.
type Arriving struct {
	From     string // peer ID
	Database uint64 // that it had there: what a node has not done with is lost with its database; 0: not known
	Number   uint64 // of the claim
	Frontier uint64 // position of the last entry that came
	Own      uint64 // where the positions of this node's own deliveries begin
	Drained  bool
}

// lost returns the node where that can't be reached, or has nothing of the session.
func (a *Arriving) lost() Lost {
	if !a.Drained {
		return Lost{}
	}
	return Lost{a.From, a.Database}
}

// Departing is what has to be known of a session over a restart that another node has taken over.
type Departing struct {
	To       string // peer ID
	Number   uint64 // of the claim
	Reserved uint64 // no entry has had a position behind this one
}

// ownPositions is where the positions of a node's own deliveries begin in a session that it claimed: behind all earlier ones,
// since the numbers of claims rise by 65,536 at least from one to the next.
func ownPositions(number uint64) uint64 { return number << 10 }

// move is set in a session while two nodes have some of it.
type move struct {
	*arriving
	*Departure
}

// Roam has sessions roam. It is called once, before anybody is served.
func (b *Broker) Roam(r Roaming) {
	b.roaming = r
	b.reg.Lock()
	var moving []*session
	for _, s := range b.sessions {
		if s.move != nil {
			moving = append(moving, s)
		}
	}
	for _, ds := range b.departures { // what goes on from here may not have come yet
		for _, d := range ds {
			moving = append(moving, d.s)
		}
	}
	b.reg.Unlock()
	for _, s := range moving {
		s.resumeArrival()
	}
}

// Sessions calls each with the sessions that outlive their connections.
func (b *Broker) Sessions(each func(key string, rec SessionRecord)) {
	b.reg.Lock()
	ss := make([]*session, 0, len(b.sessions))
	for _, s := range b.sessions {
		ss = append(ss, s)
	}
	b.reg.Unlock()
	for _, s := range ss {
		s.mu.Lock()
		rec, ended := s.recordLocked(), s.ended
		s.mu.Unlock()
		if !ended {
			each(string(s.key), rec)
		}
	}
}

// recordLocked is the session with its subscriptions.
func (s *session) recordLocked() SessionRecord {
	rec := SessionRecord{Version: s.version, Expiry: s.expiry, Disconnected: s.since, Born: s.born, Claim: s.number, IDs: s.win.block}
	for _, sub := range s.subs {
		rec.Subs = append(rec.Subs, sub.record())
	}
	return rec
}

// roams reports whether sessions may go on elsewhere: there are other nodes.
func (b *Broker) roams() bool { return b.roaming != nil && b.roaming.Active() }

// roams reports whether a session may be claimed by other nodes.
func (nc *newConnection) roams(b *Broker) bool { return b.roaming != nil && !nc.assigned }

// fetch brings a session here that a client wants to go on with. It stays until the client has it, which done tells.
func (b *Broker) fetch(nc *newConnection, key sessionKey) (done func(), err error) {
	if !nc.roams(b) || nc.clean {
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(b.logins, claimTime)
	defer cancel()
	if err := b.beginFetch(ctx, key); err != nil {
		return nil, refuse(ReasonServerUnavailable, "the session is on its way from another node: connect again")
	}
	done = func() {
		b.endFetch(key)
		b.reg.Lock()
		lost := b.sessions[key] == nil && b.fetches[key] == nil
		b.reg.Unlock()
		if lost {
			b.roaming.Release(string(key))
		}
	}
	if err := b.bring(ctx, key); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

func (b *Broker) bring(ctx context.Context, key sessionKey) error {
	a, err := b.roaming.Claim(ctx, string(key))
	switch {
	case err != nil:
		return refuse(ReasonServerUnavailable, "%v: connect again", err)
	case a == nil:
		return nil
	}
	return b.welcome(ctx, key, a)
}

// beginFetch waits until no other connection brings the session here.
func (b *Broker) beginFetch(ctx context.Context, key sessionKey) error {
	for {
		b.reg.Lock()
		other := b.fetches[key]
		if other == nil {
			if b.fetches == nil {
				b.fetches = map[sessionKey]chan struct{}{}
			}
			b.fetches[key] = make(chan struct{})
		}
		b.reg.Unlock()
		if other == nil {
			return nil
		}
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *Broker) endFetch(key sessionKey) {
	b.reg.Lock()
	close(b.fetches[key])
	delete(b.fetches, key)
	b.reg.Unlock()
}

// claimTime is how long a client waits for its session to come from elsewhere, at most.
const claimTime = 20 * time.Second

// settled tells the swarm of a session as it is once a client is attached to it.
func (b *Broker) settled(nc *newConnection, s *session, present bool) {
	if !nc.roams(b) {
		return
	}
	switch key := string(s.key); {
	case !present && nc.clean:
		b.roaming.Begin(key)
	case !nc.clean && (nc.alone != 0 || !b.roaming.Holds(key)): // it may be somewhere else too, and be joined with this one
		s.mu.Lock()
		if !present {
			s.born = 0
			s.saveLocked()
		}
		if nc.alone != 0 && !nc.expects { // which is not likely enough for what it costs to know what it has had
			s.mu.Unlock()
			break
		}
		s.rememberLocked()
		s.parted = s.had != nil
		s.moving.Store(s.parted || s.move != nil)
		s.mu.Unlock()
		b.rightsVersion.Add(1) // targets say whether messages need an identity
	}
	s.keepInSwarm(nil)
}

// keepInSwarm lets the swarm know a session with an expiry, and calls done, which may be nil, when it does.
func (s *session) keepInSwarm(done func()) {
	s.mu.Lock()
	roams := s.b.roaming != nil && s.expiry > 0 && !s.ended && (s.move == nil || s.move.Departure == nil) && !s.key.assigned()
	rec := s.recordLocked()
	s.mu.Unlock()
	if roams {
		s.b.roaming.Keep(string(s.key), rec, done)
	} else if done != nil {
		done()
	}
}

// assignedPrefix begins client IDs that the broker has made up, which nobody else has.
const assignedPrefix = "auto-"

func (k sessionKey) assigned() bool {
	_, id, _ := k.parts()
	return strings.HasPrefix(id, assignedPrefix)
}

// departed is the key that a session has in the store once it has gone, and kept its key.
func (k sessionKey) departed(number uint64) string {
	return string(k) + departedMark + strconv.FormatUint(number, 10)
}

const departedMark = "\x00\x00>" // in no session's key: client identifiers are not empty

// beforeDeparture undoes departed.
func beforeDeparture(key string) sessionKey {
	if i := strings.LastIndex(key, departedMark); i >= 0 {
		return sessionKey(key[:i])
	}
	return sessionKey(key)
}

// mark is the identity of an entry's message, zero where nobody waits to hear of it.
func (e *Entry) mark() Mark {
	if e.Receipt != nil {
		return e.Receipt.Mark()
	}
	return e.Mark
}

var errEnded = errors.New("the session is over")

// countdown calls done, unless that is nil, when all that it waits for has been called.
type countdown struct {
	left atomic.Int64
	done func()
}

func newCountdown(done func()) *countdown {
	c := &countdown{done: done}
	c.left.Store(1)
	return c
}

// more is one thing more to be waited for.
func (c *countdown) more() func() {
	c.left.Add(1)
	return c.one
}

func (c *countdown) one() {
	if c.left.Add(-1) == 0 && c.done != nil {
		c.done()
	}
}
