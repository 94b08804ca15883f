package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// exitAtStake is the exit code of "mozzie leave" where something would be lost.
const exitAtStake = 3

// leaveWatch is how often it is asked how far the node is.
const leaveWatch = 500 * time.Millisecond

func newLeave() *cobra.Command {
	var node nodeFlags
	var discard bool
	limit := time.Minute
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Have a node leave its swarm for good",
		Long: `Have a running node hand over everything that others count on, leave its swarm for good, and end. The other nodes
forget it: nobody waits for it, and nothing is kept for it. Stopping a node that will be started again is another thing:
SIGTERM does that.

Sessions stay with their node until their clients connect to another one of a private swarm. So those of connected
clients are waited for, and where there are sessions of clients that are away the node does not leave: let these
clients connect elsewhere first, or lose what waits for them with --discard-sessions. Of an open swarm no session moves.
Retained messages below $local are lost in any case.

Afterwards the data directory is marked, and no node is started from it again.

Exit code: 0 when it has left, 3 when sessions would be lost and nothing was done, 1 when it has not left in time: then it
has stopped, and is the node that it was when it is started again.`,
		Example: `  mozzie leave
  mozzie leave --discard-sessions --timeout 5m`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < time.Second || limit > time.Hour {
				return usagef("--timeout: want 1s to 1h, not %v", limit)
			}
			c, err := node.client()
			if err != nil {
				return node.explain(err)
			}
			return leave(cmd, c, discard, limit, node.json)
		},
	}
	node.add(cmd)
	node.addJSON(cmd)
	cmd.Flags().BoolVar(&discard, "discard-sessions", false, "leave though sessions are lost, with what waits in them")
	cmd.Flags().DurationVar(&limit, "timeout", limit, "how long it may `TAKE`")
	return cmd
}

func leave(cmd *cobra.Command, c *admin.Client, discard bool, limit time.Duration, asJSON bool) error {
	at, err := c.AtStake(cmd.Context())
	if err != nil {
		return err
	}
	if at.Sessions > 0 && !discard {
		return codedError{fmt.Errorf("%d sessions with %d messages would be lost, and the node has not left: let their clients connect to another "+
			"node of a private swarm first, or say --discard-sessions", at.Sessions, at.Messages), exitAtStake}
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watchLeave(ctx, cmd.ErrOrStderr(), c)
	}()
	left, err := c.Leave(cmd.Context(), discard, limit)
	cancel()
	<-watched
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), left)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "The node has left its swarm for good, after %.1f s.\n", left.TookS)
	if l := left.Lost; l.Sessions+l.Retained > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "Lost: %d sessions with %d messages, %d retained messages below $local.\n", l.Sessions, l.Messages, l.Retained)
	}
	return nil
}

// watchLeave tells how far the node is, until ctx ends.
func watchLeave(ctx context.Context, w io.Writer, c *admin.Client) {
	tick := time.NewTicker(leaveWatch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s, err := c.Status(ctx); err == nil {
			fmt.Fprintf(w, "leaving: %d connections, %d sessions, %d locations and %d messages in custody are left\n", s.Connections, s.Sessions, s.Locations, s.Custody)
		}
	}
}
