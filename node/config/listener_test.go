package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// everyOption has every option of listeners, in the long form and behind the URL.
const everyOption = `mqtt:
  listeners:
    - url: tcp://10.0.0.1:1883
      plaintext: true
      max_connections: 50
      mount: site1/
      proxy_protocol: true
      proxy_from: [10.0.0.0/24, "fd00::1"]
    - url: wss://0.0.0.0:8084/mqtt
      certificate: /etc/mozzie/mqtt.crt
      key: /etc/mozzie/mqtt.key
      client_ca: /etc/mozzie/clients.crt
      client_certificate: optional
      user_from: san_email
      origins: ["dashboard.example", "*.example"]
      anonymous: false
    - url: unix:///run/mozzie/mqtt.sock
      mode: "0666"
      anonymous: false
`

var everyOptionURLs = []string{
	"tcp://10.0.0.1:1883?plaintext=true&max_connections=50&mount=site1/&proxy_protocol=true&proxy_from=10.0.0.0/24&proxy_from=fd00::1",
	"wss://0.0.0.0:8084/mqtt?certificate=/etc/mozzie/mqtt.crt&key=/etc/mozzie/mqtt.key&client_ca=/etc/mozzie/clients.crt" +
		"&client_certificate=optional&user_from=san_email&origins=dashboard.example&origins=*.example&anonymous=false",
	"unix:///run/mozzie/mqtt.sock?mode=0666&anonymous=false",
}

// TestListenerOptions: every option can be said in the file, behind a URL, and in what Show prints, and means the same.
func TestListenerOptions(t *testing.T) {
	c, err := Load(Sources{File: write(t, everyOption)})
	if err != nil {
		t.Fatal(err)
	}
	want := []Listener{NewListener("tcp://10.0.0.1:1883"), NewListener("wss://0.0.0.0:8084/mqtt"), NewListener("unix:///run/mozzie/mqtt.sock")}
	a, b, u := &want[0], &want[1], &want[2]
	a.Plaintext, a.MaxConnections, a.Mount, a.ProxyProtocol, a.ProxyFrom = true, 50, "site1/", true, []string{"10.0.0.0/24", "fd00::1"}
	b.Certificate, b.Key, b.ClientCA = "/etc/mozzie/mqtt.crt", "/etc/mozzie/mqtt.key", "/etc/mozzie/clients.crt"
	b.ClientCertificate, b.UserFrom, b.Origins, b.Anonymous = "optional", "san_email", []string{"dashboard.example", "*.example"}, No
	u.Mode, u.Anonymous = "0666", No
	if !reflect.DeepEqual(c.MQTT.Listeners, want) {
		t.Errorf("in the file:\nhave %+v\nwant %+v", c.MQTT.Listeners, want)
	}
	set := map[string]bool{}
	for _, l := range want {
		for _, o := range l.changed() {
			set[o.key] = true
		}
	}
	if n := reflect.TypeFor[Listener]().NumField() - 1; len(set) != n {
		t.Errorf("the example has %d of %d options", len(set), n)
	}
	for name, src := range map[string]Sources{
		"behind the URL":     {File: write(t, ""), Flags: []Flag{{Name: "--mqtt", Key: "mqtt.listeners", Values: everyOptionURLs}}},
		"in the environment": {File: write(t, ""), Env: []string{"MOZZIE_MQTT_LISTENERS=" + strings.Join(everyOptionURLs, ",")}},
		"as shown":           {File: write(t, c.Show())},
	} {
		again, err := Load(src)
		if err != nil || !reflect.DeepEqual(again.MQTT.Listeners, want) {
			t.Errorf("%s: %v\nhave %+v\nwant %+v", name, err, again.MQTT.Listeners, want)
		}
	}
	mixed, err := Load(Sources{File: write(t, "mqtt:\n  listeners:\n    - {url: \"tcp://127.0.0.1:1?mount=a/&max_connections=3\", mount: b/}\n")})
	if err != nil || mixed.MQTT.Listeners[0].Mount != "b/" || mixed.MQTT.Listeners[0].MaxConnections != 3 || mixed.MQTT.Listeners[0].URL != "tcp://127.0.0.1:1" {
		t.Errorf("behind the URL and beside it: %+v, %v", mixed.MQTT.Listeners, err)
	}
}

// TestMistakesInListeners: what does not fit is refused with the line, and with what would be right.
func TestMistakesInListeners(t *testing.T) {
	for _, tc := range []struct{ yaml, want string }{
		{"- url: tls://0.0.0.0:8883\n      certificate: /etc/a.crt\n", `4: mqtt.listeners[0].certificate: a certificate needs its private key: add key`},
		{"- url: tls://0.0.0.0:8883\n      key: /etc/a.key\n", `4: mqtt.listeners[0].key: a private key needs its certificate: add certificate`},
		{"- url: tls://0.0.0.0:8883\n      certificate: a.crt\n      key: /a\n", `4: mqtt.listeners[0].certificate: want the absolute path of a PEM file, not "a.crt"`},
		{"- url: tcp://127.0.0.1:1883\n      client_ca: /etc/ca\n", `4: mqtt.listeners[0].client_ca: client_ca is for tls:// and wss:// listeners, not for tcp://127.0.0.1:1883`},
		{"- url: tls://127.0.0.1:1883\n      user_from: san_dns\n", `4: mqtt.listeners[0].user_from: user_from needs the authorities whose certificates clients show: add client_ca`},
		{"- url: tls://127.0.0.1:1883\n      client_ca: /ca\n      user_from: email\n", `5: mqtt.listeners[0].user_from: want cn, san_dns, san_email, san_uri or none, not "email"`},
		{"- url: tls://127.0.0.1:1883\n      client_ca: /ca\n      client_certificate: maybe\n", `5: mqtt.listeners[0].client_certificate: want required or optional, not "maybe"`},
		{"- url: tls://127.0.0.1:1883\n      origins: [a.example]\n", `4: mqtt.listeners[0].origins: origins are for ws:// and wss:// listeners, not for tls://127.0.0.1:1883`},
		{"- url: tls://0.0.0.0:1883\n      plaintext: true\n", `4: mqtt.listeners[0].plaintext: plaintext is for tcp:// and ws:// listeners, not for tls://0.0.0.0:1883`},
		{"- url: ws://127.0.0.1:1883\n      mode: \"0600\"\n", `4: mqtt.listeners[0].mode: a mode is for unix:// listeners, not for ws://127.0.0.1:1883`},
		{"- url: unix:///run/m.sock\n      mode: \"0460\"\n", `4: mqtt.listeners[0].mode: want a mode in octal that lets the node itself read and write, such as 0660 or 0666, not "0460"`},
		{"- url: unix:///run/m.sock\n      mode: 0660\n", `4: mqtt.listeners[0].mode: want text, not the number 0660`},
		{"- url: tcp://127.0.0.1:1883\n      proxy_from: [10.0.0.1]\n", `4: mqtt.listeners[0].proxy_from: proxy_from is for listeners with proxy_protocol: true`},
		{"- url: tcp://127.0.0.1:1883\n      proxy_protocol: true\n      proxy_from: [lb.example]\n", `5: mqtt.listeners[0].proxy_from: want addresses and networks such as 10.1.2.3 or 10.1.0.0/16, not "lb.example"`},
		{"- url: tcp://127.0.0.1:1883\n      max_connections: -1\n", `4: mqtt.listeners[0].max_connections: want 0 to 1099511627776, not -1`},
		{"- url: tcp://127.0.0.1:1883\n      max_conections: 1\n", `4: mqtt.listeners[0].max_conections: unknown key; did you mean max_connections?`},
		{"- anonymous: true\n", `3: mqtt.listeners[0]: the listener has no url; ` + listenerWant},
		{"- url: tcp://127.0.0.1:1883?mount=a\n      plaintext: true\n", `3: mqtt.listeners[0]: mount: want levels of topics`},
	} {
		src := Sources{File: write(t, "mqtt:\n  listeners:\n    "+tc.yaml)}
		if have := refused(t, src); !strings.HasPrefix(have, "mozzie.yaml:"+tc.want) {
			t.Errorf("\nhave %s\nwant mozzie.yaml:%s", have, tc.want)
		}
	}
	for _, mount := range []string{"site1", "+/", "#", "a/#/", "$SYS/", "@alice/", "a/@b/", "a\x00/", strings.Repeat("a/", 600)} {
		if checkMount(mount) == nil {
			t.Errorf("the mount %q is taken", mount)
		}
	}
	for _, mount := range []string{"", "site1/", "a/b/", "/", "/a/"} {
		if err := checkMount(mount); err != nil {
			t.Errorf("the mount %q: %v", mount, err)
		}
	}
}

// TestWhoMayBeAnonymous: nobody from beyond this machine, unless the listener says so.
func TestWhoMayBeAnonymous(t *testing.T) {
	for at, want := range map[string]bool{
		"tcp://127.0.0.1:1883": true, "ws://[::1]:8083": true, "unix:///run/m.sock": true, "tls://localhost:8883": true,
		"tls://0.0.0.0:8883": false, "wss://pi.local:8084": false, "tcp://192.168.1.7:1883?plaintext=true": false,
		"tcp://192.168.1.7:1883?anonymous=true": true, "tcp://127.0.0.1:1883?anonymous=false": false, "unix:///run/m.sock?anonymous=false": false,
		"tls://127.0.0.1:8883?client_ca=/ca": false,
	} {
		l, err := parseListener(at)
		if err == nil {
			_, err = l.check()
		}
		if err != nil || l.AllowsAnonymous() != want {
			t.Errorf("%s: %v (%v), want %v", at, l.AllowsAnonymous(), err, want)
		}
	}
}

func TestProxies(t *testing.T) {
	for at, want := range map[string][]string{
		"tcp://127.0.0.1:1":                     nil,
		"tcp://127.0.0.1:1?proxy_protocol=true": {"127.0.0.0/8", "::1/128"},
		"tcp://127.0.0.1:1?proxy_protocol=true&proxy_from=10.1.2.3&proxy_from=10.2.3.4/16&proxy_from=::ffff:1.2.3.4": {"10.1.2.3/32", "10.2.0.0/16", "1.2.3.4/32"},
	} {
		l, err := parseListener(at)
		if err != nil {
			t.Fatal(err)
		}
		var all []netip.Prefix
		for _, s := range want {
			all = append(all, netip.MustParsePrefix(s))
		}
		if have := l.Proxies(); !reflect.DeepEqual(have, all) {
			t.Errorf("%s: %v, want %v", at, have, all)
		}
	}
}
