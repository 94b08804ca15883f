package watch

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// The simulation has one node with clients, x, and three that are the set of its location. What stands there is a register that
// each side of a partition has for itself: the newest value wins where they meet, as with retained messages. The rendezvous of
// a side is its first member. Everything that is said takes a while, or is lost where there is no way.
const (
	simX       = 0
	simMembers = 3
	simWills   = 4
	simStep    = 100 * time.Millisecond
)

// version is what a member has under a topic.
type version struct {
	stamp uint64
	value any // *will or *fired
}

type simMember struct {
	w      *watcher
	up     bool
	frozen bool
	since  time.Duration // it has been the rendezvous of its side
	stands map[string]version
	marks  map[string]version
	heard  time.Duration
	ever   bool
	next   time.Duration
}

// simClient is a client of x.
type simClient struct {
	topic     string
	will      *will
	connected bool
	lost      time.Duration // when it lost its connection; with x up
	last      uint64        // the epoch of its last will
}

type simEvent struct {
	at time.Duration
	do func()
}

type sim struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	now     time.Duration
	members []*simMember // from 1
	groups  []int        // which side each node is on, x first
	clients []*simClient
	events  []simEvent
	stamp   uint64
	epochs  uint64

	xUp, xFrozen bool
	xNext        time.Duration
	trust        trust
	outbox       []func(done func())
	held         []*simClient
	came         map[uint64]int // how often each will was sent, by whomever: subscribers get it once
	twice        int            // of these, more than once
	right        int            // false alarms put right
	alone        bool           // the set has one member beside x
	unseen       time.Duration  // when two members did not reach x last
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), groups: make([]int, simMembers+1), xUp: true, came: map[uint64]int{}}
	s.members = append(s.members, nil)
	for i := 1; i <= simMembers; i++ {
		s.members = append(s.members, &simMember{w: newWatcher(simID(i)), up: true, stands: map[string]version{}, marks: map[string]version{},
			next: time.Duration(s.rng.Int64N(int64(tickEvery)))})
	}
	for i := range simWills {
		c := &simClient{topic: fmt.Sprint("w/", i), connected: true}
		s.clients = append(s.clients, c)
		s.arm(c)
	}
	return s
}

func simID(i int) core.NodeID { return core.NodeID(fmt.Sprint("node ", i)) }

func (s *sim) fail(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("seed %d, at %v: %s", s.seed, s.now, fmt.Sprintf(format, args...))
}

func (s *sim) after(d time.Duration, do func()) { s.events = append(s.events, simEvent{s.now + d, do}) }

// delay is how long something takes that is said.
func (s *sim) delay() time.Duration { return time.Duration(1+s.rng.Int64N(300)) * time.Millisecond }

// alive reports whether a node does anything.
func (s *sim) alive(i int) bool {
	if i == simX {
		return s.xUp && !s.xFrozen
	}
	return s.members[i].up && !s.members[i].frozen
}

// reaches reports whether there is a way between two nodes.
func (s *sim) reaches(i, j int) bool { return s.alive(i) && s.alive(j) && s.groups[i] == s.groups[j] }

// head is the rendezvous that a node goes to; 0: none.
func (s *sim) head(from int) int {
	for i := 1; i <= simMembers; i++ {
		if i == from && s.alive(i) || s.reaches(from, i) {
			return i
		}
	}
	return 0
}

// writeX is write for x: one after the other, over restarts, as from an outbox.
func (s *sim) writeX(topic string, value any) {
	s.outbox = append(s.outbox, func(done func()) { s.write(simX, topic, value, false, done) })
	if len(s.outbox) == 1 {
		s.nextX()
	}
}

func (s *sim) nextX() {
	s.outbox[0](func() {
		if s.outbox = s.outbox[1:]; len(s.outbox) > 0 {
			s.nextX()
		}
	})
}

// write has something stand, at all members that the rendezvous reaches; done is called when it does.
func (s *sim) write(from int, topic string, value any, marks bool, done func()) {
	s.after(s.delay(), func() {
		h := s.head(from)
		if h == 0 || !s.alive(from) {
			if s.alive(from) || from == simX {
				s.after(time.Second, func() { s.write(from, topic, value, marks, done) }) // it is in the outbox
			}
			return
		}
		s.stamp++
		v := version{s.stamp, value}
		for i := 1; i <= simMembers; i++ {
			if i == h || s.reaches(h, i) {
				s.put(i, topic, v, marks)
			}
		}
		if marks && from != simX {
			s.tellX(h, topic, value.(*fired))
		}
		if done != nil {
			s.after(s.delay(), func() {
				if s.alive(from) || from == simX {
					done()
				}
			})
		}
	})
}

func (s *sim) put(i int, topic string, v version, marks bool) {
	m := s.members[i]
	all := m.stands
	if marks {
		all = m.marks
	}
	if all[topic].stamp >= v.stamp {
		return
	}
	all[topic] = v
	if marks {
		f, _ := v.value.(*fired)
		m.w.marks(topic, dht.Location{}, f)
		return
	}
	x, _ := v.value.(*will)
	m.w.stands(topic, dht.Location{}, x)
}

// meet has members that reach each other again have the newest of both.
func (s *sim) meet() {
	for i := 1; i <= simMembers; i++ {
		for j := 1; j <= simMembers; j++ {
			if i == j || !s.reaches(i, j) {
				continue
			}
			for _, topic := range slices.Sorted(maps.Keys(s.members[i].stands)) {
				s.put(j, topic, s.members[i].stands[topic], false)
			}
			for _, topic := range slices.Sorted(maps.Keys(s.members[i].marks)) {
				s.put(j, topic, s.members[i].marks[topic], true)
			}
		}
	}
}

// arm gives a client of x a new will.
func (s *sim) arm(c *simClient) {
	s.epochs++
	c.last = s.epochs
	c.will = &will{node: simID(simX), expiry: time.Hour, record: mqttfront.WillRecord{Epoch: s.epochs, Delay: time.Duration(s.rng.IntN(3)) * 2 * time.Second}}
	s.writeX(c.topic, c.will)
}

// publish sends a will: one identity comes once.
func (s *sim) publish(epoch uint64) {
	if s.came[epoch]++; s.came[epoch] > 1 {
		s.twice++
	}
}

// tellX lets x hear of a mark, as soon as there is a way from a member that has it.
func (s *sim) tellX(from int, topic string, f *fired) {
	s.after(s.delay(), func() {
		if !s.alive(simX) || s.groups[simX] != s.groups[from] {
			if s.xUp {
				s.tellX(from, topic, f)
			}
			return
		}
		for _, c := range s.clients {
			if c.topic == topic && c.will != nil && c.will.record.Epoch == f.epoch {
				s.wasFired(c, f)
			}
		}
	})
}

// wasFired is what a broker and Watch.wasFired do.
func (s *sim) wasFired(c *simClient, f *fired) {
	switch {
	case c.connected:
		s.right++
		s.arm(c)
	case f.sent:
		c.will = nil
	}
}

func (s *sim) carryOut(i int) {
	m := s.members[i]
	for _, d := range m.w.take() {
		switch d.kind {
		case ask:
			s.askMember(i, d)
		case mark:
			if well := s.now - s.unseen; well > answerLife+3*tickEvery { // leases get lost
				s.fail("member %d takes x for dead, which two members have reached for %v", i, well)
			}
			s.write(i, d.topic, &fired{epoch: d.epoch}, true, func() { m.w.marked(d.topic, d.epoch) })
		case send:
			s.publish(d.epoch)
			s.after(s.delay(), func() {
				if s.alive(i) {
					m.w.sent(d.topic, d.epoch)
				}
			})
		case seal:
			s.write(i, d.topic, &fired{epoch: d.epoch, sent: true}, true, nil)
		}
	}
}

func (s *sim) askMember(i int, d deed) {
	m := s.members[i]
	j := slices.IndexFunc([]int{0, 1, 2, 3}, func(k int) bool { return simID(k) == d.member })
	took := s.delay()
	s.after(took, func() {
		reached := s.reaches(i, j) && s.rng.IntN(20) > 0
		silent := time.Duration(0)
		if reached {
			silent = s.members[j].w.silent(d.node)
		}
		s.after(s.delay(), func() {
			if s.alive(i) {
				m.w.answered(d.member, d.node, silent, reached)
			}
		})
	})
}

// tickMember is a second of a member.
func (s *sim) tickMember(i int) {
	m := s.members[i]
	if s.head(i) != i {
		m.since = s.now
	}
	seat := core.Seat{Serving: s.head(i) == i && s.now-m.since >= core.LeaseTime}
	for j := 1; j <= simMembers && (!s.alone || j == i); j++ {
		seat.Members = append(seat.Members, simID(j))
	}
	m.w.tick(view{now: s.now, wall: time.Unix(0, int64(s.now)), heard: func(core.NodeID) (time.Duration, bool) { return s.now - m.heard, m.ever },
		seat: func(dht.Location) core.Seat { return seat },
		reach: func(id core.NodeID) bool {
			return slices.ContainsFunc([]int{1, 2, 3}, func(j int) bool { return simID(j) == id && s.reaches(i, j) })
		},
		sees: func(core.NodeID) bool {
			for j := 1; j <= simMembers; j++ {
				if j != i && s.reaches(i, j) {
					return true
				}
			}
			return false
		}})
	s.carryOut(i)
	if s.reaches(i, simX) && s.rng.IntN(10) > 0 { // it is asked for a lease then, and some get lost
		m.heard, m.ever = s.now, true
	}
}

// tickX is a second of x: what Watch.tick, Fire and heardOwn do.
func (s *sim) tickX() {
	backed := 0
	for i := 1; i <= simMembers; i++ {
		if s.reaches(simX, i) {
			backed++
		}
	}
	asks, round := s.trust.tick(s.now, backed >= 2), s.trust.round
	if asks {
		s.after(s.delay(), func() { s.heardOwn(round) })
	}
	for _, c := range s.clients {
		if c.will != nil && !c.connected && s.now >= c.lost+c.will.delay() && !slices.Contains(s.held, c) {
			if s.trust.may() {
				s.fire(c)
			} else {
				s.held = append(s.held, c)
			}
		}
	}
}

func (s *sim) fire(c *simClient) {
	if h := s.head(simX); h != 0 && s.trust.trusted {
		if f, _ := s.members[h].marks[c.topic].value.(*fired); f != nil && f.sent && f.epoch == c.will.record.Epoch {
			s.fail("x sends the will %d, which others have sent", f.epoch)
		}
	}
	s.publish(c.will.record.Epoch)
	c.will = nil
	s.writeX(c.topic, nil)
}

func (s *sim) heardOwn(round int) {
	if !s.alive(simX) {
		return
	}
	s.trust.answered(round)
	if !s.trust.may() {
		return
	}
	h := s.head(simX)
	s.held = nil
	for _, c := range s.clients {
		if c.will == nil || h == 0 {
			continue
		}
		f, _ := s.members[h].marks[c.topic].value.(*fired)
		x, _ := s.members[h].stands[c.topic].value.(*will)
		switch {
		case x != nil && x.resumed:
			c.will = nil
		case f != nil && f.epoch == c.will.record.Epoch:
			s.wasFired(c, f)
		}
	}
}

// step lets time pass.
func (s *sim) step() {
	s.now += simStep
	for {
		due := slices.IndexFunc(s.events, func(e simEvent) bool { return e.at <= s.now })
		if due < 0 {
			break
		}
		e := s.events[due]
		s.events = slices.Delete(s.events, due, due+1)
		e.do()
		for i := 1; i <= simMembers; i++ {
			if s.alive(i) {
				s.carryOut(i)
			}
		}
	}
	for i := 1; i <= simMembers; i++ {
		if s.alive(i) && s.now >= s.members[i].next {
			s.members[i].next = s.now + tickEvery
			s.tickMember(i)
		}
	}
	if s.alive(simX) && s.now >= s.xNext {
		s.xNext = s.now + tickEvery
		s.tickX()
	}
	reached := 0
	for i := 1; i <= simMembers; i++ {
		if s.reaches(i, simX) {
			reached++
		}
	}
	if reached < 2 {
		s.unseen = s.now
	}
}

func (s *sim) run(d time.Duration) {
	for until := s.now + d; s.now < until; {
		s.step()
	}
}

// killMember has a member lose what it has in memory, and start again: what stands is on its disk.
func (s *sim) killMember(i int) {
	m := s.members[i]
	m.up = false
	s.after(time.Duration(1+s.rng.IntN(40))*time.Second, func() {
		m.up, m.ever, m.w = true, false, newWatcher(simID(i))
		stands, marks := m.stands, m.marks
		m.stands, m.marks = map[string]version{}, map[string]version{}
		for topic, v := range stands {
			s.put(i, topic, v, false)
		}
		for topic, v := range marks {
			s.put(i, topic, v, true)
		}
		s.meet()
	})
}

// killX has x lose what it has in memory, and with that its clients' connections.
func (s *sim) killX() {
	if !s.xUp {
		return
	}
	s.xUp, s.xFrozen, s.held = false, false, nil
	for _, c := range s.clients {
		c.connected = false
	}
}

// startX starts x again. The delays count from then.
func (s *sim) startX() {
	if s.xUp {
		return
	}
	s.xUp, s.trust, s.xNext = true, trust{}, s.now
	for _, c := range s.clients {
		c.lost = s.now + 3*time.Second
	}
}

// heal lets everybody who is up see everybody.
func (s *sim) heal() {
	clear(s.groups)
	for i := 1; i <= simMembers; i++ {
		s.members[i].frozen = false
	}
	s.xFrozen = false
	s.meet()
}
