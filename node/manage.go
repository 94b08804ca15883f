package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/accounts"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// startAuth reads the accounts.
func (n *Node) startAuth() error {
	book, err := accounts.Open(n.dir, n.cfg.Limits.MaxAccounts)
	if err != nil {
		return err
	}
	n.auth = &auth{book: book, door: access.NewDoor(n.cfg.Limits.MaxWaitingLogins), certNeedsAccount: n.cfg.Access.CertificateNeedsAccount, log: n.log}
	n.reloadables = append(n.reloadables, reloadable{what: "accounts", read: func() (func(), error) {
		use, err := book.Read()
		if err != nil {
			return nil, err
		}
		return func() { use(); n.accountsChanged() }, nil
	}}, reloadable{what: "access rules", read: func() (func(), error) {
		rules, err := n.readRules()
		if err != nil {
			return nil, err
		}
		return func() { n.auth.rules.Store(rules); n.accountsChanged() }, nil
	}})
	rules, err := n.readRules()
	n.auth.rules.Store(rules)
	return err
}

// readRules reads the access rules; nil where there are none. Rules that were there and are gone are no order to let
// everybody do everything.
func (n *Node) readRules() (*accounts.Rules, error) {
	path := n.rulesPath()
	if !filepath.IsAbs(path) {
		path = n.dir.Path(path)
	}
	rules, err := accounts.ReadRules(path)
	switch gone := errors.Is(err, fs.ErrNotExist); {
	case gone && n.auth.rules.Load() != nil:
		return nil, fmt.Errorf("the access rules %s are gone: put the file back, or one that allows what shall be allowed", path)
	case gone && n.cfg.Access.Rules == "":
		return nil, nil
	case gone:
		return nil, n.cfg.Refuse("access.rules", fmt.Sprintf("there is no file %s", path))
	}
	return rules, err
}

// rulesPath is where the rules are; in the data directory, if it is not absolute.
func (n *Node) rulesPath() string { return cmp.Or(n.cfg.Access.Rules, accounts.RulesName) }

// Rules implements admin.Node.
func (n *Node) Rules() ([]byte, error) {
	rules := n.auth.rules.Load()
	if rules == nil {
		return nil, admin.ErrNoRules
	}
	return rules.Text, nil
}

// SetRules implements admin.Node. A file that is not ours, outside the data directory, is left to whoever put it there.
func (n *Node) SetRules(text []byte) (made bool, err error) {
	n.reloadMu.Lock()
	defer n.reloadMu.Unlock()
	path := n.rulesPath()
	if filepath.Base(path) != path {
		return false, fmt.Errorf("%w: the rules are in %s (access.rules): change that file, then \"mozzie reload\"", admin.ErrBadRules, path)
	}
	if err := accounts.UnchangedRules(n.dir.Path(path), n.auth.rules.Load()); err != nil {
		return false, err
	}
	if err := accounts.WriteRules(n.dir, path, text); err != nil {
		return false, err
	}
	rules, err := n.readRules()
	if err != nil {
		return false, err
	}
	made = n.auth.rules.Swap(rules) == nil
	n.log.Info("the access rules were changed", "rules", rules.Len())
	n.accountsChanged()
	return made, nil
}

// Check implements admin.Node.
func (n *Node) Check(q admin.Question) (admin.Verdict, error) {
	return accounts.Check(n.auth.book.Table(), n.auth.rules.Load(), q)
}

// accountsChanged has the broker look who may stay.
func (n *Node) accountsChanged() {
	n.auth.door.Forget(n.auth.book.Table())
	if b := n.broker.Load(); b != nil {
		b.Recheck()
	}
}

// Accounts implements admin.Node.
func (n *Node) Accounts() []admin.Account {
	var all []admin.Account
	for _, e := range n.auth.book.Table().Entries() {
		if !e.Deleted {
			all = append(all, accounts.Show(e))
		}
	}
	return all
}

// SetAccount implements admin.Node.
func (n *Node) SetAccount(ctx context.Context, name string, c admin.AccountChange) (made bool, err error) {
	made, err = n.auth.book.Apply(name, c, func(password []byte, cost access.Cost) (access.Hash, error) {
		return n.auth.door.Hash(ctx, password, cost)
	})
	if err != nil {
		return made, accountError(name, err)
	}
	n.log.Info("an account was changed", "name", name, "made", made)
	n.accountsChanged()
	return made, nil
}

// DeleteAccount implements admin.Node.
func (n *Node) DeleteAccount(name string) error {
	if err := n.auth.book.Delete(name); err != nil {
		return accountError(name, err)
	}
	n.log.Info("an account was deleted", "name", name)
	n.accountsChanged()
	return nil
}

// accountError words an error for who asked for a change.
func accountError(name string, err error) error {
	var bad *accounts.BadError
	switch {
	case errors.Is(err, accounts.ErrNoAccount):
		return fmt.Errorf("%w: %q", admin.ErrNoAccount, name)
	case errors.Is(err, accounts.ErrFull), errors.As(err, &bad):
		return fmt.Errorf("%w: %w", admin.ErrBadAccount, err)
	}
	return err
}
