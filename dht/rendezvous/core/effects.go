package core

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// EffectKind tells what the driver is to do.
type EffectKind uint8

// The effects.
const (
	// Send: send Frame to node To, after everything that was sent to it before. Frames to a node that is not
	// up are dropped; the core knows.
	Send EffectKind = iota
	// Deliver: hand Delivery to this node's broker, after the deliveries before it.
	Deliver
	// Call: run Call, outside of the core.
	Call
	// Dial: connect to node To at Addresses, and keep trying.
	Dial
	// Forget: stop trying to connect to node To.
	Forget
	// Lookup: find the nodes closest to Place, and report them by Node.LookedUp.
	Lookup
	// Accept: acknowledge packet Packet of the client at Delivery.Origin, saying Custody, once what was said so far to Custody will
	// survive, unless AcceptKept came first: Once tells.
	Accept
	// Quiet: until Until, nobody beyond this node wants QoS 0 messages to Place, which its own plain
	// subscribers have had.
	Quiet
	// Awake: take back every Quiet, before anything else is done.
	Awake
	// Left: this node has left politely; nobody needs it any more.
	Left
	// Reconnect: what node To is sent seems to go nowhere: give the connection up, and make another.
	Reconnect
	// Safe: call Call, as an event, once what was said so far to Custody, Retained, Journal and Received will survive.
	Safe
	// SafeInTime: the same, where nobody waits for it: what is gone before it is written need not be.
	SafeInTime
	// AcceptKept: as Accept, but at once: others keep the message, or those that it is for have it.
	AcceptKept
)

// Effect is something that the driver is to do.
type Effect struct {
	Frame     any // *proto.Publish, *proto.Deliver or a frame of package pb
	Call      func()
	To        NodeID
	Addresses []string
	Place     Place
	Until     time.Duration
	Delivery  Delivery
	Once      *Once
	Packet    uint16
	Kind      EffectKind
	Custody   CustodyAt // Accept: who has the message
}

// Delivery is a message for subscribers at this node.
type Delivery struct {
	Message *proto.Message // without a Receipt it is lent, and Groups are: good until the effect is carried out
	Groups  []proto.Group
	Origin  any      // what was given to Publish, when the message is this node's own
	Receipt *Receipt // to be given to Node.Done; nil where nobody waits for it
	Plain   bool
	Recent  bool // it was matched moments ago
}

// Take returns the effects of the events since the last Take. The slice is reused by the events after the
// next Take, so that at most two are in use. A Publish or a Deliver in them is good until the next Take.
func (n *Node) Take(reuse []Effect) []Effect {
	n.flushHasty()
	n.flushAcks()
	n.flushFreed()
	n.flushDeleted()
	n.frames, n.takenFrames = n.takenFrames, n.frames
	n.frames.Reset() // whose effects have been carried out
	out := n.out
	n.out = reuse[:0]
	return out
}

func (n *Node) send(to NodeID, frame any) {
	n.out = append(n.out, Effect{Kind: Send, To: to, Frame: frame})
}

func (n *Node) call(f func()) {
	if f != nil {
		n.out = append(n.out, Effect{Kind: Call, Call: f})
	}
}

// safe has do run as an event of its own, once what was said to the stores so far will survive.
func (n *Node) safe(do func()) {
	n.out = append(n.out, Effect{Kind: Safe, Call: do})
}

// safeInTime is safe for what nobody waits for.
func (n *Node) safeInTime(do func()) {
	n.out = append(n.out, Effect{Kind: SafeInTime, Call: do})
}
