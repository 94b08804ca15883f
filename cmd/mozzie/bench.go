package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/bench"
)

// benchFlags are the flags of bench. Of what pub and sub have in common it takes how to log in and TLS.
type benchFlags struct {
	clientFlags
	load    bench.Load // as the flags say; what is not given comes from the row
	idle    int
	runs    int
	json    bool
	brokers struct{ pub, sub []string }
}

func newBench() *cobra.Command {
	f := &benchFlags{load: bench.DefaultLoad()}
	cmd := &cobra.Command{
		Use:   "bench [ROW...]",
		Short: "Measure a broker",
		Long: `Measure how many messages a second pass through a broker, which need not be mozzie's, how long they take, and
whether any are lost, come twice or come out of order. Publishers and subscribers may be at different brokers
or nodes.

A ROW is a named measurement, the same for all brokers; flags change it:

` + benchRows() + `
Without one, it is what the flags say: one publisher and one subscriber, unless told otherwise. Topic t is
published to by publisher t and subscribed to by subscriber t, modulo how many there are: so --topics 1
--subs 50 is a fan-out, and --pubs 50 --wildcard a fan-in.

Latency is from the write of a message to the read that brings it. Without --rate it mostly says how much is
under way, which --credit bounds. Generator and clock are in this process: run it on the machine of the broker,
or on one of its own for both ends.

Exit code: 0; 1 where something was lost, came twice or out of order, or a client failed; the broker's code
when it refuses a connection or a subscription; 2 for a command line that makes no sense; 130 after Ctrl-C,
when what was measured until then is printed.`,
		Example: `  mozzie bench                                       how fast is the broker on this machine?
  mozzie bench a e g --runs 3                        three rows, the medians of three runs
  mozzie bench e --pub pi1:1883 --sub pi2:1883       QoS 1 from one node to another
  mozzie bench g --pub pi1 --sub pi2 --pubs 30 --subs 30 --spread
                                                     latency by way of 30 places in the swarm; the worst too
  mozzie bench --rate 5000 --size 200 --qos 1 --duration 1m
  mozzie bench h --pid $(pidof mosquitto)            what an idle connection costs
  mozzie bench b --json | jq .delivered_per_s`,
		RunE: func(cmd *cobra.Command, rows []string) error {
			return f.clientError(f.run(cmd, rows))
		},
		ValidArgs: benchNames(),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	l := &f.load
	fs.StringSliceVar(&f.brokers.pub, "pub", l.PublishTo, "publish to `HOST[:PORT]`; several, by commas, in turn")
	fs.StringSliceVar(&f.brokers.sub, "sub", nil, "subscribe at `HOST[:PORT]`; several, by commas, in turn (default those of --pub)")
	fs.IntVar(&l.Publishers, "pubs", l.Publishers, "`N` publishers")
	fs.IntVar(&l.Subscribers, "subs", l.Subscribers, "`N` subscribers")
	fs.IntVar(&l.Topics, "topics", 0, "`N` topics (default one for each publisher)")
	fs.BoolVar(&l.Spread, "spread", false, "give each topic a first level of its own, and so a rendezvous of its own")
	fs.BoolVar(&l.Wildcard, "wildcard", false, "subscribe to all topics with one filter")
	fs.BoolVar(&l.Persistent, "persistent", false, "give subscribers sessions that outlive their connections, which the broker keeps")
	fs.StringVarP(&l.Prefix, "topic", "t", l.Prefix, "let topics begin with `TEXT`")
	fs.Uint8VarP(&l.QoS, "qos", "q", l.QoS, "publish and subscribe with `QOS`: 0, 1 or 2")
	fs.BoolVar(&l.Retain, "retain", false, "publish retained messages; the last one of each topic stays")
	fs.IntVarP(&l.Size, "size", "s", l.Size, "payloads of `BYTES`, 24 at least")
	fs.Float64VarP(&l.Rate, "rate", "r", l.Rate, "`N` messages a second from all publishers together; 0: as many as go through")
	fs.IntVar(&l.Window, "window", l.Window, "at most `N` unacknowledged messages a publisher, QoS 1 and 2")
	fs.IntVar(&l.Credit, "credit", l.Credit, "at most `N` messages a publisher that did not arrive yet; 0: no bound")
	fs.DurationVarP(&l.Duration, "duration", "d", l.Duration, "measure for `TIME`")
	fs.DurationVar(&l.Warmup, "warmup", l.Warmup, "do the same for `TIME` before that")
	fs.DurationVar(&l.Settle, "settle", l.Settle, "wait for `TIME` between subscribing and publishing")
	fs.DurationVar(&l.Drain, "drain", l.Drain, "what has not come when nothing has for `TIME` is lost")
	fs.IntVar(&f.runs, "runs", 1, "measure `N` times, and show medians of rates and latencies, sums of what was lost")
	fs.IntVar(&f.idle, "clients", 10_000, "`N` idle clients, for the rows h and h-off; they come at 800/s or --rate, and stay for 5s or --duration")
	fs.IntSliceVar(&l.PIDs, "pid", nil, "the broker's `PID`, to tell its CPU time and memory; several, by commas")
	fs.BoolVar(&f.json, "json", false, "print a JSON object for each row, in a line of its own")
	f.addLogin(cmd, "311") // what every broker speaks
	f.tls.add(cmd)
	complete(cmd, "qos", "0", "1", "2")
	return cmd
}

// benchRows is the list of rows for the help.
func benchRows() string {
	var b strings.Builder
	for _, r := range bench.Rows {
		fmt.Fprintf(&b, "  %-6s %s\n", r.Name, r.What)
	}
	return b.String()
}

func benchNames() (all []string) {
	for _, r := range bench.Rows {
		all = append(all, r.Name)
	}
	return all
}

func (f *benchFlags) run(cmd *cobra.Command, names []string) error {
	rows, err := benchRowsOf(names)
	if err != nil {
		return err
	}
	if f.runs < 1 {
		return usagef("--runs %d: want at least 1", f.runs)
	}
	o, _, err := f.options()
	if err != nil {
		return err
	}
	port := 1883
	if o.TLS != nil {
		port = tlsPort
	}
	publishTo, err := brokersOf("--pub", f.brokers.pub, port)
	if err != nil {
		return err
	}
	subscribeAt, err := brokersOf("--sub", f.brokers.sub, port)
	if err != nil {
		return err
	}
	f.load.Client, f.load.PublishTo, f.load.SubscribeAt = o, publishTo, subscribeAt
	ctx, cancel := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	out := newBenchPrinter(cmd.OutOrStdout(), cmd.ErrOrStderr(), f.json)
	var bad []error
	for _, row := range rows {
		if err := f.row(ctx, cmd, row, out); err != nil {
			bad = append(bad, err)
		}
		if ctx.Err() != nil {
			return codedError{errors.Join(append(bad, errors.New("interrupted"))...), exitInterrupted}
		}
	}
	return errors.Join(bad...)
}

// row measures one row and prints it. An error says what was not as it should be.
func (f *benchFlags) row(ctx context.Context, cmd *cobra.Command, row bench.Row, out *benchPrinter) error {
	if idle, offline := row.Idle(); idle {
		return f.idleRow(ctx, cmd, row, offline, out)
	}
	l, err := f.loadOf(cmd, row)
	if err != nil {
		return err
	}
	var runs []*bench.Result
	for n := 0; n < f.runs && ctx.Err() == nil; n++ {
		r, err := bench.Measure(ctx, l, func(p bench.Progress) { out.progress(row, n+1, f.runs, p) })
		if err != nil {
			out.clear()
			if ctx.Err() != nil {
				break
			}
			return err
		}
		runs = append(runs, r)
	}
	if len(runs) == 0 {
		return nil // interrupted before there was anything to see
	}
	s := bench.Summarize(runs)
	out.load(row, l, s, runs)
	return complaint(row, &s.Result)
}

func (f *benchFlags) idleRow(ctx context.Context, cmd *cobra.Command, row bench.Row, offline bool, out *benchPrinter) error {
	i := bench.Idle{Client: f.load.Client, Brokers: f.load.PublishTo, Clients: f.idle, Offline: offline, PIDs: f.load.PIDs, Rate: bench.DefaultIdleRate, Hold: 5 * time.Second}
	if cmd.Flags().Changed("duration") {
		i.Hold = f.load.Duration
	}
	if cmd.Flags().Changed("rate") {
		i.Rate = f.load.Rate
	}
	if err := i.Complete(); err != nil {
		return usagef("%s: %w", row.Name, err)
	}
	r, err := bench.MeasureIdle(ctx, i, func(n int) { out.connecting(row, n, i.Clients) })
	out.clear()
	if err != nil {
		return err
	}
	out.idle(row, r)
	return nil
}

// loadOf is a row's load with what the flags say.
func (f *benchFlags) loadOf(cmd *cobra.Command, row bench.Row) (bench.Load, error) {
	l := bench.DefaultLoad()
	row.Set(&l)
	l.Client, l.PublishTo, l.SubscribeAt = f.load.Client, f.load.PublishTo, f.load.SubscribeAt
	given := map[string]func(){
		"pubs":       func() { l.Publishers = f.load.Publishers },
		"subs":       func() { l.Subscribers = f.load.Subscribers },
		"topics":     func() { l.Topics = f.load.Topics },
		"spread":     func() { l.Spread = f.load.Spread },
		"wildcard":   func() { l.Wildcard = f.load.Wildcard },
		"persistent": func() { l.Persistent = f.load.Persistent },
		"topic":      func() { l.Prefix = f.load.Prefix },
		"qos":        func() { l.QoS = f.load.QoS },
		"retain":     func() { l.Retain = f.load.Retain },
		"size":       func() { l.Size = f.load.Size },
		"rate":       func() { l.Rate = f.load.Rate },
		"window":     func() { l.Window = f.load.Window },
		"credit":     func() { l.Credit = f.load.Credit },
		"duration":   func() { l.Duration = f.load.Duration },
		"warmup":     func() { l.Warmup = f.load.Warmup },
		"settle":     func() { l.Settle = f.load.Settle },
		"drain":      func() { l.Drain = f.load.Drain },
		"pid":        func() { l.PIDs = f.load.PIDs },
	}
	for name, set := range given {
		if cmd.Flags().Changed(name) {
			set()
		}
	}
	if err := l.Complete(); err != nil {
		return l, codedError{err, exitUsage}
	}
	return l, nil
}

// benchRowsOf finds the rows of some names; without any, it is a row without a name.
func benchRowsOf(names []string) (rows []bench.Row, err error) {
	if len(names) == 0 {
		return []bench.Row{bench.Unnamed}, nil
	}
	for _, name := range names {
		row, ok := bench.RowNamed(name)
		if !ok {
			return nil, usagef("there is no row %q; want some of %s", name, strings.Join(benchNames(), ", "))
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// brokersOf adds the usual port where there is none.
func brokersOf(flag string, given []string, port int) (all []string, err error) {
	for _, b := range given {
		if b == "" || strings.Contains(b, "://") {
			return nil, usagef("%s %s: want HOST or HOST:PORT", flag, b)
		}
		if _, _, err := net.SplitHostPort(b); err != nil {
			b = net.JoinHostPort(strings.Trim(b, "[]"), strconv.Itoa(port))
		}
		all = append(all, b)
	}
	return all, nil
}

// complaint says what was not as it should be in a result.
func complaint(row bench.Row, r *bench.Result) error {
	if r.OK() {
		return nil
	}
	var all []string
	for _, c := range []struct {
		n    uint64
		what string
	}{{r.Lost, "lost"}, {r.Duplicates, "delivered twice"}, {r.OutOfOrder, "delivered out of order"}} {
		if c.n > 0 {
			all = append(all, fmt.Sprintf("%d of %d messages %s", c.n, r.Due, c.what))
		}
	}
	all = append(all, r.Problems...)
	prefix := ""
	if row.Name != "" {
		prefix = "row " + row.Name + ": "
	}
	return errors.New(prefix + strings.Join(all, "; "))
}
