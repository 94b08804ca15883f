package mqttfront_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// pump sends n times what was encoded and reads what comes of it, without allocating.
func pump(b testing.TB, pub net.Conn, out []byte, n int, subs []net.Conn, in int) {
	done := make(chan error, len(subs))
	for _, s := range subs {
		go func() {
			buf := make([]byte, 64<<10)
			s.SetReadDeadline(time.Now().Add(time.Minute))
			for left := n * in; left > 0; {
				got, err := s.Read(buf[:min(len(buf), left)])
				if err != nil {
					done <- err
					return
				}
				left -= got
			}
			done <- nil
		}()
	}
	const burst = 64
	buf := bytes.Repeat(out, burst)
	for left := n; left > 0; left -= burst {
		if _, err := pub.Write(buf[:min(left, burst)*len(out)]); err != nil {
			b.Fatal(err)
		}
	}
	for range subs {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkQoS0 is a message from socket to socket, the client's side included.
func BenchmarkQoS0(b *testing.B) {
	for _, version := range []byte{4, 5} {
		for _, fan := range []int{1, 10} {
			b.Run(fmt.Sprintf("v%d/to%d", version, fan), func(b *testing.B) {
				_, _, addr := start(b, func(c *mqttfront.Config) { c.MaxPendingBytes = 1 << 30 })
				pub, _ := connect(b, addr, connectOpts{id: "pub", version: version})
				var subs []net.Conn
				for i := range fan {
					s, _ := connect(b, addr, connectOpts{id: fmt.Sprint(i), version: version})
					s.subscribe(filter{"site/5/room/5/+", 0})
					subs = append(subs, s.nc)
				}
				out := pub.publishPacket(0, 0, "site/5/room/5/temperature", string(make([]byte, 64)))
				b.ReportAllocs()
				b.ResetTimer()
				pump(b, pub.nc, out, b.N, subs, len(out))
			})
		}
	}
}

// TestQoS0AllocatesNothing in the steady state.
func TestQoS0AllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, version := range []byte{4, 5} {
		_, _, addr := start(t, func(c *mqttfront.Config) { c.MaxPendingBytes = 1 << 30 })
		pub, _ := connect(t, addr, connectOpts{id: "pub", version: version})
		sub, _ := connect(t, addr, connectOpts{id: "sub", version: version})
		sub.subscribe(filter{"a/#", 0})
		out := pub.publishPacket(0, 0, "a/b/c", string(make([]byte, 64)))
		subs := []net.Conn{sub.nc}
		const n = 100000
		pump(t, pub.nc, out, n, subs, len(out))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		pump(t, pub.nc, out, n, subs, len(out))
		runtime.ReadMemStats(&after)
		if per := float64(after.Mallocs-before.Mallocs) / n; per > 0.02 {
			t.Errorf("version %d: %.3f allocations a message", version, per)
		}
	}
}

// TestMutants has broken packets of all kinds thrown at the broker, whose other clients must not notice.
func TestMutants(t *testing.T) {
	b, _, addr := start(t, nil)
	good, _ := connect(t, addr, connectOpts{id: "good"})
	good.subscribe(filter{"good", 1})
	r := &raw{version: 5}
	seeds := [][]byte{
		connectOpts{version: 5, id: "m", props: sessionExpiry(5), will: &willOpts{topic: "w", payload: "x", props: delay(1)}, user: "u", password: "p"}.encode(),
		connectOpts{version: 4, id: "m"}.encode(),
		r.publishPacket(0, 0, "a", "v"), r.publishPacket(2, 1, "a", "v", u16(0x23, 1)...), r.publishPacket(4, 2, "a/b", "v", u32(2, 1)...),
		r.subscribePacket(1, []byte{0x0b, 3}, filter{"a/#", 2}, filter{"$share/g/+", 1}), packet(0xa2, []byte{0, 1, 0}, str("a")),
		ackPacket(packets.Puback, 1), ackPacket(packets.Pubrec, 1), ackPacket(packets.Pubrel, 2), ackPacket(packets.Pubcomp, 1),
		{0xc0, 0}, {0xe0, 0}, packet(0xe0, []byte{0}, sized(sessionExpiry(1))), {0xf0, 0},
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	for round := range 400 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		var out []byte
		if round%8 > 0 {
			out = append(out, seeds[round%2]...)
		}
		for range 20 {
			p := bytes.Clone(seeds[rnd.IntN(len(seeds))])
			for range rnd.IntN(3) {
				p[rnd.IntN(len(p))] = byte(rnd.Uint32())
			}
			out = append(out, p...)
		}
		nc.Write(out)
		nc.(*net.TCPConn).CloseWrite()
		nc.SetReadDeadline(time.Now().Add(patience))
		io.Copy(io.Discard, nc)
		nc.Close()
		if round%50 == 0 {
			good.publish2(t)
		}
	}
	eventually(t, "only the good one is left", func() bool { return b.Stats().Connections.Load() == 1 })
	if n := b.Stats().DecodePanics.Load(); n > 0 {
		t.Errorf("%d panics in the codec", n)
	}
}

// publish2 publishes to itself.
func (r *raw) publish2(t *testing.T) {
	t.Helper()
	r.send(r.publishPacket(2, 9, "good", "v"))
	for range 2 {
		pk, err := r.next(patience)
		if err != nil {
			t.Fatal(err)
		}
		if pk.FixedHeader.Type == packets.Publish {
			r.ack(packets.Puback, pk.PacketID)
		}
	}
}
