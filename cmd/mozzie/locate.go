package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

func newLocate() *cobra.Command {
	var node nodeFlags
	cmd := &cobra.Command{
		Use:   "locate TOPIC",
		Short: "Show which nodes serve a topic",
		Long: `Show a topic's location and the set of nodes that are responsible for it, as a running node sees them. The
closest that can be reached is the rendezvous: messages on the topic go by way of it. The others are replicas.`,
		Example: `  mozzie locate doors/1
  mozzie locate doors/1 --json`,
		Args: args("TOPIC"),
		RunE: func(cmd *cobra.Command, words []string) error {
			if err := checkName("TOPIC", words[0]); err != nil {
				return err
			}
			return node.ask(cmd, func(ctx context.Context, c *admin.Client) error {
				l, err := c.Locate(ctx, words[0])
				if err != nil {
					return err
				}
				if node.json {
					return printJSON(cmd.OutOrStdout(), l)
				}
				printLocation(cmd.OutOrStdout(), l)
				return nil
			})
		},
	}
	node.add(cmd)
	node.addJSON(cmd)
	return cmd
}

func printLocation(w io.Writer, l admin.Location) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintf(t, "topic\t%s\n", l.Topic)
	fmt.Fprintf(t, "prefix\t%s (%s)\n", l.Prefix, count(l.Depth, "level"))
	fmt.Fprintf(t, "location\t%s\n", l.Location)
	fmt.Fprintf(t, "set\tversion %d, %s\n", l.Version, count(len(l.Members), "member"))
	for _, m := range l.Members {
		role, note := "replica", ""
		if m.Rendezvous {
			role = "rendezvous"
		}
		switch {
		case m.Self:
			note = "\tthis node"
		case !m.Reachable:
			note = "\tout of reach"
		}
		fmt.Fprintf(t, "%s\t%s\tdistance %.16s%s\n", role, m.PeerID, m.Distance, note)
	}
}
