// Command bench measures Mozzie beside other brokers on this machine: mosquitto, NATS and stock mochi, each alone and, but
// for mochi, as several nodes with the publisher at one and the subscriber at another. "make bench" runs it.
//
// All are measured in one run, by the same generator (mozzie bench), one after the other row by row and round by round, so
// that a slow moment of the machine meets all alike. What counts are the ratios; figures of two machines, or of two days,
// cannot be compared. It prints tables in Markdown, writes all results as JSON, and with -update puts the tables into
// docs/benchmarks.md.
//
// brokers.go says how each broker is run, process.go runs processes, table.go makes the tables.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are how thorough it is.
type options struct {
	rows     []string // empty: all
	stages   []string
	runs     int
	duration time.Duration
	warmup   time.Duration
	clients  int // idle ones
	update   bool
	json     string
	program  string
}

// Rows of mozzie bench, with what each stage adds to them.
var (
	aloneRows  = []string{"a", "a-1k", "b", "c", "d", "e", "f", "f-20", "g", "g-1", "h", "h-off"}
	acrossRows = []string{"a", "a-1k", "b", "c", "d", "e", "f", "f-20", "g", "g-1"}
	keptRows   = []string{"i"}
	// Where the rendezvous is decides how long the way is. So pairs get topics with first levels of their own, and
	// latency is measured over many. Where there is one topic, each round has another node as its rendezvous.
	acrossFlags = map[string][]string{
		"b": {"--spread"}, "e": {"--spread"}, "f": {"--spread"}, "f-20": {"--spread"},
		"g":   {"--spread", "--pubs", "36", "--subs", "36"},
		"g-1": {"--spread", "--pubs", "36", "--subs", "36"},
	}
)

func main() {
	o := options{}
	var rows, stages string
	var quick bool
	flag.StringVar(&rows, "rows", "", "measure these `ROWS` alone, such as a,e,g")
	flag.StringVar(&stages, "stages", "alone,across,kept", "measure in these `STAGES`")
	flag.BoolVar(&quick, "quick", false, "one short run of each: a rough answer in some four minutes")
	flag.BoolVar(&o.update, "update", false, "write the tables into "+page)
	flag.StringVar(&o.json, "json", filepath.Join("bin", "bench.json"), "write all results to `FILE`")
	flag.StringVar(&o.program, "mozzie", filepath.Join("bin", "mozzie"), "the built `PROGRAM`")
	flag.Parse()
	o.stages = strings.Split(stages, ",")
	if rows != "" {
		o.rows = strings.Split(rows, ",")
	}
	o.runs, o.duration, o.warmup, o.clients = 3, 2*time.Second, 500*time.Millisecond, 10_000
	if quick {
		o.runs, o.duration, o.warmup, o.clients = 1, time.Second, 300*time.Millisecond, 2000
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	program, err := filepath.Abs(o.program)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mozzie-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: o, report: report{Machine: machine(ctx)}}
	b.program = program
	b.peers = installPeers(ctx, program, dir)
	b.report.Versions = b.peers.versions(ctx)
	say("%s", b.report.Machine)
	if busy := load(); busy > 0.5 {
		say("The machine is busy (load %.1f): what comes out is not worth much.", busy)
	}
	began := time.Now()
	for _, stage := range o.stages {
		if err := b.stage(ctx, stage, filepath.Join(dir, stage)); err != nil {
			return err
		}
	}
	b.report.Minutes = time.Since(began).Minutes()
	text := b.report.markdown()
	fmt.Println(text)
	if err := b.report.save(o.json); err != nil {
		return err
	}
	if o.update {
		return updatePage(page, text)
	}
	return nil
}

// say tells how it goes.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

type bench struct {
	options
	peers  peers
	report report
}

// stage runs some brokers and measures them.
func (b *bench) stage(ctx context.Context, name, dir string) error {
	var rows []string
	var all []starter
	switch name {
	case "alone":
		rows, all = aloneRows, b.peers.alone()
	case "across":
		rows, all = acrossRows, b.peers.across()
	case "kept":
		rows, all = keptRows, b.peers.kept()
	default:
		return fmt.Errorf("-stages %s: want alone, across, kept or some of them", name)
	}
	if b.rows != nil {
		rows = slices.DeleteFunc(slices.Clone(rows), func(r string) bool { return !slices.Contains(b.rows, r) })
	}
	if len(rows) == 0 {
		return nil
	}
	var running []*renewed
	defer func() {
		for _, r := range running {
			r.stop()
		}
	}()
	for i, start := range all {
		r := &renewed{start: start, dir: filepath.Join(dir, strconv.Itoa(i))}
		err := r.renew(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			say("%s", err)
			b.report.Missing = append(b.report.Missing, err.Error())
			continue
		}
		running = append(running, r)
	}
	for round := range b.runs {
		for i, row := range rows {
			if idleRow(row) {
				continue // below
			}
			for n := range running { // each in turn is the first
				r := running[(n+i+round)%len(running)]
				lost, err := b.measure(ctx, name, row, r.broker, round)
				if err == nil && lost {
					err = r.renew(ctx)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	return b.idle(ctx, name, rows, all, dir)
}

// renewed is a broker that is started anew when it has lost messages: mosquitto's bridge may have its window full of them
// then, and pass nothing more, whatever the next row is.
type renewed struct {
	*broker
	start  starter
	dir    string
	starts int
}

func (r *renewed) renew(ctx context.Context) (err error) {
	if r.broker != nil {
		r.stop()
	}
	r.starts++
	b, err := r.start(ctx, filepath.Join(r.dir, strconv.Itoa(r.starts)))
	if err == nil {
		r.broker = b
	}
	return err
}

func idleRow(row string) bool { return strings.HasPrefix(row, "h") }

// idle measures rows of idle clients, each with a broker that was just started: what clients that are gone leave behind
// is memory too.
func (b *bench) idle(ctx context.Context, stage string, rows []string, all []starter, dir string) error {
	for _, row := range rows {
		if !idleRow(row) {
			continue
		}
		for i, start := range all {
			r, err := start(ctx, filepath.Join(dir, row+strconv.Itoa(i)))
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				continue // said above
			}
			_, err = b.measure(ctx, stage, row, r, 0)
			r.stop()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// measure runs the generator once. What a broker does wrong is a result, and whether it lost anything; an error ends the
// benchmark.
func (b *bench) measure(ctx context.Context, stage, row string, r *broker, round int) (lost bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	args := []string{"bench", row, "--json", "--pub", r.publish, "--sub", r.subscribe, "--pid", r.pids()}
	switch {
	case idleRow(row):
		args = append(args, "--clients", strconv.Itoa(b.clients), "--duration", (2 * b.duration).String())
	case strings.HasPrefix(row, "g"): // a quantile needs its number of messages
		args = append(args, "--warmup", (2 * b.warmup).String(), "--duration", (2 * b.duration).String())
	default:
		args = append(args, "--warmup", b.warmup.String(), "--duration", b.duration.String())
	}
	way := -1
	if flags := acrossFlags[row]; stage == "across" && flags != nil {
		args = append(args, flags...)
	} else if len(r.topics) > 0 {
		way = round % len(r.topics)
		args = append(args, "--topic", r.topics[way])
	}
	out, err := exec.CommandContext(ctx, b.program, args...).Output()
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	var res result
	if jsonErr := json.Unmarshal(out, &res); jsonErr != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return false, fmt.Errorf("run the generator: %w", errors.Join(err, jsonErr))
		}
		res.Failed = strings.TrimSpace(string(exit.Stderr))
	}
	res.twoHops = way > 0 && way < len(r.topics)-1
	b.report.add(stage, row, r.name, res)
	say("%-7s %-6s %-18s %s", stage, row, r.name, res.short(row))
	return res.Lost > 0 || res.Failed != "", nil
}
