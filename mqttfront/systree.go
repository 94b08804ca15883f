package mqttfront

import (
	"math"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// sysTree publishes the topics below $SYS: mosquitto's names, and our own below $SYS/broker/mozzie/. What has not changed
// is not published again. It is used by one goroutine.
type sysTree struct {
	last    time.Time
	loads   [sysLoads]load
	clients int64 // the most that there have been
	heap    int64
}

// What there are load averages of.
const (
	loadMessagesReceived = iota
	loadMessagesSent
	loadPublishDropped
	loadPublishReceived
	loadPublishSent
	loadBytesReceived
	loadBytesSent
	loadSockets
	loadConnections
	sysLoads
)

var loadNames = [sysLoads]string{"messages/received", "messages/sent", "publish/dropped", "publish/received", "publish/sent",
	"bytes/received", "bytes/sent", "sockets", "connections"}

// load is how fast a counter grows, per minute, over the last 1, 5 and 15 minutes, as mosquitto computes it: at each look
// the old value counts with e to the power of -(time since) / period.
type load struct {
	counter uint64
	rates   [3]float64
}

var (
	loadPeriods     = [3]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}
	loadPeriodNames = [3]string{"1min", "5min", "15min"}
)

// update takes note of the counter some time after the look before.
func (l *load) update(counter uint64, since time.Duration) {
	rate := float64(counter-l.counter) / since.Minutes()
	l.counter = counter
	for i, period := range loadPeriods {
		l.rates[i] = rate + math.Exp(-since.Seconds()/period.Seconds())*(l.rates[i]-rate)
	}
}

// publish publishes what has changed.
func (t *sysTree) publish(b *Broker, now time.Time) {
	if t.last.IsZero() {
		t.last = b.start
	}
	u := b.begin(now)
	defer u.end()
	say := func(name, value string) { b.sysTopic(u, "$SYS/broker/"+name, value) }
	num := func(name string, n int64) { say(name, strconv.FormatInt(n, 10)) }
	t.state(b, now, say, num)
	t.traffic(b, num)
	if since := now.Sub(t.last); since > 0 {
		t.last = now
		t.updateLoads(b, since)
	}
	for i := range t.loads {
		for j, rate := range t.loads[i].rates {
			say("load/"+loadNames[i]+"/"+loadPeriodNames[j], strconv.FormatFloat(rate, 'f', 2, 64))
		}
	}
	t.own(b, say, num)
	num("retained messages/count", int64(b.swarm.RetainedHere()+b.local.names.Len())) // as mosquitto, $SYS included
}

// state is how things are.
func (t *sysTree) state(b *Broker, now time.Time, say func(name, value string), num func(name string, n int64)) {
	st := b.stats
	all, offline := st.Sessions.Load(), st.Offline.Load()
	t.clients = max(t.clients, all)
	say("version", b.cfg.Version)
	say("uptime", strconv.Itoa(int(now.Sub(b.start).Seconds()))+" seconds")
	num("clients/total", all)
	num("clients/maximum", t.clients)
	num("clients/connected", all-offline)
	num("clients/active", all-offline)
	num("clients/disconnected", offline)
	num("clients/inactive", offline)
	num("clients/expired", count(st.SessionsExpired.Load()))
	num("subscriptions/count", st.Subscriptions.Load())
	num("shared_subscriptions/count", int64(b.shares.Len()))
	num("messages/stored", st.QueuedMessages.Load())
	num("store/messages/count", st.QueuedMessages.Load())
	num("store/messages/bytes", st.QueuedBytes.Load())
	heap := heapInUse()
	t.heap = max(t.heap, heap)
	num("heap/current", heap)
	num("heap/maximum", t.heap)
}

// traffic is what has happened since the start.
func (t *sysTree) traffic(b *Broker, num func(name string, n int64)) {
	st := b.stats
	num("messages/received", sum(&st.Received))
	num("messages/sent", sum(&st.Sent))
	num("publish/messages/received", sum(&st.Received))
	num("publish/messages/sent", sum(&st.Sent))
	num("publish/messages/dropped", count(st.Dropped()))
	num("publish/bytes/received", sum(&st.ReceivedPayload))
	num("publish/bytes/sent", sum(&st.SentPayload))
	num("bytes/received", count(st.BytesReceived.Load()))
	num("bytes/sent", count(st.BytesSent.Load()))
}

func (t *sysTree) updateLoads(b *Broker, since time.Duration) {
	st := b.stats
	received, sent := uint64(sum(&st.Received)), uint64(sum(&st.Sent)) //nolint:gosec // counts
	for i, n := range [sysLoads]uint64{
		loadMessagesReceived: received, loadMessagesSent: sent, loadPublishReceived: received, loadPublishSent: sent,
		loadPublishDropped: st.Dropped(), loadBytesReceived: st.BytesReceived.Load(), loadBytesSent: st.BytesSent.Load(),
		loadSockets: st.Accepted.Load(), loadConnections: st.Connected.Load(),
	} {
		t.loads[i].update(n, since)
	}
}

// own are the topics that mosquitto does not have.
func (t *sysTree) own(b *Broker, say func(name, value string), num func(name string, n int64)) {
	const prefix = "mozzie/"
	st := b.stats
	num(prefix+"connections", st.Connections.Load())
	for cause, n := range map[string]*atomic.Uint64{
		"slow": &st.DropSlow, "crowd": &st.DropCrowd, "memory": &st.DropMemory, "queue": &st.DropQueue, "queues": &st.DropQueues,
		"expired": &st.DropExpired, "too_large": &st.DropTooLarge, "no_member": &st.DropNoMember, "session_ended": &st.DropEnded,
	} {
		num(prefix+"dropped/"+cause, count(n.Load()))
	}
	if b.cfg.Sys != nil {
		b.cfg.Sys(func(name, value string) { say(prefix+name, value) })
	}
}

func count(n uint64) int64 { return int64(n) } //nolint:gosec // a count

func sum(n *[3]atomic.Uint64) int64 { return count(n[0].Load() + n[1].Load() + n[2].Load()) }

// heapInUse is the memory of objects, garbage included.
func heapInUse() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return count(s[0].Value.Uint64())
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
