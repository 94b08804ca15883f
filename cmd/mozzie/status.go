package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

func newStatus() *cobra.Command {
	var node nodeFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how a node is: addresses, swarm, clients",
		Long:  "Show how a running node is: who it is, where it listens, which swarm it is of, and what it has to do.",
		Example: `  mozzie status
  mozzie status --data /srv/mozzie2
  mozzie status --json | jq -r '.addresses[0]'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return node.ask(cmd, func(ctx context.Context, c *admin.Client) error {
				s, err := c.Status(ctx)
				if err != nil {
					return err
				}
				if node.json {
					return printJSON(cmd.OutOrStdout(), s)
				}
				printStatus(cmd.OutOrStdout(), s)
				return nil
			})
		},
	}
	node.add(cmd)
	node.addJSON(cmd)
	return cmd
}

func printStatus(w io.Writer, s admin.Status) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	rows := func(name string, list []string) {
		for _, s := range list {
			row(name, "%s", s)
			name = ""
		}
	}
	row("node", "%s", s.PeerID)
	row("version", "%s, up %s", s.Version, humanDuration(s.UptimeS))
	if s.Ready {
		row("ready", "yes")
	} else {
		row("ready", "NO")
		rows("", s.Reasons)
	}
	if s.Fingerprint != "" {
		row("swarm", "%s, key %s", s.Swarm, s.Fingerprint)
	} else {
		row("swarm", "%s", s.Swarm)
	}
	row("", "%s known, connected to %d", count(s.Nodes, "node"), s.Peers)
	rows("mqtt", listenerRows(s))
	rows("addresses", s.Addresses)
	row("admin", "%s", s.Admin)
	row("data", "%s", s.Data)
	if m := s.Memory; m != nil {
		row("memory", "%s, %d of %d MiB", m.Level, m.Used>>20, m.Limit>>20)
	}
	row("clients", "%s, %s, %s", count(s.Connections, "connection"), count(s.Sessions, "session"), count(s.Subscriptions, "subscription"))
	row("messages", "%d from clients, %d to clients, %d dropped, %d retained", s.Received, s.Sent, s.Dropped, s.Retained)
	row("locations", "%d held, rendezvous of %d, with %s", s.Locations, s.Rendezvous, count(s.Registrations, "registration"))
	row("route", "%s, custody of %s", count(s.Streams, "stream"), count(s.Custody, "message"))
}

// listenerRows writes the listeners, with what a client should know of each.
func listenerRows(s admin.Status) (rows []string) {
	for i, at := range s.MQTT {
		rows = append(rows, at)
		if i >= len(s.Listeners) {
			continue
		}
		switch l := s.Listeners[i]; {
		case l.OwnCertificate:
			rows = append(rows, "  the node's own certificate, SHA-256 "+l.Fingerprint)
		case l.Fingerprint != "":
			rows = append(rows, "  certificate, SHA-256 "+l.Fingerprint)
		}
	}
	return rows
}

// count writes a number and its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// humanDuration writes seconds in the two largest units.
func humanDuration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	days, hours, minutes := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h", days, hours)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%d min %d s", minutes, int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}
