package proto

import "time"

// Message is one application message on its way through a node. It is immutable once made, and may be
// shared by any number of receivers and goroutines: nobody writes to it, nor to the bytes it points to.
//
// It names neither the user nor the client nor the node that published it, and must stay so: what is in
// here crosses the swarm.
type Message struct {
	Topic   string // a valid topic name
	Payload []byte
	// Properties are the MQTT 5 PUBLISH properties that travel with the message unchanged and in their
	// order (payload format indicator, content type, response topic, correlation data, user properties),
	// in MQTT's own encoding without the length in front; see ValidProperties. nil where there are none.
	// Message expiry, topic alias and subscription identifiers are never among them: they belong to one hop.
	Properties []byte
	Expires    time.Time // when it is to be forgotten; zero: never
	QoS        byte      // as published: 0, 1 or 2
	Retain     bool      // as published
}

// Expired reports whether the message's life is over at now.
func (m *Message) Expired(now time.Time) bool {
	return !m.Expires.IsZero() && !now.Before(m.Expires)
}

// Clone returns a copy that shares no memory with m, for a message that stays when the buffer that it was
// read from goes.
func (m *Message) Clone() *Message {
	c := *m
	buf := make([]byte, m.Size())
	t := copy(buf, m.Topic)
	p := t + copy(buf[t:], m.Payload)
	copy(buf[p:], m.Properties)
	c.Topic, c.Payload, c.Properties = alias(buf[:t]), buf[t:p:p], nil
	if len(m.Properties) > 0 {
		c.Properties = buf[p:]
	}
	return &c
}

// Size is what the message counts for in limits of bytes.
func (m *Message) Size() int { return len(m.Topic) + len(m.Payload) + len(m.Properties) }
