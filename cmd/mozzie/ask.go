package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/config"
	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

// askTimeout bounds what a command waits for a node.
const askTimeout = 20 * time.Second

// nodeFlags say which node a command asks.
type nodeFlags struct {
	admin, data string
	tokenFile   string
	json        bool
}

func (f *nodeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.admin, "admin", "", "the node's administration `ADDR`: host:port, or the path of a socket")
	cmd.Flags().StringVar(&f.data, "data", "", "the node's data `DIR`, where its address is noted (default that of mozzie run)")
	cmd.Flags().StringVar(&f.tokenFile, "token-file", "", "the `FILE` with the node's token, for changes (default admin.token in the data directory; MOZZIE_ADMIN_TOKEN says the token itself)")
	_ = cmd.MarkFlagDirname("data")
	_ = cmd.MarkFlagFilename("token-file")
}

func (f *nodeFlags) addJSON(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
}

// client finds the node that is meant: by --admin, else by --data, else the one that "mozzie run" without
// flags would have started.
func (f *nodeFlags) client() (*admin.Client, error) {
	address := f.admin
	if address == "" {
		var err error
		if address, err = f.find(); err != nil {
			return nil, err
		}
	}
	c, err := admin.NewClient(address)
	if err != nil {
		return nil, usagef("--admin: %v", err)
	}
	token, err := f.token(address)
	return c.WithToken(token), err
}

// token finds what changes at the node at an address need; "" where that is not known. What is in a data directory is shown
// only where the node of that directory says that it answers, so that nobody else gets to see it.
func (f *nodeFlags) token(address string) (string, error) {
	env := environment()
	if f.tokenFile != "" {
		text, err := datadir.ReadSmall(f.tokenFile)
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		return strings.TrimSpace(string(text)), nil
	}
	if token := env["MOZZIE_ADMIN_TOKEN"]; token != "" {
		return token, nil
	}
	for _, dir := range []string{f.data, env["MOZZIE_DATA"], config.DefaultData(env)} {
		if at, err := datadir.Admin(dir); dir == "" || err != nil || at != address {
			continue
		}
		if text, err := datadir.ReadSmall(filepath.Join(dir, admin.TokenFile)); err == nil {
			return strings.TrimSpace(string(text)), nil
		}
	}
	return "", nil
}

func (f *nodeFlags) find() (string, error) {
	if f.data != "" {
		return datadir.Admin(f.data)
	}
	env := environment()
	if a := env["MOZZIE_ADMIN_LISTEN"]; a != "" && !strings.HasSuffix(a, ":0") {
		return a, nil
	}
	if data := env["MOZZIE_DATA"]; data != "" {
		return datadir.Admin(data)
	}
	// The node may also be a service, whose directory this user cannot read: then it is at the usual address.
	if a, err := datadir.Admin(config.DefaultData(env)); err == nil {
		return a, nil
	}
	return config.Default().Admin.Listen, nil
}

// ask runs f with a client for the node that is meant.
func (f *nodeFlags) ask(cmd *cobra.Command, ask func(context.Context, *admin.Client) error) error {
	c, err := f.client()
	if err != nil {
		return f.explain(err)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
	defer cancel()
	return ask(ctx, c)
}

// explain says what to do where the node is not found.
func (f *nodeFlags) explain(err error) error {
	if errors.Is(err, datadir.ErrNotRunning) {
		err = fmt.Errorf("%w: start it with \"mozzie run\", or say with --data or --admin which node is meant", err)
	}
	return err
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return nil
}
