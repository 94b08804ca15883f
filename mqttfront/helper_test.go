package mqttfront_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// loner is a Swarm of one node.
type loner struct {
	broker *mqttfront.Broker

	mu        sync.Mutex
	interests map[string]mqttfront.Interest
	filters   topic.Tree[string, mqttfront.Interest] // those with groups
	retained  topic.Names[*proto.Message]
	onWay     map[string]int // messages of each topic that are to come back by Deliver

	// for tests
	arrived  func(key string, filters []string)
	carried  func(ms []mqttfront.Mark, to string, done func())
	store    mqttfront.SessionStore // where notes are kept
	openFor  func(ms []mqttfront.Mark, keys []string)
	through  func(ms []mqttfront.Mark, key string)
	promise  mqttfront.Promise
	detours  bool                                                          // retained messages, and what is behind them, come back by Deliver
	back     chan func()                                                   // not nil: gets what brings them back, to be called one after another
	hold     chan struct{}                                                 // not nil: nothing is accepted before it is closed
	noRoom   func(name string) bool                                        // not nil: for which topics and filters there is none
	receipts map[mqttfront.Mark]mqttfront.Receipt                          // of what is delivered by tests
	custody  mqttfront.Custody                                             // what Accepted is told
	refuse   error                                                         // what Accepted is told
	seen     func(mqttfront.Outgoing)                                      // sees all that is published
	watch    func(topic string)                                            // sees the topics of all that is published; set with mu held
	slow     func(filter string) chan struct{}                             // done of Register waits for it
	ask      func(filter string, each func([]*proto.Message), done func()) // not nil: answers Retained
}

func newLoner() *loner {
	return &loner{interests: map[string]mqttfront.Interest{}, onWay: map[string]int{}, detours: true}
}

// Detour knows of what was published, and of no more, as the real one does.
func (l *loner) Detour(m *proto.Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.detours && (m.Retain || l.onWay[m.Topic] > 0)
}

func (l *loner) Wanted(name string) bool {
	wanted := false
	l.filters.Match(name, func(string, string, mqttfront.Interest) { wanted = true })
	return wanted || l.seen != nil
}

func (l *loner) Room(name string) bool { return l.noRoom == nil || !l.noRoom(name) }

func (l *loner) OpenFor(ms []mqttfront.Mark, keys []string) {
	if l.openFor != nil {
		l.openFor(ms, keys)
	}
}

func (l *loner) Through(ms []mqttfront.Mark, key string) {
	if l.through != nil {
		l.through(ms, key)
	}
}

func (l *loner) RoomToRegister(filter string) bool { return l.Room(filter) }

func (l *loner) Publish(batch []mqttfront.Outgoing) {
	var ds []mqttfront.Delivery
	batch = slices.Clone(batch) // the broker wants it back
	for i := range batch {
		if o := &batch[i]; o.Lent {
			o.Msg = o.Msg.Clone()
		}
	}
	l.mu.Lock()
	watch := l.watch
	for _, o := range batch {
		if !o.ServedHere {
			l.onWay[o.Msg.Topic]++
		}
	}
	l.mu.Unlock()
	for _, o := range batch {
		if l.seen != nil {
			l.seen(o)
		}
		if watch != nil {
			watch(o.Msg.Topic)
		}
		if o.Msg.Retain && l.refuse == nil {
			if len(o.Msg.Payload) == 0 {
				l.retained.Delete(o.Msg.Topic)
			} else {
				l.retained.Set(o.Msg.Topic, o.Msg)
			}
		}
		d := mqttfront.Delivery{Msg: o.Msg, Plain: !o.ServedHere, Origin: o.Origin}
		l.filters.Match(o.Msg.Topic, func(filter, _ string, in mqttfront.Interest) {
			for _, g := range in.Groups {
				d.Groups = append(d.Groups, mqttfront.Group{Name: g.Name, Filter: filter})
			}
		})
		if l.refuse == nil && (d.Plain || d.Groups != nil) {
			ds = append(ds, d)
		}
	}
	tell := func() {
		for _, o := range batch {
			if o.Origin != nil && o.Msg.QoS > 0 {
				o.Origin.Accepted(o.PacketID, l.custody, l.refuse)
			}
		}
	}
	accept := func() {
		if l.hold == nil {
			tell()
			return
		}
		go func() {
			<-l.hold
			tell()
		}()
	}
	deliver := func() {
		if len(ds) > 0 {
			l.broker.Deliver(ds)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, o := range batch {
			if !o.ServedHere {
				l.onWay[o.Msg.Topic]--
			}
		}
	}
	noted := false
	for _, o := range batch {
		if o.Note != nil {
			o.Note()
			noted = true
		}
	}
	if noted {
		l.store.Sync(func(err error) {
			if err != nil {
				for _, o := range batch {
					if o.Origin != nil {
						o.Origin.Accepted(o.PacketID, mqttfront.CustodyUnsaid, mqttfront.NotStored)
					}
				}
				return
			}
			deliver()
			accept()
		})
		return
	}
	if l.back != nil {
		l.back <- deliver
	} else {
		deliver()
	}
	accept()
}

func (l *loner) Register(filter string, in mqttfront.Interest, done func(mqttfront.Promise)) {
	l.mu.Lock()
	l.interests[filter] = in
	if in.Zero() {
		delete(l.interests, filter)
	}
	if len(in.Groups) > 0 {
		l.filters.Set(filter, "", in)
	} else {
		l.filters.Delete(filter, "")
	}
	l.mu.Unlock()
	if done == nil {
		return
	}
	if l.slow != nil {
		if wait := l.slow(filter); wait != nil {
			go func() { <-wait; done(l.promised()) }()
			return
		}
	}
	done(l.promised())
}

func (l *loner) promised() mqttfront.Promise {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.promise
}

func (l *loner) interest(filter string) mqttfront.Interest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.interests[filter]
}

func (l *loner) Retained(filter string, each func([]*proto.Message), done func()) {
	if l.ask != nil {
		l.ask(filter, each, done)
		return
	}
	l.retained.Match(filter, func(_ string, m *proto.Message) bool {
		each([]*proto.Message{m})
		return true
	})
	done()
}

func (l *loner) Receipt(m mqttfront.Mark) mqttfront.Receipt {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.receipts[m]; r != nil {
		return r
	}
	return marked(m)
}

func (l *loner) RetainedHere() int { return l.retained.Len() }

func (l *loner) Arrived(key string, filters []string, _ bool, done func()) {
	if l.arrived != nil {
		l.arrived(key, filters)
	}
	if done != nil {
		done()
	}
}

func (l *loner) TakeUp(mqttfront.Mark, string) string { return "$session-00/x" }

func (l *loner) Carried(ms []mqttfront.Mark, _, to string, _ time.Duration, done func()) {
	if l.carried == nil {
		done()
		return
	}
	l.carried(ms, to, done)
}

// start runs a broker for a test. change, which may be nil, adjusts its configuration.
func start(t testing.TB, change func(*mqttfront.Config)) (*mqttfront.Broker, *loner, string) {
	return startWith(t, newLoner(), storetest.NewSessions(), nil, change)
}

func startWith(t testing.TB, l *loner, st mqttfront.SessionStore, auth mqttfront.Auth, change func(*mqttfront.Config)) (*mqttfront.Broker, *loner, string) {
	t.Helper()
	cfg := mqttfront.DefaultConfig()
	cfg.SysInterval = 0
	cfg.CloseTimeout = 300 * time.Millisecond
	if change != nil {
		change(&cfg)
	}
	l.store = st // what is due at a restart is published at once
	b, err := mqttfront.New(cfg, l, auth, st, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l.broker = b
	addr, err := b.Listen(mqttfront.ListenerConfig{URL: "tcp://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, l, addr.String()
}

// TestServe serves MQTT for experiments by hand: TEST_LISTEN='tcp://127.0.0.1:1883 ...' go test -run
// TestServe -timeout 0. It ends when the process is told to.
func TestServe(t *testing.T) {
	urls := os.Getenv("TEST_LISTEN")
	if urls == "" {
		t.Skip("TEST_LISTEN is not set")
	}
	l := newLoner()
	cfg := mqttfront.DefaultConfig()
	b, err := mqttfront.New(cfg, l, nil, storetest.NewSessions(), slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	l.broker = b
	for _, u := range splitFields(urls) {
		addr, err := b.Listen(mqttfront.ListenerConfig{URL: u})
		if err != nil {
			t.Fatal(err)
		}
		t.Log("listening on", addr)
	}
	serveUntilSignal()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	t.Log("drain:", b.Drain(ctx))
	b.Close()
}

func dialPlain(addr string) (net.Conn, error) { return net.Dial("tcp", addr) }

func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}
