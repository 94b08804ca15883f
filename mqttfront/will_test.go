package mqttfront_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

func watcher(t *testing.T, addr string) *raw {
	w, _ := connect(t, addr, connectOpts{id: "watcher"})
	w.subscribe(filter{"will/#", 2})
	return w
}

// TestWill: a will is published when its connection breaks, as it was given, and not when the client takes its leave
// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-14] [MQTT-3.1.3-10] [MQTT3-3.1.2-8] [MQTT3-3.1.2-16].
func TestWill(t *testing.T) {
	_, _, addr := start(t, nil)
	w := watcher(t, addr)
	props := "\x01\x01\x03\x00\x01t\x08\x00\x01r\x09\x00\x01c\x26\x00\x01a\x00\x011\x26\x00\x01a\x00\x012\x02\x00\x00\x00\x3c"
	for qos := range byte(3) {
		c, _ := connect(t, addr, connectOpts{id: "c", will: &willOpts{topic: "will/c", payload: "gone", qos: qos, props: []byte(props)}})
		c.kill()
		pk := w.expectPublish("gone")
		p := pk.Properties
		if pk.FixedHeader.Qos != qos || pk.TopicName != "will/c" || p.ContentType != "t" || p.ResponseTopic != "r" ||
			string(p.CorrelationData) != "c" || fmt.Sprint(p.User) != "[{a 1} {a 2}]" || p.PayloadFormat != 1 || p.MessageExpiryInterval != 60 {
			t.Errorf("%+v", pk)
		}
	}
	c, _ := connect(t, addr, connectOpts{id: "c", version: 4, will: &willOpts{topic: "will/c", retain: true, qos: 1}})
	c.kill()
	w.expectPublish("") // an empty will is a will
	for _, version := range []byte{4, 5} {
		c, _ = connect(t, addr, connectOpts{id: "c", version: version, will: &willOpts{topic: "will/c", payload: "x"}})
		c.bye() // [MQTT-3.1.2-10] [MQTT-3.14.4-3] [MQTT3-3.1.2-10] [MQTT3-3.14.4-3]
	}
	w.silent()
	c, _ = connect(t, addr, connectOpts{id: "c", will: &willOpts{topic: "will/c", payload: "as asked"}})
	c.send([]byte{0xe0, 1, 0x04}) // DISCONNECT with will
	w.expectPublish("as asked")
	c, _ = connect(t, addr, connectOpts{id: "c", will: &willOpts{topic: "will/c", payload: "broke the rules"}})
	c.send([]byte{0x36, 0})
	w.expectPublish("broke the rules")
}

func TestWillRetained(t *testing.T) { // [MQTT-3.1.2-15]
	_, _, addr := start(t, nil)
	c, _ := connect(t, addr, connectOpts{id: "c", will: &willOpts{topic: "will/c", payload: "gone", retain: true, qos: 1}})
	w := watcher(t, addr)
	c.kill()
	if pk := w.expectPublish("gone"); pk.FixedHeader.Retain {
		t.Error("live with the flag")
	}
	late, _ := connect(t, addr, connectOpts{id: "late"})
	late.subscribe(filter{"will/c", 1})
	if pk := late.expectPublish("gone"); !pk.FixedHeader.Retain {
		t.Error("retained without the flag")
	}
}

func delay(s uint32) []byte { return u32(0x18, s) }

func TestWillDelay(t *testing.T) { // [MQTT-3.1.3-9]
	_, _, addr := start(t, nil)
	w := watcher(t, addr)
	o := connectOpts{id: "c", props: sessionExpiry(60), resume: true, will: &willOpts{topic: "will/c", payload: "late", props: delay(1)}}
	c, _ := connect(t, addr, o)
	c.kill()
	o.will.payload = "second"
	c, _ = connect(t, addr, o) // back in time
	w.silent()
	began := time.Now()
	c.kill()
	w.expectPublish("second")
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("after %v", took)
	}
	// the session's end comes first
	o = connectOpts{id: "d", props: sessionExpiry(1), will: &willOpts{topic: "will/d", payload: "end", props: delay(60)}}
	c, _ = connect(t, addr, o)
	c.kill()
	w.expectPublish("end")
	// a session that ends with its connection does not wait
	c, _ = connect(t, addr, connectOpts{id: "e", will: &willOpts{topic: "will/e", payload: "now", props: delay(60)}})
	c.kill()
	w.expectPublish("now")
}

func TestWillAtTakeover(t *testing.T) {
	_, _, addr := start(t, nil)
	w := watcher(t, addr)
	with := func(payload string, d uint32) connectOpts {
		return connectOpts{id: "c", props: sessionExpiry(60), resume: true, will: &willOpts{topic: "will/c", payload: payload, props: delay(d)}}
	}
	connect(t, addr, with("no delay", 0))
	connect(t, addr, with("delay", 60))
	w.expectPublish("no delay") // the connection was closed, and nobody waits
	connect(t, addr, with("delay, clean", 60))
	w.silent() // the session went on in time
	o := with("last", 0)
	o.resume = false
	connect(t, addr, o)
	w.expectPublish("delay, clean") // the session ended
}

// TestDrain: clients are told, wills are sent, but for delayed ones of sessions that go on, and nothing is left.
func TestDrain(t *testing.T) {
	b, l, addr := start(t, func(c *mqttfront.Config) { c.ConnectTimeout = time.Hour })
	wills := make(chan string, 10)
	w := watcher(t, addr)
	five, _ := connect(t, addr, connectOpts{id: "five", will: &willOpts{topic: "x/five", payload: "5", qos: 1}})
	four, _ := connect(t, addr, connectOpts{id: "four", version: 4, will: &willOpts{topic: "x/four", payload: "4"}})
	gone, _ := connect(t, addr, connectOpts{id: "gone", props: sessionExpiry(60), will: &willOpts{topic: "x/gone", payload: "g", props: delay(50)}})
	gone.kill()
	mute := dial(t, addr) // never says CONNECT
	eventually(t, "gone", func() bool { return b.Stats().Offline.Load() == 1 && b.Stats().Connections.Load() == 4 })
	l.mu.Lock()
	l.watch = func(topic string) { wills <- topic }
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Drain(ctx); err != nil {
		t.Errorf("twice: %v", err)
	}
	seen := map[string]bool{}
	for range 2 {
		seen[<-wills] = true
	}
	if !seen["x/five"] || !seen["x/four"] || b.Stats().WillsSent.Load() != 2 {
		t.Errorf("wills %v", seen)
	}
	five.expectDisconnect(0x8b)
	w.expectDisconnect(0x8b)
	four.expectEnd()
	if _, err := mute.Read(make([]byte, 1)); err == nil {
		t.Error("the silent one is still connected")
	}
	if _, err := b.Listen(mqttfront.ListenerConfig{URL: "tcp://127.0.0.1:0"}); err == nil {
		t.Error("it listens again")
	}
	for range 2 {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestTakeoverAsConnectionBreaks has clients with a delayed will lose their connections at the moment that they are back:
// neither waits for the other for ever.
func TestTakeoverAsConnectionBreaks(t *testing.T) {
	b, _, addr := start(t, nil)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			packet := connectOpts{id: fmt.Sprint("c", i), version: 5, resume: true, props: sessionExpiry(60),
				will: &willOpts{topic: "w", payload: "w", props: u32(0x18, 60)}}.encode()
			for range 300 {
				for range 2 { // the second takes over while the first breaks
					nc, err := dialPlain(addr)
					if err != nil {
						t.Error(err)
						return
					}
					nc.SetDeadline(time.Now().Add(patience))
					if _, err := nc.Write(packet); err != nil {
						t.Error(err)
					}
					if _, err := io.ReadFull(nc, make([]byte, 5)); err != nil {
						t.Errorf("CONNECT is not answered: %v", err)
					}
					go nc.Close()
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	eventually(t, "all are offline", func() bool { return b.Stats().Offline.Load() == 4 && b.Stats().Connections.Load() == 0 })
}
