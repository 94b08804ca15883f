package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

func newReload() *cobra.Command {
	var node nodeFlags
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have a node read its accounts, access rules and certificates again",
		Long: `Have a running node read again what may change while it runs: accounts, access rules and certificates. SIGHUP does
the same. No connection is dropped, but of clients that have lost their right to be there.

If anything is wrong with one of the files, nothing changes: the error names the file and the line.`,
		Example: `  mozzie reload
  systemctl reload mozzie`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return node.ask(cmd, func(ctx context.Context, c *admin.Client) error {
				r, err := c.Reload(ctx)
				for _, what := range r.Reloaded {
					fmt.Fprintln(cmd.OutOrStdout(), what)
				}
				return err
			})
		},
	}
	node.add(cmd)
	return cmd
}
