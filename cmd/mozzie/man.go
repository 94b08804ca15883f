package main

import (
	"fmt"
	"io"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newMan is for who makes packages: what it prints is what --help prints, in one page.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man",
		Short:  "Print the manual page",
		Long:   "Print the manual page mozzie(1), in roff: the help of all commands in one page.",
		Args:   args(),
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			writeMan(cmd.OutOrStdout(), cmd.Root())
			return nil
		},
	}
}

func writeMan(w io.Writer, root *cobra.Command) {
	fmt.Fprintf(w, ".TH MOZZIE 1 \"\" %q\n.SH NAME\nmozzie \\- %s\n", roff("mozzie "+versionOf(debug.ReadBuildInfo()).Version), roff(root.Short))
	fmt.Fprintf(w, ".SH SYNOPSIS\n.B mozzie\nCOMMAND [FLAG]...\n.SH DESCRIPTION\n%s\n", roff(root.Long))
	writeManExample(w, root)
	fmt.Fprint(w, ".SH COMMANDS\n")
	writeManCommands(w, root)
	fmt.Fprint(w, `.SH FILES
.TP
.I /etc/mozzie/mozzie.yaml
configuration of the service; "mozzie config example" explains every setting
.TP
.I /etc/mozzie/mozzie.env
environment variables of the service, NAME=VALUE
.TP
.I /var/lib/mozzie
keys and state of the service
.SH SEE ALSO
.BR systemctl (1),
.I https://github.com/mozzie-mqtt/mozzie
`)
}

func writeManCommands(w io.Writer, parent *cobra.Command) {
	for _, c := range parent.Commands() {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		if c.HasSubCommands() {
			writeManCommands(w, c)
			continue
		}
		fmt.Fprintf(w, ".SS %s\n%s\n", roff(c.UseLine()), roff(c.Long))
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			name, usage := pflag.UnquoteUsage(f)
			fmt.Fprintf(w, ".TP\n.B %s\n", roff(strings.TrimSpace(manFlag(f)+" "+name)))
			if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" {
				usage += " (default " + f.DefValue + ")"
			}
			fmt.Fprintf(w, "%s\n", roff(usage))
		})
		writeManExample(w, c)
	}
}

func writeManExample(w io.Writer, c *cobra.Command) {
	if c.Example != "" {
		fmt.Fprintf(w, ".PP\n.nf\n%s\n.fi\n", roff(c.Example))
	}
}

// manFlag is a flag in both its forms.
func manFlag(f *pflag.Flag) string {
	if f.Shorthand != "" {
		return "-" + f.Shorthand + ", --" + f.Name
	}
	return "--" + f.Name
}

var (
	control   = regexp.MustCompile(`(?m)^([.'])`)
	paragraph = regexp.MustCompile(`\n\n+`)
)

// roff escapes what means something in roff, and begins a paragraph where there is an empty line.
func roff(s string) string {
	s = strings.ReplaceAll(s, `\`, `\e`)
	s = strings.ReplaceAll(s, "-", `\-`)
	s = control.ReplaceAllString(s, `\&$1`)
	return paragraph.ReplaceAllString(s, "\n.PP\n")
}
