package accounts

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

const goodRules = `
rules:
  - groups: [sensors]
    publish: ["sensors/%c/#"]
    subscribe: ["config/%u/#"]
  - users: [alice]
    subscribe: ["#"]
    deny:
      subscribe: ["secret/#"]
  - anonymous: true
    publish: [guests]
  - everyone: true
    subscribe: [$SYS/#]
`

func TestRules(t *testing.T) {
	r, err := ParseRules("f", []byte(goodRules))
	if err != nil || r.Len() != 4 {
		t.Fatal(err)
	}
	alice, sensor, guest := r.Rights("alice", nil, "c"), r.Rights("s1", []string{"sensors"}, "c"), r.Rights("", nil, "c")
	for what, can := range map[string]bool{
		"alice reads":            alice.CanReceive("a") && alice.CanReceive("$SYS/x"),
		"alice reads no secrets": !alice.CanReceive("secret/a"),
		"alice writes nothing":   !alice.CanPublish("a"),
		"a sensor writes":        sensor.CanPublish("sensors/c/x") && !sensor.CanPublish("sensors/d/x"),
		"a sensor reads":         sensor.CanSubscribe("config/s1/a") && sensor.CanSubscribe("#") && !sensor.CanSubscribe("config/s2/a"),
		"a guest writes":         guest.CanPublish("guests") && !guest.CanPublish("sensors/c/x") && !guest.CanSubscribe("#") && guest.CanSubscribe("$SYS/#"),
	} {
		if !can {
			t.Errorf("not so: %s", what)
		}
	}
	if r, err := ParseRules("f", []byte("rules: []")); err != nil || r.Len() != 0 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestRulesRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "f: there are no rules in it",
		"rules:\n  - publish: [a]\n": "f:2: rules[0]: whom is it for?",
		"rules:\n  - users: [a]\n":   "f:2: rules[0]: it says nothing",
		"rules:\n  - users: [a]\n    publsh: [a]\n":                                 "f:3: rules[0].publsh: unknown key; did you mean publish?",
		"rules:\n  - users: [a]\n    publish:\n      - a\n      - b+":               `f:5: rules[0].publish[1]: filter "b+" has a wildcard`,
		"rules:\n  - users: ['']\n    publish: [a]":                                 `f:2: rules[0].users[0]: "" is empty`,
		"rules:\n  - users: [a]\n    deny: {subscribe: ['x%u']}":                    `f:3: rules[0].deny.subscribe[0]: level "x%u"`,
		"rules:\n  - users: [a]\n    publish: [%c]":                                 `f:3: not valid YAML: found character that cannot start any token (a filter that begins with # or % has to be in quotes: "#")`,
		"rules:\n  - users: [a]\n    publish: #":                                    `not nothing (a filter that begins with # or % has to be in quotes: "#")`,
		"rules:\n  - users: a\n    publish: [a]":                                    "f:2: rules[0].users: want a list",
		"rules:\n  - &r {users: [a], publish: [a]}\n  - *r":                         "f:3: rules[1]: aliases are not known here",
		"rules: [{everyone: true, publish: [" + strings.Repeat("a,", 20001) + "]}]": "f:1: rules: 20001 filters, at most 20000",
	} {
		if _, err := ParseRules("f", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s", text, err, want)
		}
	}
	dir := folder(t.TempDir())
	if _, err := ReadRules(dir.Path("none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := ReadRules(string(dir)); err == nil {
		t.Error("a folder has rules")
	}
	if err := os.WriteFile(dir.Path("large"), make([]byte, MaxRules+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRules(dir.Path("large")); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Error(err)
	}
}

// FuzzParseRules: what is read can be asked, whoever asks.
func FuzzParseRules(f *testing.F) {
	f.Add(goodRules, "alice", "c", "a/b")
	f.Add("rules: [{everyone: true, publish: ['%c', '%u/#', '+/+'], deny: {publish: ['#']}}]", "$u", "a/b", "x")
	f.Add("rules:\n- {users: [1]}\n- null\n- []\n- {deny: x}\n", "", "", "/")
	f.Fuzz(func(t *testing.T, text, user, client, name string) {
		r, err := ParseRules("f", []byte(text))
		if err != nil {
			return
		}
		rights := r.Rights(user, []string{"sensors"}, client)
		if name == "" || strings.ContainsAny(name, "+#") {
			return
		}
		if rights.CanReceive(name) != rights.CanSubscribe(name) {
			t.Errorf("%q may be received and not subscribed to, or the other way round", name)
		}
		table := access.NewTable(access.Entry{Account: access.Account{Name: user, Groups: []string{"sensors"}}})
		v, err := Check(table, r, admin.Question{User: user, Client: client, Publish: name})
		if err == nil && (v.Allowed != rights.CanPublish(name) || (v.By == admin.ByRule) != (v.Rule != "")) {
			t.Errorf("%q: %+v", name, v)
		}
	})
}
