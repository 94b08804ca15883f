package node

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// TestSwarm checks in swarms of several sizes, in one process, that a subscription at any node hears a publish at
// any other, and that a publish to a known location touches few nodes. It prints what a SUBACK takes, in a large swarm
// beside a small one, and what a node costs. The largest swarm runs with NIGHTLY=1, as in CI.
func TestSwarm(t *testing.T) {
	if testing.Short() {
		t.Skip("swarms take a while")
	}
	subacks := map[int]map[subackKind]time.Duration{}
	for _, n := range []int{3, 10, 30, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			if n > 30 && os.Getenv("NIGHTLY") == "" {
				t.Skip("it takes a minute: set NIGHTLY=1")
			}
			if n > 10 && raceEnabled {
				t.Skip("the race detector makes so many hosts in one process slower than their own time limits")
			}
			before, began := heap(), time.Now()
			s := startSwarm(t, n)
			t.Logf("%d nodes know each other after %v; a node takes %.2f MiB of heap", n, time.Since(began).Round(time.Millisecond), (heap()-before)/float64(n))
			subacks[n] = map[subackKind]time.Duration{wildcardFirst: s.subackTakes(wildcardFirst)}
			s.everyoneHearsEveryone()
			for _, kind := range []subackKind{literalNew, literalKnown, wildcardLate} {
				subacks[n][kind] = s.subackTakes(kind)
			}
			s.fewAreTouched()
			t.Logf("a node takes %.2f MiB of heap after that, %.1f MiB of the process's memory", (heap()-before)/float64(n), rss()/float64(n))
		})
	}
	compareSubacks(t, subacks[10], subacks[100])
}

// subackKind is a kind of filters to measure.
type subackKind struct {
	what   string
	format string // of the filters
}

// A SUBACK is to take at most twice as long at 100 nodes as at 10 in the median. When all nodes serve locations, each has
// to acknowledge a filter that begins with a wildcard: they do so at the same time, but here they share two processors,
// so that ten times as many take more than ten times as long.
var (
	wildcardFirst = subackKind{"a wildcard, before anybody has published", "+/first%d"}
	literalNew    = subackKind{"a first level that is new", "new%d/x"}
	literalKnown  = subackKind{"one that is known", "known/%d"}
	wildcardLate  = subackKind{"a wildcard, while every node serves locations", "+/late%d"}
)

// compareSubacks prints the medians of a large swarm as multiples of those of a small one, measured in the same run. They
// are for people to judge: how busy the machine was is in them.
func compareSubacks(t *testing.T, small, large map[subackKind]time.Duration) {
	t.Helper()
	if small == nil || large == nil {
		t.Log("the largest swarm is missing: what a SUBACK takes is not compared")
		return
	}
	for _, kind := range []subackKind{wildcardFirst, literalNew, literalKnown, wildcardLate} {
		t.Logf("SUBACK to %s: p50 at 100 nodes is %.1f times that at 10", kind.what, float64(large[kind])/float64(small[kind]))
	}
}

// heap returns what is in use, in MiB.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// rss returns the memory of the process, in MiB.
func rss() float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return 0
	}
	return float64(resident*os.Getpagesize()) / (1 << 20)
}

// everyoneHearsEveryone publishes from every node to a literal filter at another, to one that begins with a wildcard
// at a third, and to # at a fourth.
func (s *testSwarm) everyoneHearsEveryone() {
	s.t.Helper()
	n := len(s.nodes)
	all := s.connect(rand.IntN(n), "all")
	all.subscribe(1, "#")
	for i := range s.nodes {
		pub := s.connect(i, fmt.Sprintf("pub%d", i))
		literal, wild := s.connect((i+1+rand.IntN(n-1))%n, fmt.Sprintf("literal%d", i)), s.connect((i+1+rand.IntN(n-1))%n, fmt.Sprintf("wild%d", i))
		topic := fmt.Sprintf("first%d/second%d", i, i)
		literal.subscribe(1, topic)
		wild.subscribe(1, fmt.Sprintf("+/second%d", i))
		pub.publish(client.Message{Topic: topic, Payload: []byte("hello"), QoS: byte(i % 3)})
		literal.wait(1)
		wild.wait(1)
		all.wait(i + 1)
		_ = wild.Disconnect()
		_ = literal.Disconnect()
		_ = pub.Disconnect()
	}
	_ = all.Disconnect()
}

// subackTakes prints what a SUBACK takes, and returns the median.
func (s *testSwarm) subackTakes(kind subackKind) time.Duration {
	s.t.Helper()
	const each = 100
	clients := make([]*mqttClient, 10)
	for i := range clients {
		clients[i] = s.connect(rand.IntN(len(s.nodes)), fmt.Sprintf("suback%d", i))
	}
	took := make([]time.Duration, each)
	for i := range took {
		filter := fmt.Sprintf(kind.format, i)
		began := time.Now()
		clients[i%len(clients)].subscribe(1, filter)
		took[i] = time.Since(began)
	}
	for _, c := range clients {
		_ = c.Disconnect()
	}
	slices.Sort(took)
	s.t.Logf("SUBACK to %s: p50 %v, p90 %v", kind.what, took[each/2].Round(10*time.Microsecond), took[each*9/10].Round(10*time.Microsecond))
	return took[each/2]
}

// fewAreTouched counts the nodes that have to do with a message: the publisher's, the rendezvous, the second copy
// and the subscriber's, at any size.
func (s *testSwarm) fewAreTouched() {
	s.t.Helper()
	const most = 4
	for i := range 10 {
		topic := fmt.Sprintf("touched%d/x", i)
		pub, sub := s.connect(rand.IntN(len(s.nodes)), "pub"), s.connect(rand.IntN(len(s.nodes)), "sub")
		sub.subscribe(2, topic)
		pub.publish(client.Message{Topic: topic, QoS: 1}) // from here on the location is known
		sub.wait(1)
		for qos := range byte(3) {
			touched := map[peer.ID]bool{}
			s.watch(func(f sent) {
				if carries(f.frame, topic) {
					touched[f.from], touched[f.to] = true, true
				}
			})
			pub.publish(client.Message{Topic: topic, Payload: []byte("x"), QoS: qos})
			sub.wait(2 + int(qos))
			s.watch(nil)
			if len(touched) > most {
				s.t.Errorf("%d nodes had to do with a message at QoS %d, want at most %d", len(touched), qos, most)
			}
		}
		_ = pub.Disconnect()
		_ = sub.Disconnect()
	}
}

// carries reports whether a frame carries a message of a topic.
func carries(frame any, topic string) bool {
	switch f := frame.(type) {
	case *proto.Publish:
		return f.Message.Topic == topic
	case *proto.Deliver:
		return f.Message.Topic == topic
	case *pb.Copy:
		return slices.ContainsFunc(f.GetCustody(), func(c *pb.Custody) bool { return c.GetMessage().GetTopic() == topic })
	case *pb.Transfer:
		return slices.ContainsFunc(f.GetCustody(), func(c *pb.Custody) bool { return c.GetMessage().GetTopic() == topic })
	case *pb.Retain:
		return slices.ContainsFunc(f.GetRetained(), func(r *pb.RetainedMessage) bool { return r.GetMessage().GetTopic() == topic })
	}
	return false
}
