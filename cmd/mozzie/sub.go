package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// exitTimeout is mosquitto_sub's exit code where -W ran out.
const exitTimeout = 27

// takenOver is MQTT 5's reason code where another connection uses the same client ID.
const takenOver = 0x8e

// reconnectEvery is how long sub waits before it connects again.
const reconnectEvery = time.Second

// subFlags are the flags of sub alone.
type subFlags struct {
	clientFlags
	topics       []string
	unsubscribe  []string
	qos          uint8
	count        int
	timeout      float64
	verbose      bool
	json         bool
	noNewline    bool
	format       string
	noRetained   bool
	retainedOnly bool
	exitAfterSub bool
}

func newSub() *cobra.Command {
	f := &subFlags{}
	cmd := &cobra.Command{
		Use:   "sub -t FILTER...",
		Short: "Subscribe and print messages",
		Long: `Subscribe at a broker, which need not be mozzie's, and print what comes, until Ctrl-C. When the connection is
lost after the first subscription, it is made again, unless another client has taken over with the same ID.
` + clientHelp + "27 when -W ran out.",
		Example: `  mozzie sub -t 'doors/#' -v
  mozzie sub -t doors/1 -C 1 -W 5          one message, or exit code 27 after 5 s
  mozzie sub -t '#' --json | jq .topic
  mozzie sub -i logger -c -q 1 -t 'doors/#'  misses nothing while it does not run`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer cancel()
			return f.clientError(f.run(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr()))
		},
	}
	fs := cmd.Flags()
	f.add(cmd)
	fs.StringArrayVarP(&f.topics, "topic", "t", nil, "subscribe to `FILTER`; repeatable")
	fs.StringArrayVarP(&f.unsubscribe, "unsubscribe", "U", nil, "unsubscribe from `FILTER` of a kept session; repeatable")
	fs.Uint8VarP(&f.qos, "qos", "q", 0, "highest `QOS`: 0, 1 or 2")
	fs.IntVarP(&f.count, "count", "C", 0, "end after `N` messages")
	fs.Float64VarP(&f.timeout, "timeout", "W", 0, "end after `SECONDS`, with exit code 27")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "print the topic in front of the message")
	fs.BoolVar(&f.json, "json", false, "print a JSON object for each message, in a line of its own")
	fs.BoolVarP(&f.noNewline, "no-newline", "N", false, "print no line end after a message")
	fs.StringVarP(&f.format, "format", "F", "", "print in this `FORMAT`: %t topic, %p message, %x message in hex, %l its length, %q QoS, %r retained, %m packet ID, %I time, %U seconds since 1970, %j JSON, %% percent")
	fs.BoolVarP(&f.noRetained, "no-retained", "R", false, "leave out retained messages")
	fs.BoolVar(&f.retainedOnly, "retained-only", false, "print retained messages only, and end at the first other one")
	fs.BoolVarP(&f.exitAfterSub, "exit-after-subscribe", "E", false, "end when the subscriptions stand")
	complete(cmd, "qos", "0", "1", "2")
	return cmd
}

// check refuses what makes no sense.
func (f *subFlags) check() error {
	if len(f.topics)+len(f.unsubscribe) == 0 {
		return usagef("no filter; give one with -t")
	}
	for _, t := range f.topics {
		if t == "" {
			return usagef("-t: a filter cannot be empty")
		}
	}
	if f.count < 0 || f.timeout < 0 {
		return usagef("-C and -W want a number that is not negative")
	}
	if _, err := expand(f.format, client.Message{}, time.Time{}); err != nil {
		return err
	}
	return checkQoS("-q", f.qos)
}

func (f *subFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	o, properties, err := f.options()
	if err == nil {
		err = f.check()
	}
	if err != nil {
		return err
	}
	out := bufio.NewWriter(stdout)
	defer out.Flush()
	var printed atomic.Int64
	o.OnMessage = func(m client.Message) bool {
		if m.Retain && f.noRetained {
			return true
		}
		if !m.Retain && f.retainedOnly {
			return false
		}
		if f.print(out, m) != nil || out.Flush() != nil {
			return false // nobody reads what is printed
		}
		return printed.Add(1) != int64(f.count)
	}
	timeout, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.timeout > 0 {
		timeout, cancel = context.WithTimeout(ctx, time.Duration(f.timeout*float64(time.Second)))
		defer cancel()
	}
	err = f.subscribeAndWait(timeout, o, properties, stderr)
	if errors.Is(err, context.DeadlineExceeded) {
		return codedError{errors.New("timed out"), exitTimeout}
	}
	return err
}

// subscribeAndWait keeps the subscriptions up until the last message or the end of ctx.
func (f *subFlags) subscribeAndWait(ctx context.Context, o client.Options, properties packetProperties, stderr io.Writer) error {
	for first := true; ; first = false {
		c, err := f.subscribe(ctx, o, properties)
		var refused *client.RefusedError
		switch {
		case err == nil && f.exitAfterSub:
			return c.Disconnect()
		case err == nil:
			err = f.wait(ctx, c)
			if err == nil {
				return nil
			}
			if errors.As(err, &refused) && refused.Code == takenOver { // two that come back would do that for ever
				return fmt.Errorf("%w; each client needs an ID of its own (-i)", err)
			}
		case first, errors.As(err, &refused):
			return orContext(ctx, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !f.quiet {
			fmt.Fprintf(stderr, "mozzie: %v; connecting again\n", err)
		}
		select {
		case <-time.After(reconnectEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait waits until the connection is over. It returns nil after the last message.
func (f *subFlags) wait(ctx context.Context, c *client.Client) error {
	select {
	case <-c.Done():
		if c.Err() != nil {
			c.Close()
			return c.Err()
		}
		return c.Disconnect()
	case <-ctx.Done():
		_ = c.Disconnect() // the time is up, whether the broker hears it or not
		return ctx.Err()
	}
}

// subscribe connects and subscribes.
func (f *subFlags) subscribe(ctx context.Context, o client.Options, properties packetProperties) (*client.Client, error) {
	c, err := client.Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	subscriptions := make([]client.Subscription, len(f.topics))
	for i, t := range f.topics {
		subscriptions[i] = client.Subscription{Filter: t, QoS: f.qos}
	}
	if len(subscriptions) > 0 {
		err = c.Subscribe(ctx, subscriptions, properties.of("subscribe"))
	}
	if err == nil && len(f.unsubscribe) > 0 {
		err = c.Unsubscribe(ctx, f.unsubscribe, properties.of("unsubscribe"))
	}
	select {
	case <-c.Done(): // messages of a kept session may come, and be enough, before the answer
		if c.Err() == nil {
			return c, nil
		}
	default:
	}
	switch {
	case err != nil && ctx.Err() != nil:
		_ = c.Disconnect() // the time is up, and nothing has gone wrong: the will is not meant
		return nil, err
	case err != nil:
		c.Close()
		return nil, err
	}
	return c, nil
}

// orContext returns why the context ended, if it did, rather than what broke because of that.
func orContext(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
