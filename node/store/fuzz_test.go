package store_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/store"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// records encodes keys and values for FuzzRecords.
func appendRecord(b, key, value []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

func nextRecord(b []byte) (key, value, rest []byte, ok bool) {
	for _, part := range []*[]byte{&key, &value} {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return nil, nil, nil, false
		}
		*part, b = b[size:size+int(n)], b[size+int(n):] //nolint:gosec // checked
	}
	return key, value, b, len(key) > 0
}

// FuzzRecords opens databases with any records in them: what is none is left out, and the rest can be used.
func FuzzRecords(f *testing.F) {
	disk := vfs.NewMem()
	db, err := store.Open("db", store.Options{FS: disk})
	if err != nil {
		f.Fatal(err)
	}
	m := &proto.Message{Topic: "a/b", Payload: []byte("payload"), Properties: []byte{1, 1}, QoS: 2, Expires: time.UnixMilli(1 << 41)}
	log := db.Sessions().Create("user\x00id")
	log.Save(mqttfront.SessionRecord{Version: 5, Expiry: time.Hour, Disconnected: time.UnixMilli(1 << 40), Will: &mqttfront.WillRecord{Msg: *m, Delay: time.Second}})
	log.Subscribe(mqttfront.SubscriptionRecord{Filter: "$share/g/a/#", ID: 7, QoS: 1, NoLocal: true})
	log.Received(9)
	e := mqttfront.Entry{Msg: m, Pos: 1, QoS: 2, PacketID: 3, State: mqttfront.EntrySent, IDs: []uint32{1}, Mark: mqttfront.Mark{Epoch: 3, Seq: 4}, Group: &proto.Group{Name: "g", Filter: "a/#"}}
	log.Append(&e)
	db.Sessions().Retain(&proto.Message{Topic: "$local/a", Payload: []byte("x"), Retain: true})
	db.Custody().Put(core.Identity{Epoch: 1, Seq: 2}, m, &pb.StoredCustody{Own: true, Place: &pb.Place{Prefix: "a", Depth: 1}, Copy: &pb.Custody{Epoch: 1, Seq: 2}})
	db.Retained().Set(dht.Locate("a", 1), &core.Kept{Message: m, Stamp: 5, ID: core.Identity{Epoch: 1, Seq: 2}})
	db.Journal().Put("pnode", &pb.StoredPeer{Known: &pb.Known{Node: []byte("node")}})
	done := make(chan error, 1)
	db.Sync(func(err error) { done <- err })
	if err := <-done; err != nil {
		f.Fatal(err)
	}
	var all []byte
	if err := db.Records(func(key, value []byte, _ store.Subject) {
		all = appendRecord(all, key, value)
		f.Add(appendRecord(nil, key, value))
	}); err != nil {
		f.Fatal(err)
	}
	f.Add(all)
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		disk := vfs.NewMem()
		p, err := pebble.Open("db", &pebble.Options{FS: disk, FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}})
		if err != nil {
			t.Fatal(err)
		}
		for {
			key, value, rest, ok := nextRecord(b)
			if !ok {
				break
			}
			if err := p.Set(key, value, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			b = rest
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		db, err := store.Open("db", store.Options{FS: disk})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		db.Custody().Load(func(_ core.Identity, m *proto.Message, _ *pb.StoredCustody) { valid(t, m) })
		db.Received().Load(func(core.Identity, proto.Group, bool) {})
		db.Journal().Load(func(string, []byte) {})
		if err := db.Sessions().Retained(func(m *proto.Message) { valid(t, m) }); err != nil {
			t.Error(err)
		}
		err = db.Sessions().Load(func(_ string, rec mqttfront.SessionRecord, log mqttfront.SessionLog) {
			if rec.Will != nil {
				valid(t, &rec.Will.Msg)
			}
			log.Inbound()
			for _, e := range log.Fetch(0, 1<<20) {
				valid(t, e.Msg)
				log.Remove(&e)
			}
		})
		if err != nil {
			t.Error(err)
		}
		synced(t, db)
	})
}

func valid(t *testing.T, m *proto.Message) {
	t.Helper()
	if err := m.Validate(); err != nil {
		t.Errorf("%+v: %v", m, err)
	}
}

// quiet is Pebble's logger for who wants to hear nothing.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) {}
