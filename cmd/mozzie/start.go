package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/mozzie-mqtt/mozzie/node/config"
	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

// errNoNode is what a program says that was built before package node was there.
var errNoNode = errors.New("this build has no node in it")

// startNode starts a node and returns when it is ready. When it fails, nothing is left running.
//
// SEAM: to be replaced by node.Start(ctx, c, log), which opens the data directory itself.
func startNode(_ context.Context, c config.Config, _ *slog.Logger) (runningNode, error) {
	dir, err := datadir.Open(c.Data)
	if err != nil {
		return nil, err
	}
	return nil, errors.Join(errNoNode, dir.Close())
}
