// Package storetest has the rules that every mqttfront.SessionStore must keep.
package storetest

import (
	"fmt"
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
		{"removal out of order", testRemoval}, {"fetch in parts", testFetch}, {"sent", testSent}, {"inbound", testInbound},
		{"delete", testDelete}, {"create anew", testCreateAnew}, {"one message, many sessions", testManySessions},
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

func entry(pos uint64) mqttfront.Entry {
	return mqttfront.Entry{Pos: pos, QoS: 1, IDs: []uint32{7}, Msg: &proto.Message{
		Topic: "a/b", Payload: fmt.Append(nil, pos), Properties: []byte{1, 1}, QoS: 1}}
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
		Version: 4, Expiry: 90 * time.Second, Disconnected: time.Unix(1700000000, 0),
		Will: &mqttfront.WillRecord{
			Msg:    proto.Message{Topic: "will", Payload: []byte("gone"), Properties: []byte{1, 1}, QoS: 2, Retain: true},
			Expiry: time.Minute, Delay: time.Second,
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
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("subscriptions %v, want %v", got, want)
	}
}

func testQueue(t *testing.T, h *harness) {
	log := h.begin("c")
	wantPositions(t, log)
	for pos := uint64(1); pos <= 1000; pos++ {
		log.Append(entry(pos))
		if pos > 10 {
			log.Remove(pos - 10)
		}
	}
	want := []uint64{991, 992, 993, 994, 995, 996, 997, 998, 999, 1000}
	wantPositions(t, log, want...)
	wantPositions(t, h.load()["c"].log, want...)
}

func testRemoval(t *testing.T, h *harness) {
	log := h.begin("c")
	for pos := uint64(10); pos <= 60; pos += 10 {
		log.Append(entry(pos))
	}
	log.Remove(30)
	log.Remove(35) // was never there
	log.Remove(30)
	wantPositions(t, log, 10, 20, 40, 50, 60)
	log.Remove(10)
	log.Remove(60)
	wantPositions(t, log, 20, 40, 50)
	log.Append(entry(70))
	log.Remove(20)
	log.Remove(40)
	wantPositions(t, h.load()["c"].log, 50, 70)
}

func testFetch(t *testing.T, h *harness) {
	log := h.begin("c")
	for pos := uint64(1); pos <= 100; pos++ {
		log.Append(entry(pos))
	}
	for pos := uint64(2); pos <= 100; pos += 2 {
		log.Remove(pos)
	}
	log = h.load()["c"].log
	var got []uint64
	after := uint64(0)
	for {
		es := log.Fetch(after, 7)
		if len(es) > 7 {
			t.Fatalf("%d entries, asked for 7", len(es))
		}
		if len(es) == 0 {
			break
		}
		for _, e := range es {
			got = append(got, e.Pos)
			after = e.Pos
		}
	}
	if len(got) != 50 || !slices.IsSorted(got) || got[0] != 1 || got[49] != 99 {
		t.Errorf("fetched %v", got)
	}
	if es := log.Fetch(99, 1); len(es) > 0 {
		t.Errorf("behind the end: %v", es)
	}
}

func testSent(t *testing.T, h *harness) {
	log := h.begin("c")
	for pos := uint64(1); pos <= 4; pos++ {
		log.Append(entry(pos))
	}
	log.Sent(1, 65535, mqttfront.EntrySent)
	log.Sent(2, 1, mqttfront.EntrySent)
	log.Sent(2, 1, mqttfront.EntryReleased)
	log.Sent(9, 9, mqttfront.EntrySent) // was never there
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
	e := entry(1)
	var logs []mqttfront.SessionLog
	for i := range 20 {
		logs = append(logs, h.begin(fmt.Sprint(i)))
	}
	for _, log := range logs {
		log.Append(e)
	}
	for _, log := range logs[:10] {
		log.Remove(1)
	}
	all := h.load()
	for i := range logs {
		if i < 10 {
			wantPositions(t, all[fmt.Sprint(i)].log)
		} else {
			wantPositions(t, all[fmt.Sprint(i)].log, 1)
		}
	}
}
