package mqttfront_test

import (
	"strings"
	"testing"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

func TestMalformed(t *testing.T) {
	b, _, addr := start(t, func(c *mqttfront.Config) { c.MaxPacketSize = 2000; c.Topics.Levels = 10 })
	r := &raw{version: 5}
	big := r.publishPacket(0, 0, "a", strings.Repeat("x", 2000))
	for _, c := range []struct {
		name string
		raw  []byte
		code byte
	}{
		{"QoS 3", packet(0x36, str("a"), []byte{0, 1, 0}), 0x81},                      // [MQTT-3.3.1-4]
		{"too large", big, 0x95},                                                      // [MQTT-3.2.2-15]
		{"too large, header only", big[:3], 0x95},                                     //
		{"256 MiB, header only", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, 0x95},          //
		{"five bytes of length", []byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x01}, 0x81},    // [MQTT-1.5.5-1]
		{"topic with wildcard", r.publishPacket(0, 0, "a/+", "v"), 0x90},              // [MQTT-3.3.2-2]
		{"topic not UTF-8", r.publishPacket(0, 0, "a\xff", "v"), 0x90},                // [MQTT-3.3.2-1]
		{"topic too deep", r.publishPacket(0, 0, strings.Repeat("/", 10), "v"), 0x90}, //
		{"subscription identifier", r.publishPacket(0, 0, "a", "v", 0x0b, 1), 0x82},   // [MQTT-3.3.4-6]
		{"expiry twice", r.publishPacket(0, 0, "a", "v", append(u32(2, 1), u32(2, 1)...)...), 0x82},
		{"alias twice", r.publishPacket(0, 0, "a", "v", append(u16(0x23, 1), u16(0x23, 1)...)...), 0x82},
		{"payload format twice", r.publishPacket(0, 0, "a", "v", 1, 1, 1, 1), 0x82},
		{"payload format 2", r.publishPacket(0, 0, "a", "v", 1, 2), 0x82},
		{"content type twice", r.publishPacket(0, 0, "a", "v", 3, 0, 0, 3, 0, 0), 0x82},
		{"response topic twice", r.publishPacket(0, 0, "a", "v", 8, 0, 1, 'r', 8, 0, 1, 'r'), 0x82},
		{"correlation data twice", r.publishPacket(0, 0, "a", "v", 9, 0, 0, 9, 0, 0), 0x82},
		{"response topic with wildcard", r.publishPacket(0, 0, "a", "v", 8, 0, 3, 'r', '/', '#'), 0x82}, // [MQTT-3.3.2-14]
		{"response topic empty", r.publishPacket(0, 0, "a", "v", 8, 0, 0), 0x82},
		{"response topic not UTF-8", r.publishPacket(0, 0, "a", "v", 8, 0, 1, 0xff), 0x81}, // [MQTT-3.3.2-13]
		{"content type not UTF-8", r.publishPacket(0, 0, "a", "v", 3, 0, 1, 0xff), 0x81},   // [MQTT-3.3.2-19]
		{"unknown property", r.publishPacket(0, 0, "a", "v", 0x7f), 0x81},
		{"property of another packet", r.publishPacket(0, 0, "a", "v", 0x11, 0, 0, 0, 1), 0x81},
		{"flags of SUBSCRIBE", packet(0x80, []byte{0, 1, 0}, str("a"), []byte{0}), 0x81}, // [MQTT-3.8.1-1]
		{"flags of PUBREL", []byte{0x60, 2, 0, 1}, 0x81},                                 // [MQTT-3.6.1-1]
		{"flags of UNSUBSCRIBE", packet(0xa0, []byte{0, 1, 0}, str("a")), 0x81},          // [MQTT-3.10.1-1]
		{"flags of PINGREQ", []byte{0xc1, 0}, 0x81},                                      // [MQTT-2.1.3-1]
		{"flags of DISCONNECT", []byte{0xe1, 0}, 0x81},                                   // [MQTT-3.14.1-1]
		{"PINGREQ with a body", []byte{0xc0, 1, 0}, 0x81},                                //
		{"SUBSCRIBE without options", packet(0x82, []byte{0, 1, 0}, str("a")), 0x81},     // made the codec panic
		{"SUBSCRIBE without filter", packet(0x82, []byte{0, 1, 0}), 0x82},                // [MQTT-3.8.3-2]
		{"SUBSCRIBE with packet ID 0", packet(0x82, []byte{0, 0, 0}, str("a"), []byte{0}), 0x82},
		{"SUBSCRIBE not UTF-8", packet(0x82, []byte{0, 1, 0}, str("a\xff"), []byte{0}), 0x81}, // [MQTT-3.8.3-1]
		{"UNSUBSCRIBE not UTF-8", packet(0xa2, []byte{0, 1, 0}, str("a\xff")), 0x81},          // [MQTT-3.10.3-1]
		{"SUBSCRIBE QoS 3", packet(0x82, []byte{0, 1, 0}, str("a"), []byte{3}), 0x81},         // [MQTT-3.8.3-5]
		{"SUBSCRIBE reserved", packet(0x82, []byte{0, 1, 0}, str("a"), []byte{0x40}), 0x81},   // [MQTT-3.8.3-5]
		{"SUBSCRIBE retain handling 3", packet(0x82, []byte{0, 1, 0}, str("a"), []byte{0x30}), 0x82},
		{"SUBSCRIBE identifier 0", packet(0x82, []byte{0, 1, 2, 0x0b, 0}, str("a"), []byte{0}), 0x82},
		{"SUBSCRIBE identifier twice", packet(0x82, []byte{0, 1, 4, 0x0b, 1, 0x0b, 1}, str("a"), []byte{0}), 0x82},
		{"shared with no local", packet(0x82, []byte{0, 1, 0}, str("$share/g/a"), []byte{4}), 0x82}, // [MQTT-3.8.3-4]
		{"UNSUBSCRIBE without filter", packet(0xa2, []byte{0, 1, 0}), 0x82},                         // [MQTT-3.10.3-2]
		{"CONNACK", []byte{0x20, 2, 0, 0}, 0x82},
		{"type 0", []byte{0x00, 0}, 0x82},
		{"AUTH", []byte{0xf0, 0}, 0x82},
		{"PUBACK cut", []byte{0x40, 1, 0}, 0x81},
		{"DISCONNECT with a wrong property", []byte{0xe0, 4, 0, 2, 0x0b, 1}, 0x82},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := connect(t, addr, connectOpts{id: "c"})
			r.send(c.raw)
			r.expectDisconnect(c.code) // [MQTT-4.13.1-1]
			old, _ := connect(t, addr, connectOpts{id: "old", version: 4})
			if c.code == 0x95 || c.name == "QoS 3" {
				old.send(c.raw)
				old.expectEnd() // never a DISCONNECT in MQTT 3
			}
			old.kill()
		})
	}
	if b.Stats().DecodePanics.Load() > 0 {
		t.Error("the codec panicked behind our checks")
	}
}
