package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/mozzie-mqtt/mozzie/e2e/ether"
)

// carryOut carries out a plan, and returns when every fault is over.
func (s *swarm) carryOut(ctx context.Context, plan []Step) {
	began := time.Now()
	var going sync.WaitGroup
	defer going.Wait()
	for _, step := range plan {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(began.Add(step.At))): // the plan's own time
		}
		going.Go(func() { s.befall(ctx, step) })
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(began.Add(s.o.Duration))): // the same
	}
}

// heal waits until the swarm is whole.
func (s *swarm) heal() error {
	return s.until("the swarm is whole after all faults", patience, s.whole)
}

// befall has a fault come, and go.
func (s *swarm) befall(ctx context.Context, step Step) {
	lasts := func() {
		select {
		case <-ctx.Done():
		case <-time.After(step.Lasts): // how long it lasts is the fault's own
		}
	}
	switch step.Kind {
	case Partition, Slow, Lossy:
		id := s.begin(step, nil)
		s.relink()
		lasts()
		s.end(id, s.relink)
	case Join:
		n := s.nodes[step.Node]
		id := s.begin(step, []*node{n})
		s.end(id, func() { s.failed(errors.Join(s.add(n), s.meets(n))) })
	case Clock:
		n := s.nodes[step.Node]
		id := s.begin(step, []*node{n})
		s.end(id, func() { s.failed(n.setClock(step.Ahead)) })
	case Power:
		all := s.members()
		id := s.begin(step, all)
		each(all, func(n *node) { n.kill() })
		lasts()
		s.end(id, func() { each(all, func(n *node) { s.failed(n.start()) }) })
	default:
		n := s.nodes[step.Node]
		n.mu.Lock()
		defer n.mu.Unlock()
		id := s.begin(step, []*node{n})
		after := func() { s.failed(n.start()) }
		switch step.Kind {
		case Kill:
			n.kill()
		case Restart:
			n.stop()
		case Freeze:
			n.signal(syscall.SIGSTOP)
			after = func() { n.signal(syscall.SIGCONT) }
		case Wipe:
			n.kill()
			s.failed(n.wipe(step.All))
			s.history.Add(Event{Kind: Wiped, Nodes: []int{n.number}})
			after = func() { s.failed(errors.Join(n.start(), s.meets(n))) }
		}
		lasts()
		s.end(id, after)
	}
}

// meets waits until a node that knows nobody has met somebody. Until then it is a swarm of its own.
func (s *swarm) meets(n *node) error {
	return s.until("a new node has met another", patience, func() error {
		status, err := n.ready()
		if err == nil && status.Streams < 2 {
			err = fmt.Errorf("node %d knows %d nodes", n.number, status.Nodes)
		}
		return err
	})
}

func each(all []*node, f func(*node)) {
	var going sync.WaitGroup
	for _, n := range all {
		going.Go(func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			f(n)
		})
	}
	going.Wait()
}

// failed writes down that the harness could not do what it wanted.
func (s *swarm) failed(err error) {
	if err != nil {
		s.history.Add(Event{Kind: Trouble, Text: "the harness: " + err.Error()})
	}
}

// begin writes down that a fault begins, just before it does.
func (s *swarm) begin(step Step, befalls []*node) (id int) {
	s.mu.Lock()
	s.count++
	id = s.count
	s.faults[id] = step
	if step.Kind == Join {
		s.joined++
	}
	s.mu.Unlock()
	e := Event{Kind: Fault, ID: id, Text: step.String()}
	for _, n := range befalls {
		e.Nodes = append(e.Nodes, n.number)
	}
	s.history.Add(e)
	if s.o.Logf != nil {
		s.o.Logf("%v", e)
	}
	return id
}

// end has a fault end by what f does. It counts as going on until it is written down that it has ended.
func (s *swarm) end(id int, f func()) {
	s.mu.Lock()
	step := s.faults[id]
	s.faults[id] = Step{Kind: step.Kind} // without its links
	s.mu.Unlock()
	f()
	e := Event{Kind: Mended, ID: id, Text: string(step.Kind)}
	if step.Node != 0 {
		e.Nodes = []int{step.Node}
	}
	s.history.Add(e)
	s.mu.Lock()
	delete(s.faults, id)
	s.mu.Unlock()
}

// relink has the network be as the faults that are going on say: what several say of a link adds up.
func (s *swarm) relink() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.network.Set(func(from, to int) (l ether.Link) {
		for _, step := range s.faults {
			is, ok := step.Links[[2]int{from + 1, to + 1}]
			if !ok {
				continue
			}
			l.Cut = l.Cut || is.Cut
			l.Delay += is.Delay
			l.Jitter += is.Jitter
			l.Loss = 1 - (1-l.Loss)*(1-is.Loss)
		}
		return l
	})
}

// kindOf returns what kind a fault's text tells of.
func kindOf(text string) FaultKind {
	var kind string
	_, _ = fmt.Sscanf(text, "%s", &kind) // every text begins with it
	return FaultKind(kind)
}
