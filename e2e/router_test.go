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

// TestBehindRouters has one node that everybody reaches and two that nobody does, with the settings that a node has by
// default. Within a minute what is published at the one hidden node reaches subscriptions at the other: on addresses of
// a house or a VPN in a private swarm, and on public ones in an open swarm.
func TestBehindRouters(t *testing.T) {
	long(t)
	const soon, topics = time.Minute, 30
	for _, c := range []struct {
		name   string
		prefix string
		open   bool
	}{{"private swarm, private addresses", "10.77.0.", false}, {"open swarm, public addresses", "5.6.7.", true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newNetwork(t, 3, wire{prefix: c.prefix, delay: 5 * time.Millisecond})
			w.hosts[1].router, w.hosts[2].router = newRouter(), newRouter()
			var nodes []*node
			began := time.Now()
			for i, h := range w.hosts {
				var flags []string
				if c.open {
					flags = []string{"--open", "--listen", "/ip4/" + h.address + "/tcp/7883", "--listen", "/ip4/" + h.address + "/udp/7883/quic-v1"}
				}
				if i > 0 {
					flags = append(flags, nodes[0].toJoin(!c.open)...)
				}
				n := h.newNode(t, flags...)
				n.start()
				n.ready()
				nodes = append(nodes, n)
			}
			subs, pub := w.hosts[1].connect5(t, nodes[1]), w.hosts[2].connect5(t, nodes[2])
			names := func(i int) string { return fmt.Sprintf("relayed%d/x", i) }
			for _, n := range nodes {
				n.until("knows 3 nodes", func(s admin.Status) bool { return s.Nodes == 3 })
			}
			promised := map[string]bool{} // topics subscribed to perhaps before the two have met
			for i := range topics {
				promised[names(i)] = subs.promised(2, names(i))
				pub.publish(names(i), "early", 1)
			}
			meet(t, nodes...)
			if met := time.Since(began); met > soon {
				t.Errorf("the hidden nodes were connected after %v", met)
			} else {
				t.Logf("the hidden nodes were connected after %v", met.Round(100*time.Millisecond))
			}
			for i := range topics {
				for qos := range byte(3) {
					pub.publish(names(i), numbered(int(qos)), qos)
				}
			}
			got := subs.until(t, patience, "all messages", func(got []message) bool {
				return missing3(got, topics, names) == 0
			})
			if took := time.Since(began); took > soon {
				t.Errorf("all messages were there after %v", took)
			}
			if !c.open { // else a hole may have been punched
				nodes[1].connectedByRelay(nodes[2])
			}
			early := map[string]int{}
			for _, m := range got {
				if m.payload == "early" {
					early[m.topic]++
				}
			}
			for topic, yes := range promised {
				if yes && early[topic] != 1 {
					t.Errorf("the SUBACK for %s was a promise, and what was published after it came %d times", topic, early[topic])
				}
			}
		})
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

// missing3 counts the messages that are not there, of one at each QoS on each topic.
func missing3(got []message, topics int, name func(int) string) int {
	have := map[message]bool{}
	for _, m := range got {
		have[m] = true
	}
	n := 0
	for i := range topics {
		for qos := range byte(3) {
			if !have[message{name(i), numbered(int(qos)), qos, false}] {
				n++
			}
		}
	}
	return n
}
