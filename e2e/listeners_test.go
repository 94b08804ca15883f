package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	mqtt "github.com/eclipse/paho.mqtt.golang"
)

var kinds = []string{"tcp", "tls", "ws", "wss", "unix"}

// startEveryKind starts a node that listens in every way.
func startEveryKind(t *testing.T) *node {
	t.Helper()
	secure, secureWeb := freePort(t), freePort(t)
	socket := "unix://" + filepath.Join(t.TempDir(), "mqtt.sock")
	n := newNode(t, "node", "--mqtt", "tls://"+loopback(secure), "--mqtt", "wss://"+loopback(secureWeb)+"/mqtt", "--mqtt", socket)
	n.urls = map[string]string{"unix": socket, "tls": "tls://localhost:" + secure, "wss": "wss://localhost:" + secureWeb + "/mqtt"}
	n.start()
	n.ready()
	return n
}

// trust is how a client trusts the certificates in a file.
func trust(t testing.TB, file string) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatalf("%s has no certificate", file)
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

// connectBy connects paho's client for MQTT 3.1.1 by a kind of listener.
func (n *node) connectBy(kind string) *client {
	n.t.Helper()
	c := &client{inbox: newInbox(), t: n.t}
	o := mqtt.NewClientOptions().AddBroker(n.url(kind)).SetClientID(clientID()).SetProtocolVersion(4).
		SetAutoReconnect(false).SetOrderMatters(true).SetConnectTimeout(patience).SetTLSConfig(trust(n.t, n.trusted()))
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		c.add(message{m.Topic(), string(m.Payload()), m.Qos(), m.Retained()})
	})
	c.mqtt = mqtt.NewClient(o)
	c.must("connect by "+kind, c.mqtt.Connect())
	n.t.Cleanup(c.bye)
	return c
}

// connect5By connects paho's client for MQTT 5 by a kind of listener.
func (n *node) connect5By(kind string) *client5 {
	n.t.Helper()
	return connect5Over(n.t, dial(n.t, n.url(kind), &net.Dialer{}, trust(n.t, n.trusted())))
}

// dial opens a connection that MQTT can be spoken over to a listener's URL.
func dial(t testing.TB, url string, by *net.Dialer, secure *tls.Config) (nc net.Conn) {
	t.Helper()
	scheme, address, _ := strings.Cut(url, "://")
	var err error
	switch scheme {
	case "ws", "wss":
		transport := &http.Transport{DialContext: by.DialContext, TLSClientConfig: secure, DisableKeepAlives: true}
		var ws *websocket.Conn
		ws, _, err = websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPClient: &http.Client{Transport: transport}}) //nolint:bodyclose // the connection is its body
		if err == nil {
			nc = websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
		}
	case "tls":
		nc, err = tls.DialWithDialer(by, "tcp", address, secure)
	case "unix":
		nc, err = by.Dial("unix", address)
	default:
		nc, err = by.Dial("tcp", address)
	}
	if err != nil {
		t.Fatalf("connect to %s: %v", url, err)
	}
	return nc
}

// TestListenerKinds has every client publish and hear all by every kind of listener that it knows, paho's for Go at every QoS,
// each of the others at all of them over its kinds; and what is retained.
func TestListenerKinds(t *testing.T) {
	long(t)
	all := toolsByKind(t)
	n := startEveryKind(t)
	boxes := map[string]*inbox{}
	three, five := map[string]*client{}, map[string]*client5{}
	for _, kind := range kinds {
		three[kind], five[kind] = n.connectBy(kind), n.connect5By(kind)
		three[kind].subscribe(2, "kinds/#")
		five[kind].subscribe(2, "kinds/#")
		boxes["paho-3-"+kind], boxes["paho-5-"+kind] = three[kind].inbox, five[kind].inbox
	}
	for _, tl := range all {
		boxes[tl.String()] = tl.subscribe(t, n, 2, "kinds/#")
	}
	want := map[string]byte{} // QoS by topic
	for i, tl := range all {
		qos := byte(i/2) % 3
		topic := fmt.Sprintf("kinds/%s/%d", tl, qos)
		tl.publish(t, n, qos, topic, 1)
		want[topic] = qos
	}
	for _, kind := range kinds {
		for qos := range byte(3) {
			for name, publish := range map[string]func(topic, payload string, qos byte){"paho-3": three[kind].publish, "paho-5": five[kind].publish} {
				topic := fmt.Sprintf("kinds/%s-%s/%d", name, kind, qos)
				publish(topic, numbered(0), qos)
				want[topic] = qos
			}
		}
	}
	for name, box := range boxes {
		came := map[string]bool{}
		for _, m := range box.wait(t, len(want)) {
			if qos, ok := want[m.topic]; !ok || m.qos != qos || m.payload != numbered(0) || came[m.topic] {
				t.Errorf("%s got %+v", name, m)
			}
			came[m.topic] = true
		}
	}
	for _, kind := range kinds {
		three[kind].retain("kept/"+kind, "kept", 1)
	}
	for _, kind := range kinds {
		c := n.connectBy(kind)
		c.subscribe(1, "kept/#")
		for _, m := range c.wait(t, len(kinds)) {
			if !m.retained || m.payload != "kept" {
				t.Errorf("%s got %+v", kind, m)
			}
		}
	}
	if s := n.status(); len(s.Listeners) != 5 || s.Listeners[2].Fingerprint == "" || !s.Listeners[2].OwnCertificate {
		t.Errorf("listeners: %+v", s.Listeners)
	}
}
