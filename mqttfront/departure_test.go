package mqttfront_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// gone makes a broker with a session that another node has claimed under the number 10.
func gone(t *testing.T) (b *mqttfront.Broker, addr string, d *mqttfront.Departure) {
	st := storetest.NewSessions()
	log := kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")})
	log.Append(&mqttfront.Entry{Msg: &proto.Message{Topic: "a", Payload: []byte("1"), QoS: 1}, QoS: 1, Pos: 1})
	b, _, addr = startWith(t, newLoner(), st, nil, nil)
	d = b.Depart(t.Context(), "\x00c", "other", 10, false)
	if _, _, here := b.Has("\x00c"); d == nil || here {
		t.Fatal("the session has not gone")
	}
	return b, addr, d
}

// parted has one of the same key here since.
func parted(t *testing.T) (b *mqttfront.Broker, first *mqttfront.Departure) {
	b, addr, first := gone(t)
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
	if _, _, here := b.Has("\x00c"); here {
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

// TestPartsAreNotTheSession: what went before a session was here again is not what somebody gets who claims that.
func TestPartsAreNotTheSession(t *testing.T) {
	b, _ := parted(t)
	b.Depart(t.Context(), "\x00c", "other", 20, false).End()
	if b.Reclaim("\x00c", "third", 30) != nil || b.GoneTo("\x00c") != "" {
		t.Error("a part is taken for the session")
	}
	if n := numbers(b); !slices.Equal(n, []uint64{10}) {
		t.Errorf("parts have the numbers %v", n)
	}
}

// TestOneClaimsWhatGoes: a session that one node is being given is not given to another, and neither is one that it has some of.
func TestOneClaimsWhatGoes(t *testing.T) {
	b, _, first := gone(t)
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

// TestPartHasNotHadWhatPassed: what is late at a node that a session has come back to is for the session, and not for the part of it
// that went: who fetches that is not told that it has had it.
func TestPartHasNotHadWhatPassed(t *testing.T) {
	st := storetest.NewSessions()
	log := kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")})
	log.Had(mqttfront.MarkRun{Epoch: 1, First: 1, Last: 1})
	b, _, _ := startWith(t, newLoner(), st, nil, nil)
	d := b.Depart(t.Context(), "\x00c", "other", 10, false)
	d.Stop()
	late := func(seq uint64) {
		b.Deliver([]mqttfront.Delivery{{Msg: &proto.Message{Topic: "a", QoS: 1}, Plain: true, Receipt: marked{Epoch: 1, Seq: seq}}})
	}
	late(2)
	d.CameBack()
	late(3)
	if f, err := d.Fetch(0, 10, 1000); err != nil || len(f.Entries) != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	h, err := d.Head(t.Context(), "other") // what waits it has not had either
	if want := []mqttfront.MarkRun{{Epoch: 1, First: 1, Last: 1}}; err != nil || !slices.Equal(h.Had, want) {
		t.Errorf("the session has had %v, %v", h.Had, err)
	}
}

// TestComesTheLongWayUntilDrained: where a session has gone to another node and come back, what was sent here before its subscriptions
// ended goes with the part that went until all of that has come, though the session gets it too: at the other node something newer may
// wait, which the session would get first otherwise. What still comes then is the session's alone.
func TestComesTheLongWayUntilDrained(t *testing.T) {
	st := storetest.NewSessions()
	kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")})
	l := newLoner()
	b, _, _ := startWith(t, l, st, nil, nil)
	d := b.Depart(t.Context(), "\x00c", "other", 10, false)
	ends := make(chan struct{})
	l.slow = func(string) chan struct{} { return ends }
	d.CameBack()
	d.Stop()
	drained := d.Stop() // by a stream that took the place of one that broke
	waiting := func(seq uint64) int {
		b.Deliver([]mqttfront.Delivery{{Msg: &proto.Message{Topic: "a", QoS: 1}, Plain: true, Receipt: marked{Epoch: 1, Seq: seq}}})
		f, err := d.Fetch(0, 10, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return len(f.Entries)
	}
	if n := waiting(1); n != 1 {
		t.Errorf("%d messages wait for who fetches the part, of 1 that came before its subscriptions were over", n)
	}
	select {
	case <-drained:
		t.Error("a second stream is told that what was sent here has come")
	default:
	}
	close(ends)
	<-drained
	if n := waiting(2); n != 1 {
		t.Errorf("%d messages wait for who fetches the part, of 1 that came in time, and 1 that was late", n)
	}
}

// marked is a receipt that nobody waits for.
type marked mqttfront.Mark

func (r marked) Mark() mqttfront.Mark    { return mqttfront.Mark(r) }
func (r marked) Done()                   {}
func (r marked) More()                   {}
func (r marked) Refused(mqttfront.Group) {}

// TestDroppedPartIsDone: what waits in a part of a session that is not wanted any more is waited for by nobody, though it came before a
// restart.
func TestDroppedPartIsDone(t *testing.T) {
	st, l := storetest.NewSessions(), newLoner()
	log := kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a"),
		Departing: &mqttfront.Departing{To: "other", Number: 7}})
	var before []*markedReceipt
	l.receipts = map[mqttfront.Mark]mqttfront.Receipt{}
	for i := range uint64(3) {
		r := &markedReceipt{mark: mqttfront.Mark{Epoch: 1, Seq: i + 1}}
		before, l.receipts[r.mark] = append(before, r), r
		log.Append(&mqttfront.Entry{Msg: &proto.Message{Topic: "a", QoS: 2}, QoS: 2, Pos: i + 1, Mark: r.mark})
	}
	b, _, _ := startWith(t, l, st, nil, nil)
	now := &markedReceipt{mark: mqttfront.Mark{Epoch: 1, Seq: 9}}
	b.Deliver([]mqttfront.Delivery{{Msg: &proto.Message{Topic: "a", QoS: 2}, Plain: true, Receipt: now}})
	left := b.Left()
	if len(left) != 1 {
		t.Fatalf("left are %v", left)
	}
	b.Drop(left[0])
	for i, r := range append(before, now) {
		if n := r.n.Load(); n != 1 {
			t.Errorf("message %d is done %d times", i, n)
		}
	}
}

// TestMeantForWhoHasGone: what is meant for a session alone, and comes when that has gone, is fetched with the rest.
func TestMeantForWhoHasGone(t *testing.T) {
	b, _, d := gone(t)
	meant := func(payload string) {
		b.Deliver([]mqttfront.Delivery{{Msg: &proto.Message{Topic: "a", Payload: []byte(payload), QoS: 1}, Sessions: []mqttfront.ForSession{{Key: "\x00c", Alone: "$session-00/c"}},
			Receipt: &markedReceipt{mark: mqttfront.Mark{Epoch: 2, Seq: uint64(len(payload))}}}})
	}
	meant("22")
	d.Stop()
	meant("333")
	f, err := d.Fetch(0, 10, 1000)
	if err != nil || len(f.Entries) != 3 {
		t.Fatalf("there are %d entries, %v", len(f.Entries), err)
	}
	for i, want := range []string{"1", "22", "333"} {
		if e := f.Entries[i]; string(e.Msg.Payload) != want || (e.Alone == "") != (i == 0) {
			t.Errorf("entry %d is %q, for %q alone", i, e.Msg.Payload, e.Alone)
		}
	}
}

// TestTakenStays: what another node has of a session that has gone there stays, and is not done, until the swarm waits for that node with it; over a
// restart too. Nobody else gets it meanwhile.
func TestTakenStays(t *testing.T) {
	st, l := storetest.NewSessions(), newLoner()
	log := kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")})
	var receipts []*markedReceipt
	l.receipts = map[mqttfront.Mark]mqttfront.Receipt{}
	for i := range uint64(3) {
		r := &markedReceipt{mark: mqttfront.Mark{Epoch: 1, Seq: i + 1}}
		receipts, l.receipts[r.mark] = append(receipts, r), r
		log.Append(&mqttfront.Entry{Msg: &proto.Message{Topic: "a", QoS: 1}, QoS: 1, Pos: i + 1, Mark: r.mark})
	}
	var carried []mqttfront.Mark
	var known func()
	l.carried = func(ms []mqttfront.Mark, to string, done func()) {
		if to != "other" {
			t.Errorf("it is with %q", to)
		}
		carried, known = ms, done
	}
	done := func() (n int) {
		for _, r := range receipts {
			n += int(r.n.Load())
		}
		return n
	}
	fetch := func(d *mqttfront.Departure, here mqttfront.Wholeness, want int) {
		t.Helper()
		if f, err := d.Fetch(0, 10, 1000); err != nil || len(f.Entries) != want || f.Here != here {
			t.Errorf("what is left are %d entries, here %v, %v, want %d, %v", len(f.Entries), f.Here, err, want, here)
		}
	}
	b, _, _ := startWith(t, l, st, nil, nil)
	d := b.Depart(t.Context(), "\x00c", "other", 10, false)
	fetch(d, mqttfront.Whole, 3)
	d.Taken(2)
	fetch(d, mqttfront.Drained, 1)
	if len(carried) != 2 || done() != 0 {
		t.Fatalf("%v are at the other node, %d done", carried, done())
	}
	again := newLoner()
	again.receipts, again.carried = l.receipts, l.carried
	carried = nil
	b, _, _ = startWith(t, again, st.Left(), nil, nil) // before that is known
	d = b.Departing("\x00c", "other", 10)
	d.Taken(2)
	if len(carried) != 2 || done() != 0 {
		t.Fatalf("after a crash %v are at the other node, %d done", carried, done())
	}
	known()
	if done() != 2 {
		t.Errorf("%d are done", done())
	}
	fetch(d, mqttfront.Whole, 1)
	d.Taken(3)
	d.End() // the client has not come
	known()
	if done() != 3 {
		t.Errorf("at the end %d are done", done())
	}
}

// TestPartHasNotHadWhatWasTaken: what of a session waits at another node it has not had: who goes on with what is left here, after a
// crash, takes it when that is back.
func TestPartHasNotHadWhatWasTaken(t *testing.T) {
	st := storetest.NewSessions()
	log := kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")})
	log.Had(mqttfront.MarkRun{Epoch: 1, First: 1, Last: 1})
	for i := range uint64(3) {
		log.Append(&mqttfront.Entry{Msg: &proto.Message{Topic: "a", QoS: 2}, QoS: 2, Pos: i + 1, Mark: mqttfront.Mark{Epoch: 1, Seq: i + 2}})
	}
	b, _, _ := startWith(t, newLoner(), st, nil, nil)
	d := b.Depart(t.Context(), "\x00c", "other", 10, false)
	want := []mqttfront.MarkRun{{Epoch: 1, First: 1, Last: 1}}
	for range 2 {
		if h, err := d.Head(t.Context(), "other"); err != nil || !slices.Equal(h.Had, want) {
			t.Errorf("the session has had %v, %v", h.Had, err)
		}
		if _, err := d.Fetch(0, 10, 1000); err != nil {
			t.Fatal(err)
		}
		d.Taken(2)
	}
	b, _, _ = startWith(t, newLoner(), st.Left(), nil, nil)
	if d = b.Departing("\x00c", "other", 10); d == nil {
		t.Fatal("nothing is left after a crash")
	}
	if h, err := d.Head(t.Context(), "other"); err != nil || !slices.Equal(h.Had, want) {
		t.Errorf("after a crash the session has had %v, %v", h.Had, err)
	}
}

// TestPositionsAreUsedOnce: who fetches a session knows by positions what it has had. What is queued after crashes has positions of its
// own, however often it was saved, and however little was queued, in between.
func TestPositionsAreUsedOnce(t *testing.T) {
	st := storetest.NewSessions()
	kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")})
	b, _, _ := startWith(t, newLoner(), st, nil, nil)
	d := b.Depart(t.Context(), "\x00c", "other", 10, false)
	after, to := uint64(0), "other"
	for seq := range uint64(3) {
		b.Deliver([]mqttfront.Delivery{{Msg: &proto.Message{Topic: "a", QoS: 1}, Plain: true, Receipt: marked{Epoch: 1, Seq: seq + 1}}})
		f, err := d.Fetch(after, 10, 1000)
		if err != nil || len(f.Entries) != 1 {
			t.Fatalf("after %d crashes somebody who has had what is up to %d gets %+v, %v", 2*seq, after, f, err)
		}
		after = f.Entries[0].Pos
		d.Taken(after)
		for range 2 {
			st = st.Left()
			b, _, _ = startWith(t, newLoner(), st, nil, nil)
			next := to + "'"
			b.Offer(mqttfront.Left{Key: "\x00c", To: to, Number: 10}, next)
			to = next
		}
		if d = b.Departing("\x00c", to, 10); d == nil {
			t.Fatal("nothing is left after a crash")
		}
	}
}

// TestHeadWaitsForAnswers: who takes a session over tells its client that what it published at QoS 2 is kept. So it is told of that only
// once it is, and not of what is refused.
func TestHeadWaitsForAnswers(t *testing.T) {
	for _, refusal := range []error{nil, mqttfront.NotStored} {
		t.Run(fmt.Sprint(refusal), func(t *testing.T) {
			l := newLoner()
			l.hold, l.refuse = make(chan struct{}), refusal
			came := make(chan string, 10)
			l.seen = func(o mqttfront.Outgoing) { came <- string(o.Msg.Payload) }
			b, _, addr := startWith(t, l, storetest.NewSessions(), nil, nil)
			c, _ := connect(t, addr, connectOpts{id: "c", props: sessionExpiry(60)})
			c.send(c.publishPacket(4, 7, "a", "1"))
			<-came
			d := b.Depart(t.Context(), "\x00c", "other", 10, false)
			heads := make(chan mqttfront.DepartureHead, 1)
			go func() {
				h, err := d.Head(t.Context(), "other")
				if err != nil {
					t.Error(err)
				}
				heads <- h
			}()
			c.expectDisconnect(0x8e)
			time.Sleep(10 * time.Millisecond) // a fault shows more often
			select {
			case h := <-heads:
				t.Fatalf("%v is given as kept before it is", h.Inbound)
			default:
			}
			close(l.hold)
			want := []uint16{7}
			if refusal != nil {
				want = nil
			}
			if h := <-heads; !slices.Equal(h.Inbound, want) {
				t.Errorf("kept: %v, want %v", h.Inbound, want)
			}
		})
	}
}
