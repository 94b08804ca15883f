package config

import (
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// FuzzDecode: no text makes the decoder panic, and a configuration that is right is shown as text that says the same.
func FuzzDecode(f *testing.F) {
	f.Add("swarm:\n  open: true\n")
	f.Add("mqtt: {listeners: [{url: \"tcp://127.0.0.1:0\"}]}\n")
	f.Add("a: &a [*a]\n")
	f.Add("swarm: {listen: [\"/\", \"/ip4/1.2.3.4/tcp/1/p2p/x\"], <<: {open: true}}\n")
	f.Add("data: &d /srv/mozzie\nadmin: {listen: *d, pprof: true}\nlimits: {max_packet_size: 64KiB, max_queued_bytes: 1_000_000, connect_timeout: 1m30s}\n")
	f.Add("data: \"/a # b\\u00e9\\n\"\nlog: {level: debug, format: json}\nlocations: {depth: 0x2}\n")
	f.Add("---\n...\n---\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		c.Data = "/x"
		if decodeFile("f", []byte(text), &c) != nil || c.Validate() != nil {
			return
		}
		shown := c.Show()
		again := Default()
		if err := decodeFile("shown", []byte(shown), &again); err != nil {
			t.Fatalf("%q is shown as\n%s\nwhich cannot be read: %v", text, shown, err)
		}
		again.Swarm.Join = c.Swarm.Join // it is not shown
		again.origins = c.origins
		if second := again.Show(); second != shown {
			t.Fatalf("%q is shown as\n%s\nwhich is shown as\n%s", text, shown, second)
		}
	})
}

// FuzzValues: times and sizes come back from their text as they were.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"7d", "1h30m", "1m30s", "0", "-5s", "1.5h", "9223372036854775807ns", "106752d", "1MiB", "1 GiB", "1_000", "512k", "0B", "8796093022207M", "MiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseDuration(s); err == nil {
			if again, err := parseDuration(formatDuration(d)); err != nil || again != d || d < 0 {
				t.Errorf("%q is %d ns, shown as %s, which is %d, %v", s, d, formatDuration(d), again, err)
			}
		}
		if b, err := parseBytes(s); err == nil {
			if again, err := parseBytes(b.String()); err != nil || again != b || b < 0 {
				t.Errorf("%q is %d bytes, shown as %s, which is %d, %v", s, int64(b), b, int64(again), err)
			}
		}
	})
}

// FuzzListener: what passes for a listener comes back from its text as it was, and what can be reached from elsewhere is
// never taken for what cannot.
func FuzzListener(f *testing.F) {
	for _, s := range []string{"tcp://127.0.0.1:1883", "ws://[::1]:8083/mqtt", "tcp://0.0.0.0:1883?anonymous=true", "tcp://localhost:0",
		"tcp://user@127.0.0.1:1#f", "tcp://[::ffff:127.0.0.1]:1", "tcp://127.0.0.1:1?anonymous=%", "tcp:127.0.0.1:1", "1883", everyOptionURLs[0], everyOptionURLs[1], everyOptionURLs[2],
		"unix:///run/mozzie/../x?mode=0777", "wss://[::]:1/a?origins=&origins='", "tls://h:1?client_ca=/%0a&user_from=none", "pi.local:1883", "://"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := parseListener(s)
		if err != nil {
			return
		}
		if _, err := l.check(); err != nil {
			return
		}
		c := Default()
		c.MQTT.Listeners = []Listener{l}
		again := Default()
		if err := decodeFile("f", []byte(c.Show()), &again); err != nil || !reflect.DeepEqual(again.MQTT.Listeners, c.MQTT.Listeners) {
			t.Errorf("%q is %+v, then %+v, %v", s, l, again.MQTT.Listeners, err)
		}
		if l.Anonymous == Yes || l.Plaintext || l.Secure() {
			return
		}
		_, rest, _ := strings.Cut(l.URL, "://")
		rest, _, _ = strings.Cut(rest, "/")
		if addr, err := netip.ParseAddrPort(rest); err == nil && !addr.Addr().Unmap().IsLoopback() {
			t.Errorf("%q can be reached from elsewhere", s)
		}
	})
}

// FuzzAdminAddress: the API is served at loopback or a socket, whatever the setting says.
func FuzzAdminAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1:7880", "[::1]:7880", "localhost:0", "unix:/run/mozzie.sock", "unix:///run/x", "/run/x", "0.0.0.0:7880", ":7880",
		"127.1:7880", "[::]:7880", "localhost.example:1", "127.0.0.1:http", "run/x", "[::1%lo]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		network, address, err := AdminAddress(s)
		switch {
		case err != nil:
		case network == "unix":
			if !strings.HasPrefix(address, "/") {
				t.Errorf("%q is the socket %q", s, address)
			}
		case network == "tcp":
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				t.Errorf("%q is the address %q: %v", s, address, err)
			}
			if addr, err := netip.ParseAddr(host); !strings.EqualFold(host, "localhost") && (err != nil || !addr.Unmap().IsLoopback()) {
				t.Errorf("%q is the address %q, beyond this machine", s, address)
			}
		default:
			t.Errorf("%q is of network %q", s, network)
		}
	})
}
