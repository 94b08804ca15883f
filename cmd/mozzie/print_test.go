package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

func TestPrintStatus(t *testing.T) {
	var b bytes.Buffer
	printStatus(&b, admin.Status{
		PeerID: "12D3A", Version: "v1", UptimeS: 3700, Reasons: []string{"no address yet"}, Swarm: "private", Fingerprint: "abcd",
		Nodes: 1, Addresses: []string{"/ip4/1.2.3.4/tcp/1/p2p/12D3A", "/ip6/::1/tcp/1/p2p/12D3A"}, MQTT: []string{"tcp://127.0.0.1:1"},
		Admin: "127.0.0.1:2", Data: "/d", Broker: admin.Broker{Connections: 1, Sessions: 2, Received: 5}, Route: admin.Route{Streams: 1},
	})
	want := `
node       12D3A
version    v1, up 1 h 1 min
ready      NO
           no address yet
swarm      private, key abcd
           1 node known, connected to 0
mqtt       tcp://127.0.0.1:1
addresses  /ip4/1.2.3.4/tcp/1/p2p/12D3A
           /ip6/::1/tcp/1/p2p/12D3A
admin      127.0.0.1:2
data       /d
clients    1 connection, 2 sessions, 0 subscriptions
messages   5 from clients, 0 to clients, 0 dropped, 0 retained
locations  0 held, rendezvous of 0, with 0 registrations
route      1 stream, custody of 0 messages
`
	if got := "\n" + b.String(); got != want {
		t.Errorf("have %s\nwant %s", got, want)
	}
}

func TestPrintPeers(t *testing.T) {
	var b bytes.Buffer
	printPeers(&b, []admin.Peer{
		{PeerID: "12D3A", Left: true},
		{PeerID: "12D3B", SeenS: 90000},
		{PeerID: "12D3D", Connected: true, Relayed: true},
		{PeerID: "12D3C", Connected: true, RTTms: 1.25, Version: "v1", Addresses: []string{"/ip4/1.2.3.4/tcp/1"}},
	})
	want := `
NODE   STATE               ROUND TRIP  VERSION  ADDRESS
12D3C  connected           1.2 ms      v1       /ip4/1.2.3.4/tcp/1
12D3D  connected by relay  -           -        -
12D3A  left                -           -        -
12D3B  gone for 1 d 1 h    -           -        -
`
	if got := "\n" + b.String(); got != want {
		t.Errorf("have %s\nwant %s", got, want)
	}
}

func TestPrintLocation(t *testing.T) {
	var b bytes.Buffer
	printLocation(&b, admin.Location{
		Topic: "a/b", Prefix: "a", Depth: 1, Location: "ff00", Version: 4,
		Members: []admin.Member{
			{PeerID: "12D3A", Distance: "01"},
			{PeerID: "12D3B", Rendezvous: true, Self: true, Reachable: true, Distance: "02"},
		},
	})
	want := `
topic       a/b
prefix      a (1 level)
location    ff00
set         version 4, 2 members
replica     12D3A  distance 01  out of reach
rendezvous  12D3B  distance 02  this node
`
	if got := "\n" + b.String(); got != want {
		t.Errorf("have %s\nwant %s", got, want)
	}
}

func TestHumanDuration(t *testing.T) {
	for seconds, want := range map[float64]string{0.4: "0 s", 59: "59 s", 61: "1 min 1 s", 7260: "2 h 1 min", 180000: "2 d 2 h"} {
		if got := humanDuration(seconds); got != want {
			t.Errorf("%v: %s, want %s", seconds, got, want)
		}
	}
}

func TestMQTTFlags(t *testing.T) {
	for url, want := range map[string]string{
		"tcp://127.0.0.1:1883":   "",
		"tcp://127.0.0.1:1884":   " -p 1884",
		"tcp://0.0.0.0:1883":     "",
		"tcp://[::]:1884":        " -p 1884",
		"tcp://192.168.1.7:1883": " -h 192.168.1.7",
		"ws://127.0.0.1:8083":    "",
		"tls://[::]:8883":        " --fingerprint AB:CD",
		"tls://10.0.0.7:1":       " -h 10.0.0.7 -p 1 --fingerprint AB:CD",
		"unix:///run/my mqtt":    " --unix '/run/my mqtt'",
	} {
		if got := mqttFlags([]admin.Listener{{URL: url, Fingerprint: "AB:CD"}}); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
	if got := mqttFlags([]admin.Listener{{URL: "ws://h:1"}, {URL: "tls://h:2"}, {URL: "tcp://[::]:3"}}); got != " -p 3" {
		t.Errorf("%q", got)
	}
}

func TestShellQuote(t *testing.T) {
	for path, want := range map[string]string{"/a/b": "/a/b", "/a b": "'/a b'", "it's": `'it'\''s'`, "": "''"} {
		if got := shellQuote(path); got != want {
			t.Errorf("%q: %s, want %s", path, got, want)
		}
	}
}

func TestJoinProperties(t *testing.T) {
	for args, want := range map[string]string{
		"pub -D publish content-type x -t a":    "pub|-D|publish_content-type_x|-t|a",
		"sub -D connect user-property k v -t a": "sub|-D|connect_user-property_k_v|-t|a",
		"pub --property publish":                "pub|--property|publish",
		"pub -D":                                "pub|-D",
		"pub -- -D a b c":                       "pub|--|-D|a|b|c",
		"run -D a b c":                          "run|-D|a|b|c",
	} {
		got := joinProperties(strings.Fields(args))
		if s := strings.ReplaceAll(strings.Join(got, "|"), wordSeparator, "_"); s != want {
			t.Errorf("%s: %s, want %s", args, s, want)
		}
	}
}

func TestParseProperties(t *testing.T) {
	var list propertyFlag
	for _, words := range [][]string{
		{"Publish", "message-expiry-interval", "60"},
		{"publish", "user-property", "k", "v w"},
		{"publish", "user-property", "k", ""},
		{"will", "will-delay-interval", "5"},
		{"connect", "receive-maximum", "7"},
	} {
		if err := list.Set(strings.Join(words, wordSeparator)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := parseProperties(list)
	if err != nil {
		t.Fatal(err)
	}
	p := all.of("publish")
	if p.MessageExpiryInterval != 60 || len(p.User) != 2 || p.User[0].Val != "v w" || p.User[1].Key != "k" {
		t.Errorf("publish: %+v", p)
	}
	if all.of("will").WillDelayInterval != 5 || all.of("connect").ReceiveMaximum != 7 || all.of("subscribe").User != nil {
		t.Errorf("%+v", all)
	}
}

func TestExpand(t *testing.T) {
	m := client.Message{Topic: "a", Payload: []byte{0xff, '1'}, QoS: 1, Retain: true, PacketID: 9}
	at := time.Unix(1700000000, 5).UTC()
	for format, want := range map[string]string{
		"%t %x %X %l %q %r %m %d %%": "a ff31 FF31 2 1 1 9 0 %",
		`%I\t%U\n`:                   "2023-11-14T22:13:20+0000\t1700000000.000000005\n",
		"100%":                       "100%",
		`\\`:                         `\`,
		"%j":                         `{"time":"2023-11-14T22:13:20.000000005Z","topic":"a","qos":1,"retain":true,"packet_id":9,"payload_base64":"/zE="}`,
	} {
		if got, err := expand(format, m, at); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", format, got, err, want)
		}
	}
}

func TestVersion(t *testing.T) {
	if v := versionOf(nil, false); v.Version != "dev" || !slices.Contains([]string{"linux", "darwin"}, strings.Split(v.Platform, "/")[0]) {
		t.Errorf("%+v", v)
	}
}

func TestThousands(t *testing.T) {
	for _, tc := range []struct {
		n    float64
		want string
	}{{0, "0"}, {999.4, "999"}, {999.5, "1,000"}, {1234567, "1,234,567"}, {100000, "100,000"}, {-1234, "-1,234"}, {-123, "-123"}} {
		if got := thousands(tc.n); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.n, got, tc.want)
		}
	}
}

func TestMicros(t *testing.T) {
	for _, tc := range []struct {
		us   float64
		want string
	}{{0, "0 µs"}, {999, "999 µs"}, {1500, "1.5 ms"}, {25_000, "25 ms"}, {2_500_000, "2.5 s"}} {
		if got := micros(tc.us); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.us, got, tc.want)
		}
	}
}

func TestBrokersOf(t *testing.T) {
	got, err := brokersOf("--pub", []string{"pi1", "pi2:1884", "::1", "[::1]", "[::1]:1884"}, 1883)
	if want := []string{"pi1:1883", "pi2:1884", "[::1]:1883", "[::1]:1883", "[::1]:1884"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for _, bad := range []string{"", "tcp://pi1"} {
		if _, err := brokersOf("--pub", []string{bad}, 1883); exitCode(err) != exitUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
