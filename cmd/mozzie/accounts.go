package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

func newAccounts() *cobra.Command {
	var from keeperFlags
	cmd := &cobra.Command{
		Use:   "accounts",
		Short: "Show, change and delete accounts",
		Long: `Show the accounts that MQTT clients log in with. "mozzie passwd USER" makes one.

Like passwd, it works on a running node, and on the data directory of one that does not run.`,
		Example: `  mozzie accounts
  mozzie accounts set bob --groups sensors,doors
  mozzie accounts set alice --is-admin
  mozzie accounts delete bob`,
		Args: func(_ *cobra.Command, words []string) error {
			if len(words) > 0 {
				return usagef("there is no command accounts %s; want accounts, accounts set USER or accounts delete USER", words[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return from.use(cmd, func(ctx context.Context, k keeper) error {
				all, err := k.list(ctx)
				if err != nil {
					return err
				}
				if from.json {
					return printJSON(cmd.OutOrStdout(), all)
				}
				printAccounts(cmd.OutOrStdout(), all)
				return nil
			})
		},
	}
	from.add(cmd)
	from.addJSON(cmd)
	cmd.AddCommand(newAccountsSet(), newAccountsDelete())
	return cmd
}

func newAccountsSet() *cobra.Command {
	var to keeperFlags
	var change changeFlags
	cmd := &cobra.Command{
		Use:     "set USER",
		Short:   "Change the groups of an account, or whether it is an admin's",
		Long:    "Change an account, but not its password: connected clients stay, and what they may do follows at once.",
		Example: "  mozzie accounts set bob --groups sensors,doors\n  mozzie accounts set alice --is-admin=false",
		Args:    args("USER"),
		RunE: func(cmd *cobra.Command, words []string) error {
			c, err := change.of(cmd)
			if err != nil {
				return err
			}
			if c.Groups == nil && c.Admin == nil {
				return usagef("nothing to change: give --groups or --is-admin; see mozzie accounts set --help")
			}
			return changed(cmd, &to, words[0], func(ctx context.Context, k keeper) error {
				_, err := k.set(ctx, words[0], c)
				return err
			}, "changed")
		},
	}
	change.add(cmd)
	to.add(cmd)
	return cmd
}

func newAccountsDelete() *cobra.Command {
	var to keeperFlags
	cmd := &cobra.Command{
		Use:     "delete USER",
		Short:   "Delete an account",
		Long:    "Delete an account: who is connected with it is disconnected, and a certificate in its name lets nobody in any more.",
		Example: "  mozzie accounts delete bob",
		Args:    args("USER"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return changed(cmd, &to, words[0], func(ctx context.Context, k keeper) error { return k.delete(ctx, words[0]) }, "deleted")
		},
	}
	to.add(cmd)
	return cmd
}

// changed changes an account, and says so.
func changed(cmd *cobra.Command, to *keeperFlags, name string, change func(context.Context, keeper) error, done string) error {
	if err := access.CheckName(name); err != nil {
		return usagef("USER %v", err)
	}
	return to.use(cmd, func(ctx context.Context, k keeper) error {
		if err := change(ctx, k); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s%s\n", name, done, k.where())
		return nil
	})
}

func printAccounts(w io.Writer, all admin.Accounts) {
	if len(all.Accounts) == 0 {
		fmt.Fprintln(w, "no accounts; \"mozzie passwd USER\" makes one")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "USER\tGROUPS\tNOTES")
	for _, a := range all.Accounts {
		var notes []string
		if a.Admin {
			notes = append(notes, "admin")
		}
		if !a.Password {
			notes = append(notes, "no password: by certificate only")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", a.Name, strings.Join(a.Groups, ","), strings.Join(notes, ", "))
	}
}
