package watch

import (
	"strings"
	"sync"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// Store is core.Retained that notes which wills it has.
type Store struct {
	core.Retained

	mu      sync.Mutex
	changed map[string]change // by topic, since they were last taken
}

// change is what stands under a topic now.
type change struct {
	at      dht.Location
	payload []byte // nil: nothing
}

// NewStore returns a Store before another, of which each calls with all that is in it.
func NewStore(r core.Retained, each func(visit func(at dht.Location, k *core.Kept))) *Store {
	s := &Store{Retained: r, changed: map[string]change{}}
	each(s.note)
	return s
}

func isWill(topic string) bool { return strings.HasPrefix(topic, Prefix) }

func (s *Store) note(at dht.Location, k *core.Kept) {
	if !isWill(k.Message.Topic) {
		return
	}
	c := change{at: at}
	if !k.Cleared {
		c.payload = k.Message.Payload
	}
	s.mu.Lock()
	s.changed[k.Message.Topic] = c
	s.mu.Unlock()
}

func (s *Store) gone(at dht.Location, topic string) {
	if !isWill(topic) {
		return
	}
	s.mu.Lock()
	s.changed[topic] = change{at: at}
	s.mu.Unlock()
}

// Set implements core.Retained.
func (s *Store) Set(at dht.Location, k *core.Kept) bool {
	if !s.Retained.Set(at, k) {
		return false
	}
	s.note(at, k)
	return true
}

// Delete implements core.Retained.
func (s *Store) Delete(at dht.Location, topic string) {
	s.Retained.Delete(at, topic)
	s.gone(at, topic)
}

// Drop implements core.Retained.
func (s *Store) Drop(at dht.Location) {
	s.Match(at, "#", func(k *core.Kept) bool {
		s.gone(at, k.Message.Topic)
		return isWill(k.Message.Topic) // all at a location are, or none
	})
	s.Retained.Drop(at)
}

// take returns what has changed.
func (s *Store) take() map[string]change {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.changed) == 0 {
		return nil
	}
	c := s.changed
	s.changed = map[string]change{}
	return c
}
