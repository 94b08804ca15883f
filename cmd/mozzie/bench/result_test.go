package bench

import (
	"strings"
	"testing"
)

func TestSummarize(t *testing.T) {
	s := Summarize([]*Result{
		{Rate: 30, Lost: 1, Latency: Latency{P50: 1, P99: 9}, Brokers: []Process{{PID: 7, CPU: .5, RSS: 10}}},
		{Rate: 10, Duplicates: 2, Latency: Latency{P50: 3, P99: 7}, Brokers: []Process{{PID: 7, CPU: .1, RSS: 30}}, Problems: []string{"x"}},
		{Rate: 20, OutOfOrder: 3, Latency: Latency{P50: 2, P99: 8}, Brokers: []Process{{PID: 7, CPU: .3, RSS: 20}}},
	})
	if s.Runs != 3 || s.Rate != 20 || s.Lowest != 10 || s.Highest != 30 || s.Latency.P50 != 2 || s.Latency.P99 != 8 {
		t.Errorf("%+v", s)
	}
	if s.Lost != 1 || s.Duplicates != 2 || s.OutOfOrder != 3 || len(s.Problems) != 1 || s.OK() {
		t.Errorf("%+v", s)
	}
	if s.Brokers[0] != (Process{PID: 7, CPU: .3, RSS: 20}) {
		t.Errorf("%+v", s.Brokers)
	}
	if even := Summarize([]*Result{{Rate: 1}, {Rate: 4}}); even.Rate != 2.5 || !even.OK() {
		t.Errorf("%+v", even)
	}
}

func TestComplete(t *testing.T) {
	l := DefaultLoad()
	if err := l.Complete(); err != nil || l.Topics != 1 || l.SubscribeAt[0] != l.PublishTo[0] {
		t.Errorf("%+v, %v", l, err)
	}
	for name, change := range map[string]func(*Load){
		"--pubs 0":                func(l *Load) { l.Publishers = 0 },
		"--subs 100000":           func(l *Load) { l.Subscribers = 100_000 },
		"--qos 3":                 func(l *Load) { l.QoS = 3 },
		"--size 23":               func(l *Load) { l.Size = 23 },
		"--window 65536":          func(l *Load) { l.Window = 65536 },
		"--rate -1":               func(l *Load) { l.Rate = -1 },
		"--duration wants":        func(l *Load) { l.Duration = 0 },
		"--wildcard and --spread": func(l *Load) { l.Wildcard, l.Spread = true, true },
		`--topic "a/#"`:           func(l *Load) { l.Prefix = "a/#" },
		"1000 publishers on 1000": func(l *Load) { l.Publishers, l.Subscribers, l.Wildcard = 1000, 1000, true },
	} {
		l := DefaultLoad()
		change(&l)
		if err := l.Complete(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, r := range Rows {
		if idle, _ := r.Idle(); idle {
			continue
		}
		l := DefaultLoad()
		r.Set(&l)
		if err := l.Complete(); err != nil {
			t.Errorf("row %s: %v", r.Name, err)
		}
	}
}
