package watch

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// fakeHost has an ID, and that is all.
type fakeHost struct {
	host.Host
	id peer.ID
}

func (h fakeHost) ID() peer.ID                                         { return h.id }
func (h fakeHost) SetStreamHandler(protocol.ID, network.StreamHandler) {}
func (h fakeHost) RemoveStreamHandler(protocol.ID)                     {}

// fakeSwarm has what is retained in a map; what is published stands at once. Of other nodes it has as many as it is told.
type fakeSwarm struct {
	self  core.NodeID
	began time.Time

	mu       sync.Mutex
	backed   bool
	retained map[string][]byte
	sent     []string // what is not retained below Prefix: topic and epoch
	asked    int
	wants    []string
	peers    []core.PeerView
	slow     chan struct{} // where not nil, what is published stands when it is closed
}

func (s *fakeSwarm) Self() core.NodeID    { return s.self }
func (s *fakeSwarm) Clock() time.Duration { return time.Since(s.began) }
func (s *fakeSwarm) Register(filter string, _ core.Interest, _ func(bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wants = append(s.wants, filter)
}

func (s *fakeSwarm) Retained(filter string, each func([]*proto.Message), done func()) {
	s.mu.Lock()
	s.asked++
	var found []*proto.Message
	for _, topic := range slices.Sorted(maps.Keys(s.retained)) {
		if topic == filter || strings.HasSuffix(filter, "/#") && strings.HasPrefix(topic, filter[:len(filter)-1]) {
			found = append(found, &proto.Message{Topic: topic, Payload: s.retained[topic], Retain: true})
		}
	}
	s.mu.Unlock()
	go func() {
		each(found)
		done()
	}()
}

func (s *fakeSwarm) Publish(batch []core.Publication) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range batch {
		switch m := p.Message; {
		case !strings.HasPrefix(m.Topic, Prefix):
			s.sent = append(s.sent, fmt.Sprintf("%s %d", m.Topic, p.Epoch))
		case len(m.Payload) == 0:
			delete(s.retained, m.Topic)
		default:
			s.retained[m.Topic] = m.Payload
		}
		accept := func() { p.Origin.(*accepted).Accepted(0, mqttfront.CustodyUnsaid, nil) }
		if s.slow == nil {
			accept()
			continue
		}
		go func() {
			<-s.slow
			accept()
		}()
	}
}

func (s *fakeSwarm) Done(*core.Receipt)                               {}
func (s *fakeSwarm) Seat(dht.Location) core.Seat                      { return core.Seat{} }
func (s *fakeSwarm) Heard(core.NodeID) (ago time.Duration, ever bool) { return 0, false }
func (s *fakeSwarm) Peers() []core.PeerView                           { return s.peers }
func (s *fakeSwarm) Backed(string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.backed
}

func (s *fakeSwarm) stands(t *testing.T, topics ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := slices.Sorted(maps.Keys(s.retained)); !slices.Equal(got, slices.Sorted(slices.Values(topics))) {
		t.Errorf("%q stand, want %q", got, topics)
	}
}

// fakeBroker notes what it is told.
type fakeBroker struct {
	mu        sync.Mutex
	wills     map[string]mqttfront.WillRecord
	connected map[string]bool
	said      []string
}

func (b *fakeBroker) Wills(each func(string, mqttfront.WillRecord, time.Duration, time.Time)) {
	for key, w := range b.wills {
		each(key, w, time.Hour, time.Time{})
	}
}

func (b *fakeBroker) WillSent(key string, epoch uint64, _ bool, _ *proto.Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, fmt.Sprintf("sent %s %d", key, epoch))
	return b.connected[key]
}

func (b *fakeBroker) WillOver(key string, epoch uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, fmt.Sprintf("over %s %d", key, epoch))
}

func (b *fakeBroker) told(t *testing.T, want ...string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.said)
	if !slices.Equal(b.said, want) {
		t.Errorf("the broker was told %q, want %q", b.said, want)
	}
	b.said = nil
}

// emptyStore keeps nothing.
type emptyStore struct{ core.Retained }

func record(epoch uint64) mqttfront.WillRecord {
	m := aMessage()
	return mqttfront.WillRecord{Msg: m, Epoch: epoch}
}

func startWatch(t *testing.T, s *fakeSwarm, b *fakeBroker) *Watch {
	s.self, s.began = core.MakeNodeID(7, "a peer ID"), time.Now().Add(-time.Hour)
	if s.retained == nil {
		s.retained = map[string][]byte{}
	}
	w := New(Config{Host: fakeHost{id: "a peer ID"}, Swarm: s, Broker: b, Store: NewStore(emptyStore{}, func(func(dht.Location, *core.Kept)) {}), Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(w.Close)
	return w
}

// TestArmWaitsForWhoIsThere: a client is welcomed when its will stands, from the moment on at which there is another node.
func TestArmWaitsForWhoIsThere(t *testing.T) {
	for _, there := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := &fakeSwarm{slow: make(chan struct{})}
			if there {
				s.peers = []core.PeerView{{ID: core.MakeNodeID(8, "another"), Up: true, InReach: true}}
			}
			w := startWatch(t, s, &fakeBroker{})
			w.Activate()
			armed := make(chan struct{})
			x := record(1)
			w.Arm("c", &x, time.Hour, time.Time{}, func() { close(armed) })
			synctest.Wait()
			select {
			case <-armed:
				if there {
					t.Error("a will is taken to stand that nobody else has")
				}
			default:
				if !there {
					t.Error("a will waits for nobody")
				}
			}
			close(s.slow)
			synctest.Wait()
			<-armed
		})
	}
}

// TestOwnWills: what stands of this node's wills is what its broker has said, and nothing when it has left.
func TestOwnWills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := &fakeSwarm{backed: true}, &fakeBroker{}
		w := startWatch(t, s, b)
		if w.Identity() != 0 {
			t.Error("a will gets an identity though there is nobody else")
		}
		w.Activate()
		time.Sleep(10 * time.Second)
		s.mu.Lock()
		if len(s.wants) > 0 || s.asked > 0 {
			t.Errorf("a node without wills wants %q, and asks %d times", s.wants, s.asked)
		}
		s.mu.Unlock()
		a, c := record(w.Identity()), record(w.Identity())
		armed := 0
		w.Arm("a", &a, time.Hour, time.Time{}, func() { armed++ })
		w.Arm("c", &c, time.Hour, time.Time{}, func() { armed++ })
		synctest.Wait()
		if armed != 2 {
			t.Errorf("%d are armed", armed)
		}
		s.stands(t, nameOf("a peer ID", "a"), nameOf("a peer ID", "c"))
		w.Disarm("a", c.Epoch) // another one
		synctest.Wait()
		s.stands(t, nameOf("a peer ID", "a"), nameOf("a peer ID", "c"))
		w.Disarm("a", a.Epoch)
		late := record(w.Identity())
		w.Arm("a", &a, time.Hour, time.Now(), nil) // its delay begins, though it is over
		synctest.Wait()
		s.stands(t, nameOf("a peer ID", "c"))
		sent := false
		w.Fire("c", c.Epoch, func() { t.Error("it is held") }, func() { sent = true }, func() { t.Error("it is dropped") })
		if !sent {
			t.Error("it is not sent at once")
		}
		synctest.Wait()
		s.stands(t)
		w.Arm("a", &late, time.Hour, time.Time{}, nil)
		synctest.Wait()
		s.stands(t, nameOf("a peer ID", "a"))
		if err := w.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		s.stands(t)
		b.told(t)
	})
}

// TestOwnAfterRestart: a node that has come back sends what nobody has sent, and no more; what was left there is gone.
func TestOwnAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSwarm{retained: map[string][]byte{}}
		b := &fakeBroker{wills: map[string]mqttfront.WillRecord{}, connected: map[string]bool{}}
		self, name := core.MakeNodeID(7, "a peer ID"), func(key string) string { return nameOf("a peer ID", key) }
		put := func(topic string, r standable) {
			p, err := r.encode()
			if err != nil {
				t.Fatal(err)
			}
			s.retained[topic] = p
		}
		keys := []string{"fired", "about to be", "resumed", "armed", "forgotten"}
		for i, key := range keys {
			b.wills[key] = record(uint64(i + 1))
			put(name(key), &will{node: self, record: b.wills[key]})
		}
		put(name("fired")+firedLevel, &fired{epoch: 1, sent: true})
		put(name("about to be")+firedLevel, &fired{epoch: 2})
		put(name("resumed"), &will{resumed: true})
		delete(s.retained, name("forgotten"))
		put(name("left"), &will{node: self, record: record(99)})
		put(name("of a disk before"), &will{node: core.MakeNodeID(8, "a peer ID"), record: record(98)})
		w := startWatch(t, s, b)
		w.Activate()
		time.Sleep(5 * time.Second)
		var mu sync.Mutex
		var held, sent, dropped []string
		note := func(to *[]string, key string) func() {
			return func() {
				mu.Lock()
				defer mu.Unlock()
				*to = append(*to, key)
			}
		}
		for i, key := range keys {
			w.Fire(key, uint64(i+1), note(&held, key), note(&sent, key), note(&dropped, key))
		}
		time.Sleep(20 * time.Second)
		mu.Lock()
		if !slices.Equal(held, keys) {
			t.Errorf("%q were held, want %q", held, keys)
		}
		if len(sent)+len(dropped) > 0 {
			t.Errorf("without a majority %q were sent, %q dropped", sent, dropped)
		}
		mu.Unlock()
		s.mu.Lock()
		s.backed = true
		s.mu.Unlock()
		time.Sleep(5 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(sent)
		slices.Sort(dropped)
		if !slices.Equal(sent, []string{"about to be", "armed", "forgotten"}) || !slices.Equal(dropped, []string{"fired", "resumed"}) {
			t.Errorf("%q were sent, %q dropped", sent, dropped)
		}
		s.stands(t, name("of a disk before"))
	})
}

// TestOwnFalseAlarm: the broker hears of what was sent in its clients' place, and that is forgotten then.
func TestOwnFalseAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := &fakeSwarm{backed: true}, &fakeBroker{connected: map[string]bool{"here": true}}
		w := startWatch(t, s, b)
		w.Activate()
		time.Sleep(10 * time.Second)
		name := func(key string) string { return nameOf("a peer ID", key) }
		for i, key := range []string{"here", "gone", "gone, not sent", "elsewhere"} {
			r := record(uint64(i + 1))
			w.Arm(key, &r, time.Hour, time.Time{}, nil)
		}
		synctest.Wait()
		hear := func(topic string, r standable) {
			p, err := r.encode()
			if err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			s.retained[topic] = p
			s.mu.Unlock()
			w.Deliver(core.Delivery{Message: &proto.Message{Topic: topic, Payload: p, QoS: 1}, Receipt: new(core.Receipt)})
			synctest.Wait()
		}
		hear(name("here")+firedLevel, &fired{epoch: 1})
		b.told(t, "sent here 1")
		hear(name("gone")+firedLevel, &fired{epoch: 2, sent: true})
		b.told(t, "over gone 2", "sent gone 2")
		hear(name("gone, not sent")+firedLevel, &fired{epoch: 3})
		b.told(t, "sent gone, not sent 3")
		hear(name("here")+firedLevel, &fired{epoch: 77, sent: true}) // of one before
		b.told(t)
		hear(name("elsewhere"), &will{resumed: true})
		b.told(t, "over elsewhere 4")
		s.stands(t, name("here"), name("gone, not sent"), name("gone, not sent")+firedLevel)
		for _, topic := range []string{"$wills-other/x", name("here"), name("nobody"), name("here") + firedLevel} {
			w.Deliver(core.Delivery{Message: &proto.Message{Topic: topic, Payload: []byte{0xff}}})
		}
		synctest.Wait()
		b.told(t)
	})
}

// TestOwnResumedAndBack: that a client was elsewhere says nothing of the will that it has given here since.
func TestOwnResumedAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := &fakeSwarm{backed: true}, &fakeBroker{}
		w := startWatch(t, s, b)
		w.Activate()
		time.Sleep(10 * time.Second)
		r := record(5)
		w.Arm("c", &r, time.Hour, time.Time{}, nil)
		synctest.Wait()
		p, err := (&will{resumed: true}).encode() // was overwritten before it came
		if err != nil {
			t.Fatal(err)
		}
		w.Deliver(core.Delivery{Message: &proto.Message{Topic: nameOf("a peer ID", "c"), Payload: p, QoS: 1}, Receipt: new(core.Receipt)})
		synctest.Wait()
		b.told(t)
		s.stands(t, nameOf("a peer ID", "c"))
	})
}
