package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// Kind is what an event is.
type Kind string

// What happens. Which fields an event of a kind has is said behind it.
const (
	Began   Kind = "began"   // Text: the settings
	Fault   Kind = "fault"   // ID, Text: its FaultKind and what else is to be known, Nodes: those that it befalls
	Mended  Kind = "mended"  // ID, Text, Nodes: the fault is over: the node has been started again, the links are as before
	Wiped   Kind = "wiped"   // Nodes: the disk of a node that is down is gone
	Whole   Kind = "whole"   // no fault is going on, every node runs and has met all others
	Trouble Kind = "trouble" // Text: what must not be, such as a node that ended by itself
	Drained Kind = "drained" // nothing waits at any node any more
	Ended   Kind = "ended"

	// What a client does and sees: Client, Conn, Node, and for most a message's Msg, Topic, QoS and Retain.
	Connect     Kind = "connect"     // is about to send CONNECT: Clean; Lasting, if it asks for a session that outlives connections; its will
	Connected   Kind = "connected"   // CONNACK: Present
	Closed      Kind = "closed"      // the connection is over: Text says how, one of the how… below
	Subscribe   Kind = "subscribe"   // is about to send SUBSCRIBE: Filter, QoS
	Subscribed  Kind = "subscribed"  // SUBACK: Filter, QoS; Text: "local", "refused" or nothing
	Unsubscribe Kind = "unsubscribe" // is about to send UNSUBSCRIBE: Filter
	Publish     Kind = "publish"     // is about to send PUBLISH; Dup
	Acked       Kind = "acked"       // PUBACK or PUBREC
	Refused     Kind = "refused"     // PUBACK or PUBREC with a reason of failure: Text
	Unknown     Kind = "unknown"     // QoS 2, not acknowledged when its session was over: nobody will ever know
	Received    Kind = "received"    // PUBLISH: Dup, ID is the packet ID. At QoS 2 the first one of an exchange only
	Mistaken    Kind = "mistaken"    // PUBLISH at QoS 2 with the packet ID of an exchange that is open, of another message: the client takes it for that one
	Stale       Kind = "stale"       // PUBLISH on a connection whose client has connected again since
	Answer      Kind = "answer"      // at the end: Node has the retained message Msg on Topic, "" for none; ID numbers the rounds of questions
)

// How a connection ended.
const (
	howSaid   = "said"   // the client sent DISCONNECT, and then the node closed the connection
	howUnread = "unread" // the client sent DISCONNECT, and nothing is known of how it arrived
	howLeft   = "left"   // the client closed it without a word
	howLost   = "lost"   // the connection broke, or said nothing more
	howSent   = "sent "  // and a reason code: the node sent DISCONNECT
	howOpen   = "open"   // a client that had connected again has waited in vain for the old connection to be closed
	howRefuse = "refused"
)

// Event is a line of a history.
type Event struct {
	At      time.Duration `json:"t"` // since the beginning
	Kind    Kind          `json:"k"`
	ID      int           `json:"id,omitempty"`
	Nodes   []int         `json:"nodes,omitempty"`
	Text    string        `json:"x,omitempty"`
	Client  string        `json:"c,omitempty"`
	Conn    int           `json:"n,omitempty"`    // number of the client's connection
	Node    int           `json:"node,omitempty"` // from 1
	Msg     string        `json:"m,omitempty"`    // what is published has an ID, which says who published it: "p1/17"
	Topic   string        `json:"topic,omitempty"`
	Filter  string        `json:"f,omitempty"`
	QoS     byte          `json:"q,omitempty"`
	Retain  bool          `json:"r,omitempty"`
	Dup     bool          `json:"dup,omitempty"`
	Empty   bool          `json:"empty,omitempty"` // of what is published: without a payload
	Clean   bool          `json:"clean,omitempty"`
	Lasting bool          `json:"lasting,omitempty"`
	Present bool          `json:"present,omitempty"`
}

// String is a line for people.
func (e Event) String() string {
	text := fmt.Sprintf("%10.3f %-11s", e.At.Seconds(), e.Kind)
	if e.Client != "" {
		text += fmt.Sprintf(" %s/%d at %d", e.Client, e.Conn, e.Node)
	} else if e.Node != 0 {
		text += fmt.Sprintf(" node %d", e.Node)
	}
	if e.Nodes != nil {
		text += fmt.Sprintf(" nodes %v", e.Nodes)
	}
	for _, part := range []struct{ name, value string }{{"", e.Msg}, {"topic ", e.Topic}, {"filter ", e.Filter}, {"", e.Text}} {
		if part.value != "" {
			text += " " + part.name + part.value
		}
	}
	for _, flag := range []struct {
		name string
		set  bool
	}{{"QoS 1", e.QoS == 1}, {"QoS 2", e.QoS == 2}, {"retain", e.Retain}, {"dup", e.Dup}, {"clean", e.Clean}, {"lasting", e.Lasting}, {"present", e.Present}} {
		if flag.set {
			text += " " + flag.name
		}
	}
	if e.ID != 0 {
		text += fmt.Sprint(" #", e.ID)
	}
	return text
}

// History is an append-only file of events. Its methods may be called by anyone at any time.
type History struct {
	began time.Time

	mu     sync.Mutex
	events []Event
	file   *os.File
	out    *bufio.Writer
	err    error // the first
}

// Create makes the file of a new history.
func Create(path string) (*History, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &History{began: time.Now(), file: f, out: bufio.NewWriterSize(f, 1<<20)}, nil
}

// Add writes down that something happens now. What a client is about to do is written down before it does it, and what it sees
// after it has seen it, so that an order of two events in the history is one that there was.
func (h *History) Add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.At = time.Since(h.began)
	h.events = append(h.events, e)
	line, err := json.Marshal(e)
	if err == nil {
		_, err = h.out.Write(append(line, '\n'))
	}
	if err == nil && e.Client == "" {
		err = h.out.Flush()
	}
	h.err = errors.Join(h.err, err)
}

// Events returns what has been added so far. It is not to be changed.
func (h *History) Events() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clip(h.events)
}

// Close closes the file.
func (h *History) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(h.err, h.out.Flush(), h.file.Close())
}

// Read reads a history.
func Read(r io.Reader) (events []Event, err error) {
	in := json.NewDecoder(r)
	for {
		var e Event
		if err := in.Decode(&e); err == io.EOF {
			return events, nil
		} else if err != nil {
			return events, fmt.Errorf("event %d: %w", len(events)+1, err)
		}
		events = append(events, e)
	}
}
