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
		{"QoS 3", packet(0x36, str("a"), []byte{0, 1, 0}), 0x81},                                        // [MQTT-3.3.1-4]
		{"too large", big, 0x95},                                                                        // [MQTT-3.2.2-15]
		{"too large, header only", big[:3], 0x95},                                                       //
		{"256 MiB, header only", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, 0x95},                            //
		{"five bytes of length", []byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x01}, 0x81},                      // [MQTT-1.5.5-1]
		{"length with a byte too many", []byte{0x30, 0x85, 0, 0, 1, 'a', 0, 'v'}, 0x81},                 // [MQTT-1.5.5-1]
		{"properties' length with a byte too many", []byte{0x30, 6, 0, 1, 'a', 0x80, 0, 'v'}, 0x81},     // [MQTT-1.5.5-1]
		{"DUP at QoS 0", r.publishPacket(8, 0, "a", "v"), 0x81},                                         // [MQTT-3.3.1-2]
		{"packet ID 0", r.publishPacket(2, 0, "a", "v"), 0x82},                                          // [MQTT-2.2.1-3]
		{"topic with wildcard", r.publishPacket(0, 0, "a/+", "v"), 0x90},                                // [MQTT-3.3.2-2] [MQTT-4.7.0-1]
		{"topic not UTF-8", r.publishPacket(0, 0, "a\xff", "v"), 0x90},                                  // [MQTT-3.3.2-1]
		{"topic with a NUL", r.publishPacket(0, 0, "a\x00", "v"), 0x90},                                 // [MQTT-4.7.3-2]
		{"user property not UTF-8", r.publishPacket(0, 0, "a", "v", 0x26, 0, 1, 'k', 0, 1, 0xff), 0x81}, // [MQTT-1.5.7-1]
		{"topic too deep", r.publishPacket(0, 0, strings.Repeat("/", 10), "v"), 0x90},                   //
		{"subscription identifier", r.publishPacket(0, 0, "a", "v", 0x0b, 1), 0x82},                     // [MQTT-3.3.4-6]
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
		{"AUTH", []byte{0xf0, 0}, 0x82},                                                                                // [MQTT-4.12.0-7]
		{"AUTH to authenticate again", packet(0xf0, []byte{0x19}, sized(append([]byte{0x15}, str("SCRAM")...))), 0x82}, // [MQTT-4.12.1-2]
		{"flags of AUTH", []byte{0xf1, 0}, 0x81},                                                                       // [MQTT-3.15.1-1]
		{"PUBACK cut", []byte{0x40, 1, 0}, 0x81},
		{"DISCONNECT with a wrong property", []byte{0xe0, 4, 0, 2, 0x0b, 1}, 0x82},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := connect(t, addr, connectOpts{id: "c"})
			r.send(c.raw)
			r.expectDisconnect(c.code) // [MQTT-4.13.1-1]
		})
	}
	if b.Stats().DecodePanics.Load() > 0 {
		t.Error("the codec panicked behind our checks")
	}
}

// TestMalformed311: with MQTT 3 clients whatever is not as it should be ends the connection without a word
// [MQTT3-4.8.0-1].
func TestMalformed311(t *testing.T) {
	_, _, addr := start(t, func(c *mqttfront.Config) { c.MaxPacketSize = 2000 })
	r := &raw{version: 4}
	for _, c := range []struct {
		name string
		raw  []byte
	}{
		{"too large", r.publishPacket(0, 0, "a", strings.Repeat("x", 2000))},
		{"QoS 3", packet(0x36, str("a"), []byte{0, 1})},                         // [MQTT3-3.3.1-4]
		{"DUP at QoS 0", r.publishPacket(8, 0, "a", "v")},                       // [MQTT3-3.3.1-2]
		{"PUBLISH with packet ID 0", r.publishPacket(2, 0, "a", "v")},           // [MQTT3-2.3.1-1]
		{"topic with wildcard", r.publishPacket(0, 0, "a/+", "v")},              // [MQTT3-3.3.2-2] [MQTT3-4.7.1-1]
		{"topic that is a wildcard", r.publishPacket(2, 1, "#", "v")},           // [MQTT3-3.3.2-2] [MQTT3-4.7.1-1]
		{"topic not UTF-8", r.publishPacket(0, 0, "a\xff", "v")},                // [MQTT3-1.5.3-1] [MQTT3-3.3.2-1]
		{"topic with a surrogate", r.publishPacket(0, 0, "\xed\xa0\x80", "v")},  // [MQTT3-1.5.3-1]
		{"topic with a NUL", r.publishPacket(0, 0, "a\x00", "v")},               // [MQTT3-1.5.3-2] [MQTT3-4.7.3-2]
		{"topic empty", r.publishPacket(0, 0, "", "v")},                         // [MQTT3-4.7.3-1]
		{"topic cut", []byte{0x30, 3, 0, 5, 'a'}},                               // [MQTT3-3.3.2-1]
		{"flags of SUBSCRIBE", packet(0x80, []byte{0, 1}, str("a"), []byte{0})}, // [MQTT3-3.8.1-1]
		{"flags of PUBREL", []byte{0x60, 2, 0, 1}},                              // [MQTT3-3.6.1-1]
		{"flags of UNSUBSCRIBE", packet(0xa0, []byte{0, 1}, str("a"))},          // [MQTT3-3.10.1-1]
		{"flags of PUBACK", []byte{0x42, 2, 0, 1}},                              // [MQTT3-2.2.2-2]
		{"flags of PINGREQ", []byte{0xc1, 0}},                                   // [MQTT3-2.2.2-2]
		{"flags of DISCONNECT", []byte{0xe1, 0}},                                // [MQTT3-3.14.1-1]
		{"DISCONNECT with a body", []byte{0xe0, 1, 0}},
		{"SUBSCRIBE with packet ID 0", packet(0x82, []byte{0, 0}, str("a"), []byte{0})}, // [MQTT3-2.3.1-1]
		{"SUBSCRIBE without filter", packet(0x82, []byte{0, 1})},                        // [MQTT3-3.8.3-3]
		{"SUBSCRIBE not UTF-8", packet(0x82, []byte{0, 1}, str("a\xff"), []byte{0})},    // [MQTT3-3.8.3-1]
		{"SUBSCRIBE with a NUL", packet(0x82, []byte{0, 1}, str("a\x00"), []byte{0})},   // [MQTT3-1.5.3-2] [MQTT3-4.7.3-2]
		{"SUBSCRIBE QoS 3", packet(0x82, []byte{0, 1}, str("a"), []byte{3})},            // [MQTT3-3.8.3-4]
		{"SUBSCRIBE reserved", packet(0x82, []byte{0, 1}, str("a"), []byte{4})},         // [MQTT3-3.8.3-4]
		{"UNSUBSCRIBE with packet ID 0", packet(0xa2, []byte{0, 0}, str("a"))},          // [MQTT3-2.3.1-1]
		{"UNSUBSCRIBE without filter", packet(0xa2, []byte{0, 1})},                      // [MQTT3-3.10.3-2]
		{"UNSUBSCRIBE not UTF-8", packet(0xa2, []byte{0, 1}, str("a\xff"))},             // [MQTT3-3.10.3-1]
		{"CONNACK", []byte{0x20, 2, 0, 0}},
		{"type 0", []byte{0x00, 0}},
		{"type 15", []byte{0xf0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := connect(t, addr, connectOpts{id: "c", version: 4})
			r.send(c.raw)
			r.expectEnd()
		})
	}
}
