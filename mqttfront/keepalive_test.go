package mqttfront

import (
	"testing"
	"time"
)

// TestKeepAliveIsWide: one and a half times the longest keep alives do not turn around [MQTT-3.1.2-22] [MQTT3-3.1.2-24].
func TestKeepAliveIsWide(t *testing.T) {
	b := &Broker{start: time.Now()}
	for _, seconds := range []int{1, 2, 43690, 43691, 65534, 65535} {
		c := &conn{b: b, keepAlive: time.Duration(seconds) * time.Second}
		c.lastSeen.Store(int64(time.Hour))
		end := b.start.Add(time.Hour + time.Duration(seconds)*1500*time.Millisecond)
		if c.keepAliveOver(end) {
			t.Errorf("%d s: over too early", seconds)
		}
		if !c.keepAliveOver(end.Add(time.Millisecond)) {
			t.Errorf("%d s: not over in time", seconds)
		}
	}
}
