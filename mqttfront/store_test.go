package mqttfront_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

// lazyStore syncs when it is told to.
type lazyStore struct {
	*storetest.Sessions
	mu    sync.Mutex
	lazy  bool
	waits []func(error)
}

func (s *lazyStore) Sync(done func(error)) {
	s.mu.Lock()
	if s.lazy {
		s.waits = append(s.waits, done)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	done(nil)
}

func (s *lazyStore) setLazy(lazy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lazy = lazy
}

// waiting is how many wait for the disk.
func (s *lazyStore) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waits)
}

func (s *lazyStore) sync(err error) {
	s.mu.Lock()
	waits := s.waits
	s.waits = nil
	s.mu.Unlock()
	for _, done := range waits {
		done(err)
	}
}

// TestAcksFollowTheStore: what a session is kept for is acknowledged when it is safe, and only that waits.
func TestAcksFollowTheStore(t *testing.T) {
	st := &lazyStore{Sessions: storetest.NewSessions()}
	b, _, addr := startWith(t, newLoner(), st, nil, nil)
	kept, _ := connect(t, addr, connectOpts{id: "kept", props: sessionExpiry(60)})
	pub, _ := connect(t, addr, connectOpts{id: "pub", props: sessionExpiry(60)})
	st.setLazy(true)
	kept.send(kept.subscribePacket(1, nil, filter{"a", 2}))
	kept.silent()
	st.sync(nil)
	kept.expect(packets.Suback)

	pub.send(pub.publishPacket(2, 1, "a", "1"))
	kept.expectPublish("1") // delivery does not wait
	pub.silent()
	pub.send(pub.publishPacket(2, 2, "b", "2")) // nobody keeps it, but its turn is behind
	pub.send(pub.publishPacket(4, 3, "b", "3")) // its packet ID is kept
	pub.silent()
	st.sync(nil)
	for want := uint16(1); want <= 2; want++ {
		if a := pub.expect(packets.Puback); a.PacketID != want {
			t.Fatalf("PUBACK for %d, want %d", a.PacketID, want)
		}
	}
	pub.expect(packets.Pubrec)
	pub.send(pub.publishPacket(2, 4, "b", "4")) // nobody keeps it
	pub.expect(packets.Puback)
	pub.send(pub.publishPacket(2, 5, "a", "5"))
	pub.silent()
	st.sync(errors.New("the disk is full"))
	if a := pub.expect(packets.Puback); a.ReasonCode != 0x97 {
		t.Errorf("PUBACK 0x%02x", a.ReasonCode)
	}
	if b.Stats().StoreErrors.Load() != 1 {
		t.Error("not counted")
	}
}

// TestExactlyOnceFollowsTheStore: of a QoS 2 exchange of a session that is kept nothing is sent before it is safe that it was.
func TestExactlyOnceFollowsTheStore(t *testing.T) {
	st := &lazyStore{Sessions: storetest.NewSessions()}
	b, _, addr := startWith(t, newLoner(), st, nil, nil)
	kept, _ := connect(t, addr, connectOpts{id: "kept", props: sessionExpiry(60)})
	kept.subscribe(filter{"a", 2})
	other, _ := connect(t, addr, connectOpts{id: "other"})
	other.subscribe(filter{"a", 2})
	pub, _ := connect(t, addr, connectOpts{id: "pub", props: sessionExpiry(60)})
	pub2, _ := connect(t, addr, connectOpts{id: "pub2"})

	// To a session that is kept: PUBLISH, several of them, and what is behind.
	st.setLazy(true)
	for i, payload := range []string{"1", "2", "3"} {
		pub2.send(pub2.publishPacket(4, uint16(i+1), "a", payload))
		other.expectPublish(payload)
	}
	pub2.send(pub2.publishPacket(2, 4, "a", "4"))
	other.expectPublish("4")
	kept.silent()
	st.sync(nil)
	var ids []uint16
	for _, payload := range []string{"1", "2", "3", "4"} {
		ids = append(ids, kept.expectPublish(payload).PacketID)
	}
	for range 3 {
		pub2.expect(packets.Pubrec)
	}
	pub2.expect(packets.Puback)

	// PUBREL.
	for _, id := range ids[:3] {
		kept.ack(packets.Pubrec, id)
	}
	kept.silent()
	st.sync(nil)
	for _, id := range ids[:3] {
		if a := kept.expect(packets.Pubrel); a.PacketID != id {
			t.Fatalf("PUBREL for %d, want %d", a.PacketID, id)
		}
	}

	// From a session that is kept: nobody gets the message before.
	pub.send(pub.publishPacket(4, 7, "a", "5"))
	pub.silent()
	other.silent()
	st.sync(nil)
	other.expectPublish("5")
	pub.expect(packets.Pubrec)
	st.sync(nil)
	kept.expectPublish("5")

	// PUBCOMP.
	pub.ack(packets.Pubrel, 7)
	pub.silent()
	st.sync(nil)
	pub.expect(packets.Pubcomp)

	// To one that comes back before that: still not before, nor anything else.
	pub2.send(pub2.publishPacket(4, 8, "a", "6"))
	other.expectPublish("6")
	kept.kill()
	kept = newRaw(t, addr, 5)
	eventually(t, "it is offline", func() bool { return b.Stats().Offline.Load() == 1 })
	before := st.waiting()
	kept.send(connectOpts{version: 5, id: "kept", resume: true, props: sessionExpiry(60)}.encode())
	eventually(t, "CONNACK waits", func() bool { return st.waiting() > before })
	kept.unanswered()
	st.sync(nil)
	kept.expect(packets.Connack)
	for range 3 {
		kept.expect(packets.Pubrel)
	}
	kept.expectPublish("4")
	kept.expectPublish("5")
	if p := kept.expectPublish("6"); p.FixedHeader.Dup {
		t.Error("sent for the first time with DUP")
	}
}

// TestOfflineSessionMemory: an offline session costs little.
func TestOfflineSessionMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs memory of its own")
	}
	b, _, addr := start(t, nil)
	used := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := used()
	const n = 5000
	for i := range n {
		nc, err := dialPlain(addr)
		if err != nil {
			t.Fatal(err)
		}
		r := &raw{t: t, nc: nc, br: newReader(nc), version: 5}
		r.send(connectOpts{version: 5, id: fmt.Sprint("device-", i), props: sessionExpiry(3600)}.encode(),
			r.subscribePacket(1, nil, filter{fmt.Sprintf("device/%d/#", i), 1}), []byte{0xe0, 0})
		r.expect(packets.Connack)
		r.expect(packets.Suback)
		r.expectEnd()
		nc.Close()
	}
	eventually(t, "all are offline", func() bool { return b.Stats().Connections.Load() == 0 && b.Stats().Offline.Load() == n })
	per := int64(used()-before) / n
	t.Logf("%d bytes for a session, its subscription and its interest", per)
	if per > 2048 {
		t.Errorf("%d bytes for an offline session", per)
	}
}

var _ mqttfront.SessionStore = (*lazyStore)(nil)

// brokenStore is a lazy store that may say that it is broken.
type brokenStore struct {
	*lazyStore
	broken atomic.Bool
}

func (s *brokenStore) Err() error {
	if s.broken.Load() {
		return errors.New("the disk is full")
	}
	return nil
}

// TestBrokenStore: a client that wants something kept is answered where the store turns out to be broken: it is let in, and
// told that its subscription is not. A session that is not there yet is not kept then, which MQTT 5 clients are told.
func TestBrokenStore(t *testing.T) {
	st := &brokenStore{lazyStore: &lazyStore{Sessions: storetest.NewSessions()}}
	b, l, addr := startWith(t, newLoner(), st, nil, nil)
	five, _ := connect(t, addr, connectOpts{id: "five", props: sessionExpiry(60)})
	four, _ := connect(t, addr, connectOpts{id: "four", version: 4, resume: true})
	st.setLazy(true)
	for _, c := range []*raw{five, four} {
		c.send(c.subscribePacket(1, nil, filter{"a", 1}))
	}
	comes := newRaw(t, addr, 5)
	comes.send(connectOpts{version: 5, id: "comes", props: sessionExpiry(60)}.encode())
	eventually(t, "all wait for the disk", func() bool { return st.waiting() == 3 })
	comes.unanswered()
	st.broken.Store(true)
	if ack := comes.expect(packets.Connack); ack.ReasonCode != 0 || ack.Properties.SessionExpiryIntervalFlag {
		t.Errorf("CONNACK 0x%02x, %+v", ack.ReasonCode, ack.Properties)
	}
	for c, code := range map[*raw]byte{five: 0x97, four: 0x80} {
		for range 2 { // the second time it is known
			if ack := c.expect(packets.Suback); !slices.Equal(ack.ReasonCodes, []byte{code}) {
				t.Errorf("SUBACK %x, want %x", ack.ReasonCodes, code)
			}
			c.send(c.subscribePacket(1, nil, filter{"a", 1}))
		}
		c.expect(packets.Suback)
	}
	eventually(t, "nothing is subscribed", func() bool { return l.interest("a").Zero() && b.Stats().Subscriptions.Load() == 0 })

	fresh, ack := connect(t, addr, connectOpts{id: "new", props: sessionExpiry(60)})
	if !ack.Properties.SessionExpiryIntervalFlag || ack.Properties.SessionExpiryInterval != 0 || b.Stats().SessionsNotKept.Load() != 1 {
		t.Errorf("CONNACK of a new session: %+v", ack.Properties)
	}
	if codes := fresh.subscribe(filter{"a", 1}); codes[0] != 1 {
		t.Errorf("SUBACK %x", codes)
	}
	five.kill()
	if _, ack = connect(t, addr, connectOpts{id: "five", resume: true, props: sessionExpiry(60)}); !ack.SessionPresent || ack.Properties.SessionExpiryIntervalFlag {
		t.Errorf("CONNACK of a session that is there: %v, %+v", ack.SessionPresent, ack.Properties)
	}
	connect(t, addr, connectOpts{id: "will", will: &willOpts{topic: "will", payload: "gone", qos: 1}})

	st.broken.Store(false)
	st.setLazy(false)
	st.sync(nil)
	fresh.kill()
	eventually(t, "its session is over", func() bool { return b.Stats().Connections.Load() == 4 })
	if _, ack = connect(t, addr, connectOpts{id: "new", resume: true, props: sessionExpiry(60)}); ack.SessionPresent || ack.Properties.SessionExpiryIntervalFlag {
		t.Errorf("CONNACK with the store well again: %v, %+v", ack.SessionPresent, ack.Properties)
	}
}
