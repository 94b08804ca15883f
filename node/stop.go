package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// Stop takes leave politely: clients are told and their wills published, then what this node is responsible
// for is handed to others. At the end of ctx the rest is cut off, and the error says what was. What waits for the
// next start is said in the log.
func (n *Node) Stop(ctx context.Context) error {
	n.stopping.Store(true)
	var cut error
	if b := n.broker.Load(); b != nil {
		if err := b.Drain(ctx); err != nil {
			cut = fmt.Errorf("clients were cut off: %w", inTime(err))
		}
	}
	if n.watch != nil {
		known, cancel := context.WithTimeout(ctx, leaveTime)
		if err := n.watch.Leave(known); err != nil {
			n.log.Debug("wills that were sent still stand", "error", err)
		}
		cancel()
	}
	if s := n.service.Load(); s != nil {
		err := s.Leave(ctx)
		if err != nil {
			cut = errors.Join(cut, fmt.Errorf("not everything was handed over to other nodes: %w", inTime(err)))
		}
		n.sayKept(err == nil)
	}
	return errors.Join(cut, n.close())
}

// leaveTime is how long it is waited for that nobody has this node's wills any more.
const leaveTime = 2 * time.Second

// inTime says what the end of a context means here.
func inTime(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("the time was up")
	}
	return err
}

// sayKept says in the log what waits on this node's disk for its next start: in the queues of its clients' sessions, which stay
// with their node, and what there was nobody to hand to. left tells whether the node has taken leave of the other nodes, so
// that what they need is theirs.
func (n *Node) sayKept(left bool) {
	b, s := n.broker.Load(), n.service.Load()
	if b == nil || n.left.Load() {
		return // no client was ever served, or there is no next start
	}
	alone := alone(s.Peers())
	queued, sessions := b.Queued()
	retained, g := int(b.Stats().LocalRetained.Load()), core.Gauges{}
	if alone || !left {
		g = s.Gauges()
		retained += n.db.Retained().Total()
	}
	if queued == 0 && g.Custody == 0 && g.Waiting == 0 && retained == 0 {
		return
	}
	what := []any{"queued", queued, "sessions", sessions, "custody", g.Custody, "outbox", g.Outbox, "waiting", g.Waiting, "retained", retained}
	if !alone && !left {
		n.log.Warn("not everything was handed over: messages that no other node has wait here until this node is started again", what...)
		return
	}
	n.log.Info("messages wait here until this node is started again", what...)
}

// close ends everything at once.
func (n *Node) close() error {
	n.stopOnce.Do(func() {
		var errs []error
		if api := n.admin.Load(); api != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			errs = append(errs, api.Close(ctx))
			cancel()
		}
		n.endBackups()
		if w := n.memory.Load(); w != nil {
			w.Close()
		}
		if n.watch != nil {
			n.watch.Close()
		}
		if n.roam != nil {
			n.roam.Close()
		}
		if b := n.broker.Load(); b != nil {
			errs = append(errs, b.Close())
		}
		if s := n.service.Load(); s != nil {
			errs = append(errs, s.Close())
		}
		if n.host != nil {
			errs = append(errs, n.host.Close())
		}
		if n.db != nil {
			errs = append(errs, n.db.Close())
		}
		errs = append(errs, n.dir.Close())
		n.stopErr = errors.Join(errs...)
	})
	return n.stopErr
}
