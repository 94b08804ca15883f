package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestMosquittoBridge has a mosquitto with a bridge to a node, as people have who come from it: what is published at
// one reaches the other, once and as it was, in all that a bridge can be told to carry. Nothing is said of the bridge
// but its address and topics.
func TestMosquittoBridge(t *testing.T) {
	long(t)
	nodes := startSwarm(t, 2, setup{})
	foreign := startMosquitto(t, nodes[0].mqtt, "topic up/# out 2", "topic down/# in 2", "topic both/# both 2 here/ there/")
	here, there := connect(t, foreign), connect(t, nodes[1].mqtt)
	here.subscribe(2, "#")
	there.subscribe(2, "#")
	eventually(t, patience, func() error { // the bridge has subscribed
		there.publish("there/both/probe", "probe", 0)
		if len(here.all()) == 0 {
			return notYet("nothing has come by the bridge")
		}
		return nil
	})
	for _, way := range []struct {
		from, to     *client
		sent, topic  string
		subscription string // of a client that comes late
		at           string
	}{
		{here, there, "up/x", "up/x", "up/#", nodes[1].mqtt},
		{there, here, "down/x", "down/x", "down/#", foreign},
		{here, there, "here/both/x", "there/both/x", "there/both/x", nodes[1].mqtt},
		{there, here, "there/both/y", "here/both/y", "here/both/y", foreign},
	} {
		var before [2]int
		for i, c := range []*client{way.from, way.to} {
			before[i] = len(c.all())
		}
		for qos := range byte(3) {
			way.from.publish(way.sent, fmt.Sprint(qos), qos)
		}
		way.from.retain(way.sent, "kept", 1)
		for _, p := range []string{"0", "1", "2", "kept"} {
			way.to.until(t, patience, p+" on "+way.topic, func(got []message) bool {
				return contains(got[before[1]:], way.topic, p)
			})
		}
		late := connect(t, way.at)
		late.subscribe(1, way.subscription)
		if got := late.wait(t, 1); got[0] != (message{way.topic, "kept", 1, true}) {
			t.Errorf("retained on the other side of %s is %+v", way.topic, got[0])
		}
		// A message that came back would be here twice.
		for i, c := range []*client{way.from, way.to} {
			c.exactlyBehind(t, before[i], 4, c.fence("fence", 1))
		}
	}
}

func contains(got []message, topic, payload string) bool {
	for _, m := range got {
		if m.topic == topic && m.payload == payload {
			return true
		}
	}
	return false
}

// exactlyBehind checks that n messages came after the first so many, the fences left out. To go round by both brokers
// and come back takes longer than a fence, so it waits for a while.
func (c *client) exactlyBehind(t *testing.T, first, n int, fence fence) {
	t.Helper()
	time.Sleep(300 * time.Millisecond)
	fence.send()
	got := c.until(t, patience, "the fence", func(got []message) bool { return contains(got, "fence", fence.text) })
	var count int
	for _, m := range got[first:] {
		if !isFence(m) && m.payload != "probe" {
			count++
		}
	}
	if count != n {
		t.Errorf("%d messages came, want %d: %+v", count, n, got[first:])
	}
}

// startMosquitto starts a mosquitto with a bridge to an address, and returns its own. It ends with the test.
func startMosquitto(t *testing.T, bridgeTo string, topics ...string) (address string) {
	t.Helper()
	address = loopback(freePort(t))
	host, port, _ := net.SplitHostPort(address)
	text := fmt.Sprintf("listener %s %s\nallow_anonymous true\npersistence false\nuser root\nconnection mozzie\naddress %s\n", port, host, bridgeTo)
	for _, topic := range topics {
		text += topic + "\n"
	}
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startServer(t, address, "mosquitto", "-v", "-c", conf)
	return address
}
