package mqttfront_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// TestTight: while memory is tight, a client that does not read loses QoS 0 messages as soon as something waits for it,
// and no others; those that read lose none.
func TestTight(t *testing.T) {
	b, _, addr := start(t, nil)
	st := b.Stats()
	slow := lazy(t, addr, "slow", "flood", 1)
	reader, _ := connect(t, addr, connectOpts{id: "reader"})
	reader.subscribe(filter{"small", 0})
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	b.SetPressure(mqttfront.PressureTight)
	const messages = 300
	payload := strings.Repeat("x", 60<<10)
	for i := range messages {
		pub.send(pub.publishPacket(0, 0, "flood", payload), pub.publishPacket(0, 0, "small", fmt.Sprint(i)))
		reader.expectPublish(fmt.Sprint(i))
	}
	if n := st.DropMemory.Load(); n < messages/2 {
		t.Errorf("%d messages were dropped", n)
	}
	if n := st.PendingMemory.Load(); n > 256<<10 {
		t.Errorf("%d bytes wait", n)
	}
	if code := pub.publish("flood", "kept"); code != 0 {
		t.Errorf("PUBACK 0x%02x", code)
	}
	for {
		if pk := slow.expect(packets.Publish); string(pk.Payload) == "kept" {
			break
		}
	}
	if n := st.DropSlow.Load() + st.DropCrowd.Load() + st.Refused.Load() + st.RefusedMemory.Load(); n != 0 {
		t.Errorf("%d more", n)
	}
}

// TestCritical: while memory is critically scarce nothing new is taken on, and who publishes what is kept is read from
// slowly, but what it publishes is delivered.
func TestCritical(t *testing.T) {
	b, _, addr := start(t, nil)
	st := b.Stats()
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.subscribe(filter{"a", 1}, filter{"$local/#", 0})
	c.send(c.publishPacket(3, 9, "$local/old", "1"))
	c.expectPublish("1")
	c.expect(packets.Puback)
	b.SetPressure(mqttfront.PressureCritical)
	for version, code := range map[byte]byte{4: 3, 5: 0x89} {
		r := newRaw(t, addr, version)
		r.send(connectOpts{version: version, id: "d"}.encode())
		if ack := r.expect(packets.Connack); ack.ReasonCode != code {
			t.Errorf("MQTT %d: CONNACK 0x%02x, want 0x%02x", version, ack.ReasonCode, code)
		}
		r.expectEnd()
	}
	if n := st.RefusedMemory.Load(); n != 2 {
		t.Errorf("%d connections were refused", n)
	}
	if codes := c.subscribe(filter{"a", 1}, filter{"b", 1}); codes[0] != 1 || codes[1] != 0x97 || st.SubsMemory.Load() != 1 {
		t.Errorf("SUBACK %x, counted %d", codes, st.SubsMemory.Load())
	}
	c.send(c.publishPacket(3, 9, "$local/new", "1"))
	if ack := c.expect(packets.Puback); ack.ReasonCode != 0x97 {
		t.Errorf("PUBACK 0x%02x", ack.ReasonCode)
	}
	c.send(c.publishPacket(3, 9, "$local/old", "2"))
	c.expectPublish("2")
	c.expect(packets.Puback)

	began := time.Now()
	for i := range 4 {
		c.send(c.publishPacket(2, 1, "a", fmt.Sprint(i)))
		c.ack(packets.Puback, c.expectPublish(fmt.Sprint(i)).PacketID)
		c.expect(packets.Puback)
	}
	if took := time.Since(began); took < 2*time.Second || st.Held.Load() < 4 {
		t.Errorf("held %d times, in %v", st.Held.Load(), took)
	}
	c.send(c.publishPacket(2, 1, "a", "last"))
	c.ack(packets.Puback, c.expectPublish("last").PacketID)
	c.expect(packets.Puback)
	held := st.Held.Load()
	b.SetPressure(mqttfront.PressureTight)
	c.publishAndGet("a", "and on")
	b.SetPressure(mqttfront.PressureNone)
	for i := range 20 {
		c.publishAndGet("a", fmt.Sprint(i))
	}
	if n := st.Held.Load(); n > held+1 { // the last of before
		t.Errorf("held %d times after that", n-held)
	}
	connect(t, addr, connectOpts{id: "d"})
	if codes := c.subscribe(filter{"b", 1}); codes[0] != 1 {
		t.Errorf("SUBACK %x", codes)
	}
}

func (r *raw) publishAndGet(topic, payload string) {
	r.t.Helper()
	r.send(r.publishPacket(2, 1, topic, payload))
	r.ack(packets.Puback, r.expectPublish(payload).PacketID)
	r.expect(packets.Puback)
}

// TestTotalQueue: sessions together queue so much in memory. What waits in many counts once. Beyond, those that have more than
// their share get no more, and others do.
func TestTotalQueue(t *testing.T) {
	const limit, sessions, size = 1 << 20, 8, 10 << 10
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxTotalQueuedBytes = limit })
	st := b.Stats()
	slow := func(id string, f filter) *raw { // what it has not acknowledged keeps the rest
		r, _ := connect(t, addr, connectOpts{id: id, props: []byte{0x21, 0, 1}})
		r.subscribe(f)
		return r
	}
	var all []*raw
	for i := range sessions - 2 {
		all = append(all, slow(fmt.Sprint(i), filter{"all", 1}))
	}
	own := slow("own", filter{"own", 2})
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	payload := strings.Repeat("x", size)
	for range 80 {
		pub.publish("all", payload)
	}
	if n, m := st.DropQueues.Load(), st.QueuedMemory.Load(); n != 0 || m < 80*size || m > 80*size+80*sessions*200 {
		t.Errorf("%d were dropped, %d bytes are counted", n, m)
	}
	for range 40 {
		pub.publish("all", payload)
	}
	if n, m := st.DropQueues.Load(), st.QueuedMemory.Load(); n < 10*(sessions-2) || m > limit+2*size {
		t.Errorf("%d were dropped, %d bytes are counted", n, m)
	}
	before := st.DropQueues.Load()
	for range 40 {
		pub.publish("own", payload)
	}
	want := uint64(40 - limit/sessions/size - 1)
	if n := st.DropQueues.Load() - before; n < want-1 || n > want+1 {
		t.Errorf("%d of the session that had nothing were dropped, want %d", n, want)
	}
	for _, r := range all {
		r.kill()
	}
	for range 40 - want {
		id := own.expectPublish(payload).PacketID
		own.ack(packets.Puback, id)
	}
	own.silent()
	eventually(t, "nothing is queued", func() bool { return st.QueuedMemory.Load() == 0 && st.QueuedBytes.Load() == 0 })
}

// TestTotalStored: what waits on the disk waits there alone when there is little memory left, and so much of it for all sessions
// together. Beyond, those that have more than their share get no more.
func TestTotalStored(t *testing.T) {
	const memory, limit, sessions, size, n = 100 << 10, 4 << 20, 4, 10 << 10, 100
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxTotalQueuedBytes, c.MaxTotalStoredBytes = memory, limit })
	st := b.Stats()
	ids := []string{"a", "b", "c"}
	for _, id := range ids {
		r, _ := connect(t, addr, connectOpts{id: id, props: sessionExpiry(60)})
		r.subscribe(filter{"all", 1})
		r.bye()
	}
	pub, _ := connect(t, addr, connectOpts{id: "pub"})
	eventually(t, "they are offline", func() bool { return st.Offline.Load() == sessions-1 })
	payload := func(i int) string { return fmt.Sprintf("%0*d", size, i) }
	for i := range n {
		pub.publish("all", payload(i))
	}
	if n, m := st.DropQueues.Load(), st.QueuedMemory.Load(); n != 0 || m > memory+2*size {
		t.Errorf("%d were dropped, %d bytes are counted in memory", n, m)
	}
	for i := range 2 * n {
		pub.publish("all", payload(n+i))
	}
	if got, m := st.QueuedBytes.Load(), st.QueuedMemory.Load(); got < limit*9/10 || got > limit || m > memory+2*size {
		t.Errorf("%d bytes wait, %d are counted in memory", got, m)
	}
	want := int(st.QueuedMessages.Load()) / len(ids) // they have had the same
	for _, id := range ids {
		r, _ := connect(t, addr, connectOpts{id: id, resume: true, props: sessionExpiry(60)})
		for i := range want - 1 {
			r.ack(packets.Puback, r.expectPublish(payload(i)).PacketID)
		}
		r.kill()
	}
	for _, id := range ids {
		r, _ := connect(t, addr, connectOpts{id: id}) // ends the session
		r.bye()
	}
	eventually(t, "nothing is queued", func() bool { return st.QueuedMemory.Load() == 0 && st.QueuedBytes.Load() == 0 })
}
