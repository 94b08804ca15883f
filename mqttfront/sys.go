package mqttfront

import (
	"context"
	"errors"
	"time"
)

// runTicker looks after connections that fell silent, and publishes $SYS.
// sweepEvery is how often what has become old is looked for.
const sweepEvery = time.Minute

func (b *Broker) runTicker() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	lastSys, lastSweep := time.Time{}, time.Now()
	var tree sysTree
	for {
		select {
		case <-b.stopped:
			return
		case now := <-tick.C:
			b.checkKeepAlive(now)
			b.relieve(now)
			b.feedShorts()
			b.impatient.tick(b, now)
			if b.cfg.SysInterval > 0 && now.Sub(lastSys) >= b.cfg.SysInterval {
				lastSys = now
				tree.publish(b, now)
			}
			if now.Sub(lastSweep) >= sweepEvery {
				lastSweep = now
				b.armDue(now)
				b.forgetStale()
				b.arrivals.sweep(now)
				b.local.sweep(now)
			}
			select {
			case b.ticked <- struct{}{}:
			default:
			}
		}
	}
}

// Alive returns nil when the broker has looked after its connections once more, which takes it a second, and what it
// keeps of its clients can be got at. At the end of ctx it says what hangs.
func (b *Broker) Alive(ctx context.Context) error {
	select {
	case <-b.ticked:
		return nil
	case <-ctx.Done():
		return errors.New("nobody looks after the clients' connections")
	}
}

// checkKeepAlive disconnects the clients that have been silent for 1.5 times their keep alive [MQTT-3.1.2-22].
func (b *Broker) checkKeepAlive(now time.Time) {
	var late []*conn
	b.reg.Lock()
	for c := range b.conns {
		if !c.silenced.Load() && c.ready() && c.keepAliveOver(now) {
			late = append(late, c)
		}
	}
	b.reg.Unlock()
	for _, c := range late {
		switch c.heldFor() {
		case holdNot:
			if !c.keepAliveOver(now) { // it was held until now
				continue
			}
			c.silenced.Store(true)
			b.stats.KeepAlive.Add(1)
			c.stop(refuse(reasonKeepAlive, "nothing came for 1.5 times %v", c.keepAlive))
		case holdUnread:
			c.silenced.Store(true)
			b.stats.Unread.Add(1)
			c.stop(refuse(ReasonQuotaExceeded, "nothing of what waits for the client was read for 1.5 times %v", c.keepAlive))
		case holdMessages, holdAnswers: // we do not read
		}
	}
}
