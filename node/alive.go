package node

import (
	"context"
	"fmt"
)

// Alive returns nil when the node has shown, within ctx, that it does its work: the loops that its swarm and its
// clients live by have come round once more. Otherwise it says what hangs. Whoever restarts a node that hangs asks
// this; it takes up to a second.
func (n *Node) Alive(ctx context.Context) error {
	if err := n.service.Load().Alive(ctx); err != nil {
		return fmt.Errorf("the side of the swarm: %w", err)
	}
	if err := n.broker.Load().Alive(ctx); err != nil {
		return fmt.Errorf("the side of the clients: %w", err)
	}
	return nil
}
