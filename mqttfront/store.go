package mqttfront

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// SessionStore keeps what of sessions outlives connections and, where it is durable, the process. The broker
// has it keep sessions with an expiry, and of others the will alone. Package storetest has what every implementation must satisfy.
//
// Nothing here waits for a disk: what is said is in order, and Sync tells when it is safe.
type SessionStore interface {
	// Load calls each, once for each session kept, before anything else is asked of the store.
	Load(each func(key string, rec SessionRecord, log SessionLog)) error
	// Create begins the log of a session, in the place of one with the same key, which is kept until the first Save.
	Create(key string) SessionLog
	// Retain keeps a message that is retained below $local, in the place of one with the same topic; Unretain forgets it.
	// Retained calls each with those that are kept.
	Retain(m *proto.Message)
	Unretain(topic string)
	Retained(each func(*proto.Message)) error
	// Sync calls done once when everything said so far will survive, or can't be made to. done may be called
	// from within and must not block.
	Sync(done func(error))
	// Room reports whether more of what waits in queues may be taken from them. Where it may not, because the disk takes longer to
	// note what was done with them than that takes, again is called once, not from within, when more may; it must not block.
	Room(again func()) bool
	// Err returns what keeps the store from making anything safe at present, nil if nothing does. Meanwhile QoS 1 and 2
	// messages are refused. It must cost next to nothing.
	Err() error
	// Together has everything that do says to the store and its logs kept as a whole or not at all. It does not nest.
	Together(do func())
}

// FetchSize is about how many bytes of messages are taken from a queue at a time.
const FetchSize = 256 << 10

// SessionLog keeps one session. Calls come one at a time.
type SessionLog interface {
	// Save keeps the record, but for its subscriptions, in the place of the one before.
	Save(rec SessionRecord)
	// Subscribe keeps a subscription, in the place of one with the same filter. Unsubscribe forgets it.
	Subscribe(sub SubscriptionRecord)
	Unsubscribe(filter string)
	// Rename gives the session another key; Save follows.
	Rename(key string)
	// Append puts a message into the session's queue, and sets Stored. Positions rise, but for what comes from another node,
	// which goes before this node's own. The same Msg is appended to
	// the logs of all sessions that it waits for, one right after another, and should be kept once.
	Append(e *Entry)
	// Sent notes the packet ID and state of an entry that was sent.
	Sent(e *Entry)
	// Remove forgets an entry, as Append or Fetch left it. It is called once for each.
	Remove(e *Entry)
	// Fetch returns the first n entries behind a position, fewer at the end of the queue, and fewer, but one at least, where their
	// messages have more than FetchSize.
	Fetch(after uint64, n int) []Entry
	// Queued is what the queue has when the log comes from Load.
	Queued() Queued
	// Received and Released note packet IDs of QoS 2 messages from the client that wait for PUBREL.
	Received(packetID uint16)
	Released(packetID uint16)
	// Inbound returns the packet IDs that wait for PUBREL.
	Inbound() []uint16
	// Had keeps what the session has had, and Forget forgets all that. Marks returns it when the log comes from Load.
	Had(r MarkRun)
	Forget()
	Marks() []MarkRun
	// Delete forgets the session. Nothing is said after it.
	Delete()
}

// SessionRecord is a session without its messages. Its filters are without the mount of its listener.
type SessionRecord struct {
	Version      byte          // of the protocol that the client last spoke: 3, 4 or 5
	Expiry       time.Duration // 0: there is no session, but a will that its client has left
	Disconnected time.Time     // zero while there is a connection
	Born         uint64        // by chance; tells it from others under its key; 0: not known
	Claim        uint64        // number of the one that it came here by; 0: it did not
	IDs          byte          // the block of packet IDs that it uses for what its client gets, 1 to 16; 0: all
	Subs         []SubscriptionRecord
	Will         *WillRecord // what is to be sent if the connection is lost, or after the delay
	Arriving     *Arriving   // it comes from another node
	Departing    *Departing  // it goes to another node
}

// SubscriptionRecord is one subscription of a session.
type SubscriptionRecord struct {
	Filter            string // with $share/NAME/
	ID                uint32 // subscription identifier; 0: none
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	// Later says that it was made here while its session was still coming from another node, which was sent nothing for it.
	Later bool
}

// WillRecord is a will as the client gave it.
type WillRecord struct {
	Msg    proto.Message // without Expires
	Expiry time.Duration // from when it is sent; 0: never
	Delay  time.Duration
	// Epoch is with 1 the identity of the will's message, where other nodes know it (see WillKeeping); 0: they do not.
	Epoch uint64
}

// Entry is a message on its way to one session.
type Entry struct {
	Msg     *proto.Message
	Receipt Receipt // told when the entry is over; a durable store keeps its Mark; may be nil
	Group   *Group  // the shared subscription that it came by, if any
	IDs     []uint32
	Pos     uint64
	Stored  uint64 // the SessionLog's own, which has set it
	Mark    Mark   // of its Receipt, from before this process was started or from another node
	Alone   string // what the swarm calls the session, where its Receipt is of a delivery for that alone
	// PacketID is set once the entry was sent.
	PacketID uint16
	State    EntryState
	QoS      byte // at which it goes to the client
	Retain   bool // the flag that goes to the client

	held    *holding // the broker's; a durable store does without
	counted bool     // its memory is
	safeAt  uint64   // it goes out when the session is safe up to here
	fresh   bool     // it has a packet ID, and was not sent yet
	recent  bool     // as in Delivery, by which it came
}

// Queued says what is in the queue of a session.
type Queued struct {
	Entries int
	Bytes   int64  // of their messages
	Last    uint64 // position of the last entry
}

// EntryState is how far the delivery of an entry is.
type EntryState byte

// The states of an entry.
const (
	EntryWaiting  EntryState = iota // not sent yet
	EntrySent                       // PUBLISH sent; PUBACK or PUBREC is to come
	EntryReleased                   // PUBREL sent; PUBCOMP is to come
)
