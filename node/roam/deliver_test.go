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
func (h fakeHost) Network() network.Network                            { return fakeNetwork{} }

// fakeNetwork has one other node.
type fakeNetwork struct{ network.Network }

func (fakeNetwork) Peers() []peer.ID { return []peer.ID{aPeer} }

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
func (s *busySwarm) Done(*core.Receipt)           {}
func (s *busySwarm) Reaches(peer.ID, uint64) bool { return true }
func (s *busySwarm) Expects() bool                { return false }
func (s *busySwarm) Forgotten(peer.ID) bool       { return false }
func (s *busySwarm) Missing() bool                { return false }
func (s *busySwarm) Merged() bool                 { return true }
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
func (noBroker) Depart(context.Context, string, string, uint64, bool) *mqttfront.Departure {
	return nil
}

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

// mutedSwarm keeps nothing that is published, and so accepts nothing.
type mutedSwarm struct {
	busySwarm
	heard chan bool     // what it is told of claims: whether they come here
	said  chan struct{} // gets one for each
}

func (s *mutedSwarm) Register(filter string, i core.Interest, done func(bool)) {
	s.heard <- i.Plain
	s.busySwarm.Register(filter, i, done)
}

func (s *mutedSwarm) Publish([]core.Publication) { s.said <- struct{}{} }

// TestHearsWhatItClaims: a node that claims a session in the moment in which it gives it up hears of what others claim.
func TestHearsWhatItClaims(t *testing.T) {
	other, err := peer.Decode(aPeer)
	if err != nil {
		t.Fatal(err)
	}
	const key = "u\x00c"
	s := &mutedSwarm{heard: make(chan bool, 10), said: make(chan struct{}, 10)}
	r := New(Config{Host: fakeHost{id: "me"}, Swarm: s, Broker: noBroker{}, Resumed: func(context.Context, peer.ID, string) {}, Log: slog.New(slog.DiscardHandler)})
	defer r.Close()
	r.Activate()
	r.Begin(key)
	<-s.heard
	<-s.said
	r.mu.Lock()
	h := r.held[key]
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	claimed := make(chan error, 1)
	r.Keep(key, mqttfront.SessionRecord{Expiry: time.Hour}, func() { // who waits for a claim is told as it is given up
		go func() {
			_, err := r.Claim(ctx, key)
			claimed <- err
		}()
		<-s.heard
	})
	<-s.heard // it lasts now
	r.lose(h, &claim{Claim: &pb.Claim{Key: []byte(key), Number: h.number + 1}, node: other})
	<-s.said
	for hears := true; ; {
		select {
		case hears = <-s.heard:
			continue
		default:
		}
		if !hears {
			t.Error("a session is claimed, and what others claim does not come here")
		}
		break
	}
	cancel()
	if err := <-claimed; err != nil {
		t.Error(err)
	}
}
