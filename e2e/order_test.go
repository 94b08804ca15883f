package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// TestOrderBehindRetained publishes a retained message with others right in front of it and behind it, all in one
// write. Retained ones go by way of their rendezvous; those behind them must not overtake them, least of all at the
// publisher's own node, whose subscribers get the others at once.
func TestOrderBehindRetained(t *testing.T) {
	long(t)
	const n = 20
	nodes := startSwarm(t, 2, setup{})
	for _, at := range nodes { // the rendezvous
		for qos := range byte(3) {
			topic := topicAt(t, nodes[0], at, fmt.Sprintf("%s-%d-", strings.ReplaceAll(at.name, " ", ""), qos))
			here, there := connect(t, nodes[0].mqtt), connect(t, nodes[1].mqtt)
			here.subscribe(qos, topic)
			there.subscribe(qos, topic)
			for round, version := range []byte{4, 5, 4, 5, 4, 5} {
				conn, err := net.DialTimeout("tcp", nodes[0].mqtt, patience)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				_ = conn.SetDeadline(time.Now().Add(patience))
				burst := rawConnect(version, clientID())
				for i := range n {
					flags := qos << 1
					if i%7 == 2 {
						flags |= 1
					}
					burst = append(burst, rawPublish(version, flags, uint16(i+1), topic, numbered(i))...)
				}
				if _, err := conn.Write(burst); err != nil {
					t.Fatal(err)
				}
				for _, sub := range []*client{here, there} {
					live := func(got []message) []message { // what is retained may come for the new subscription as well
						return slices.DeleteFunc(got, func(m message) bool { return m.retained })
					}
					got := sub.until(t, patience, "all of them", func(got []message) bool { return len(live(got)) >= n*(round+1) })
					inOrder(t, live(got)[n*round:])
				}
			}
		}
	}
}

// rawConnect encodes a CONNECT with a clean start.
func rawConnect(version byte, id string) []byte {
	parts := [][]byte{rawString("MQTT"), {version, 2, 0, 60}}
	if version == 5 {
		parts = append(parts, []byte{0})
	}
	return rawPacket(0x10, append(parts, rawString(id))...)
}

// rawPublish encodes a PUBLISH; flags are the lower bits of its first byte.
func rawPublish(version, flags byte, id uint16, topic, payload string) []byte {
	parts := [][]byte{rawString(topic)}
	if flags&6 != 0 {
		parts = append(parts, binary.BigEndian.AppendUint16(nil, id))
	}
	if version == 5 {
		parts = append(parts, []byte{0})
	}
	return rawPacket(0x30|flags, append(parts, []byte(payload))...)
}

func rawString(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) //nolint:gosec // short
}

func rawPacket(first byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

// TestOneAtATime publishes on topics at many locations, each message when the one before is acknowledged: subscribers at
// all nodes hear them in this order. A message that took longer than the limit to arrive excuses a try.
func TestOneAtATime(t *testing.T) {
	long(t)
	const n, places, tries = 200, 10, 3
	nodes := startSwarm(t, 3, setup{})
	place := func(i int) string { return fmt.Sprintf("place%d/one", i%places) }
	first := connect(t, nodes[0].mqtt)
	var tokens []mqtt.Token
	for i := range places { // not one at a time: the first message at a place may take long
		tokens = append(tokens, first.mqtt.Publish(place(i), 1, false, "first"))
	}
	for _, token := range tokens {
		first.must("publish", token)
	}
	for range tries {
		before := nodes[0].metric("mozzie_held_given_up_total")
		subs := []*client{connect(t, nodes[0].mqtt), connect(t, nodes[1].mqtt), connect(t, nodes[2].mqtt)}
		for _, sub := range subs {
			sub.subscribe(1, "+/one")
		}
		pub := connect(t, nodes[0].mqtt)
		for i := range n {
			pub.publish(place(i*i), numbered(i), 1)
		}
		for _, sub := range subs {
			sub.wait(t, n)
		}
		if nodes[0].metric("mozzie_held_given_up_total") == before {
			for _, sub := range subs {
				inOrder(t, sub.wait(t, n))
			}
			return
		}
		time.Sleep(11 * time.Second) // nothing waits for the slow locations until then
	}
	t.Logf("the machine is too slow: in %d tries messages took longer than 100 ms", tries)
}
