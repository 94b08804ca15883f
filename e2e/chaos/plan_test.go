package chaos

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/e2e/ether"
)

// FaultKind is a kind of fault.
type FaultKind string

// The kinds of faults.
const (
	Kill      FaultKind = "kill"      // kill -9, and started again
	Power     FaultKind = "power"     // all nodes are killed at once, and started again
	Freeze    FaultKind = "freeze"    // SIGSTOP, and SIGCONT
	Restart   FaultKind = "restart"   // SIGTERM, and started again
	Wipe      FaultKind = "wipe"      // kill -9, the disk is gone, started again
	Partition FaultKind = "partition" // links are cut
	Slow      FaultKind = "slow"      // links take long
	Lossy     FaultKind = "lossy"     // links lose frames
	Join      FaultKind = "join"      // a node joins, which is no fault for who is there
	Clock     FaultKind = "clock"     // a node's clock is set, which is none either: nothing that is promised goes by it but dates
)

// kinds has all kinds, and how often each is drawn beside the others.
var kinds = []struct {
	kind   FaultKind
	weight int
}{{Kill, 6}, {Freeze, 4}, {Restart, 3}, {Partition, 5}, {Slow, 2}, {Lossy, 2}, {Wipe, 1}, {Join, 1}, {Power, 1}, {Clock, 2}}

// Step is a fault that is to come.
type Step struct {
	At, Lasts time.Duration
	Kind      FaultKind
	Node      int           // from 1, where it befalls one
	All       bool          // of a wipe: the node's key as well, so that it is a new node, not only its database
	Ahead     time.Duration // of a clock: by how much it is ahead of the machine's from then on
	Shape     string
	Links     map[[2]int]ether.Link // by nodes, from and to, of those that are not as they should be
}

func (s Step) String() string {
	text := fmt.Sprintf("%v for %.1f s", s.Kind, s.Lasts.Seconds())
	if s.Kind == Clock {
		text = fmt.Sprintf("%v to %v", s.Kind, s.Ahead)
	}
	if s.All {
		text += ", the key too"
	}
	if s.Shape != "" {
		text += ", " + s.Shape
	}
	return text
}

const (
	// first is when the first fault comes.
	first = 2 * time.Second
	// betweenWipes is how long after the loss of a disk the next may be lost: a minute after a node is gone, as others that have been well for so long see it, its sets are
	// repaired, and the machine may be busy.
	betweenWipes = 3 * time.Minute
	// afterWipe is how long nothing else goes down.
	afterWipe = 10 * time.Second
	// most is how many nodes may be down, or hang, at once.
	most = 2
	// joiners is how many nodes join, at most. There is a host for each from the start.
	joiners = 2
	// furthest is how wrong a clock may be: two nodes that are wrong by it in both directions are less than a day apart, up to which retained messages
	// are promised to be ordered, and sessions expire later.
	furthest = 11 * time.Hour
	// A calm stretch follows after a stretch of faults, so that what is promised where there is no fault is tested too.
	stormy, calm = 35 * time.Second, 15 * time.Second
)

// drawing is a plan that is being drawn.
type drawing struct {
	rng    *rand.Rand
	o      Options
	steps  []Step
	busy   []time.Duration // by node: until when it is down or just back
	wiped  time.Duration   // when the last disk went
	calmF  time.Duration   // from when no fault may reach, and
	rested bool            // a calm stretch has just ended
	nodes  int
}

// Draw draws a plan.
func Draw(rng *rand.Rand, o Options) []Step {
	d := &drawing{rng: rng, o: o, nodes: o.Nodes, busy: make([]time.Duration, o.Nodes+joiners+1), wiped: -betweenWipes, calmF: first + stormy}
	for at := first; at < o.Duration; at += d.between(500*time.Millisecond, 6*time.Second) {
		if at >= d.calmF {
			at += calm
			d.calmF, d.rested = at+stormy, true
		}
		if s := d.draw(at); s.Kind != "" && at < o.Duration {
			d.steps = append(d.steps, s)
		}
	}
	return d.steps
}

func (d *drawing) between(least, most time.Duration) time.Duration {
	return least + time.Duration(d.rng.Int64N(int64(most-least)))
}

// skewed draws a length of time that is short mostly.
func (d *drawing) skewed(least, most time.Duration) time.Duration {
	x := d.rng.Float64()
	return least + time.Duration(x*x*float64(most-least))
}

// draw draws what happens at a time, maybe nothing.
func (d *drawing) draw(at time.Duration) (s Step) {
	sum := 0
	for _, k := range kinds {
		if d.wanted(k.kind) {
			sum += k.weight
		}
	}
	n := d.rng.IntN(sum)
	for _, k := range kinds {
		if !d.wanted(k.kind) {
			continue
		}
		if n -= k.weight; n < 0 {
			s.Kind = k.kind
			break
		}
	}
	if d.rested && d.wanted(Wipe) && d.rng.IntN(4) > 0 {
		s.Kind = Wipe // when nothing waits at the node alone, so that nothing may be lost
	}
	d.rested = false
	s.At = at
	ok := true
	switch s.Kind {
	case Partition, Slow, Lossy:
		s.Lasts = min(d.skewed(300*time.Millisecond, 20*time.Second), max(d.calmF-at, time.Second))
		s.Links, s.Shape = d.shape(s.Kind)
	case Clock:
		s.Node, s.Ahead = 1+d.rng.IntN(d.nodes), d.ahead()
	case Join:
		if ok = d.nodes < d.o.Nodes+joiners; ok {
			d.nodes++
			s.Node = d.nodes
			d.busy[s.Node] = at + afterWipe
		}
	case Power:
		s.Lasts = d.skewed(0, 4*time.Second)
		if ok = d.down(at) == 0 && d.nodes == d.o.Nodes; ok {
			for n := range d.busy {
				d.busy[n] = at + s.Lasts + 3*time.Second
			}
		}
	default:
		ok = d.one(at, &s)
	}
	if !ok {
		return Step{}
	}
	return s
}

// ahead draws what a clock is set to: right, or wrong by up to furthest in each direction, by little as often as by much.
func (d *drawing) ahead() time.Duration {
	if d.rng.IntN(4) == 0 {
		return 0
	}
	wrong := time.Duration(math.Exp(d.rng.Float64()*math.Log(float64(furthest/time.Millisecond)))) * time.Millisecond
	if d.rng.IntN(2) == 0 {
		return -wrong
	}
	return wrong
}

func (d *drawing) wanted(k FaultKind) bool { return len(d.o.Only) == 0 || slices.Contains(d.o.Only, k) }

// down returns how many nodes are down, or just back.
func (d *drawing) down(at time.Duration) (n int) {
	for _, until := range d.busy {
		if until > at {
			n++
		}
	}
	return n
}

// one draws what befalls one node.
func (d *drawing) one(at time.Duration, s *Step) bool {
	s.Node = 1 + d.rng.IntN(d.nodes)
	limit := most
	switch s.Kind {
	case Freeze:
		s.Lasts = d.skewed(200*time.Millisecond, 14*time.Second)
	case Wipe:
		s.Lasts = d.skewed(0, 4*time.Second)
		s.All = d.rng.IntN(3) == 0
		limit = 1
	default:
		s.Lasts = d.skewed(0, 10*time.Second)
	}
	if d.busy[s.Node] > at || d.down(at) >= limit || s.Kind == Wipe && at-d.wiped < betweenWipes {
		return false
	}
	d.busy[s.Node] = at + s.Lasts + 3*time.Second
	if s.Kind == Wipe {
		d.wiped = at
		for n := range d.busy {
			d.busy[n] = max(d.busy[n], at+s.Lasts+afterWipe)
		}
	}
	return true
}

// shape draws the links that a fault of the network befalls.
func (d *drawing) shape(k FaultKind) (links map[[2]int]ether.Link, name string) {
	n := d.o.Nodes + joiners
	links = map[[2]int]ether.Link{}
	var is ether.Link
	switch k {
	case Slow:
		is.Delay = d.skewed(10*time.Millisecond, 400*time.Millisecond)
		is.Jitter = is.Delay / 2
		name = fmt.Sprintf("%v, ", is.Delay.Round(time.Millisecond))
	case Lossy:
		is.Loss = 0.02 + 0.28*d.rng.Float64()
		name = fmt.Sprintf("%.0f %%, ", 100*is.Loss)
	default:
		is.Cut = true
	}
	side := make([]int, n+1)
	shapes := []string{"one node", "two sides", "two sides and one that sees both", "some links", "one way", "all"}
	shape := shapes[d.rng.IntN(len(shapes))]
	alone := 1 + d.rng.IntN(d.nodes)
	for i := range side {
		side[i] = d.rng.IntN(2)
	}
	part := 0.2 + 0.4*d.rng.Float64()
	for a := 1; a <= n; a++ {
		for b := 1; b < a; b++ {
			var hit bool
			switch shape {
			case "one node", "one way":
				hit = a == alone || b == alone
			case "two sides":
				hit = side[a] != side[b]
			case "two sides and one that sees both":
				hit = side[a] != side[b] && a != alone && b != alone
			case "some links":
				hit = d.rng.Float64() < part
			case "all":
				hit = true
			}
			if hit && (shape != "one way" || a == alone) {
				links[[2]int{a, b}] = is
			}
			if hit && (shape != "one way" || b == alone) {
				links[[2]int{b, a}] = is
			}
		}
	}
	switch shape {
	case "one node", "one way":
		name += fmt.Sprintf("%s, %d", shape, alone)
	case "two sides", "two sides and one that sees both":
		name += fmt.Sprintf("%s: %v", shape, side[1:])
		if shape != "two sides" {
			name += fmt.Sprintf(", %d", alone)
		}
	default:
		name += shape
	}
	return links, name
}
