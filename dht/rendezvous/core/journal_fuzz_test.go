package core_test

import (
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// anyRecords is a journal and a custody with any records in them.
type anyRecords struct {
	*storetest.MemoryCustody
	*storetest.MemoryJournal
	b []byte
}

func (a *anyRecords) each(do func(key string, record []byte)) {
	for b := a.b; len(b) > 0; {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return
		}
		key := string(b[size : size+int(n)]) //nolint:gosec // checked
		b = b[size+int(n):]                  //nolint:gosec // checked
		n, size = binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return
		}
		if key != "" {
			do(key, b[size:size+int(n)]) //nolint:gosec // checked
		}
		b = b[size+int(n):] //nolint:gosec // checked
	}
}

type anyJournal struct{ *anyRecords }

func (j anyJournal) Put(key string, r gproto.Message) { j.MemoryJournal.Put(key, r) }
func (j anyJournal) Delete(key string)                { j.MemoryJournal.Delete(key) }
func (j anyJournal) Load(each func(string, []byte)) {
	j.each(func(key string, record []byte) {
		if key[0] != 'X' {
			each(key, record)
		}
	})
}

type anyCustody struct {
	*storetest.MemoryCustody
	a *anyRecords
}

func (c anyCustody) Load(each func(core.Identity, *proto.Message, *pb.StoredCustody)) {
	seq := uint64(0)
	c.a.each(func(key string, record []byte) {
		var r pb.StoredCustody
		if key[0] == 'X' && gproto.Unmarshal(record, &r) == nil {
			seq++
			each(core.Identity{Epoch: 7, Seq: seq}, &proto.Message{Topic: "a/b", Payload: []byte("x"), QoS: byte(len(key)) % 3}, &r)
		}
	})
}

// FuzzJournal starts a node with any journal and any records of custody, and lets time pass: what can't be meant is counted, and
// the node lives.
func FuzzJournal(f *testing.F) {
	s := newSim(f, 1, time.Millisecond)
	s.grow(3)
	s.run(3 * time.Second)
	for _, v := range s.nodes {
		v.subscribe("a/#", 2)
		v.subscribe("$share/g/+/b", 2)
	}
	s.run(8 * time.Second)
	s.nodes[0].publish("a/b", 1, true, "v")
	s.run(5 * time.Second)
	put := func(b []byte, key string, record []byte) []byte {
		b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
		return append(binary.AppendUvarint(b, uint64(len(record))), record...)
	}
	for _, v := range s.nodes {
		var all []byte
		v.disk.live.journal.Load(func(key string, record []byte) {
			all = put(all, key, record)
			f.Add(put(nil, key, record))
		})
		own, err := gproto.Marshal(&pb.StoredCustody{Own: true, Place: &pb.Place{Prefix: "a", Depth: 1}, AtMs: 5})
		if err != nil {
			f.Fatal(err)
		}
		second, err := gproto.Marshal(&pb.StoredCustody{Place: &pb.Place{Prefix: "a", Depth: 1}, Copy: &pb.Custody{Epoch: 7, Seq: 2,
			Shares: []*pb.Custody_Share{{Node: []byte(v.id), Plain: true, HoldS: 60}}, Unsettled: true}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(put(put(all, "X1", own), "X22", second))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &anyRecords{storetest.NewCustody(), storetest.NewJournal(), b}
		n := core.New(core.Config{Self: s.nodes[0].id, Depth: 1, Small: 100, Limits: core.DefaultLimits(), Life: 2,
			Rand: rand.New(rand.NewPCG(1, 3)), Custody: anyCustody{a.MemoryCustody, a}, Retained: storetest.NewRetained(),
			Journal: anyJournal{a}, Received: storetest.NoneReceived{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		for i := range 200 {
			n.At(time.Hour+time.Duration(i)*time.Second, epochStart.Add(time.Duration(i)*time.Second))
			if n.Tick(); i == 100 {
				n.Register("a/#", core.Interest{Plain: true, QoS: 1}, nil)
			}
			for _, e := range n.Take(nil) {
				if e.Kind == core.Safe || e.Kind == core.Call {
					e.Call()
				}
			}
		}
	})
}
