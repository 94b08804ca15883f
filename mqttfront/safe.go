package mqttfront

import (
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// What of a QoS 2 exchange must not be forgotten in a crash, lest the client gets a message twice or loses one, is safe in the
// session store before the client hears of it: the entry with its packet ID before PUBLISH, that PUBREC came before PUBREL,
// that the exchange is over before PUBCOMP. PUBREC of a message from the client follows its acceptance.

// waitSafeLocked has an entry wait until what the log has of it now is safe.
func (s *session) waitSafeLocked(u *burst, e *Entry) {
	e.safeAt = s.begun + 1
	if !s.syncs {
		s.syncs = true
		u.unsafe = append(u.unsafe, s)
	}
}

func (s *session) safeLocked(e *Entry) bool { return e.safeAt <= s.safe }

// goOnWhenSafe has the session go on with what waits, once that is safe.
func (s *session) goOnWhenSafe() {
	s.mu.Lock()
	s.syncs = false
	s.begun++
	upto := s.begun
	s.mu.Unlock()
	s.b.store.Sync(func(err error) {
		s.b.storeDone(err)
		if err != nil {
			return // the broker is about to end
		}
		u := s.b.begin(time.Now())
		s.mu.Lock()
		s.safe = max(s.safe, upto)
		s.releaseLocked(u)
		s.pumpLocked(u)
		s.mu.Unlock()
		u.end()
	})
}

// released is an entry whose PUBREL waits.
type released struct {
	packetID uint16
	safeAt   uint64
}

// releaseLocked sends the PUBRELs that are due, in the order of their PUBRECs [MQTT-4.6.0-4].
func (s *session) releaseLocked(u *burst) {
	c := s.conn.Load()
	n := 0
	for n < len(s.releases) && s.releases[n].safeAt <= s.safe {
		if c != nil {
			c.mu.Lock()
			c.appendAckLocked(typePubrel, s.releases[n].packetID, reasonSuccess, "")
			c.mu.Unlock()
		}
		n++
	}
	if s.releases = s.releases[n:]; len(s.releases) == 0 {
		s.releases = nil
	}
}

// completeWhenSafe sends PUBCOMPs once that their exchanges are over is safe.
func (c *conn) completeWhenSafe(packetIDs []uint16) {
	c.b.store.Sync(func(err error) {
		c.b.storeDone(err)
		if err != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, id := range packetIDs {
			c.appendAckLocked(typePubcomp, id, reasonSuccess, "")
		}
	})
}

// uncork lets CONNACK go, and what is behind it, once what is kept of the session is safe: that it is there, that its client
// is, and the will. Where the store can't be written the client is let in all the same.
func (c *conn) uncork() error {
	c.mu.Lock()
	corked := c.corked
	c.mu.Unlock()
	if corked == nil {
		return nil
	}
	c.b.syncSoon(func(err error) {
		c.b.storeDone(err)
		close(corked)
	})
	select {
	case <-corked:
	case <-c.b.stopped:
		return net.ErrClosed
	}
	if c.own.armed != nil {
		late := time.NewTimer(armTime)
		select {
		case <-c.own.armed:
		case <-late.C:
		case <-c.b.stopped:
		}
		late.Stop()
		c.own.armed = nil
	}
	c.mu.Lock()
	c.corked = nil
	c.mu.Unlock()
	c.flush()
	return nil
}

// armTime is how long a client waits at most for other nodes to know its will.
const armTime = 2 * time.Second

// impatient are those who wait for the store, but not for as long as it takes: a client that asks for something that can't be
// kept is told so.
type impatient struct {
	mu  sync.Mutex
	all map[*waiter]struct{}
}

type waiter struct {
	done  func(error)
	until time.Time
}

// storePatience is how long a client waits for a disk that is slow.
const storePatience = 10 * time.Second

var errStoreSlow = errors.New("the disk takes longer than " + storePatience.String())

// syncSoon is SessionStore.Sync for who does not wait where the store can't be written: done gets the error then.
func (b *Broker) syncSoon(done func(error)) {
	if err := b.store.Err(); err != nil {
		done(err)
		return
	}
	w := &waiter{done, time.Now().Add(storePatience)}
	i := &b.impatient
	i.mu.Lock()
	if i.all == nil {
		i.all = map[*waiter]struct{}{}
	}
	i.all[w] = struct{}{}
	i.mu.Unlock()
	b.store.Sync(func(err error) { i.tell(w, err) })
}

// tell tells a waiter, unless it has been told.
func (i *impatient) tell(w *waiter, err error) {
	i.mu.Lock()
	_, waits := i.all[w]
	delete(i.all, w)
	i.mu.Unlock()
	if waits {
		w.done(err)
	}
}

// tick tells those who have waited for long enough.
func (i *impatient) tick(b *Broker, now time.Time) {
	i.mu.Lock()
	all := slices.Collect(maps.Keys(i.all))
	i.mu.Unlock()
	if len(all) == 0 {
		return
	}
	failed := b.store.Err()
	for _, w := range all {
		if failed != nil {
			i.tell(w, failed)
		} else if now.After(w.until) {
			i.tell(w, errStoreSlow)
		}
	}
}
