package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// router is what a host has before it that lets nobody in who was not asked, as routers with NAT do: no TCP connection
// from outside, no datagram but in answer to one, no multicast. (It does not change addresses, which is not what keeps
// nodes from each other.) It is used under network.mu.
type router struct {
	asked map[datagrams]bool
}

// datagrams are a way of UDP datagrams out: from a port here to a port there.
type datagrams struct {
	here, there         [4]byte
	herePort, therePort uint16
}

func newRouter() *router { return &router{asked: map[datagrams]bool{}} }

const (
	etherIPv4, etherARP = 0x0800, 0x0806
	protoTCP, protoUDP  = 6, 17
	tcpSYN, tcpACK      = 0x02, 0x10
)

// packet is an IPv4 packet: its protocol, and what it carries.
func packet(frame []byte) (proto byte, source, destination [4]byte, data []byte, ok bool) {
	if len(frame) < 34 || binary.BigEndian.Uint16(frame[12:]) != etherIPv4 {
		return 0, source, destination, nil, false
	}
	ip := frame[14:]
	head := int(ip[0]&15) * 4
	if len(ip) < head+14 {
		return 0, source, destination, nil, false
	}
	return ip[9], [4]byte(ip[12:16]), [4]byte(ip[16:20]), ip[head:], true
}

// out reports whether a frame that the host sends is let through.
func (r *router) out(frame []byte) bool {
	if r == nil || binary.BigEndian.Uint16(frame[12:]) == etherARP {
		return true
	}
	proto, from, to, udp, ok := packet(frame)
	if !ok || frame[0]&1 != 0 { // a group's address
		return false
	}
	if proto == protoUDP {
		r.asked[datagrams{from, to, binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[2:])}] = true
	}
	return true
}

// in reports whether a frame is let through to the host.
func (r *router) in(frame []byte) bool {
	if r == nil || binary.BigEndian.Uint16(frame[12:]) == etherARP {
		return true
	}
	proto, from, to, data, ok := packet(frame)
	switch {
	case !ok:
		return false
	case proto == protoTCP:
		return data[13]&(tcpSYN|tcpACK) != tcpSYN
	case proto == protoUDP:
		return r.asked[datagrams{to, from, binary.BigEndian.Uint16(data[2:]), binary.BigEndian.Uint16(data)}]
	}
	return false
}

// behindRouters starts one node that everybody reaches and two that nobody does, with the settings that a node has by
// default. It returns when each knows the two others, which does not mean that they are connected.
func behindRouters(t *testing.T, prefix string, open bool) (w *network, nodes []*node) {
	t.Helper()
	w = newNetwork(t, 3, wire{prefix: prefix, delay: 5 * time.Millisecond})
	w.mu.Lock()
	w.hosts[1].router, w.hosts[2].router = newRouter(), newRouter()
	w.mu.Unlock()
	for i, h := range w.hosts {
		var flags []string
		if open {
			flags = []string{"--open", "--listen", "/ip4/" + h.Address + "/tcp/7883", "--listen", "/ip4/" + h.Address + "/udp/7883/quic-v1"}
		}
		if i > 0 {
			flags = append(flags, nodes[0].toJoin(!open)...)
		}
		n := h.newNode(t, flags...)
		n.start()
		n.ready()
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.until("knows 3 nodes", func(s admin.Status) bool { return s.Nodes == 3 })
	}
	return w, nodes
}

// behindTopics is how many topics a test has, so that each node is the rendezvous of some.
const behindTopics = 30

func behindTopic(i int) string { return fmt.Sprintf("behind%d/x", i) }

// TestBehindRouters: within a minute of the start what is published at one hidden node reaches subscriptions at the
// other, on addresses of a house or a VPN in a private swarm, and on public ones in an open swarm.
func TestBehindRouters(t *testing.T) {
	long(t)
	const soon = time.Minute
	for _, c := range []struct {
		name, prefix string
		open         bool
	}{{"private swarm, private addresses", "10.77.0.", false}, {"open swarm, public addresses", "5.6.7.", true}} {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			w, nodes := behindRouters(t, c.prefix, c.open)
			meet(t, nodes...)
			t.Logf("the hidden nodes were connected after %v", time.Since(began).Round(100*time.Millisecond))
			sub, pub := w.hosts[1].connect5(t, nodes[1]), w.hosts[2].connect5(t, nodes[2])
			want := map[message]bool{}
			for i := range behindTopics {
				sub.subscribe(2, behindTopic(i))
				for qos := range byte(3) {
					pub.publish(behindTopic(i), numbered(int(qos)), qos)
					want[message{behindTopic(i), numbered(int(qos)), qos, false}] = true
				}
			}
			sub.until(t, patience, "all messages", without(want))
			if took := time.Since(began); took > soon {
				t.Errorf("all messages were there after %v", took)
			}
			if !c.open { // else a hole may have been punched
				nodes[1].connectedByRelay(nodes[2])
			}
		})
	}
}

// TestPromiseBehindRouters subscribes and publishes at the hidden nodes before they are connected. Where the SUBACK was a
// promise, the messages must arrive when they are.
func TestPromiseBehindRouters(t *testing.T) {
	long(t)
	w, nodes := behindRouters(t, "10.77.0.", false)
	sub, pub := w.hosts[1].connect5(t, nodes[1]), w.hosts[2].connect5(t, nodes[2])
	want := map[message]bool{}
	for i := range behindTopics {
		promised := sub.promised(1, behindTopic(i))
		pub.publish(behindTopic(i), "early", 1)
		if promised {
			want[message{behindTopic(i), "early", 1, false}] = true
		}
	}
	t.Logf("%d of %d SUBACKs were promises", len(want), behindTopics)
	meet(t, nodes...)
	sub.until(t, patience, "what was published behind a promise", without(want))
}

// without reports whether all of some messages have come.
func without(want map[message]bool) func([]message) bool {
	return func(got []message) bool {
		for _, m := range got {
			delete(want, m)
		}
		return len(want) == 0
	}
}

// connectedByRelay checks that a node has its connection to another, and to no third one, through a relay.
func (n *node) connectedByRelay(to *node) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := n.api.Peers(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, p := range all.Peers {
		if relayed := p.PeerID == to.id; p.Relayed != relayed {
			n.t.Errorf("%s: connected by relay: %v, want %v: %+v", n.name, p.Relayed, relayed, p)
		}
	}
}
