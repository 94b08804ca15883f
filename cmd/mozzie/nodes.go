package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

func newNodes() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "Tell a node about others",
		Long:  "Tell a running node what it can't know of other nodes of its swarm. \"mozzie peers\" lists them.",
		Args:  args(),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newForget())
	return cmd
}

func newForget() *cobra.Command {
	var node nodeFlags
	cmd := &cobra.Command{
		Use:   "forget PEER_ID",
		Short: "Take a node for gone for good",
		Long: `Have a running node take another for gone for good: one that has burnt, say. In a private swarm the nodes that it is
connected to do the same; in an open one each has to be told by whoever runs it. Then
nobody waits for it: sets that have lost their majority with it, such as those of a swarm of two, are whole again, and
what is kept for its clients is dropped. A node that leaves by "mozzie leave" is forgotten by itself.

Never say it of a node that runs, but can't be reached for now: both sides would take themselves for the whole swarm,
and promise what they can't keep. One that comes back all the same is let in as the node that it was.`,
		Example: `  mozzie nodes forget 12D3KooWDVHdmvsqUZ1dbbkXCx577zqkteR4Pt4nYe4oBzQ2ysAB`,
		Args:    args("PEER_ID"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return node.ask(cmd, func(ctx context.Context, c *admin.Client) error {
				if err := c.Forget(ctx, words[0]); err != nil {
					return fmt.Errorf("forget %s: %w", words[0], err)
				}
				return nil
			})
		},
	}
	node.add(cmd)
	return cmd
}
