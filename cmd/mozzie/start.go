package main

import (
	"context"
	"log/slog"
	"runtime/debug"

	"github.com/mozzie-mqtt/mozzie/node"
	"github.com/mozzie-mqtt/mozzie/node/config"
)

// startNode starts a node and returns when it is ready. When it fails, nothing is left running.
func startNode(ctx context.Context, c config.Config, log *slog.Logger) (runningNode, error) {
	n, err := node.Start(ctx, c, node.Options{Log: log, OwnProcess: true, Version: versionOf(debug.ReadBuildInfo()).Version})
	if err != nil {
		return nil, err
	}
	return n, nil
}
