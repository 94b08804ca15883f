package mqttfront_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// raw is a client that sends the bytes it is told to, and decodes what comes by mochi's codec.
type raw struct {
	t       testing.TB
	nc      net.Conn
	br      *bufio.Reader
	version byte
	most    int // the Maximum Packet Size of the client; 0: none
}

const patience = 5 * time.Second

func newRaw(t testing.TB, addr string, version byte) *raw {
	nc := dial(t, addr)
	return &raw{t: t, nc: nc, br: bufio.NewReader(nc), version: version}
}

// connectOpts describes a CONNECT.
type connectOpts struct {
	id        string
	version   byte // 5 unless told otherwise
	bridge    bool // with the bit of bridges in the protocol level
	resume    bool // not a clean start
	keepAlive uint16
	props     []byte
	will      *willOpts
	user      string
	password  string
}

type willOpts struct {
	topic, payload string
	qos            byte
	retain         bool
	props          []byte
}

func str(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func vbi(n int) (b []byte) {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func sized(b []byte) []byte { return append(vbi(len(b)), b...) }

func packet(first byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	return append(append([]byte{first}, vbi(len(body))...), body...)
}

func (o connectOpts) encode() []byte {
	name, flags := "MQTT", byte(0)
	if o.version == 3 {
		name = "MQIsdp"
	}
	if !o.resume {
		flags |= 2
	}
	level := o.version
	if o.bridge {
		level |= 0x80
	}
	parts := [][]byte{str(name), {level}, {0}, {byte(o.keepAlive >> 8), byte(o.keepAlive)}}
	if o.version == 5 {
		parts = append(parts, sized(o.props))
	}
	parts = append(parts, str(o.id))
	if w := o.will; w != nil {
		flags |= 4 | w.qos<<3
		if w.retain {
			flags |= 0x20
		}
		if o.version == 5 {
			parts = append(parts, sized(w.props))
		}
		parts = append(parts, str(w.topic), str(w.payload))
	}
	if o.user != "" {
		flags |= 0x80
		parts = append(parts, str(o.user))
	}
	if o.password != "" {
		flags |= 0x40
		parts = append(parts, str(o.password))
	}
	parts[2] = []byte{flags}
	return packet(0x10, parts...)
}

func u32(id byte, v uint32) []byte { return binary.BigEndian.AppendUint32([]byte{id}, v) }
func u16(id byte, v uint16) []byte { return binary.BigEndian.AppendUint16([]byte{id}, v) }

func sessionExpiry(s uint32) []byte { return u32(0x11, s) }

// connect connects and returns the client and its CONNACK, which must say yes.
func connect(t testing.TB, addr string, o connectOpts) (*raw, *packets.Packet) {
	t.Helper()
	if o.version == 0 {
		o.version = 5
	}
	r := newRaw(t, addr, o.version)
	r.send(o.encode())
	ack := r.expect(packets.Connack)
	if ack.ReasonCode != 0 {
		t.Fatalf("CONNACK 0x%02x %s", ack.ReasonCode, ack.Properties.ReasonString)
	}
	return r, ack
}

func (r *raw) send(bs ...[]byte) {
	r.t.Helper()
	r.nc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := r.nc.Write(bytes.Join(bs, nil)); err != nil {
		r.t.Fatalf("write: %v", err)
	}
}

// next reads one packet within d.
func (r *raw) next(d time.Duration) (*packets.Packet, error) {
	r.nc.SetReadDeadline(time.Now().Add(d))
	first, err := r.br.ReadByte()
	if err != nil {
		return nil, err
	}
	n, err := binary.ReadUvarint(r.br)
	if err != nil {
		return nil, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r.br, body); err != nil {
		return nil, err
	}
	pk := &packets.Packet{ProtocolVersion: r.version}
	if err := pk.FixedHeader.Decode(first); err != nil {
		return nil, fmt.Errorf("header %02x: %w", first, err)
	}
	pk.FixedHeader.Remaining = int(n)
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(body)
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		err = pk.PubackDecode(body)
	case packets.Suback:
		err = pk.SubackDecode(body)
	case packets.Unsuback:
		err = pk.UnsubackDecode(body)
	case packets.Disconnect:
		err = pk.DisconnectDecode(body)
	case packets.Pingresp:
	default:
		err = fmt.Errorf("type %d", pk.FixedHeader.Type)
	}
	r.saidOnce(pk)
	r.lawful(pk)
	if size := 1 + len(vbi(int(n))) + int(n); r.most > 0 && size > r.most {
		r.t.Errorf("%s of %d bytes, and the client takes %d", packets.PacketNames[pk.FixedHeader.Type], size, r.most)
	}
	return pk, err
}

// saidOnce checks that a reason string does not say again what the reason code says.
func (r *raw) saidOnce(pk *packets.Packet) {
	r.t.Helper()
	for _, code := range append(pk.ReasonCodes, pk.ReasonCode) {
		name, _, _ := strings.Cut(mqttfront.Reason(code).String(), " (")
		if code >= 0x80 && strings.Contains(strings.ToLower(pk.Properties.ReasonString), name) {
			r.t.Errorf("%s 0x%02x: the reason string %q says again what the code says", packets.PacketNames[pk.FixedHeader.Type], code, pk.Properties.ReasonString)
		}
	}
}

// expect reads the next packet, which must be of a type.
func (r *raw) expect(kind byte) *packets.Packet {
	r.t.Helper()
	pk, err := r.next(patience)
	if err != nil {
		r.t.Fatalf("want %s: %v", packets.PacketNames[kind], err)
	}
	if pk.FixedHeader.Type != kind {
		r.t.Fatalf("%s came, want %s: %+v", packets.PacketNames[pk.FixedHeader.Type], packets.PacketNames[kind], pk)
	}
	return pk
}

// expectPublish reads a PUBLISH with a payload.
func (r *raw) expectPublish(payload string) *packets.Packet {
	r.t.Helper()
	pk := r.expect(packets.Publish)
	if string(pk.Payload) != payload {
		r.t.Fatalf("%q came on %q, want %q", pk.Payload, pk.TopicName, payload)
	}
	return pk
}

// silent checks that nothing comes up to the answer to a PINGREQ, which everything that was sent to this client
// before precedes.
func (r *raw) silent() {
	r.t.Helper()
	r.send([]byte{0xc0, 0})
	r.expect(packets.Pingresp)
}

// unanswered checks that nothing has come, where the server would not answer a ping.
func (r *raw) unanswered() {
	r.t.Helper()
	if pk, err := r.next(10 * time.Millisecond); err == nil {
		r.t.Fatalf("%s came, want nothing yet", packets.PacketNames[pk.FixedHeader.Type])
	}
}

// expectEnd checks that the server closes the connection without a word.
func (r *raw) expectEnd() {
	r.t.Helper()
	pk, err := r.next(patience)
	if err == nil {
		r.t.Fatalf("%s came, want the end", packets.PacketNames[pk.FixedHeader.Type])
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.t.Fatal("the connection stays open")
	}
}

// expectDisconnect checks that the server says why, and closes.
func (r *raw) expectDisconnect(reason byte) {
	r.t.Helper()
	for {
		pk, err := r.next(patience)
		if err != nil {
			r.t.Fatalf("want DISCONNECT 0x%02x: %v", reason, err)
		}
		if pk.FixedHeader.Type == packets.Disconnect {
			if pk.ReasonCode != reason {
				r.t.Fatalf("DISCONNECT 0x%02x %s, want 0x%02x", pk.ReasonCode, pk.Properties.ReasonString, reason)
			}
			r.expectEnd()
			return
		}
	}
}

// filter is a filter with options for SUBSCRIBE.
type filter struct {
	name    string
	options byte
}

func (r *raw) subscribePacket(id uint16, props []byte, fs ...filter) []byte {
	parts := [][]byte{{byte(id >> 8), byte(id)}}
	if r.version == 5 {
		parts = append(parts, sized(props))
	}
	for _, f := range fs {
		parts = append(parts, str(f.name), []byte{f.options})
	}
	return packet(0x82, parts...)
}

// subscribe subscribes and returns the reason codes.
func (r *raw) subscribe(fs ...filter) []byte {
	r.t.Helper()
	r.send(r.subscribePacket(77, nil, fs...))
	ack := r.expect(packets.Suback)
	if ack.PacketID != 77 || len(ack.ReasonCodes) != len(fs) {
		r.t.Fatalf("SUBACK %+v", ack)
	}
	return ack.ReasonCodes
}

func (r *raw) unsubscribe(names ...string) []byte {
	r.t.Helper()
	parts := [][]byte{{0, 78}}
	if r.version == 5 {
		parts = append(parts, []byte{0})
	}
	for _, n := range names {
		parts = append(parts, str(n))
	}
	r.send(packet(0xa2, parts...))
	ack := r.expect(packets.Unsuback)
	if ack.PacketID != 78 {
		r.t.Fatalf("UNSUBACK %+v", ack)
	}
	return ack.ReasonCodes
}

// publishPacket encodes a PUBLISH. flags are the lower bits of the first byte.
func (r *raw) publishPacket(flags byte, id uint16, topic, payload string, props ...byte) []byte {
	parts := [][]byte{str(topic)}
	if flags&6 != 0 {
		parts = append(parts, []byte{byte(id >> 8), byte(id)})
	}
	if r.version == 5 {
		parts = append(parts, sized(props))
	}
	return packet(0x30|flags, append(parts, []byte(payload))...)
}

// publish publishes at QoS 1 and waits for the PUBACK, whose reason it returns.
func (r *raw) publish(topic, payload string, props ...byte) byte {
	r.t.Helper()
	r.send(r.publishPacket(2, 99, topic, payload, props...))
	ack := r.expect(packets.Puback)
	if ack.PacketID != 99 {
		r.t.Fatalf("PUBACK for %d", ack.PacketID)
	}
	return ack.ReasonCode
}

// ackPacket encodes one of the four acknowledgements.
func ackPacket(kind byte, id uint16) []byte {
	first := kind << 4
	if kind == packets.Pubrel {
		first |= 2
	}
	return []byte{first, 2, byte(id >> 8), byte(id)}
}

func (r *raw) ack(kind byte, id uint16) { r.t.Helper(); r.send(ackPacket(kind, id)) }

// bye disconnects as clients should.
func (r *raw) bye() {
	r.t.Helper()
	r.send([]byte{0xe0, 0})
	r.expectEnd()
}

// kill breaks the connection.
func (r *raw) kill() {
	if tc, ok := r.nc.(*net.TCPConn); ok {
		tc.SetLinger(0)
	}
	r.nc.Close()
}

// eventually waits for something that can be seen to come true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	within(t, patience, what, ok)
}

// within is eventually with a limit of its own.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

// secondsLater is for eventually, where time has to pass.
func secondsLater(s float64) func() bool {
	end := time.Now().Add(time.Duration(s * float64(time.Second)))
	return func() bool { return time.Now().After(end) }
}
