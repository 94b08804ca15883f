package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/accounts"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

func newAccess() *cobra.Command {
	var from keeperFlags
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Show, replace and try access rules",
		Long: `Print the access rules in force: what clients may publish and subscribe to. Without any, who is let in may do
everything. How they are written is in docs/security.md.

Like passwd, it works on a running node, and on the data directory of one that does not run.`,
		Example: `  mozzie access > rules.yaml
  mozzie access set rules.yaml
  mozzie access check alice publish doors/1`,
		Args: func(_ *cobra.Command, words []string) error {
			if len(words) > 0 {
				return usagef("there is no command access %s; want access, access set FILE or access check USER", words[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return from.use(cmd, func(ctx context.Context, k keeper) error {
				text, err := k.rules(ctx)
				if err == nil {
					_, err = cmd.OutOrStdout().Write(text)
				}
				return err
			})
		},
	}
	from.add(cmd)
	cmd.AddCommand(newAccessSet(), newAccessCheck())
	return cmd
}

func newAccessSet() *cobra.Command {
	var to keeperFlags
	cmd := &cobra.Command{
		Use:   "set FILE",
		Short: "Replace the access rules",
		Long: `Replace the access rules by those in a file, or in standard input where FILE is -. A file that is wrong changes
nothing: the error names the line. Connections stay, and what their clients may do follows at once.`,
		Example: "  mozzie access set rules.yaml\n  mozzie access set - < rules.yaml",
		Args:    args("FILE"),
		RunE: func(cmd *cobra.Command, words []string) error {
			rules, err := readRules(cmd.InOrStdin(), words[0])
			if err != nil {
				return err
			}
			return to.use(cmd, func(ctx context.Context, k keeper) error {
				made, err := k.setRules(ctx, rules.Text)
				if err != nil {
					return err
				}
				what := "changed"
				if made {
					what = "made: what none allows is denied from now on"
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%d access rules %s%s\n", rules.Len(), what, k.where())
				return nil
			})
		},
	}
	to.add(cmd)
	return cmd
}

// readRules reads rules before a node is asked to take them, so that an error names the file as it was given.
func readRules(stdin io.Reader, name string) (*accounts.Rules, error) {
	if name != "-" {
		return accounts.ReadRules(name)
	}
	text, err := io.ReadAll(io.LimitReader(stdin, admin.MaxRules+1))
	if err != nil {
		return nil, fmt.Errorf("read the access rules: %w", err)
	}
	return accounts.ParseRules("standard input", text)
}

// exitDenied is the exit code where a client may not do what was asked for.
const exitDenied = 3

func newAccessCheck() *cobra.Command {
	var from keeperFlags
	var anonymous bool
	var q admin.Question
	cmd := &cobra.Command{
		Use:   "check USER publish|subscribe TOPIC",
		Short: "Say what a client may do, and which rule decides",
		Long: `Say whether a client of a user may publish to a topic, or subscribe to a filter, and which access rule decides. At a
listener with a mount, a topic begins with that. A subscription with wildcards is allowed where anything that it
matches may be received; the rest is left out when messages are delivered.

Exit code: 0 where it is allowed, 3 where it is denied.`,
		Example: `  mozzie access check alice publish doors/1
  mozzie access check sensor-17 subscribe 'config/#' --client c1
  mozzie access check --anonymous subscribe 'doors/#'`,
		Args: func(cmd *cobra.Command, words []string) error {
			if anonymous {
				return args("publish or subscribe", "TOPIC")(cmd, words)
			}
			return args("USER", "publish or subscribe", "TOPIC")(cmd, words)
		},
		RunE: func(cmd *cobra.Command, words []string) error {
			if !anonymous {
				if err := access.CheckName(words[0]); err != nil {
					return usagef("USER %v; --anonymous is for clients without a name", err)
				}
				q.User, words = words[0], words[1:]
			}
			switch words[0] {
			case "publish":
				q.Publish = words[1]
			case "subscribe":
				q.Subscribe = words[1]
			default:
				return usagef("%q: want publish or subscribe; see %s --help", words[0], cmd.CommandPath())
			}
			return from.use(cmd, func(ctx context.Context, k keeper) error {
				v, err := k.check(ctx, q)
				if err != nil {
					return err
				}
				return printVerdict(cmd, q, v, from.json)
			})
		},
	}
	cmd.Flags().BoolVar(&anonymous, "anonymous", false, "ask about a client without a name; leave USER out")
	cmd.Flags().StringVar(&q.Client, "client", "", "the client `ID`, for rules with %c in them")
	from.add(cmd)
	from.addJSON(cmd)
	return cmd
}

func printVerdict(cmd *cobra.Command, q admin.Question, v admin.Verdict, asJSON bool) error {
	var err error
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), v)
	} else {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), sayVerdict(q, v))
	}
	if err == nil && !v.Account && q.User != "" && v.By != admin.ByDeleted {
		fmt.Fprintf(cmd.ErrOrStderr(), "there is no account %q: only a certificate in that name lets in\n", q.User)
	}
	if err == nil && !v.Allowed {
		err = codedError{errors.New(""), exitDenied}
	}
	return err
}

func sayVerdict(q admin.Question, v admin.Verdict) string {
	said := "denied"
	if v.Allowed {
		said = "allowed"
	}
	switch v.By {
	case admin.ByRule:
		return fmt.Sprintf("%s by the rule at %s: %s", said, v.Rule, v.Filter)
	case admin.ByNone:
		return said + ": no rule allows it"
	case admin.ByNoRules:
		return said + ": there are no access rules"
	case admin.ByAdmin:
		return fmt.Sprintf("%s: no rule binds %s, who is an admin", said, q.User)
	case admin.ByDeleted:
		return fmt.Sprintf("%s: the account %s was deleted", said, q.User)
	}
	return said // by something that a newer node knows
}
