package node

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/roam"
	"github.com/mozzie-mqtt/mozzie/node/store"
	"github.com/mozzie-mqtt/mozzie/node/watch"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// swarm is the swarm as the broker sees it.
type swarm struct {
	s        *rendezvous.Service
	retained *store.Retained
	awaited  bool // acknowledgements wait for a second disk
}

var _ mqttfront.Swarm = (*swarm)(nil)

// Detour implements mqttfront.Swarm.
func (w *swarm) Detour(m *proto.Message) bool { return w.s.Detour(m) }

// Wanted implements mqttfront.Swarm.
func (w *swarm) Wanted(topic string) bool { return w.s.Wanted(topic) }

// ownWillHold is for how long it is remembered that a will of this node's client was sent: the others hear within that time that
// they need not send it any more.
const ownWillHold = time.Minute

// batch is a slice that is used again, for what one read of a connection brings.
type batch[T any] struct{ all []T }

// mostReused is how long a slice may be that is used again.
const mostReused = 1024

// giveBack puts a batch back into the pool that it came from.
func (b *batch[T]) giveBack(pool *sync.Pool) {
	clear(b.all)
	if b.all = b.all[:0]; cap(b.all) > mostReused {
		b.all = nil
	}
	pool.Put(b)
}

var (
	publications = sync.Pool{New: func() any { return new(batch[core.Publication]) }}
	deliveries   = sync.Pool{New: func() any { return new(batch[mqttfront.Delivery]) }}
)

// Room implements mqttfront.Swarm.
func (w *swarm) Room(topic string) bool { return w.s.Room(topic) }

// RoomToRegister implements mqttfront.Swarm.
func (w *swarm) RoomToRegister(filter string) bool { return w.s.RoomToRegister(filter) }

// Publish implements mqttfront.Swarm.
func (w *swarm) Publish(outgoing []mqttfront.Outgoing) {
	out := publications.Get().(*batch[core.Publication])
	for i := range outgoing {
		o := &outgoing[i]
		p := core.Publication{Message: o.Msg, Packet: o.PacketID, Served: o.ServedHere, Lent: o.Lent,
			Note: o.Note, Here: o.ServeHere, Epoch: o.Epoch}
		if o.Epoch != 0 {
			p.Hold = ownWillHold
		}
		if o.Origin != nil {
			p.Origin, p.Awaited = o.Origin, w.awaited
		}
		out.all = append(out.all, p)
	}
	w.s.Publish(out.all)
	out.giveBack(&publications)
}

// Register implements mqttfront.Swarm.
func (w *swarm) Register(filter string, interest mqttfront.Interest, done func(mqttfront.Promise)) {
	i := core.Interest{Plain: interest.Plain, QoS: interest.QoS, Hold: interest.Hold}
	for _, g := range interest.Groups {
		i.Groups = append(i.Groups, core.GroupInterest{Name: g.Name, QoS: g.QoS, Members: g.Members, Online: g.Online})
	}
	for _, s := range interest.Sessions {
		i.Sessions = append(i.Sessions, core.SessionInterest{Name: roam.NameOf(s.Key), From: s.From, Database: s.Database})
	}
	var told func(local bool)
	if done != nil {
		told = func(local bool) {
			if local {
				done(mqttfront.PromiseLocal)
			} else {
				done(mqttfront.PromiseSwarm)
			}
		}
	}
	w.s.Register(filter, i, told)
}

// Arrived implements mqttfront.Swarm.
func (w *swarm) Arrived(key string, filters []string, lost bool, done func()) {
	w.s.Arrived(roam.NameOf(key), filters, lost, done)
}

// OpenFor implements mqttfront.Swarm.
func (w *swarm) OpenFor(ms []mqttfront.Mark, keys []string) {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = roam.NameOf(key)
	}
	w.s.OpenFor(identities(ms), names)
}

// Through implements mqttfront.Swarm.
func (w *swarm) Through(ms []mqttfront.Mark, key string) {
	w.s.Through(identities(ms), roam.NameOf(key))
}

// TakeUp implements mqttfront.Swarm.
func (w *swarm) TakeUp(m mqttfront.Mark, key string) (alone string) {
	name := roam.NameOf(key)
	w.s.TakeUp(core.Identity(m), name)
	return name
}

// Carried implements mqttfront.Swarm.
func (w *swarm) Carried(ms []mqttfront.Mark, key, to string, hold time.Duration, done func()) {
	w.s.Carried(identities(ms), to, roam.NameOf(key), hold, done)
}

func identities(ms []mqttfront.Mark) []core.Identity {
	ids := make([]core.Identity, len(ms))
	for i, m := range ms {
		ids[i] = core.Identity(m)
	}
	return ids
}

// Retained implements mqttfront.Swarm.
func (w *swarm) Retained(filter string, each func([]*proto.Message), done func()) {
	w.s.Retained(filter, each, done)
}

// RetainedHere implements mqttfront.Swarm.
func (w *swarm) RetainedHere() int { return w.retained.Total() }

// accept passes on that clients' messages are kept, once they are on the disk, or others have them.
func (n *Node) accept(came []rendezvous.Accepted) {
	waiting := 0
	for i := range came {
		if a := &came[i]; a.Kept {
			accepted(a, nil)
		}
	}
	for i := range came {
		if !came[i].Once.Said() {
			waiting++
		}
	}
	if waiting == 0 {
		return
	}
	rest := make([]rendezvous.Accepted, 0, waiting)
	for _, a := range came {
		if !a.Once.Said() {
			rest = append(rest, a)
		}
	}
	n.db.SyncInTime(func(err error) {
		if err != nil {
			err = mqttfront.NotStored
		}
		for i := range rest {
			accepted(&rest[i], err)
		}
	})
}

func accepted(a *rendezvous.Accepted, err error) {
	if o, ok := a.Origin.(mqttfront.Origin); ok && a.Once.First() {
		o.Accepted(a.Packet, custodyOf(a.Custody), err)
	}
}

// custodyOf is what a client is told of where its message is kept.
func custodyOf(c core.CustodyAt) mqttfront.Custody {
	switch c {
	case core.CustodyNode:
		return mqttfront.CustodyNode
	case core.CustodySwarm:
		return mqttfront.CustodySwarm
	}
	return mqttfront.CustodyUnsaid
}

// receipt tells the service what the broker has done with a message.
type receipt struct {
	s *rendezvous.Service
	r *core.Receipt
}

// Mark implements mqttfront.Receipt.
func (r *receipt) Mark() mqttfront.Mark { return mqttfront.Mark(r.r.Identity()) }

// earlier tells the service the same of a message from before this process was started.
type earlier struct {
	s  *rendezvous.Service
	id core.Identity
}

// Receipt implements mqttfront.Swarm.
func (w *swarm) Receipt(m mqttfront.Mark) mqttfront.Receipt { return &earlier{w.s, core.Identity(m)} }

// Mark implements mqttfront.Receipt.
func (r *earlier) Mark() mqttfront.Mark { return mqttfront.Mark(r.id) }

// Done implements mqttfront.Receipt.
func (r *earlier) Done() { r.s.DoneEarlier(r.id) }

// More implements mqttfront.Receipt.
func (r *earlier) More() { r.s.MoreEarlier(r.id) }

// Refused implements mqttfront.Receipt.
func (r *earlier) Refused(g mqttfront.Group) { r.s.RefuseEarlier(r.id, g) }

// Done implements mqttfront.Receipt.
func (r *receipt) Done() { r.s.Done(r.r) }

// More implements mqttfront.Receipt.
func (r *receipt) More() { r.s.More(r.r) }

// Refused implements mqttfront.Receipt.
func (r *receipt) Refused(g mqttfront.Group) { r.s.Refuse(r.r, g) }

// deliver hands messages from the swarm to the broker.
func (n *Node) deliver(came []core.Delivery) {
	b := n.broker.Load()
	if b == nil && n.keepEarly(came) {
		return
	}
	n.pass(n.broker.Load(), came)
}

// keepEarly keeps deliveries for sessions from before this process was started until there is a broker.
func (n *Node) keepEarly(came []core.Delivery) bool {
	n.earlyMu.Lock()
	defer n.earlyMu.Unlock()
	if n.broker.Load() != nil {
		return false
	}
	for _, d := range came {
		if d.Receipt != nil {
			d.Groups = slices.Clone(d.Groups)
			n.earlyDeliveries = append(n.earlyDeliveries, d)
		}
	}
	return true
}

// pass hands messages to the broker.
func (n *Node) pass(b *mqttfront.Broker, came []core.Delivery) {
	s := n.service.Load()
	out := deliveries.Get().(*batch[mqttfront.Delivery])
	for i := range came {
		d := &came[i]
		if strings.HasPrefix(d.Message.Topic, watch.Prefix) {
			n.watch.Deliver(*d)
			continue
		}
		if n.roam != nil && strings.HasPrefix(d.Message.Topic, roam.Prefix) {
			n.roam.Deliver(*d)
			continue
		}
		to := mqttfront.Delivery{Msg: d.Message, Plain: d.Plain, Groups: d.Groups, Recent: d.Recent}
		for _, g := range d.Groups {
			if n.roam != nil && strings.HasPrefix(g.Filter, roam.Prefix) {
				to.Groups = slices.DeleteFunc(slices.Clone(to.Groups), func(o proto.Group) bool { return o == g })
				if key := n.roam.KeyOf(g.Filter); key != "" {
					to.Sessions = append(to.Sessions, mqttfront.ForSession{Key: key, Alone: g.Filter})
				}
			}
		}
		if o, ok := d.Origin.(mqttfront.Origin); ok {
			to.Origin = o
		}
		if d.Receipt != nil {
			to.Receipt = &receipt{s, d.Receipt}
		}
		out.all = append(out.all, to)
	}
	b.Deliver(out.all)
	out.giveBack(&deliveries)
}
