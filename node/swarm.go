package node

import (
	"sync"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/store"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// swarm is the swarm as the broker sees it.
type swarm struct {
	s        *rendezvous.Service
	retained *store.Retained
}

var _ mqttfront.Swarm = (*swarm)(nil)

// Detour implements mqttfront.Swarm.
func (w *swarm) Detour(m *proto.Message) bool { return w.s.Detour(m) }

// Wanted implements mqttfront.Swarm.
func (w *swarm) Wanted(topic string) bool { return w.s.Wanted(topic) }

// publications has slices for Publish, which hands on as much as one read of a client's connection brings.
var publications = sync.Pool{New: func() any { return new([]core.Publication) }}

// mostReused is how long a slice may be that is used again.
const mostReused = 1024

// Room implements mqttfront.Swarm.
func (w *swarm) Room(topic string) bool { return w.s.Room(topic) }

// RoomToRegister implements mqttfront.Swarm.
func (w *swarm) RoomToRegister(filter string) bool { return w.s.RoomToRegister(filter) }

// Publish implements mqttfront.Swarm.
func (w *swarm) Publish(batch []mqttfront.Outgoing) {
	reused := publications.Get().(*[]core.Publication)
	out := (*reused)[:0]
	for i := range batch {
		o := &batch[i]
		p := core.Publication{Message: o.Msg, Packet: o.PacketID, Served: o.ServedHere, Lent: o.Lent}
		if o.Origin != nil {
			p.Origin = o.Origin
		}
		out = append(out, p)
	}
	w.s.Publish(out)
	clear(out)
	if cap(out) <= mostReused {
		*reused = out
	}
	publications.Put(reused)
}

// Register implements mqttfront.Swarm.
func (w *swarm) Register(filter string, interest mqttfront.Interest, done func(mqttfront.Promise)) {
	i := core.Interest{Plain: interest.Plain, QoS: interest.QoS, Hold: interest.Hold}
	for _, g := range interest.Groups {
		i.Groups = append(i.Groups, core.GroupInterest{Name: g.Name, QoS: g.QoS, Members: g.Members, Online: g.Online})
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

// Retained implements mqttfront.Swarm.
func (w *swarm) Retained(filter string, each func([]*proto.Message), done func()) {
	w.s.Retained(filter, each, done)
}

// RetainedHere implements mqttfront.Swarm.
func (w *swarm) RetainedHere() int { return w.retained.Total() }

// accept passes on that a client's message is kept.
func accept(origin any, packet uint16) {
	if o, ok := origin.(mqttfront.Origin); ok {
		o.Accepted(packet, nil)
	}
}

// receipt tells the service what the broker has done with a message.
type receipt struct {
	s *rendezvous.Service
	r *core.Receipt
}

// Done implements mqttfront.Receipt.
func (r *receipt) Done() { r.s.Done(r.r) }

// Refused implements mqttfront.Receipt.
func (r *receipt) Refused(g mqttfront.Group) { r.s.Refuse(r.r, g) }

// deliver hands messages from the swarm to the broker.
func (n *Node) deliver(batch []core.Delivery) {
	b, s := n.broker.Load(), n.service.Load()
	if b == nil {
		return // nobody has subscribed yet
	}
	out := make([]mqttfront.Delivery, len(batch))
	for i := range batch {
		d := &batch[i]
		out[i] = mqttfront.Delivery{Msg: d.Message, Plain: d.Plain, Groups: d.Groups}
		if o, ok := d.Origin.(mqttfront.Origin); ok {
			out[i].Origin = o
		}
		if d.Receipt != nil {
			out[i].Receipt = &receipt{s, d.Receipt}
		}
	}
	b.Deliver(out)
}
