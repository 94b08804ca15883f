package admin

import (
	"context"
	"testing"
	"time"
)

// TestLeave asks a node to leave for good, and to forget another.
func TestLeave(t *testing.T) {
	ctx := context.Background()
	c := client(t, start(t, fakeNode{}, Options{}))
	if left, err := c.Leave(ctx, false, time.Minute); err != nil || left.Lost.Messages != 3 || left.TookS != 1 {
		t.Errorf("%+v, %v", left, err)
	}
	if _, err := c.WithToken("").Leave(ctx, false, time.Minute); err == nil {
		t.Error("a node leaves for somebody without its token")
	}
	c = client(t, start(t, fakeNode{reasons: []string{"x"}}, Options{}))
	if at, err := c.AtStake(ctx); err != nil || at.Sessions != 1 {
		t.Errorf("%+v, %v", at, err)
	}
	if _, err := c.Leave(ctx, false, time.Minute); err == nil || err.Error() != "sessions would be lost: 1" {
		t.Errorf("%v", err)
	}
	if _, err := c.Leave(ctx, true, time.Minute); err != nil {
		t.Error(err)
	}
	for _, limit := range []time.Duration{0, -time.Second, 2 * time.Hour} {
		if _, err := c.Leave(ctx, true, limit); err == nil {
			t.Errorf("it may take %v", limit)
		}
	}
	for peer, want := range map[string]string{"12D3": "", "": "not a peer ID", "unknown": "no such node is known here",
		"there": "the node is connected: stop it first, or have it leave by \"mozzie leave\""} {
		got := ""
		if err := c.Forget(ctx, peer); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("forget %q: %q, want %q", peer, got, want)
		}
	}
}
