package mqttfront

import (
	"sync"
	"sync/atomic"
	"time"
)

// Pressure is how scarce memory is.
type Pressure int32

// The degrees of it. What was acknowledged is not given up at any.
const (
	// PressureNone: there is enough.
	PressureNone Pressure = iota
	// PressureTight: QoS 0 messages to clients that have something waiting are dropped.
	PressureTight
	// PressureCritical: connections, subscriptions and retained messages below $local that would be new are refused as
	// well, a session that has more than its share of what is queued gets no more, and clients that publish at QoS 1 and
	// 2, or send large packets, are read from slowly.
	PressureCritical
)

// easeTime is how long a client waits between two reads while memory is critically scarce.
const easeTime = time.Second

// strain is the pressure that a broker is under.
type strain struct {
	now    atomic.Int32
	mu     sync.Mutex
	relief chan struct{} // while it is critical: closed when it is not any more
}

// SetPressure tells the broker how scarce memory is.
func (b *Broker) SetPressure(p Pressure) {
	s := &b.strain
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Store(int32(p))
	switch {
	case p == PressureCritical && s.relief == nil:
		s.relief = make(chan struct{})
	case p != PressureCritical && s.relief != nil:
		close(s.relief)
		s.relief = nil
	}
}

func (s *strain) tight() bool    { return s.now.Load() >= int32(PressureTight) }
func (s *strain) critical() bool { return s.now.Load() >= int32(PressureCritical) }

// ease keeps the goroutine that reads for a while where memory is critically scarce, so that what comes in is less than
// what goes out.
func (c *conn) ease() {
	s := &c.b.strain
	s.mu.Lock()
	relief := s.relief
	s.mu.Unlock()
	if relief == nil {
		return
	}
	c.b.stats.Held.Add(1)
	t := time.NewTimer(easeTime)
	defer t.Stop()
	select {
	case <-relief:
	case <-t.C:
	case <-c.b.leaving:
	}
	c.seen() // for all that we know
}
