package rendezvous

import (
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
)

// manyDones is for how many of the broker's words that it has done with a delivery memory is kept.
const manyDones = 8192

// done is what the broker has done with a delivery: all that it will, or, with a group, refused it for that, or, with more, found
// that it has to do it once more.
type done struct {
	receipt *core.Receipt
	earlier core.Identity // where there is no receipt: of a message that the broker has on its disk
	refused proto.Group
	more    bool
	takenUp string // not done, but taken over from another node with the session of this name

	ids     []core.Identity // not one delivery, but all of these:
	open    []string        // they wait for these sessions alone, or, where through says which, not for that one
	through string
}

// Done says that the broker needs a delivered message no more. It takes no lock of the Service's but its own.
func (s *Service) Done(r *core.Receipt) { s.queueDone(done{receipt: r}) }

// More says that Done will come once more for a delivered message.
func (s *Service) More(r *core.Receipt) { s.queueDone(done{receipt: r, more: true}) }

// Refuse says that no member of a shared subscription is left that can take a delivered message. Done is
// still to be called. It takes no lock of the Service's but its own.
func (s *Service) Refuse(r *core.Receipt, g proto.Group) { s.queueDone(done{receipt: r, refused: g}) }

// DoneEarlier and MoreEarlier are Done and More for one of the deliveries of a message that the broker has on its disk.
func (s *Service) DoneEarlier(id core.Identity) { s.queueDone(done{earlier: id}) }

// MoreEarlier: see DoneEarlier.
func (s *Service) MoreEarlier(id core.Identity) { s.queueDone(done{earlier: id, more: true}) }

// RefuseEarlier is Refuse for the same.
func (s *Service) RefuseEarlier(id core.Identity, g proto.Group) {
	s.queueDone(done{earlier: id, refused: g})
}

// TakeUp says that the broker has taken over a message from another node with a session; see core.Node.TakeUp. Done or DoneEarlier follows.
// It takes no lock of the Service's but its own.
func (s *Service) TakeUp(id core.Identity, name string) {
	s.queueDone(done{earlier: id, takenUp: name})
}

// OpenFor says that messages wait for some sessions alone; see core.Node.OpenFor. It takes no lock of the Service's but its own.
func (s *Service) OpenFor(ids []core.Identity, names []string) {
	s.queueDone(done{ids: ids, open: names})
}

// Through says that a session is through with messages, of each before DoneEarlier; see core.Node.Through. It takes no lock of the Service's
// but its own.
func (s *Service) Through(ids []core.Identity, name string) {
	s.queueDone(done{ids: ids, through: name})
}

func (s *Service) queueDone(d done) {
	s.doneMu.Lock()
	s.dones = append(s.dones, d)
	first := len(s.dones) == 1
	s.doneMu.Unlock()
	if first {
		wake(s.doneWake)
	}
}

func (s *Service) runDones() {
	var batch []done
	for {
		select {
		case <-s.doneWake:
		case <-s.ctx.Done():
			return
		}
		s.doneMu.Lock()
		batch, s.dones = s.dones, batch
		calls := s.safeCalls
		s.safeCalls = nil
		s.doneMu.Unlock()
		s.step(func(n *core.Node) {
			for _, do := range calls {
				do()
			}
			for _, d := range batch {
				d.tell(n)
			}
		})
		clear(batch)
		if batch = batch[:0]; cap(batch) > manyDones {
			batch = nil // of a burst
		}
	}
}

func (d *done) tell(n *core.Node) {
	switch {
	case d.through != "":
		n.Through(d.ids, d.through)
		return
	case d.ids != nil:
		n.OpenFor(d.ids, d.open)
		return
	case d.takenUp != "":
		n.TakeUp(d.earlier, d.takenUp)
		return
	case d.receipt == nil:
		d.receipt = n.Receipt(d.earlier)
	}
	switch {
	case d.receipt == nil: // it is over
	case d.more:
		n.More(d.receipt)
	case d.refused.Filter != "":
		n.Refuse(d.receipt, d.refused)
	default:
		n.Done(d.receipt)
	}
}
