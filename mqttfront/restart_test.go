package mqttfront_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// kept puts a session of an anonymous client into a store, as a broker that died has left it.
func kept(st mqttfront.SessionStore, id string, rec mqttfront.SessionRecord) mqttfront.SessionLog {
	log := st.Create("\x00" + id)
	rec.Version = 5
	log.Save(rec)
	for _, sub := range rec.Subs {
		log.Subscribe(sub)
	}
	return log
}

func subscribed(filters ...string) (subs []mqttfront.SubscriptionRecord) {
	for _, f := range filters {
		subs = append(subs, mqttfront.SubscriptionRecord{Filter: f, QoS: 2})
	}
	return subs
}

// TestExpiryAfterRestart: a session's time goes on from when its client left, whatever the broker did meanwhile, and its
// subscriptions end with it [MQTT-4.1.0-2] [MQTT-3.1.2-23].
func TestExpiryAfterRestart(t *testing.T) {
	st := storetest.NewSessions()
	now := time.Now()
	kept(st, "over", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: now.Add(-2 * time.Hour), Subs: subscribed("over/+", "$share/g/over")})
	kept(st, "soon", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: now.Add(2*time.Second - time.Hour), Subs: subscribed("soon")})
	kept(st, "later", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: now.Add(-time.Minute), Subs: subscribed("later")})
	kept(st, "there", mqttfront.SessionRecord{Expiry: time.Hour, Subs: subscribed("there")}) // connected when the broker died
	b, l, addr := startWith(t, newLoner(), st, nil, nil)
	eventually(t, "only two sessions are left", func() bool { return b.Stats().Sessions.Load() == 2 })
	if passed := time.Since(now); passed < 2*time.Second {
		t.Errorf("a session ended after %v", passed)
	}
	eventually(t, "nothing is subscribed for the others", func() bool {
		return b.Stats().Subscriptions.Load() == 2 && l.interest("over/+").Zero() && l.interest("over").Zero() && l.interest("soon").Zero()
	})
	for id, present := range map[string]bool{"over": false, "soon": false, "later": true, "there": true} {
		if _, ack := connect(t, addr, connectOpts{id: id, resume: true, props: sessionExpiry(60)}); ack.SessionPresent != present {
			t.Errorf("%s: session present %v", id, ack.SessionPresent)
		}
	}
}

// TestMessagesAfterRestart: what has expired while the broker was away is not delivered, but for a QoS 2 message whose
// delivery had begun; the rest is, with what is left of its time [MQTT-3.3.2-5] [MQTT-3.3.2-6] [MQTT-4.3.3-7]
// [MQTT-4.4.0-1].
func TestMessagesAfterRestart(t *testing.T) {
	st := storetest.NewSessions()
	now := time.Now()
	log := kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: now.Add(-time.Minute)})
	for i, m := range []struct {
		payload string
		expires time.Time
		qos     byte
		state   mqttfront.EntryState
	}{
		{"released", time.Time{}, 2, mqttfront.EntryReleased},
		{"sent", now.Add(-time.Second), 2, mqttfront.EntrySent},
		{"sent, for ever", time.Time{}, 1, mqttfront.EntrySent},
		{"over", now.Add(-time.Second), 1, mqttfront.EntryWaiting},
		{"over too", now.Add(-time.Second), 2, mqttfront.EntryWaiting},
		{"long", now.Add(1000 * time.Second), 1, mqttfront.EntryWaiting},
		{"for ever", time.Time{}, 2, mqttfront.EntryWaiting},
	} {
		pos := uint64(i + 1)
		e := &mqttfront.Entry{Msg: &proto.Message{Topic: "a", Payload: []byte(m.payload), QoS: m.qos, Expires: m.expires}, Pos: pos, QoS: m.qos}
		log.Append(e)
		if m.state != mqttfront.EntryWaiting {
			e.PacketID, e.State = uint16(10+i), m.state
			log.Sent(e)
		}
	}
	b, _, addr := startWith(t, newLoner(), st, nil, nil)
	c, ack := connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(60)})
	if !ack.SessionPresent {
		t.Fatal("no session")
	}
	if rel := c.expect(6); rel.PacketID != 10 {
		t.Errorf("PUBREL %d", rel.PacketID)
	}
	for i, want := range []string{"sent", "sent, for ever", "long", "for ever"} {
		pk := c.expectPublish(want)
		if pk.FixedHeader.Dup != (i < 2) || i < 2 && pk.PacketID != uint16(11+i) {
			t.Errorf("%s: dup %v, packet ID %d", want, pk.FixedHeader.Dup, pk.PacketID)
		}
		if left := pk.Properties.MessageExpiryInterval; want == "long" && (left > 1000 || left < 900) || want == "for ever" && left != 0 {
			t.Errorf("%s: %d s are left", want, left)
		}
	}
	c.silent()
	if n := b.Stats().DropExpired.Load(); n != 2 {
		t.Errorf("%d expired", n)
	}
}

// TestWillsAfterRestart: a will whose delay has passed while the broker was away is published, as is that of a client that
// was connected when it died; one whose delay goes on is not, and its client can still come back in time [MQTT-3.1.2-8]
// [MQTT-3.1.3-9].
func TestWillsAfterRestart(t *testing.T) {
	st := storetest.NewSessions()
	now := time.Now()
	will := func(id string, disconnected time.Time, expiry, delay time.Duration) {
		kept(st, id, mqttfront.SessionRecord{Expiry: expiry, Disconnected: disconnected,
			Will: &mqttfront.WillRecord{Msg: proto.Message{Topic: "will/" + id, Payload: []byte("gone"), QoS: 1}, Delay: delay}})
	}
	will("delay over", now.Add(-time.Minute), time.Hour, 30*time.Second)
	will("delay soon over", now.Add(-time.Minute), time.Hour, 62*time.Second)
	will("session over", now.Add(-time.Minute), 30*time.Second, time.Hour)
	will("was there", time.Time{}, time.Hour, 0)
	will("not yet", now.Add(-time.Minute), time.Hour, 30*time.Minute)
	l := newLoner()
	wills := make(chan string, 10)
	l.watch = func(topic string) { wills <- topic }
	b, _, addr := startWith(t, l, st, nil, nil)
	var got []string
	for range 4 {
		select {
		case topic := <-wills:
			got = append(got, topic)
		case <-time.After(patience):
			t.Fatalf("only %q were published", got)
		}
	}
	slices.Sort(got)
	if want := []string{"will/delay over", "will/delay soon over", "will/session over", "will/was there"}; !slices.Equal(got, want) {
		t.Errorf("%q were published, want %q", got, want)
	}
	c, ack := connect(t, addr, connectOpts{id: "not yet", resume: true, props: sessionExpiry(60)})
	if !ack.SessionPresent {
		t.Error("no session")
	}
	c.bye()
	if n := b.Stats().WillsSent.Load(); n != 4 || len(wills) > 0 {
		t.Errorf("%d wills were sent", n)
	}
}

// TestWillsAfterCrash: the store has the will of every client that is connected, before the client hears that it is, and of no
// other. After a crash each is sent, once, unless its session goes on and the client is back before its delay is over.
func TestWillsAfterCrash(t *testing.T) {
	st := storetest.NewSessions()
	_, _, addr := startWith(t, newLoner(), st, nil, nil)
	will := func(id string, qos byte, props []byte) *willOpts {
		return &willOpts{topic: "will/" + id, payload: "gone", qos: qos, props: props}
	}
	lasting := func(id string, props []byte) connectOpts {
		return connectOpts{id: id, resume: true, props: sessionExpiry(60), will: will(id, 1, props)}
	}
	connect(t, addr, connectOpts{id: "clean 3", version: 4, will: will("clean 3", 0, nil)})
	connect(t, addr, connectOpts{id: "clean", will: will("clean", 2, nil)})
	connect(t, addr, connectOpts{id: "clean, delay", will: will("clean, delay", 1, delay(60))}) // the session is over as well
	connect(t, addr, lasting("lasting", nil))
	connect(t, addr, lasting("delay", delay(1)))
	connect(t, addr, lasting("long delay", delay(60)))
	for _, id := range []string{"bye", "bye, lasting"} {
		o := lasting(id, nil)
		if id == "bye" {
			o.props = nil
		}
		c, _ := connect(t, addr, o)
		c.bye()
		c.expectEnd()
	}
	connect(t, addr, connectOpts{id: "changed", will: will("changed/old", 1, nil)})
	connect(t, addr, connectOpts{id: "changed", will: will("changed", 1, nil)})
	connect(t, addr, connectOpts{id: "none any more", will: will("none any more", 1, nil)})
	connect(t, addr, connectOpts{id: "none any more"})
	connect(t, addr, connectOpts{id: "lasts now", resume: true, will: will("lasts now/old", 1, nil)})
	connect(t, addr, lasting("lasts now", nil))
	connect(t, addr, lasting("lasts no more", nil))
	connect(t, addr, connectOpts{id: "lasts no more", resume: true, will: will("lasts no more", 1, nil)})
	want := []string{"will/changed", "will/clean", "will/clean 3", "will/clean, delay", "will/delay", "will/lasting", "will/lasts no more", "will/lasts now"}

	// As the first broker is left to itself, its store is as a crash leaves it.
	l, wills := newLoner(), make(chan string, 20)
	l.watch = func(topic string) { wills <- topic }
	left := st.Left()
	b, _, addr := startWith(t, l, left, nil, nil)
	c, ack := connect(t, addr, lasting("long delay", delay(60)))
	if !ack.SessionPresent {
		t.Error("the session is gone")
	}
	c.send([]byte{0xe0, 0})
	c.expectEnd()
	var got []string
	for range want {
		select {
		case topic := <-wills:
			got = append(got, topic)
		case <-time.After(patience):
			t.Fatalf("only %q were published", got)
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("%q were published, want %q", got, want)
	}
	if found := b.Found(); found.Wills != len(want)+1 || found.Sessions != 5 {
		t.Errorf("found %+v", found)
	}
	eventually(t, "the store knows that they are sent", func() bool {
		n := 0
		_ = left.Left().Load(func(_ string, rec mqttfront.SessionRecord, _ mqttfront.SessionLog) {
			if rec.Will != nil {
				n++
			}
		})
		return n == 0 && b.Stats().Sessions.Load() == 5
	})
	after, _, _ := startWith(t, newLoner(), left.Left(), nil, nil)
	if found := after.Found(); found.Wills > 0 || found.Sessions != 5 || len(wills) > 0 {
		t.Errorf("found %+v after another crash, and %d wills came twice", found, len(wills))
	}
}

// TestWillsAreSafe: CONNACK waits until the will is safe, and a will that is sent until that is safe; where there is none and
// nothing else is kept, nothing waits.
func TestWillsAreSafe(t *testing.T) {
	st := &lazyStore{Sessions: storetest.NewSessions()}
	_, _, addr := startWith(t, newLoner(), st, nil, nil)
	w := watcher(t, addr)
	st.setLazy(true)
	connect(t, addr, connectOpts{id: "none"})
	c := newRaw(t, addr, 5)
	c.send(connectOpts{version: 5, id: "c", will: &willOpts{topic: "will/c", payload: "gone", qos: 1}}.encode(), []byte{0xc0, 0})
	eventually(t, "somebody waits", func() bool { return st.waiting() > 0 })
	c.unanswered()
	st.sync(nil)
	c.expect(packets.Connack)
	c.expect(packets.Pingresp)
	c.kill()
	eventually(t, "somebody waits", func() bool { return st.waiting() > 0 })
	w.silent()
	st.sync(nil)
	w.expectPublish("gone")
}

// TestHadAfterRestart: a session that remembers what it has had knows that after a restart too: what was meant for it at another node
// comes once, whoever sends it again.
func TestHadAfterRestart(t *testing.T) {
	st := storetest.NewSessions()
	log := kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")})
	log.Had(mqttfront.MarkRun{Epoch: 9, First: 1, Last: 1}) // it has come from elsewhere
	deliver := func(b *mqttfront.Broker) {
		r := &markedReceipt{mark: mqttfront.Mark{Epoch: 1, Seq: 1}}
		b.Deliver([]mqttfront.Delivery{{Msg: &proto.Message{Topic: "a", Payload: []byte("v"), QoS: 2}, Sessions: []mqttfront.ForSession{{Key: "\x00c"}}, Receipt: r}})
	}
	b, _, addr := startWith(t, newLoner(), st, nil, nil)
	c, _ := connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(3600)})
	deliver(b)
	id := c.expectPublish("v").PacketID
	c.ack(packets.Pubrec, id)
	c.expect(packets.Pubrel)
	c.ack(packets.Pubcomp, id)
	c.silent() // it is read
	deliver(b)
	c.silent()
	b, _, addr = startWith(t, newLoner(), st.Left(), nil, nil)
	c, _ = connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(3600)})
	deliver(b)
	c.silent()
}

// TestHadAtQoS1: what a session had at QoS 1 does not come again at QoS 2, after its client has subscribed anew and a restart.
func TestHadAtQoS1(t *testing.T) {
	st := storetest.NewSessions()
	log := kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1,
		Subs: []mqttfront.SubscriptionRecord{{Filter: "a", QoS: 1}}})
	log.Had(mqttfront.MarkRun{Epoch: 9, First: 1, Last: 1}) // it has come from elsewhere
	deliver := func(b *mqttfront.Broker) {
		r := &markedReceipt{mark: mqttfront.Mark{Epoch: 1, Seq: 1}}
		b.Deliver([]mqttfront.Delivery{{Msg: &proto.Message{Topic: "a", Payload: []byte("v"), QoS: 2}, Sessions: []mqttfront.ForSession{{Key: "\x00c"}}, Receipt: r}})
	}
	b, _, addr := startWith(t, newLoner(), st, nil, nil)
	c, _ := connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(3600)})
	deliver(b)
	c.ack(packets.Puback, c.expectPublish("v").PacketID)
	c.subscribe(filter{"a", 2}) // PUBACK is read
	b, _, addr = startWith(t, newLoner(), st.Left(), nil, nil)
	c, _ = connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(3600)})
	deliver(b)
	c.silent()
}

// TestHadBesideLostNode: what a session had at QoS 1 that goes on without the node that had it does not come again after a restart. That
// node was sent it too, and what that was sent is asked for again.
func TestHadBesideLostNode(t *testing.T) {
	st := storetest.NewSessions()
	kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a"),
		Arriving: &mqttfront.Arriving{From: "lost", Database: 7, Number: 1, Drained: true}})
	r := &markedReceipt{mark: mqttfront.Mark{Epoch: 1, Seq: 1}}
	deliver := func(b *mqttfront.Broker, d mqttfront.Delivery) {
		d.Msg, d.Receipt = &proto.Message{Topic: "a", Payload: []byte("v"), QoS: 1}, r
		b.Deliver([]mqttfront.Delivery{d})
	}
	l := newLoner()
	l.receipts = map[mqttfront.Mark]mqttfront.Receipt{r.mark: r}
	b, _, addr := startWith(t, l, st, nil, nil)
	c, _ := connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(3600)})
	deliver(b, mqttfront.Delivery{Plain: true})
	c.ack(packets.Puback, c.expectPublish("v").PacketID)
	c.silent() // it is read
	b, _, addr = startWith(t, newLoner(), st.Left(), nil, nil)
	c, _ = connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(3600)})
	deliver(b, mqttfront.Delivery{Sessions: []mqttfront.ForSession{{Key: "\x00c"}}})
	c.silent()
}

// TestLaterSubscriptions: what a node was sent that can't be reached is asked for by the subscriptions that its session had there, after a
// restart too, and not by those that its client has made since: that node was not sent for them what came here meanwhile, and before.
func TestLaterSubscriptions(t *testing.T) {
	st := storetest.NewSessions()
	kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("came", "changed", "again"),
		Arriving: &mqttfront.Arriving{From: "lost", Database: 7, Number: 1, Drained: true}})
	kept(st, "other", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Subs: subscribed("later")})
	asks := func(l *loner, want ...string) {
		t.Helper()
		for _, f := range []string{"came", "changed", "again", "later"} {
			var ss []mqttfront.SessionInterest
			if slices.Contains(want, f) {
				ss = []mqttfront.SessionInterest{{Key: "\x00c", Lost: mqttfront.Lost{From: "lost", Database: 7}}}
			}
			if in := l.interest(f); !in.Plain || !slices.Equal(in.Sessions, ss) {
				t.Errorf("%s: %+v is registered, want sessions %v", f, in, ss)
			}
		}
	}
	l := newLoner()
	_, _, addr := startWith(t, l, st, nil, nil)
	c, _ := connect(t, addr, connectOpts{id: "c", resume: true, props: sessionExpiry(3600)})
	c.unsubscribe("again")
	c.subscribe(filter{"changed", 1}, filter{"again", 2}, filter{"later", 1})
	c.subscribe(filter{"again", 1})
	asks(l, "came", "changed")
	for range 2 {
		st = st.Left()
		l = newLoner()
		startWith(t, l, st, nil, nil)
		asks(l, "came", "changed")
	}
}
