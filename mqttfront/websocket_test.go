package mqttfront_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/coder/websocket"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// TestWebSocketFrames: packets may begin and end anywhere in binary frames, in both versions, which the client asks for as
// "mqtt"; a frame of text ends the connection, whatever is in it [MQTT-6.0.0-1] [MQTT-6.0.0-2] [MQTT-6.0.0-4] [MQTT3-6.0.0-1]
// [MQTT3-6.0.0-2] [MQTT3-6.0.0-4].
func TestWebSocketFrames(t *testing.T) {
	b, _, _ := start(t, nil)
	addr, err := b.Listen(mqttfront.ListenerConfig{URL: "ws://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	dialIt := func() (*websocket.Conn, net.Conn) {
		t.Helper()
		ws, resp, err := websocket.Dial(t.Context(), "ws://"+addr.String()+"/mqtt", &websocket.DialOptions{Subprotocols: []string{"other", "mqtt"}, HTTPClient: client})
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
		if err != nil || ws.Subprotocol() != "mqtt" {
			t.Fatalf("subprotocol %q: %v", ws.Subprotocol(), err)
		}
		t.Cleanup(func() { ws.CloseNow() })
		return ws, websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
	}
	for _, version := range versions {
		_, nc := dialIt()
		r := &raw{t: t, nc: nc, br: newReader(nc), version: version}
		all := append(connectOpts{version: version, id: "ws"}.encode(), r.subscribePacket(1, nil, filter{"a", 1})...)
		for i := range 5 {
			all = append(all, r.publishPacket(2, uint16(i+1), "a", fmt.Sprint(i))...)
		}
		r.send(all[:3])
		for at := 3; at < len(all); at += 7 { // frames that are in no relation to packets
			r.send(all[at:min(at+7, len(all))])
		}
		r.expect(packets.Connack)
		r.expect(packets.Suback)
		acks, next := 0, 0
		for acks+next < 10 {
			pk, err := r.next(patience)
			switch {
			case err != nil:
				t.Fatal(err)
			case pk.FixedHeader.Type == packets.Puback:
				acks++
			case string(pk.Payload) == fmt.Sprint(next):
				next++
			default:
				t.Fatalf("%+v", pk)
			}
		}
		r.bye()

		ws, nc := dialIt()
		r = &raw{t: t, nc: nc, br: newReader(nc), version: version}
		r.send(connectOpts{version: version, id: "text"}.encode())
		r.expect(packets.Connack)
		if err := ws.Write(t.Context(), websocket.MessageText, []byte{0xc0, 0}); err != nil {
			t.Fatal(err)
		}
		for { // MQTT 5 may say why
			pk, err := r.next(patience)
			if err != nil {
				break
			}
			if pk.FixedHeader.Type != packets.Disconnect {
				t.Fatalf("%+v", pk)
			}
		}
		eventually(t, "it is disconnected", func() bool { return b.Stats().Connections.Load() == 0 })
	}
}
