package mqttfront_test

import (
	"bytes"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// TestCustodyProperty: MQTT 5 clients are told by PUBACK and PUBREC where their message is kept, if there is something to tell,
// they want reason strings and the like, and they take packets of that size [MQTT-3.1.2-29] [MQTT-3.4.2-3] [MQTT-3.5.2-3].
func TestCustodyProperty(t *testing.T) {
	for _, c := range []struct {
		name    string
		client  connectOpts
		custody mqttfront.Custody
		want    string // "": the short form
	}{
		{"nothing to tell", connectOpts{id: "c"}, mqttfront.CustodyUnsaid, ""},
		{"swarm", connectOpts{id: "c"}, mqttfront.CustodySwarm, "swarm"},
		{"node", connectOpts{id: "c"}, mqttfront.CustodyNode, "node"},
		{"not asked for", connectOpts{id: "c", props: []byte{0x17, 0}}, mqttfront.CustodySwarm, ""},
		{"too large", connectOpts{id: "c", props: u32(0x27, 22)}, mqttfront.CustodySwarm, ""},
		{"just fits", connectOpts{id: "c", props: u32(0x27, 23)}, mqttfront.CustodySwarm, "swarm"},
		{"MQTT 3.1.1", connectOpts{id: "c", version: 4}, mqttfront.CustodySwarm, ""},
		{"MQTT 3.1", connectOpts{id: "c", version: 3}, mqttfront.CustodyNode, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, l, addr := start(t, nil)
			l.custody = c.custody
			pub := newRaw(t, addr, 5)
			if c.client.version > 0 {
				pub = newRaw(t, addr, c.client.version)
			}
			c.client.version = pub.version
			pub.send(c.client.encode())
			if a := pub.expect(packets.Connack); a.ReasonCode != 0 {
				t.Fatalf("CONNACK 0x%02x", a.ReasonCode)
			}
			for i, kind := range []byte{packets.Puback, packets.Pubrec} {
				pub.send(pub.publishPacket(byte(2+2*i), uint16(i+1), "a", "v"))
				want := []byte{kind << 4, 2, 0, byte(i + 1)}
				if c.want != "" {
					props := append([]byte{0x26, 0, 7}, "custody"...)
					props = append(append(props, 0, byte(len(c.want))), c.want...)
					want = append([]byte{kind << 4, byte(4 + len(props)), 0, byte(i + 1), 0, byte(len(props))}, props...)
				}
				got := make([]byte, len(want))
				if _, err := pub.br.Read(got[:1]); err != nil {
					t.Fatal(err)
				}
				for n := 1; n < len(got); {
					m, err := pub.br.Read(got[n:])
					if err != nil {
						t.Fatalf("%x, %v", got[:n], err)
					}
					n += m
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%x, want %x", got, want)
				}
			}
			if pub.br.Buffered() > 0 {
				t.Errorf("%d bytes more", pub.br.Buffered())
			}
		})
	}
}
