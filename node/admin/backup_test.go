package admin

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// fakeSnapshot is written in two parts, with the second of which something may be wrong.
type fakeSnapshot struct{ second error }

func (fakeSnapshot) Bytes() int64 { return 10 }
func (fakeSnapshot) Close() error { return nil }
func (s fakeSnapshot) Write(w io.Writer) error {
	if _, err := io.WriteString(w, "first "); err != nil || s.second != nil {
		return errors.Join(err, s.second)
	}
	_, err := io.WriteString(w, "second")
	return err
}

// brokenBackups is a node whose backups end in the middle.
type brokenBackups struct{ fakeNode }

func (brokenBackups) Backup() (Snapshot, error) {
	return fakeSnapshot{errors.New("the disk is broken")}, nil
}

// TestBackup: a backup comes whole, or who asks for it is told that it does not.
func TestBackup(t *testing.T) {
	ask := func(node Node, shown string) (got string, bytes int64, err error) {
		t.Helper()
		s := start(t, node, Options{})
		c, err := NewClient(s.Address())
		if err != nil {
			t.Fatal(err)
		}
		err = c.WithToken(shown).Backup(context.Background(), func(r io.Reader, n int64) error {
			bytes = n
			text, err := io.ReadAll(r)
			got = string(text)
			return err
		})
		return got, bytes, err
	}
	if got, n, err := ask(fakeNode{}, token); got != "first second" || n != 10 || err != nil {
		t.Errorf("%q of %d bytes, %v", got, n, err)
	}
	if _, _, err := ask(brokenBackups{}, token); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("one that ends in the middle: %v", err)
	}
	if _, _, err := ask(fakeNode{reasons: []string{"busy"}}, token); err == nil || err.Error() != ErrBusy.Error() {
		t.Errorf("a second one: %v", err)
	}
	if _, _, err := ask(fakeNode{}, ""); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("without the token: %v", err)
	}
}
