package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// write puts a configuration into a file called mozzie.yaml and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mozzie.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// refused loads sources that must be refused and returns why, with the path of the file cut to its name.
func refused(t *testing.T, src Sources) string {
	t.Helper()
	c, err := Load(src)
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("want Problems, have %v, with %+v", err, c)
	}
	return strings.ReplaceAll(err.Error(), filepath.Dir(src.File)+"/", "")
}

func TestMistakesInFile(t *testing.T) {
	for _, tc := range []struct{ name, yaml, want string }{
		{"typo", "swarm:\n  opne: true\n",
			`mozzie.yaml:2: swarm.opne: unknown key; did you mean open?`},
		{"typo in a section", "\nlimit:\n  max_sessions: 5\n",
			`mozzie.yaml:2: limit: unknown key; did you mean limits?`},
		{"right key, wrong section", "swarm:\n  depth: 2\n",
			`mozzie.yaml:2: swarm.depth: unknown key; did you mean locations.depth?`},
		{"key of nowhere", "log:\n  colour: blue\n",
			`mozzie.yaml:2: log.colour: unknown key; known here: level, format`},
		{"set twice", "log:\n  level: info\n  level: debug\n",
			`mozzie.yaml:3: log.level: is set twice, the first time in line 2`},
		{"section is a list", "log:\n  - level\n",
			`mozzie.yaml:2: log: want settings (level, format), not a list`},
		{"list is a scalar", "swarm:\n  bootstrap: /ip4/1.2.3.4/tcp/1\n",
			`mozzie.yaml:2: swarm.bootstrap: want a list ("- ..." in lines of their own, or [a, b]), not "/ip4/1.2.3.4/tcp/1"`},
		{"file is a list", "- swarm\n",
			`mozzie.yaml:1: want settings (data, mqtt, swarm, locations, storage, access, admin, log, limits), not a list`},
		{"no boolean", "swarm:\n  mdns: yes\n",
			`mozzie.yaml:2: swarm.mdns: want true or false, not "yes"`},
		{"no number", "locations:\n  depth: two\n",
			`mozzie.yaml:2: locations.depth: want a whole number, not "two"`},
		{"quoted number", "locations:\n  depth: \"2\"\n",
			`mozzie.yaml:2: locations.depth: want a whole number, not "2"`},
		{"out of range", "# far too deep\nlocations: {depth: 9}\n",
			`mozzie.yaml:2: locations.depth: want 1 to 8, not 9`},
		{"too large a small swarm", "swarm:\n  small: 501\n",
			`mozzie.yaml:2: swarm.small: want 1 to 500, not 501`},
		{"too small a small swarm", "swarm:\n  small: 0\n",
			`mozzie.yaml:2: swarm.small: want 1 to 500, not 0`},
		{"more than fits a machine", "limits:\n  max_sessions: 1099511627777\n",
			`mozzie.yaml:2: limits.max_sessions: want at most 1099511627776, not 1099511627777`},
		{"no text", "admin:\n  listen: 7880\n",
			`mozzie.yaml:2: admin.listen: want text, not the number 7880`},
		{"no value", "admin:\n  listen:\n",
			`mozzie.yaml:2: admin.listen: want text, not nothing`},
		{"time without unit", "limits:\n  connect_timeout: 30\n",
			`mozzie.yaml:2: limits.connect_timeout: want a time with its unit, such as 30s or 30m, not "30"`},
		{"no time", "limits:\n  connect_timeout: soon\n",
			`mozzie.yaml:2: limits.connect_timeout: want a time such as 10s, 5m, 1h30m or 7d, not "soon"`},
		{"negative time", "limits:\n  connect_timeout: -5s\n",
			`mozzie.yaml:2: limits.connect_timeout: want a time that is not negative, not "-5s"`},
		{"keep alive that MQTT cannot say", "limits:\n  max_keep_alive: 1d\n",
			`mozzie.yaml:2: limits.max_keep_alive: want 1s to 18h12m15s, not 1d`},
		{"no size", "limits:\n  max_queued_bytes: 5 MiBs\n",
			`mozzie.yaml:2: limits.max_queued_bytes: want a size such as 1048576, 512KiB or 1MiB, not "5 MiBs"`},
		{"size out of range", "limits:\n  max_packet_size: 300MiB\n",
			`mozzie.yaml:2: limits.max_packet_size: want 1KiB to 16MiB, not 300MiB`},
		{"no room for a peer", "limits: {peers: {max_away_messages: 0, max_pending_bytes: 16MiB, max_total_pending_bytes: 40MiB}}\n",
			"mozzie.yaml:1: limits.peers.max_away_messages: want at least 1, not 0\n" +
				"mozzie.yaml:1: limits.peers.max_pending_bytes: want at least 33554432, not 16777216\n" +
				`mozzie.yaml:1: limits.peers.max_total_pending_bytes: want at least 48MiB, not 40MiB`},
		{"not YAML", "swarm:\n\topen: true\n",
			`mozzie.yaml:2: not valid YAML: found character that cannot start any token`},
		{"two documents", "log: {level: info}\n---\nlog: {level: debug}\n",
			`mozzie.yaml:2: a second YAML document; there can be one only`},
		{"log level", "log:\n  level: verbose\n",
			`mozzie.yaml:2: log.level: want debug, info, warn or error, not "verbose"`},
		{"relative data", "data: state\n",
			`mozzie.yaml:1: data: want an absolute path, not "state"`},
		{"two at once", "locations:\n  depth: 0\nlog:\n  format: xml\n",
			"mozzie.yaml:2: locations.depth: want 1 to 8, not 0\n" +
				`mozzie.yaml:4: log.format: want text or json, not "xml"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := refused(t, Sources{File: write(t, tc.yaml)}); got != tc.want {
				t.Errorf("\nhave %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestMistakesInAddresses(t *testing.T) {
	const listenerHint = "; " + listenerWant
	const listenHint = "; want /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1 (or ip6)"
	beyond := func(from, to string) string {
		return strconv.Quote(from) + " can be reached from beyond this machine, and passwords would go there in clear: listen at " + to +
			`, which needs no more than that, or say that you want this with "plaintext: true", or, for clients without a password, with ` +
			`"anonymous: true" (?plaintext=true or ?anonymous=true behind the URL)`
	}
	for _, tc := range []struct{ flag, key, value, want string }{
		{"--mqtt", "mqtt.listeners", "1883", `"1883" is not a listener's URL; did you mean tcp://127.0.0.1:1883?`},
		{"--mqtt", "mqtt.listeners", "127.0.0.1:1883", `"127.0.0.1:1883" is not a listener's URL; did you mean tcp://127.0.0.1:1883?`},
		{"--mqtt", "mqtt.listeners", "pi.local:1883", `"pi.local:1883" is not a listener's URL; did you mean tcp://pi.local:1883?`},
		{"--mqtt", "mqtt.listeners", "localhost", `"localhost" is not a listener's URL` + listenerHint},
		{"--mqtt", "mqtt.listeners", "mqtt/80", `"mqtt/80" is not a listener's URL` + listenerHint},
		{"--mqtt", "mqtt.listeners", "/run/mqtt.sock", `"/run/mqtt.sock" is not a listener's URL; did you mean unix:///run/mqtt.sock?`},
		{"--mqtt", "mqtt.listeners", "mqtt://127.0.0.1:1883", `"mqtt://127.0.0.1:1883": listeners of kind "mqtt" are not known; did you mean tcp://127.0.0.1:1883?`},
		{"--mqtt", "mqtt.listeners", "ssl://127.0.0.1:8883", `"ssl://127.0.0.1:8883": listeners of kind "ssl" are not known; did you mean tls://127.0.0.1:8883?`},
		{"--mqtt", "mqtt.listeners", "https://[::]:8084/mqtt", `"https://[::]:8084/mqtt": listeners of kind "https" are not known; did you mean wss://[::]:8084/mqtt?`},
		{"--mqtt", "mqtt.listeners", "tcp://127.0.0.1", `"tcp://127.0.0.1": the port is missing` + listenerHint},
		{"--mqtt", "mqtt.listeners", "tcp://127.0.0.1:99999", `"tcp://127.0.0.1:99999": there is no port "99999", ports are 0 (any free one) to 65535` + listenerHint},
		{"--mqtt", "mqtt.listeners", "amqp://127.0.0.1:1", `"amqp://127.0.0.1:1": listeners of kind "amqp" are not known` + listenerHint},
		{"--mqtt", "mqtt.listeners", "tls://127.0.0.1:8883/mqtt", `"tls://127.0.0.1:8883/mqtt": a tls:// listener has no path; want tls://HOST:PORT`},
		{"--mqtt", "mqtt.listeners", "unix://mqtt.sock", `"unix://mqtt.sock": want the absolute path of a socket, of at most 100 bytes, such as unix:///run/mozzie/mqtt.sock`},
		{"--mqtt", "mqtt.listeners", "tcp://:1883", beyond("tcp://:1883", "tls://:1883")},
		{"--mqtt", "mqtt.listeners", "tcp://0.0.0.0:1883", beyond("tcp://0.0.0.0:1883", "tls://0.0.0.0:1883")},
		{"--mqtt", "mqtt.listeners", "ws://pi.local:80?anonymous=false", beyond("ws://pi.local:80", "wss://pi.local:80")},
		{"--mqtt", "mqtt.listeners", "tcp://0.0.0.0:1883?anonymous=yes", `"tcp://0.0.0.0:1883?anonymous=yes": anonymous: want true or false, not "yes"`},
		{"--mqtt", "mqtt.listeners", "tcp://0.0.0.0:1883?anon=true", `"tcp://0.0.0.0:1883?anon=true": unknown option "anon"; known here: ` +
			"anonymous, plaintext, max_connections, mount, proxy_protocol, proxy_from, certificate, key, client_ca, client_certificate, user_from, origins, mode"},
		{"--mqtt", "mqtt.listeners", "tcp://127.0.0.1:1883?anonymus=true", `"tcp://127.0.0.1:1883?anonymus=true": unknown option "anonymus"; did you mean anonymous?`},
		{"--listen", "swarm.listen", "127.0.0.1:7883", `"127.0.0.1:7883" is not a multiaddress; did you mean /ip4/127.0.0.1/tcp/7883?`},
		{"--listen", "swarm.listen", "/ip4/1.2.3/tcp/1", `"/ip4/1.2.3/tcp/1" is not a multiaddress` + listenHint},
		{"--listen", "swarm.listen", "/dns4/pi.local/tcp/1", `"/dns4/pi.local/tcp/1" is not an address to listen at` + listenHint},
		{"--listen", "swarm.listen", "/ip4/0.0.0.0/udp/7883", `"/ip4/0.0.0.0/udp/7883" is not an address to listen at` + listenHint},
		{"--bootstrap", "swarm.bootstrap", "/ip4/10.0.0.1/tcp/7883", `"/ip4/10.0.0.1/tcp/7883" does not end in /p2p/ID; ` + bootstrapWant},
		{"--join", "swarm.join", "", "is empty: leave it out, or give what it should be"},
		{"--data", "data", "", "want the path of a directory"},
		{"--bootstrap", "swarm.bootstrap", "", `"" is not a multiaddress; ` + bootstrapWant},
		{"--admin", "admin.listen", "0.0.0.0:7880", `"0.0.0.0:7880" can be reached from beyond this machine, and the API has no passwords: ` +
			"want 127.0.0.1:7880 or the path of a Unix socket (from elsewhere, use ssh -L)"},
		{"--admin", "admin.listen", ":7880", `":7880" can be reached from beyond this machine, and the API has no passwords: ` +
			"want 127.0.0.1:7880 or the path of a Unix socket (from elsewhere, use ssh -L)"},
		{"--admin", "admin.listen", "run/admin.sock", `"run/admin.sock": the path of a Unix socket must be absolute, such as /run/mozzie/admin.sock`},
		{"--admin", "admin.listen", "7880", `"7880" is no address; want a loopback host:port such as 127.0.0.1:7880, or the path of a Unix socket`},
	} {
		t.Run(tc.value, func(t *testing.T) {
			got := refused(t, Sources{File: write(t, ""), Flags: []Flag{{Name: tc.flag, Key: tc.key, Values: []string{tc.value}}}})
			want := tc.flag + ": " + tc.key
			if strings.HasPrefix(got, want+"[0]") {
				want += "[0]"
			}
			if want += ": " + tc.want; got != want {
				t.Errorf("\nhave %s\nwant %s", got, want)
			}
		})
	}
}

func TestMistakesInEnvironment(t *testing.T) {
	for _, tc := range []struct{ env, want string }{
		{"MOZZIE_SWARM_OPEM=true", "MOZZIE_SWARM_OPEM: unknown environment variable; did you mean MOZZIE_SWARM_OPEN?"},
		{"MOZZIE_HOUSE=blue", `MOZZIE_HOUSE: unknown environment variable; "mozzie config show" lists all settings`},
		{"MOZZIE_SWARM_OPEN=1", `MOZZIE_SWARM_OPEN: swarm.open: want true or false, not "1"`},
		{"MOZZIE_LOCATIONS_DEPTH=99", "MOZZIE_LOCATIONS_DEPTH: locations.depth: want 1 to 8, not 99"},
		{"MOZZIE_LIMITS_MAX_SESSIONS=many", `MOZZIE_LIMITS_MAX_SESSIONS: limits.max_sessions: want a whole number, not "many"`},
	} {
		if got := refused(t, Sources{File: write(t, ""), Env: []string{tc.env}}); got != tc.want {
			t.Errorf("\nhave %s\nwant %s", got, tc.want)
		}
	}
}

// Kubernetes sets such variables for every service; a node must not fall over one that is called mozzie.
func TestServiceLinksAreIgnored(t *testing.T) {
	env := []string{
		"MOZZIE_SERVICE_HOST=10.0.0.1", "MOZZIE_SERVICE_PORT_MQTT=1883", "MOZZIE_PORT=tcp://10.0.0.1:1883",
		"MOZZIE_PORT_1883_TCP_ADDR=10.0.0.1", "MOZZIE_PORT_1883_TCP=tcp://10.0.0.1:1883",
	}
	if _, err := Load(Sources{File: write(t, ""), Env: env}); err != nil {
		t.Error(err)
	}
}

func TestPriority(t *testing.T) {
	file := write(t, "log: {level: warn, format: json}\nlocations: {depth: 2}\nmqtt:\n  listeners: [tcp://127.0.0.1:1]\n")
	c, err := Load(Sources{
		File: file,
		Env: []string{"MOZZIE_LOG_LEVEL=error", "MOZZIE_LOCATIONS_DEPTH=3", "HOME=/home/me",
			"MOZZIE_SWARM_LISTEN=/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2"},
		Flags: []Flag{
			{Name: "--log-level", Key: "log.level", Values: []string{"debug"}},
			{Name: "--mqtt", Key: "mqtt.listeners", Values: []string{"tcp://127.0.0.1:0", "ws://0.0.0.0:0/mqtt?anonymous=true"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Data = DefaultData(map[string]string{"HOME": "/home/me"})
	want.Log = Log{Level: "debug", Format: "json"}
	want.Locations.Depth = 3
	want.Swarm.Listen = []string{"/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"}
	want.MQTT.Listeners = []Listener{NewListener("tcp://127.0.0.1:0"), anonymous("ws://0.0.0.0:0/mqtt")}
	want.origins = c.origins
	if !reflect.DeepEqual(c, want) {
		t.Errorf("\nhave %+v\nwant %+v", c, want)
	}
}

func anonymous(at string) Listener {
	l := NewListener(at)
	l.Anonymous = Yes
	return l
}

func TestEverythingInFile(t *testing.T) {
	c, err := Load(Sources{File: write(t, `
data: /srv/mozzie
mqtt:
  listeners:
    - tcp://localhost:1883
    - {url: "tcp://[::]:1884", anonymous: true}
    - url: ws://[::1]:8083/mqtt
swarm:
  open: true
  bootstrap: &peers
    - /dns4/pi.example/tcp/7883/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5
  join: let-me-in
  mdns: false
  small: 20
admin: {listen: "unix:/run/mozzie.sock", pprof: true}
locations: # all of it commented out
limits: {max_packet_size: 64KiB, max_queued_bytes: 1_000_000, max_session_expiry: 30d, connect_timeout: 1m30s}
`)})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.MQTT.Listeners; !reflect.DeepEqual(got, []Listener{NewListener("tcp://localhost:1883"), anonymous("tcp://[::]:1884"), NewListener("ws://[::1]:8083/mqtt")}) {
		t.Errorf("listeners: %v", got)
	}
	// An open swarm's node is not reachable from elsewhere unless asked.
	if got := c.Swarm.Listen; !slices.Equal(got, []string{"/ip4/127.0.0.1/tcp/7883", "/ip4/127.0.0.1/udp/7883/quic-v1"}) {
		t.Errorf("listen: %v", got)
	}
	if c.Swarm.Join.Reveal() != "let-me-in" || c.Swarm.MDNS || c.Swarm.Small != 20 || len(c.Swarm.Bootstrap) != 1 {
		t.Errorf("swarm: %+v", c.Swarm)
	}
	l := c.Limits
	if l.MaxPacketSize != 65536 || l.MaxQueuedBytes != 1_000_000 || l.MaxSessionExpiry != 720*time.Hour || l.ConnectTimeout != 90*time.Second {
		t.Errorf("limits: %+v", l)
	}
}

func TestFileInDataDirectory(t *testing.T) {
	file := write(t, "locations: {depth: 4}\n")
	data := Flag{Name: "--data", Key: "data", Values: []string{filepath.Dir(file)}}
	c, err := Load(Sources{Flags: []Flag{data}})
	if err != nil || c.Locations.Depth != 4 {
		t.Errorf("depth %d, %v", c.Locations.Depth, err)
	}
	c, err = Load(Sources{Env: []string{"MOZZIE_CONFIG=" + file}})
	if err != nil || c.Locations.Depth != 4 {
		t.Errorf("by MOZZIE_CONFIG: depth %d, %v", c.Locations.Depth, err)
	}
	if err := os.WriteFile(file, []byte("data: /elsewhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = Load(Sources{Flags: []Flag{data}}); err == nil || !strings.Contains(err.Error(), "cannot name another") {
		t.Errorf("a file that moves its own directory: %v", err)
	}
	_, err = Load(Sources{File: filepath.Join(t.TempDir(), "none.yaml")})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestDefaultData(t *testing.T) {
	for _, tc := range []struct {
		env  map[string]string
		uid  int
		want string
	}{
		{map[string]string{"HOME": "/root"}, 0, "/var/lib/mozzie"},
		{map[string]string{"HOME": "/nonexistent"}, 104, "/var/lib/mozzie"},
		{map[string]string{"HOME": "/home/me"}, 1000, "/home/me/.local/state/mozzie"},
		{map[string]string{"HOME": "/home/me", "XDG_STATE_HOME": "/state"}, 1000, "/state/mozzie"},
		{map[string]string{}, 1000, "/var/lib/mozzie"},
	} {
		if got := defaultData(tc.env, tc.uid); got != tc.want {
			t.Errorf("%v as %d: %s, want %s", tc.env, tc.uid, got, tc.want)
		}
	}
	if got := DefaultData(map[string]string{"STATE_DIRECTORY": "/var/lib/private/mozzie:/x"}); got != "/var/lib/private/mozzie" {
		t.Errorf("systemd's state directory: %s", got)
	}
}

// What Show prints explains every key, says where it was set, hides secrets, and is a configuration again.
func TestShow(t *testing.T) {
	file := write(t, "mqtt:\n  listeners:\n    - url: tcp://0.0.0.0:1883\n      anonymous: true\n    - ws://127.0.0.1:0\n")
	c, err := Load(Sources{
		File:  file,
		Env:   []string{"MOZZIE_SWARM_JOIN=the-secret", "HOME=/home/me"},
		Flags: []Flag{{Name: "--open", Key: "swarm.open", Values: []string{"true"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := c.Show()
	for _, want := range []string{
		"  open: true # --open\n",
		"  join: '********' # MOZZIE_SWARM_JOIN\n",
		"  listeners: # " + file + ":2\n    - url: tcp://0.0.0.0:1883\n      anonymous: true\n    - ws://127.0.0.1:0\n",
		"  max_packet_size: 8MiB # default\n",
		"  max_session_expiry: 7d # default\n",
		"  bootstrap: [] # default\n",
		"# The other nodes.\nswarm:\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "the-secret") {
		t.Error("the secret is shown")
	}
	again, err := Load(Sources{File: write(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	again.Swarm.Join = c.Swarm.Join
	again.origins = c.origins
	if got := again.Show(); got != text {
		t.Errorf("read back:\nhave %s\nwant %s", got, text)
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	all := docs()
	var check func(reflect.Type)
	check = func(section reflect.Type) {
		for i := range section.NumField() {
			f := section.Field(i)
			if f.Tag.Get("yaml") == "" {
				continue
			}
			if all[section.Name()+"."+f.Name] == "" {
				t.Errorf("%s.%s has no comment", section.Name(), f.Name)
			}
			if isSection(f.Type) {
				check(f.Type)
			}
		}
	}
	check(reflect.TypeFor[Config]())
	check(reflect.TypeFor[Listener]())
}

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	c.Data = "/x"
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
