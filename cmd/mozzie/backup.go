package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/backup"
)

func newBackup() *cobra.Command {
	var node nodeFlags
	var force bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write what a running node keeps into one file",
		Long: `Write the data directory of a running node into one file, or to standard output where FILE is -: its keys, accounts,
access rules, the configuration that is in it, and the database with sessions, queues and retained messages, all as of
one moment. The node goes on meanwhile. "mozzie restore" brings it back.

Whoever has the file can be the node, and reads what its clients have sent: it is made for its owner alone. It is
checked as it is written, and is there under its name only when it is whole.`,
		Example: `  mozzie backup mozzie.backup
  mozzie backup - | ssh nas 'cat > mozzie.backup'
  mozzie backup --force --json /var/backups/mozzie.backup`,
		Args: args("FILE"),
		RunE: func(cmd *cobra.Command, words []string) error {
			to := words[0]
			if to == "-" && node.json {
				return usagef("--json and the backup cannot both go to standard output: give a FILE")
			}
			if out, ok := cmd.OutOrStdout().(*os.File); to == "-" && ok && onTerminal(out) {
				return usagef("the backup is no text, and standard output is a terminal: give a FILE")
			}
			if to != "-" && !force {
				if err := refuseThere(to); err != nil {
					return err
				}
			}
			c, err := node.client()
			if err != nil {
				return node.explain(err)
			}
			return takeBackup(cmd, c, to, force, node.json)
		},
	}
	node.add(cmd)
	node.addJSON(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE where it is there")
	return cmd
}

// madeBackup is what the command prints as JSON.
type madeBackup struct {
	File string `json:"file"`
	Size int64  `json:"size"` // of the file, in bytes
	backup.Head
}

func takeBackup(cmd *cobra.Command, c *admin.Client, to string, force, asJSON bool) error {
	made := madeBackup{File: to}
	show := newProgress(cmd.ErrOrStderr(), "backing up")
	defer show.end()
	read := func(w io.Writer) error {
		return c.Backup(cmd.Context(), func(r io.Reader, bytes int64) (err error) {
			size := &countingWriter{w: w}
			made.Head, err = backup.Read(io.TeeReader(r, size), &watchedBackup{show: show, all: bytes})
			made.Size = size.n
			return err
		})
	}
	if to == "-" {
		if err := read(cmd.OutOrStdout()); err != nil {
			return fmt.Errorf("what was written is no whole backup: %w", err)
		}
		return nil
	}
	if err := writeWhole(to, force, read); err != nil {
		return err
	}
	show.end()
	if asJSON {
		return printJSON(cmd.OutOrStdout(), made)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s of node %s, in %s\n", to, count(made.Files, "file"), made.PeerID, humanBytes(made.Size))
	return nil
}

// refuseThere refuses a file that is there.
func refuseThere(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already: give another name, or --force to replace it", path)
	}
	return nil
}

// writeWhole has a file written that is there under its name only when it is whole, and on the disk.
func writeWhole(path string, force bool, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // for its owner alone
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	defer os.Remove(f.Name())
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if !force { // a link takes the place of nothing
		if err = os.Link(f.Name(), path); err == nil {
			return nil
		}
		if errors.Is(err, fs.ErrExist) {
			return refuseThere(path)
		}
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
