// Package bench measures MQTT brokers: what passes in a second, what is lost, doubled or out of order on the way, and how
// long it takes; and what idle connections and sessions cost in memory. The broker need not be Mozzie's. mozzie bench is
// its user.
//
// # What is measured
//
// Publishers publish to topics, subscribers subscribe to them. A stream is one publisher's messages on one topic; a flow
// is a stream at one of its subscribers. Each message says which run and stream it is of, its number in the stream and
// when it was encoded, just before the write that it goes out with. A flow counts what came, what came twice and what came
// behind a later number. Latency is up to the return of the read that brought the message, and counted for those that
// arrive while it is measured.
//
// With a rate the publishers send at even intervals, else as fast as the broker takes it. A credit bounds what a
// publisher may have out that its subscribers do not have yet; so what is measured is the most that passes without loss,
// not how fast messages can be thrown away. Where nothing arrives for a second, what is out is given up.
//
// Publishers, subscribers and the clock are in one process, which shares the machine with the broker where that runs
// beside it: many messages go with one write, and packets are read in place.
//
// # Goroutines
//
//	receive    one for each subscriber; owner run; ends when its connection is closed
//	answers    one for each publisher, for what the broker says to it; owner run; ends when its connection is closed
//	publish    one for each publisher; owner run; ends with the measurement, or when its connection breaks
//	runPing    keeps all connections alive; owner run; ends with the measurement
package bench

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// Load is what is sent, and how. DefaultLoad returns one to start from.
type Load struct {
	// Client is how to log in. Its address and client ID are not used.
	Client client.Options
	// PublishTo and SubscribeAt are brokers (host:port), used in turn by the publishers and the subscribers.
	PublishTo, SubscribeAt []string

	Publishers, Subscribers int
	// Topics is how many topics there are; 0: one for each publisher. Topic t is published to by the publishers p with
	// p = t modulo the smaller number of the two, and subscribed to likewise. So one topic with 50 subscribers is a
	// fan-out.
	Topics int
	// Wildcard lets every subscriber subscribe to all topics with one filter.
	Wildcard bool
	// Spread gives each topic a first level of its own, which decides the way through a swarm.
	Spread bool
	// Persistent gives the subscribers sessions that outlive their connections, so that the broker keeps what it has for them.
	// They are ended in the end.
	Persistent bool
	// Prefix is how all topics begin.
	Prefix string

	QoS    byte
	Retain bool    // messages are retained
	Size   int     // payload, bytes; at least headerSize
	Window int     // unacknowledged messages of a publisher, QoS 1 and 2
	Credit int     // messages of a publisher that were not delivered yet; 0: no bound
	Rate   float64 // messages/s of all publishers together; 0: as fast as can be

	Settle   time.Duration // between subscribing and publishing
	Warmup   time.Duration // before measuring
	Duration time.Duration // of measuring
	Drain    time.Duration // how long nothing may have come before the rest is lost

	PIDs []int // processes of the brokers, to tell what they used
}

// headerSize is what of a payload the measurement needs: run, stream, number in the stream and time.
const headerSize = 4 + 4 + 8 + 8

// Bounds of a load. They keep the generator within some hundred MB.
const (
	maxConnections = 60_000 // what one address has ports for, about
	maxFlows       = 20_000
	maxSize        = 16 << 20
	maxWindow      = 65_535 // packet identifiers
)

// DefaultLoad returns one publisher and one subscriber at the usual address of a broker on this machine.
func DefaultLoad() Load {
	return Load{
		Client:      client.Options{Version: client.Version311},
		PublishTo:   []string{"127.0.0.1:1883"},
		Publishers:  1,
		Subscribers: 1,
		Prefix:      "bench",
		Size:        64,
		Window:      100,
		Credit:      10_000,
		Settle:      300 * time.Millisecond,
		Warmup:      time.Second,
		Duration:    3 * time.Second,
		Drain:       2 * time.Second,
	}
}

// Complete fills in what follows from the rest, and says what makes no sense. The errors name the flags of mozzie bench.
func (l *Load) Complete() error {
	if len(l.SubscribeAt) == 0 {
		l.SubscribeAt = l.PublishTo
	}
	if l.Topics == 0 {
		l.Topics = l.Publishers
	}
	within := func(flag string, n, low, high int) error {
		if n < low || n > high {
			return fmt.Errorf("--%s %d: want %d to %d", flag, n, low, high)
		}
		return nil
	}
	err := errors.Join(
		within("pubs", l.Publishers, 1, maxConnections),
		within("subs", l.Subscribers, 1, maxConnections),
		within("topics", l.Topics, 1, maxFlows),
		within("qos", int(l.QoS), 0, 2),
		within("size", l.Size, headerSize, maxSize),
		within("window", l.Window, 1, maxWindow),
		within("credit", l.Credit, 0, 1<<30),
	)
	switch {
	case err != nil:
		return err
	case l.Rate < 0:
		return fmt.Errorf("--rate %g: want 0 or more", l.Rate)
	case l.Duration <= 0 || l.Warmup < 0 || l.Settle < 0 || l.Drain < 0:
		return errors.New("--duration wants more than nothing, --warmup, --settle and --drain at least 0")
	case l.Wildcard && l.Spread:
		return errors.New("--wildcard and --spread: one filter cannot be for topics that have no level in common")
	case l.Prefix == "" || strings.ContainsAny(l.Prefix, "+#\x00"):
		return fmt.Errorf("--topic %q: want how topics begin, without wildcards", l.Prefix)
	}
	if n := l.flows(); n > maxFlows {
		return fmt.Errorf("%d publishers on %d topics with %d subscribers are %d flows of messages to follow, of at most %d", l.Publishers, l.Topics, l.Subscribers, n, maxFlows)
	}
	return nil
}

// flows is how many pairs of a stream and a subscriber there are, at most.
func (l *Load) flows() int {
	streams := max(l.Publishers, l.Topics)
	if l.Wildcard {
		return streams * l.Subscribers
	}
	return streams * ((l.Subscribers + l.Topics - 1) / l.Topics)
}

// shares reports whether a topic belongs to the i-th of n clients.
func shares(topics, topic, n, i int) bool {
	m := min(topics, n)
	return topic%m == i%m
}

// topic returns the name of a topic of a run.
func (l *Load) topic(run uint32, t int) string {
	if l.Spread {
		return fmt.Sprintf("%s-%08x-%d/v", l.Prefix, run, t)
	}
	return fmt.Sprintf("%s-%08x/%d", l.Prefix, run, t)
}

// filters returns what the i-th subscriber of a run subscribes to.
func (l *Load) filters(run uint32, i int) (all []string) {
	if l.Wildcard {
		return []string{fmt.Sprintf("%s-%08x/#", l.Prefix, run)}
	}
	for t := range l.Topics {
		if shares(l.Topics, t, l.Subscribers, i) {
			all = append(all, l.topic(run, t))
		}
	}
	return all
}
