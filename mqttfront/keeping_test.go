package mqttfront_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// keeper is a WillKeeping that notes what it is told.
type keeper struct {
	mu    sync.Mutex
	last  uint64
	none  bool              // there are no others
	said  []string          // in order
	armed map[string]uint64 // by key
	hold  chan struct{}     // not nil: Arm is done when it is closed
	fires chan fire         // not nil: gets what is asked; else everything is sent
	told  chan struct{}     // gets one, if there is room, when something was said
}

type fire struct {
	epoch      uint64
	send, drop func()
}

func newKeeper() *keeper {
	return &keeper{armed: map[string]uint64{}, told: make(chan struct{}, 1)}
}

func (k *keeper) note(format string, args ...any) {
	k.said = append(k.said, fmt.Sprintf(format, args...))
	select {
	case k.told <- struct{}{}:
	default:
	}
}

func (k *keeper) Identity() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.none {
		return 0
	}
	k.last++
	return k.last
}

func (k *keeper) Arm(key string, w *mqttfront.WillRecord, expiry time.Duration, since time.Time, done func()) {
	k.mu.Lock()
	k.armed[key] = w.Epoch
	k.note("arm %d %s, session %v, lost %v", w.Epoch, w.Msg.Topic, expiry, !since.IsZero())
	hold := k.hold
	k.mu.Unlock()
	if done == nil {
		return
	}
	go func() {
		if hold != nil {
			<-hold
		}
		done()
	}()
}

func (k *keeper) Disarm(_ string, epoch uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.note("disarm %d", epoch)
}

func (k *keeper) Fire(_ string, epoch uint64, hold, send, drop func()) {
	k.mu.Lock()
	k.note("fire %d", epoch)
	fires := k.fires
	k.mu.Unlock()
	if fires == nil {
		send()
		return
	}
	hold()
	fires <- fire{epoch, send, drop}
}

// ask has everything asked from now on.
func (k *keeper) ask() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fires = make(chan fire, 20)
}

// fired waits until it is asked for a will.
func (k *keeper) fired(t *testing.T) fire {
	t.Helper()
	select {
	case f := <-k.fires:
		return f
	case <-time.After(patience):
		t.Fatal("no will is to be sent")
		return fire{}
	}
}

// expect waits until exactly this was said, since it was asked last.
func (k *keeper) expect(t *testing.T, want ...string) {
	t.Helper()
	for late := time.After(patience); ; {
		k.mu.Lock()
		said := slices.Clone(k.said)
		if len(said) >= len(want) {
			k.said = nil
		}
		k.mu.Unlock()
		if len(said) >= len(want) {
			if !slices.Equal(said, want) {
				t.Fatalf("%q was said, want %q", said, want)
			}
			return
		}
		select {
		case <-k.told:
		case <-late:
			t.Fatalf("%q was said, want %q", said, want)
		}
	}
}

func startKept(t *testing.T, st mqttfront.SessionStore) (*mqttfront.Broker, *keeper, string, chan mqttfront.Outgoing) {
	l, out := newLoner(), make(chan mqttfront.Outgoing, 100)
	l.seen = func(o mqttfront.Outgoing) { out <- o }
	b, _, addr := startWith(t, l, st, nil, nil)
	k := newKeeper()
	b.KeepWills(k)
	return b, k, addr, out
}

func next(t *testing.T, out chan mqttfront.Outgoing) mqttfront.Outgoing {
	t.Helper()
	select {
	case o := <-out:
		return o
	case <-time.After(patience):
		t.Fatal("nothing is published")
		return mqttfront.Outgoing{}
	}
}

// TestWillsAreKept: other nodes are told of every will before its client hears that it is connected, and of what becomes of it.
func TestWillsAreKept(t *testing.T) {
	_, k, addr, out := startKept(t, storetest.NewSessions())
	k.hold = make(chan struct{})
	o := connectOpts{id: "c", version: 5, will: &willOpts{topic: "will/c", payload: "gone", qos: 1}}
	r := newRaw(t, addr, 5)
	r.send(o.encode())
	k.expect(t, "arm 1 will/c, session 0s, lost false")
	_ = r.nc.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := r.nc.Read(make([]byte, 1)); err == nil {
		t.Errorf("CONNACK before others know the will: %d bytes", n)
	}
	close(k.hold)
	_ = r.nc.SetReadDeadline(time.Now().Add(patience))
	if _, err := r.nc.Read(make([]byte, 1)); err != nil {
		t.Errorf("no CONNACK: %v", err)
	}
	r.nc.Close()
	k.expect(t, "fire 1")
	if got := next(t, out); got.Epoch != 1 || got.Msg.Topic != "will/c" {
		t.Errorf("%+v is published", got)
	}

	c, _ := connect(t, addr, o)
	k.expect(t, "arm 2 will/c, session 0s, lost false")
	c.bye()
	k.expect(t, "disarm 2")
	o.props, o.resume = sessionExpiry(60), true
	o.will.props = delay(50)
	c, _ = connect(t, addr, o)
	k.expect(t, "arm 3 will/c, session 1m0s, lost false")
	c.kill()
	k.expect(t, "arm 3 will/c, session 1m0s, lost true")
	without := o
	without.will = nil
	c, _ = connect(t, addr, without)
	k.expect(t, "disarm 3")
	c.bye()
	c, _ = connect(t, addr, o)
	k.expect(t, "arm 4 will/c, session 1m0s, lost false")
	connect(t, addr, o) // it is replaced, not called off
	k.expect(t, "arm 5 will/c, session 1m0s, lost false")
	c.expectDisconnect(0x8e)
	local := connectOpts{id: "local", will: &willOpts{topic: "$local/c", payload: "gone"}}
	c, _ = connect(t, addr, local)
	c.kill()
	k.mu.Lock()
	k.none = true
	k.mu.Unlock()
	c, _ = connect(t, addr, connectOpts{id: "alone", will: &willOpts{topic: "will/alone", payload: "gone", qos: 1}})
	c.kill()
	if got := next(t, out); got.Epoch != 0 || got.Msg.Topic != "will/alone" {
		t.Errorf("%+v is published", got)
	}
	k.expect(t)
}

// TestWillsOfOthersSent: a will that another node has sent is not sent again, also after a restart.
func TestWillsOfOthersSent(t *testing.T) {
	st := storetest.NewSessions()
	b, k, addr, _ := startKept(t, st)
	k.fires = make(chan fire, 10)
	lasting := func(id string) connectOpts {
		return connectOpts{id: id, resume: true, props: sessionExpiry(60), will: &willOpts{topic: "will/" + id, payload: "gone", qos: 1}}
	}
	for _, id := range []string{"a", "b"} {
		c, _ := connect(t, addr, lasting(id))
		c.kill()
	}
	first, second := <-k.fires, <-k.fires
	if left := willsIn(t, st); len(left) != 2 {
		t.Fatalf("while it is not known what to do with them the store has %v", left)
	}
	first.drop()
	if left := willsIn(t, st); len(left) != 1 || left[0] != second.epoch {
		t.Errorf("the store has %v", left)
	}
	if n := b.Stats().WillsSent.Load(); n != 0 {
		t.Errorf("%d were sent", n)
	}
	second.send()
	eventually(t, "the will is gone", func() bool { return len(willsIn(t, st)) == 0 })
	if n := b.Stats().WillsSent.Load(); n != 1 {
		t.Errorf("%d were sent", n)
	}
}

// TestWillsHeld: wills that have to wait are all kept, though their client has come back meanwhile, in a session of its own or in
// the same one, with another will; they are sent after a crash. So are those of clients with odd identifiers.
func TestWillsHeld(t *testing.T) {
	st := storetest.NewSessions()
	_, k, addr, _ := startKept(t, st)
	k.ask()
	willOf := func(id, topic string, expiry uint32) connectOpts {
		return connectOpts{id: id, version: 5, resume: expiry > 0, props: sessionExpiry(expiry), will: &willOpts{topic: topic, payload: "gone", qos: 1}}
	}
	want := map[string]int{}
	for _, id := range []string{"clean", "lasting", "!odd", ">odd", "!"} {
		for i := range 3 {
			topic := fmt.Sprintf("will/%d/%s", i, id)
			expiry := uint32(0)
			if id == "lasting" {
				expiry = 600
			}
			c, _ := connect(t, addr, willOf(id, topic, expiry))
			c.kill()
			k.fired(t)
			want[topic]++
		}
	}
	st = st.Left()
	_, k, _, out := startKept(t, st)
	k.ask()
	for range want {
		k.fired(t).send()
		want[next(t, out).Msg.Topic]--
	}
	for topic, left := range want {
		if left != 0 {
			t.Errorf("%s is left with %d", topic, left)
		}
	}
	eventually(t, "the wills are gone", func() bool { return len(willsIn(t, st)) == 0 })
}

// willsIn returns the epochs of the wills that a store has.
func willsIn(t *testing.T, st *storetest.Sessions) (epochs []uint64) {
	t.Helper()
	if err := st.Left().Load(func(_ string, rec mqttfront.SessionRecord, _ mqttfront.SessionLog) {
		if rec.Will != nil {
			epochs = append(epochs, rec.Will.Epoch)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return epochs
}

// TestFalseAlarm: a client that is connected all the time gets its retained message back, the one that it published last or, where
// there is none, what was there; and its will is armed anew.
func TestFalseAlarm(t *testing.T) {
	b, k, addr, out := startKept(t, storetest.NewSessions())
	key := func(id string) string { return "\x00" + id }
	o := connectOpts{id: "c", version: 5, will: &willOpts{topic: "will/c", payload: "offline", qos: 1, retain: true}}
	c, _ := connect(t, addr, o)
	k.expect(t, "arm 1 will/c, session 0s, lost false")
	c.send(c.publishPacket(0, 0, "will/c", "x"), c.publishPacket(0x01, 0, "will/other", "y"))
	next(t, out)
	next(t, out)
	if b.WillSent(key("c"), 2, true, nil) || b.WillSent(key("nobody"), 1, true, nil) {
		t.Error("the will of somebody else is put right")
	}
	for i, before := range []*proto.Message{nil, {Topic: "will/c", Payload: []byte("before"), Retain: true}} {
		if !b.WillSent(key("c"), uint64(i+1), true, before) { //nolint:gosec // small
			t.Fatal("it is no false alarm")
		}
		k.expect(t, fmt.Sprintf("arm %d will/c, session 0s, lost false", i+2))
		want := ""
		if before != nil {
			want = "before"
		}
		if got := next(t, out); got.Msg.Topic != "will/c" || string(got.Msg.Payload) != want || !got.Msg.Retain {
			t.Errorf("%+v is published", got.Msg)
		}
	}
	c.send(c.publishPacket(0x01, 0, "will/c", "online"))
	next(t, out)
	c.send(c.publishPacket(0x03, 1, "will/c", "still online"))
	next(t, out)
	c.expect(packets.Puback)
	if !b.WillSent(key("c"), 3, true, &proto.Message{Topic: "will/c", Payload: []byte("before"), Retain: true}) {
		t.Fatal("it is no false alarm")
	}
	if got := next(t, out); string(got.Msg.Payload) != "still online" || got.Msg.QoS != 1 || !got.Msg.Retain {
		t.Errorf("%+v is published", got.Msg)
	}
	k.expect(t, "arm 4 will/c, session 0s, lost false")
	if n := b.Stats().WillsFalse.Load(); n != 3 {
		t.Errorf("%d false alarms are counted", n)
	}
	b.WillOver(key("c"), 3)
	c.kill()
	k.expect(t, "fire 4")
	o.resume, o.props, o.will.props = true, sessionExpiry(60), delay(50)
	c, _ = connect(t, addr, o)
	c.kill()
	k.expect(t, "arm 5 will/c, session 1m0s, lost false", "arm 5 will/c, session 1m0s, lost true")
	if b.WillSent(key("c"), 5, true, nil) {
		t.Error("it is a false alarm though nobody is connected")
	}
	found := 0
	b.Wills(func(key string, w mqttfront.WillRecord, expiry time.Duration, since time.Time) {
		if found++; key != "\x00c" || w.Epoch != 5 || expiry != time.Minute || since.IsZero() {
			t.Errorf("%q %+v %v %v", key, w, expiry, since)
		}
	})
	b.WillOver(key("c"), 5)
	b.Wills(func(key string, w mqttfront.WillRecord, _ time.Duration, _ time.Time) {
		t.Errorf("%q has the will %+v", key, w)
	})
	if found != 1 {
		t.Errorf("%d wills", found)
	}
}

// TestWillsFoundLater: wills from before there were other nodes get an identity when there are.
func TestWillsFoundLater(t *testing.T) {
	b, k, addr, _ := startKept(t, storetest.NewSessions())
	k.none = true
	connect(t, addr, connectOpts{id: "c", will: &willOpts{topic: "will/c", payload: "gone", qos: 1}})
	b.Wills(func(key string, w mqttfront.WillRecord, _ time.Duration, _ time.Time) {
		t.Errorf("%q has %+v, and there is nobody else", key, w)
	})
	k.mu.Lock()
	k.none = false
	k.mu.Unlock()
	var found []uint64
	for range 2 {
		b.Wills(func(_ string, w mqttfront.WillRecord, _ time.Duration, _ time.Time) { found = append(found, w.Epoch) })
	}
	if !slices.Equal(found, []uint64{1, 1}) {
		t.Errorf("epochs %v", found)
	}
}

// TestWillsUnknown: a will that was stored while no other node could know of it is not told of before others are to know, and does no harm.
func TestWillsUnknown(t *testing.T) {
	st := storetest.NewSessions()
	kept(st, "c", mqttfront.SessionRecord{Expiry: time.Hour, Will: &mqttfront.WillRecord{Msg: proto.Message{Topic: "w", QoS: 1}}})
	b, _, _ := startWith(t, newLoner(), st, nil, nil)
	b.Wills(func(key string, _ mqttfront.WillRecord, _ time.Duration, _ time.Time) { t.Errorf("%q is told of", key) })
}
