package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	json        bool
}

func (f *nodeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.admin, "admin", "", "the node's administration `ADDR`: host:port, or the path of a socket")
	cmd.Flags().StringVar(&f.data, "data", "", "the node's data `DIR`, where its address is noted (default that of mozzie run)")
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
	return c, nil
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
		if errors.Is(err, datadir.ErrNotRunning) {
			err = fmt.Errorf("%w: start it with \"mozzie run\", or say with --data or --admin which node is meant", err)
		}
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
	defer cancel()
	return ask(ctx, c)
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
