package mqttfront_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// mosquittoSys is what mosquitto 2.0.11 publishes below $SYS/broker/, as mosquitto_sub has shown it.
var mosquittoSys = []string{
	"bytes/received",
	"bytes/sent",
	"clients/active",
	"clients/connected",
	"clients/disconnected",
	"clients/expired",
	"clients/inactive",
	"clients/maximum",
	"clients/total",
	"heap/current",
	"heap/maximum",
	"load/bytes/received/15min",
	"load/bytes/received/1min",
	"load/bytes/received/5min",
	"load/bytes/sent/15min",
	"load/bytes/sent/1min",
	"load/bytes/sent/5min",
	"load/connections/15min",
	"load/connections/1min",
	"load/connections/5min",
	"load/messages/received/15min",
	"load/messages/received/1min",
	"load/messages/received/5min",
	"load/messages/sent/15min",
	"load/messages/sent/1min",
	"load/messages/sent/5min",
	"load/publish/dropped/15min",
	"load/publish/dropped/1min",
	"load/publish/dropped/5min",
	"load/publish/received/15min",
	"load/publish/received/1min",
	"load/publish/received/5min",
	"load/publish/sent/15min",
	"load/publish/sent/1min",
	"load/publish/sent/5min",
	"load/sockets/15min",
	"load/sockets/1min",
	"load/sockets/5min",
	"messages/received",
	"messages/sent",
	"messages/stored",
	"publish/bytes/received",
	"publish/bytes/sent",
	"publish/messages/dropped",
	"publish/messages/received",
	"publish/messages/sent",
	"retained messages/count",
	"shared_subscriptions/count",
	"store/messages/bytes",
	"store/messages/count",
	"subscriptions/count",
	"uptime",
	"version",
}

// TestSysNames: what mosquitto publishes is published, and ours below $SYS/broker/mozzie/, nothing else.
func TestSysNames(t *testing.T) {
	_, _, addr := start(t, func(c *mqttfront.Config) {
		c.SysInterval, c.Sys = time.Second, func(say func(name, value string)) { say("test", "value") }
	})
	c, _ := connect(t, addr, connectOpts{id: "c"})
	c.subscribe(filter{"$SYS/#", 0})
	missing := map[string]bool{"mozzie/test": true, "mozzie/dropped/slow": true, "mozzie/connections": true}
	known := map[string]bool{}
	for _, name := range mosquittoSys {
		missing[name], known[name] = true, true
	}
	for len(missing) > 0 {
		pk := c.expect(packets.Publish)
		name, ok := strings.CutPrefix(pk.TopicName, "$SYS/broker/")
		if !ok || len(pk.Payload) == 0 || !known[name] && !strings.HasPrefix(name, "mozzie/") {
			t.Errorf("%s %q", pk.TopicName, pk.Payload)
		}
		delete(missing, name)
	}
	seen := map[string]int{}
	for began := time.Now(); time.Since(began) < 2500*time.Millisecond; {
		pk, err := c.next(300 * time.Millisecond)
		if err != nil {
			continue
		}
		seen[pk.TopicName]++
	}
	if seen["$SYS/broker/uptime"] == 0 || seen["$SYS/broker/version"]+seen["$SYS/broker/clients/total"]+seen["$SYS/broker/mozzie/test"] > 0 {
		t.Errorf("then came %v", seen)
	}
}

// BenchmarkSys is what one interval costs, with a subscriber to all of it.
func BenchmarkSys(b *testing.B) {
	broker, _, addr := start(b, nil)
	c, _ := connect(b, addr, connectOpts{id: "c"})
	c.subscribe(filter{"$SYS/#", 0})
	publish := broker.SysPublisher()
	b.ReportAllocs()
	for b.Loop() {
		publish()
	}
}
