package roam

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

type fakeHost struct {
	host.Host
	id peer.ID
}

func (h fakeHost) ID() peer.ID                                         { return h.id }
func (h fakeHost) SetStreamHandler(protocol.ID, network.StreamHandler) {}
func (h fakeHost) RemoveStreamHandler(protocol.ID)                     {}

// busySwarm takes no message while one is being delivered, as rendezvous.Service does not.
type busySwarm struct {
	delivering sync.Mutex
	published  chan *proto.Message
	before     func() // not nil: is called before the next message is accepted
}

func (s *busySwarm) Register(_ string, _ core.Interest, done func(bool)) {
	if done != nil {
		done(false)
	}
}
func (s *busySwarm) Retained(_ string, _ func([]*proto.Message), done func()) {
	s.delivering.Lock()   // for it takes nothing meanwhile
	s.delivering.Unlock() //nolint:staticcheck // the same
	done()
}
func (s *busySwarm) Done(*core.Receipt)   {}
func (s *busySwarm) Reaches(peer.ID) bool { return true }
func (s *busySwarm) Publish(batch []core.Publication) {
	s.delivering.Lock()
	defer s.delivering.Unlock()
	for _, p := range batch {
		if f := s.before; f != nil {
			s.before = nil
			f()
		}
		s.published <- p.Message
		p.Origin.(*accepted).Accepted(0, mqttfront.CustodyUnsaid, nil)
	}
}

type noBroker struct{ Broker }

func (noBroker) Sessions(func(string, mqttfront.SessionRecord)) {}
func (noBroker) Left() []mqttfront.Left                         { return nil }

// TestClaimsAgain: a node that hears of a claim that its own outranks says its own again, and not from within the delivery, while
// which the service takes nothing.
func TestClaimsAgain(t *testing.T) {
	other, err := peer.Decode(aPeer)
	if err != nil {
		t.Fatal(err)
	}
	s := &busySwarm{published: make(chan *proto.Message, 10)}
	r := New(Config{Host: fakeHost{id: "me"}, Swarm: s, Broker: noBroker{}, Resumed: func(context.Context, peer.ID, string) {}, Log: slog.New(slog.DiscardHandler)})
	r.Activate()
	r.Begin("u\x00c")
	mine := new(pb.Claim)
	next := func() {
		t.Helper()
		select {
		case m := <-s.published:
			if err := protobuf.Unmarshal(m.Payload, mine); err != nil || peer.ID(mine.GetNode()) != "me" {
				t.Fatalf("%+v is claimed: %v", mine, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is claimed")
		}
	}
	next()
	s.delivering.Lock() // while it is accepted it changes
	s.before = func() { r.Keep("u\x00c", mqttfront.SessionRecord{Expiry: 2 * time.Hour}, nil) }
	s.delivering.Unlock()
	kept := make(chan struct{})
	go func() {
		r.Keep("u\x00c", mqttfront.SessionRecord{Expiry: time.Hour}, nil)
		close(kept)
	}()
	next()
	next()
	if ms := mine.GetState().GetExpiryMs(); ms != (2 * time.Hour).Milliseconds() {
		t.Errorf("the last claim has an expiry of %d ms", ms)
	}
	<-kept
	went := make(chan struct{})
	go r.Keep("u\x00c", mqttfront.SessionRecord{Expiry: time.Hour}, func() { // whose client's subscription now has retained messages asked for
		s.Retained("a", nil, func() {})
		close(went)
	})
	next()
	select {
	case <-went:
	case <-time.After(10 * time.Second):
		t.Fatal("who waits for a claim does not go on")
	}
	b, err := protobuf.Marshal(&pb.Claim{Key: []byte("u\x00c"), Number: mine.GetNumber() - 1, Node: []byte(other)})
	if err != nil {
		t.Fatal(err)
	}
	s.delivering.Lock()
	delivered := make(chan struct{})
	go func() {
		r.Deliver(core.Delivery{Message: &proto.Message{Topic: NameOf("u\x00c"), Payload: b, QoS: 1}})
		close(delivered)
	}()
	select {
	case <-delivered:
	case <-time.After(10 * time.Second):
		t.Error("a delivery waits for what it publishes")
	}
	s.delivering.Unlock()
	<-delivered
	next()
	r.Close()
}
