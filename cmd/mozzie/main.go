// Command mozzie is a node of a distributed MQTT broker, and the commands that talk to one.
//
// Each subcommand has a file of its own with its help in it; what they do is in the packages below. The exit
// code is 0, 1 for a failure, 2 for a command line or a configuration that makes no sense (trying again does
// not help), or what the subcommand says in its help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/config"
	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

// helpWidth is how wide the help is, in columns.
const helpWidth = 110

func main() { os.Exit(mozzie()) }

// mozzie runs the program and returns its exit code.
func mozzie() int { return execute(os.Args[1:], os.Stdin, os.Stdout, os.Stderr) }

// execute runs one command line and returns its exit code.
func execute(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(joinProperties(args))
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(stderr, "mozzie: "+strings.ReplaceAll(text, "\n", "\nmozzie: "))
	}
	return exitCode(err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "mozzie",
		Short: "A distributed MQTT broker",
		Long: `Mozzie is a fully distributed MQTT broker: every node is a complete broker, and together the nodes are
one. Connect a client to the nearest node; what it publishes reaches whoever subscribed, at any node.`,
		Example: `  mozzie run                     start a node: MQTT at 127.0.0.1:1883
  mozzie invite                  print an invite to its swarm
  mozzie run --join INVITE       on another machine: start a node that joins
  mozzie sub -t 'doors/#' -v     at one node
  mozzie pub -t doors/1 -m open  at another
  mozzie demo                    see three nodes at work on this machine`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := "see mozzie --help"
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "did you mean mozzie " + near[0] + "?"
			}
			return usagef("there is no command %q; %s", args[0], hint)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(explainFlag)
	root.Version = versionOf(debug.ReadBuildInfo()).String()
	root.SetVersionTemplate("{{.Version}}\n")
	root.Flags().Bool("version", false, "print the version of this program") // without a letter: -v is verbose elsewhere
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", helpWidth)))
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelp())
	root.AddGroup(
		&cobra.Group{ID: "node", Title: "A node:"},
		&cobra.Group{ID: "ask", Title: "Ask a running node:"},
		&cobra.Group{ID: "client", Title: "Publish, subscribe, measure:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		"node":   {newRun(), newPasswd(), newAccounts(), newAccess(), newConfig(), newBackup(), newRestore(), newLeave(), newDemo()},
		"ask":    {newStatus(), newPeers(), newLocate(), newInvite(), newNodes(), newReload()},
		"client": {newPub(), newSub(), newBench()},
		"":       {newVersion(), newCompletion(), newMan()},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	return root
}

// codedError is an error with an exit code of its own. An empty text is not printed.
type codedError struct {
	error
	code int
}

func (e codedError) Unwrap() error { return e.error }

// usagef is the error of a command line that makes no sense.
func usagef(format string, args ...any) error {
	return codedError{fmt.Errorf(format, args...), exitUsage}
}

func exitCode(err error) int {
	var coded codedError
	var problems config.Problems
	var left *datadir.LeftError
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &problems), errors.As(err, &left):
		return exitUsage
	}
	return exitFailure
}

// args says what a command takes: as many words as it has names.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) > len(names) && (given[len(names)] == "true" || given[len(names)] == "false"):
			return usagef("%[1]q by itself says nothing: join it to its flag, as in --mdns=%[1]s; see %[2]s --help", given[len(names)], cmd.CommandPath())
		case len(given) > len(names):
			return usagef("%q is one word too many; see %s --help", given[len(names)], cmd.CommandPath())
		case len(given) < len(names):
			return usagef("%s is missing; see %s --help", names[len(given)], cmd.CommandPath())
		}
		return nil
	}
}
