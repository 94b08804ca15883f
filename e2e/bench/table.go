package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// page has the tables between the markers.
const (
	page        = "docs/benchmarks.md"
	beginMarker = "<!-- make bench UPDATE=1 writes from here -->"
	endMarker   = "<!-- to here -->"
)

// rowNames are what the tables call the rows of mozzie bench.
var rowNames = map[string]string{
	"a": "a. 1 to 1, QoS 0, 64 B", "a-1k": "a. 1 to 1, QoS 0, 1 KiB", "b": "b. 10 to 10, QoS 0", "c": "c. fan-out, 1 to 50",
	"d": "d. fan-in, 50 to 1 with `#`", "e": "e. 10 to 10, QoS 1, window 100", "f": "f. 10 to 10, QoS 2, window 100",
	"f-20": "f. 10 to 10, QoS 2, window 20", "g": "g. latency at 1,000/s, QoS 0", "g-1": "g. latency at 1,000/s, QoS 1",
	"h": "h. idle; each idle connection", "h-off": "h. idle; each offline session", "i": "i. as e, persistent sessions",
}

// result is what of the generator's JSON is used. All of it is kept.
type result struct {
	Rate       float64 `json:"delivered_per_s"`
	Due        uint64  `json:"due"`
	Lost       uint64  `json:"lost"`
	Duplicates uint64  `json:"duplicates"`
	OutOfOrder uint64  `json:"out_of_order"`
	Latency    latency `json:"latency_us"`
	WorstTopic latency `json:"worst_topic_us"`
	Idle       float64 `json:"rss_bytes"`
	PerClient  float64 `json:"rss_bytes_per_client"`
	Failed     string  `json:"failed,omitempty"` // instead of all that

	whole   json.RawMessage
	twoHops bool // the rendezvous was neither at the publisher's node nor at the subscriber's
}

type latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

func (r *result) UnmarshalJSON(text []byte) error {
	type plain result
	r.whole = slices.Clone(text)
	return json.Unmarshal(text, (*plain)(r))
}

func (r result) MarshalJSON() ([]byte, error) {
	if r.whole != nil {
		return r.whole, nil
	}
	return json.Marshal(map[string]string{"failed": r.Failed})
}

// short says a result in a line.
func (r result) short(row string) string {
	if r.Failed != "" {
		return "failed: " + r.Failed
	}
	return cell(row, []result{r})
}

// report is all that was measured.
type report struct {
	Machine  string    `json:"machine"`
	Versions []string  `json:"versions"`
	Minutes  float64   `json:"minutes"`
	Missing  []string  `json:"missing,omitempty"`
	Cells    []*series `json:"results"`
}

// series are the results of a broker in a row.
type series struct {
	Stage   string   `json:"stage"`
	Row     string   `json:"row"`
	Broker  string   `json:"broker"`
	Results []result `json:"runs"`
}

func (r *report) add(stage, row, broker string, res result) {
	for _, s := range r.Cells {
		if s.Stage == stage && s.Row == row && s.Broker == broker {
			s.Results = append(s.Results, res)
			return
		}
	}
	r.Cells = append(r.Cells, &series{stage, row, broker, []result{res}})
}

func (r *report) of(stage, row, broker string) []result {
	for _, s := range r.Cells {
		if s.Stage == stage && s.Row == row && s.Broker == broker {
			return s.Results
		}
	}
	return nil
}

func (r *report) save(file string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// markdown writes the tables.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. %s. The run took %.0f minutes.\n", r.Machine, strings.Join(r.Versions, "; "), r.Minutes)
	for _, m := range r.Missing {
		fmt.Fprintf(&b, "\n%s\n", m)
	}
	r.table(&b, "alone", "Alone", []string{"Mozzie"}, []string{"mosquitto", "NATS", "mochi"})
	r.table(&b, "across", "Across nodes", []string{"Mozzie, open", "Mozzie, private"}, []string{"mosquitto bridge", "NATS"})
	r.table(&b, "kept", "Kept on the disk", []string{"Mozzie"}, []string{"mosquitto", "NATS", "NATS, synced"})
	return b.String()
}

// table writes the table of a stage: a column for each broker, and Mozzie's ratios to the first of the others and to the
// best of them.
func (r *report) table(b *strings.Builder, stage, title string, own, others []string) {
	present := func(brokers []string) []string {
		return slices.DeleteFunc(slices.Clone(brokers), func(name string) bool {
			return !slices.ContainsFunc(r.Cells, func(s *series) bool { return s.Stage == stage && s.Broker == name })
		})
	}
	own, others = present(own), present(others)
	if len(own) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### %s\n\n| |", title)
	for _, name := range slices.Concat(own, others) {
		fmt.Fprintf(b, " %s |", name)
	}
	first := slices.Contains(others, "mosquitto") || slices.Contains(others, "mosquitto bridge")
	if first {
		fmt.Fprint(b, " to mosquitto |")
	}
	fmt.Fprint(b, " to the best |\n|---|")
	columns := len(own) + len(others) + 1
	if first {
		columns++
	}
	fmt.Fprintln(b, strings.Repeat("---|", columns))
	for _, row := range slices.Concat(aloneRows, keptRows) {
		if r.of(stage, row, own[0]) == nil {
			continue
		}
		fmt.Fprintf(b, "| %s |", rowNames[row])
		for _, name := range slices.Concat(own, others) {
			fmt.Fprintf(b, " %s |", cell(row, r.of(stage, row, name)))
		}
		if first {
			fmt.Fprintf(b, " %s |", r.ratios(stage, row, own, others[:1]))
		}
		fmt.Fprintf(b, " %s |\n", r.ratios(stage, row, own, others))
	}
}

// ratios are those of each of our brokers to the best of some others.
func (r *report) ratios(stage, row string, own, others []string) string {
	var all []string
	for _, name := range own {
		all = append(all, r.ratio(stage, row, r.of(stage, row, name), others))
	}
	return strings.Join(all, ", ")
}

func (r *report) ratio(stage, row string, mine []result, others []string) string {
	var parts []string
	for _, measure := range measuresOf(row) {
		best, ok := 0.0, false
		for _, name := range others {
			if v, there := measure.median(r.of(stage, row, name)); there && (!ok || measure.better(v, best)) {
				best, ok = v, true
			}
		}
		v, there := measure.median(mine)
		if !ok || !there || best == 0 {
			parts = append(parts, "-")
			continue
		}
		parts = append(parts, digits(v/best))
	}
	return strings.Join(parts, "/")
}

// measure is a number of a result.
type measure struct {
	of        func(result) float64
	lowIsGood bool
}

func measuresOf(row string) []measure {
	switch {
	case idleRow(row):
		return []measure{{func(r result) float64 { return r.Idle }, true}, {func(r result) float64 { return r.PerClient }, true}}
	case strings.HasPrefix(row, "g"):
		return []measure{{func(r result) float64 { return r.Latency.P50 }, true}, {func(r result) float64 { return r.Latency.P99 }, true}}
	}
	return []measure{{func(r result) float64 { return r.Rate }, false}}
}

func (m measure) better(a, b float64) bool {
	if m.lowIsGood {
		return a < b
	}
	return a > b
}

// median is that of the results that there are.
func (m measure) median(all []result) (float64, bool) {
	var values []float64
	for _, r := range all {
		if r.Failed == "" {
			values = append(values, m.of(r))
		}
	}
	if len(values) == 0 {
		return 0, false
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, true
}

// cell says what a broker reached in a row, and what it did wrong.
func cell(row string, all []result) string {
	var due, lost, twice, order uint64
	failed := 0
	for _, r := range all {
		due, lost, twice, order = due+r.Due, lost+r.Lost, twice+r.Duplicates, order+r.OutOfOrder
		if r.Failed != "" {
			failed++
		}
	}
	if failed == len(all) {
		return "-"
	}
	value := func(of func(result) float64) float64 {
		v, _ := measure{of: of}.median(all)
		return v
	}
	text := ""
	switch {
	case idleRow(row):
		text = fmt.Sprintf("%.0f MiB; %s KiB", value(func(r result) float64 { return r.Idle })/(1<<20), digits(value(func(r result) float64 { return r.PerClient })/1024))
	case strings.HasPrefix(row, "g"):
		text = fmt.Sprintf("%s/%s", micros(value(func(r result) float64 { return r.Latency.P50 })), micros(value(func(r result) float64 { return r.Latency.P99 })))
		worst := [2]float64{value(func(r result) float64 { return r.WorstTopic.P50 }), value(func(r result) float64 { return r.WorstTopic.P99 })}
		if worst[1] > value(func(r result) float64 { return r.Latency.P99 }) {
			text += fmt.Sprintf(", worst %s/%s", micros(worst[0]), micros(worst[1]))
		}
	default:
		ofRate := func(r result) float64 { return r.Rate }
		text = rate(value(ofRate))
		far := slices.DeleteFunc(slices.Clone(all), func(r result) bool { return !r.twoHops })
		if v, ok := (measure{of: ofRate}).median(far); ok && len(far) < len(all) {
			text += fmt.Sprintf(" (%s by a third node)", rate(v))
		}
	}
	for _, wrong := range []struct {
		n    uint64
		what string
	}{{lost, "lost"}, {twice, "twice"}, {order, "out of order"}} {
		if wrong.n > 0 {
			text += fmt.Sprintf(", %s %% %s", digits(100*float64(wrong.n)/float64(due)), wrong.what)
		}
	}
	if failed > 0 {
		text += fmt.Sprintf(", %d of %d failed", failed, len(all))
	}
	return text
}

// digits writes a number with two digits that count.
func digits(f float64) string {
	switch {
	case f >= 10:
		return strconv.FormatFloat(f, 'f', 0, 64)
	case f >= 1 || f <= 0:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'g', 2, 64)
}

// rate writes messages a second as 1.2M, 345k or 678.
func rate(f float64) string {
	switch {
	case f >= 999_500:
		return strconv.FormatFloat(f/1e6, 'f', 2, 64) + "M"
	case f >= 10_000:
		return strconv.FormatFloat(f/1e3, 'f', 0, 64) + "k"
	}
	return strconv.FormatFloat(f, 'f', 0, 64)
}

// micros writes microseconds.
func micros(us float64) string {
	if us >= 1000 {
		return strconv.FormatFloat(us/1000, 'f', 1, 64) + " ms"
	}
	return strconv.FormatFloat(us, 'f', 0, 64) + " µs"
}

// machine says where and when this is.
func machine(ctx context.Context) string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`(?m)^(?:model name|Model)\s*: (.+)$`).FindSubmatch(text); m != nil {
			model = string(m[1])
		}
	}
	memory := ""
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if m := regexp.MustCompile(`MemTotal:\s+(\d+) kB`).FindSubmatch(text); m != nil {
			if kib, err := strconv.ParseFloat(string(m[1]), 64); err == nil {
				memory = fmt.Sprintf(", %.0f GiB", kib/(1<<20))
			}
		}
	}
	kernel, _ := exec.CommandContext(ctx, "uname", "-sr").Output() // it only says where we are
	disk := ""
	if took, err := syncTime(); err == nil {
		disk = fmt.Sprintf(", a sync of the disk takes %s", micros(float64(took.Microseconds())))
	}
	return fmt.Sprintf("%s: %s, %d cores%s%s, %s, %s", time.Now().UTC().Format("2006-01-02"), model, runtime.NumCPU(), memory, disk, strings.TrimSpace(string(kernel)), runtime.Version())
}

// syncTime is how long it takes, in the median, to append to a file where the brokers have theirs and to sync that.
func syncTime() (time.Duration, error) {
	f, err := os.CreateTemp("", "mozzie-bench-sync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	for range 200 {
		began := time.Now()
		if _, err = f.Write(make([]byte, 256)); err == nil {
			err = f.Sync()
		}
		if err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// load is how many processes want to run for each core, over the last minute; 0 where that cannot be told.
func load() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	f, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return f / float64(runtime.NumCPU())
}

// updatePage puts the tables into the page.
func updatePage(file, tables string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err := replaceBetween(string(old), tables)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// replaceBetween replaces what is between the markers.
func replaceBetween(text, with string) (string, error) {
	before, rest, ok := strings.Cut(text, beginMarker)
	_, after, ok2 := strings.Cut(rest, endMarker)
	if !ok || !ok2 {
		return "", fmt.Errorf("the markers %q and %q are not there", beginMarker, endMarker)
	}
	return before + beginMarker + "\n\n" + strings.TrimSpace(with) + "\n\n" + endMarker + after, nil
}
