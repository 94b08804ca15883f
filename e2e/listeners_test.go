package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// everyKind is a node that listens in every way.
type everyKind struct {
	*node
	urls map[string]string // by kind
	ca   string            // the file of the node's own certificate
}

func startEveryKind(t *testing.T) *everyKind {
	t.Helper()
	secure, secureWeb := freePort(t), freePort(t)
	socket := filepath.Join(t.TempDir(), "mqtt.sock")
	n := newNode(t, "node", "--mqtt", "tls://"+loopback(secure), "--mqtt", "wss://"+loopback(secureWeb)+"/mqtt", "--mqtt", "unix://"+socket)
	e := &everyKind{node: n, ca: filepath.Join(n.data, "tls.crt"), urls: map[string]string{
		"tcp": "tcp://" + n.mqtt, "ws": "ws://" + n.ws + "/mqtt", "unix": "unix://" + socket,
		"tls": "tls://localhost:" + secure, "wss": "wss://localhost:" + secureWeb + "/mqtt",
	}}
	n.start()
	n.ready()
	return e
}

// trust is how a client trusts the node's own certificate.
func (e *everyKind) trust() *tls.Config {
	e.t.Helper()
	text, err := os.ReadFile(e.ca)
	if err != nil {
		e.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		e.t.Fatalf("%s has no certificate", e.ca)
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

// connect connects paho's client for MQTT 3.1.1.
func (e *everyKind) connect(kind string) *client {
	e.t.Helper()
	c := &client{inbox: newInbox(), t: e.t}
	o := mqtt.NewClientOptions().AddBroker(e.urls[kind]).SetClientID(clientID()).SetProtocolVersion(4).
		SetAutoReconnect(false).SetOrderMatters(true).SetConnectTimeout(patience).SetTLSConfig(e.trust())
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		c.add(message{m.Topic(), string(m.Payload()), m.Qos(), m.Retained()})
	})
	c.mqtt = mqtt.NewClient(o)
	c.must("connect by "+kind, c.mqtt.Connect())
	e.t.Cleanup(c.bye)
	return c
}

// connect5 connects paho's client for MQTT 5.
func (e *everyKind) connect5(kind string) *client5 {
	e.t.Helper()
	network, address, _ := strings.Cut(e.urls[kind], "://")
	if network == "tls" {
		network = "tcp"
	}
	nc, err := net.Dial(network, address)
	if err != nil {
		e.t.Fatal(err)
	}
	if kind == "tls" {
		nc = tls.Client(nc, e.trust())
	}
	return connect5Over(e.t, nc)
}

// commands are the tools by the kinds of listeners that they know.
func (e *everyKind) commands(what string, qos int, topic string) map[string][]string {
	all := map[string][]string{}
	for kind, url := range e.urls {
		_, address, _ := strings.Cut(url, "://")
		host, port, _ := net.SplitHostPort(strings.TrimSuffix(address, "/mqtt"))
		where := map[string][]string{"tcp": {"-h", host, "-p", port}, "tls": {"-h", host, "-p", port, "--cafile", e.ca}, "unix": {"--unix", address}}[kind]
		if where != nil {
			all["mosquitto-"+kind] = append([]string{"mosquitto_" + what, "-q", fmt.Sprint(qos), "-t", topic, "-V", "mqttv5"}, where...)
			all["mozzie-"+kind] = append([]string{program, what, "-q", fmt.Sprint(qos), "-t", topic}, where...)
		}
		if kind != "unix" {
			all["mqttjs-"+kind] = []string{"node", "clients/mqttjs.mjs", what, url, "5", fmt.Sprint(qos), topic}
		}
	}
	return all
}

// TestListenerKinds has every client publish by every kind of listener that it knows, at every QoS, and paho's clients
// hear all of it by every kind; and what is retained.
func TestListenerKinds(t *testing.T) {
	long(t)
	tools(t)
	e := startEveryKind(t)
	boxes := map[string]*inbox{}
	for kind := range e.urls {
		c := e.connect(kind)
		c.subscribe(2, "kinds/#")
		boxes["3-"+kind] = c.inbox
		if kind != "ws" && kind != "wss" {
			c5 := e.connect5(kind)
			c5.subscribe(2, "kinds/#")
			boxes["5-"+kind] = c5.inbox
		}
	}
	want := map[string]byte{}
	for qos := range byte(3) {
		for name := range e.commands("pub", int(qos), "") {
			topic := fmt.Sprintf("kinds/%s/%d", name, qos)
			e.publishBy(name, int(qos), topic)
			want[topic] = qos
		}
		for kind := range e.urls {
			topic := fmt.Sprintf("kinds/paho-%s/%d", kind, qos)
			e.connect(kind).publish(topic, "hello", qos)
			want[topic] = qos
		}
	}
	for name, box := range boxes {
		for _, m := range box.wait(t, len(want)) {
			if qos, ok := want[m.topic]; !ok || m.qos != qos || m.payload != "hello" {
				t.Errorf("%s got %+v", name, m)
			}
		}
	}
	for kind := range e.urls {
		e.connect(kind).retain("kept/"+kind, "kept", 1)
	}
	for kind := range e.urls {
		c := e.connect(kind)
		c.subscribe(1, "kept/#")
		for _, m := range c.wait(t, len(e.urls)) {
			if !m.retained || m.payload != "kept" {
				t.Errorf("%s got %+v", kind, m)
			}
		}
	}
	if s := e.status(); len(s.Listeners) != 5 || s.Listeners[2].Fingerprint == "" || !s.Listeners[2].OwnCertificate {
		t.Errorf("listeners: %+v", s.Listeners)
	}
}

// publishBy has a tool publish a message, and waits for it.
func (e *everyKind) publishBy(name string, qos int, topic string) {
	e.t.Helper()
	words := e.commands("pub", qos, topic)[name]
	if !strings.HasPrefix(name, "mqttjs") {
		words = append(words, "-l")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(cleanEnv(), "NODE_EXTRA_CA_CERTS="+e.ca)
	cmd.Stdin = strings.NewReader("hello\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
