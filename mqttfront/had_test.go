package mqttfront_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// arrival is what a test says that there is elsewhere of a session.
type arrival struct {
	head       mqttfront.ArrivalHead
	came       chan mqttfront.Arrived
	registered func() // may be nil
}

func (a arrival) Head() mqttfront.ArrivalHead { return a.head }
func (a arrival) Taken(uint64)                {}
func (a arrival) Known([]mqttfront.MarkRun)   {}

func (a arrival) Registered() {
	if a.registered != nil {
		a.registered()
	}
}

func (a arrival) Close() {}

func (a arrival) Next(ctx context.Context, _ uint64) (mqttfront.Arrived, error) {
	select {
	case got := <-a.came:
		return got, nil
	case <-ctx.Done():
		return mqttfront.Arrived{}, io.EOF
	}
}

// resuming is a Roaming by which sessions go on arriving after a start.
type resuming struct {
	mqttfront.Roaming
	a arrival
}

func (r resuming) Active() bool                                        { return false }
func (r resuming) Resume(string, mqttfront.Arriving) mqttfront.Arrival { return r.a }

// arrivingFrom makes a broker with a session that comes from another node, by a.
func arrivingFrom(t *testing.T, from mqttfront.Arriving) (b *mqttfront.Broker, a arrival) {
	st := storetest.NewSessions()
	kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a"), Arriving: &from})
	b, _, _ = startWith(t, newLoner(), st, nil, nil)
	a = arrival{came: make(chan mqttfront.Arrived)}
	b.Roam(resuming{a: a})
	return b, a
}

// TestHadIsPassedOn: what a session has had at a node that could not be reached becomes known when that is back. A node that the session
// has gone on to meanwhile is told, but for what waits for it here.
func TestHadIsPassedOn(t *testing.T) {
	b, a := arrivingFrom(t, mqttfront.Arriving{From: "before", Number: 1, Drained: true})
	b.Deliver([]mqttfront.Delivery{{Msg: &proto.Message{Topic: "a", QoS: 2}, Plain: true, Receipt: marked{Epoch: 1, Seq: 2}}})
	d := b.Depart(t.Context(), "\x00c", "after", 10, false)
	h, err := d.Head(t.Context(), "after")
	if err != nil || len(h.Had) > 0 {
		t.Fatalf("the session has had %v, %v", h.Had, err)
	}
	heard := func() int {
		f, err := d.Fetch(0, 10, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return f.Heard
	}
	if heard() != h.Heard {
		t.Error("more is known than was told first")
	}
	had := []mqttfront.MarkRun{{Epoch: 1, First: 1, Last: 3}}
	a.came <- mqttfront.Arrived{Had: had}
	a.came <- mqttfront.Arrived{Had: had} // by a stream that took the place of one that broke: the first is through
	a.came <- mqttfront.Arrived{}
	if n := heard(); n != h.Heard+1 {
		t.Errorf("more has become known %d times", n-h.Heard)
	}
	if got, want := d.Had(), []mqttfront.MarkRun{{Epoch: 1, First: 1, Last: 1}, {Epoch: 1, First: 3, Last: 3}}; !slices.Equal(got, want) {
		t.Errorf("the session has had %v", got)
	}
}

// TestHadInAPart: what a session has had in a part of it that is joined does not come again, by that part nor by another.
func TestHadInAPart(t *testing.T) {
	st := storetest.NewSessions()
	kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")})
	b, _, addr := startWith(t, newLoner(), st, nil, nil)
	c, _ := connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(3600)})
	entry := func(seq uint64, payload string) mqttfront.Entry {
		return mqttfront.Entry{Msg: &proto.Message{Topic: "a", Payload: []byte(payload), QoS: 1}, QoS: 1, Pos: seq, Mark: mqttfront.Mark{Epoch: 1, Seq: seq}}
	}
	for _, came := range [][]mqttfront.Arrived{
		{{Had: []mqttfront.MarkRun{{Epoch: 1, First: 1, Last: 1}}}, {Entries: []mqttfront.Entry{entry(2, "2")}}, {End: true}},
		{{Entries: []mqttfront.Entry{entry(1, "1"), entry(3, "3")}}, {End: true}},
	} {
		a := arrival{head: mqttfront.ArrivalHead{Record: mqttfront.SessionRecord{Born: 1}}, came: make(chan mqttfront.Arrived)}
		if !b.Join("\x00c", a) {
			t.Fatal("a part is not joined")
		}
		for _, got := range came {
			a.came <- got
		}
	}
	for _, want := range []string{"2", "3"} {
		c.expectPublish(want)
	}
	c.silent()
}

// claiming is a Roaming by which sessions come from another node.
type claiming struct {
	mqttfront.Roaming
	a arrival
}

func (c claiming) Alone() (number uint64, expects bool)                     { return 0, true }
func (c claiming) Active() bool                                             { return true }
func (c claiming) Holds(string) bool                                        { return false }
func (c claiming) Claim(context.Context, string) (mqttfront.Arrival, error) { return c.a, nil }
func (c claiming) Begin(string)                                             {}
func (c claiming) End(string)                                               {}
func (c claiming) Release(string)                                           {}
func (c claiming) Keep(_ string, _ mqttfront.SessionRecord, done func())    { call(done) }
func (c claiming) Resume(string, mqttfront.Arriving) mqttfront.Arrival      { return c.a }

func call(f func()) {
	if f != nil {
		f()
	}
}

// TestHadHereBefore: a session that went on elsewhere without what it has had here, since this node was lost to the other, does not get that
// again when it comes back.
func TestHadHereBefore(t *testing.T) {
	st := storetest.NewSessions()
	log := kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")})
	log.Had(mqttfront.MarkRun{Epoch: 1, First: 1, Last: 2})
	b, _, addr := startWith(t, newLoner(), st, nil, nil)
	b.Depart(t.Context(), "\x00c", "other", 10, false)
	record := mqttfront.SessionRecord{Version: 5, Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")}
	a := arrival{head: mqttfront.ArrivalHead{Record: record, From: mqttfront.Arriving{From: "other", Number: 20}}, came: make(chan mqttfront.Arrived, 3)}
	for seq := range uint64(3) {
		e := mqttfront.Entry{Msg: &proto.Message{Topic: "a", Payload: fmt.Append(nil, seq+1), QoS: 2}, QoS: 2, Pos: seq + 1, Mark: mqttfront.Mark{Epoch: 1, Seq: seq + 1}}
		a.came <- mqttfront.Arrived{Entries: []mqttfront.Entry{e}}
	}
	b.Roam(claiming{a: a})
	c, _ := connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(3600)})
	c.expectPublish("3")
	c.silent()
}

// TestRegisteredForAll: the node that a session comes from goes on taking what is for it, until the whole swarm knows where it is now.
func TestRegisteredForAll(t *testing.T) {
	st := storetest.NewSessions()
	kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a", "b"),
		Arriving: &mqttfront.Arriving{From: "before", Number: 1}})
	l := newLoner()
	b, _, _ := startWith(t, l, st, nil, nil)
	var asked, promised, registered atomic.Int64
	l.slow = func(filter string) chan struct{} {
		l.mu.Lock()
		defer l.mu.Unlock()
		if asked.Add(1); filter == "a" && promised.Load() == 0 {
			l.promise = mqttfront.PromiseLocal
		} else {
			l.promise = mqttfront.PromiseSwarm
		}
		return nil
	}
	a := arrival{came: make(chan mqttfront.Arrived), registered: func() { registered.Add(1 + promised.Load()) }}
	b.Roam(resuming{a: a})
	eventually(t, "it is asked again", func() bool { return asked.Load() > 2 })
	promised.Store(1)
	eventually(t, "the other is told", func() bool { return registered.Load() == 2 })
}

// TestAsksUntilPromised: what a node was sent that is lost is asked for until the swarm has promised that, over a restart too, though the
// session has all else that it will get. Parts of it may be joined meanwhile.
func TestAsksUntilPromised(t *testing.T) {
	lost := mqttfront.Lost{From: "lost", Database: 7}
	record := mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a", "b")}
	ended := arrival{head: mqttfront.ArrivalHead{Record: record, From: mqttfront.Arriving{From: lost.From, Database: lost.Database, Number: 20, Drained: true}},
		came: make(chan mqttfront.Arrived, 1)}
	ended.came <- mqttfront.Arrived{End: true}
	asks := func(l *loner) bool {
		return slices.Equal(l.interest("a").Sessions, []mqttfront.SessionInterest{{Key: "\x00c", Lost: lost}})
	}
	st := storetest.NewSessions()
	start := func() (b *mqttfront.Broker, l *loner, addr string, promised chan struct{}) {
		l, promised = newLoner(), make(chan struct{})
		l.slow = func(filter string) chan struct{} {
			if filter == "a" {
				return promised
			}
			return nil
		}
		b, _, addr = startWith(t, l, st, nil, nil)
		b.Roam(claiming{a: ended})
		return b, l, addr, promised
	}
	waits := func(b *mqttfront.Broker, l *loner) {
		part := arrival{head: mqttfront.ArrivalHead{Record: mqttfront.SessionRecord{Born: 1}}, came: make(chan mqttfront.Arrived, 1)}
		part.came <- mqttfront.Arrived{End: true}
		eventually(t, "a part is joined", func() bool { return b.Join("\x00c", part) })
		if !asks(l) {
			t.Errorf("%+v is registered", l.interest("a"))
		}
	}
	b, l, addr, promised := start()
	never := promised
	t.Cleanup(func() { close(never) })
	if _, ack := connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(3600)}); !ack.SessionPresent {
		t.Error("no session is present")
	}
	waits(b, l)
	ended.came <- mqttfront.Arrived{End: true}
	st = st.Left()
	b, l, _, promised = start()
	waits(b, l)
	close(promised)
	eventually(t, "it is not asked for any more", func() bool { return !asks(l) })
}

// TestJoinsWhenAllIsKnown: a part of a session that comes from another node is joined with it once all is known of what it has had there, whatever
// late still comes from there; not before, and not what comes anyway.
func TestJoinsWhenAllIsKnown(t *testing.T) {
	b, a := arrivingFrom(t, mqttfront.Arriving{From: "before", Number: 1})
	joined := func(from string, number uint64) bool {
		part := arrival{head: mqttfront.ArrivalHead{Record: mqttfront.SessionRecord{Born: 1}, From: mqttfront.Arriving{From: from, Number: number}},
			came: make(chan mqttfront.Arrived, 1)}
		part.came <- mqttfront.Arrived{End: true}
		return b.Join("\x00c", part)
	}
	late := mqttfront.Arrived{Entries: []mqttfront.Entry{{Msg: &proto.Message{Topic: "a", QoS: 1}, QoS: 1, Pos: 1, Mark: mqttfront.Mark{Epoch: 1, Seq: 1}}}}
	for _, step := range []struct {
		came mqttfront.Arrived
		want bool
	}{{mqttfront.Arrived{Drained: true}, false}, {late, false}, {mqttfront.Arrived{Known: true}, true}, {late, true}} {
		a.came <- step.came
		a.came <- mqttfront.Arrived{} // the first is through
		if joined("before", 1) {
			t.Error("what comes anyway is joined too")
		}
		if joined("before", 2) != step.want || joined("other", 1) != step.want {
			t.Errorf("after %+v: a part is joined: %v", step.came, !step.want)
		}
	}
}

// TestKnownOfWhatGoes: a node that has a session which goes on elsewhere says that all is known of what that has had, unless some of it is on its way there
// itself.
func TestKnownOfWhatGoes(t *testing.T) {
	b, a := arrivingFrom(t, mqttfront.Arriving{From: "before", Number: 1})
	d := b.Depart(t.Context(), "\x00c", "after", 10, false)
	known := func() bool {
		f, err := d.Fetch(0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f.Known
	}
	for _, step := range []struct {
		came mqttfront.Arrived
		want bool
	}{{mqttfront.Arrived{Drained: true}, false}, {mqttfront.Arrived{Known: true}, true}} {
		a.came <- step.came
		a.came <- mqttfront.Arrived{}
		if known() != step.want {
			t.Errorf("after %+v: known %v", step.came, !step.want)
		}
	}
	a.came <- mqttfront.Arrived{End: true}
	eventually(t, "all is known where nothing comes any more", known)
}
