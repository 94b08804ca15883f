package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

func newPeers() *cobra.Command {
	var node nodeFlags
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List the nodes that a node knows",
		Long:  "List the nodes of the swarm that a running node knows, with their addresses: those that it is connected to first.",
		Example: `  mozzie peers
  mozzie peers --json | jq -r '.peers[] | select(.connected) | .peer_id'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return node.ask(cmd, func(ctx context.Context, c *admin.Client) error {
				p, err := c.Peers(ctx)
				if err != nil {
					return err
				}
				if node.json {
					return printJSON(cmd.OutOrStdout(), p)
				}
				printPeers(cmd.OutOrStdout(), p.Peers)
				return nil
			})
		},
	}
	node.add(cmd)
	node.addJSON(cmd)
	return cmd
}

func printPeers(w io.Writer, peers []admin.Peer) {
	if len(peers) == 0 {
		fmt.Fprintln(w, "This node knows no other. Let one in with \"mozzie invite\".")
		return
	}
	slices.SortStableFunc(peers, func(a, b admin.Peer) int {
		if a.Connected != b.Connected {
			return cmp.Compare(btoi(b.Connected), btoi(a.Connected))
		}
		return cmp.Compare(a.PeerID, b.PeerID)
	})
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "NODE\tSTATE\tROUND TRIP\tVERSION\tADDRESS")
	for _, p := range peers {
		address := "-"
		if len(p.Addresses) > 0 {
			address = p.Addresses[0]
		}
		rtt := "-"
		if p.RTTms > 0 {
			rtt = fmt.Sprintf("%.1f ms", p.RTTms)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", p.PeerID, peerState(p), rtt, cmp.Or(p.Version, "-"), address)
	}
}

func peerState(p admin.Peer) string {
	switch {
	case p.Connected && p.Relayed:
		return "connected by relay"
	case p.Connected:
		return "connected"
	case p.Left:
		return "left"
	case p.SeenS > 0:
		return "gone for " + humanDuration(p.SeenS)
	}
	return "not connected"
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
