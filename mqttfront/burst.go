package mqttfront

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// burst is what one goroutine does with the packets of one read, or with one batch of deliveries: what it
// touched is written, published and accounted for once, at its end.
type burst struct {
	b        *Broker
	now      time.Time
	self     *conn           // whose packets are read, if any
	touched  []*conn         // to be flushed
	batch    []Outgoing      // to be published
	lent     []proto.Message // those of batch that are still in the read buffer
	roams    bool            // sessions may go on elsewhere
	detoured bool            // some of batch come back from the swarm, which does not know of them yet
	receipts []told          // to be told
	synced   bool            // the store was told something that acknowledgements wait for
	accepts  []accepted      // messages that need nobody to accept them
	comps    []uint16        // packet IDs to be told with PUBCOMP when that they are free is safe
	unsafe   []*session      // with entries of QoS 2 that go on when they are safe
	redo     []Entry         // of shared subscriptions, for other members
	asks     []*session      // may ask for retained messages again

	plain [2][]byte // the current message, encoded for MQTT 3 and 5 at QoS 0 without anything of one's own
	have  [2]bool

	received, sent [3]volume // by QoS
	shed           [shedCauses]uint64
	denied         uint64
}

// volume is how many messages there were, and the bytes of their payloads.
type volume struct{ messages, payload uint64 }

func (v *volume) add(m *proto.Message) {
	v.messages++
	v.payload += uint64(len(m.Payload))
}

type accepted struct {
	packetID uint16
	err      error
}

var bursts = sync.Pool{New: func() any { return new(burst) }}

func (b *Broker) begin(now time.Time) *burst {
	u := bursts.Get().(*burst)
	u.b, u.now = b, now
	return u
}

// publish hands over to the swarm what was collected so far.
func (u *burst) publish() {
	u.syncAll()
	if len(u.batch) > 0 {
		u.b.swarm.Publish(u.batch)
		clear(u.batch)
		clear(u.lent)
		u.batch, u.lent, u.detoured = u.batch[:0], u.lent[:0], false
	}
	for _, a := range u.accepts {
		u.self.Accepted(a.packetID, CustodyUnsaid, a.err)
	}
	u.accepts = u.accepts[:0]
}

// detours is Swarm.Detour for the next message of the batch. What came before and is to come back is published first:
// only of that does the swarm know whether others are behind it [MQTT-4.6.0-5].
func (u *burst) detours(m *proto.Message) bool {
	if u.detoured && !m.Retain {
		u.publish()
	}
	detour := u.b.swarm.Detour(m)
	u.detoured = u.detoured || detour
	return detour
}

// pause does what can't wait any longer, before u goes on.
func (u *burst) pause() {
	u.publish()
	u.flush()
	u.self.flush()
}

// flushShare is how many connections one goroutine flushes before others are called to help.
const flushShare = 256

// flush writes to the connections that were touched. When they are many, other processors help.
func (u *burst) flush() {
	helpers := min(len(u.touched)/flushShare, runtime.GOMAXPROCS(0)-1)
	mine := u.touched
	for range helpers {
		n := len(u.touched) / (helpers + 1)
		theirs := slices.Clone(mine[:n])
		mine = mine[n:]
		u.b.wg.Go(func() { runFlush(theirs) })
	}
	runFlush(mine)
	clear(u.touched)
	u.touched = u.touched[:0]
}

func runFlush(cs []*conn) {
	for _, c := range cs {
		c.flush()
	}
}

// syncAll has everything go on that waits for the store, once it is safe.
func (u *burst) syncAll() {
	if u.synced {
		u.synced = false
		u.syncStore()
	}
	if len(u.comps) > 0 {
		u.self.completeWhenSafe(slices.Clone(u.comps))
		u.comps = u.comps[:0]
	}
	for _, s := range u.unsafe {
		s.goOnWhenSafe()
	}
	clear(u.unsafe)
	u.unsafe = u.unsafe[:0]
}

// syncStore has the acknowledgements that wait for the store released.
func (u *burst) syncStore() {
	b, c := u.b, u.self // u is somebody else's by the time that the store is done
	if c == nil {
		b.store.Sync(b.storeDone)
		return
	}
	c.mu.Lock()
	upTo := c.acks.pushed
	c.mu.Unlock()
	b.store.Sync(func(err error) {
		b.storeDone(err)
		c.stored(upTo, err)
	})
}

// end does what was put off, and gives u back.
func (u *burst) end() {
	u.publish()
	for len(u.redo) > 0 || len(u.receipts) > 0 {
		for i := 0; i < len(u.redo); i++ {
			u.redeliver(u.redo[i])
		}
		clear(u.redo)
		u.redo = u.redo[:0]
		u.tell()
	}
	u.syncAll()
	u.flush()
	if u.self != nil {
		u.self.flush()
		u.self = nil
	}
	for _, s := range u.asks {
		u.b.wg.Go(s.runAsks) // the swarm may wait for who runs u
	}
	clear(u.asks)
	u.asks = u.asks[:0]
	st := u.b.stats
	for q := range u.received {
		if v := u.received[q]; v.messages > 0 {
			st.Received[q].Add(v.messages)
			st.ReceivedPayload[q].Add(v.payload)
		}
		if v := u.sent[q]; v.messages > 0 {
			st.Sent[q].Add(v.messages)
			st.SentPayload[q].Add(v.payload)
		}
	}
	for cause, counter := range [...]*atomic.Uint64{shedSlow: &st.DropSlow, shedCrowd: &st.DropCrowd, shedMemory: &st.DropMemory} {
		if n := u.shed[cause]; n > 0 {
			counter.Add(n)
		}
	}
	if u.denied > 0 {
		st.DeliveriesDenied.Add(u.denied)
	}
	u.received, u.sent, u.shed, u.denied = [3]volume{}, [3]volume{}, [shedCauses]uint64{}, 0
	for i := range u.plain {
		if cap(u.plain[i]) > largeBuffer {
			u.plain[i] = nil
		}
	}
	u.b, u.roams = nil, false
	bursts.Put(u)
}

// tell tells those who wait for what is over.
func (u *burst) tell() {
	u.tellThrough()
	for i := 0; i < len(u.receipts); i++ {
		r := &u.receipts[i]
		if t, ok := r.Receipt.(*tally); ok && r.s != nil && !r.alone {
			t.through(u.b, r.s)
		}
		r.Done()
	}
	clear(u.receipts)
	u.receipts = u.receipts[:0]
}

// outMessage is a message as it is served: possibly still in the read buffer.
type outMessage struct {
	proto.Message
	keep   *proto.Message // the same with memory of its own, once somebody needed that
	slot   *slot
	packet []byte   // the packet that it came in, where that can be sent on to MQTT 3 clients as it is
	from   *session // whose client published it; nil: not known
	tally  *tally   // counts the sessions that must be through with it; nil: nobody asks
	alone  string   // as in Entry
	recent bool     // as in Delivery

	holding *holding // counts the sessions that it waits in; nil: none yet
}

// owned returns the message with memory of its own.
func (m *outMessage) owned() *proto.Message {
	if m.keep == nil {
		m.keep = own(&m.Message)
	}
	return m.keep
}

// out has a QoS 0 message published at the end of the burst, until when the read buffer stays as it is.
func (u *burst) out(m *outMessage, c *conn, detour bool) {
	o := Outgoing{Origin: c, ServedHere: !detour, Lent: !detour && !m.Retain && m.keep == nil}
	if o.Lent {
		u.lent = append(u.lent, m.Message)
		o.Msg = &u.lent[len(u.lent)-1]
	} else {
		o.Msg = m.owned()
	}
	u.batch = append(u.batch, o)
}

// own is proto.Message.Clone for a message whose topic is a string of its own already.
func own(m *proto.Message) *proto.Message {
	c := *m
	buf := make([]byte, len(m.Payload)+len(m.Properties))
	n := copy(buf, m.Payload)
	copy(buf[n:], m.Properties)
	c.Payload, c.Properties = buf[:n:n], nil
	if len(m.Properties) > 0 {
		c.Properties = buf[n:]
	}
	return &c
}

// serve gives a message to the targets that its topic has on this node [MQTT-4.5.0-1], behind what their sessions were
// given before [MQTT-4.6.0-6].
func (u *burst) serve(m *outMessage, to *matched) {
	u.have = [2]bool{}
	u.denied += to.denied
	targets := to.targets
	for i := range targets {
		t := &targets[i]
		if t.noLocal && t.s == m.from { // [MQTT-3.8.3-3]
			own, ok := t.own()
			if ok {
				u.serveOne(m, &own)
			}
			continue
		}
		u.serveOne(m, t)
	}
}

func (u *burst) serveOne(m *outMessage, t *target) {
	qos := min(m.QoS, t.qos)       // [MQTT-3.8.4-8]
	retain := m.Retain && t.retain // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
	if m.Retain && t.s.asking.Load() {
		t.s.sawRetained(m.Topic)
	}
	if qos == 0 {
		c := t.s.conn.Load()
		if c == nil {
			return
		}
		if t.s.ordered.Load() { // behind retained messages that are queued
			t.s.offer(u, Entry{Msg: m.owned(), IDs: t.ids, Retain: retain, held: m.held()})
			return
		}
		u.send0(c, m, t.ids, retain)
		return
	}
	e := Entry{Msg: m.owned(), IDs: t.ids, QoS: qos, Retain: retain, Alone: m.alone, held: m.held(), recent: m.recent}
	if m.tally != nil {
		m.tally.add(t.s, m.alone == "")
		e.Receipt = m.tally
	}
	t.s.offer(u, e)
}

// send0 appends a QoS 0 message to what waits for a client [MQTT-4.3.1-1].
func (u *burst) send0(c *conn, m *outMessage, ids []uint32, retain bool) {
	v := 0
	if c.version == v5 {
		v = 1
	}
	shared := len(ids) == 0 && !retain && (v == 0 || c.aliasMax == 0) && c.mount == ""
	var packet []byte
	size := 0
	var o outgoing
	switch {
	case shared && v == 0 && m.packet != nil:
		packet = m.packet
		size = len(packet)
	case shared:
		if !u.have[v] {
			o = outgoing{version: c.version}
			o.expires(&m.Message, u.now)
			u.plain[v] = appendPublish(u.plain[v][:0], &o, &m.Message)
			u.have[v] = true
		}
		packet = u.plain[v]
		size = len(packet)
	default:
		o = outgoing{topic: c.mount.off(m.Topic), version: c.version, ids: ids, retain: retain}
		o.expires(&m.Message, u.now)
		size = o.size(&m.Message)
	}
	if size > c.maxPacket { // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
		u.b.stats.DropTooLarge.Add(1)
		return
	}
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return
	}
	if cause := c.sheds(size); cause != shedNot {
		c.mu.Unlock()
		u.shed[cause]++
		return
	}
	c.reserveLocked(size + 3)
	if packet != nil {
		c.out.b = append(c.out.b, packet...)
	} else {
		if size+3 <= c.maxPacket {
			c.aliasLocked(&o, m.Topic)
		}
		c.out.b = appendPublish(c.out.b, &o, &m.Message)
	}
	c.touchLocked(u)
	c.mu.Unlock()
	u.sent[0].add(&m.Message)
}

// aliasLocked has a topic alias stand for the topic where the client allows it [MQTT-3.1.2-26] [MQTT-3.1.2-27]
// [MQTT-3.3.2-11].
func (c *conn) aliasLocked(o *outgoing, name string) {
	if c.aliasMax == 0 {
		return
	}
	if a, ok := c.aliases[name]; ok {
		o.alias, o.noTopic = a, true
		return
	}
	if len(c.aliases) < c.aliasMax {
		if c.aliases == nil {
			c.aliases = make(map[string]uint16)
		}
		o.alias = uint16(len(c.aliases) + 1)
		c.aliases[name] = o.alias
	}
}
