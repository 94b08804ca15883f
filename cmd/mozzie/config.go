package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/config"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check and show configurations",
		Args:  args("check, example or show"),
		RunE: func(_ *cobra.Command, words []string) error {
			return usagef("there is no command config %s; want config check, config example or config show", words[0])
		},
	}
	cmd.AddCommand(newConfigCheck(), newConfigExample(), newConfigShow())
	return cmd
}

func newConfigCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether a configuration file is right, and what is wrong with it",
		Long: `Say whether a configuration file is right. What is wrong is printed with file, line and what would be right.

Exit code: 0 when a node can be started with it, 2 when not, 1 when the file cannot be read.`,
		Example: "  mozzie config check /etc/mozzie/mozzie.yaml",
		Args:    args("FILE"),
		RunE: func(cmd *cobra.Command, words []string) error {
			if _, err := config.Load(config.Sources{File: words[0]}); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: right\n", words[0])
			return nil
		},
	}
}

func newConfigExample() *cobra.Command {
	return &cobra.Command{
		Use:   "example",
		Short: "Print a configuration file that explains every setting and sets none",
		Long: `Print a configuration file with every setting and what it does, each commented out with its default. It is what
the Debian package installs as /etc/mozzie/mozzie.yaml.`,
		Example: "  mozzie config example > mozzie.yaml",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprint(cmd.OutOrStdout(), config.Example())
			return nil
		},
	}
}

func newConfigShow() *cobra.Command {
	var node nodeFlags
	var running bool
	settings := &settingFlags{}
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the effective configuration, explained",
		Long: `Print the configuration that "mozzie run" with the same flags would use, as a YAML file that says of each
setting what it does and where its value comes from: a line of the file, an environment variable, a flag, or
the default. Without a file and flags, it is a template with all the defaults. Secrets are masked.`,
		Example: `  mozzie config show > mozzie.yaml
  mozzie config show --config mozzie.yaml --set locations.depth=2
  mozzie config show --running`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if running {
				node.data, node.admin = settings.value("data"), settings.value("admin")
				return node.ask(cmd, func(ctx context.Context, c *admin.Client) error {
					text, err := c.Config(ctx)
					fmt.Fprint(cmd.OutOrStdout(), text)
					return err
				})
			}
			c, err := config.Load(settings.sources())
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), c.Show())
			return nil
		},
	}
	settings.add(cmd)
	cmd.Flags().BoolVar(&running, "running", false, "ask the running node at --admin or --data what it uses")
	return cmd
}
