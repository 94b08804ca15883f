package mqttfront_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// narrowStore has no room for more until it is opened, and then every other time.
type narrowStore struct {
	*storetest.Sessions
	mu    sync.Mutex
	open  bool
	asked int
	again []func()
}

// Room implements mqttfront.SessionStore.
func (s *narrowStore) Room(again func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	switch {
	case !s.open:
		s.again = append(s.again, again)
	case s.asked%2 == 0:
		go again()
	default:
		return true
	}
	return false
}

func (s *narrowStore) widen() {
	s.mu.Lock()
	s.open = true
	s.mu.Unlock()
	for _, f := range s.again {
		f()
	}
}

// queued puts entries into a log, of so many bytes each, the first of which were sent.
func queued(log mqttfront.SessionLog, n, size, sent int) {
	for i := 1; i <= n; i++ {
		payload := append(fmt.Appendf(nil, "%d", i), make([]byte, size)...)
		e := &mqttfront.Entry{Msg: &proto.Message{Topic: "a", Payload: payload, QoS: 1}, Pos: uint64(i), QoS: 1} //nolint:gosec // not negative
		log.Append(e)
		if i <= sent {
			e.PacketID, e.State = uint16(i), mqttfront.EntrySent //nolint:gosec // few
			log.Sent(e)
		}
	}
}

// takes has a client take and acknowledge entries of queued.
func takes(t *testing.T, c *raw, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		pk := c.expect(packets.Publish)
		if want := fmt.Sprint(i); string(pk.Payload[:len(want)]) != want || len(pk.Payload) > len(want) && pk.Payload[len(want)] != 0 {
			t.Fatalf("%.10q came, want message %d", pk.Payload, i)
		}
		c.ack(packets.Puback, pk.PacketID)
	}
}

// TestNoRoomForQueue: while the store has no room nothing is taken from a queue. Its client is read from and answered, and gets all
// of it, in order, once there is room, be it only now and then, and though it connects anew meanwhile.
func TestNoRoomForQueue(t *testing.T) {
	const messages = 5000
	st := &narrowStore{Sessions: storetest.NewSessions()}
	queued(kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Subs: subscribed("a")}), messages, 0, 0)
	b, _, addr := startWith(t, newLoner(), st, nil, nil)
	for range 2 { // as if it had come for the first time
		c, ack := connect(t, addr, connectOpts{version: 5, id: "c", resume: true, props: sessionExpiry(60)})
		if !ack.SessionPresent {
			t.Fatal("there is no session")
		}
		c.send(c.publishPacket(2, 7, "elsewhere", "x"))
		if pk := c.expect(packets.Puback); pk.PacketID != 7 {
			t.Fatalf("PUBACK %d", pk.PacketID)
		}
		c.silent()
		c.kill()
		eventually(t, "the client is away", func() bool { return b.Stats().Offline.Load() == 1 })
	}
	if n := b.Stats().Paused.Load(); n != 1 {
		t.Errorf("the queue was paused %d times", n)
	}
	c, _ := connect(t, addr, connectOpts{version: 5, id: "c", resume: true, props: sessionExpiry(60)})
	st.widen()
	takes(t, c, 1, messages)
	eventually(t, "nothing waits", func() bool { return b.Stats().QueuedMessages.Load() == 0 })
	if n := b.Stats().Paused.Load(); n < 3 {
		t.Errorf("the queue was paused %d times in all", n)
	}
}

// TestNoRoomForDeparture: a session that another node fetches waits in the same way, and is not taken for one of which nothing is left.
func TestNoRoomForDeparture(t *testing.T) {
	const messages = 10
	st := &narrowStore{Sessions: storetest.NewSessions()}
	queued(kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Subs: subscribed("a")}), messages, 0, 0)
	b, _, _ := startWith(t, newLoner(), st, nil, nil)
	d := b.Depart(t.Context(), "\x00c", "other", 1, false)
	if d == nil {
		t.Fatal("nothing departs")
	}
	f, err := d.Fetch(0, 100, 1<<20)
	if err != nil || len(f.Entries) > 0 || f.Here != mqttfront.Partly {
		t.Fatalf("%d entries, %v (%v)", len(f.Entries), f.Here, err)
	}
	st.widen()
	<-f.More
	for { // there is room every other time
		if f, err = d.Fetch(0, 100, 1<<20); err != nil {
			t.Fatal(err)
		}
		if len(f.Entries) > 0 {
			break
		}
		<-f.More
	}
	if len(f.Entries) != messages || f.Here != mqttfront.Whole {
		t.Errorf("%d entries, %v", len(f.Entries), f.Here)
	}
}

// TestQueuesStayOnDisk: when a broker is started again it takes into memory what was sent, and of the queues nothing.
func TestQueuesStayOnDisk(t *testing.T) {
	const sessions, messages, sent = 20, 300, 40
	st := storetest.NewSessions()
	for i := range sessions {
		queued(kept(st, fmt.Sprint(i), mqttfront.SessionRecord{Expiry: time.Hour, Subs: subscribed("a")}), messages, 1024, sent)
	}
	b, _, addr := startWith(t, newLoner(), st, nil, nil)
	if n := b.Stats().QueuedMessages.Load(); n != sessions*messages {
		t.Errorf("%d messages are queued, want %d", n, sessions*messages)
	}
	if n := b.Stats().QueuedMemory.Load(); n < sessions*sent*1024 || n > sessions*sent*1400 {
		t.Errorf("%d bytes are in memory, of %d messages that were sent", n, sessions*sent)
	}
	c, _ := connect(t, addr, connectOpts{version: 5, id: "3", resume: true, props: sessionExpiry(60)})
	for i := 1; i <= sent; i++ {
		if pk := c.expect(packets.Publish); !pk.FixedHeader.Dup || int(pk.PacketID) != i {
			t.Fatalf("packet ID %d, dup %v, want %d, sent before", pk.PacketID, pk.FixedHeader.Dup, i)
		}
		c.ack(packets.Puback, uint16(i)) //nolint:gosec // few
	}
	takes(t, c, sent+1, messages)
}

// TestQueuesTakeTurns: clients that come for long queues, and acknowledge nothing, take no more memory than there is for queues, and
// little beyond; each gets something, and all of it when it acknowledges, or there is memory again.
func TestQueuesTakeTurns(t *testing.T) {
	const sessions, messages, size, limit = 20, 300, 10 << 10, 512 << 10
	st := storetest.NewSessions()
	for i := range sessions {
		queued(kept(st, fmt.Sprint(i), mqttfront.SessionRecord{Expiry: time.Hour, Subs: subscribed("a")}), messages, size, 0)
	}
	b, _, addr := startWith(t, newLoner(), st, nil, func(c *mqttfront.Config) { c.MaxTotalQueuedBytes = limit })
	var last *raw
	for i := range sessions {
		last, _ = connect(t, addr, connectOpts{version: 5, id: fmt.Sprint(i), resume: true, props: sessionExpiry(60)})
		last.expectPublishOf(1)
	}
	if n := b.Stats().QueuedMemory.Load(); n > limit+mqttfront.FetchSize+sessions*9*(size+200) {
		t.Errorf("%d bytes are in memory", n)
	}
	if n := b.Stats().Short.Load(); n < sessions/2 {
		t.Errorf("%d queues had to wait", n)
	}
	last.ack(packets.Puback, 1)
	takes(t, last, 2, 200)
	last.expectPublishOf(201) // which it does not acknowledge, as others
	for i := range sessions - 1 {
		connect(t, addr, connectOpts{version: 5, id: fmt.Sprint(i)}) // anew, so that what waited is gone
	}
	for i := 202; i <= 230; i++ { // there is memory now
		last.expectPublishOf(i)
	}
}

// TestQueueOfSessionThatEnds: a client that comes for a long queue with a session that is to end with its connection gets all of it,
// and what comes meanwhile, in order; the queue stays on the disk until its turn, and nothing does afterwards.
func TestQueueOfSessionThatEnds(t *testing.T) {
	const messages, size, limit = 3000, 1 << 10, 64 << 10
	st := storetest.NewSessions()
	queued(kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Subs: subscribed("a")}), messages, size, 0)
	b, _, addr := startWith(t, newLoner(), st, nil, func(c *mqttfront.Config) { c.MaxTotalQueuedBytes = limit })
	c, ack := connect(t, addr, connectOpts{version: 5, id: "c", resume: true})
	if !ack.SessionPresent {
		t.Fatal("there is no session")
	}
	pub, _ := connect(t, addr, connectOpts{version: 5, id: "pub"})
	pub.send(pub.publishPacket(2, 1, "a", fmt.Sprint(messages+1)))
	pub.expect(packets.Puback)
	takes(t, c, 1, 1)
	if n := b.Stats().QueuedMemory.Load(); n > limit+mqttfront.FetchSize {
		t.Errorf("%d bytes are in memory", n)
	}
	takes(t, c, 2, messages+1)
	eventually(t, "nothing waits", func() bool { return b.Stats().QueuedMessages.Load() == 0 })
	if err := st.Load(func(key string, rec mqttfront.SessionRecord, _ mqttfront.SessionLog) {
		t.Errorf("session %q is kept: %+v", key, rec)
	}); err != nil {
		t.Error(err)
	}
	pub.send(pub.publishPacket(2, 1, "a", fmt.Sprint(messages+2)))
	takes(t, c, messages+2, messages+2)
}

// TestLongQueueEnds: of a long queue whose session ends everybody is told, once, that nobody needs what was in it any more.
func TestLongQueueEnds(t *testing.T) {
	const messages = 5000
	st := storetest.NewSessions()
	l := newLoner()
	l.receipts = map[mqttfront.Mark]mqttfront.Receipt{}
	log := kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Subs: subscribed("a")})
	all := make([]*markedReceipt, messages)
	for i := range all {
		m := mqttfront.Mark{Epoch: 1, Seq: uint64(i) + 1} //nolint:gosec // not negative
		all[i] = &markedReceipt{mark: m}
		l.receipts[m] = all[i]
		log.Append(&mqttfront.Entry{Msg: &proto.Message{Topic: "a", QoS: 1}, Pos: m.Seq, QoS: 1, Mark: m})
	}
	b, _, addr := startWith(t, l, st, nil, nil)
	if _, ack := connect(t, addr, connectOpts{version: 5, id: "c"}); ack.SessionPresent {
		t.Fatal("the session is still there")
	}
	eventually(t, "nothing waits", func() bool { return b.Stats().QueuedMessages.Load() == 0 })
	for i, r := range all {
		eventually(t, fmt.Sprintf("message %d is done", i), func() bool { return r.n.Load() == 1 })
	}
}

// expectPublishOf expects an entry of queued.
func (r *raw) expectPublishOf(i int) {
	r.t.Helper()
	if pk, want := r.expect(packets.Publish), fmt.Sprint(i); string(pk.Payload[:len(want)]) != want {
		r.t.Fatalf("%.10q came, want message %d", pk.Payload, i)
	}
}
