package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/paho"
	mqtt "github.com/eclipse/paho.mqtt.golang"
)

const accessRules = `
rules:
  - groups: [sensors]
    publish: ["sensors/%u/#"]
  - users: [alice]
    subscribe: ["#"]
    deny: {subscribe: ["secret/#"]}
  - users: [root]
    publish: ["#"]
  - anonymous: true
    subscribe: ["public/#"]
`

// passwd makes an account.
func (n *node) passwd(name, password string, flags ...string) {
	n.t.Helper()
	cmd := exec.Command(program, append([]string{"passwd", name, "--stdin", "--data", n.data}, flags...)...)
	cmd.Env, cmd.Stdin = cleanEnv(), strings.NewReader(password+"\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("passwd %s: %v\n%s", name, err, out)
	}
}

func (n *node) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.data, name), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// as logs in with a name and a password.
func as(user string) func(*paho.Connect) {
	return func(c *paho.Connect) {
		c.Username, c.UsernameFlag, c.Password, c.PasswordFlag = user, true, []byte("pw-"+user), true
	}
}

func as311(user string) with {
	return func(o *mqtt.ClientOptions) { o.SetUsername(user).SetPassword("pw-" + user) }
}

// TestAccess has two nodes, one of which asks who is there: what its rules do not allow does not happen, by whatever client,
// node or way; and when they change, those who lose their right are gone and nobody else notices.
func TestAccess(t *testing.T) {
	need(t, "mosquitto_sub", "mosquitto_pub")
	nodes := startSwarm(t, 2, setup{})
	a, b := nodes[0], nodes[1]
	for _, user := range []string{"alice", "root", "carol"} {
		a.passwd(user, "pw-"+user)
	}
	a.passwd("s1", "pw-s1", "--groups", "sensors")
	a.write("access.yaml", accessRules)
	if _, stderr, code := mozzie(t, "reload", "--data", a.data); code != 0 {
		t.Fatal(stderr)
	}

	t.Run("mosquitto", func(t *testing.T) {
		host, port, _ := net.SplitHostPort(a.mqtt)
		run := func(args ...string) (int, string) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, args[0], append([]string{"-h", host, "-p", port}, args[1:]...)...)
			out, _ := cmd.CombinedOutput() // its exit code says enough
			return cmd.ProcessState.ExitCode(), string(out)
		}
		for _, tc := range []struct {
			code int
			args string
		}{
			{0, "mosquitto_pub -u s1 -P pw-s1 -t sensors/s1/t -m 1 -q 1 -V mqttv5"},
			{0, "mosquitto_pub -u s1 -P pw-s1 -t sensors/s1/t -m 1 -q 1 -V mqttv311"},
			{4, "mosquitto_pub -u s1 -P wrong -t sensors/s1/t -m 1 -V mqttv311"},
			{134, "mosquitto_pub -u s1 -P wrong -t sensors/s1/t -m 1 -V mqttv5"},
			{134, "mosquitto_pub -u nobody -P pw-s1 -t sensors/s1/t -m 1 -V mqttv5"},
		} {
			if code, out := run(strings.Fields(tc.args)...); code != tc.code {
				t.Errorf("%s: exit code %d, want %d\n%s", tc.args, code, tc.code, out)
			}
		}
		if _, out := run("mosquitto_sub", "-t", "sensors/#", "-V", "mqttv5", "-W", "5"); !strings.Contains(out, "denied") && !strings.Contains(out, "rejected") {
			t.Errorf("an anonymous client may subscribe: %s", out)
		}
	})

	alice := connect5(t, a.mqtt, as("alice"))
	alice.subscribe(1, "#")
	root := connect5(t, a.mqtt, as("root"))
	free := connect(t, b.mqtt) // at the node that asks nobody
	for i, topic := range []string{"secret/x", "open/x"} {
		root.publish(topic, fmt.Sprint(i), 1)
		free.publish(topic, fmt.Sprint(i+2), 1)
	}
	got := alice.exactly(t, 2, free.fence("open/x", 1))
	for _, m := range got {
		if m.topic != "open/x" {
			t.Errorf("alice got %v", m)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, tc := range []struct {
		who   string
		topic string
		want  byte
	}{{"s1", "sensors/s1/x", 0}, {"s1", "sensors/s2/x", 0x87}, {"carol", "x", 0x87}} {
		c := connect5(t, a.mqtt, as(tc.who))
		ack, err := c.mqtt.Publish(ctx, &paho.Publish{Topic: tc.topic, QoS: 1, Payload: []byte("x")})
		if ack == nil || ack.ReasonCode != tc.want && (tc.want != 0 || ack.ReasonCode != 0x10) {
			t.Errorf("%s to %s: %+v, %v", tc.who, tc.topic, ack, err)
		}
	}
}

// TestMQTTJSLogsIn has MQTT.js log in, with a password that is right, one that is wrong and none, and do what its rules
// allow and what they do not: it reads the codes that its version of MQTT has for each.
func TestMQTTJSLogsIn(t *testing.T) {
	long(t)
	tools(t)
	tcp, ws := loopback(freePort(t)), loopback(freePort(t))
	n := newNode(t, "node", "--mqtt", "tcp://"+tcp+"?anonymous=false", "--mqtt", "ws://"+ws+"/mqtt?anonymous=false")
	n.start()
	n.ready()
	n.passwd("s1", "pw-s1", "--groups", "sensors")
	n.write("access.yaml", accessRules)
	if _, stderr, code := mozzie(t, "reload", "--data", n.data); code != 0 {
		t.Fatal(stderr)
	}
	const right, mine = "s1:pw-s1@", "sensors/s1/x"
	where := map[string]string{"tcp": tcp, "ws": ws + "/mqtt"}
	for _, tc := range []struct{ url, version, what, login, topic, want string }{ // few are wrong: each is answered later
		{"tcp", "4", "pub", right, mine, ""},
		{"tcp", "5", "pub", right, mine, ""},
		{"tcp", "4", "pub", "s1:wrong@", mine, "refused 4"},
		{"tcp", "5", "pub", "s1:wrong@", mine, "refused 134"},
		{"tcp", "5", "pub", "s1@", mine, "refused 134"},
		{"tcp", "4", "pub", "", mine, "refused 5"},
		{"tcp", "5", "pub", "", mine, "refused 135"},
		{"tcp", "4", "pub", right, "sensors/s2/x", ""}, // an acknowledgement of MQTT 3 cannot say it
		{"tcp", "5", "pub", right, "sensors/s2/x", "refused 135"},
		{"tcp", "4", "sub", right, "sensors/#", "refused 128"},
		{"tcp", "5", "sub", right, "sensors/#", "refused 135"},
		{"ws", "4", "pub", right, mine, ""},
		{"ws", "5", "pub", "nobody:pw-s1@", mine, "refused 134"},
		{"ws", "5", "pub", "", mine, "refused 135"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		cmd := exec.CommandContext(ctx, "node", "clients/mqttjs.mjs", tc.what, tc.url+"://"+tc.login+where[tc.url], tc.version, "1", tc.topic)
		cmd.Stdin = strings.NewReader("1\n")
		out, err := cmd.Output()
		cancel()
		if got := strings.TrimSpace(string(out)); got != tc.want || (err == nil) != (tc.want == "") {
			t.Errorf("%v prints %q, %v; want %q", cmd.Args, got, err, tc.want)
		}
	}
}

// TestReloadUnderTraffic changes accounts and rules while messages flow: of those who keep their right nobody loses a
// message or a connection, and the others get to read 0x87.
func TestReloadUnderTraffic(t *testing.T) {
	n := startSwarm(t, 1, setup{})[0]
	for _, user := range []string{"stays", "deleted", "changed"} {
		n.passwd(user, "pw-"+user)
	}
	const filter, messages = "traffic/#", 3000
	sub := connect(t, n.mqtt, as311("stays"))
	sub.subscribe(1, filter)
	pub := connect(t, n.mqtt, as311("stays"))
	deleted, changed := connect5(t, n.mqtt, as("deleted")), connect5(t, n.mqtt, as("changed"))
	anonymous := connect(t, n.mqtt)
	anonymous.subscribe(1, filter)

	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := range messages {
			pub.mqtt.Publish("traffic/x", 1, false, numbered(i)).Wait()
		}
	}()
	must := func(args ...string) {
		t.Helper()
		if _, stderr, code := mozzie(t, append(args, "--data", n.data)...); code != 0 {
			t.Fatalf("mozzie %v: %s", args, stderr)
		}
	}
	must("accounts", "delete", "deleted")
	deleted.expectEnd(0x87)
	n.passwd("changed", "new")
	changed.expectEnd(0x87)
	n.write("new.yaml", "rules:\n  - users: [stays]\n    publish: ['#']\n    subscribe: ['#']\n")
	must("access", "set", filepath.Join(n.data, "new.yaml"))
	before := len(anonymous.all()) // it is deaf from here on
	<-published
	inOrder(t, sub.until(t, patience, "all messages", func(got []message) bool { return len(got) >= messages }))
	if !sub.mqtt.IsConnected() || !pub.mqtt.IsConnected() || !anonymous.mqtt.IsConnected() {
		t.Error("somebody who keeps their right was disconnected")
	}
	if after := len(anonymous.all()); after > before+100 {
		t.Errorf("who may not receive any more got %d messages", after-before)
	}
}

// TestAccessByHand: the rules that a person has written, and the node has not read yet, are not replaced.
func TestAccessByHand(t *testing.T) {
	n := newNode(t, "node", "--open")
	n.start()
	n.ready()
	const mine, other = "rules:\n  - everyone: true\n    publish: ['a/#']\n", "rules:\n  - everyone: true\n    publish: ['b/#']\n"
	n.write("new.yaml", mine)
	set := func() (stderr string, code int) {
		_, stderr, code = mozzie(t, "access", "set", filepath.Join(n.data, "new.yaml"), "--data", n.data)
		return stderr, code
	}
	mustSet := func() {
		t.Helper()
		if stderr, code := set(); code != 0 {
			t.Fatal(stderr)
		}
	}
	refused := func(want string) {
		t.Helper()
		if stderr, code := set(); code == 0 || !strings.Contains(stderr, want) {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
	}
	mustSet()
	mustSet()
	n.write("access.yaml", other)
	refused("access.yaml")
	n.write("access.yaml", "rules: nonsense\n")
	refused("access.yaml")
	n.write("access.yaml", other)
	if _, stderr, code := mozzie(t, "reload", "--data", n.data); code != 0 {
		t.Fatal(stderr)
	}
	mustSet()
	n.write("elsewhere.yaml", mine)
	path := filepath.Join(n.data, "access.yaml")
	if err := errors.Join(os.Remove(path), os.Symlink("elsewhere.yaml", path)); err != nil {
		t.Fatal(err)
	}
	refused("elsewhere.yaml")
}
