package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/backup"
	"github.com/mozzie-mqtt/mozzie/node/config"
)

// oldBackup is from when on a backup may bring back what was cleared: so long other nodes remember that it was.
const oldBackup = 7 * 24 * time.Hour

func newRestore() *cobra.Command {
	var data string
	var force, asJSON bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Bring back what \"mozzie backup\" has written",
		Long: `Put a backup into the data directory of a node that does not run. The whole file is checked before anything is
changed; what is wrong with it is said. A directory that has data is refused, unless --force is given, which sets aside
what is in it, in a folder beside.

The node is the one of the backup, with its keys: that one must not run anywhere any more. Its clients find their
sessions as they were at the time of the backup, so what was delivered since may come again. To other nodes its
database is a new one, and is filled from theirs.`,
		Example: `  mozzie restore mozzie.backup
  mozzie restore mozzie.backup --data /var/lib/mozzie --force`,
		Args: args("FILE"),
		RunE: func(cmd *cobra.Command, words []string) error {
			dir := data
			if env := environment(); dir == "" {
				if dir = env["MOZZIE_DATA"]; dir == "" {
					dir = config.DefaultData(env)
				}
			}
			show := newProgress(cmd.ErrOrStderr(), "restoring")
			defer show.end()
			done, err := backup.Restore(words[0], dir, backup.Options{Force: force, Progress: show.at,
				Log: newLog(config.Log{Level: "warn"}, cmd.ErrOrStderr())})
			show.end()
			if err != nil {
				return err
			}
			if age := time.Since(done.Made); age > oldBackup {
				fmt.Fprintf(cmd.ErrOrStderr(), "the backup is %d days old: retained messages that were cleared since may be back\n", int(age.Hours()/24))
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), done)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: node %s as of %s is restored\n", done.Data, done.PeerID, done.Made.Local().Format(time.DateTime))
			if done.SetAside != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "what was there is in %s now\n", done.SetAside)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the data `DIR` (default that of mozzie run)")
	cmd.Flags().BoolVar(&force, "force", false, "set aside what is in the data directory")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}
