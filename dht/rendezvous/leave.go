package rendezvous

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// Leave leaves politely: it hands over what this node is responsible for, and returns when that is done, or
// with ctx's error. The broker must have stopped publishing and subscribing.
func (s *Service) Leave(ctx context.Context) error {
	return s.leave(ctx, func(n *core.Node) {
		n.WithdrawAll()
		n.Leave()
	})
}

// LeaveForGood is Leave for a node that will not come back: nobody keeps anything for it, or waits for it. Where it fails it is a
// Leave, which goes on.
func (s *Service) LeaveForGood(ctx context.Context) error {
	err := s.leave(ctx, (*core.Node).LeaveForGood)
	if err != nil {
		s.step((*core.Node).LeaveForNow) // it goes on leaving, and is to be there again when it is started
	}
	return err
}

// ForgetNode takes another node for gone for good; see core.Node.ForgetNode.
func (s *Service) ForgetNode(id peer.ID) (err error) {
	s.step(func(n *core.Node) { err = n.ForgetNode(string(id)) })
	return err
}

func (s *Service) leave(ctx context.Context, begin func(*core.Node)) error {
	s.step(func(n *core.Node) {
		if !s.leaving {
			s.leaving = true
			begin(n)
		}
	})
	select {
	case <-s.left:
		return s.flush(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flush waits until what was sent is on its way.
func (s *Service) flush(ctx context.Context) error {
	s.mu.Lock()
	var all []*outbound
	for _, l := range s.byNode {
		all = append(all, l.out)
	}
	s.mu.Unlock()
	for _, o := range all {
		if err := o.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}
