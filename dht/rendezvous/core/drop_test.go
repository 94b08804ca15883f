package core

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Stores that take what a location that is dropped says to them, and nothing else.
type (
	dropCustody  struct{ Custody }
	dropRetained struct{ Retained }
	dropJournal  struct{ Journal }
	dropReceived struct{ Received }
)

func (dropCustody) Delete(Identity)                                        {}
func (dropCustody) Load(func(Identity, *proto.Message, *pb.StoredCustody)) {}
func (dropCustody) Len() int                                               { return 0 }
func (dropCustody) Bytes() int                                             { return 0 }
func (dropRetained) Drop(dht.Location)                                     {}
func (dropRetained) Len(dht.Location) int                                  { return 0 }
func (dropJournal) Delete(string)                                          {}
func (dropJournal) Load(func(string, []byte))                              {}
func (dropReceived) Forget(uint64, uint64)                                 {}
func (dropReceived) Load(func(Identity, proto.Group, bool))                {}

// TestDroppedIsNotOver has a node that has served a part of an epoch, and holds second copies of the rest, be no member of the
// set any more. It lets go of the copies; a subscriber's node to which it delivered its part must not hear that they are over:
// the rendezvous may still have them to deliver, and would be told that they have come.
func TestDroppedIsNotOver(t *testing.T) {
	self, other := MakeNodeID(1, "self"), MakeNodeID(2, "other")
	n := New(Config{Self: self, Depth: 1, Small: 100, Limits: DefaultLimits(), Rand: rand.New(rand.NewPCG(1, 1)), Life: 1,
		Custody: dropCustody{}, Retained: dropRetained{}, Journal: dropJournal{}, Received: dropReceived{}, Log: slog.New(slog.DiscardHandler)})
	n.At(time.Hour, time.Now())
	p := n.addPeer(other)
	p.up, p.reach = true, true
	place := Place{"drop", 1}
	l := n.newLocation(place, place.Location())
	l.phase = standby
	const epoch = 7
	s := n.stream(l, epoch)
	s.told = map[NodeID]uint64{other: 0} // 3 was delivered there
	s.seen.add(3)
	s.release(3)
	for seq := range uint64(2) { // 1 and 2 wait for it
		s.seen.add(seq + 1)
		n.enter(&entry{l: l, s: s, id: Identity{epoch, seq + 1}, m: &proto.Message{Topic: "drop/x", QoS: 1}, copy: true, left: 1,
			shares: []share{{node: other, plain: true}}})
	}
	n.drop(l)
	n.tickStreams()
	for _, e := range n.Take(nil) {
		if f, ok := e.Frame.(*pb.Forget); ok {
			t.Errorf("it says that messages are over that it has dropped: %v", f)
		}
	}
}
