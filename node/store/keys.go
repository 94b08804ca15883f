package store

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// A key begins with the kind of its record. Numbers are big-endian, so that records are in their order.
const (
	kindAbout        = 'a' // a name -> what it is of the database
	kindCustody      = 'c' // epoch, seq -> StoredCustody
	kindHad          = 'h' // epoch, seq, name of the group, 0, its filter -> nothing: what the sessions had of that message
	kindInbound      = 'i' // session, packet ID -> nothing
	kindJournal      = 'j' // a key of the core's -> its record
	kindLocal        = 'l' // topic -> StoredMessage: retained for the clients of this node alone
	kindMessage      = 'm' // number -> StoredMessage
	kindEntry        = 'q' // session, position -> StoredEntry
	kindRetained     = 'r' // location, topic -> StoredRetained
	kindSession      = 's' // number -> StoredSession
	kindSubscription = 'u' // session, filter -> StoredSubscription
	kindRun          = 'w' // session, turn, 1 if it was at other nodes, epoch, first seq -> last seq: what the session has had
	kindNone         = 'z' // behind them all
)

func number(kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 24), kind), n)
}

func messageKey(id uint64) string { return string(number(kindMessage, id)) }

func sessionKey(id uint64) string { return string(number(kindSession, id)) }

func entryKey(session, pos uint64) string {
	return string(binary.BigEndian.AppendUint64(number(kindEntry, session), pos))
}

func inboundKey(session uint64, packetID uint16) string {
	return string(binary.BigEndian.AppendUint16(number(kindInbound, session), packetID))
}

func subscriptionKey(session uint64, filter string) string {
	return string(append(number(kindSubscription, session), filter...))
}

func custodyKey(id core.Identity) string {
	return string(binary.BigEndian.AppendUint64(number(kindCustody, id.Epoch), id.Seq))
}

func retainedKey(at dht.Location, topic string) string {
	return string(kindRetained) + string(at[:]) + topic
}

// under is the range of the keys that begin with a prefix.
func under(prefix []byte) *pebble.IterOptions {
	return &pebble.IterOptions{LowerBound: prefix, UpperBound: behind(prefix)}
}

// behind is the smallest key that is behind all with a prefix that does not end with 0xff alone.
func behind(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// each calls do with the keys under a prefix, without the prefix, and their values, in order, until it says no. They are good
// during the call.
func (d *DB) each(prefix []byte, do func(rest, value []byte) bool) error {
	return d.iterate(under(prefix), func(key, value []byte) bool { return do(key[len(prefix):], value) })
}

// Subject is what a record is about.
type Subject byte

// The subjects of records.
const (
	OfOthers   Subject = iota // nodes, locations, registrations, who is to get what
	OfMessages                // messages, retained ones too
	OfSessions
)

// Records calls do with all records that are in the database, for tests and for who wants to see what is there. They are good
// during the call.
func (d *DB) Records(do func(key, value []byte, of Subject)) error {
	return d.iterate(&pebble.IterOptions{UpperBound: []byte{kindNone}}, func(key, value []byte) bool {
		of := OfOthers
		switch key[0] {
		case kindMessage, kindRetained, kindLocal:
			of = OfMessages
		case kindSession, kindSubscription, kindEntry, kindInbound, kindHad, kindRun:
			of = OfSessions
		}
		do(key, value, of)
		return true
	})
}

// iterate calls do with the keys in a range and their values, in order, until it says no.
func (d *DB) iterate(r *pebble.IterOptions, do func(key, value []byte) bool) error {
	it, err := d.pb.NewIter(r)
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			_ = it.Close()
			return err
		}
		if !do(it.Key(), value) {
			break
		}
	}
	return it.Close() // what went wrong on the way
}
