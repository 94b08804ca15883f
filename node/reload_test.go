package node

import (
	"errors"
	"log/slog"
	"reflect"
	"testing"
)

// TestReload: all or nothing.
func TestReload(t *testing.T) {
	used := 0
	good := func() (func(), error) { return func() { used++ }, nil }
	bad := func() (func(), error) { return nil, errors.New("acl.yaml:7: unknown key") }
	n := &Node{log: slog.New(slog.DiscardHandler)}
	n.reloadables = []reloadable{{"accounts", good}, {"access rules", bad}, {"certificates", good}}
	if what, err := n.Reload(); what != nil || err == nil || err.Error() != "access rules: acl.yaml:7: unknown key" {
		t.Errorf("reloaded %v, %v", what, err)
	}
	if used != 0 {
		t.Error("something took effect beside something wrong")
	}
	n.reloadables[1].read = good
	if what, err := n.Reload(); err != nil || !reflect.DeepEqual(what, []string{"accounts", "access rules", "certificates"}) {
		t.Errorf("reloaded %v, %v", what, err)
	}
	if used != 3 {
		t.Errorf("%d of 3 took effect", used)
	}
}
