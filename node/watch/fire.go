package watch

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// maxBefore bounds what is noted of what was retained before a will, in bytes.
const maxBefore = 256 << 10

// carryOut does what the watcher wants done.
func (w *Watch) carryOut() {
	for {
		deeds := w.watcher.take()
		if len(deeds) == 0 {
			return
		}
		for _, d := range deeds {
			w.carry(d)
		}
	}
}

func (w *Watch) carry(d deed) {
	switch d.kind {
	case ask:
		w.goes(func() { w.runAsk(d.member, d.node) })
	case mark:
		if s := w.watcher.wills[d.topic]; s != nil && s.epoch() == d.epoch {
			w.mark(d, &s.will.record.Msg)
		}
	case send:
		if s := w.watcher.wills[d.topic]; s != nil && s.epoch() == d.epoch {
			w.send(d, s.will)
		}
	case seal:
		f := &fired{epoch: d.epoch}
		if s := w.watcher.wills[d.topic]; s != nil && s.mark != nil && s.mark.epoch == d.epoch {
			*f = *s.mark
		}
		f.sent = true
		w.publish(d.topic+firedLevel, f, true, func(error) {})
	}
}

// mark writes that a will is fired, with what is retained where it is to be.
func (w *Watch) mark(d deed, m *proto.Message) {
	f := &fired{epoch: d.epoch}
	write := func() {
		w.publish(d.topic+firedLevel, f, true, func(err error) {
			if err != nil {
				w.cfg.Log.Warn("the will of another node's client waits: that it is fired can't be kept", "error", err)
				return // it is tried again
			}
			w.takeChanges()
			w.watcher.marked(d.topic, d.epoch)
		})
	}
	if !m.Retain {
		write()
		return
	}
	w.cfg.Swarm.Retained(m.Topic, func(ms []*proto.Message) {
		for _, b := range ms {
			if b.Topic == m.Topic && b.Size() <= maxBefore {
				f.before = b
			}
		}
	}, func() {
		f.looked = true
		w.do(write)
	})
}

// send sends a will of another node's client.
func (w *Watch) send(d deed, x *will) {
	m := x.record.Msg
	if x.record.Expiry > 0 {
		m.Expires = time.Now().Add(x.record.Expiry)
	}
	w.stats.Fired.Add(1)
	w.cfg.Log.Info("sending the will of a client of a node that is dead", "node", peer.ID(x.node.Peer()).String(), "topic", d.topic)
	w.cfg.Swarm.Publish([]core.Publication{{Message: &m, Epoch: d.epoch, Hold: core.MaxHold, Firm: true, Origin: &accepted{w, func(err error) {
		if err == nil {
			w.takeChanges()
			w.watcher.sent(d.topic, d.epoch)
		}
	}}}})
}
