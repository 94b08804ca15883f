package mqttfront_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// parted makes a broker with a session that another node has claimed under the number 10, and one of the same key since.
func parted(t *testing.T) (b *mqttfront.Broker, first *mqttfront.Departure) {
	st := storetest.NewSessions()
	log := kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")})
	log.Append(&mqttfront.Entry{Msg: &proto.Message{Topic: "a", Payload: []byte("1"), QoS: 1}, QoS: 1, Pos: 1})
	b, _, addr := startWith(t, newLoner(), st, nil, nil)
	first = b.Depart(t.Context(), "\x00c", "other", 10, false)
	if _, here := b.Has("\x00c"); first == nil || here {
		t.Fatal("the session has not gone")
	}
	c, _ := connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(60)})
	c.kill()
	eventually(t, "the client is gone", func() bool { return b.Stats().Offline.Load() == 1 })
	return b, first
}

func numbers(b *mqttfront.Broker) (all []uint64) {
	for _, l := range b.Left() {
		all = append(all, l.Number)
	}
	slices.Sort(all)
	return all
}

// TestPartsHaveNumbers: a session that goes while another part of it is fetched under the same number goes too, and nobody who asks for
// the one under that number gets the other: how far it has come says nothing of that.
func TestPartsHaveNumbers(t *testing.T) {
	b, first := parted(t)
	if d := b.Depart(t.Context(), "\x00c", "other", 10, false); d != first {
		t.Error("who fetches a part gets another under its number")
	}
	if _, here := b.Has("\x00c"); here {
		t.Error("a session stays that another node has claimed")
	}
	if n := numbers(b); !slices.Equal(n, []uint64{10, 11}) {
		t.Errorf("parts have the numbers %v", n)
	}
	if b.Reclaim("\x00c", "third", 10) != nil || b.Reclaim("\x00c", "third", 11) != nil {
		t.Error("two parts have one number")
	}
	if d := b.Reclaim("\x00c", "third", 12); d == nil || d == first {
		t.Error("who claims what has gone gets not what went last")
	}
	if n := numbers(b); !slices.Equal(n, []uint64{10, 12}) {
		t.Errorf("parts have the numbers %v", n)
	}
}

// TestOneClaimsWhatGoes: a session that one node is being given is not given to another, and neither is one that it has some of.
func TestOneClaimsWhatGoes(t *testing.T) {
	b, first := parted(t)
	first.Fetching(1)
	if d := b.Reclaim("\x00c", "third", 11); d != first { // nothing of it is on its way
		t.Fatal("what nobody has been given can't be claimed")
	}
	if _, err := first.Head(t.Context(), "other"); err == nil {
		t.Error("a session is given to a node that it does not wait for any more")
	}
	if _, err := first.Head(t.Context(), "third"); err != nil {
		t.Fatal(err)
	}
	if b.Reclaim("\x00c", "other", 12) != nil {
		t.Error("a session is given to two nodes")
	}
	first.Fetching(-1)
	if b.Reclaim("\x00c", "other", 12) != first {
		t.Error("a session that nobody fetches can't be claimed")
	}
	if f, err := first.Fetch(0, 10, 1000); err != nil || len(f.Entries) != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	first.Taken(1)
	if b.Reclaim("\x00c", "third", 13) != nil {
		t.Error("a session that another node has some of is given to a second one")
	}
}
