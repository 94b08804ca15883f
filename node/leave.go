package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// leavePoll is how often it is looked whether clients have taken their sessions elsewhere.
const leavePoll = 100 * time.Millisecond

// Gone is closed when the node has left for good, or has tried to: it is to be stopped.
func (n *Node) Gone() <-chan struct{} { return n.gone }

// AtStake implements admin.Node. Where sessions may go to other nodes, those of connected clients do.
func (n *Node) AtStake() admin.AtStake {
	b := n.broker.Load()
	if b == nil {
		return admin.AtStake{}
	}
	sessions, messages := b.Kept(n.roam == nil)
	return admin.AtStake{Sessions: sessions, Messages: messages, Retained: int(b.Stats().LocalRetained.Load())}
}

// Leave implements admin.Node. What can be refused is refused before anything is done; afterwards there is no way back: the node
// ends, and where it could not leave in time it is there again when it is started.
func (n *Node) Leave(ctx context.Context, discard bool) (admin.Left, error) {
	b, s := n.broker.Load(), n.service.Load()
	lost := n.AtStake()
	switch {
	case b == nil || s == nil || n.stopping.Load():
		return admin.Left{}, admin.ErrLeaving
	case lost.Sessions > 0 && !discard:
		return admin.Left{}, fmt.Errorf("%w: %d with %d messages in their queues, whose clients are not connected here, or which another node has not fetched. They take "+
			"them along when they connect to another node of a private swarm", admin.ErrSessions, lost.Sessions, lost.Messages)
	case alone(s.Peers()):
		return admin.Left{}, admin.ErrAlone
	case !n.stopping.CompareAndSwap(false, true):
		return admin.Left{}, admin.ErrLeaving
	}
	defer close(n.gone)
	began := time.Now()
	n.log.Info("leaving the swarm for good", "sessions", lost.Sessions, "messages", lost.Messages)
	if err := b.Drain(ctx); err != nil {
		return admin.Left{}, fmt.Errorf("clients did not go: %w. The node stops now; start it again to try again", inTime(err))
	}
	if !discard {
		if err := n.untilTaken(ctx); err != nil {
			return admin.Left{}, err
		}
	}
	if err := s.LeaveForGood(ctx); err != nil {
		return admin.Left{}, fmt.Errorf("not everything was handed over to other nodes: %w. The node stops now; start it again to try again", inTime(err))
	}
	if err := n.dir.SetLeft(time.Now()); err != nil {
		return admin.Left{}, fmt.Errorf("the node has left, but that can't be noted in its data directory: %w", err)
	}
	n.left.Store(true)
	n.log.Info("left the swarm for good", "took", time.Since(began).Round(time.Millisecond))
	return admin.Left{Lost: lost, TookS: time.Since(began).Seconds()}, nil
}

// untilTaken waits until the clients that were connected have taken their sessions to other nodes, and those need nothing more from here.
func (n *Node) untilTaken(ctx context.Context) error {
	tick := time.NewTicker(leavePoll)
	defer tick.Stop()
	for {
		sessions, messages := n.broker.Load().Kept(true)
		if sessions == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %d with %d messages in their queues, whose clients have not connected to another node in time, or which that has not fetched in full. "+
				"The node stops now; start it again to try again", admin.ErrSessions, sessions, messages)
		case <-tick.C:
		}
	}
}

// alone reports whether no other node can be reached.
func alone(peers []core.PeerView) bool {
	for _, p := range peers {
		if p.InReach && !p.Left {
			return false
		}
	}
	return true
}

// Forget implements admin.Node.
func (n *Node) Forget(peerID string) error {
	id, err := peer.Decode(peerID)
	if err != nil {
		return fmt.Errorf("%w: %q", admin.ErrBadNodeName, peerID)
	}
	switch err := n.service.Load().ForgetNode(id); {
	case errors.Is(err, core.ErrUnknown):
		return admin.ErrNoNode
	case errors.Is(err, core.ErrInReach):
		return admin.ErrNodeThere
	case err != nil:
		return fmt.Errorf("forget %s: %w", id, err)
	}
	n.log.Info("forgot a node", "peer_id", id)
	return nil
}
