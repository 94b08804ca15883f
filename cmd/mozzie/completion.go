package main

import (
	"github.com/spf13/cobra"
)

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a script that teaches a shell to complete mozzie's commands",
		Long:  "Print a script that teaches a shell to complete mozzie's commands and flags.",
		Example: `  source <(mozzie completion bash)                                  # now; add it to ~/.bashrc
  mozzie completion zsh > "${fpath[1]}/_mozzie"
  mozzie completion fish > ~/.config/fish/completions/mozzie.fish`,
		Args:      args("the shell (bash, zsh or fish)"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, words []string) error {
			w, root := cmd.OutOrStdout(), cmd.Root()
			switch words[0] {
			case "bash":
				return root.GenBashCompletionV2(w, true)
			case "zsh":
				return root.GenZshCompletion(w)
			case "fish":
				return root.GenFishCompletion(w, true)
			}
			return usagef("there is no completion for %q; want bash, zsh or fish", words[0])
		},
	}
}
