package admin

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
)

// TestAccess reads, replaces and tries rules over TCP, with the token, and over a socket, without.
func TestAccess(t *testing.T) {
	ctx := context.Background()
	tcp := client(t, start(t, fakeNode{}, Options{}))
	socket := client(t, start(t, fakeNode{}, Options{Address: filepath.Join(t.TempDir(), "s")})).WithToken("")
	for _, c := range []*Client{tcp, socket} {
		if text, err := c.Rules(ctx); err != nil || string(text) != fakeRules {
			t.Errorf("%q, %v", text, err)
		}
		if done, err := c.SetRules(ctx, []byte(fakeRules)); err != nil || done.Made {
			t.Errorf("%+v, %v", done, err)
		}
		q := Question{User: "alice", Client: "c ü&publish=x/", Subscribe: "a/#"}
		want := Verdict{Allowed: true, By: ByRule, Rule: "access.yaml:7", Filter: q.Client + q.Subscribe, Groups: []string{}}
		if v, err := c.Check(ctx, q); err != nil || !reflect.DeepEqual(v, want) {
			t.Errorf("%+v, %v", v, err)
		}
		for want, err := range map[string]error{
			"nothing was changed: rules:3: unknown key": second(c.SetRules(ctx, []byte("x"))),
			"impossible: want a topic":                  second(c.Check(ctx, Question{Publish: "a", Subscribe: "b"})),
		} {
			var refused *Error
			if !errors.As(err, &refused) || refused.Message != want {
				t.Errorf("have %v, want %s", err, want)
			}
		}
	}
	none := client(t, start(t, fakeNode{reasons: []string{"x"}}, Options{}))
	if _, err := none.Rules(ctx); err == nil || err.Error() != ErrNoRules.Error() {
		t.Error(err)
	}
	if done, err := none.SetRules(ctx, []byte(fakeRules)); err != nil || !done.Made {
		t.Errorf("%+v, %v", done, err)
	}
}
