package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/bench"
)

// benchPrinter prints what bench measures: a table, or JSON, and on a terminal a line of how it goes.
type benchPrinter struct {
	out      io.Writer
	terminal io.Writer // nil: there is none
	json     bool
	header   bool // has been printed
	width    int  // of the line on the terminal
}

func newBenchPrinter(out, errOut io.Writer, json bool) *benchPrinter {
	p := &benchPrinter{out: out, json: json}
	if f, ok := errOut.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.terminal = f
		}
	}
	return p
}

// say replaces the line on the terminal.
func (p *benchPrinter) say(text string) {
	if p.terminal != nil {
		fmt.Fprintf(p.terminal, "\r%-*s\r%s", p.width, "", text)
		p.width = len(text)
	}
}

func (p *benchPrinter) clear() { p.say("") }

func (p *benchPrinter) progress(row bench.Row, run, runs int, now bench.Progress) {
	text := strings.TrimSpace(fmt.Sprintf("%s %d/%d", row.Name, run, runs))
	p.say(fmt.Sprintf("%s  %.0f of %.0f s  %s messages/s", text, now.Elapsed.Seconds(), now.Total.Seconds(), thousands(now.Rate)))
}

func (p *benchPrinter) connecting(row bench.Row, n, of int) {
	p.say(fmt.Sprintf("%s  %d of %d clients", row.Name, n, of))
}

// benchLine is what --json prints for a load.
type benchLine struct {
	Row         string  `json:"row,omitempty"`
	Publishers  int     `json:"publishers"`
	Subscribers int     `json:"subscribers"`
	Topics      int     `json:"topics"`
	QoS         byte    `json:"qos"`
	Size        int     `json:"size"`
	Target      float64 `json:"target_per_s,omitempty"`
	bench.Summary
	Each []*bench.Result `json:"each"`
}

func (p *benchPrinter) load(row bench.Row, l bench.Load, s bench.Summary, runs []*bench.Result) {
	p.clear()
	if p.json {
		p.line(benchLine{row.Name, l.Publishers, l.Subscribers, l.Topics, l.QoS, l.Size, l.Rate, s, runs})
		return
	}
	if !p.header {
		p.header = true
		fmt.Fprintf(p.out, "%-6s %-28s %12s %9s %9s %9s %9s %6s %6s\n", "row", "", "messages/s", "p50", "p99", "lost", "twice", "order", "cores")
	}
	what := row.What
	if what == "" {
		what = fmt.Sprintf("%d to %d, QoS %d, %d B", l.Publishers, l.Subscribers, l.QoS, l.Size)
	}
	cores := "-"
	if len(s.Brokers) > 0 {
		sum := 0.0
		for _, b := range s.Brokers {
			sum += b.CPU
		}
		cores = fmt.Sprintf("%.2f", sum)
	}
	fmt.Fprintf(p.out, "%-6s %-28s %12s %9s %9s %9d %9d %6d %6s\n",
		row.Name, what, thousands(s.Rate), micros(s.Latency.P50), micros(s.Latency.P99), s.Lost, s.Duplicates, s.OutOfOrder, cores)
	if s.Ack.Max > 0 {
		fmt.Fprintf(p.out, "%-6s %-28s %12s %9s %9s\n", "", "  acknowledged", "", micros(s.Ack.P50), micros(s.Ack.P99))
	}
	if l.Topics > 1 && l.Rate > 0 {
		fmt.Fprintf(p.out, "%-6s %-28s %12s %9s %9s\n", "", "  the worst topic", "", micros(s.WorstTopic.P50), micros(s.WorstTopic.P99))
	}
}

func (p *benchPrinter) idle(row bench.Row, r *bench.IdleResult) {
	if p.json {
		p.line(struct {
			Row string `json:"row"`
			*bench.IdleResult
		}{row.Name, r})
		return
	}
	what := "idle connections"
	if r.Offline {
		what = "offline sessions"
	}
	fmt.Fprintf(p.out, "%-6s %d %s: %.1f KiB each, above %.1f MiB; %.3f cores; connecting takes %s (p99 %s)\n",
		row.Name, r.Clients, what, r.PerClient/1024, float64(r.RSS)/(1<<20), r.CPU, micros(r.Latency.P50), micros(r.Latency.P99))
}

func (p *benchPrinter) line(v any) {
	e := json.NewEncoder(p.out)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // nobody is left to tell
}

// thousands writes a number as 1,234,567.
func thousands(f float64) string {
	s := fmt.Sprintf("%.0f", f)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// micros writes microseconds in a unit that fits.
func micros(us float64) string {
	d := time.Duration(us * float64(time.Microsecond))
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", us/1000)
	}
	return fmt.Sprintf("%.0f µs", us)
}
