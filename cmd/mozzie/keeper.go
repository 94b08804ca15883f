package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/accounts"
	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/config"
	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

// keeper keeps accounts and access rules: a running node, or the directory of one that does not run.
type keeper interface {
	list(ctx context.Context) (admin.Accounts, error)
	set(ctx context.Context, name string, c admin.AccountChange) (made bool, err error)
	delete(ctx context.Context, name string) error
	rules(ctx context.Context) ([]byte, error)
	setRules(ctx context.Context, text []byte) (made bool, err error)
	check(ctx context.Context, q admin.Question) (admin.Verdict, error)
	// where says of the keeper what people should know, or "".
	where() string
}

// keeperFlags say whose accounts are meant.
type keeperFlags struct{ nodeFlags }

// use runs f with the keeper that is meant: the running node, or else the data directory.
func (f *keeperFlags) use(cmd *cobra.Command, do func(context.Context, keeper) error) error {
	dir, asks := f.offline(cmd.Context())
	if asks {
		return f.ask(cmd, func(ctx context.Context, c *admin.Client) error { return do(ctx, running{c}) })
	}
	d, err := datadir.Open(dir)
	if err != nil {
		return err
	}
	b, err := accounts.Open(d, accounts.Most)
	if err == nil {
		err = do(cmd.Context(), stopped{b, d, dir})
	}
	return errors.Join(err, d.Close())
}

// offline returns the directory in which no node runs; or asks is true, and a node is to be asked.
func (f *keeperFlags) offline(ctx context.Context) (dir string, asks bool) {
	if f.admin != "" {
		return "", true
	}
	env := environment()
	named := true
	switch {
	case f.data != "":
		dir = f.data
	case env["MOZZIE_DATA"] != "":
		dir = env["MOZZIE_DATA"]
	default:
		dir, named = config.DefaultData(env), false
	}
	if _, err := datadir.Admin(dir); !errors.Is(err, datadir.ErrNotRunning) {
		return dir, true
	}
	if named {
		return dir, false
	}
	// A node of another user's may answer at the usual address, and be the one that is meant.
	c, err := f.client()
	if err == nil {
		_, err = c.Status(ctx)
	}
	return dir, err == nil
}

// running is a node that is asked.
type running struct{ c *admin.Client }

func (k running) list(ctx context.Context) (admin.Accounts, error) { return k.c.Accounts(ctx) }

func (k running) set(ctx context.Context, name string, c admin.AccountChange) (bool, error) {
	done, err := k.c.SetAccount(ctx, name, c)
	return done.Made, err
}

func (k running) delete(ctx context.Context, name string) error { return k.c.DeleteAccount(ctx, name) }
func (k running) rules(ctx context.Context) ([]byte, error)     { return k.c.Rules(ctx) }

func (k running) setRules(ctx context.Context, text []byte) (bool, error) {
	done, err := k.c.SetRules(ctx, text)
	return done.Made, err
}

func (k running) check(ctx context.Context, q admin.Question) (admin.Verdict, error) {
	return k.c.Check(ctx, q)
}

func (k running) where() string { return "" }

// stopped is the directory of a node that does not run. It is locked. Its rules are those that are in it: where else a
// configuration has them is not known without it.
type stopped struct {
	b   *accounts.Book
	d   *datadir.Dir
	dir string
}

func (k stopped) list(context.Context) (admin.Accounts, error) {
	all := admin.Accounts{Accounts: []admin.Account{}}
	for _, e := range k.b.Table().Entries() {
		if !e.Deleted {
			all.Accounts = append(all.Accounts, accounts.Show(e))
		}
	}
	return all, nil
}

func (k stopped) set(_ context.Context, name string, c admin.AccountChange) (bool, error) {
	made, err := k.b.Apply(name, c, func(password []byte, cost access.Cost) (access.Hash, error) {
		return access.NewHash(password, cost), nil
	})
	return made, err
}

func (k stopped) delete(_ context.Context, name string) error {
	err := k.b.Delete(name)
	if errors.Is(err, accounts.ErrNoAccount) {
		return fmt.Errorf("%w: %q", err, name)
	}
	return err
}

func (k stopped) rules(context.Context) ([]byte, error) {
	rules, err := k.read()
	switch {
	case err != nil:
		return nil, err
	case rules == nil:
		return nil, admin.ErrNoRules
	}
	return rules.Text, nil
}

// read reads the rules; nil where there are none.
func (k stopped) read() (*accounts.Rules, error) {
	rules, err := accounts.ReadRules(k.d.Path(accounts.RulesName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return rules, err
}

func (k stopped) setRules(_ context.Context, text []byte) (made bool, err error) {
	_, err = os.Stat(k.d.Path(accounts.RulesName))
	return err != nil, accounts.WriteRules(k.d, accounts.RulesName, text)
}

func (k stopped) check(_ context.Context, q admin.Question) (admin.Verdict, error) {
	rules, err := k.read()
	if err != nil {
		return admin.Verdict{}, err
	}
	return accounts.Check(k.b.Table(), rules, q)
}

func (k stopped) where() string { return fmt.Sprintf(", in %s, whose node does not run", k.dir) }
