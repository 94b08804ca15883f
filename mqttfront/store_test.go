package mqttfront_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/store"
)

// lazyStore syncs when it is told to.
type lazyStore struct {
	*store.Sessions
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
	st := &lazyStore{Sessions: store.NewSessions()}
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
