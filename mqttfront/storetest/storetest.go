// Package storetest has the rules that every mqttfront.SessionStore must keep.
package storetest

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// Run tests a kind of store. open returns an empty one, and reopen what a later start of the program finds:
// for a store in memory the same.
func Run(t *testing.T, open func(t *testing.T) mqttfront.SessionStore, reopen func(t *testing.T, s mqttfront.SessionStore) mqttfront.SessionStore) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h *harness)
	}{
		{"empty", testEmpty}, {"record", testRecord}, {"subscriptions", testSubscriptions}, {"queue", testQueue},
		{"removal out of order", testRemoval}, {"a position used again", testUsedAgain}, {"fetch in parts", testFetch}, {"fetch large", testFetchLarge}, {"sent", testSent}, {"inbound", testInbound},
		{"delete", testDelete}, {"create anew", testCreateAnew}, {"one message, many sessions", testManySessions},
		{"retained below $local", testRetained}, {"a will alone", testWillAlone}, {"moved", testMoved}, {"had", testHad},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, &harness{t: t, s: open(t), reopen: reopen})
		})
	}
}

type harness struct {
	t      *testing.T
	s      mqttfront.SessionStore
	reopen func(t *testing.T, s mqttfront.SessionStore) mqttfront.SessionStore
}

type loaded struct {
	rec mqttfront.SessionRecord
	log mqttfront.SessionLog
}

// load syncs, opens the store again and returns what it has, by what is behind keyPrefix in the keys.
func (h *harness) load() map[string]loaded {
	h.t.Helper()
	done := make(chan error, 1)
	h.s.Sync(func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			h.t.Fatalf("Sync: %v", err)
		}
	case <-time.After(10 * time.Second):
		h.t.Fatal("Sync is never done")
	}
	h.s = h.reopen(h.t, h.s)
	all := map[string]loaded{}
	err := h.s.Load(func(key string, rec mqttfront.SessionRecord, log mqttfront.SessionLog) {
		id, ok := strings.CutPrefix(key, keyPrefix)
		if _, twice := all[id]; twice || !ok {
			h.t.Errorf("session %q comes twice, or is none of ours", key)
		}
		all[id] = loaded{rec, log}
	})
	if err != nil {
		h.t.Fatalf("Load: %v", err)
	}
	return all
}

const keyPrefix = "user\x00"

// begin makes a session with a record.
func (h *harness) begin(id string) mqttfront.SessionLog {
	log := h.s.Create(keyPrefix + id)
	log.Save(mqttfront.SessionRecord{Version: 5, Expiry: time.Hour})
	return log
}

func entry(pos uint64) *mqttfront.Entry {
	return &mqttfront.Entry{Pos: pos, QoS: 1, IDs: []uint32{7}, Msg: &proto.Message{
		Topic: "a/b", Payload: fmt.Append(nil, pos), Properties: []byte{1, 1}, QoS: 1}}
}

// queue is the log of a session with the entries that were appended to it.
type queue struct {
	mqttfront.SessionLog
	entries map[uint64]*mqttfront.Entry
}

func queueOf(log mqttfront.SessionLog) *queue { return &queue{log, map[uint64]*mqttfront.Entry{}} }

func (q *queue) append(positions ...uint64) {
	for _, pos := range positions {
		q.entries[pos] = entry(pos)
		q.Append(q.entries[pos])
	}
}

func (q *queue) remove(positions ...uint64) {
	for _, pos := range positions {
		q.Remove(q.entries[pos])
		delete(q.entries, pos)
	}
}

func (q *queue) sent(pos uint64, packetID uint16, state mqttfront.EntryState) {
	e := q.entries[pos]
	e.PacketID, e.State = packetID, state
	q.Sent(e)
}

// positions fetches all entries and returns their positions, having checked their contents.
func positions(t *testing.T, log mqttfront.SessionLog) (ps []uint64) {
	t.Helper()
	for _, e := range log.Fetch(0, 1<<20) {
		want := entry(e.Pos)
		if e.Msg.Topic != want.Msg.Topic || string(e.Msg.Payload) != string(want.Msg.Payload) ||
			string(e.Msg.Properties) != string(want.Msg.Properties) || e.QoS != want.QoS || !slices.Equal(e.IDs, want.IDs) {
			t.Errorf("entry %d came back as %+v, %+v", e.Pos, e, e.Msg)
		}
		ps = append(ps, e.Pos)
	}
	return ps
}

func wantPositions(t *testing.T, log mqttfront.SessionLog, want ...uint64) {
	t.Helper()
	if got := positions(t, log); !slices.Equal(got, want) {
		t.Errorf("entries at %v, want %v", got, want)
	}
}

func testEmpty(t *testing.T, h *harness) {
	if got := h.load(); len(got) != 0 {
		t.Errorf("an empty store has %v", got)
	}
}

func testRecord(t *testing.T, h *harness) {
	log := h.begin("c")
	want := mqttfront.SessionRecord{
		Version: 4, Expiry: 90 * time.Second, Disconnected: time.Unix(1700000000, 0), Born: 1<<63 + 1, Claim: 1<<62 + 1, IDs: 7,
		Departing: &mqttfront.Departing{To: "t", Number: 1 << 61, Reserved: 9},
		Will: &mqttfront.WillRecord{
			Msg:    proto.Message{Topic: "will", Payload: []byte("gone"), Properties: []byte{1, 1}, QoS: 2, Retain: true},
			Expiry: time.Minute, Delay: time.Second, Epoch: 1<<63 + 1,
		},
	}
	log.Save(want)
	got := h.load()["c"].rec
	if !got.Disconnected.Equal(want.Disconnected) {
		t.Errorf("disconnected at %v, want %v", got.Disconnected, want.Disconnected)
	}
	got.Disconnected = want.Disconnected
	if !reflect.DeepEqual(got, want) {
		t.Errorf("record %+v, want %+v", got, want)
	}
}

func testSubscriptions(t *testing.T, h *harness) {
	log := h.begin("c")
	log.Subscribe(mqttfront.SubscriptionRecord{Filter: "a/#", QoS: 1})
	log.Subscribe(mqttfront.SubscriptionRecord{Filter: "b", QoS: 2, NoLocal: true, RetainAsPublished: true, ID: 268435455})
	log.Subscribe(mqttfront.SubscriptionRecord{Filter: "c", QoS: 1, Later: true})
	log.Subscribe(mqttfront.SubscriptionRecord{Filter: "gone"})
	log.Subscribe(mqttfront.SubscriptionRecord{Filter: "a/#", QoS: 2})
	log.Unsubscribe("gone")
	log.Unsubscribe("never")
	log.Save(mqttfront.SessionRecord{Version: 5, Expiry: time.Minute}) // touches no subscription
	got := map[string]mqttfront.SubscriptionRecord{}
	for _, s := range h.load()["c"].rec.Subs {
		got[s.Filter] = s
	}
	want := map[string]mqttfront.SubscriptionRecord{
		"a/#": {Filter: "a/#", QoS: 2},
		"b":   {Filter: "b", QoS: 2, NoLocal: true, RetainAsPublished: true, ID: 268435455},
		"c":   {Filter: "c", QoS: 1, Later: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("subscriptions %v, want %v", got, want)
	}
}

func testQueue(t *testing.T, h *harness) {
	log := queueOf(h.begin("c"))
	wantPositions(t, log)
	for pos := uint64(1); pos <= 1000; pos++ {
		log.append(pos)
		if pos > 10 {
			log.remove(pos - 10)
		}
	}
	want := []uint64{991, 992, 993, 994, 995, 996, 997, 998, 999, 1000}
	wantPositions(t, log, want...)
	again := h.load()["c"].log
	wantPositions(t, again, want...)
	if q, size := again.Queued(), int64(10*entry(991).Msg.Size()+1); q != (mqttfront.Queued{Entries: 10, Bytes: size, Last: 1000}) {
		t.Errorf("queued %+v, want 10 entries of %d bytes up to 1000", q, size)
	}
}

func testRemoval(t *testing.T, h *harness) {
	log := queueOf(h.begin("c"))
	log.append(10, 20, 30, 40, 50, 60)
	log.remove(30)
	wantPositions(t, log, 10, 20, 40, 50, 60)
	log.remove(10, 60)
	wantPositions(t, log, 20, 40, 50)
	log.append(70)
	log.remove(20, 40)
	log = queueOf(h.load()["c"].log)
	wantPositions(t, log, 50, 70)
	for _, e := range log.Fetch(0, 10) { // what was fetched is removed like what was appended
		if e.Pos == 50 {
			log.Remove(&e)
		}
	}
	wantPositions(t, log, 70) // at once
	wantPositions(t, h.load()["c"].log, 70)
}

// testUsedAgain: a later start of the program may use positions of entries again that were removed before it.
func testUsedAgain(t *testing.T, h *harness) {
	log := queueOf(h.begin("c"))
	log.append(10, 20, 30)
	log.remove(20, 30)
	log = queueOf(h.load()["c"].log)
	log.append(20, 30)
	log.sent(20, 7, mqttfront.EntrySent)
	log.remove(30)
	wantPositions(t, log, 10, 20)
	again := h.load()["c"].log
	wantPositions(t, again, 10, 20)
	if e := again.Fetch(10, 1)[0]; e.PacketID != 7 || e.State != mqttfront.EntrySent {
		t.Errorf("an entry that was sent is %+v", e)
	}
}

func testFetch(t *testing.T, h *harness) {
	log := queueOf(h.begin("c"))
	for pos := uint64(1); pos <= 100; pos++ {
		log.append(pos)
	}
	for pos := uint64(2); pos <= 100; pos += 2 {
		log.remove(pos)
	}
	after := h.load()["c"].log
	var got []uint64
	last := uint64(0)
	for {
		es := after.Fetch(last, 7)
		if len(es) > 7 {
			t.Fatalf("%d entries, asked for 7", len(es))
		}
		if len(es) == 0 {
			break
		}
		for _, e := range es {
			got = append(got, e.Pos)
			last = e.Pos
		}
	}
	if len(got) != 50 || !slices.IsSorted(got) || got[0] != 1 || got[49] != 99 {
		t.Errorf("fetched %v", got)
	}
	if es := after.Fetch(99, 1); len(es) > 0 {
		t.Errorf("behind the end: %v", es)
	}
}

// testFetchLarge: of large messages fewer are taken at a time, but always one, whether they have just come or not.
func testFetchLarge(t *testing.T, h *harness) {
	log := h.begin("c")
	large := func(pos uint64, size int) {
		e := entry(pos)
		e.Msg.Payload = make([]byte, size)
		log.Append(e)
	}
	for pos := uint64(1); pos <= 10; pos++ {
		large(pos, mqttfront.FetchSize/3)
	}
	log = h.load()["c"].log
	for pos := uint64(11); pos <= 20; pos++ {
		large(pos, 2*mqttfront.FetchSize)
	}
	next := uint64(1)
	for next <= 20 {
		es := log.Fetch(next-1, 1000)
		size := 0
		for i, e := range es {
			if e.Pos != next {
				t.Fatalf("entry %d comes, want %d", e.Pos, next)
			}
			if size >= mqttfront.FetchSize {
				t.Fatalf("%d bytes come before entry %d of %d", size, i, len(es))
			}
			size += e.Msg.Size()
			next++
		}
		if len(es) == 0 {
			t.Fatalf("nothing comes behind entry %d", next-1)
		}
	}
}

func testSent(t *testing.T, h *harness) {
	log := queueOf(h.begin("c"))
	log.append(1, 2, 3, 4)
	log.sent(1, 65535, mqttfront.EntrySent)
	log.sent(2, 1, mqttfront.EntrySent)
	log.sent(2, 1, mqttfront.EntryReleased)
	want := []mqttfront.Entry{
		{Pos: 1, PacketID: 65535, State: mqttfront.EntrySent}, {Pos: 2, PacketID: 1, State: mqttfront.EntryReleased},
		{Pos: 3}, {Pos: 4},
	}
	es := h.load()["c"].log.Fetch(0, 10)
	if len(es) != len(want) {
		t.Fatalf("%d entries, want %d", len(es), len(want))
	}
	for i, w := range want {
		if e := es[i]; e.Pos != w.Pos || e.PacketID != w.PacketID || e.State != w.State {
			t.Errorf("entry %d: position %d, packet ID %d, state %d; want %+v", i, e.Pos, e.PacketID, e.State, w)
		}
	}
}

func testInbound(t *testing.T, h *harness) {
	log := h.begin("c")
	for _, id := range []uint16{1, 65535, 7, 7} {
		log.Received(id)
	}
	log.Released(7)
	log.Released(8)
	got := h.load()["c"].log.Inbound()
	slices.Sort(got)
	if !slices.Equal(got, []uint16{1, 65535}) {
		t.Errorf("inbound %v", got)
	}
}

func testDelete(t *testing.T, h *harness) {
	gone, stays := h.begin("gone"), h.begin("stays")
	gone.Append(entry(1))
	stays.Append(entry(1))
	gone.Delete()
	all := h.load()
	if len(all) != 1 {
		t.Fatalf("%d sessions, want 1", len(all))
	}
	wantPositions(t, all["stays"].log, 1)
}

func testCreateAnew(t *testing.T, h *harness) {
	old := h.begin("c")
	old.Append(entry(1))
	old.Subscribe(mqttfront.SubscriptionRecord{Filter: "a"})
	old.Received(1)
	now := h.begin("c")
	now.Append(entry(5))
	old.Delete() // the old one is over and must not touch the new one
	got := h.load()["c"]
	if got.log == nil || len(got.rec.Subs) > 0 || len(got.log.Inbound()) > 0 {
		t.Fatalf("the new session has %+v", got)
	}
	wantPositions(t, got.log, 5)
}

func testManySessions(t *testing.T, h *harness) {
	m := entry(1).Msg
	var logs []mqttfront.SessionLog
	var entries []*mqttfront.Entry
	for i := range 20 {
		logs = append(logs, h.begin(fmt.Sprint(i)))
		e := entry(1)
		e.Msg = m
		entries = append(entries, e)
	}
	for i, log := range logs {
		log.Append(entries[i])
	}
	for i, log := range logs[:10] {
		log.Remove(entries[i])
	}
	all := h.load()
	for i := range logs {
		if i < 10 {
			wantPositions(t, all[fmt.Sprint(i)].log)
		} else {
			wantPositions(t, all[fmt.Sprint(i)].log, 1)
		}
	}
	for i := 10; i < 19; i++ { // the last one finds it still
		log := all[fmt.Sprint(i)].log
		for _, e := range log.Fetch(0, 1) {
			log.Remove(&e)
		}
	}
	wantPositions(t, h.load()["19"].log, 1)
}

func testRetained(t *testing.T, h *harness) {
	message := func(topic, payload string) *proto.Message {
		return &proto.Message{Topic: topic, Payload: []byte(payload), Properties: []byte{1, 1}, QoS: 1, Retain: true, Expires: time.UnixMilli(1 << 41)}
	}
	want := map[string]string{}
	for i := range 20 {
		topic, payload := fmt.Sprint("$local/", i%7), fmt.Sprint(i)
		h.s.Retain(message(topic, payload))
		want[topic] = payload
	}
	for _, topic := range []string{"$local/3", "$local/never"} {
		h.s.Unretain(topic)
		delete(want, topic)
	}
	for range 2 {
		h.load()
		have := map[string]string{}
		if err := h.s.Retained(func(m *proto.Message) {
			have[m.Topic] = string(m.Payload)
			if !reflect.DeepEqual(m, message(m.Topic, string(m.Payload))) {
				t.Errorf("%+v", m)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(have, want) {
			t.Errorf("%v, want %v", have, want)
		}
	}
}

// testWillAlone: of a session without an expiry there is nothing but its will, until that is deleted or another session is in
// its place.
func testWillAlone(t *testing.T, h *harness) {
	will := func(payload string) mqttfront.SessionRecord {
		return mqttfront.SessionRecord{Version: 4, Will: &mqttfront.WillRecord{Msg: proto.Message{Topic: "will", Payload: []byte(payload)}}}
	}
	for _, id := range []string{"stays", "goes", "changes", "lasts"} {
		h.s.Create(keyPrefix + id).Save(will(id))
	}
	h.s.Create(keyPrefix + "over").Delete() // it was never saved
	before := h.load()
	before["goes"].log.Delete()
	h.s.Create(keyPrefix + "changes").Save(will("changed"))
	h.begin("lasts")
	before["changes"].log.Delete() // another is in its place
	for range 2 {
		all := h.load()
		if len(all) != 3 || !reflect.DeepEqual(all["stays"].rec, will("stays")) || !reflect.DeepEqual(all["changes"].rec, will("changed")) ||
			all["lasts"].rec.Will != nil || all["lasts"].rec.Expiry != time.Hour {
			t.Errorf("%+v", all)
		}
	}
}

// testMoved: what comes from another node goes before what this node has appended, and a log may get another key.
func testMoved(t *testing.T, h *harness) {
	q := queueOf(h.begin("a"))
	q.append(1, 2, 1000, 1001)
	wantPositions(t, q, 1, 2, 1000, 1001)
	all := h.load()
	q.SessionLog = all["a"].log
	q.append(3, 1002, 4)
	wantPositions(t, q, 1, 2, 3, 4, 1000, 1001, 1002)
	if es := q.Fetch(2, 3); len(es) != 3 || es[0].Pos != 3 || es[1].Pos != 4 || es[2].Pos != 1000 {
		t.Fatalf("3 entries behind 2: %v", es)
	}
	q.remove(1000, 3)
	rec := all["a"].rec
	rec.Arriving = &mqttfront.Arriving{From: "f", Number: 7, Frontier: 4, Own: 1000}
	q.Rename(keyPrefix + "b")
	q.Save(rec)
	other := h.begin("a")
	queueOf(other).append(5)
	all = h.load()
	wantPositions(t, all["b"].log, 1, 2, 4, 1001, 1002)
	wantPositions(t, all["a"].log, 5)
	if got := all["b"].rec.Arriving; got == nil || *got != *rec.Arriving {
		t.Fatalf("Arriving is %+v, want %+v", got, rec.Arriving)
	}
}

// testHad: what a session has had is there after a restart, until it is forgotten or the session is.
func testHad(t *testing.T, h *harness) {
	log := h.begin("a")
	want := []mqttfront.MarkRun{{Epoch: 1, First: 1, Last: 1}, {Epoch: 1 << 63, First: 5, Last: 900}, {Epoch: 1, First: 1, Last: 7, Before: true}}
	for _, r := range want {
		log.Had(r)
	}
	other := h.begin("b")
	other.Had(want[1])
	sorted := func(runs []mqttfront.MarkRun) []mqttfront.MarkRun {
		slices.SortFunc(runs, func(a, b mqttfront.MarkRun) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		return runs
	}
	all := h.load()
	if got := all["a"].log.Marks(); !slices.Equal(sorted(got), sorted(want)) {
		t.Fatalf("it has had %v, want %v", got, want)
	}
	log = all["a"].log
	log.Forget()
	log.Had(want[0])
	all["b"].log.Delete()
	h.begin("b")
	all = h.load()
	if got := all["a"].log.Marks(); !slices.Contains(got, want[0]) {
		t.Fatalf("what it had since it was forgotten is gone: %v", got)
	}
	if got := all["b"].log.Marks(); len(got) > 0 {
		t.Fatalf("a session that is new has had %v", got)
	}
}
