package mqttfront

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// runTicker looks after connections that fell silent, and publishes $SYS.
func (b *Broker) runTicker() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	lastSys, lastSweep := time.Time{}, time.Now()
	for {
		select {
		case <-b.stopped:
			return
		case now := <-tick.C:
			b.checkKeepAlive(now)
			b.relieve(now)
			if b.cfg.SysInterval > 0 && now.Sub(lastSys) >= b.cfg.SysInterval {
				lastSys = now
				b.publishSys(now)
			}
			if now.Sub(lastSweep) >= time.Minute {
				lastSweep = now
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

// publishSys publishes the statistics under the names that mosquitto gives them.
func (b *Broker) publishSys(now time.Time) {
	st := b.stats
	sum := func(n *[3]atomic.Uint64) int64 {
		return int64(n[0].Load() + n[1].Load() + n[2].Load()) //nolint:gosec // a count
	}
	connected := st.Sessions.Load() - st.Offline.Load()
	u := b.begin(now)
	defer u.end()
	num := func(name string, n int64) {
		b.sysTopic(u, "$SYS/broker/"+name, strconv.FormatInt(n, 10))
	}
	b.sysTopic(u, "$SYS/broker/version", b.cfg.Version)
	b.sysTopic(u, "$SYS/broker/uptime", strconv.Itoa(int(now.Sub(b.start).Seconds()))+" seconds")
	num("clients/connected", connected)
	num("clients/active", connected)
	num("clients/disconnected", st.Offline.Load())
	num("clients/inactive", st.Offline.Load())
	num("clients/total", st.Sessions.Load())
	num("messages/received", sum(&st.Received))
	num("messages/sent", sum(&st.Sent))
	num("publish/messages/received", sum(&st.Received))
	num("publish/messages/sent", sum(&st.Sent))
	num("publish/bytes/received", sum(&st.ReceivedPayload))
	num("publish/bytes/sent", sum(&st.SentPayload))
	num("publish/messages/dropped", int64(st.Dropped()))
	num("bytes/received", int64(st.BytesReceived.Load()))
	num("bytes/sent", int64(st.BytesSent.Load()))
	num("subscriptions/count", st.Subscriptions.Load())
	num("messages/stored", st.QueuedMessages.Load())
	num("store/messages/count", st.QueuedMessages.Load())
	num("store/messages/bytes", st.QueuedBytes.Load())
	num("retained messages/count", int64(b.swarm.RetainedHere()+b.local.names.Len())) // as mosquitto, $SYS included
}

// sysTopic publishes and keeps one topic, if it changed.
func (b *Broker) sysTopic(u *burst, name, value string) {
	if old, ok := b.local.names.Get(name); ok && string(old.Payload) == value {
		return
	}
	msg := &proto.Message{Topic: name, Payload: []byte(value), Retain: true}
	b.local.set(msg)
	u.serveLocal(&outMessage{Message: *msg, keep: msg})
}
