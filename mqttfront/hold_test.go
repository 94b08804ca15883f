package mqttfront_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// TestAnswersPileUp: a client that does not read its SUBACKs and UNSUBACKs is not read from after a while, and is
// disconnected when its keep alive is over. One that reads in the end gets all of them.
func TestAnswersPileUp(t *testing.T) {
	const n = 50000
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxPendingBytes = 64 << 10 })
	for _, reads := range []bool{true, false} {
		o := connectOpts{id: "c", version: 5}
		if !reads {
			o.keepAlive = 1
		}
		c, _ := connect(t, addr, o)
		c.nc.SetWriteDeadline(time.Time{})
		c.nc.(*net.TCPConn).SetReadBuffer(64 << 10)
		received := b.Stats().BytesReceived.Load()
		sent := make(chan error, 1)
		var size int
		go func() {
			bad := strings.Repeat("#", 150) // the answer says what is wrong
			for i := range n {
				one := c.subscribePacket(uint16(i%65535+1), nil, filter{bad, 0})
				size = len(one)
				if _, err := c.nc.Write(one); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		before := b.Stats().Held.Load()
		within(t, 6*patience, "the client is not read from", func() bool { return b.Stats().Held.Load() > before })
		if !reads {
			within(t, 6*patience, "the sockets are full, and it is disconnected", func() bool {
				// Where the machine is busy it may be for its silence.
				return b.Stats().Unread.Load()+b.Stats().KeepAlive.Load() > 0 && b.Stats().Connections.Load() == 0
			})
			<-sent
			continue
		}
		received = b.Stats().BytesReceived.Load() - received
		for i := range n {
			if ack := c.expect(packets.Suback); ack.PacketID != uint16(i%65535+1) || ack.ReasonCodes[0] != 0x8f {
				t.Fatalf("SUBACK %d %v, want %d", ack.PacketID, ack.ReasonCodes, i+1)
			}
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if received > uint64(size)*n*9/10 {
			t.Errorf("%d bytes were read before", received)
		}
		c.bye()
	}
}

// TestOpenSubscriptions: a client with many SUBSCRIBEs that are not answered is not read from until some are, and is
// not disconnected for its silence.
func TestOpenSubscriptions(t *testing.T) {
	const n = 200
	b, l, addr := start(t, nil)
	wait := make(chan struct{})
	l.slow = func(string) chan struct{} { return wait }
	c, _ := connect(t, addr, connectOpts{id: "c", keepAlive: 1})
	for i := range uint16(n) {
		c.send(c.subscribePacket(i+1, nil, filter{fmt.Sprint(i), 0}))
	}
	eventually(t, "the client is not read from", func() bool { return b.Stats().Held.Load() == 1 })
	time.Sleep(2500 * time.Millisecond) // longer than the keep alive
	if n := b.Stats().Subscriptions.Load(); n != 64 {
		t.Errorf("%d subscriptions are open, want 64", n)
	}
	close(wait)
	for i := range uint16(n) {
		if ack := c.expect(packets.Suback); ack.PacketID != i+1 {
			t.Fatalf("SUBACK %d, want %d", ack.PacketID, i+1)
		}
	}
	c.silent()
}

func TestFiltersOfOnePacket(t *testing.T) {
	_, _, addr := start(t, nil)
	for _, n := range []int{32768, 32769} {
		c, _ := connect(t, addr, connectOpts{id: "c"})
		c.send(packet(0x82, []byte{0, 1, 0}, []byte(strings.Repeat("\x00\x01a\x00", n))))
		if n == 32768 {
			if ack := c.expect(packets.Suback); len(ack.ReasonCodes) != n {
				t.Errorf("SUBACK for %d", len(ack.ReasonCodes))
			}
			c.send(packet(0xa2, []byte{0, 1, 0}, []byte(strings.Repeat("\x00\x01a", n+1))))
		}
		c.expectDisconnect(0x97)
	}
}

// retainedAsks answers the broker's questions for retained messages by hand.
type retainedAsks struct {
	mu   sync.Mutex
	open []retainedAsk
	all  int
}

type retainedAsk struct {
	filter string
	each   func([]*proto.Message)
	done   func()
}

func (r *retainedAsks) ask(filter string, each func([]*proto.Message), done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = append(r.open, retainedAsk{filter, each, done})
	r.all++
}

func (r *retainedAsks) count() (open, all int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open), r.all
}

// answer answers the oldest question.
func (r *retainedAsks) answer(ms ...*proto.Message) {
	r.mu.Lock()
	a := r.open[0]
	r.open = r.open[1:]
	r.mu.Unlock()
	a.each(ms)
	a.done()
}

// TestFewAsks: for one client the swarm is asked for the retained messages of a few filters at a time, for each in its
// turn, and not twice for a filter that is still to have its turn.
func TestFewAsks(t *testing.T) {
	const most = 4
	_, l, addr := start(t, nil)
	var asks retainedAsks
	l.ask = asks.ask
	c, _ := connect(t, addr, connectOpts{id: "c"})
	for i := range uint16(20) {
		c.subscribe(filter{fmt.Sprint(i), 0})
		c.subscribe(filter{"again", 0})
	}
	for i := range 21 - 1 + most/2 { // "again" is among the first four twice
		open, all := asks.count()
		if open > most || all > i+most {
			t.Fatalf("%d of %d are open after %d answers", open, all, i)
		}
		asks.mu.Lock()
		name := asks.open[0].filter
		asks.mu.Unlock()
		asks.answer(&proto.Message{Topic: name, Payload: []byte("v"), Retain: true})
		if pk := c.expectPublish("v"); pk.TopicName != name {
			t.Errorf("%q came for %q", pk.TopicName, name)
		}
	}
	open, all := asks.count()
	for ; open > 0; open, all = asks.count() {
		asks.answer()
	}
	if all > 24 {
		t.Errorf("%d questions for 21 filters", all)
	}
	c.silent()
}

// TestNoAsksForTheSlow: no more is asked for a client that has not taken what came before; it goes on when it has.
func TestNoAsksForTheSlow(t *testing.T) {
	_, l, addr := start(t, func(c *mqttfront.Config) { c.MaxQueuedBytes = 1 << 20 })
	var asks retainedAsks
	l.ask = asks.ask
	c, _ := connect(t, addr, connectOpts{id: "c", props: u16(0x21, 1)}) // one at a time
	for i := range uint16(20) {
		c.subscribe(filter{fmt.Sprint(i), 1})
	}
	large := func(name string) *proto.Message {
		return &proto.Message{Topic: name, Payload: make([]byte, 100<<10), QoS: 1, Retain: true}
	}
	for range 3 {
		asks.answer(large("x"))
	}
	if open, all := asks.count(); open != 3 || all != 6 {
		t.Fatalf("%d of %d are open", open, all)
	}
	for range 3 {
		asks.answer() // the quarter is full, and no more is asked
	}
	if _, all := asks.count(); all != 6 {
		t.Fatalf("%d asked", all)
	}
	for i := range 3 {
		c.ack(packets.Puback, c.expect(packets.Publish).PacketID)
		if i == 0 {
			eventually(t, "it goes on", func() bool { _, all := asks.count(); return all == 10 })
		}
	}
	for open, _ := asks.count(); open > 0; open, _ = asks.count() {
		asks.answer()
	}
	if _, all := asks.count(); all != 20 {
		t.Errorf("%d asked, want 20", all)
	}
	c.silent()
}

// TestHalfClosed: a client that closes its half of the connection, and goes on reading, gets the answers to what it has
// sent.
func TestHalfClosed(t *testing.T) {
	_, l, addr := start(t, nil)
	wait := make(chan struct{})
	l.slow = func(string) chan struct{} { return wait }
	l.hold = wait
	for _, version := range []byte{4, 5} {
		c, _ := connect(t, addr, connectOpts{id: "c", version: version})
		c.send(c.subscribePacket(1, nil, filter{"a", 0}), c.publishPacket(2, 2, "b", "v"), c.publishPacket(4, 3, "b", "v"))
		if err := c.nc.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if version == 4 {
			time.Sleep(50 * time.Millisecond) // so that the broker has seen it
			close(wait)
		}
		got := map[byte]uint16{}
		for range 3 {
			pk, err := c.next(patience)
			if err != nil {
				t.Fatalf("%v after %v", err, got)
			}
			got[pk.FixedHeader.Type] = pk.PacketID
		}
		if got[packets.Suback] != 1 || got[packets.Puback] != 2 || got[packets.Pubrec] != 3 {
			t.Errorf("answers %v", got)
		}
		c.expectEnd()
	}
}
