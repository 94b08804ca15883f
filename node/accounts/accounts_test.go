package accounts

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
)

// folder is a Dir for tests.
type folder string

func (f folder) Path(name string) string { return filepath.Join(string(f), name) }

func (f folder) WriteFile(name string, data []byte) error {
	return os.WriteFile(f.Path(name), data, 0o600)
}

var hash = access.NewHash([]byte("secret"), access.Cost{Memory: 8, Passes: 1, Lanes: 1})

func ptr[T any](v T) *T { return &v }

func open(t *testing.T, dir Dir, most int) *Book {
	t.Helper()
	b, err := Open(dir, most)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBook(t *testing.T) {
	dir := folder(t.TempDir())
	b := open(t, dir, 3)
	set := func(name string, c Change) error { _, err := b.Set(name, c); return err }
	if err := set("bob", Change{Admin: ptr(true)}); err != ErrNoAccount {
		t.Errorf("made without a password: %v", err)
	}
	if made, err := b.Set("bob", Change{Hash: &hash, Groups: &[]string{"b", "a"}}); err != nil || !made {
		t.Errorf("%v, %v", made, err)
	}
	if made, err := b.Set("bob", Change{Admin: ptr(true)}); err != nil || made {
		t.Errorf("%v, %v", made, err)
	}
	bob := access.Account{Name: "bob", Hash: hash, Groups: []string{"a", "b"}, Admin: true}
	if a, ok := b.Table().Get("bob"); !ok || !a.Same(&bob) {
		t.Errorf("%+v", a)
	}
	var bad *BadError
	if err := set("a\nb", Change{Hash: &hash}); !errors.As(err, &bad) {
		t.Error(err)
	}
	if err := errors.Join(set("alice", Change{Hash: &access.Hash{}}), set("[true, {x: 1}] # 'ü\"\\", Change{Hash: &hash, Groups: &[]string{"null", "a, b]", "1"}})); err != nil {
		t.Error(err)
	}
	if err := set("carol", Change{Hash: &hash}); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if err := errors.Join(b.Delete("alice"), set("true", Change{Hash: &hash})); err != nil {
		t.Error(err)
	}
	if err := b.Delete("alice"); err != ErrNoAccount {
		t.Error(err)
	}
	again := open(t, dir, 3)
	if have, want := again.Table().Entries(), b.Table().Entries(); !reflect.DeepEqual(have, want) {
		t.Errorf("read again: %+v, want %+v", have, want)
	}
}

// TestByHand: what somebody writes into the file counts as changed then, and a change by the API keeps it.
func TestByHand(t *testing.T) {
	dir := folder(t.TempDir())
	b := open(t, dir, 10)
	for _, name := range []string{"alice", "bob", "carol"} {
		if _, err := b.Set(name, Change{Hash: &hash}); err != nil {
			t.Fatal(err)
		}
	}
	before := b.Table()
	edit := func(old, new string) {
		t.Helper()
		text, err := os.ReadFile(dir.Path(FileName))
		if err != nil || !strings.Contains(string(text), old) {
			t.Fatalf("%v in %s", err, text)
		}
		if err := dir.WriteFile(FileName, []byte(strings.Replace(string(text), old, new, 1))); err != nil {
			t.Fatal(err)
		}
	}
	stamp := func(tab *access.Table, name string) (s access.Stamp) {
		for _, e := range tab.Entries() {
			if e.Name == name {
				s = e.Changed
			}
		}
		return s
	}
	edit("  - name: alice\n", "  - name: alice\n    admin: true\n") // its stamp is left as it was
	edit("  - name: bob\n    password: "+hash.String()+"\n", "  - name: dave\n")
	if before != b.Table() {
		t.Error("it took effect unasked")
	}
	if _, err := b.Set("erin", Change{Hash: &hash}); err != nil {
		t.Fatal(err)
	}
	now := b.Table()
	alice, _ := now.Get("alice")
	_, dave := now.Get("dave")
	_, erin := now.Get("erin")
	if !alice.Admin || !dave || !erin || !now.Deleted("bob") || now.Len() != 4 {
		t.Errorf("%+v", now.Entries())
	}
	if stamp(now, "alice") <= stamp(before, "carol") || stamp(now, "bob") <= stamp(before, "carol") || stamp(now, "carol") != stamp(before, "carol") {
		t.Errorf("stamps: %+v", now.Entries())
	}

	// A bad file changes nothing, and nothing is written over it.
	edit("admin: true", "admin: yes")
	if _, err := b.Read(); err == nil || !strings.Contains(err.Error(), FileName+":6: accounts[0].admin: want true or false") {
		t.Error(err)
	}
	if err := b.Delete("alice"); err == nil || b.Table().Deleted("alice") {
		t.Errorf("written over a bad file: %v", err)
	}
	edit("admin: yes", "admin: false")
	use, err := b.Read()
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := b.Table().Get("alice"); !a.Admin {
		t.Error("it took effect before it was used")
	}
	if use(); b.Table().Len() != 4 {
		t.Errorf("%+v", b.Table().Entries())
	}
	if a, _ := b.Table().Get("alice"); a.Admin {
		t.Error("it took no effect")
	}
	// A file that is gone is no order to delete everybody.
	os.Remove(dir.Path(FileName))
	if _, err := b.Read(); err == nil || !strings.Contains(err.Error(), "are gone") {
		t.Error(err)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"accounts: 7":                                  "f:1: accounts: want a list",
		"accounts:\n  - name: a\n  - name: a\n":        `f:3: accounts[1]: "a" is there twice, the first time at f:2`,
		"accounts:\n  - name: a\ndeleted: [{name: a}]": `f:3: deleted[0]: "a" is there twice`,
		"accounts:\n  - admin: true\n":                 `f:2: accounts[0]: name "" is empty`,
		"accounts:\n  - name: a\n    password: secret": "f:3: accounts[0].password: want an Argon2id hash",
		"accounts:\n  - name: a\n    changed: 'now'":   `f:3: accounts[0].changed: "now" is no time of a change`,
		"accounts:\n  - name: 1\n":                     "f:2: accounts[0].name: want text, not the number 1",
		"accounts: [{name: a}, {name: b}, {name: c}]":  "f:1: accounts[2]: 3 accounts, at most 2 are possible",
		"accounts: &x [{name: a}]\ndeleted: *x":        "f:2: deleted: aliases are not known here",
		"accounts: [":                                  "not valid YAML",
		strings.Repeat("#", maxFile+1):                 "f: 33554433 bytes, at most 33554432 are read",
		"deleted: [{name: \"a\\nb\"}]":                 "f:1: deleted[0]: name",
	} {
		if _, err := Parse("f", []byte(text), 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s", text, err, want)
		}
	}
}

// FuzzParse: what is read is written in one form, which is read as the same.
func FuzzParse(f *testing.F) {
	t := access.NewTable(
		access.Entry{Account: access.Account{Name: "alice", Hash: hash, Groups: []string{"a, b", "yes"}, Admin: true}, Changed: 1 << 20},
		access.Entry{Account: access.Account{Name: "null"}, Changed: 7}, access.Entry{Account: access.Account{Name: "b: 'x'"}, Deleted: true, Changed: 9})
	f.Add(string(Format(t)))
	f.Add("accounts:\n- {name: x, password: '" + hash.String() + "', groups: [], admin: false}\n")
	f.Add("accounts:\ndeleted:\n  - name: \"\\u00fc\"\n    changed: \"2026-11-22T21:30:08.123Z+3\"\n")
	f.Add("a: &a [*a]\n<<: *a\n--- \n")
	f.Fuzz(func(t *testing.T, text string) {
		es, err := Parse("f", []byte(text), 100)
		if err != nil {
			return
		}
		tab := access.NewTable(es...)
		written := Format(tab)
		again, err := Parse("f", written, 100)
		if err != nil {
			t.Fatalf("%v in\n%s", err, written)
		}
		if t2 := access.NewTable(again...); string(Format(t2)) != string(written) || !same(tab, t2) {
			t.Errorf("written as\n%s, read as %+v, want %+v", written, t2.Entries(), tab.Entries())
		}
	})
}

func same(a, b *access.Table) bool {
	x, y := a.Entries(), b.Entries()
	for i := range x {
		if len(y) != len(x) || !x[i].Same(&y[i].Account) || x[i].Deleted != y[i].Deleted || x[i].Changed != y[i].Changed {
			return false
		}
	}
	return len(x) == len(y)
}
