package storetest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Custody tests a kind of core.Custody. open returns an empty one, and reopen what a later start of the
// program finds: for one in memory the same.
func Custody(t *testing.T, open func(t *testing.T) core.Custody, reopen func(t *testing.T, c core.Custody) core.Custody) {
	for _, c := range []struct {
		name string
		run  func(h *custody)
	}{
		{"empty", custodyEmpty}, {"every field", custodyFields}, {"identities", custodyIdentities}, {"put twice", custodyTwice},
		{"records", custodyRecords}, {"delete", custodyDelete}, {"sizes", custodySizes}, {"against a map", custodyRandom}, {"readers beside", custodyReaders},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(&custody{T: t, c: open(t), reopen: reopen})
		})
	}
}

// custody is one store under test.
type custody struct {
	*testing.T
	c      core.Custody
	reopen func(t *testing.T, c core.Custody) core.Custody
}

// again closes the store and opens it.
func (h *custody) again() {
	h.Helper()
	h.c = h.reopen(h.T, h.c)
}

// wants checks that exactly these messages are kept.
func (h *custody) wants(want map[core.Identity]*proto.Message) {
	h.Helper()
	size := 0
	for id, m := range want {
		size += m.Size()
		got := h.c.Get(id)
		if got == nil {
			h.Errorf("%v is not kept", id)
			continue
		}
		if err := sameMessage(got, m); err != nil {
			h.Errorf("%v: %v", id, err)
		}
	}
	if got := h.c.Len(); got != len(want) {
		h.Errorf("%d messages are kept, want %d", got, len(want))
	}
	if got := h.c.Bytes(); got != size {
		h.Errorf("%d bytes are kept, want %d", got, size)
	}
}

func sameMessage(got, want *proto.Message) error {
	switch {
	case got.Topic != want.Topic:
		return fmt.Errorf("topic %.80q, want %.80q", got.Topic, want.Topic)
	case !bytes.Equal(got.Payload, want.Payload):
		return fmt.Errorf("payload of %d bytes is not the one of %d", len(got.Payload), len(want.Payload))
	case !bytes.Equal(got.Properties, want.Properties):
		return fmt.Errorf("properties %x, want %x", got.Properties, want.Properties)
	case got.QoS != want.QoS || got.Retain != want.Retain:
		return fmt.Errorf("QoS %d, retain %v, want %d, %v", got.QoS, got.Retain, want.QoS, want.Retain)
	case got.Expires.IsZero() != want.Expires.IsZero() || got.Expires.Sub(want.Expires).Abs() >= time.Millisecond:
		return fmt.Errorf("expires %v, want %v", got.Expires, want.Expires)
	}
	return nil
}

func text(payload string) *proto.Message {
	return &proto.Message{Topic: "a/b", Payload: []byte(payload), QoS: 1}
}

func custodyEmpty(h *custody) {
	id := core.Identity{Epoch: 1, Seq: 1}
	if m := h.c.Get(id); m != nil {
		h.Errorf("an empty store has %+v", m)
	}
	h.c.Delete(id) // of what was never there
	h.wants(nil)
	h.again()
	h.wants(nil)
}

func custodyFields(h *custody) {
	want := map[core.Identity]*proto.Message{
		{Epoch: 1, Seq: 1}: {Topic: "t"},
		{Epoch: 1, Seq: 2}: {Topic: "a/b", Payload: []byte("on"), Properties: []byte{1, 1}, QoS: 2, Retain: true,
			Expires: time.Now().Add(time.Hour)},
		{Epoch: 1, Seq: 3}: {Topic: "/ä//", Payload: []byte{0, 0xff}, QoS: 1},
		{Epoch: 1, Seq: 4}: {Topic: "over", Expires: time.Unix(1, 0)}, // its life is over; the store does not judge
		{Epoch: 1, Seq: 5}: {Topic: "large", Payload: bytes.Repeat([]byte("0123456789abcdef"), 1<<16)},
	}
	for id, m := range want {
		h.c.Put(id, m, record())
	}
	h.wants(want)
	h.again()
	h.wants(want)
}

// custodyIdentities: both parts of an identity count, to their last bit.
func custodyIdentities(h *custody) {
	want := map[core.Identity]*proto.Message{}
	for _, epoch := range []uint64{1, 2, 255, 256, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		for _, seq := range []uint64{1, 2, 255, 256, 1 << 32, 1 << 63, 1<<64 - 1} {
			id := core.Identity{Epoch: epoch, Seq: seq}
			want[id] = text(fmt.Sprint(id))
			h.c.Put(id, want[id], record())
		}
	}
	h.again()
	h.wants(want)
	gone := core.Identity{Epoch: 256, Seq: 1}
	h.c.Delete(gone)
	delete(want, gone)
	h.wants(want)
}

// custodyTwice: what is there stays, whatever is put in its place.
func custodyTwice(h *custody) {
	id := core.Identity{Epoch: 7, Seq: 7}
	h.c.Put(id, text("first"), record())
	h.c.Put(id, text("the second is longer"), record())
	h.wants(map[core.Identity]*proto.Message{id: text("first")})
	h.c.Delete(id)
	h.c.Put(id, text("anew"), record())
	h.again()
	h.wants(map[core.Identity]*proto.Message{id: text("anew")})
}

func custodyDelete(h *custody) {
	want := map[core.Identity]*proto.Message{}
	for seq := uint64(1); seq <= 100; seq++ {
		id := core.Identity{Epoch: 1, Seq: seq}
		want[id] = text(fmt.Sprint(seq))
		h.c.Put(id, want[id], record())
	}
	for seq := uint64(100); seq > 0; seq -= 3 {
		id := core.Identity{Epoch: 1, Seq: seq}
		delete(want, id)
		h.c.Delete(id)
		h.c.Delete(id)
		if seq < 3 {
			break
		}
	}
	h.wants(want)
	h.again()
	h.wants(want)
	for id := range want {
		h.c.Delete(id)
	}
	h.again()
	h.wants(nil)
}

// custodySizes: the sums are those of the messages, however they come and go.
func custodySizes(h *custody) {
	want := map[core.Identity]*proto.Message{}
	for n := range 20 {
		id := core.Identity{Epoch: 3, Seq: uint64(n + 1)} //nolint:gosec // small
		want[id] = &proto.Message{Topic: "t", Payload: make([]byte, 1<<n>>4), Properties: bytes.Repeat([]byte{1}, n)}
		h.c.Put(id, want[id], record())
		h.wants(want)
	}
	for id := range maps.Clone(want) {
		h.c.Delete(id)
		delete(want, id)
		h.wants(want)
	}
}

// custodyRandom compares with a map.
func custodyRandom(h *custody) {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same every time
	want := map[core.Identity]*proto.Message{}
	for i := range 2000 {
		id := core.Identity{Epoch: r.Uint64N(5) + 1, Seq: r.Uint64N(40) + 1}
		switch r.IntN(3) {
		case 0, 1:
			m := text(fmt.Sprint(i))
			h.c.Put(id, m, record())
			if want[id] == nil {
				want[id] = m
			}
		case 2:
			h.c.Delete(id)
			delete(want, id)
		}
		if got := h.c.Get(id); (got != nil) != (want[id] != nil) {
			h.Fatalf("step %d: %v is kept: %v", i, id, got != nil)
		}
		if i%500 == 499 {
			h.again()
			h.wants(want)
		}
	}
}

// custodyReaders: the sums may be read, for metrics, beside the core's own calls.
func custodyReaders(h *custody) {
	beside(func() {
		for seq := uint64(1); seq <= 500; seq++ {
			h.c.Put(core.Identity{Epoch: 1, Seq: seq}, text("x"), record())
			h.c.Delete(core.Identity{Epoch: 1, Seq: seq})
		}
	}, func() {
		if h.c.Len() < 0 || h.c.Len() > 1 || h.c.Bytes() < 0 || h.c.Bytes() > text("x").Size() {
			h.Errorf("%d messages, %d bytes", h.c.Len(), h.c.Bytes())
		}
	})
	h.wants(nil)
}

// beside runs read again and again until work is done.
func beside(work, read func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				read()
			}
		}
	})
	work()
	close(done)
	wg.Wait()
}

// record returns a record of a message that is to be kept over a restart.
func record() *pb.StoredCustody {
	return &pb.StoredCustody{Own: true, Served: true, AtMs: 5, Place: &pb.Place{Prefix: "a", Depth: 1}}
}

// custodyRecords: records come back, the last for each message; a message without one is kept until the end of the process.
func custodyRecords(h *custody) {
	ids := []core.Identity{{Epoch: 1, Seq: 1}, {Epoch: 1, Seq: 2}, {Epoch: 1, Seq: 3}}
	h.c.Put(ids[0], text("with a record"), record())
	h.c.Put(ids[1], text("without"), nil)
	h.c.Put(ids[2], text("first without, then with one"), nil)
	later := record()
	later.AtMs = 7
	h.c.Put(ids[2], h.c.Get(ids[2]), later)
	h.c.Put(ids[2], h.c.Get(ids[2]), nil) // changes nothing
	if h.c.Get(ids[1]) == nil || h.c.Len() != 3 {
		h.Errorf("%d messages are kept, want 3", h.c.Len())
	}
	h.again()
	found := map[core.Identity]int64{}
	h.c.Load(func(id core.Identity, m *proto.Message, r *pb.StoredCustody) {
		if m == nil || h.c.Get(id) == nil || !r.GetOwn() || !r.GetServed() || r.GetPlace().GetPrefix() != "a" {
			h.Errorf("%v came back as %v with %v", id, m, r)
		}
		found[id] = r.GetAtMs()
	})
	if want := map[core.Identity]int64{ids[0]: 5, ids[2]: 7}; !maps.Equal(found, want) {
		h.Errorf("records %v came back, want %v", found, want)
	}
	h.c.Delete(ids[0])
	h.c.Delete(ids[2])
	h.again()
	h.c.Load(func(id core.Identity, _ *proto.Message, _ *pb.StoredCustody) {
		h.Errorf("%v was deleted, and is there", id)
	})
}
