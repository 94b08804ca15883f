package access

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

// randomEntry returns one of few entries, so that names and stamps meet.
func randomEntry(r *rand.Rand, hashes []Hash) Entry {
	e := Entry{Account: Account{Name: fmt.Sprintf("u%d", r.IntN(3))}, Changed: Stamp(r.IntN(3))}
	if r.IntN(3) == 0 {
		e.Deleted = true
		return e
	}
	e.Hash, e.Admin = hashes[r.IntN(len(hashes))], r.IntN(2) == 0
	if r.IntN(2) == 0 {
		e.Groups = []string{"g"}
	}
	return e
}

// TestMerge: whatever the order in which changes meet, all come out the same, and the later change of each entry wins.
func TestMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	hashes := []Hash{{}, NewHash([]byte("a"), cheap), NewHash([]byte("b"), cheap)}
	random := func() *Table {
		var es []Entry
		for range r.IntN(5) {
			es = append(es, randomEntry(r, hashes))
		}
		return NewTable(es...)
	}
	same := func(a, b *Table) bool { return reflect.DeepEqual(a.Entries(), b.Entries()) && a.Len() == b.Len() }
	for range 20_000 {
		a, b, c := random(), random(), random()
		ab := a.Merge(b)
		if !same(ab, b.Merge(a)) || !same(ab.Merge(c), a.Merge(b.Merge(c))) || !same(ab.Merge(a), ab) {
			t.Fatalf("%v, %v, %v", a.Entries(), b.Entries(), c.Entries())
		}
		for _, e := range ab.Entries() {
			for _, of := range []*Table{a, b} {
				if old, ok := of.entries[e.Name]; ok && old.Changed > e.Changed {
					t.Fatalf("%v won over %v", e, old)
				}
				if old, ok := of.entries[e.Name]; ok && old.Deleted && old.Changed == e.Changed && !e.Deleted {
					t.Fatalf("%v won over the deletion %v", e, old)
				}
			}
		}
	}
}

func TestTable(t *testing.T) {
	one := Entry{Account: Account{Name: "one", Groups: []string{"g"}}, Changed: 5}
	tab := NewTable(one)
	if a, ok := tab.Get("one"); !ok || !a.Same(&one.Account) || tab.Len() != 1 || tab.Last() != 5 || tab.Deleted("one") {
		t.Errorf("%v %v", a, ok)
	}
	if later := tab.With(Entry{Account: Account{Name: "one"}, Changed: 4}); !reflect.DeepEqual(later.Entries(), tab.Entries()) {
		t.Error("an earlier change won")
	}
	gone := tab.With(Entry{Account: Account{Name: "one", Admin: true}, Deleted: true, Changed: 6})
	if _, ok := gone.Get("one"); ok || gone.Len() != 0 || !gone.Deleted("one") || tab.Deleted("one") || gone.Entries()[0].Admin {
		t.Errorf("%v", gone.Entries())
	}
	for i := range 10 {
		gone = gone.With(Entry{Account: Account{Name: fmt.Sprint(i)}, Deleted: true, Changed: Stamp(10 + i)})
	}
	if few := gone.Trimmed(2); len(few.Entries()) != 4 || !few.Deleted("9") || !few.Deleted("6") || few.Deleted("5") {
		t.Errorf("%v", few.Entries())
	}
	if gone.Trimmed(6) != gone {
		t.Error("trimmed without need")
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "Röse", "a b", "hub/device", "x@example.org", "+", "$SYS", "日本"} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", " a", "a ", "a\nb", "\x00", "a\u202eb", ".", "..", "a\xff", string(make([]byte, 257))} {
		if CheckName(name) == nil {
			t.Errorf("%q is a name", name)
		}
	}
	a := Account{Name: "x", Groups: []string{"b", "a", "b"}}
	if err := a.Check(); err != nil || !reflect.DeepEqual(a.Groups, []string{"a", "b"}) {
		t.Errorf("%v %v", a, err)
	}
	for _, a := range []Account{{Name: ""}, {Name: "x", Groups: []string{""}}, {Name: "x", Groups: make([]string, MaxGroups+1)}} {
		if a.Check() == nil {
			t.Errorf("%v is an account", a)
		}
	}
}
