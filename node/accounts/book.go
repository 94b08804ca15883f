package accounts

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
)

// Dir is the data directory that the file is in.
type Dir interface {
	Path(name string) string
	// WriteFile replaces a file as a whole, for its owner's eyes only.
	WriteFile(name string, data []byte) error
}

// Book is the accounts of a node, in memory and in their file. It is safe for concurrent use.
type Book struct {
	dir   Dir
	most  int
	table atomic.Pointer[access.Table]

	mu    sync.Mutex // held by those that change the accounts
	clock access.Clock
	text  []byte // of the file, as it was last read or written; nil: there was none
}

// Open reads the accounts in a data directory: at most so many. Without a file there are none.
func Open(dir Dir, most int) (*Book, error) {
	b := &Book{dir: dir, most: most}
	b.table.Store(access.NewTable())
	use, err := b.Read()
	if err != nil {
		return nil, err
	}
	use()
	return b, nil
}

// Table returns the accounts as they are now.
func (b *Book) Table() *access.Table { return b.table.Load() }

// Read reads the file again. use takes what is in it for the accounts.
func (b *Book) Read() (use func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, text, err := b.readLocked()
	if err != nil {
		return nil, err
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if t2, text2, err := b.readLocked(); err == nil { // it may have been changed in between, by us even
			t, text = t2, text2
		}
		b.takeLocked(t, text)
	}, nil
}

func (b *Book) takeLocked(t *access.Table, text []byte) {
	b.clock.Saw(t.Last())
	b.table.Store(t)
	b.text = text
}

// readLocked returns the accounts that the file has, whoever changed it.
func (b *Book) readLocked() (*access.Table, []byte, error) {
	now := b.Table()
	path := b.dir.Path(FileName)
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("read the accounts %s: it is not a file", path)
	}
	var text []byte
	if err == nil && info.Size() <= maxFile { // Parse refuses what is larger, by its size
		text, err = os.ReadFile(path)
	} else if err == nil {
		text = make([]byte, maxFile+1)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && b.text != nil:
		return nil, nil, fmt.Errorf("the accounts %s are gone: put the file back, or an empty one if there shall be none", path)
	case errors.Is(err, fs.ErrNotExist):
		return now, nil, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, fmt.Errorf("read the accounts %s: no permission for user %d: change its owner to the user that the node runs as", path, os.Getuid())
	case err != nil:
		return nil, nil, fmt.Errorf("read the accounts: %w", err)
	}
	if b.text != nil && bytes.Equal(text, b.text) {
		return now, text, nil
	}
	entries, err := Parse(path, text, b.most)
	if err != nil {
		return nil, nil, err
	}
	return b.adoptLocked(now, entries), text, nil
}

// adoptLocked returns what the accounts are after somebody has written a file: what is as it was keeps its stamp, what is
// not has been changed now, and what is missing was deleted now.
func (b *Book) adoptLocked(now *access.Table, entries []access.Entry) *access.Table {
	stamped := access.NewTable(entries...)
	b.clock.Saw(now.Last())
	b.clock.Saw(stamped.Last())
	stamp := b.clock.Next(time.Now())
	was := map[string]access.Entry{}
	for _, e := range now.Entries() {
		was[e.Name] = e
	}
	for i := range entries {
		e := &entries[i]
		old, known := was[e.Name]
		delete(was, e.Name)
		same := known && old.Deleted == e.Deleted && old.Same(&e.Account)
		switch {
		case same && e.Changed <= old.Changed:
			e.Changed = old.Changed
		case e.Changed == 0, known && e.Changed <= old.Changed:
			e.Changed = stamp
		}
	}
	for _, old := range was {
		if !old.Deleted {
			old.Deleted, old.Changed = true, stamp
		}
		entries = append(entries, old)
	}
	return access.NewTable(entries...)
}

// Change says what is to change about an account; nil leaves as it is.
type Change struct {
	Hash   *access.Hash
	Groups *[]string
	Admin  *bool
}

// ErrNoAccount says that there is no account of that name.
var ErrNoAccount = errors.New("there is no such account")

// BadError says what is wrong with an account that was asked for.
type BadError struct{ error }

func (e *BadError) Unwrap() error { return e.error }

// ErrFull says that there are as many accounts as there may be.
var ErrFull = errors.New("there are as many accounts as there may be")

// Set makes or changes an account, and writes the file. An account that is made needs a Change without nil in Hash, which
// may be the zero Hash. The error is ErrNoAccount, ErrFull, a BadError, or about the file.
func (b *Book) Set(name string, c Change) (made bool, err error) {
	return made, b.change(func(t *access.Table) (access.Entry, error) {
		a, known := t.Get(name)
		if !known && c.Hash == nil {
			return access.Entry{}, ErrNoAccount
		}
		if made = !known; made && t.Len() >= b.most {
			return access.Entry{}, fmt.Errorf("%w: %d (limits.max_accounts)", ErrFull, b.most)
		}
		a.Name = name
		if c.Hash != nil {
			a.Hash = *c.Hash
		}
		if c.Groups != nil {
			a.Groups = *c.Groups
		}
		if c.Admin != nil {
			a.Admin = *c.Admin
		}
		if err := a.Check(); err != nil {
			return access.Entry{}, &BadError{err}
		}
		return access.Entry{Account: a}, nil
	})
}

// Delete deletes an account, and writes the file.
func (b *Book) Delete(name string) error {
	return b.change(func(t *access.Table) (access.Entry, error) {
		if _, ok := t.Get(name); !ok {
			return access.Entry{}, ErrNoAccount
		}
		return access.Entry{Account: access.Account{Name: name}, Deleted: true}, nil
	})
}

// change makes one change, on top of what somebody may have written into the file meanwhile.
func (b *Book) change(make func(*access.Table) (access.Entry, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, text, err := b.readLocked()
	if err != nil {
		return fmt.Errorf("the file of accounts was changed, and has to be right first: %w", err)
	}
	b.takeLocked(t, text)
	e, err := make(t)
	if err != nil {
		return err
	}
	e.Changed = b.clock.Next(time.Now())
	t = t.With(e).Trimmed(b.most)
	text = Format(t)
	if err := b.dir.WriteFile(FileName, text); err != nil {
		return err
	}
	b.takeLocked(t, text)
	return nil
}
