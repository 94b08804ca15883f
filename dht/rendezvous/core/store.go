package core

import (
	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Custody keeps the messages that this node has a duty not to lose: its outbox, and what it serves or holds
// copies of as a member of sets. The core keeps only what it needs to decide; the messages themselves are
// here. Calls come from the core's driver, one at a time; they must not block. A durable implementation
// gathers the writes and commits them in groups; acknowledgements wait for that at the driver.
type Custody interface {
	// Put keeps a message until Delete. The message is the store's to keep: it shares memory with no buffer. With a record
	// it is kept over a restart too, if its record is not nil; putting a message again replaces its record, where there
	// is one.
	Put(id Identity, m *proto.Message, record *pb.StoredCustody)
	// Get returns a message that is kept, or nil.
	Get(id Identity) *proto.Message
	// Delete lets go of a message.
	Delete(id Identity)
	// Together has everything that do says, to any of the stores that the node has, kept over a restart as a whole or not at
	// all. It does not nest.
	Together(do func())
	// Len and Bytes say how much is kept.
	Len() int
	Bytes() int
	// Load calls each with what was kept over a restart, in any order.
	Load(each func(id Identity, m *proto.Message, record *pb.StoredCustody))
}

// Journal keeps what the core has to know after a restart beside messages, as records under keys. Calls come one at a time and
// must not block; a durable implementation is to Custody what that says.
type Journal interface {
	// Put sets a record. The record must not be changed afterwards.
	Put(key string, record protobuf.Message)
	// Delete forgets a record, if it is there.
	Delete(key string)
	// Load calls each with all records, in any order. The record is good during the call.
	Load(each func(key string, record []byte))
}

// Received knows, over restarts, which messages this node's broker has on its disk, or has had, so that none is taken twice.
// It is written by who keeps the broker's sessions, together with them.
type Received interface {
	// Load calls each with the messages that came: for plain subscribers, or, where that is not zero, for a shared
	// subscription; once for each session that it is open for, or, with open false, where nothing waits for it any more.
	Load(each func(id Identity, g proto.Group, open bool))
	// Forget says that the messages of an epoch up to a number can't come again.
	Forget(epoch, upto uint64)
}

// Kept is a retained message, or the tombstone of one.
type Kept struct {
	Message *proto.Message // a tombstone's has no payload
	Stamp   uint64         // by the hybrid logical clock of the rendezvous that it came to first
	ID      Identity       // decides where stamps are equal
	Cleared bool
}

// Newer reports whether k replaces other.
func (k *Kept) Newer(other *Kept) bool {
	if k.Stamp != other.Stamp {
		return k.Stamp > other.Stamp
	}
	if k.ID.Epoch != other.ID.Epoch {
		return k.ID.Epoch > other.ID.Epoch
	}
	return k.ID.Seq > other.ID.Seq
}

// Retained keeps the retained messages of the locations that this node is a member of. Calls come one at a
// time and must not block.
type Retained interface {
	// Set keeps k at a location under its topic, if it is newer than what is there, and reports whether it
	// was.
	Set(at dht.Location, k *Kept) bool
	// Get returns what is kept for a topic, a tombstone too, or nil.
	Get(at dht.Location, topic string) *Kept
	// Delete forgets a topic.
	Delete(at dht.Location, topic string)
	// Drop forgets a location.
	Drop(at dht.Location)
	// Match visits what is kept at a location for the topics that match a filter, tombstones too, until visit
	// says no. "#" matches every topic there. visit must not change the store.
	Match(at dht.Location, filter string, visit func(*Kept) bool)
	// Len is the number of topics at a location, tombstones included.
	Len(at dht.Location) int
	// Total and Bytes say how many retained messages there are, tombstones left out, and their size.
	Total() int
	Bytes() int
	// Tombstones says the same of tombstones.
	Tombstones() (number, bytes int)
}
