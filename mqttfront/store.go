package mqttfront

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// SessionStore keeps what of sessions outlives connections and, where it is durable, the process. The broker
// has it keep sessions with an expiry only. Package storetest has what every implementation must satisfy.
//
// Nothing here waits for a disk: what is said is in order, and Sync tells when it is safe.
type SessionStore interface {
	// Load calls each, once for each session kept, before anything else is asked of the store.
	Load(each func(key string, rec SessionRecord, log SessionLog)) error
	// Create begins the log of a session, in the place of one with the same key.
	Create(key string) SessionLog
	// Sync calls done once when everything said so far will survive, or can't be made to. done may be called
	// from within and must not block.
	Sync(done func(error))
}

// SessionLog keeps one session. Calls come one at a time.
type SessionLog interface {
	// Save keeps the record, but for its subscriptions, in the place of the one before.
	Save(rec SessionRecord)
	// Subscribe keeps a subscription, in the place of one with the same filter. Unsubscribe forgets it.
	Subscribe(sub SubscriptionRecord)
	Unsubscribe(filter string)
	// Append puts a message at the end of the session's queue; positions rise. The same Msg is appended to
	// the logs of all sessions that it waits for, one right after another, and should be kept once.
	Append(e Entry)
	// Sent notes the packet ID and state of an entry that was sent.
	Sent(pos uint64, packetID uint16, state EntryState)
	// Remove forgets an entry.
	Remove(pos uint64)
	// Fetch returns the first n entries behind a position, fewer at the end of the queue.
	Fetch(after uint64, n int) []Entry
	// Received and Released note packet IDs of QoS 2 messages from the client that wait for PUBREL.
	Received(packetID uint16)
	Released(packetID uint16)
	// Inbound returns the packet IDs that wait for PUBREL.
	Inbound() []uint16
	// Delete forgets the session. Nothing is said after it.
	Delete()
}

// SessionRecord is a session without its messages. Its filters are without the mount of its listener.
type SessionRecord struct {
	Version      byte // of the protocol that the client last spoke: 3, 4 or 5
	Expiry       time.Duration
	Disconnected time.Time // zero while there is a connection
	Subs         []SubscriptionRecord
	Will         *WillRecord // what is to be sent if the connection is lost, or after the delay
}

// SubscriptionRecord is one subscription of a session.
type SubscriptionRecord struct {
	Filter            string // with $share/NAME/
	ID                uint32 // subscription identifier; 0: none
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
}

// WillRecord is a will as the client gave it.
type WillRecord struct {
	Msg    proto.Message // without Expires
	Expiry time.Duration // from when it is sent; 0: never
	Delay  time.Duration
}

// Entry is a message on its way to one session.
type Entry struct {
	Msg     *proto.Message
	Receipt Receipt // told when the entry is over; a durable store keeps what it needs of it; may be nil
	Group   *Group  // the shared subscription that it came by, if any
	IDs     []uint32
	Pos     uint64
	// PacketID is set once the entry was sent.
	PacketID uint16
	State    EntryState
	QoS      byte // at which it goes to the client
	Retain   bool // the flag that goes to the client

	held *holding // the broker's; a durable store does without
}

// EntryState is how far the delivery of an entry is.
type EntryState byte

// The states of an entry.
const (
	EntryWaiting  EntryState = iota // not sent yet
	EntrySent                       // PUBLISH sent; PUBACK or PUBREC is to come
	EntryReleased                   // PUBREL sent; PUBCOMP is to come
)
