package mqttfront

import (
	"strings"
	"sync"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// localRetained keeps the retained messages below $local, which a limit bounds, and those below $SYS, which are
// our own.
type localRetained struct {
	names  topic.Names[*proto.Message] // may be read without mu
	mu     sync.Mutex                  // held by those that change names
	strain *strain
	store  SessionStore // keeps those below $local
	stats  *Stats       // LocalRetained and LocalBytes are those below $local
	most   int
	bytes  int64
}

// set keeps a message, if there is room for it.
func (r *localRetained) set(m *proto.Message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.HasPrefix(m.Topic, localPrefix) {
		n, size := int64(1), int64(m.Size())
		if old, ok := r.names.Get(m.Topic); ok {
			n, size = 0, size-int64(old.Size())
		}
		st := r.stats
		if n > 0 && (st.LocalRetained.Load() >= int64(r.most) || r.strain.critical()) || size > 0 && st.LocalBytes.Load()+size > r.bytes {
			return false
		}
		st.LocalRetained.Add(n)
		st.LocalBytes.Add(size)
		r.store.Retain(m)
	}
	r.names.Set(m.Topic, m)
	return true
}

// load takes up what is kept.
func (r *localRetained) load() error {
	return r.store.Retained(func(m *proto.Message) {
		r.names.Set(m.Topic, m)
		r.stats.LocalRetained.Add(1)
		r.stats.LocalBytes.Add(int64(m.Size()))
	})
}

// clear forgets the message of a topic.
func (r *localRetained) clear(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clearLocked(name)
}

func (r *localRetained) clearLocked(name string) {
	if old, ok := r.names.Delete(name); ok && strings.HasPrefix(name, localPrefix) {
		r.stats.LocalRetained.Add(-1)
		r.stats.LocalBytes.Add(-int64(old.Size()))
		r.store.Unretain(name)
	}
}

// sweep forgets the messages whose life is over.
func (r *localRetained) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var over []string
	r.names.All(func(name string, m *proto.Message) bool {
		if m.Expired(now) {
			over = append(over, name)
		}
		return true
	})
	for _, name := range over {
		r.clearLocked(name)
	}
}

// retainLocal keeps a message below $local that is to be retained, or clears the one before it [MQTT-3.3.1-5]
// [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8]. It returns false where a limit forbids that.
func (b *Broker) retainLocal(m *outMessage) bool {
	switch {
	case !m.Retain:
	case len(m.Payload) == 0:
		b.local.clear(m.Topic)
	case !b.local.set(m.owned()):
		b.stats.LocalRefused.Add(1)
		return false
	}
	return true
}

// retainLocalOrClear is retainLocal for a publisher that cannot be told: others get the message all the same, and
// what was retained before it does not stay in its place.
func (b *Broker) retainLocalOrClear(m *outMessage) {
	if !b.retainLocal(m) {
		b.local.clear(m.Topic)
	}
}
