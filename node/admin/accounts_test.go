package admin

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func ptr[T any](v T) *T { return &v }

// TestAccounts asks about accounts over TCP, with the token, and over a socket, without.
func TestAccounts(t *testing.T) {
	tcp := client(t, start(t, fakeNode{}, Options{}))
	socket := client(t, start(t, fakeNode{}, Options{Address: filepath.Join(t.TempDir(), "s")})).WithToken("")
	for _, c := range []*Client{tcp, socket} {
		ctx := context.Background()
		if a, err := c.Accounts(ctx); err != nil || !reflect.DeepEqual(a.Accounts, []Account{{Name: "alice", Groups: []string{}, Password: true}}) {
			t.Errorf("%+v, %v", a, err)
		}
		if done, err := c.SetAccount(ctx, "röse / %2F", AccountChange{Password: ptr("x")}); err != nil || !done.Made {
			t.Errorf("%+v, %v", done, err)
		}
		if done, err := c.SetAccount(ctx, "alice", AccountChange{Groups: &[]string{}}); err != nil || done.Made {
			t.Errorf("%+v, %v", done, err)
		}
		if err := c.DeleteAccount(ctx, "alice"); err != nil {
			t.Error(err)
		}
		for _, tc := range []struct {
			err  error
			want string
		}{
			{second(c.SetAccount(ctx, "bad/name", AccountChange{})), `impossible: "bad/name"`},
			{second(c.SetAccount(ctx, "bob", AccountChange{})), `there is no such account: "bob"`},
			{second(c.SetAccount(ctx, "full disk", AccountChange{})), "the disk is full"},
			{c.DeleteAccount(ctx, "bob"), `there is no such account: "bob"`},
			{second(c.SetAccount(ctx, "bob", AccountChange{Password: ptr(strings.Repeat("x", maxBody))})), "want a body of 1 to 65536 bytes"},
		} {
			var refused *Error
			if !errors.As(tc.err, &refused) || refused.Message != tc.want {
				t.Errorf("have %v, want %s", tc.err, tc.want)
			}
		}
	}
}

// TestToken checks who may change something, and what a change has to look like.
func TestToken(t *testing.T) {
	s := start(t, fakeNode{}, Options{})
	const ok, json = "Bearer " + token, "application/json"
	for _, tc := range []struct {
		method, path, body string
		header             []string
		want               int
	}{
		{"POST", "/api/v1/reload", "", nil, 401},
		{"POST", "/api/v1/reload", "", []string{"Authorization", "Bearer 0123456789abcdeF"}, 401},
		{"POST", "/api/v1/reload", "", []string{"Authorization", token}, 401},
		{"POST", "/api/v1/reload", "", []string{"Authorization", ok}, 200},
		{"POST", "/api/v1/reload", "", []string{"Authorization", ok, "Origin", "http://localhost"}, 403},
		{"GET", "/api/v1/accounts", "", nil, 401},
		{"HEAD", "/api/v1/accounts", "", nil, 401},
		{"GET", "/api/v1/accounts", "", []string{"Authorization", ok}, 200},
		{"GET", "/api/v1/accounts/alice", "", []string{"Authorization", ok}, 405},
		{"PUT", "/api/v1/accounts", "{}", []string{"Authorization", ok, "Content-Type", json}, 405},
		{"PUT", "/api/v1/accounts/a/b", "{}", []string{"Authorization", ok, "Content-Type", json}, 404},
		{"PUT", "/api/v1/accounts/alice", "{}", []string{"Content-Type", json}, 401},
		{"DELETE", "/api/v1/accounts/alice", "", nil, 401},
		{"DELETE", "/api/v1/accounts/alice", "{}", []string{"Authorization", ok}, 413},
		{"PUT", "/api/v1/accounts/alice", "{}", []string{"Authorization", ok, "Content-Type", "text/plain"}, 415},
		{"PUT", "/api/v1/accounts/alice", "", []string{"Authorization", ok, "Content-Type", json}, 413},
		{"PUT", "/api/v1/accounts/alice", "{}", []string{"Authorization", ok, "Content-Type", json}, 200},
		{"PUT", "/api/v1/accounts/alice", `{"pasword": "x"}`, []string{"Authorization", ok, "Content-Type", json}, 400},
		{"PUT", "/api/v1/accounts/alice", `{} {}`, []string{"Authorization", ok, "Content-Type", json}, 400},
		{"PUT", "/api/v1/accounts/alice", `{"groups": "x"}`, []string{"Authorization", ok, "Content-Type", json}, 400},
		{"GET", "/api/v1/access", "", nil, 401},
		{"HEAD", "/api/v1/access", "", nil, 401},
		{"GET", "/api/v1/access", "", []string{"Authorization", ok}, 200},
		{"PUT", "/api/v1/access", fakeRules, []string{"Content-Type", yamlType}, 401},
		{"PUT", "/api/v1/access", fakeRules, []string{"Authorization", ok, "Content-Type", json}, 415},
		{"PUT", "/api/v1/access", "", []string{"Authorization", ok, "Content-Type", yamlType}, 413},
		{"PUT", "/api/v1/access", "rules: {}", []string{"Authorization", ok, "Content-Type", yamlType}, 422},
		{"PUT", "/api/v1/access", strings.Repeat("x", maxBody+1), []string{"Authorization", ok, "Content-Type", yamlType}, 422},
		// Who sends it unasked may be cut off before it reads the answer.
		{"PUT", "/api/v1/access", strings.Repeat("x", MaxRules+1), []string{"Authorization", ok, "Content-Type", yamlType, "Expect", "100-continue"}, 413},
		{"PUT", "/api/v1/access", fakeRules, []string{"Authorization", ok, "Content-Type", yamlType}, 200},
		{"DELETE", "/api/v1/access", "", []string{"Authorization", ok}, 405},
		{"GET", "/api/v1/access/check?user=a&publish=b", "", nil, 401},
		{"GET", "/api/v1/access/check?user=a", "", []string{"Authorization", ok}, 400},
		{"GET", "/api/v1/access/check?user=a&publish=b", "", []string{"Authorization", ok}, 200},
		{"PUT", "/api/v1/access/check", "{}", []string{"Authorization", ok, "Content-Type", json}, 405},
		{"GET", "/api/v1/status", "", nil, 200},
		{"GET", "/api/v1/invite", "", nil, 200},
	} {
		if got, text := get(t, s, tc.method, tc.path, "", tc.body, tc.header...); got != tc.want {
			t.Errorf("%s %s %q %v: %d, want %d: %s", tc.method, tc.path, tc.body, tc.header, got, tc.want, text)
		}
	}
	none, err := Start(fakeNode{}, Options{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close(context.Background())
	if got, _ := get(t, none, "POST", "/api/v1/reload", "", "", "Authorization", "Bearer "); got != 401 {
		t.Errorf("without a token there are changes: %d", got)
	}
}
