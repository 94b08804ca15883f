package mqttfront_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// TestFarExpiry: sessions whose time ends in hours, or whose will is due then, have no timer until shortly before, and end
// on time all the same [MQTT-4.1.0-2] [MQTT-3.1.2-8].
func TestFarExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := storetest.NewSessions()
		began := time.Now()
		for id, expiry := range map[string]time.Duration{"soon": time.Second, "far": 3 * time.Hour, "farther": 5*time.Hour + time.Second} {
			kept(st, id, mqttfront.SessionRecord{Expiry: expiry, Disconnected: began, Subs: subscribed(id)})
		}
		kept(st, "will", mqttfront.SessionRecord{Expiry: 100 * time.Hour, Disconnected: began,
			Will: &mqttfront.WillRecord{Delay: 4 * time.Hour, Msg: proto.Message{Topic: "will", QoS: 1}}})
		swarm, cfg := newLoner(), mqttfront.DefaultConfig()
		cfg.SysInterval, swarm.store = 0, st
		b, err := mqttfront.New(cfg, swarm, nil, st, nil)
		if err != nil {
			t.Fatal(err)
		}
		swarm.broker = b
		defer b.Close()
		for _, step := range []struct {
			at              time.Duration
			sessions, wills int64
		}{
			{0, 4, 0}, {time.Second, 3, 0}, {3*time.Hour - 1, 3, 0}, {3 * time.Hour, 2, 0}, {4*time.Hour - 1, 2, 0}, {4 * time.Hour, 2, 1},
			{5 * time.Hour, 2, 1}, {5*time.Hour + time.Second, 1, 1},
		} {
			time.Sleep(time.Until(began.Add(step.at)))
			synctest.Wait()
			if n, wills := b.Stats().Sessions.Load(), b.Stats().WillsSent.Load(); n != step.sessions || int64(wills) != step.wills {
				t.Errorf("after %v: %d sessions, %d wills; want %d, %d", step.at, n, wills, step.sessions, step.wills)
			}
		}
	})
}
