package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestHAProxy has clients reach a node through HAProxy, which says who they are with version 2 of the PROXY protocol and looks
// now and then whether the node is there: limits by address are by that of the client.
func TestHAProxy(t *testing.T) {
	long(t)
	need(t, "mosquitto_pub")
	inside := map[string]string{"tcp": freePort(t), "tls": freePort(t), "ws": freePort(t), "wss": freePort(t)}
	var flags []string
	text := "defaults\n mode tcp\n timeout connect 10s\n timeout client 2m\n timeout server 2m\n"
	outside := map[string]string{}
	for kind, port := range inside {
		flags = append(flags, "--mqtt", kind+"://"+loopback(port)+"?proxy_protocol=true")
		outside[kind] = freePort(t)
		text += fmt.Sprintf("listen %s\n bind 127.0.0.1:%s\n server node 127.0.0.1:%s send-proxy-v2 check inter 100ms\n", kind, outside[kind], port)
	}
	n := newNode(t, "node", flags...)
	n.env = []string{"MOZZIE_LIMITS_MAX_CONNECTIONS_PER_ADDRESS=4"}
	n.start()
	n.ready()
	conf := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startServer(t, loopback(outside["tcp"]), "haproxy", "-db", "-f", conf)

	connectFrom := func(ip, kind string) *client5 {
		t.Helper()
		by := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		return connect5Over(t, dial(t, kind+"://127.0.0.1:"+outside[kind], by, trust(t, n.trusted())))
	}
	var first, second []*client5
	for kind := range inside {
		first, second = append(first, connectFrom("127.0.0.2", kind)), append(second, connectFrom("127.0.0.3", kind))
	}
	for _, c := range first {
		c.subscribe(1, "proxied/#")
	}
	for i, c := range second {
		c.publish(fmt.Sprint("proxied/", i), "x", 1)
	}
	for _, c := range first {
		c.wait(t, len(second))
	}
	// Each of the two has as many connections as one address may have, whatever the listeners: there is none for a fifth.
	n.urls = map[string]string{"proxied": "tcp://127.0.0.1:" + outside["tcp"]}
	for ip, want := range map[string]int{"127.0.0.2": 0x97, "127.0.0.3": 0x97, "127.0.0.4": 0} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := tool{"mosquitto", "5", "proxied", mosquitto}.with("-A", ip).command(ctx, "pub", n, 1, "x")
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != want { // which says enough
			t.Errorf("from %s: exit code %d, want %d: %s", ip, cmd.ProcessState.ExitCode(), want, out)
		}
	}
	before := n.metric("mozzie_accepted_total")
	eventually(t, patience, func() error { // whatever else may come, it is HAProxy that looks
		if n.metric("mozzie_accepted_total") < before+float64(2*len(inside)) {
			return notYet("HAProxy has not looked at every listener")
		}
		return nil
	})
	for _, cause := range []string{"proxy", "tls", "websocket", "no_connect"} {
		if bad := n.metric(fmt.Sprintf("mozzie_connection_errors_total{cause=%q}", cause)); bad != 0 {
			t.Errorf("%v connections were bad (%s)", bad, cause)
		}
	}
}
