package mqttfront_test

import (
	"testing"
)

// TestKept: sessions that outlive their connections are counted with what waits in them, those of connected clients where that is
// asked for.
func TestKept(t *testing.T) {
	b, _, addr := start(t, nil)
	want := func(connected bool, sessions, messages int) {
		t.Helper()
		eventually(t, "what is kept is counted", func() bool {
			s, m := b.Kept(connected)
			return s == sessions && m == messages
		})
	}
	plain, _ := connect(t, addr, connectOpts{id: "plain"})
	lasting, _ := connect(t, addr, connectOpts{id: "lasting", props: sessionExpiry(60)})
	lasting.subscribe(filter{"a", 1})
	want(false, 0, 0)
	want(true, 1, 0)
	lasting.kill()
	want(false, 1, 0)
	for range 3 {
		plain.publish("a", "v")
	}
	want(false, 1, 3)
	want(true, 1, 3)
}
