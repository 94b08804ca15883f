package access

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// maxGone is how many deletions a table remembers for each account that it may have. The oldest are forgotten first.
const maxGone = 2

// Entry is an account, or that it was deleted, and when that was said.
type Entry struct {
	Account
	Deleted bool
	Changed Stamp
}

// Table is all accounts. It does not change, and is safe for concurrent use. The zero Table is empty.
type Table struct {
	entries map[string]Entry
	live    int
	costs   []Cost // of the accounts' hashes, in the order of their names: see decoy
}

// NewTable makes a table. Of several entries with one name the winner counts, see Merge.
func NewTable(entries ...Entry) *Table {
	t := &Table{entries: make(map[string]Entry, len(entries))}
	for _, e := range entries {
		t.put(e)
	}
	t.sum()
	return t
}

func (t *Table) put(e Entry) {
	if e.Deleted {
		e.Account = Account{Name: e.Name}
	}
	if old, ok := t.entries[e.Name]; !ok || e.beats(&old) {
		t.entries[e.Name] = e
	}
}

// sum counts what is there.
func (t *Table) sum() {
	t.live, t.costs = 0, nil
	for _, e := range t.Entries() {
		if e.Deleted {
			continue
		}
		t.live++
		if !e.Hash.IsZero() {
			t.costs = append(t.costs, e.Hash.cost)
		}
	}
}

// beats reports whether an entry takes the place of another of the same name: the later change does. Of changes with
// the same stamp, which were made at two places, a deletion does, and else one of the two, everywhere the same.
func (e *Entry) beats(old *Entry) bool {
	if e.Changed != old.Changed {
		return e.Changed > old.Changed
	}
	if e.Deleted != old.Deleted {
		return e.Deleted
	}
	return cmp.Or(
		cmp.Compare(e.Hash.String(), old.Hash.String()),
		slices.Compare(e.Groups, old.Groups),
		cmp.Compare(fmt.Sprint(old.Admin), fmt.Sprint(e.Admin)), // false wins
	) > 0
}

// Len is the number of accounts.
func (t *Table) Len() int { return t.live }

// Get returns an account.
func (t *Table) Get(name string) (Account, bool) {
	e, ok := t.entries[name]
	return e.Account, ok && !e.Deleted
}

// Deleted reports whether there was an account of that name that was deleted.
func (t *Table) Deleted(name string) bool { return t.entries[name].Deleted }

// Entries returns all entries by name, deletions too.
func (t *Table) Entries() []Entry {
	return slices.SortedFunc(maps.Values(t.entries), func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
}

// Accounts returns all accounts by name.
func (t *Table) Accounts() []Account {
	all := make([]Account, 0, t.live)
	for _, e := range t.Entries() {
		if !e.Deleted {
			all = append(all, e.Account)
		}
	}
	return all
}

// Last is the latest stamp in the table.
func (t *Table) Last() (last Stamp) {
	for _, e := range t.entries {
		last = max(last, e.Changed)
	}
	return last
}

// With returns a table in which an entry takes the place of what there was under its name, if it is later.
func (t *Table) With(e Entry) *Table { return t.Merge(NewTable(e)) }

// Merge returns what two tables, changed at two places, say together. For every name the later change wins. Merging is
// commutative, associative and idempotent.
func (t *Table) Merge(other *Table) *Table {
	m := &Table{entries: maps.Clone(t.entries)}
	if m.entries == nil {
		m.entries = make(map[string]Entry)
	}
	for _, e := range other.entries {
		m.put(e)
	}
	m.sum()
	return m
}

// Trimmed returns the table without the oldest deletions, where there are too many for a table of so many accounts.
func (t *Table) Trimmed(most int) *Table {
	var gone []Entry
	for _, e := range t.entries {
		if e.Deleted {
			gone = append(gone, e)
		}
	}
	if len(gone) <= maxGone*most {
		return t
	}
	slices.SortFunc(gone, func(a, b Entry) int { return cmp.Or(cmp.Compare(a.Changed, b.Changed), cmp.Compare(a.Name, b.Name)) })
	m := &Table{entries: maps.Clone(t.entries)}
	for _, e := range gone[:len(gone)-maxGone*most] {
		delete(m.entries, e.Name)
	}
	m.sum()
	return m
}

// Same reports whether two accounts are the same in everything.
func (a *Account) Same(b *Account) bool {
	return a.Name == b.Name && a.Hash == b.Hash && slices.Equal(a.Groups, b.Groups) && a.Admin == b.Admin
}
