package watch

import (
	"fmt"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// maxSpan bounds times that are read: what MQTT can say, in seconds.
const maxSpan = 0xffffffff * time.Second

// will is what stands of a will, as far as it can be believed.
type will struct {
	node         core.NodeID
	record       mqttfront.WillRecord
	expiry       time.Duration // of the session
	disconnected time.Time     // zero: there is a connection
	resumed      bool          // the client is at another node; nothing else is set
}

// delay is for how long the will waits, from when the connection was lost.
func (w *will) delay() time.Duration { return min(w.record.Delay, w.expiry) }

func spanOf(ms int64) time.Duration {
	return time.Duration(max(0, min(ms, maxSpan.Milliseconds()))) * time.Millisecond
}

// parseWill reads a will.
func parseWill(payload []byte) (*will, error) {
	var p pb.Will
	if err := protobuf.Unmarshal(payload, &p); err != nil {
		return nil, err
	}
	if p.GetResumed() {
		return &will{resumed: true}, nil
	}
	m, err := messageOf(p.GetMessage())
	if err != nil {
		return nil, err
	}
	if n := len(p.GetNode()); p.GetEpoch() == 0 || n < proto.MinNodeSize || n > proto.MaxNodeSize {
		return nil, fmt.Errorf("epoch %d, a node of %d bytes", p.GetEpoch(), n)
	}
	w := &will{node: core.NodeID(p.GetNode()), expiry: spanOf(p.GetSessionMs()), record: mqttfront.WillRecord{Msg: *m, Expiry: spanOf(p.GetExpiryMs()),
		Delay: spanOf(p.GetDelayMs()), Epoch: p.GetEpoch()}}
	if ms := p.GetDisconnectedMs(); ms > 0 && ms < maxMillis {
		w.disconnected = time.UnixMilli(ms)
	}
	return w, nil
}

// maxMillis is the last time that is believed: the year 10000.
const maxMillis = 253402300800000

// encode undoes parseWill.
func (w *will) encode() ([]byte, error) {
	if w.resumed {
		return protobuf.Marshal(&pb.Will{Resumed: true})
	}
	p := &pb.Will{Node: []byte(w.node), Epoch: w.record.Epoch, Message: messageToPB(&w.record.Msg), ExpiryMs: w.record.Expiry.Milliseconds(),
		DelayMs: w.record.Delay.Milliseconds(), SessionMs: w.expiry.Milliseconds()}
	if !w.disconnected.IsZero() {
		p.DisconnectedMs = w.disconnected.UnixMilli()
	}
	return protobuf.Marshal(p)
}

// fired says that a will was fired.
type fired struct {
	epoch  uint64
	sent   bool
	looked bool           // what was retained before is known
	before *proto.Message // nil: nothing
}

func parseFired(payload []byte) (*fired, error) {
	var p pb.Fired
	if err := protobuf.Unmarshal(payload, &p); err != nil {
		return nil, err
	}
	f := &fired{epoch: p.GetEpoch(), sent: p.GetSent(), looked: p.GetLooked()}
	if p.GetEpoch() == 0 {
		return nil, fmt.Errorf("no epoch")
	}
	if p.GetBefore() != nil {
		var err error
		if f.before, err = messageOf(p.GetBefore()); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *fired) encode() ([]byte, error) {
	p := &pb.Fired{Epoch: f.epoch, Sent: f.sent, Looked: f.looked}
	if f.before != nil {
		p.Before = messageToPB(f.before)
	}
	return protobuf.Marshal(p)
}

// messageOf converts a message that is to be published.
func messageOf(p *pb.StoredMessage) (*proto.Message, error) {
	if p.GetQos() > 2 {
		return nil, fmt.Errorf("QoS %d", p.GetQos())
	}
	m := &proto.Message{Topic: p.GetTopic(), Payload: p.GetPayload(), Properties: p.GetProperties(), QoS: byte(p.GetQos()), Retain: p.GetRetain()} //nolint:gosec // 0 to 2
	if ms := p.GetExpiresMs(); ms > 0 && ms < maxMillis {
		m.Expires = time.UnixMilli(ms)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if m.Topic[0] == '$' {
		return nil, fmt.Errorf("topic %q", m.Topic)
	}
	return m, nil
}

func messageToPB(m *proto.Message) *pb.StoredMessage {
	p := &pb.StoredMessage{Topic: m.Topic, Payload: m.Payload, Properties: m.Properties, Qos: uint32(m.QoS), Retain: m.Retain}
	if !m.Expires.IsZero() {
		p.ExpiresMs = m.Expires.UnixMilli()
	}
	return p
}
