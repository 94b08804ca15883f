package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// maxPayload is what MQTT lets a message hold, nearly, in bytes.
const maxPayload = 256 << 20

// pubFlags are the flags of pub alone.
type pubFlags struct {
	clientFlags
	topic       string
	text, file  string
	lines       bool
	stdin       bool
	null        bool
	qos         uint8
	retain      bool
	repeat      int
	repeatDelay float64
}

func newPub() *cobra.Command {
	f := &pubFlags{}
	cmd := &cobra.Command{
		Use:   "pub -t TOPIC (-m TEXT | -f FILE | -l | -s | -n)",
		Short: "Publish messages",
		Long: `Publish to a broker, which need not be mozzie's. With QoS 1 and 2 the exit code says whether the broker has
taken the message.
` + clientHelp + "130 after Ctrl-C.",
		Example: `  mozzie pub -t doors/1 -m open
  mozzie pub -h pi2.local -t doors/1 -m open -q 1 -r
  sensor | mozzie pub -t kitchen/temperature -l
  mozzie pub -t doors/1 -m open -D publish message-expiry-interval 60 -D publish user-property by me`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.clientError(f.run(cmd))
		},
	}
	fs := cmd.Flags()
	f.add(cmd)
	fs.StringVarP(&f.topic, "topic", "t", "", "publish to `TOPIC`")
	fs.StringVarP(&f.text, "message", "m", "", "send `TEXT`")
	fs.StringVarP(&f.file, "file", "f", "", "send what is in `FILE`")
	fs.BoolVarP(&f.lines, "stdin-line", "l", false, "send each line of standard input as a message")
	fs.BoolVarP(&f.stdin, "stdin-file", "s", false, "send all of standard input as one message")
	fs.BoolVarP(&f.null, "null-message", "n", false, "send an empty message; with -r it clears the retained one")
	fs.Uint8VarP(&f.qos, "qos", "q", 0, "`QOS`: 0, 1 or 2")
	fs.BoolVarP(&f.retain, "retain", "r", false, "let the broker keep the message for those who subscribe later")
	fs.IntVar(&f.repeat, "repeat", 1, "send it `N` times")
	fs.Float64Var(&f.repeatDelay, "repeat-delay", 0, "wait `SECONDS` in between")
	_ = cmd.MarkFlagFilename("file")
	complete(cmd, "qos", "0", "1", "2")
	return cmd
}

// exitInterrupted is the exit code after Ctrl-C, by which the broker may not have taken everything.
const exitInterrupted = 128 + 2

func (f *pubFlags) run(cmd *cobra.Command) error {
	o, properties, err := f.options()
	if err == nil {
		err = f.check(cmd)
	}
	if err != nil {
		return err
	}
	m := client.Message{Topic: f.topic, QoS: f.qos, Retain: f.retain, Properties: properties.of("publish")}
	if !f.lines {
		if m.Payload, err = f.payload(cmd.InOrStdin()); err != nil {
			return err
		}
	}
	ctx, cancel := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer cancel()
	err = f.publish(ctx, o, m, cmd.InOrStdin())
	if ctx.Err() != nil {
		return codedError{errors.New("interrupted"), exitInterrupted}
	}
	return err
}

// publish connects, publishes what there is, and waits until the broker has taken it.
func (f *pubFlags) publish(ctx context.Context, o client.Options, m client.Message, stdin io.Reader) error {
	c, err := client.Connect(ctx, o)
	if err != nil {
		return err
	}
	p := &publisher{client: c}
	if f.lines {
		err = p.lines(ctx, m, stdin)
	} else {
		err = p.times(ctx, m, f.repeat, time.Duration(f.repeatDelay*float64(time.Second)))
	}
	if err == nil {
		err = p.wait(ctx)
	}
	if err != nil {
		c.Close()
		return err
	}
	if err := c.Disconnect(); err != nil && f.qos == 0 {
		return err
	}
	return nil
}

// check refuses what makes no sense.
func (f *pubFlags) check(cmd *cobra.Command) error {
	if !cmd.Flags().Changed("topic") {
		return usagef("no topic; give one with -t")
	}
	if err := checkName("-t", f.topic); err != nil {
		return err
	}
	given := 0
	for _, name := range []string{"message", "file", "stdin-line", "stdin-file", "null-message"} {
		if cmd.Flags().Changed(name) {
			given++
		}
	}
	if given != 1 {
		return usagef("want one of -m TEXT, -f FILE, -l, -s and -n")
	}
	if f.repeat < 1 || f.repeatDelay < 0 {
		return usagef("--repeat wants at least 1, --repeat-delay at least 0")
	}
	return checkQoS("-q", f.qos)
}

// payload returns the one message's content.
func (f *pubFlags) payload(stdin io.Reader) ([]byte, error) {
	switch {
	case f.null:
		return nil, nil
	case f.stdin:
		return readPayload("standard input", stdin)
	case f.file != "":
		file, err := os.Open(f.file)
		if err != nil {
			return nil, fmt.Errorf("read the message: %w", err)
		}
		defer file.Close()
		return readPayload(f.file, file)
	}
	return []byte(f.text), nil
}

func readPayload(name string, r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPayload))
	if err != nil {
		return nil, fmt.Errorf("read the message: %w", err)
	}
	if len(b) == maxPayload {
		return nil, fmt.Errorf("read the message: %s is larger than an MQTT message can be", name)
	}
	return b, nil
}

// publisher sends messages and remembers the first that failed.
type publisher struct {
	client  *client.Client
	pending sync.WaitGroup
	mu      sync.Mutex
	err     error
}

func (p *publisher) send(ctx context.Context, m client.Message) error {
	p.pending.Add(1)
	err := p.client.PublishAsync(ctx, m, func(err error) {
		p.mu.Lock()
		if p.err == nil {
			p.err = err
		}
		p.mu.Unlock()
		p.pending.Done()
	})
	if err != nil {
		p.pending.Done()
	}
	return err
}

// wait waits until the broker has taken everything.
func (p *publisher) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		p.pending.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// times sends one message n times.
func (p *publisher) times(ctx context.Context, m client.Message, n int, delay time.Duration) error {
	for i := range n {
		if i > 0 && delay > 0 {
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := p.send(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// lines sends each line as a message, as it comes.
func (p *publisher) lines(ctx context.Context, m client.Message, r io.Reader) error {
	done := make(chan error, 1)
	go func() { done <- p.readLines(ctx, m, r) }() // reading from a terminal cannot be interrupted; the end of the program ends it
	select {
	case err := <-done:
		return err
	case <-p.client.Done():
		return p.client.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *publisher) readLines(ctx context.Context, m client.Message, r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			m.Payload = []byte(strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"))
			if err := p.send(ctx, m); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the messages: %w", err)
		}
	}
}
