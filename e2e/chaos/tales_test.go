package chaos

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// tale is a history that is made by hand: every line happens a tenth of a second after the one before, unless a line says
// "wait SECONDS". Clients are at the node that their name ends with. Those whose name begins with p or s, and whose first
// line is not that they connect, are connected from the beginning with a lasting session, and those with s have subscribed to
// "t" at QoS 2.
func tale(text string) []Event {
	b := &book{seen: map[string]bool{}}
	lines := bufio.NewScanner(strings.NewReader(text))
	var said [][]string
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "//")
		if words := strings.Fields(line); len(words) > 0 {
			said = append(said, words)
		}
	}
	for _, words := range said {
		if len(words) > 1 && strings.ContainsAny(words[1][:1], "sp") && !b.seen[words[1]] && words[0] != "trouble" {
			b.seen[words[1]] = true
			if words[0] == "connect" {
				continue
			}
			b.do("connect", words[1])
			if words[1][0] == 's' {
				b.do("subscribed", words[1], "t", "2")
			}
		}
	}
	for _, words := range said {
		b.do(words[0], words[1:]...)
	}
	b.do("ended")
	return b.events
}

// book writes tales.
type book struct {
	at     time.Duration
	events []Event
	seen   map[string]bool
	open   map[string]int // clients' connections
	msgs   map[string]Event
}

func (b *book) add(e Event) {
	b.at += 100 * time.Millisecond
	e.At = b.at
	if e.Client != "" {
		if e.Node == 0 {
			e.Node = int(e.Client[len(e.Client)-1] - '0')
		}
		if e.Conn == 0 {
			e.Conn = b.open[e.Client]
		}
	}
	b.events = append(b.events, e)
}

func (b *book) do(verb string, args ...string) {
	if b.open == nil {
		b.open, b.msgs = map[string]int{}, map[string]Event{}
	}
	has := func(word string) bool {
		for _, a := range args {
			if a == word {
				return true
			}
		}
		return false
	}
	node := func(s string) (n []int) {
		for _, c := range s {
			n = append(n, int(c-'0'))
		}
		return n
	}
	switch verb {
	case "wait":
		d, _ := time.ParseDuration(args[0] + "s")
		b.at += d
	case "fault": // ID KIND [NODES [TO]]
		e := Event{Kind: Fault, ID: int(args[0][0] - '0'), Text: args[1] + " for a while"}
		if len(args) > 2 {
			e.Nodes = node(args[2])
		}
		if len(args) > 3 {
			e.Text = args[1] + " to " + args[3]
		}
		b.add(e)
	case "mended":
		b.add(Event{Kind: Mended, ID: int(args[0][0] - '0')})
	case "wiped": // NODES
		b.add(Event{Kind: Wiped, Nodes: node(args[0])})
	case "whole", "ended", "drained":
		b.add(Event{Kind: Kind(verb)})
	case "trouble":
		b.add(Event{Kind: Trouble, Text: strings.Join(args, " ")})
	case "connect": // CLIENT [clean] [short] [present] [elsewhere] [will] [unanswered]
		b.open[args[0]]++
		e := Event{Kind: Connect, Client: args[0], Clean: has("clean"), Lasting: !has("short")}
		if has("will") {
			e.Msg, e.Topic, e.QoS = args[0]+"/w", "t", 2
		}
		b.add(e)
		if !has("unanswered") {
			connected := Event{Kind: Connected, Client: args[0], Present: has("present")}
			if has("elsewhere") {
				connected.Node = 9
			}
			b.add(connected)
		}
	case "closed": // CLIENT HOW [CONN]
		e := Event{Kind: Closed, Client: args[0], Text: args[1]}
		if len(args) > 2 {
			_, _ = fmt.Sscan(args[2], &e.Conn)
		}
		b.add(e)
	case "subscribed", "unsubscribe": // CLIENT FILTER QOS [local]
		e := Event{Kind: Kind(verb), Client: args[0], Filter: args[1]}
		if len(args) > 2 {
			e.QoS = args[2][0] - '0'
		}
		if has("local") {
			e.Text = "local"
		}
		b.add(e)
	case "publish": // CLIENT MSG QOS [topic T] [retain] [empty] [dup]
		e := Event{Kind: Publish, Client: args[0], Msg: args[1], QoS: args[2][0] - '0', Topic: "t", Retain: has("retain"), Empty: has("empty"), Dup: has("dup")}
		b.msgs[e.Msg] = e
		b.add(e)
	case "acked", "refused", "unknown": // CLIENT MSG
		e := b.msgs[args[1]]
		e.Kind, e.Client, e.Conn = Kind(verb), args[0], 0
		b.add(e)
	case "received", "stale", "mistaken": // CLIENT MSG QOS [dup]
		e := Event{Kind: Kind(verb), Client: args[0], Msg: args[1], QoS: args[2][0] - '0', Topic: "t", Dup: has("dup")}
		if has("late") {
			e.Conn = b.open[args[0]] - 1
		}
		b.add(e)
	case "answer": // NODE MSG
		e := Event{Kind: Answer, Node: int(args[0][0] - '0'), Topic: "t", ID: 1}
		if len(args) > 1 {
			e.Msg = args[1]
		}
		b.add(e)
	case "send": // CLIENT MSG QOS: published and acknowledged
		b.do("publish", args...)
		b.do("acked", args[0], args[1])
	default:
		panic("what is " + verb)
	}
}

// TestChecker has histories of each kind of violation, each beside one that is none, and what is exempt.
func TestChecker(t *testing.T) {
	for _, c := range []struct {
		name, tale string
		violation  string // "" for none
		excuse     Excuse
	}{
		{"all is well", "send p1 p1/1 1 \n received s2 p1/1 1 \n send p1 p1/2 2 \n received s2 p1/2 2", "", ""},
		{"lost", "send p1 p1/1 1 \n received s2 p1/1 1 \n send p1 p1/2 1", "lost", ""},
		{"lost at QoS 2", "send p1 p1/1 2 \n received s3 p1/1 2 \n send p1 p1/2 0 \n received s2 p1/2 0", "lost", ""},
		{"QoS 0 may be lost", "publish p1 p1/1 0 \n received s2 p1/2 0 \n publish p1 p1/2 0", "", ""},
		{"not acknowledged", "publish p1 p1/1 1 \n publish p1 p1/2 2 \n unknown p1 p1/2 \n publish p1 p1/3 1 \n refused p1 p1/3 \n closed s2 lost", "", ""},
		{"lost, though the client was away", "closed s2 lost \n send p1 p1/1 1 \n connect s2 present", "lost", ""},
		{"published before the SUBACK", "send p1 p1/1 1 \n connect s2 \n subscribed s2 t 1", "", ""},
		{"published after it", "connect s2 \n subscribed s2 t 1 \n send p1 p1/1 1", "lost", ""},
		{"subscribed at QoS 0", "connect s2 \n subscribed s2 t 0 \n send p1 p1/1 1", "", ""},
		{"another topic", "connect s2 \n subscribed s2 u/# 1 \n send p1 p1/1 1", "", ""},
		{"unsubscribed meanwhile", "send p1 p1/1 1 \n unsubscribe s2 t", "", Unsubscribed},
		{"unsubscribed long after", "send p1 p1/1 1 \n wait 20 \n unsubscribe s2 t", "lost", ""},
		{"unsubscribed before", "unsubscribe s2 t \n send p1 p1/1 1", "", ""},
		{"a clean session that ends", "connect s2 short clean \n subscribed s2 t 1 \n send p1 p1/1 1 \n closed s2 left", "", SessionOver},
		{"a clean session that does not", "connect s2 short clean \n subscribed s2 t 1 \n send p1 p1/1 1", "lost", ""},
		{"a clean start ends a session", "send p1 p1/1 1 \n closed s2 left \n connect s2 clean", "", SessionOver},
		{"local", "fault 1 partition \n connect s2 \n subscribed s2 t 1 local \n send p1 p1/1 1 \n mended 1 \n whole", "", Local},
		{"local, but long ago", "fault 1 partition \n connect s2 \n subscribed s2 t 1 local \n mended 1 \n whole \n wait 40 \n send p1 p1/1 1", "lost", ""},
		{"the publisher's disk", "send p1 p1/1 1 \n received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 wipe 1 \n mended 1 \n whole", "", PublisherWiped},
		{"the publisher's disk, later", "send p1 p1/1 1 \n received s2 p1/0 0 \n publish p1 p1/0 0 \n wait 5 \n fault 1 wipe 1 \n mended 1 \n whole", "lost", ""},
		{"the publisher's disk, after trouble", "fault 2 partition \n send p1 p1/1 1 \n received s2 p1/0 0 \n publish p1 p1/0 0 \n wait 5 \n fault 1 wipe 1 \n mended 1 \n mended 2 \n whole", "", PublisherWiped},
		{"received at the last moment", "connect s2 \n subscribed s2 t 1 \n send p1 p1/1 1 \n fault 1 wipe 2 \n received s2 p1/1 1 \n closed s2 lost \n mended 1 \n whole", "", ""},
		{"another's disk", "send p1 p1/1 1 \n received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 wipe 3 \n mended 1 \n whole", "lost", ""},
		{"published before it met the swarm", "fault 1 wipe 1 \n send p1 p1/1 1 \n received s2 p1/0 0 \n publish p1 p1/0 0 \n mended 1 \n whole", "", SwarmOfItsOwn},
		{"published after it met the swarm", "fault 1 wipe 1 \n mended 1 \n send p1 p1/1 1 \n received s2 p1/0 0 \n publish p1 p1/0 0 \n whole", "lost", ""},
		{"promised before it met the swarm", "fault 1 wipe 2 \n connect s2 \n subscribed s2 t 1 \n send p1 p1/1 1 \n mended 1 \n whole", "", Local},
		{"the subscriber's disk, begun anew", "send p1 p1/1 1 \n received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 wipe 2 \n closed s2 lost \n mended 1 \n connect s2 \n whole", "lost", SessionFault},
		{"the subscriber's disk, gone on with", "send p1 p1/1 2 \n received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 wipe 2 \n closed s2 lost \n mended 1 \n connect s2 present elsewhere \n received s2 p1/1 2 \n whole", "", ""},
		{"the subscriber's disk, twice", "send p1 p1/1 2 \n received s2 p1/1 2 \n fault 1 wipe 2 \n closed s2 lost \n mended 1 \n connect s2 present \n received s2 p1/1 2 \n whole", "", Unreported},
		{"the subscriber's disk, twice, when it was known", "send p1 p1/1 2 \n received s2 p1/1 2 \n wait 5 \n fault 1 wipe 2 \n closed s2 lost \n mended 1 \n connect s2 present \n received s2 p1/1 2 \n whole", "twice", ""},
		{"the subscriber's disk, twice, after trouble", "fault 2 partition \n send p1 p1/1 2 \n received s2 p1/1 2 \n wait 5 \n fault 1 wipe 2 \n closed s2 lost \n mended 1 \n connect s2 present \n received s2 p1/1 2 \n mended 2 \n whole", "", Unreported},
		{"the subscriber's disk, twice, received as it was wiped", "send p1 p1/1 2 \n fault 1 wipe 2 \n received s2 p1/1 2 \n closed s2 lost \n wiped 2 \n mended 1 \n connect s2 present \n received s2 p1/1 2 \n whole", "", Unreported},
		{"the disk of both", "send p2 p2/1 1 \n received s2 p2/0 0 \n publish p2 p2/0 0 \n wait 20 \n fault 1 wipe 2 \n closed s2 lost \n mended 1 \n connect s2 present \n whole", "lost", ""},
		{"the subscriber's disk", "send p1 p1/1 1 \n received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 wipe 2 \n mended 1 \n whole", "lost", ""},

		{"twice at QoS 2", "send p1 p1/1 2 \n received s2 p1/1 2 \n received s2 p1/1 2", "twice", ""},
		{"twice at QoS 2, on another connection", "send p1 p1/1 2 \n received s2 p1/1 2 \n connect s2 present \n received s2 p1/1 2", "twice", ""},
		{"twice after a crash", "send p1 p1/1 2 \n received s2 p1/1 2 \n fault 1 kill 3 \n mended 1 \n received s2 p1/1 2", "twice", ""},
		{"twice after a crash, in a session that goes on", "send p1 p1/1 2 \n received s2 p1/1 2 \n fault 1 kill 2 \n closed s2 lost \n mended 1 \n connect s2 present \n received s2 p1/1 2", "twice", ""},
		{"twice after a stop", "send p1 p1/1 2 \n received s2 p1/1 2 \n wait 20 \n fault 1 restart 3 \n mended 1 \n received s2 p1/1 2", "twice", ""},
		{"twice after a stop in a partition", "send p1 p1/1 2 \n received s2 p1/1 2 \n fault 2 partition \n fault 1 restart 3 \n mended 1 \n received s2 p1/1 2 \n mended 2", "twice", ""},
		{"twice after a partition", "send p1 p1/1 2 \n received s2 p1/1 2 \n fault 1 partition \n mended 1 \n received s2 p1/1 2", "twice", ""},
		{"twice at QoS 1, sent again", "send p1 p1/1 1 \n received s2 p1/1 1 \n received s2 p1/1 1 dup", "", ""},
		{"twice at QoS 1, published again", "publish p1 p1/1 1 \n publish p1 p1/1 1 dup \n acked p1 p1/1 \n received s2 p1/1 1 \n received s2 p1/1 1", "", ""},
		{"twice at QoS 1 for no reason", "send p1 p1/1 1 \n received s2 p1/1 1 \n received s2 p1/1 1", "twice", ""},
		{"twice at QoS 1, in a session that moved", "received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 partition \n connect s2 present elsewhere \n send p1 p1/1 1 \n mended 1 \n received s2 p1/1 1 \n received s2 p1/1 1", "", JoinedParts},
		{"twice at QoS 1, in a session that came back to a node that lost its disk", "received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 wipe 2 \n closed s2 lost \n connect s2 present \n send p1 p1/1 1 \n mended 1 \n received s2 p1/1 1 \n received s2 p1/1 1", "", JoinedParts},
		{"twice at QoS 1, in a session that began anew at a node that lost its disk", "received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 wipe 2 \n closed s2 lost \n connect s2 \n subscribed s2 t 2 \n send p1 p1/1 1 \n mended 1 \n received s2 p1/1 1 \n received s2 p1/1 1", "", JoinedParts},
		{"twice at QoS 1, in a session that began anew at another node in a fault", "send p1 p1/0 1 \n received s2 p1/0 1 \n fault 1 partition \n connect s2 elsewhere \n subscribed s2 t 2 \n send p1 p1/1 1 \n mended 1 \n received s2 p1/1 1 \n received s2 p1/1 1", "", JoinedParts},
		{"twice at QoS 1, in a session that began anew by a clean start", "fault 1 partition \n connect s2 clean elsewhere \n subscribed s2 t 2 \n send p1 p1/1 1 \n mended 1 \n received s2 p1/1 1 \n received s2 p1/1 1", "twice", ""},
		{"twice at QoS 2, in a session that moved", "received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 partition \n connect s2 present elsewhere \n send p1 p1/1 2 \n mended 1 \n received s2 p1/1 2 \n received s2 p1/1 2", "twice", ""},
		{"twice at QoS 1, in a session that moved in peace", "received s2 p1/0 0 \n publish p1 p1/0 0 \n closed s2 lost \n connect s2 present elsewhere \n wait 20 \n send p1 p1/1 1 \n received s2 p1/1 1 \n received s2 p1/1 1", "twice", ""},
		{"taken for another", "send p1 p1/1 2 \n mistaken s2 p1/1 2", "lost", ""},
		{"taken for another, in a session that moved", "received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 partition \n connect s2 present elsewhere \n send p1 p1/1 2 \n mended 1 \n mistaken s2 p1/1 2", "lost", ""},
		{"twice at QoS 0", "publish p1 p1/1 0 \n received s2 p1/1 0 \n received s2 p1/1 0", "twice", ""},
		{"invented", "received s2 p1/1 1", "invented", ""},

		{"out of order", "send p1 p1/1 1 \n send p1 p1/2 1 \n received s2 p1/2 1 \n received s2 p1/1 1", "order", ""},
		{"of two QoS", "send p1 p1/1 1 \n send p1 p1/2 2 \n received s2 p1/2 2 \n received s2 p1/1 1", "", ""},
		{"of two publishers", "send p1 p1/1 1 \n send p3 p3/2 1 \n received s2 p3/2 1 \n received s2 p1/1 1", "", ""},
		{"again, in order", "send p1 p1/1 1 \n send p1 p1/2 1 \n received s2 p1/1 1 \n received s2 p1/2 1 \n received s2 p1/1 1 dup", "", ""},
		{"out of order, after a fault", "send p1 p1/1 1 \n fault 1 slow \n send p1 p1/2 1 \n received s2 p1/2 1 \n mended 1 \n whole \n received s2 p1/1 1", "", OrderFault},
		{"out of order, not whole yet", "fault 1 slow \n mended 1 \n send p1 p1/1 1 \n send p1 p1/2 1 \n whole \n received s2 p1/2 1 \n received s2 p1/1 1", "", OrderFault},
		{"out of order, whole again", "fault 1 slow \n mended 1 \n whole \n wait 5 \n send p1 p1/1 1 \n send p1 p1/2 1 \n received s2 p1/2 1 \n received s2 p1/1 1", "order", ""},
		{"out of order, while rendezvous hand back", "fault 1 slow \n mended 1 \n whole \n wait 3 \n send p1 p1/1 1 \n send p1 p1/2 1 \n received s2 p1/2 1 \n received s2 p1/1 1", "", OrderFault},
		{"out of order, of what a part of the session was subscribed to", "received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 partition \n connect s2 present elsewhere \n mended 1 \n whole \n unsubscribe s2 t \n wait 9 \n send p1 p1/1 1 \n subscribed s2 t 1 \n send p1 p1/2 1 \n received s2 p1/2 1 \n received s2 p1/1 1", "", OrderUnasked},
		{"out of order, in a session that has moved", "received s2 p1/0 0 \n publish p1 p1/0 0 \n fault 1 partition \n connect s2 present elsewhere \n mended 1 \n whole \n wait 9 \n send p1 p1/1 1 \n send p1 p1/2 1 \n received s2 p1/2 1 \n received s2 p1/1 1", "order", ""},
		{"out of order, of what was not subscribed to", "unsubscribe s2 t \n wait 9 \n send p1 p1/1 1 \n subscribed s2 t 1 \n send p1 p1/2 1 \n received s2 p1/2 1 \n received s2 p1/1 1", "order", ""},
		{"out of order, while a node joins", "fault 1 join 6 \n send p1 p1/1 1 \n send p1 p1/2 1 \n received s2 p1/2 1 \n received s2 p1/1 1", "order", ""},

		{"session", "connect s2 \n subscribed s2 t 1 \n closed s2 lost \n connect s2", "session", ""},
		{"session, with nothing in it", "connect s2 \n closed s2 lost \n connect s2", "", ""},
		{"session, wiped", "connect s2 \n subscribed s2 t 1 \n fault 1 wipe 2 \n closed s2 lost \n mended 1 \n connect s2", "", SessionFault},
		{"session, wiped, and all is well", "connect s2 \n subscribed s2 t 1 \n fault 1 wipe 2 \n closed s2 lost \n mended 1 \n whole \n wait 9 \n connect s2", "session", ""},
		{"session, wiped, goes on", "connect s2 \n subscribed s2 t 1 \n fault 1 wipe 2 \n closed s2 lost \n mended 1 \n whole \n wait 9 \n connect s2 present", "", ""},
		{"session, from nowhere", "connect s2 present", "session", ""},
		{"session, after a clean start", "connect s2 \n connect s2 clean present", "session", ""},

		{"will", "connect m1 will short clean \n received s2 m1/w 2 \n closed m1 left", "", ""},
		{"no will", "connect m1 will short clean \n send p1 p1/1 0 \n received s2 p1/1 0 \n closed m1 left", "will", ""},
		{"no will, said goodbye", "connect m1 will short clean \n send p1 p1/1 0 \n received s2 p1/1 0 \n closed m1 said", "", ""},
		{"a will, though said goodbye", "connect m1 will short clean \n closed m1 said \n received s2 m1/w 2", "will", ""},
		{"a will, said to a node that crashes", "connect m1 will short clean \n fault 1 kill 1 \n closed m1 said \n received s2 m1/w 2 \n mended 1", "", WillUnknown},
		{"a will twice", "connect m1 will short clean \n closed m1 left \n received s2 m1/w 2 \n received s2 m1/w 2", "twice", ""},
		{"no will, never accepted", "connect m1 will short clean unanswered \n closed m1 refused \n closed s2 lost", "", WillUnknown},
		{"no will, crashed", "connect m1 will short clean \n send p1 p1/1 0 \n received s2 p1/1 0 \n fault 1 kill 1 \n closed m1 lost \n mended 1", "", WillUnknown},
		{"no will, crashed, and gone for good", "connect m1 will short clean \n send p1 p1/1 0 \n received s2 p1/1 0 \n wait 60 \n fault 1 kill 1 \n closed m1 lost \n mended 1 \n whole \n wait 60", "will", ""},
		{"no will, wiped, and gone for good", "connect m1 will short clean \n send p1 p1/1 0 \n received s2 p1/1 0 \n wait 60 \n fault 1 wipe 1 \n closed m1 lost \n mended 1 \n whole \n wait 60", "will", ""},
		{"no will, crashed, and back", "connect m1 will short clean \n send p1 p1/1 0 \n received s2 p1/1 0 \n wait 60 \n fault 1 kill 1 \n closed m1 lost \n mended 1 \n whole \n connect m1 \n wait 60", "", WillUnknown},
		{"a will, though said goodbye, after a false alarm", "connect m1 will short clean \n fault 1 partition \n wait 20 \n received s2 m1/w 2 \n mended 1 \n whole \n closed m1 said", "", WillFalseAlarm},
		{"a will, though said goodbye, after a short fault", "connect m1 will short clean \n fault 1 partition \n wait 2 \n mended 1 \n whole \n wait 60 \n closed m1 said \n received s2 m1/w 2", "will", ""},
		{"a will twice, after a false alarm", "connect m1 will short clean \n fault 1 partition \n wait 20 \n received s2 m1/w 2 \n mended 1 \n whole \n wait 60 \n closed m1 left \n received s2 m1/w 2", "", WillFalseAlarm},
		{"no will, wiped", "connect m1 will short clean \n send p1 p1/1 0 \n received s2 p1/1 0 \n fault 1 wipe 1 \n closed m1 lost \n mended 1", "", WillUnknown},
		{"no will, frozen", "connect m1 will short clean \n send p1 p1/1 0 \n received s2 p1/1 0 \n fault 1 freeze 1 \n closed m1 lost \n mended 1", "will", ""},
		{"no will, the node stopped", "connect m1 will short clean \n send p1 p1/1 0 \n received s2 p1/1 0 \n closed m1 sent", "", WillUnknown},

		{"taken over", "connect s2 \n connect s2 present \n closed s2 sent 1", "", ""},
		{"not taken over", "connect s2 \n connect s2 present \n wait 20 \n closed s2 open 1", "connections", ""},
		{"not closed at all", "connect s2 \n connect s2 present \n wait 20 \n ended", "connections", ""},
		{"not taken over, with a fault", "connect s2 \n connect s2 present \n fault 1 freeze 2 \n wait 20 \n mended 1 \n closed s2 open 1 \n whole", "", TwoHolders},
		{"a message on the old connection", "send p1 p1/1 1 \n connect s2 \n connect s2 present \n wait 11 \n stale s2 p1/1 1 late \n closed s2 sent 1", "connections", ""},

		{"retained", "send p1 p1/1 1 retain \n send p1 p1/2 1 retain \n answer 1 p1/2 \n answer 2 p1/2", "", ""},
		{"retained, not the same", "send p1 p1/1 1 retain \n publish p1 p1/2 1 retain \n answer 1 p1/2 \n answer 2 p1/1", "retained", ""},
		{"retained, old", "send p1 p1/1 1 retain \n send p1 p1/2 1 retain \n answer 1 p1/1 \n answer 2 p1/1", "retained", ""},
		{"retained, lost", "send p1 p1/1 1 retain \n answer 1 \n answer 2", "retained", ""},
		{"retained, cleared", "send p1 p1/1 1 retain \n send p1 p1/2 1 retain empty \n answer 1", "", ""},
		{"retained, not cleared", "send p1 p1/1 1 retain \n send p1 p1/2 1 retain empty \n answer 1 p1/1", "retained", ""},
		{"retained, not acknowledged", "send p1 p1/1 1 retain \n publish p1 p1/2 1 retain \n answer 1 p1/1", "", ""},
		{"retained, one of two at once", "publish p1 p1/1 1 retain \n publish p3 p3/1 1 retain \n acked p3 p3/1 \n acked p1 p1/1 \n answer 1 p1/1", "", ""},
		{"retained, within a second", "fault 1 slow \n send p1 p1/1 1 retain \n send p3 p3/1 1 retain \n mended 1 \n whole \n answer 1 p1/1", "", WithinASecond},
		{"retained, not within a second", "fault 1 slow \n send p1 p1/1 1 retain \n wait 1 \n send p3 p3/1 1 retain \n mended 1 \n whole \n answer 1 p1/1", "retained", ""},
		{"retained, a clock set ahead in a fault", "fault 1 partition \n fault 2 clock 1 1h \n mended 2 \n send p1 p1/1 1 retain \n wait 2 \n send p3 p3/1 1 retain \n mended 1 \n whole \n answer 1 p1/1", "", ClockUnheard},
		{"retained, a clock set back in a fault", "fault 1 partition \n fault 2 clock 1 -1h \n mended 2 \n send p1 p1/1 1 retain \n wait 2 \n send p3 p3/1 1 retain \n mended 1 \n whole \n answer 1 p1/1", "retained", ""},
		{"retained, a clock set ahead, and heard of", "fault 2 clock 1 1h \n mended 2 \n wait 4 \n fault 1 partition \n send p1 p1/1 1 retain \n wait 2 \n send p3 p3/1 1 retain \n mended 1 \n whole \n answer 1 p1/1", "retained", ""},
		{"retained, lost with a disk", "send p1 p1/1 1 retain \n send p3 p3/1 1 retain \n fault 1 wipe 3 \n mended 1 \n whole \n answer 1 p1/1", "", PublisherWiped},

		{"trouble", "trouble a node has ended", "trouble", ""},
	} {
		t.Run(c.name, func(t *testing.T) { judge(t, c.tale, c.violation, c.excuse) })
	}
}

// judge checks a tale.
func judge(t *testing.T, story, violation string, excuse Excuse) {
	t.Helper()
	events := tale(story)
	r := Check(events, KnownNow)
	lines := func() (text string) {
		for _, e := range events {
			text += fmt.Sprintf("%v\n", e)
		}
		return text
	}
	for _, v := range r.Violations {
		if v.What != violation {
			t.Errorf("violation %q: %v\n%s", v.What, v.Why, lines())
		}
	}
	if violation != "" && len(r.Violations) != 1 {
		t.Errorf("%d violations, want one %q\n%s%v", len(r.Violations), violation, lines(), r)
	}
	if excuse != "" && r.Exemptions[excuse] != 1 || excuse == "" && len(r.Exemptions) > 0 {
		t.Errorf("exemptions %v, want %q\n%s", r.Exemptions, excuse, lines())
	}
}

// TestShared has histories of a shared group, of sa2 and sb3.
func TestShared(t *testing.T) {
	const both = "connect a2 \n subscribed a2 $share/g/t 2 \n connect b3 \n subscribed b3 $share/g/t 2 \n"
	for _, c := range []struct {
		name, tale, violation string
		excuse                Excuse
	}{
		{"one has it", "send p1 p1/1 2 \n received b3 p1/1 2", "", ""},
		{"nobody has it", "send p1 p1/1 2", "lost", ""},
		{"both have it", "send p1 p1/1 2 \n received b3 p1/1 2 \n received a2 p1/1 2", "twice", ""},
		{"both have it, after a partition", "send p1 p1/1 2 \n fault 1 partition \n received b3 p1/1 2 \n mended 1 \n received a2 p1/1 2", "", KnownSharedTwice},
		{"both have it at QoS 1", "send p1 p1/1 1 \n received b3 p1/1 1 \n received a2 p1/1 1", "", ""},
		{"a member's session comes back when the disk was wiped", "fault 1 wipe 3 \n closed b3 lost \n mended 1 \n connect b3 present \n whole \n send p1 p1/1 1 \n received b3 p1/1 1", "", ""},
		{"a member's session is gone at QoS 1", "send p1 p1/1 1 \n fault 1 wipe 3 \n closed b3 lost \n mended 1 \n whole", "lost", ""},
		{"a member's session is gone", "send p1 p1/1 2 \n fault 1 wipe 3 \n closed b3 lost \n mended 1 \n whole", "", MemberOver},
		{"out of order", "send p1 p1/1 1 \n send p1 p1/2 1 \n received a2 p1/2 1 \n received a2 p1/1 1", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) { judge(t, both+c.tale, c.violation, c.excuse) })
	}
}

// TestSharedWentOn: the session of a member has gone on at another node when the disk of its first is wiped, with what only that knew.
func TestSharedWentOn(t *testing.T) {
	for qos, excused := range map[int]int{1: 0, 2: 1} {
		events := tale(fmt.Sprintf("connect a2 \n subscribed a2 $share/g/t 2 \n connect b3 \n subscribed b3 $share/g/t 2 \n send p1 p1/1 %d \n"+
			" fault 1 kill 3 \n closed b3 lost \n connect b3 present \n fault 2 wipe 3 \n mended 2 \n whole", qos))
		for i := range events {
			if e := &events[i]; e.Client == "b3" && e.Conn == 2 {
				e.Node = 4
			}
		}
		if r := Check(events, KnownNow); r.Exemptions[MemberOver] != excused || len(r.Violations) != 1-excused {
			t.Errorf("QoS %d: %v", qos, r)
		}
	}
}

// TestStrict checks that nothing which is known to be missing is excused when it is not missing any more.
func TestStrict(t *testing.T) {
	for _, story := range []string{
		"send p1 p1/1 2 \n received s2 p1/1 2 \n fault 1 kill 3 \n mended 1 \n received s2 p1/1 2",
		"send p1 p1/1 1 \n received s2 p1/0 0 \n publish p1 p1/0 0 \n wait 20 \n fault 1 wipe 2 \n mended 1 \n whole",
	} {
		if r := Check(tale(story), Known{}); len(r.Violations) != 1 {
			t.Errorf("%d violations, want 1: %s\n%v", len(r.Violations), story, r)
		}
	}
}

// TestHistoryLines checks that a history is read as it was written.
func TestHistoryLines(t *testing.T) {
	var text strings.Builder
	want := tale("send p1 p1/1 2 retain \n connect m1 will \n fault 1 kill 12 \n answer 1 p1/1")
	for _, e := range want {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s\n", line)
	}
	got, err := Read(strings.NewReader(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// TestDraw draws plans and looks whether they keep to their limits.
func TestDraw(t *testing.T) {
	drawn := map[FaultKind]int{}
	for seed := range uint64(300) {
		o := Options{Nodes: 5, Duration: 5 * time.Minute}
		draw := func() []Step { return Draw(rand.New(rand.NewPCG(seed, 1)), o) }
		plan := draw()
		if fmt.Sprint(plan) != fmt.Sprint(draw()) {
			t.Fatalf("seed %d: drawn twice, the plan is not the same", seed)
		}
		wiped := -betweenWipes
		for i, s := range plan {
			drawn[s.Kind]++
			if i > 0 && s.At < plan[i-1].At || s.At >= o.Duration || s.Node > o.Nodes+joiners {
				t.Errorf("seed %d: %v at %v, at node %d", seed, s, s.At, s.Node)
			}
			down := 0
			for _, u := range plan[:i] {
				if u.Node != 0 && !u.Kind.harmless() && u.At+u.Lasts > s.At {
					down++
				}
			}
			if s.Node != 0 && !s.Kind.harmless() && down >= most || s.Kind == Power && down > 0 || s.Kind == Wipe && (down > 0 || s.At-wiped < betweenWipes) {
				t.Errorf("seed %d: %v at %v while %d nodes are down, the last disk went at %v", seed, s, s.At, down, wiped)
			}
			if s.Kind == Wipe {
				wiped = s.At
			}
		}
	}
	for _, k := range kinds {
		if drawn[k.kind] < 50 {
			t.Errorf("%d times %s in 300 plans", drawn[k.kind], k.kind)
		}
	}
}
