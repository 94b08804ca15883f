package roam

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// What the protocol fixes.
const (
	// Prefix begins the topics of claims, which no client can publish or subscribe to.
	Prefix = "$session-"
	// buckets is how many first levels there are, and so locations that all sessions of a swarm are spread over.
	buckets = 32
)

// maxState bounds what of a session is retained, in bytes: one with more subscriptions does not outlive its node.
const maxState = 256 << 10

// NameOf returns the topic of the claims to a session.
func NameOf(key string) string {
	h := sha256.Sum256([]byte("mozzie session\x00" + key))
	return fmt.Sprintf("%s%02x/%s", Prefix, h[0]%buckets, base64.RawURLEncoding.EncodeToString(h[:]))
}

// claim is what a claim says, as far as it can be believed.
type claim struct {
	*pb.Claim
	node peer.ID
}

// owner is a node that has a session, in a database; 0: that is not known.
type owner struct {
	node     peer.ID
	database uint64
}

// number returns the claim's; 0 for no claim.
func (c *claim) number() uint64 {
	if c == nil {
		return 0
	}
	return c.GetNumber()
}

// from returns which node has the session that the one that has claimed it may not have fetched; the zero owner where that is not said.
func (c *claim) from() owner {
	node, err := peer.IDFromBytes(c.GetFrom())
	if err != nil {
		return owner{}
	}
	return owner{node, c.GetFromDatabase()}
}

// owner returns the node that has the session, as far as is known: the one that has claimed it, once that has fetched it.
func (c *claim) owner() owner {
	if from := c.from(); from.node != "" {
		return from
	}
	return owner{c.node, c.GetDatabase()}
}

// parse reads a claim; ok is false where it is none to the session that its topic names.
func parse(m *proto.Message) (c claim, ok bool) {
	c.Claim = new(pb.Claim)
	if protobuf.Unmarshal(m.Payload, c.Claim) != nil || NameOf(string(c.GetKey())) != m.Topic || c.GetNumber() == 0 {
		return c, false
	}
	node, err := peer.IDFromBytes(c.GetNode())
	c.node = node
	return c, err == nil
}

// outranks reports whether one claim holds against another.
func outranks(number uint64, node peer.ID, other uint64, otherNode peer.ID) bool {
	if number != other {
		return number > other
	}
	return node > otherNode
}

// firstNumber is the number of a session that was here before it was ever claimed: any claim outranks it.
const firstNumber = 1

// numberStep is by how much numbers of claims rise at least, where a clock was ahead when the last was made; hardly more than the time between two, so
// that one which is made without knowledge of the last is not behind that.
const numberStep = 1 << 16

// nextNumber is the number of a new claim by a node, after one with the number last: the time in microseconds since 1970, or more, so
// that it rises even where clocks are wrong. Positions of what waits for a session are reckoned from it: those of two claims are far apart, also
// where two nodes make one at once, after the same.
func nextNumber(last uint64, now time.Time, node peer.ID) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node)) // which never fails
	least := last + numberStep + h.Sum64()%numberStep
	return max(least, uint64(max(now.UnixMicro(), 1))) //nolint:gosec // not negative
}

// next is the number of a claim by this node now, after one with the number last.
func (r *Roam) next(last uint64) uint64 { return nextNumber(last, time.Now(), r.self) }

// stateOf is a session as it is retained.
func stateOf(rec mqttfront.SessionRecord) *pb.SessionState {
	s := &pb.SessionState{Version: uint32(rec.Version), ExpiryMs: rec.Expiry.Milliseconds(), Born: rec.Born, PacketIds: uint32(rec.IDs)}
	if !rec.Disconnected.IsZero() {
		s.DisconnectedMs = rec.Disconnected.UnixMilli()
	}
	size := 0
	for _, sub := range rec.Subs {
		s.Subscriptions = append(s.Subscriptions, &pb.SessionSubscription{Filter: []byte(sub.Filter), Id: sub.ID, Qos: uint32(sub.QoS),
			NoLocal: sub.NoLocal, RetainAsPublished: sub.RetainAsPublished})
		if size += len(sub.Filter) + 16; size > maxState {
			s.Subscriptions = nil
			break
		}
	}
	return s
}

// recordOf undoes stateOf. What cannot be a subscription is left out.
func recordOf(s *pb.SessionState) mqttfront.SessionRecord {
	rec := mqttfront.SessionRecord{Version: byte(min(s.GetVersion(), 5)), Expiry: time.Duration(max(0, min(s.GetExpiryMs(), maxExpiryMs))) * time.Millisecond, Born: s.GetBorn(), //nolint:gosec // small
		IDs: mqttfront.BlockOf(s.GetPacketIds())}
	if s.GetDisconnectedMs() > 0 {
		rec.Disconnected = time.UnixMilli(s.GetDisconnectedMs())
	}
	for _, sub := range s.GetSubscriptions() {
		if f := string(sub.GetFilter()); sub.GetQos() <= 2 && f != "" && !strings.ContainsRune(f, 0) {
			rec.Subs = append(rec.Subs, mqttfront.SubscriptionRecord{Filter: f, ID: sub.GetId(), QoS: byte(sub.GetQos()), //nolint:gosec // 0 to 2
				NoLocal: sub.GetNoLocal(), RetainAsPublished: sub.GetRetainAsPublished()})
		}
	}
	return rec
}

const maxExpiryMs = 0xffffffff * 1000
