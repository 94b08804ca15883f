package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// filled is a report with a few results.
func filled(t *testing.T) *report {
	r := &report{Machine: "here", Versions: []string{"mozzie 1", "mosquitto 2"}, Minutes: 3}
	for _, c := range []struct{ stage, row, broker, json string }{
		{"alone", "a", "Mozzie", `{"delivered_per_s": 3000000, "due": 100}`},
		{"alone", "a", "Mozzie", `{"delivered_per_s": 1000000, "due": 100, "lost": 1}`},
		{"alone", "a", "Mozzie", `{"delivered_per_s": 2000000, "due": 100}`},
		{"alone", "a", "mosquitto", `{"delivered_per_s": 100000, "due": 10}`},
		{"alone", "a", "NATS", `{"delivered_per_s": 4000000, "due": 10}`},
		{"alone", "g", "Mozzie", `{"latency_us": {"p50": 200, "p99": 1500}, "worst_topic_us": {"p50": 200, "p99": 1500}}`},
		{"alone", "g", "mosquitto", `{"latency_us": {"p50": 100, "p99": 3000}, "worst_topic_us": {"p50": 110, "p99": 4000}}`},
		{"alone", "h", "Mozzie", `{"rss_bytes": 31457280, "rss_bytes_per_client": 8192}`},
		{"alone", "h", "mosquitto", `{"rss_bytes": 10485760, "rss_bytes_per_client": 1024}`},
	} {
		var res result
		if err := json.Unmarshal([]byte(c.json), &res); err != nil {
			t.Fatal(err)
		}
		r.add(c.stage, c.row, c.broker, res)
	}
	r.add("alone", "h", "NATS", result{Failed: "refused"})
	for _, res := range []result{{Rate: 300_000}, {Rate: 200_000, twoHops: true}, {Rate: 310_000}} {
		r.add("across", "a", "Mozzie, open", res)
	}
	return r
}

func TestMarkdown(t *testing.T) {
	want := `here. mozzie 1; mosquitto 2. The run took 3 minutes.

### Alone

| | Mozzie | mosquitto | NATS | to mosquitto | to the best |
|---|---|---|---|---|---|
| a. 1 to 1, QoS 0, 64 B | 2.00M, 0.33 % lost | 100k | 4.00M | 20 | 0.5 |
| g. latency at 1,000/s, QoS 0 | 200 µs/1.5 ms | 100 µs/3.0 ms, worst 110 µs/4.0 ms | - | 2.0/0.5 | 2.0/0.5 |
| h. idle; each idle connection | 30 MiB; 8.0 KiB | 10 MiB; 1.0 KiB | - | 3.0/8.0 | 3.0/8.0 |

### Across nodes

| | Mozzie, open | to the best |
|---|---|---|
| a. 1 to 1, QoS 0, 64 B | 300k (200k by a third node) | - |
`
	if got := filled(t).markdown(); got != want {
		t.Errorf("have\n%s\nwant\n%s", got, want)
	}
}

// What the generator printed is kept whole, and a failure is kept as one.
func TestSave(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.json")
	r := &report{}
	var res result
	if err := json.Unmarshal([]byte(`{"delivered_per_s": 1, "each": [{"anything": 2}]}`), &res); err != nil {
		t.Fatal(err)
	}
	r.add("alone", "a", "x", res)
	r.add("alone", "a", "x", result{Failed: "why"})
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"anything": 2`, `"failed": "why"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
}

// The page has the markers, and only what is between them changes.
func TestReplace(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	if err != nil {
		t.Fatal(err)
	}
	once, err := replaceBetween(string(text), "new\n")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(once, beginMarker+"\n\nnew\n\n"+endMarker) || !strings.HasPrefix(once, string(text[:500])) {
		t.Errorf("have\n%s", once)
	}
	if twice, err := replaceBetween(once, "new"); err != nil || twice != once {
		t.Errorf("again: %v\n%s", err, twice)
	}
	if _, err := replaceBetween("no markers", "x"); err == nil {
		t.Error("a page without markers is taken")
	}
}

func TestFigures(t *testing.T) {
	for _, tc := range []struct{ have, want string }{
		{rate(1_234_567), "1.23M"}, {rate(999_600), "1.00M"}, {rate(99_400), "99k"}, {rate(9_999), "9999"},
		{digits(117.4), "117"}, {digits(2.53), "2.5"}, {digits(.0312), "0.031"}, {digits(0), "0.0"},
		{micros(999), "999 µs"}, {micros(1250), "1.2 ms"},
	} {
		if tc.have != tc.want {
			t.Errorf("%s, want %s", tc.have, tc.want)
		}
	}
}
