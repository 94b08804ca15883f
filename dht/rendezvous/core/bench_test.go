package core_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// BenchmarkRoute takes a message of 64 B from its publisher's node by a third one, its rendezvous, to its subscriber's, each
// frame as bytes. At QoS 0 it allocates nothing.
func BenchmarkRoute(b *testing.B) {
	for qos := range byte(3) {
		b.Run(fmt.Sprint("QoS ", qos), func(b *testing.B) {
			w := newWay(b)
			client, batch := new(int), 100
			b.ReportAllocs()
			for b.Loop() {
				if batch--; batch == 0 { // acknowledgements come for several at a time, as they do from a stream
					w.pass()
					batch = 100
				}
				m := &w.messages[qos]
				w.do(w.from, func(n *core.Node) {
					n.Publish(core.Publication{Message: m, Origin: client, Served: true, Lent: qos == 0})
				})
			}
			w.pass()
			if w.delivered < b.N {
				b.Fatalf("%d of %d came", w.delivered, b.N)
			}
		})
	}
}

// way is three nodes that a message passes, as drivers would have them pass it.
type way struct {
	s         *sim
	from      *simNode
	messages  [3]proto.Message
	decoder   proto.Decoder
	effects   []core.Effect
	wires     map[[2]int]*[]byte
	order     [][2]int
	delivered int
	dones     []*core.Receipt
	to        *simNode
}

func newWay(b *testing.B) *way {
	s := newSim(b, 1, time.Millisecond)
	s.grow(3)
	s.run(5 * time.Second)
	name := ""
	for i := 0; name == ""; i++ {
		if t := fmt.Sprintf("t%d/a", i); s.nodes[0].n.Locate(t).Rendezvous == s.nodes[1].id {
			name = t
		}
	}
	w := &way{s: s, from: s.nodes[0], to: s.nodes[2], wires: map[[2]int]*[]byte{}}
	w.to.subscribe(name, 2)
	for qos := range w.messages {
		w.messages[qos] = proto.Message{Topic: name, Payload: make([]byte, 64), QoS: byte(qos)}
	}
	s.nodes[0].publish(name, 1, false, "first")
	s.run(5 * time.Second)
	return w
}

// do has an event happen at a node, and writes what it sends.
func (w *way) do(v *simNode, event func(*core.Node)) {
	v.at()
	event(v.n)
	w.effects = v.n.Take(w.effects)
	for i := range w.effects {
		switch e := &w.effects[i]; e.Kind {
		case core.Send:
			for j, to := range w.s.nodes {
				if to.id == e.To {
					w.write([2]int{v.i, j}, e.Frame)
				}
			}
		case core.Deliver:
			w.delivered++
			if r := e.Delivery.Receipt; r != nil {
				w.dones = append(w.dones, r)
			}
		}
	}
	clear(w.effects)
}

func (w *way) write(link [2]int, frame any) {
	wire := w.wires[link]
	if wire == nil {
		wire = new([]byte)
		w.wires[link] = wire
		w.order = append(w.order, link)
	}
	*wire = proto.AppendFrame(*wire, frame, epochStart.Add(w.s.now))
}

// pass has everything arrive that is on its way, and what follows from it, and a millisecond pass.
func (w *way) pass() {
	if w.s.now += time.Millisecond; w.s.now%tickEvery == 0 {
		for _, v := range w.s.nodes {
			w.do(v, (*core.Node).Tick)
		}
	}
	for again := true; again; {
		again = false
		for _, link := range w.order {
			wire := w.wires[link]
			bytes := *wire
			if len(bytes) == 0 {
				continue
			}
			again = true
			*wire = nil
			w.receive(link, bytes)
			if *wire == nil {
				*wire = bytes[:0]
			}
		}
		dones := w.dones
		w.dones = nil
		w.do(w.to, func(n *core.Node) {
			for _, r := range dones {
				n.Done(r)
			}
		})
		w.dones = append(dones[:0], w.dones...)
	}
}

// receive takes in what one read brings.
func (w *way) receive(link [2]int, b []byte) {
	w.decoder.Reset()
	from, to := w.s.nodes[link[0]], w.s.nodes[link[1]]
	w.do(to, func(n *core.Node) {
		for len(b) > 0 {
			kind, body, rest, _, err := proto.Next(b)
			if err != nil {
				w.s.t.Fatal(err)
			}
			f, err := w.decoder.Decode(kind, body, epochStart.Add(w.s.now))
			if err != nil {
				w.s.t.Fatal(err)
			}
			n.Receive(from.id, f)
			b = rest
		}
	})
}
