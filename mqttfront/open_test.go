package mqttfront_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// holding is a Roaming with other nodes, where all sessions are here.
type holding struct{ claiming }

func (holding) Holds(string) bool                                        { return true }
func (holding) Claim(context.Context, string) (mqttfront.Arrival, error) { return nil, nil }

// TestOpenFor: where some sessions are through with a delivery and others are not, the swarm is told for which that outlive their connections
// it is kept, and again when there are fewer. Of those that have it on the disk alone it is told that they are through.
func TestOpenFor(t *testing.T) {
	m, two := mqttfront.Mark{Epoch: 1, Seq: 1}, mqttfront.Mark{Epoch: 1, Seq: 2}
	var mu sync.Mutex
	told := map[mqttfront.Mark][]string{}
	through := map[string]bool{}
	l := newLoner()
	l.openFor = func(ms []mqttfront.Mark, keys []string) {
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(keys)
		for _, m := range ms {
			told[m] = keys
		}
	}
	last := func(m mqttfront.Mark, keys ...string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Equal(told[m], keys)
		}
	}
	st := storetest.NewSessions()
	for _, id := range []string{"quick", "slow", "away"} {
		kept(st, id, mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("a")})
	}
	for _, id := range []string{"one", "other"} {
		kept(st, id, mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("b")})
	}
	kept(st, "alone", mqttfront.SessionRecord{Expiry: time.Hour, Disconnected: time.Now(), Born: 1, Subs: subscribed("c")})
	b, _, addr := startWith(t, l, st, nil, nil)
	b.Roam(holding{})
	lasting := func(id string) *raw {
		c, _ := connect(t, addr, connectOpts{id: id, resume: true, props: sessionExpiry(3600)})
		return c
	}
	quick, slow := lasting("quick"), lasting("slow")
	mortal, _ := connect(t, addr, connectOpts{id: "mortal"})
	mortal.subscribe(filter{"a", 2})
	b.Deliver([]mqttfront.Delivery{{Msg: &proto.Message{Topic: "a", QoS: 1}, Plain: true, Receipt: marked(m)}})
	b.Deliver([]mqttfront.Delivery{
		{Msg: &proto.Message{Topic: "b", QoS: 1}, Plain: true, Receipt: marked(two)},
		{Msg: &proto.Message{Topic: "c", QoS: 1}, Plain: true, Receipt: marked{Epoch: 1, Seq: 3}},
	})
	slow.expectPublish("")
	mortal.expectPublish("")
	quick.ack(packets.Puback, quick.expectPublish("").PacketID)
	eventually(t, "the swarm is told", last(m, "\x00away", "\x00slow"))
	slow.ack(packets.Puback, 1)
	eventually(t, "it is told again", last(m, "\x00away"))
	eventually(t, "it is told of two that are away", last(two, "\x00one", "\x00other"))
	mu.Lock()
	if len(told) != 2 {
		t.Errorf("the swarm is told of %v", told)
	}
	mu.Unlock()

	l = newLoner()
	l.receipts = map[mqttfront.Mark]mqttfront.Receipt{m: marked(m)}
	l.through = func(ms []mqttfront.Mark, key string) {
		mu.Lock()
		defer mu.Unlock()
		through[key] = slices.Equal(ms, []mqttfront.Mark{m})
	}
	b, _, addr = startWith(t, l, st.Left(), nil, nil)
	b.Roam(holding{})
	away := lasting("away")
	away.ack(packets.Puback, away.expectPublish("").PacketID)
	eventually(t, "the session is through", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return through["\x00away"] && len(through) == 1
	})
}
