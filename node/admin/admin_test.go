package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fakeNode struct {
	reasons []string
}

func (n fakeNode) Status() Status {
	return Status{
		PeerID: "12D3", Ready: len(n.reasons) == 0, Peers: 2, Addresses: []string{"/ip4/1.2.3.4/tcp/1/p2p/12D3"},
		MQTT: []string{"tcp://127.0.0.1:1883"}, Broker: Broker{Connections: 7},
	}
}
func (n fakeNode) Peers() []Peer { return nil }
func (n fakeNode) Locate(ctx context.Context, topic string) (Location, error) {
	switch topic {
	case "a/#":
		return Location{}, fmt.Errorf("%q: %w: a name has no wildcards", topic, ErrBadTopic)
	case "slow":
		return Location{}, fmt.Errorf("ask 12D3: %w", context.DeadlineExceeded)
	}
	return Location{Topic: topic, Members: []Member{{PeerID: "12D3", Self: true, Rendezvous: true}}}, nil
}
func (n fakeNode) Invite() (string, error) {
	if n.reasons != nil {
		return "", errors.New("no address is known yet")
	}
	return "mozzie-invite", nil
}
func (n fakeNode) Ready() (bool, []string) { return len(n.reasons) == 0, n.reasons }
func (n fakeNode) Config() string          { return "data: /x\n" }
func (n fakeNode) Backup() (Snapshot, error) {
	if n.reasons != nil {
		return nil, ErrBusy
	}
	return fakeSnapshot{}, nil
}
func (n fakeNode) Reload() ([]string, error) {
	if n.reasons != nil {
		return nil, errors.New("accounts.yaml:3: unknown key")
	}
	return []string{"accounts"}, nil
}

func (n fakeNode) AtStake() AtStake { return AtStake{Sessions: len(n.reasons), Messages: 3} }
func (n fakeNode) Leave(ctx context.Context, discard bool) (Left, error) {
	if _, ok := ctx.Deadline(); !ok {
		return Left{}, errors.New("no deadline")
	}
	if n.reasons != nil && !discard {
		return Left{}, fmt.Errorf("%w: 1", ErrSessions)
	}
	return Left{Lost: n.AtStake(), TookS: 1}, nil
}
func (n fakeNode) Forget(peerID string) error {
	switch peerID {
	case "":
		return ErrBadNodeName
	case "there":
		return ErrNodeThere
	case "unknown":
		return ErrNoNode
	}
	return nil
}

func (n fakeNode) Accounts() []Account { return []Account{{Name: "alice", Password: true}} }
func (n fakeNode) SetAccount(_ context.Context, name string, c AccountChange) (bool, error) {
	switch {
	case name == "bad/name":
		return false, fmt.Errorf("%w: %q", ErrBadAccount, name)
	case name == "full disk":
		return false, errors.New("the disk is full")
	case name != "alice" && c.Password == nil:
		return false, fmt.Errorf("%w: %q", ErrNoAccount, name)
	}
	return name != "alice", nil
}
func (n fakeNode) DeleteAccount(name string) error {
	if name != "alice" {
		return fmt.Errorf("%w: %q", ErrNoAccount, name)
	}
	return nil
}

// fakeRules are what fakeNode takes for rules, and has.
const fakeRules = "rules: []\n"

func (n fakeNode) Rules() ([]byte, error) {
	if n.reasons != nil {
		return nil, ErrNoRules
	}
	return []byte(fakeRules), nil
}
func (n fakeNode) SetRules(text []byte) (bool, error) {
	if string(text) != fakeRules {
		return false, fmt.Errorf("%w: rules:3: unknown key", ErrBadRules)
	}
	return n.reasons != nil, nil
}
func (n fakeNode) Check(q Question) (Verdict, error) {
	if (q.Publish == "") == (q.Subscribe == "") {
		return Verdict{}, fmt.Errorf("%w: want a topic", ErrBadQuestion)
	}
	return Verdict{Allowed: q.User == "alice", By: ByRule, Rule: "access.yaml:7", Filter: q.Client + q.Publish + q.Subscribe}, nil
}

const token = "0123456789abcdef"

func start(t *testing.T, node Node, o Options) *Server {
	t.Helper()
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	o.Token = token
	s, err := Start(node, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func client(t *testing.T, s *Server) *Client {
	t.Helper()
	c, err := NewClient(s.Address())
	if err != nil {
		t.Fatal(err)
	}
	return c.WithToken(token)
}

func TestClientAndServer(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "admin.sock")} {
		s := start(t, fakeNode{}, Options{Address: address})
		c := client(t, s)
		ctx := context.Background()
		status, err := c.Status(ctx)
		if want := (fakeNode{}).Status(); err != nil || !reflect.DeepEqual(status, want) {
			t.Errorf("status %+v, %v; want %+v", status, err, want)
		}
		if peers, err := c.Peers(ctx); err != nil || peers.Peers == nil {
			t.Errorf("peers %#v, %v", peers, err)
		}
		if l, err := c.Locate(ctx, "a b/ü&x=1"); err != nil || l.Topic != "a b/ü&x=1" || len(l.Members) != 1 {
			t.Errorf("location %+v, %v", l, err)
		}
		if i, err := c.Invite(ctx); err != nil || i != "mozzie-invite" {
			t.Errorf("invite %q, %v", i, err)
		}
		if r, err := c.Reload(ctx); err != nil || !reflect.DeepEqual(r.Reloaded, []string{"accounts"}) {
			t.Errorf("reloaded %v, %v", r, err)
		}
		if text, err := c.Config(ctx); err != nil || text != "data: /x\n" {
			t.Errorf("config %q, %v", text, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	c := client(t, start(t, fakeNode{reasons: []string{"starting"}}, Options{}))
	ctx := context.Background()
	for _, tc := range []struct {
		err  error
		want string
	}{
		{second(c.Locate(ctx, "a/#")), `"a/#": not a topic name: a name has no wildcards`},
		{second(c.Locate(ctx, "")), "the topic is missing: /api/v1/locate?topic=doors/1"},
		{second(c.Locate(ctx, "slow")), "no answer from the swarm: ask 12D3: context deadline exceeded"},
		{second(c.Invite(ctx)), "no address is known yet"},
		{second(c.Reload(ctx)), "accounts.yaml:3: unknown key"},
		{second(c.do(ctx, http.MethodGet, "/api/v1/reload", nil)), `GET is not allowed at "/api/v1/reload", but POST is`},
		{second(c.do(ctx, http.MethodGet, "/api/v2", nil)), `there is nothing at "/api/v2"`},
		{second(c.do(ctx, http.MethodGet, "/debug/pprof/", nil)), `there is nothing at "/debug/pprof/"`},
	} {
		var refused *Error
		if !errors.As(tc.err, &refused) || refused.Message != tc.want {
			t.Errorf("have %v, want %s", tc.err, tc.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// get sends a request as a stranger might.
func get(t *testing.T, s *Server, method, path, host, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+s.Address()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		r.Host = host
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: time.Minute}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("pages may read the answer")
	}
	return resp.StatusCode, string(text)
}

func TestGuard(t *testing.T) {
	s := start(t, fakeNode{}, Options{})
	for _, tc := range []struct {
		name, method, host, body string
		header                   []string
		want                     int
	}{
		{"plain", "GET", "", "", nil, 200},
		{"localhost", "GET", "localhost:1", "", nil, 200},
		{"v6", "GET", "[::1]:7880", "", nil, 200},
		{"rebound name", "GET", "evil.example:7880", "", nil, 403},
		{"other address", "GET", "192.168.1.2", "", nil, 403},
		{"page", "GET", "", "", []string{"Origin", "http://evil.example"}, 403},
		{"image in a page", "GET", "", "", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"typed in", "GET", "", "", []string{"Sec-Fetch-Site", "none"}, 200},
		{"POST", "POST", "", "", nil, 405},
		{"body", "GET", "", "x", nil, 413},
	} {
		if got, text := get(t, s, tc.method, "/api/v1/status", tc.host, tc.body, tc.header...); got != tc.want {
			t.Errorf("%s: %d, want %d: %s", tc.name, got, tc.want, text)
		}
	}
}

func TestHealth(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "mozzie_test_total"}, func() float64 { return 3 }))
	s := start(t, fakeNode{reasons: []string{"no rendezvous yet"}}, Options{Metrics: reg, Pprof: true})
	if code, text := get(t, s, "GET", "/healthz", "", ""); code != 200 || text != "ok\n" {
		t.Errorf("healthz: %d %s", code, text)
	}
	code, text := get(t, s, "GET", "/readyz", "", "")
	var ready Ready
	if err := json.Unmarshal([]byte(text), &ready); err != nil || code != 503 || ready.Ready || ready.Reasons[0] != "no rendezvous yet" {
		t.Errorf("readyz: %d %s", code, text)
	}
	if code, text := get(t, s, "GET", "/metrics", "", ""); code != 200 || !strings.Contains(text, "mozzie_test_total 3") {
		t.Errorf("metrics: %d %s", code, text)
	}
	if code, text := get(t, s, "GET", "/debug/pprof/goroutine?debug=1", "", ""); code != 200 || !strings.Contains(text, "goroutine profile") {
		t.Errorf("pprof: %d %s", code, text)
	}
}

func TestAddressInUse(t *testing.T) {
	s := start(t, fakeNode{}, Options{})
	_, err := Start(fakeNode{}, Options{Address: s.Address()})
	if err == nil || !strings.Contains(err.Error(), "the address is in use") {
		t.Errorf("%v", err)
	}
	if _, err := Start(fakeNode{}, Options{Address: "0.0.0.0:0"}); err == nil {
		t.Error("listens beyond this machine")
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	// A node that was killed leaves its socket behind.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	s := start(t, fakeNode{}, Options{Address: path})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := Start(fakeNode{}, Options{Address: s.Address()}); err == nil || !strings.Contains(err.Error(), "the address is in use") {
		t.Errorf("a socket that is listened at: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	c, err := NewClient(filepath.Join(t.TempDir(), "none.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(context.Background()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

func TestLoopbackHost(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.1.2.3:80": true, "LOCALHOST:1": true, "[::1]": true, "[::1]:5": true, "[::ffff:127.0.0.1]:5": true,
		"": false, "localhost.evil.example": false, "127.0.0.1.nip.io": false, "10.0.0.1:1": false, "[::]:1": false, "2130706433": false,
	} {
		if got := loopbackHost(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}
