package core

import (
	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// Custody keeps the messages that this node has a duty not to lose: its outbox, and what it serves or holds
// copies of as a member of sets. The core keeps only what it needs to decide; the messages themselves are
// here. Calls come from the core's driver, one at a time; they must not block. A durable implementation
// gathers the writes and commits them in groups; acknowledgements wait for that at the driver.
type Custody interface {
	// Put keeps a message until Delete. Putting a message that is there already changes nothing. The
	// message is the store's to keep: it shares memory with no buffer.
	Put(id Identity, m *proto.Message)
	// Get returns a message that is kept, or nil.
	Get(id Identity) *proto.Message
	// Delete lets go of a message.
	Delete(id Identity)
	// Len and Bytes say how much is kept.
	Len() int
	Bytes() int
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
