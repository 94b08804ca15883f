package core_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core/storetest"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// TestRecordsOfNoLocation: a registration that was written before its location was, when the node crashed in between, is nobody's loss: others
// have it. It is taken out of the journal.
func TestRecordsOfNoLocation(t *testing.T) {
	s := newSim(t, 1, time.Millisecond)
	s.grow(2)
	j := storetest.NewJournal()
	place, owner := core.Place{Prefix: "a", Depth: 1}, s.nodes[1].id
	j.Put(core.OwnerKey(place, owner), &pb.StoredOwner{Owner: []byte(owner), Seq: 7})
	j.Put(core.InterestKey(place, owner, "a/b"), &pb.Interest{Filter: "a/b", Plain: true})
	n := core.New(core.Config{Self: s.nodes[0].id, Depth: 1, Small: 100, Limits: core.DefaultLimits(), Life: 2,
		Rand: rand.New(rand.NewPCG(1, 3)), Custody: storetest.NewCustody(), Retained: storetest.NewRetained(),
		Journal: j, Received: storetest.NoneReceived{}, Log: simLog()})
	n.At(time.Hour, epochStart)
	if u := n.Stats().Unreadable; u > 0 {
		t.Errorf("%d records can't be read", u)
	}
	j.Load(func(key string, _ []byte) { t.Errorf("%q is left", key) })
}
