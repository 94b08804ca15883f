package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

func newInvite() *cobra.Command {
	var node nodeFlags
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Print a string that lets another node into the swarm",
		Long: `Print one string that lets another node into this node's swarm: the key, if the swarm is private, and the
addresses to reach this node at. Whoever has it can join, read and publish, so hand it over like a password.
It goes to standard output by itself, on the last line.`,
		Example: `  mozzie invite
  ssh pi2 mozzie run --join "$(mozzie invite)"`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return node.ask(cmd, func(ctx context.Context, c *admin.Client) error {
				invite, err := c.Invite(ctx)
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), invite)
				}
				return err
			})
		},
	}
	node.add(cmd)
	return cmd
}
