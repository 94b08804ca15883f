package mqttfront_test

import (
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// TestConnectionRate: connections that come fast wait for their turn; those that would wait for too long are told to
// come later.
func TestConnectionRate(t *testing.T) {
	for name, set := range map[string]func(*mqttfront.Config){
		"in all":        func(c *mqttfront.Config) { c.MaxConnectionRate = 1 },
		"of an address": func(c *mqttfront.Config) { c.MaxConnectionRatePerAddress = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			b, _, addr := start(t, set)
			st := b.Stats()
			began := time.Now()
			connect(t, addr, connectOpts{id: "at once"})
			connect(t, addr, connectOpts{id: "burst"})
			connect(t, addr, connectOpts{id: "third"})
			if took := time.Since(began); took < 900*time.Millisecond || st.Paced.Load() == 0 {
				t.Errorf("three came within %v, %d waited", took, st.Paced.Load())
			}
			for version, code := range map[byte]byte{4: 3, 5: 0x9f} {
				for refused := false; !refused; { // unless the machine was so slow that its turn came
					for before := st.RefusedRate.Load(); st.RefusedRate.Load() == before; {
						n := st.Connections.Load()
						dial(t, addr)
						eventually(t, "it has come", func() bool { return st.Connections.Load() > n || st.RefusedRate.Load() > before })
					}
					r := newRaw(t, addr, version)
					r.send(connectOpts{version: version, id: "c"}.encode())
					ack := r.expect(packets.Connack)
					if refused = ack.ReasonCode != 0; !refused {
						continue
					}
					if ack.ReasonCode != code {
						t.Errorf("MQTT %d: CONNACK 0x%02x, want 0x%02x", version, ack.ReasonCode, code)
					}
					r.expectEnd()
				}
			}
			b.Close()
			if n := st.Connections.Load(); n != 0 {
				t.Errorf("%d connections are left", n)
			}
		})
	}
}

// TestHTTPHasPlaces: connections to a WebSocket listener count from the start, and have to become MQTT in time, whatever
// they do before.
func TestHTTPHasPlaces(t *testing.T) {
	const timeout = 700 * time.Millisecond
	b, _, tcp := start(t, func(c *mqttfront.Config) { c.MaxConnections, c.ConnectTimeout = 4, timeout })
	ws, err := b.Listen(mqttfront.ListenerConfig{URL: "ws://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	st := b.Stats()
	options := &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	nc, err := dialWS(t, ws.String(), "/mqtt", options)
	if err != nil {
		t.Fatal(err)
	}
	client := &raw{t: t, nc: nc, br: newReader(nc), version: 5}
	client.send(connectOpts{version: 5, id: "c"}.encode())
	client.expect(packets.Connack)

	silent := dial(t, ws.String())
	asking := dial(t, ws.String()) // for something else, which ends it
	upgraded, err := dialWS(t, ws.String(), "/mqtt", options)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have places", func() bool { return st.Connections.Load() == 4 })
	r := newRaw(t, tcp, 5)
	r.send(connectOpts{version: 5, id: "d"}.encode())
	if ack := r.expect(packets.Connack); ack.ReasonCode != 0x97 {
		t.Errorf("CONNACK 0x%02x", ack.ReasonCode)
	}
	var stop atomic.Bool
	defer stop.Store(true)
	go func() {
		for !stop.Load() {
			if _, err := asking.Write([]byte("GET /other HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	for name, nc := range map[string]net.Conn{"silent": silent, "asking": asking, "upgraded": upgraded} {
		_ = nc.SetReadDeadline(time.Now().Add(patience))
		for err = nil; err == nil; {
			_, err = nc.Read(make([]byte, 1024))
		}
		if strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %v", name, err)
		}
	}
	eventually(t, "they have left", func() bool {
		return st.Connections.Load() == 1 && st.ConnectTimeout.Load() == 2 && st.BadUpgrades.Load() == 1
	})
	client.silent()
	client.bye()
	eventually(t, "all places are free", func() bool { return st.Connections.Load() == 0 })
}

// TestHTTPTurnedAway: HTTP connections that there is no place for are closed after a while, though they say nothing.
func TestHTTPTurnedAway(t *testing.T) {
	b, _, tcp := start(t, func(c *mqttfront.Config) { c.MaxConnections = 1 })
	ws, err := b.Listen(mqttfront.ListenerConfig{URL: "ws://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	connect(t, tcp, connectOpts{id: "c"})
	const flood = 100 // more than are told
	for range flood {
		nc := dial(t, ws.String())
		defer func() {
			_ = nc.SetReadDeadline(time.Now().Add(patience))
			if _, err := nc.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
				t.Errorf("it stays: %v", err)
			}
		}()
	}
	eventually(t, "all are counted", func() bool { return b.Stats().RefusedConns.Load() == flood })
	if n := b.Stats().Connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}
