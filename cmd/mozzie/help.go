package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newHelp is what people try first. It is hidden, since --help is in every command's help.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:    "help [COMMAND]",
		Short:  "Show the help of a command",
		Hidden: true,
		RunE: func(cmd *cobra.Command, words []string) error {
			about, rest, err := cmd.Root().Find(words)
			if err != nil || len(rest) > 0 {
				return usagef("there is no command %q; see mozzie --help", strings.Join(words, " "))
			}
			return about.Help()
		},
	}
}

// explainFlag words what is wrong with a flag.
func explainFlag(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	text := err.Error()
	switch {
	case errors.As(err, &invalid):
		text = fmt.Sprintf("%s %s: %s", flagName(invalid.GetFlag()), invalid.GetValue(), wantedOf(invalid))
	case errors.As(err, &missing):
		what, _ := pflag.UnquoteUsage(missing.GetFlag())
		text = fmt.Sprintf("%s wants %s", flagName(missing.GetFlag()), what)
	}
	return usagef("%s; see %s --help", text, cmd.CommandPath())
}

// flagName is how a flag is written, by its letter where it has one, as in the messages of the commands.
func flagName(f *pflag.Flag) string {
	if f.Shorthand != "" {
		return "-" + f.Shorthand
	}
	return "--" + f.Name
}

// wantedOf says what a flag takes.
func wantedOf(invalid *pflag.InvalidValueError) string {
	switch invalid.GetFlag().Value.Type() {
	case "uint8": // a QoS
		return "want 0, 1 or 2"
	case "uint16":
		return "want a whole number, 0 to 65535"
	case "int":
		return "want a whole number"
	case "float64":
		return "want a number"
	case "duration":
		return "want a time such as 500ms or 10s"
	case "bool":
		return "want true or false"
	}
	return invalid.Unwrap().Error()
}
