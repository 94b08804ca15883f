package node

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/accounts"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// folder is where a test's accounts are.
type folder string

func (f folder) Path(name string) string { return filepath.Join(string(f), name) }

func (f folder) WriteFile(name string, data []byte) error {
	return os.WriteFile(f.Path(name), data, 0o600)
}

func newAuth(t *testing.T) *auth {
	t.Helper()
	book, err := accounts.Open(folder(t.TempDir()), 100)
	if err != nil {
		t.Fatal(err)
	}
	return &auth{book: book, door: access.NewDoor(100), log: slog.New(slog.DiscardHandler)}
}

func (a *auth) set(t *testing.T, name, password string, groups ...string) {
	t.Helper()
	h := access.Hash{}
	if password != "" {
		h = access.NewHash([]byte(password), access.RandomCost)
	}
	if _, err := a.book.Set(name, accounts.Change{Hash: &h, Groups: &groups}); err != nil {
		t.Fatal(err)
	}
}

// TestWhoIsWho: who gets in by what, as whom, and who stays when the accounts change.
func TestWhoIsWho(t *testing.T) { synctest.Test(t, whoIsWho) } // wrong passwords are answered late

func whoIsWho(t *testing.T) {
	const in, bad, no = "in", "bad", "no"
	type login struct{ user, password, cert string }
	ways := []struct {
		login
		open  [2]string // without accounts: at a listener that takes anonymous clients, and at one that does not
		with  [2]string // with accounts
		as    string
		alone bool // also with a certificate that needs an account
	}{
		{login{}, [2]string{in, no}, [2]string{in, no}, "", true},
		{login{"device", "x", ""}, [2]string{in, bad}, [2]string{bad, bad}, "", false},
		{login{"device", "", ""}, [2]string{in, bad}, [2]string{bad, bad}, "", false},
		{login{"", "x", ""}, [2]string{in, bad}, [2]string{bad, bad}, "", false},
		{login{"alice", "right", ""}, [2]string{in, bad}, [2]string{in, in}, "alice", true},
		{login{"alice", "wrong", ""}, [2]string{in, bad}, [2]string{bad, bad}, "", false},
		{login{"nopass", "", ""}, [2]string{in, bad}, [2]string{bad, bad}, "", false},
		{login{"", "", "alice"}, [2]string{in, in}, [2]string{in, in}, "alice", true},
		{login{"alice", "", "alice"}, [2]string{in, in}, [2]string{in, in}, "alice", true},
		{login{"alice", "right", "alice"}, [2]string{bad, bad}, [2]string{in, in}, "alice", true},
		{login{"alice", "wrong", "alice"}, [2]string{bad, bad}, [2]string{bad, bad}, "", false},
		{login{"alice", "right", "bob"}, [2]string{bad, bad}, [2]string{bad, bad}, "", false},
		{login{"", "", "stranger"}, [2]string{in, in}, [2]string{in, in}, "stranger", false},
		{login{"", "", "gone"}, [2]string{in, in}, [2]string{no, no}, "", false},
	}
	empty, full := newAuth(t), newAuth(t)
	full.set(t, "alice", "right")
	full.set(t, "nopass", "")
	full.set(t, "gone", "x")
	if err := full.book.Delete("gone"); err != nil {
		t.Fatal(err)
	}
	try := func(a *auth, w login, anonymous bool, port int) (mqttfront.Login, mqttfront.Identity, string) {
		l := mqttfront.Login{ClientID: "c", User: w.user, HasUser: w.user != "", Password: []byte(w.password), CertUser: w.cert, Anonymous: anonymous,
			Remote: &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(port)), Port: 1}}
		who, err := a.Connect(t.Context(), l)
		l.Password = nil
		var r *mqttfront.Refusal
		switch {
		case err == nil:
			return l, who, in
		case errors.As(err, &r) && r.Code == mqttfront.ReasonBadUserOrPassword:
			return l, who, bad
		case errors.As(err, &r) && r.Code == mqttfront.ReasonNotAuthorized:
			return l, who, no
		}
		return l, who, err.Error()
	}
	for i, w := range ways {
		for j, anonymous := range []bool{true, false} {
			l, who, got := try(empty, w.login, anonymous, 2*i+j)
			if as := w.cert; got != w.open[j] || got == in && who.User != as {
				t.Errorf("without accounts, anonymous %v: %+v is %s as %q, want %s as %q", anonymous, w.login, got, who.User, w.open[j], as)
			}
			if got == in && empty.Stays(l, who) != nil {
				t.Errorf("%+v may come and not stay", w.login)
			}
			// The one who has got in by a name that nobody could prove has to go once there are accounts.
			if stays := got == in && full.Stays(l, who) == nil; got == in && stays != (w.cert == "" && w.user == "" && w.password == "" || w.cert != "" && w.cert != "gone") {
				t.Errorf("%+v stays: %v", w.login, stays)
			}
			if l, who, got = try(full, w.login, anonymous, 100+2*i+j); got != w.with[j] || got == in && who.User != w.as {
				t.Errorf("with accounts, anonymous %v: %+v is %s as %q, want %s as %q", anonymous, w.login, got, who.User, w.with[j], w.as)
			}
			if got == in && full.Stays(l, who) != nil {
				t.Errorf("%+v may come and not stay", w.login)
			}
		}
	}
	full.certNeedsAccount = true
	if _, _, got := try(full, login{cert: "stranger"}, true, 250); got != no {
		t.Errorf("a certificate without an account is %s", got)
	}
	l, who, got := try(full, login{"alice", "right", ""}, false, 251)
	if got != in {
		t.Fatal(got)
	}
	full.set(t, "alice", "right") // the same password, said again
	if full.Stays(l, who) == nil {
		t.Error("who logged in before the password was changed stays")
	}
}

// TestRightsOfAccounts: rules are for groups of the account; admins are bound by none, and the deleted have nothing.
func TestRightsOfAccounts(t *testing.T) {
	a := newAuth(t)
	a.set(t, "alice", "x", "sensors")
	a.set(t, "gone", "x")
	a.set(t, "root", "x")
	yes := true
	if _, err := a.book.Set("root", accounts.Change{Admin: &yes}); err != nil {
		t.Fatal(err)
	}
	if err := a.book.Delete("gone"); err != nil {
		t.Fatal(err)
	}
	if a.Rights("alice", "c") != nil || a.Rights("", "c") != nil || a.Rights("root", "c") != nil {
		t.Error("without rules, somebody is bound")
	}
	a.explained(t)
	rules, err := accounts.ParseRules("f", []byte("rules: [{groups: [sensors], publish: [s/%c]}, {everyone: true, subscribe: ['#']}]"))
	if err != nil {
		t.Fatal(err)
	}
	a.rules.Store(rules)
	if r := a.Rights("alice", "c"); !r.CanPublish("s/c") || r.CanPublish("s/d") || !r.CanReceive("x") || r != a.Rights("alice", "c") {
		t.Errorf("%+v", r)
	}
	if r := a.Rights("", "c"); r.CanPublish("s/c") || !r.CanSubscribe("x") {
		t.Errorf("%+v", r)
	}
	if a.Rights("root", "c") != nil {
		t.Error("an admin is bound")
	}
	if r := a.Rights("gone", "c"); r.CanPublish("x") || r.CanReceive("x") || r.CanSubscribe("x") {
		t.Error("the deleted may do something")
	}
	a.explained(t)
}

// explained checks that what the API says of rights is what they are.
func (a *auth) explained(t *testing.T) {
	t.Helper()
	for _, user := range []string{"", "alice", "gone", "root", "nobody"} {
		r := a.Rights(user, "c")
		for _, topic := range []string{"s/c", "s/d", "x", "$SYS/x"} {
			for q, may := range map[admin.Question]bool{
				{User: user, Client: "c", Publish: topic}:                 r == nil || r.CanPublish(topic),
				{User: user, Client: "c", Subscribe: topic}:               r == nil || r.CanSubscribe(topic),
				{User: user, Client: "c", Subscribe: "$share/g/" + topic}: r == nil || r.CanSubscribe(topic),
			} {
				v, err := accounts.Check(a.book.Table(), a.rules.Load(), q)
				if err != nil || v.Allowed != may || (v.By == admin.ByRule) != (v.Rule == "f:1") {
					t.Errorf("%+v: %+v, %v; want %v", q, v, err, may)
				}
			}
		}
	}
}

// TestRefusalsInLog: a flood of wrong logins does not flood the log, and no password is in it.
func TestRefusalsInLog(t *testing.T) {
	var text strings.Builder
	a := newAuth(t)
	a.log = slog.New(slog.NewTextHandler(&text, nil))
	for range 100 {
		a.say(&mqttfront.Login{User: strings.Repeat("u", 500), Password: []byte("geheim"), Remote: &net.TCPAddr{}}, errLogin)
	}
	if n := strings.Count(text.String(), "refusing a login"); n < 1 || n > 3 || strings.Contains(text.String(), "geheim") || strings.Contains(text.String(), strings.Repeat("u", 65)) {
		t.Errorf("%d lines: %s", n, text.String())
	}
}
