package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	terminal "golang.org/x/term"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

func newPasswd() *cobra.Command {
	var to keeperFlags
	var from passwordFlags
	var change changeFlags
	cmd := &cobra.Command{
		Use:   "passwd USER",
		Short: "Make an account, or change its password",
		Long: `Make an account that MQTT clients log in with, or change its password. It is asked for on the terminal, twice, and
not shown; --stdin takes the first line of standard input instead.

--generate makes a password that nobody can guess, prints it and nothing else, and has the node store it so that it
costs next to nothing to check: the choice for devices, of which a thousand may come back at the same time. Other
passwords are stored in a form that is slow to try (Argon2id).

It works on a running node, and on the data directory of one that does not run. A running node acts at once: who is
connected with the old password is disconnected. Clients without a name go on as before, where their listener takes
them, but from the first account on a name that is given needs its password.`,
		Example: `  mozzie passwd alice
  mozzie passwd bob --groups sensors,doors
  mozzie passwd sensor-17 --generate --groups sensors
  pass show mqtt/alice | mozzie passwd alice --stdin
  mosquitto_sub -u alice -P secret -t 'doors/#'`,
		Args: args("USER"),
		RunE: func(cmd *cobra.Command, words []string) error {
			name := words[0]
			if err := access.CheckName(name); err != nil {
				return usagef("USER %v", err)
			}
			c, err := change.of(cmd)
			if err != nil {
				return err
			}
			password, err := from.get(cmd, name)
			if err != nil {
				return err
			}
			c.Password, c.Random = &password, from.generate
			return to.use(cmd, func(ctx context.Context, k keeper) error {
				made, err := k.set(ctx, name, c)
				if err != nil {
					return err
				}
				if from.generate {
					fmt.Fprintln(cmd.OutOrStdout(), password)
				}
				what := "password changed"
				if made {
					what = "account made"
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s%s\n", name, what, k.where())
				return nil
			})
		},
	}
	cmd.Flags().SortFlags = false
	from.add(cmd)
	change.add(cmd)
	to.add(cmd)
	return cmd
}

// passwordFlags say where a password comes from.
type passwordFlags struct{ stdin, generate, none bool }

func (f *passwordFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.stdin, "stdin", false, "take the password from the first line of standard input")
	cmd.Flags().BoolVar(&f.generate, "generate", false, "make a random password and print it")
	cmd.Flags().BoolVar(&f.none, "none", false, "no password: only a certificate in that name lets in")
}

// get returns the password, asking for it where nothing else was said.
func (f *passwordFlags) get(cmd *cobra.Command, name string) (password string, err error) {
	switch {
	case f.stdin && f.generate, f.stdin && f.none, f.generate && f.none:
		return "", usagef("--stdin, --generate and --none each say where the password comes from: give one of them")
	case f.none:
		return "", nil
	case f.generate:
		return access.RandomPassword(), nil
	case f.stdin:
		password, err = firstLine(cmd.InOrStdin())
	default:
		password, err = ask2(cmd, name)
	}
	switch {
	case err != nil:
		return "", err
	case password == "":
		return "", usagef("the password is empty; --none says that there shall be none")
	case len(password) > access.MaxPassword:
		return "", usagef("the password has %d bytes, at most %d are possible", len(password), access.MaxPassword)
	}
	return password, nil
}

// firstLine reads a line, without its end.
func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 2*access.MaxPassword)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

// ask2 asks for a password on the terminal, twice. Whatever ends it, it leaves the terminal as it was.
func ask2(cmd *cobra.Command, name string) (string, error) {
	f, ok := cmd.InOrStdin().(*os.File)
	if !ok || !terminal.IsTerminal(int(f.Fd())) {
		return "", usagef("there is no terminal to ask at: --stdin takes the password from standard input, --generate makes one")
	}
	ctx, cancel := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	// Before it asks: who types at once is not to see it either. Ctrl-C is a character then.
	was, err := terminal.MakeRaw(int(f.Fd()))
	if err != nil {
		return "", fmt.Errorf("ask for the password: %w", err)
	}
	typed, ended := [2]string{}, make(chan error, 1)
	go func() { // it may go on reading: the program ends then
		ended <- readTwice(f, cmd.ErrOrStderr(), name, &typed)
	}()
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = io.EOF
	}
	if err := terminal.Restore(int(f.Fd()), was); err != nil {
		return "", fmt.Errorf("put the terminal right: %w; \"stty sane\" does", err)
	}
	switch {
	case errors.Is(err, io.EOF):
		fmt.Fprintln(cmd.ErrOrStderr())
		return "", codedError{errors.New("interrupted: nothing was changed"), exitInterrupted}
	case err != nil:
		return "", fmt.Errorf("read the password: %w", err)
	case typed[0] != typed[1]:
		return "", errors.New("the two are not the same: nothing was changed")
	}
	return typed[0], nil
}

// readTwice reads two lines at a terminal. Ctrl-C and Ctrl-D are io.EOF.
func readTwice(from io.Reader, to io.Writer, name string, typed *[2]string) (err error) {
	t := terminal.NewTerminal(struct {
		io.Reader
		io.Writer
	}{from, to}, "")
	for i, prompt := range []string{"New password for " + name + ": ", "Again: "} {
		if typed[i], err = t.ReadPassword(prompt); err != nil {
			return err
		}
	}
	return nil
}

// changeFlags are what else of an account can be changed.
type changeFlags struct {
	groups  []string
	isAdmin bool
}

func (f *changeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.groups, "groups", nil, "the `GROUPS` that the account is in, for access rules, with commas; \"\" for none")
	cmd.Flags().BoolVar(&f.isAdmin, "is-admin", false, "the account may do everything: no access rule binds it; --is-admin=false takes that away")
}

// of returns what the flags that were given change.
func (f *changeFlags) of(cmd *cobra.Command) (c admin.AccountChange, err error) {
	if cmd.Flags().Changed("groups") {
		a := access.Account{Name: "x", Groups: f.groups}
		if err := a.Check(); err != nil {
			return c, usagef("--groups: %v", err)
		}
		if a.Groups == nil {
			a.Groups = []string{}
		}
		c.Groups = &a.Groups
	}
	if cmd.Flags().Changed("is-admin") {
		c.Admin = &f.isAdmin
	}
	return c, nil
}
