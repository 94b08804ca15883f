package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// demoNodes is how many nodes the demo starts: the smallest swarm in which publisher, subscriber and
// rendezvous can all be different nodes.
const demoNodes = 3

// demoPatience is how long the demo waits for a message before it says that the nodes are no swarm, s.
const demoPatience = 15 * time.Second

// demoMessages is what the demo publishes, over and over. The first level of a topic decides who its
// rendezvous is.
var demoMessages = []client.Message{
	{Topic: "doors/front", Payload: []byte("open")},
	{Topic: "kitchen/temperature", Payload: []byte("21.4")},
	{Topic: "garden/soil/moisture", Payload: []byte("38 %")},
	{Topic: "doors/front", Payload: []byte("closed")},
	{Topic: "cellar/pump", Payload: []byte("off")},
}

var demoFilters = []string{"doors/#", "kitchen/#", "garden/#", "cellar/#"}

// demoProperty is the user property by which the demo knows its own messages again.
const demoProperty = "demo"

func newDemo() *cobra.Command {
	d := &demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See three nodes at work on this machine",
		Long: `Start three nodes on this machine, join them to a private swarm, subscribe at the first, publish at the others,
and show the messages cross: the topic, the node that it was published at, the rendezvous that it went by way
of, and how long it took. Nothing is left behind at the end.`,
		Example: `  mozzie demo
  mozzie demo --count 10 --interval 100ms
  mozzie demo --json | jq .latency_ms`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.interval <= 0 || d.count < 0 {
				return usagef("--interval wants more than nothing, --count at least 0")
			}
			ctx, cancel := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer cancel()
			err := d.run(ctx, cmd.OutOrStdout())
			if ctx.Err() != nil {
				return nil // told to stop, which is how a demo ends
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&d.json, "json", false, "print a JSON object a line: one with the nodes, then one for each message")
	cmd.Flags().IntVar(&d.count, "count", 0, "end after `N` messages (default: at Ctrl-C)")
	cmd.Flags().DurationVar(&d.interval, "interval", time.Second, "`TIME` between messages")
	return cmd
}

// demo is one run of the demo.
type demo struct {
	json     bool
	count    int
	interval time.Duration

	out      io.Writer
	nodes    []*demoNode
	arrived  chan demoArrival
	sent     map[string]demoSent // by the value of demoProperty
	sequence int
}

type demoSent struct {
	node int
	at   time.Time
}

type demoArrival struct {
	message client.Message
	at      time.Time
}

// demoLine is what --json prints. Nodes count from 1.
type demoLine struct {
	Event     string      `json:"event"` // "nodes" or "message"
	Nodes     []*demoNode `json:"nodes,omitempty"`
	Topic     string      `json:"topic,omitempty"`
	Payload   string      `json:"payload,omitempty"`
	From      int         `json:"from,omitempty"` // the publisher's node; 0: a client that is not the demo's
	Via       int         `json:"via,omitempty"`  // the rendezvous
	At        int         `json:"at,omitempty"`   // the subscriber's node
	LatencyMS float64     `json:"latency_ms,omitempty"`
}

func (d *demo) run(ctx context.Context, out io.Writer) error {
	d.out = out
	d.arrived = make(chan demoArrival, 256)
	d.sent = map[string]demoSent{}
	if !d.json {
		fmt.Fprintf(out, "Starting %d nodes...\n", demoNodes)
	}
	swarm, err := startDemoSwarm(ctx, demoNodes)
	if err != nil {
		return err
	}
	defer swarm.stop()
	d.nodes = swarm.nodes
	clients, err := d.connect(ctx)
	defer func() {
		for _, c := range clients {
			_ = c.Disconnect() // the nodes are stopped next
		}
	}()
	if err != nil {
		return err
	}
	d.introduce()
	return d.loop(ctx, clients[1:], swarm.died)
}

// connect connects a client to each node and subscribes at the first.
func (d *demo) connect(ctx context.Context) ([]*client.Client, error) {
	var clients []*client.Client
	for i, n := range d.nodes {
		o := client.Options{
			Address: n.MQTT, Version: client.Version5, ClientID: "demo-" + strconv.Itoa(i+1), Clean: true, KeepAlive: 30, MaxInflight: 20,
		}
		if i == 0 {
			o.OnMessage = func(m client.Message) bool {
				select {
				case d.arrived <- demoArrival{m, time.Now()}:
				case <-ctx.Done():
				}
				return true
			}
		}
		c, err := client.Connect(ctx, o)
		if err != nil {
			return clients, err
		}
		clients = append(clients, c)
	}
	subscriptions := make([]client.Subscription, len(demoFilters))
	for i, f := range demoFilters {
		subscriptions[i] = client.Subscription{Filter: f, QoS: 1}
	}
	return clients, clients[0].Subscribe(ctx, subscriptions, client.Properties{})
}

// loop publishes and prints until the end.
func (d *demo) loop(ctx context.Context, publishers []*client.Client, died <-chan error) error {
	publish := time.NewTicker(d.interval)
	defer publish.Stop()
	patience := time.NewTimer(demoPatience + d.interval)
	defer patience.Stop()
	failed := make(chan error, 1)
	for shown := 0; d.count == 0 || shown < d.count; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-died:
			return err
		case err := <-failed:
			return fmt.Errorf("publish: %w", err)
		case <-patience.C:
			return fmt.Errorf("no message has come through for %v", demoPatience)
		case <-publish.C:
			if err := d.publish(ctx, publishers, failed); err != nil {
				return err
			}
		case a := <-d.arrived:
			d.show(ctx, a)
			shown++
			patience.Reset(demoPatience + d.interval)
		}
	}
	return nil
}

// publish publishes the next message at the next node.
func (d *demo) publish(ctx context.Context, publishers []*client.Client, failed chan<- error) error {
	n := d.sequence
	d.sequence++
	m := demoMessages[n%len(demoMessages)]
	m.QoS = 1
	m.Properties.User = []packets.UserProperty{{Key: demoProperty, Val: strconv.Itoa(n)}}
	at := n % len(publishers)
	d.sent[strconv.Itoa(n)] = demoSent{node: at + 2, at: time.Now()}
	return publishers[at].PublishAsync(ctx, m, func(err error) {
		if err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	})
}

// show prints a message that has come.
func (d *demo) show(ctx context.Context, a demoArrival) {
	line := demoLine{Event: "message", Topic: a.message.Topic, Payload: string(a.message.Payload), At: 1}
	for _, p := range a.message.Properties.User {
		if sent, ok := d.sent[p.Val]; ok && p.Key == demoProperty {
			delete(d.sent, p.Val)
			line.From = sent.node
			line.LatencyMS = float64(a.at.Sub(sent.at).Microseconds()) / 1000
		}
	}
	line.Via = d.rendezvous(ctx, a.message.Topic)
	if d.json {
		d.printLine(line)
		return
	}
	from, took := "a client of your own", ""
	if line.From > 0 {
		from, took = fmt.Sprintf("node %d", line.From), fmt.Sprintf(" in %.1f ms", line.LatencyMS)
	}
	way := ""
	switch {
	case line.Via == 0:
	case line.Via == line.From:
		way = ", which is its rendezvous,"
	default:
		way = fmt.Sprintf(" by way of node %d, its rendezvous,", line.Via)
	}
	fmt.Fprintf(d.out, "%-20s %-8q from %s%s to node 1%s\n", line.Topic, line.Payload, from, way, took)
}

// rendezvous returns which node a topic's rendezvous is, 0 where that cannot be said.
func (d *demo) rendezvous(ctx context.Context, topic string) int {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	location, err := d.nodes[0].client.Locate(ctx, topic)
	if err != nil {
		return 0
	}
	for _, m := range location.Members {
		for _, n := range d.nodes {
			if m.Rendezvous && n.PeerID == m.PeerID {
				return n.Node
			}
		}
	}
	return 0
}

// introduce says who the nodes are and how to join in.
func (d *demo) introduce() {
	if d.json {
		d.printLine(demoLine{Event: "nodes", Nodes: d.nodes})
		return
	}
	fmt.Fprintf(d.out, "\nThese %d nodes are one broker, in a private swarm:\n", len(d.nodes))
	for _, n := range d.nodes {
		fmt.Fprintf(d.out, "  node %d   MQTT at %s   %s\n", n.Node, n.MQTT, n.PeerID)
	}
	_, first, _ := net.SplitHostPort(d.nodes[0].MQTT)
	_, last, _ := net.SplitHostPort(d.nodes[len(d.nodes)-1].MQTT)
	fmt.Fprintf(d.out, `
Try it with clients of your own, at any of them:
  mosquitto_sub -p %[1]s -t 'doors/#' -v        or   mozzie sub -p %[1]s -t 'doors/#' -v
  mosquitto_pub -p %[2]s -t doors/1 -m hello    or   mozzie pub -p %[2]s -t doors/1 -m hello
  mozzie status --admin %[3]s
Ctrl-C ends the demo.

`, first, last, d.nodes[0].Admin)
}

func (d *demo) printLine(line demoLine) {
	e := json.NewEncoder(d.out)
	e.SetEscapeHTML(false)
	_ = e.Encode(line) // nobody is left to tell
}
