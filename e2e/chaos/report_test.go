package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is what a checker says of a history.
type Report struct {
	Faults                         map[FaultKind]int
	Published, Acked               [3]int // by QoS
	Refused, Unknown               int
	Received                       int
	Owed                           int // what subscriptions had to get, each counted for itself
	Subscribed, Local, LocalInCalm int // SUBACKs; those that said local, and while all was well
	RefusedSubscriptions           int
	InOrder                        int // pairs that had to be in order
	Wills, WillsOwed, Takeovers    int
	Retained                       int // topics
	Exemptions                     map[Excuse]int
	Violations                     []Violation
	events                         []Event
}

// Violation is something that must not be.
type Violation struct {
	Event        // when it was seen, and whom and what it concerns
	What  string // lost, twice, order, retained, will, session, connections, invented, trouble; harness: the harness is wrong
	Why   string
}

func newReport(events []Event) *Report {
	return &Report{Faults: map[FaultKind]int{}, Exemptions: map[Excuse]int{}, events: events}
}

func (r *Report) excuse(e Excuse) { r.Exemptions[e]++ }

func (c *checker) violation(e Event, what string, s *session, why string) {
	if s != nil && e.Client == "" {
		e.Client, e.Node = s.client, s.node
	}
	c.report.Violations = append(c.report.Violations, Violation{e, what, why})
}

// first says what the first violations are, in a line: what is read of a run may be its end alone.
func (r *Report) first() string {
	const shown = 3
	var b strings.Builder
	for _, v := range r.Violations[:min(shown, len(r.Violations))] {
		fmt.Fprintf(&b, "; %s: %s %s %s (node %d): %s", v.What, v.Msg, v.Topic, v.Client, v.Node, v.Why)
	}
	return b.String()
}

// has reports whether there are violations of a kind.
func (r *Report) has(what string) bool {
	return slices.ContainsFunc(r.Violations, func(v Violation) bool { return v.What == what })
}

// owes reports whether something has not come that may still be on its way.
func (r *Report) owes() bool {
	return slices.ContainsFunc(r.Violations, func(v Violation) bool {
		return v.What == "lost" || v.What == "will" && !strings.Contains(v.Why, "goodbye")
	})
}

// String tells what happened.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprint(&b, "faults:")
	for _, k := range kinds {
		if n := r.Faults[k.kind]; n > 0 {
			fmt.Fprintf(&b, " %d %s", n, k.kind)
		}
	}
	fmt.Fprintf(&b, "\nmessages: %d published (by QoS %v), %v acknowledged, %d refused, %d of unknown fate; %d received, %d owed\n",
		r.Published[0]+r.Published[1]+r.Published[2], r.Published, r.Acked[1:], r.Refused, r.Unknown, r.Received, r.Owed)
	fmt.Fprintf(&b, "SUBACKs: %d, %d local (%d of them where all was well), %d refused; takeovers: %d; pairs in order: %d; wills: %d, %d owed; retained topics: %d\n",
		r.Subscribed, r.Local, r.LocalInCalm, r.RefusedSubscriptions, r.Takeovers, r.InOrder, r.Wills, r.WillsOwed, r.Retained)
	for _, e := range slices.Sorted(maps.Keys(r.Exemptions)) {
		fmt.Fprintf(&b, "exempt: %6d  %s\n", r.Exemptions[e], e)
	}
	byKind := map[string]int{}
	for _, v := range r.Violations {
		byKind[v.What]++
	}
	fmt.Fprintf(&b, "violations: %d %v\n", len(r.Violations), byKind)
	const shown = 5 // of each kind, with what was around
	for what := range byKind {
		n := 0
		for _, v := range r.Violations {
			if v.What != what {
				continue
			}
			if n++; n > shown {
				fmt.Fprintf(&b, "... and %d more: %s\n", byKind[what]-shown, what)
				break
			}
			r.tell(&b, v)
		}
	}
	return b.String()
}

// tell tells of a violation and of what was around it.
func (r *Report) tell(b *strings.Builder, v Violation) {
	fmt.Fprintf(b, "--- %s at %.3f: %s %s %s (node %d): %s\n", v.What, v.At.Seconds(), v.Msg, v.Topic, v.Client, v.Node, v.Why)
	from, to := v.At, v.At
	publisher, _, _ := strings.Cut(v.Msg, "/")
	for _, e := range r.events {
		if v.Msg != "" && e.Msg == v.Msg && e.Kind != Answer {
			from, to = min(from, e.At), max(to, e.At)
		}
	}
	const around, lines = 8 * time.Second, 60
	n := 0
	for _, e := range r.events {
		if e.At < from-around || e.At > to+around {
			continue
		}
		switch {
		case v.Msg != "" && e.Msg == v.Msg:
		case e.Kind == Fault, e.Kind == Mended, e.Kind == Wiped, e.Kind == Whole, e.Kind == Trouble:
		case e.Client != "" && (e.Client == v.Client || e.Client == publisher) &&
			(e.Kind == Connect || e.Kind == Connected || e.Kind == Closed || e.Kind == Subscribed || e.Kind == Unsubscribe):
		case v.What == "retained" && e.Topic == v.Topic && (e.Kind == Publish || e.Kind == Acked):
		default:
			continue
		}
		if n++; n > lines {
			fmt.Fprintln(b, "    ...")
			return
		}
		fmt.Fprintf(b, "    %v\n", e)
	}
}
