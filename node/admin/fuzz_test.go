package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// FuzzServer sends the API any request: it answers with JSON where it refuses, never to a page's request nor to one for
// another host, takes nothing but GET for what is read, and changes nothing without the token.
func FuzzServer(f *testing.F) {
	for _, s := range []string{
		"GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1:7880\r\n\r\n",
		"GET /api/v1/locate?topic=a%2Fb&topic=c HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /api/v1/locate?topic=%zz;a HTTP/1.1\r\nHost: [::1]:1\r\n\r\n",
		"HEAD /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: application/openmetrics-text; version=1.0.0, */*;q=0.1\r\nAccept-Encoding: gzip\r\n\r\n",
		"POST /api/v1/invite HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}",
		"GET //api/../api/v1/config HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\n\r\n",
		"GET http://evil.example/api/v1/peers HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n\r\n",
		"DELETE /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /nothing HTTP/1.1\r\nHost: localhost:99999999999\r\n\r\n",
		"PUT /api/v1/accounts/bob%2Fx HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\nContent-Type: application/json\r\nContent-Length: 38\r\n\r\n" +
			`{"password":"x","groups":[],"admin":1}`,
		"PUT /api/v1/accounts/bob HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" +
			`{"password":"x"}`,
		"DELETE /api/v1/accounts/alice HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n\r\n",
		"DELETE /api/v1/accounts/alice HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic x\r\n\r\n",
		"GET /api/v1/accounts HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /api/v1/access HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n\r\n",
		"PUT /api/v1/access HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\nContent-Type: application/yaml\r\nContent-Length: 10\r\n\r\n" + fakeRules,
		"PUT /api/v1/access HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/yaml\r\nContent-Length: 10\r\n\r\n" + fakeRules,
		"GET /api/v1/access/check?user=alice&client=c&publish=a%2Fb HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n\r\n",
		"GET /api/v1/access/check?subscribe=%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		f.Add(s)
	}
	registry := prometheus.NewRegistry()
	handler := guard("tcp", token, routes(fakeNode{}, Options{Metrics: registry}))
	f.Fuzz(func(t *testing.T, text string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return // net/http refuses it
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		answer := w.Result()
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode == http.StatusOK {
			if !loopbackHost(r.Host) || r.Header.Get("Origin") != "" || needsToken(r) && !hasToken(r, token) {
				t.Errorf("%q is answered", text)
			}
			return
		}
		var refused Error
		if answer.Header.Get("Content-Type") == "application/json" && !strings.HasPrefix(r.URL.Path, "/readyz") && (json.Unmarshal(body, &refused) != nil || refused.Message == "") {
			t.Errorf("%q is answered %d with %q", text, answer.StatusCode, body)
		}
	})
}

// said is a server that answers everything alike.
type said struct {
	status int
	body   []byte
}

func (s said) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: s.status, Status: http.StatusText(s.status), Body: io.NopCloser(bytes.NewReader(s.body)), Request: r}, nil
}

// FuzzClient has the client hear any answer: what it takes for one is the same once more.
func FuzzClient(f *testing.F) {
	for _, v := range []any{fakeNode{}.Status(), Peers{Peers: []Peer{{PeerID: "12D3", Connected: true, RTTms: 1.5}}},
		Location{Topic: "a", Members: []Member{{PeerID: "12D3", Self: true}}}, Invite{Invite: "mozzie1-x"}, Error{Message: "no"},
		Accounts{[]Account{{Name: "a", Groups: []string{"g"}}}}, Changed{true}, Reloaded{[]string{"accounts"}}, Verdict{By: ByRule, Rule: "f:1", Groups: []string{"g"}}} {
		text, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(http.StatusOK, text)
		f.Add(http.StatusBadRequest, text)
	}
	f.Add(200, []byte(`{"peers":null,"uptime_s":1e999}`))
	f.Add(500, []byte(`<html>`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		c, err := NewClient("127.0.0.1:1")
		if err != nil {
			t.Fatal(err)
		}
		c.http.Transport = said{status, body}
		ctx := context.Background()
		s, err := c.Status(ctx)
		twice(t, c, err, s, func() (any, error) { return c.Status(ctx) })
		p, err := c.Peers(ctx)
		twice(t, c, err, p, func() (any, error) { return c.Peers(ctx) })
		l, err := c.Locate(ctx, "a/b")
		twice(t, c, err, l, func() (any, error) { return c.Locate(ctx, "a/b") })
		a, err := c.Accounts(ctx)
		twice(t, c, err, a, func() (any, error) { return c.Accounts(ctx) })
		v, err := c.Check(ctx, Question{User: "a", Publish: "b"})
		twice(t, c, err, v, func() (any, error) { return c.Check(ctx, Question{}) })
		done, err := c.SetRules(ctx, body)
		twice(t, c, err, done, func() (any, error) { return c.SetAccount(ctx, "a", AccountChange{}) })
		r, err := c.Reload(ctx)
		twice(t, c, err, r, func() (any, error) { return c.Reload(ctx) })
		if text, err := c.Rules(ctx); err == nil && !bytes.Equal(text, body) {
			t.Errorf("%q is read as %q", body, text)
		}
		if _, err := c.Invite(ctx); err != nil && err.Error() == "" {
			t.Error("an error without a word")
		}
		if text, err := c.Config(ctx); err == nil && text != string(body) {
			t.Errorf("%q is read as %q", body, text)
		}
	})
}

// twice checks that an answer, as it was understood, is understood alike again.
func twice(t *testing.T, c *Client, err error, v any, again func() (any, error)) {
	t.Helper()
	if err != nil {
		var refused *Error
		if errors.As(err, &refused) && refused.Message == "" || err.Error() == "" {
			t.Error("an error without a word")
		}
		return
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%+v: %v", v, err)
	}
	before := c.http.Transport
	defer func() { c.http.Transport = before }()
	c.http.Transport = said{http.StatusOK, text}
	if w, err := again(); err != nil || !reflect.DeepEqual(emptied(w), emptied(v)) {
		t.Errorf("%+v is %+v once more, %v", v, w, err)
	}
}

// emptied makes lists that are empty alike.
func emptied(v any) any {
	text, _ := json.Marshal(v)
	return strings.ReplaceAll(string(text), "[]", "null")
}
