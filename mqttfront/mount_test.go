package mqttfront_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

// withMount is what a client behind the mount site1/ means by a topic or filter.
func withMount(name string) string {
	if rest, ok := strings.CutPrefix(name, "$share/g/"); ok {
		return "$share/g/" + withMount(rest)
	}
	if rest, ok := strings.CutPrefix(name, "$local/"); ok {
		return "$local/site1/" + rest
	}
	if strings.HasPrefix(name, "$") {
		return name
	}
	return "site1/" + name
}

// got is a message as a client has it.
func (r *raw) got() (topic, rest string) {
	r.t.Helper()
	pk := r.expect(packets.Publish)
	if pk.FixedHeader.Qos > 0 {
		r.ack(packets.Puback, pk.PacketID)
	}
	return pk.TopicName, fmt.Sprintf("%s QoS %d retained %v", pk.Payload, pk.FixedHeader.Qos, pk.FixedHeader.Retain)
}

// TestMountOracle: what a client does behind a mount is what another does without, with the mount written before its
// topics and filters, and it sees the same.
func TestMountOracle(t *testing.T) {
	b, _, plain := start(t, nil)
	mounted := listenAt(t, b, mqttfront.ListenerConfig{URL: "tcp://127.0.0.1:0", Mount: "site1/"})
	topics := []string{"a", "a/b", "a/b/c", "b", "/", "x/site1/y", "site1/a", "$local/a", "$local/site1/b"}
	filters := []string{"#", "a/#", "+", "+/b", "a/+/c", "a", "/", "site1/#", "$local/#", "$local/+", "$share/g/a/+", "x/+/y"}
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // repeatable
	for round := range 25 {
		id := fmt.Sprint("sub", round)
		in, _ := connect(t, mounted, connectOpts{id: id})
		out, _ := connect(t, plain, connectOpts{id: id}) // a session of its own, though ID and user are the same
		pubIn, _ := connect(t, mounted, connectOpts{id: "pub"})
		pubOut, _ := connect(t, plain, connectOpts{id: "pub"})
		var mine []string
		for range 1 + r.IntN(3) {
			f := filters[r.IntN(len(filters))]
			if !slices.Contains(mine, f) {
				mine = append(mine, f)
			}
		}
		last := "end/" + id
		for _, f := range append(mine, last) {
			if a, b := in.subscribe(filter{f, 1}), out.subscribe(filter{withMount(f), 1}); a[0] != b[0] {
				t.Fatalf("%s: granted 0x%02x, without the mount 0x%02x", f, a, b)
			}
		}
		for n := range 6 {
			name, flags := topics[r.IntN(len(topics))], byte(2*r.IntN(2))
			text := fmt.Sprint(round, "-", n)
			if flags == 0 {
				pubIn.send(pubIn.publishPacket(0, 0, name, text))
				pubIn.silent()
			} else if code := pubIn.publish(name, text); code != 0 {
				t.Fatalf("%s: PUBACK 0x%02x", name, code)
			}
			if flags == 0 {
				pubOut.send(pubOut.publishPacket(0, 0, withMount(name), text))
				pubOut.silent()
			} else {
				pubOut.publish(withMount(name), text)
			}
		}
		// Both hear both publishers.
		pubIn.send(pubIn.publishPacket(0, 0, last, "end"))
		var fromIn, fromOut []string
		for _, c := range []struct {
			r    *raw
			all  *[]string
			name func(string) string
		}{{in, &fromIn, withMount}, {out, &fromOut, func(s string) string { return s }}} {
			for {
				topic, rest := c.r.got()
				if strings.HasPrefix(rest, "end ") {
					break
				}
				*c.all = append(*c.all, c.name(topic)+" "+rest)
			}
		}
		if slices.ContainsFunc(mine, func(f string) bool { return strings.HasPrefix(f, "$share/") }) {
			// They share a group, and so what goes to it.
			slices.Sort(fromIn)
			continue
		}
		if !slices.Equal(fromIn, fromOut) {
			t.Errorf("%v:\nbehind the mount %q\nwithout          %q", mine, fromIn, fromOut)
		}
		in.bye()
		out.bye()
	}
}

// TestMount: nothing from beside the mount comes in, and what is behind it is seen from outside with the mount.
func TestMount(t *testing.T) {
	auth := &asking{}
	b, _, plain := startWith(t, newLoner(), storetest.NewSessions(), auth, func(c *mqttfront.Config) { c.Topics.Length, c.Topics.Levels = 20, 4 })
	mounted := listenAt(t, b, mqttfront.ListenerConfig{URL: "tcp://127.0.0.1:0", Mount: "site1/"})
	outside, _ := connect(t, plain, connectOpts{id: "c"})
	pub, _ := connect(t, plain, connectOpts{id: "pub"})
	for _, name := range []string{"site1", "site1/", "site12/a", "a"} { // all that the filter of the client matches, and more
		pub.publish(name, "not for it")
		pub.send(pub.publishPacket(1, 0, name, "not for it"))
	}
	pub.send(pub.publishPacket(1, 0, "site1/kept", "retained"))
	pub.silent()
	outside.subscribe(filter{"site1/#", 1})
	var kept []string
	for range 3 {
		topic, _ := outside.got()
		kept = append(kept, topic)
	}
	if slices.Sort(kept); !slices.Equal(kept, []string{"site1", "site1/", "site1/kept"}) {
		t.Fatalf("%q came", kept)
	}
	inside, ack := connect(t, mounted, connectOpts{id: "c", will: &willOpts{topic: "will", payload: "gone"}})
	if ack.SessionPresent {
		t.Error("it has the session of somebody outside")
	}
	outside.silent() // it was not taken over
	inside.subscribe(filter{"#", 1}, filter{"$SYS/#", 0})
	if topic, rest := inside.got(); topic != "kept" || rest != "retained QoS 0 retained true" {
		t.Errorf("%s %s, want what is retained behind the mount", topic, rest)
	}
	for _, name := range []string{"site1", "site1/", "site12/a", "a"} {
		pub.publish(name, "not for it")
		if name == "site1" || name == "site1/" {
			outside.got()
		}
	}
	pub.publish("site1/a", "for it")
	outside.got()
	if topic, rest := inside.got(); topic != "a" || rest != "for it QoS 1 retained false" {
		t.Errorf("%s %s came", topic, rest)
	}
	if codes := inside.unsubscribe("$SYS/#", "site1/#"); codes[0] != 0 || codes[1] != 0x11 {
		t.Errorf("UNSUBACK %x", codes)
	}
	// Limits hold with the mount.
	fits, long := strings.Repeat("x", 14), strings.Repeat("x", 15)
	if codes := inside.subscribe(filter{fits, 0}, filter{long, 0}, filter{"a/b/c", 0}, filter{"a/b/c/d", 0}, filter{"a/@b", 0}, filter{"@b", 0}); !slices.Equal(codes, []byte{0, 0x8f, 0, 0x8f, 0x87, 0x87}) {
		t.Errorf("SUBACK %x", codes)
	}
	// Aliases stand for topics without the mount.
	short, _ := connect(t, mounted, connectOpts{id: "short", props: []byte{0x22, 0, 9}})
	short.subscribe(filter{"s/+", 0})
	for i, want := range []string{"s/1", "", "s/2"} {
		inside.send(inside.publishPacket(0, 0, []string{"s/1", "s/1", "s/2"}[i], "x"))
		if pk := short.expect(packets.Publish); pk.TopicName != want || pk.Properties.TopicAlias != []uint16{1, 1, 2}[i] {
			t.Errorf("%q with alias %d came, want %q", pk.TopicName, pk.Properties.TopicAlias, want)
		}
		outside.got()
		inside.got()
	}
	inside.kill()
	if topic, rest := outside.got(); topic != "site1/will" || !strings.HasPrefix(rest, "gone") {
		t.Errorf("the will is %s on %s", rest, topic)
	}
	empty := newRaw(t, mounted, 5)
	empty.send(connectOpts{version: 5, id: "d"}.encode())
	empty.expect(packets.Connack)
	empty.send(empty.publishPacket(0, 0, "", "no topic"))
	empty.expectDisconnect(0x82)
}

// TestMountedSessions: what a session behind a mount is subscribed to, and what waits for it, is the same after a restart.
func TestMountedSessions(t *testing.T) {
	st, lasting := storetest.NewSessions(), []byte{0x11, 0, 0, 1, 0}
	b, _, _ := startWith(t, newLoner(), st, nil, nil)
	at := func(b *mqttfront.Broker) string {
		return listenAt(t, b, mqttfront.ListenerConfig{URL: "tcp://127.0.0.1:0", Mount: "site1/"})
	}
	c, _ := connect(t, at(b), connectOpts{id: "c", props: lasting})
	c.subscribe(filter{"a/+", 1})
	c.bye()
	b.Close()
	b, _, plain := startWith(t, newLoner(), st, nil, nil)
	p, _ := connect(t, plain, connectOpts{id: "p"})
	p.publish("site1/a/b", "waited")
	p.publish("a/b", "not for it")
	r, ack := connect(t, at(b), connectOpts{id: "c", props: lasting, resume: true})
	if !ack.SessionPresent {
		t.Fatal("the session is gone")
	}
	if topic, rest := r.got(); topic != "a/b" || rest != "waited QoS 1 retained false" {
		t.Errorf("%s on %s", rest, topic)
	}
	r.silent()
}
