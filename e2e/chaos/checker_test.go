package chaos

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// checker holds a history against what is promised. It reads the history once, into what is below, and then judges.
type checker struct {
	known  Known
	events []Event
	report *Report
	end    time.Duration

	faults   []fault
	clocks   map[int]time.Duration // by node: what they show more than the machine's
	storms   []span                // when a fault was going on, or the swarm not whole again after it; in order
	messages map[string]*message
	byTopic  map[string][]*message // what was published, in order
	sessions map[string][]*session // by client, in order
	standing []*standing
	conns    map[string][]*connection // by client, in order
}

type span struct{ from, to time.Duration }

type fault struct {
	span
	kind  FaultKind
	nodes []int
	gone  time.Duration // of a wipe: when the disk was
	ahead bool          // of a clock: it was set ahead
}

func (f fault) has(node int) bool { return slices.Contains(f.nodes, node) }

// message is something that was published, or a will.
type message struct {
	id, topic  string
	publisher  string
	qos        byte
	retain     bool
	empty      bool
	sends      []Event
	acked      *Event
	refused    bool
	unknown    bool
	willOf     *connection
	got        int // receipts of all
	firstSend  time.Duration
	ackedAt    time.Duration
	ackedBy    int // the node
	promised   bool
	wasUnfired bool // the will was not to be sent
}

// session is a client's state at the nodes, from CONNACK without a session to its end.
type session struct {
	client    string
	node      int
	moves     []time.Duration // when it came to another node
	wiped     time.Duration   // when the disk of its node was, and it has not come anywhere since; 0: it was not
	wipes     []wipe          // of disks that it was on
	lasting   bool
	begun     time.Duration
	ended     time.Duration
	why       Excuse
	something bool // the node has said something that it must not forget
	got       map[string][]Event
	mistaken  map[string]bool // messages that the client took for others
	order     []string        // first receipts
}

// wipe is when a node lost its disk.
type wipe struct {
	node int
	at   time.Duration
}

// standing is a subscription of a session.
type standing struct {
	*session
	filter   string
	qos      byte
	from, to time.Duration
	why      Excuse // it ended
	local    bool
}

type connection struct {
	client            string
	number, node      int
	clean, lasting    bool
	began             time.Duration
	accepted, present bool
	acceptedAt        time.Duration
	closed            time.Duration
	how               string
	will              *message
	stale             []Event
}

const forever = time.Duration(math.MaxInt64)

// Check checks a history.
func Check(events []Event, known Known) *Report {
	c := &checker{known: known, events: events, report: newReport(events), messages: map[string]*message{}, byTopic: map[string][]*message{},
		sessions: map[string][]*session{}, conns: map[string][]*connection{}}
	if len(events) > 0 {
		c.end = events[len(events)-1].At
	}
	c.readFaults()
	for _, e := range events {
		c.read(e)
	}
	c.readWills()
	for _, topic := range c.byTopic {
		slices.SortStableFunc(topic, func(a, b *message) int { return cmp.Compare(a.firstSend, b.firstSend) })
	}
	c.checkDelivered()
	c.checkShared()
	c.checkOnce()
	c.checkOrder()
	c.checkWills()
	c.checkConnections()
	c.checkRetained()
	slices.SortStableFunc(c.report.Violations, func(a, b Violation) int { return cmp.Compare(a.At, b.At) })
	return c.report
}

func (c *checker) readFaults() {
	going := map[int]*fault{}
	var storm *span
	for _, e := range c.events {
		switch e.Kind {
		case Fault:
			kind := kindOf(e.Text)
			c.report.Faults[kind]++
			going[e.ID] = &fault{span: span{e.At, forever}, kind: kind, nodes: e.Nodes, gone: e.At, ahead: kind == Clock && c.setsAhead(e)}
			if storm == nil && !kind.harmless() {
				storm = &span{e.At, forever}
			}
		case Wiped:
			for _, f := range going {
				if f.kind == Wipe && f.has(e.Nodes[0]) {
					f.gone = e.At
				}
			}
		case Mended:
			if f := going[e.ID]; f != nil {
				f.to = e.At
				c.faults = append(c.faults, *f)
				delete(going, e.ID)
			}
		case Whole:
			if storm != nil {
				storm.to = e.At
				c.storms = append(c.storms, *storm)
				storm = nil
			}
		}
	}
	for _, f := range going {
		c.faults = append(c.faults, *f)
	}
	slices.SortFunc(c.faults, func(a, b fault) int { return cmp.Compare(a.from, b.from) })
	if storm != nil {
		c.storms = append(c.storms, *storm)
	}
}

// setsAhead notes what a clock is set to, and reports whether that is later than what it showed.
func (c *checker) setsAhead(e Event) bool {
	_, text, _ := strings.Cut(e.Text, "to ")
	ahead, err := time.ParseDuration(text)
	if err != nil {
		c.violation(e, "harness", nil, err.Error())
	}
	if c.clocks == nil {
		c.clocks = map[int]time.Duration{}
	}
	before := c.clocks[e.Nodes[0]]
	c.clocks[e.Nodes[0]] = ahead
	return ahead > before
}

// read takes in an event.
func (c *checker) read(e Event) {
	switch e.Kind {
	case Trouble:
		c.violation(e, "trouble", nil, e.Text)
	case Fault:
		if kindOf(e.Text) == Wipe {
			c.wipe(e)
		}
	case Wiped:
		for _, all := range c.sessions {
			for _, s := range all {
				if last := len(s.wipes) - 1; last >= 0 && slices.Contains(e.Nodes, s.wipes[last].node) {
					s.wipes[last].at = e.At // it may have received until then
				}
			}
		}
	case Connect, Connected, Closed:
		c.readConnection(e)
	case Subscribed, Unsubscribe:
		c.readSubscription(e)
	case Publish, Acked, Refused, Unknown:
		c.readPublished(e)
	case Received:
		s := c.session(e.Client)
		if all := c.sessions[e.Client]; s == nil && len(all) > 0 && c.connection(e) != nil && c.connection(e).closed == forever {
			s = all[len(all)-1] // its node is about to be killed
		}
		if s == nil {
			c.violation(e, "harness", nil, "received without a session")
			return
		}
		s.something = s.something || e.QoS > 0
		if e.Retain {
			return // it is no message, but the state of a topic
		}
		c.report.Received++
		if s.got[e.Msg] == nil {
			s.order = append(s.order, e.Msg)
		}
		s.got[e.Msg] = append(s.got[e.Msg], e)
	case Mistaken:
		if s := c.session(e.Client); s != nil {
			s.mistaken[e.Msg] = true
		}
	case Stale:
		if k := c.connection(e); k != nil {
			k.stale = append(k.stale, e)
		}
	}
}

func (c *checker) readPublished(e Event) {
	m := c.messages[e.Msg]
	if m == nil {
		if e.Kind != Publish {
			c.violation(e, "harness", nil, "an answer to what was not published")
			return
		}
		m = &message{id: e.Msg, topic: e.Topic, publisher: e.Client, qos: e.QoS, retain: e.Retain, empty: e.Empty, firstSend: e.At}
		c.messages[e.Msg] = m
		c.byTopic[e.Topic] = append(c.byTopic[e.Topic], m)
		c.report.Published[e.QoS]++
	}
	switch e.Kind {
	case Publish:
		m.sends = append(m.sends, e)
	case Acked:
		m.acked, m.ackedAt, m.ackedBy, m.promised = &e, e.At, e.Node, true
		c.report.Acked[e.QoS]++
		if s := c.session(e.Client); s != nil {
			s.something = true
		}
	case Refused:
		m.refused = true
		c.report.Refused++
	case Unknown:
		m.unknown = true
		c.report.Unknown++
	}
}

// session returns a client's session that is going on.
func (c *checker) session(client string) *session {
	all := c.sessions[client]
	if len(all) == 0 || all[len(all)-1].ended != forever {
		return nil
	}
	return all[len(all)-1]
}

func (s *session) over(at time.Duration, why Excuse) {
	if s.ended == forever {
		s.ended, s.why = at, why
	}
}

// wipe notes which sessions were at a node that has lost its disk. They go on from what others know.
func (c *checker) wipe(e Event) {
	for client := range c.sessions {
		if s := c.session(client); s != nil && s.lasting && slices.Contains(e.Nodes, s.node) {
			s.wiped, s.wipes = e.At, append(s.wipes, wipe{s.node, e.At})
		}
	}
}

func (c *checker) connection(e Event) *connection {
	all := c.conns[e.Client]
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].number == e.Conn {
			return all[i]
		}
	}
	return nil
}

func (c *checker) readConnection(e Event) {
	if e.Kind == Connect {
		k := &connection{client: e.Client, number: e.Conn, node: e.Node, clean: e.Clean, lasting: e.Lasting, began: e.At, closed: forever}
		if e.Msg != "" {
			k.will = &message{id: e.Msg, topic: e.Topic, publisher: e.Client, qos: e.QoS, willOf: k}
			c.messages[e.Msg] = k.will
		}
		c.conns[e.Client] = append(c.conns[e.Client], k)
		if s := c.session(e.Client); s != nil && e.Clean {
			s.over(e.At, SessionOver)
		}
		return
	}
	k := c.connection(e)
	if k == nil {
		c.violation(e, "harness", nil, "no CONNECT before")
		return
	}
	if e.Kind == Closed {
		k.closed, k.how = e.At, e.Text
		if s := c.session(e.Client); s != nil && !k.lasting && k.accepted {
			s.over(e.At, SessionOver)
		}
		return
	}
	k.accepted, k.present, k.acceptedAt = true, e.Present, e.At
	s := c.session(e.Client)
	if e.Present && (s == nil || k.clean) {
		// The client does not know what is in it: what was lost with a disk, or should have been ended by a clean start.
		if all := c.sessions[e.Client]; k.clean || len(all) == 0 {
			c.violation(e, "session", nil, "a session is present that there never was, or that a clean start should have ended")
		}
	}
	if s != nil && (e.Present || s.wiped != 0) {
		if !e.Present {
			c.unknown(e, s)
		}
		if s.node != e.Node || s.wiped != 0 {
			s.node, s.moves, s.wiped = e.Node, append(s.moves, e.At), 0
		}
		return
	}
	begun := &session{client: e.Client, node: e.Node, lasting: k.lasting, begun: e.At, ended: forever, got: map[string][]Event{}, mistaken: map[string]bool{}}
	if s != nil && c.forgotten(e, s) {
		begun.moves = append(begun.moves, e.At)
	}
	c.sessions[e.Client] = append(c.sessions[e.Client], begun)
}

// unknown judges that a session is not present whose node has lost its disk. One that begins in its place is joined with it later.
func (c *checker) unknown(e Event, s *session) {
	if s.something && c.calm(e.At-handingBack, e.At) {
		c.violation(e, "session", nil, "the session has been forgotten with the disk of its node")
	} else if s.something {
		c.report.excuse(SessionFault)
	}
}

// forgotten judges that a session is not present that should be, and reports whether it may be joined with the one that begins.
func (c *checker) forgotten(e Event, s *session) (joined bool) {
	switch {
	case !s.something: // there may never have been one
	case s.node != e.Node && !c.calm(s.begun, e.At):
		c.report.excuse(SessionFault)
		joined = true
	default:
		c.violation(e, "session", nil, "the session has been forgotten")
	}
	s.over(e.At, SessionOver)
	return joined
}

func (c *checker) readSubscription(e Event) {
	s := c.session(e.Client)
	if s == nil {
		c.violation(e, "harness", nil, "no session")
		return
	}
	if e.Kind == Unsubscribe {
		for _, st := range c.standing {
			if st.session == s && st.filter == e.Filter && st.to == forever {
				st.to, st.why = e.At, Unsubscribed
			}
		}
		return
	}
	c.report.Subscribed++
	s.something = true
	switch e.Text {
	case "refused":
		c.report.RefusedSubscriptions++
		return
	case "local":
		c.report.Local++
		if c.calm(e.At-settling, e.At) {
			c.report.LocalInCalm++
		}
	}
	c.standing = append(c.standing, &standing{session: s, filter: e.Filter, qos: e.QoS, from: e.At, to: forever, local: e.Text == "local"})
}

// ends returns when a subscription ended, and why.
func (st *standing) ends() (time.Duration, Excuse) {
	if st.to < st.ended {
		return st.to, st.why
	}
	return st.ended, st.session.why
}

// heldFrom returns from when the subscription held everywhere.
func (c *checker) heldFrom(st *standing) time.Duration {
	if met := c.alone(st.node, st.from); met != 0 {
		return met + settling
	}
	if !st.local {
		return st.from
	}
	for _, s := range c.storms {
		if s.from <= st.from && st.from <= s.to && s.to != forever {
			return s.to + settling
		}
	}
	return st.from + settling
}

// plain returns the filter of a shared subscription, and whether it is one.
func plain(filter string) (string, bool) {
	if rest, ok := strings.CutPrefix(filter, "$share/"); ok {
		_, rest, _ = strings.Cut(rest, "/")
		return rest, true
	}
	return filter, false
}

// matches is the rule of MQTT, as simple as can be.
func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i >= len(t) || level != "+" && level != t[i] {
			return false
		}
	}
	return len(f) == len(t)
}
