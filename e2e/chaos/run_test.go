// Package chaos runs a swarm of real nodes under real clients while everything goes wrong that may go wrong: nodes are
// killed, stopped and started again, hang, lose their disks, join, have their clocks set; links are cut in any shape, slow or lossy. What to break
// and when is drawn from a seed. A history of everything that was published, acknowledged and received is written, and
// checked at the end, when all is mended, against what docs/guarantees.md promises.
//
//	go test ./e2e/chaos -run TestChaos -v -args -seed 7 -duration 3m -dir /tmp/chaos
//	go test ./e2e/chaos -run TestHistory -v -args -history /tmp/chaos/history.jsonl    checks one again
//	make chaos SEED=7 DURATION=3m
//
// Where to look: plan.go draws the faults, faults.go carries them out on swarm.go's nodes (processes in namespaces of
// package ether, with clocks that clock_test.go sets); client.go is an MQTT 5 client that does as it is told when it comes to acknowledgements, and actors.go has
// what such clients do; history.go says what is written down; checker.go, wills_test.go and retained_test.go judge it,
// exempt.go has what no design can avoid and what is known to be missing, each with its reason, and report.go tells.
//
// Goroutines: every client has one for its life (run), one for each connection (runReader) and one that acknowledges late
// (runAcks); every fault that lasts has one, and the swarm one that looks whether it is whole (runWatch). All exit before
// Run returns.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// Options say what to run.
type Options struct {
	Program  string        // the mozzie that is tested
	Seed     uint64        // decides the faults and what clients do, though not when exactly
	Duration time.Duration // how long faults go on
	Dir      string        // where nodes have their data and logs, and the history is; it must exist
	Nodes    int           // at the start
	Rate     int           // messages a second that are published, in all
	Only     []FaultKind   // none but these; all if empty
	Known    Known         // what is known to be missing
	// Elsewhere has clients with lasting sessions come back at another node when theirs is away, and expect their session
	// there. It is for when sessions move between nodes.
	Elsewhere bool
	Logf      func(format string, args ...any)
}

const (
	// patience is how long something may take at the end that has no limit of its own: sets are repaired in a minute, what nobody answered
	// for is sent again after 10 s, and the machine may be busy.
	patience = 150 * time.Second
	poll     = 200 * time.Millisecond
)

// Run runs it, and returns what the checker says. An error says that there was nothing to judge, or that a node did what none
// should, such as to end by itself.
func Run(ctx context.Context, o Options) (r *Report, err error) {
	h, err := Create(filepath.Join(o.Dir, "history.jsonl"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	h.Add(Event{Kind: Began, Text: fmt.Sprintf("seed %d, %v, %d nodes, %d messages a second, elsewhere %v", o.Seed, o.Duration, o.Nodes, o.Rate, o.Elsewhere)})
	s, err := startSwarm(ctx, o, h)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	a := startActors(o, h, s)
	defer a.close()
	if err := a.settled(patience); err != nil {
		return nil, err
	}
	plan := Draw(rand.New(rand.NewPCG(o.Seed, 1)), o) //nolint:gosec // it is to be repeatable
	s.carryOut(ctx, plan)
	if err := s.heal(); err != nil {
		return h.judge(o), err
	}
	a.stop()
	if err := a.idle(patience); err != nil {
		h.Add(Event{Kind: Trouble, Text: err.Error()})
	}
	h.drain(o, s)
	h.askRetained(o, s, a.retainedTopics())
	h.Add(Event{Kind: Ended})
	return h.judge(o), ctx.Err()
}

// judge checks what has been written down so far.
func (h *History) judge(o Options) *Report { return Check(h.Events(), o.Known) }

// drain waits until nothing waits at any node, and everything that is owed has come.
func (h *History) drain(o Options, s *swarm) {
	deadline := time.Now().Add(patience)
	for {
		waits := s.waits()
		if waits == "" {
			if r := h.judge(o); !r.owes() {
				h.Add(Event{Kind: Drained})
				return
			}
			waits = "nothing waits at the nodes, but not everything has come"
		}
		if time.Now().After(deadline) {
			h.Add(Event{Kind: Trouble, Text: "not drained: " + waits})
			s.locate()
			return
		}
		time.Sleep(5 * poll)
	}
}

// mkdir makes a folder in the run's, without what an earlier run has left there.
func (o Options) mkdir(name string) (string, error) {
	dir := filepath.Join(o.Dir, name)
	return dir, errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700))
}
