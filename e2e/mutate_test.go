package e2e

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/packets"
	paho3 "github.com/eclipse/paho.mqtt.golang/packets"
)

var (
	mutated      = flag.Int("mutated", 0, "how many mutated packets TestMutatedPackets sends; 0: 300,000, or 10 million with NIGHTLY=1")
	mutationSeed = flag.Uint64("mutation-seed", 0, "what TestMutatedPackets makes its packets from; 0: something else each time")
)

// nightly reports whether the longer forms of tests are wanted.
func nightly() bool { return os.Getenv("NIGHTLY") != "" }

// TestMutatedPackets sends a running node packets of all kinds and versions that were changed at random, over a few
// connections at a time, one after another. What each connection says follows from the seed and its number.
func TestMutatedPackets(t *testing.T) {
	long(t)
	n := newNode(t, "node", "--open")
	n.env = append(n.env, "MOZZIE_ADMIN_PPROF=true", "MOZZIE_LIMITS_MAX_CONNECTION_RATE=0", "MOZZIE_LIMITS_MAX_CONNECTION_RATE_PER_ADDRESS=0", "MOZZIE_LIMITS_MAX_SESSION_EXPIRY=1s", "MOZZIE_LIMITS_MAX_RETAINED_MESSAGES=1000")
	n.start()
	n.ready()
	b := startBeside(t, n)
	quiet := b.during("before")
	quiet.while(2 * time.Second)
	before, causes := n.footprint(), n.causes()

	total, seed := *mutated, *mutationSeed
	if total == 0 {
		if total = 300_000; nightly() {
			total = 10_000_000
		}
	}
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("%d mutated packets; again with -run TestMutatedPackets -mutated %d -mutation-seed %d", total, total, seed)
	hostile := b.during("meanwhile")
	began := time.Now()
	h := hostility{address: n.mqtt, seed: seed, want: int64(total)}
	h.run()
	took := time.Since(began)
	b.caughtUp()
	after := b.during("after")
	after.while(2 * time.Second)
	b.end()
	now := n.recovers(before)
	t.Logf("%s: %d mutated packets of %d over %d connections in %v (%.0f/s); refused: %v", machine(), h.mutated.Load(), h.sent.Load(), h.conns.Load(),
		took.Round(time.Second), float64(h.mutated.Load())/took.Seconds(), since(causes, n.causes()))
	for _, p := range []*phase{quiet, hostile, after} {
		t.Log(p)
		p.served(t)
	}
	t.Logf("before: %v; after: %v", before, now)
	if v := n.causes()["codec_panic"]; v > 0 {
		t.Errorf("the codec panicked %v times", v)
	}
	if h.unreached.Load() > 0 {
		t.Errorf("%d connections were not accepted, first: %v", h.unreached.Load(), h.why.Load())
	}
	n.quietLog()
}

// while lets a phase last.
func (p *phase) while(d time.Duration) { time.Sleep(d) } // it is what is measured

// hostility sends mutated packets.
type hostility struct {
	address string
	seed    uint64
	want    int64

	conns, sent, mutated, unreached atomic.Int64
	why                             atomic.Value
}

func (h *hostility) run() {
	const atOnce = 8
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for h.mutated.Load() < h.want {
				h.connection(uint64(h.conns.Add(1)))
			}
		})
	}
	all.Wait()
}

// connection opens one connection, says what follows from its number, and hangs up in one way or another.
func (h *hostility) connection(number uint64) {
	rng := rand.New(rand.NewPCG(h.seed, number))
	stream, packets, mutated := hostileStream(rng)
	// Addresses of their own, so that ports last and no limit for one address is met.
	from := &net.TCPAddr{IP: net.IPv4(127, byte(1+rng.IntN(100)), byte(rng.IntN(256)), byte(1+rng.IntN(254)))}
	conn, err := (&net.Dialer{LocalAddr: from, Timeout: patience}).Dial("tcp", h.address)
	if err != nil {
		h.unreached.Add(1)
		h.why.CompareAndSwap(nil, err.Error())
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	for len(stream) > 0 {
		piece := len(stream)
		if rng.IntN(4) == 0 {
			piece = 1 + rng.IntN(len(stream))
		}
		if _, err := conn.Write(stream[:piece]); err != nil {
			break
		}
		stream = stream[piece:]
	}
	h.sent.Add(int64(packets))
	h.mutated.Add(int64(mutated))
	switch rng.IntN(4) {
	case 0: // without reading
		_ = conn.(*net.TCPConn).SetLinger(0)
	case 1: // as far as the answer to the last goes
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, _ = bytes.NewBuffer(nil).ReadFrom(conn)
	default:
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
		_, _ = conn.Read(make([]byte, 4096))
	}
}

// hostileStream makes what one connection says: packets of one client, about half of which are mutated, the later more
// than the earlier, so that most of them are read by a session at work.
func hostileStream(rng *rand.Rand) (stream []byte, packets, mutated int) {
	all := conversation(rng)
	for i := range all {
		if i == 0 && rng.IntN(8) > 0 || rng.IntN(len(all)) > i+len(all)/3 {
			continue
		}
		all[i] = mutate(rng, all[i], all[rng.IntN(len(all))])
		mutated++
	}
	switch rng.IntN(8) {
	case 0:
		i, k := rng.IntN(len(all)), rng.IntN(len(all))
		all[i], all[k] = all[k], all[i]
		mutated++
	case 1:
		i := rng.IntN(len(all))
		all = append(all, all[i], all[i])
		mutated += 2
	}
	return bytes.Join(all, nil), len(all), mutated
}

// mutate changes a packet: mostly so that it can still be read, and says something else.
func mutate(rng *rand.Rand, p, other []byte) []byte {
	p = bytes.Clone(p)
	if len(p) < 3 {
		return append(p, p...)
	}
	at := 2 + rng.IntN(len(p)-2)
	switch rng.IntN(16) {
	case 0, 1, 2, 3, 4: // bits behind the fixed header
		for range 1 + rng.IntN(3) {
			p[2+rng.IntN(len(p)-2)] ^= 1 << rng.IntN(8)
		}
	case 5, 6: // the flags
		p[0] ^= 1 << rng.IntN(4)
	case 7: // the type
		p[0] = byte(rng.IntN(256))
	case 8: // a byte
		p[at] = byte(rng.IntN(256))
	case 9: // what may be a length, or the high half of one
		binary.BigEndian.PutUint16(p[min(at, len(p)-2):], uint16(rng.IntN(4)*0x5555))
	case 10: // the remaining length
		p[1] = []byte{0, 0x7f, 0xff, p[1] + 1, p[1] - 1}[rng.IntN(5)]
	case 11: // cut, with a length that fits
		p = p[:at]
		p[1] = byte(len(p) - 2)
	case 12: // more, with a length that fits
		p = append(p, other[:rng.IntN(len(other))]...)
		p[1] = byte(min(len(p)-2, 127))
	case 13: // cut, without
		p = p[:at]
	case 14: // spliced
		p = append(p[:at], other[rng.IntN(len(other)):]...)
	case 15: // noise
		for i := range p {
			p[i] = byte(rng.IntN(256))
		}
	}
	return p
}

// conversation is what a client says: CONNECT, then a few packets of all kinds.
func conversation(rng *rand.Rand) [][]byte {
	topics := []string{"a", "a/b", "a/b/c", "hostile/x", "$local/x", "$SYS/x", "@u/x", ""}
	filters := []string{"a/#", "+/b", "a/b", "hostile/#", "$share/g/a/#", "#", "$SYS/#", "$local/+"}
	id := fmt.Sprintf("hostile-%d", rng.IntN(64))
	n := 6 + rng.IntN(20)
	pick := func(of []string) string { return of[rng.IntN(len(of))] }
	if rng.IntN(2) == 0 {
		return conversation5(rng, n, id, func() string { return pick(topics) }, func() string { return pick(filters) })
	}
	return conversation3(rng, n, id, func() string { return pick(topics) }, func() string { return pick(filters) })
}

func conversation3(rng *rand.Rand, n int, id string, topic, filter func() string) (all [][]byte) {
	add := func(p paho3.ControlPacket) {
		var b bytes.Buffer
		if err := p.Write(&b); err != nil {
			panic(err) // into memory
		}
		all = append(all, b.Bytes())
	}
	c := paho3.NewControlPacket(paho3.Connect).(*paho3.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.ClientIdentifier, c.CleanSession, c.Keepalive = "MQTT", 4, id, rng.IntN(2) == 0, 60
	if rng.IntN(3) == 0 {
		c.ProtocolName, c.ProtocolVersion = "MQIsdp", 3
	}
	if rng.IntN(3) == 0 {
		c.WillFlag, c.WillTopic, c.WillMessage, c.WillQos, c.UsernameFlag, c.Username = true, topic(), []byte("w"), byte(rng.IntN(3)), true, "u"
	}
	add(c)
	for range n {
		packetID := uint16(1 + rng.IntN(20))
		switch rng.IntN(8) {
		case 0:
			p := paho3.NewControlPacket(paho3.Subscribe).(*paho3.SubscribePacket)
			p.MessageID, p.Topics, p.Qoss = packetID, []string{filter(), filter()}, []byte{byte(rng.IntN(3)), byte(rng.IntN(3))}
			add(p)
		case 1:
			p := paho3.NewControlPacket(paho3.Unsubscribe).(*paho3.UnsubscribePacket)
			p.MessageID, p.Topics = packetID, []string{filter()}
			add(p)
		case 2:
			add(paho3.NewControlPacket(paho3.Pingreq))
		case 3:
			all = append(all, []byte{[]byte{0x40, 0x50, 0x62, 0x70}[rng.IntN(4)], 2, 0, byte(packetID)})
		default:
			p := paho3.NewControlPacket(paho3.Publish).(*paho3.PublishPacket)
			p.Qos, p.Retain, p.MessageID, p.TopicName, p.Payload = byte(rng.IntN(3)), rng.IntN(4) == 0, packetID, topic(), bytes.Repeat([]byte("p"), rng.IntN(40))
			add(p)
		}
	}
	if rng.IntN(2) == 0 {
		add(paho3.NewControlPacket(paho3.Disconnect))
	}
	return all
}

func conversation5(rng *rand.Rand, n int, id string, topic, filter func() string) (all [][]byte) {
	add := func(kind byte, fill func(*paho5.ControlPacket)) {
		p := paho5.NewControlPacket(kind)
		fill(p)
		var b bytes.Buffer
		if _, err := p.WriteTo(&b); err != nil {
			panic(err) // into memory
		}
		all = append(all, b.Bytes())
	}
	some := func(most int) *uint32 { v := uint32(rng.IntN(most)); return &v }
	add(paho5.CONNECT, func(p *paho5.ControlPacket) {
		c := p.Content.(*paho5.Connect)
		c.ClientID, c.CleanStart, c.KeepAlive = id, rng.IntN(2) == 0, 60
		c.Properties.SessionExpiryInterval = some(3)
		c.Properties.User = []paho5.User{{Key: "k", Value: "v"}}
		if rng.IntN(3) == 0 {
			c.WillFlag, c.WillTopic, c.WillMessage, c.WillProperties = true, topic(), []byte("w"), &paho5.Properties{WillDelayInterval: some(2)}
		}
	})
	for range n {
		packetID := uint16(1 + rng.IntN(20))
		switch rng.IntN(8) {
		case 0:
			add(paho5.SUBSCRIBE, func(p *paho5.ControlPacket) {
				s, number := p.Content.(*paho5.Subscribe), 1+rng.IntN(300)
				s.PacketID, s.Properties.SubscriptionIdentifier = packetID, &number
				s.Subscriptions = []paho5.SubOptions{{Topic: filter(), QoS: byte(rng.IntN(3)), RetainHandling: byte(rng.IntN(3)), RetainAsPublished: true}, {Topic: filter()}}
			})
		case 1:
			add(paho5.UNSUBSCRIBE, func(p *paho5.ControlPacket) {
				u := p.Content.(*paho5.Unsubscribe)
				u.PacketID, u.Topics = packetID, []string{filter(), filter()}
			})
		case 2:
			add(paho5.PINGREQ, func(*paho5.ControlPacket) {})
		case 3:
			all = append(all, []byte{[]byte{0x40, 0x50, 0x62, 0x70}[rng.IntN(4)], 4, 0, byte(packetID), []byte{0, 0x92, 0x10}[rng.IntN(3)], 0})
		default:
			add(paho5.PUBLISH, func(p *paho5.ControlPacket) {
				m := p.Content.(*paho5.Publish)
				m.QoS, m.Retain, m.PacketID, m.Topic, m.Payload = byte(rng.IntN(3)), rng.IntN(4) == 0, packetID, topic(), bytes.Repeat([]byte("p"), rng.IntN(40))
				m.Properties.MessageExpiry, m.Properties.ContentType = some(3), "text"
				if rng.IntN(2) == 0 {
					alias := uint16(rng.IntN(4))
					m.Properties.TopicAlias = &alias
				}
				m.Properties.User = []paho5.User{{Key: "k", Value: "v"}}
			})
		}
	}
	if rng.IntN(2) == 0 {
		add(paho5.DISCONNECT, func(p *paho5.ControlPacket) { p.Content.(*paho5.Disconnect).ReasonCode = byte(rng.IntN(2) * 4) })
	}
	return all
}
