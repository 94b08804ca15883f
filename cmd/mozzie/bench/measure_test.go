package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// short is a load that takes no time to speak of, unless something is lost: then it takes what a busy machine may need
// before that is certain.
func short(address string, change func(*Load)) Load {
	l := DefaultLoad()
	l.PublishTo = []string{address}
	l.Credit, l.Settle, l.Warmup, l.Duration, l.Drain = 100, 0, 20*time.Millisecond, 200*time.Millisecond, 3*time.Second
	if change != nil {
		change(&l)
	}
	return l
}

func measure(t *testing.T, l Load) *Result {
	t.Helper()
	if err := l.Complete(); err != nil {
		t.Fatal(err)
	}
	r, err := Measure(context.Background(), l, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A broker that does all well is told so, at every QoS, in every shape.
func TestMeasure(t *testing.T) {
	for name, change := range map[string]func(*Load){
		"QoS 0":    func(*Load) {},
		"QoS 1":    func(l *Load) { l.QoS = 1 },
		"QoS 2":    func(l *Load) { l.QoS, l.Window = 2, 7 },
		"fan-out":  func(l *Load) { l.Subscribers = 3 },
		"fan-in":   func(l *Load) { l.Publishers, l.Wildcard, l.QoS = 3, true, 1 },
		"rate":     func(l *Load) { l.Rate, l.Credit = 1000, 0 },
		"large":    func(l *Load) { l.Size, l.Credit = 300_000, 2 }, // larger than any buffer
		"blasting": func(l *Load) { l.Credit, l.Drain = 0, time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			l := short(startBroker(t, &testBroker{}), change)
			began := time.Now()
			r := measure(t, l)
			if !r.OK() || r.Delivered == 0 || r.Delivered != r.Due || r.Due != r.Sent*uint64(l.Subscribers) {
				t.Errorf("%+v", r)
			}
			if l.QoS > 0 && r.Acked < r.Sent-uint64(l.Publishers*l.Window) {
				t.Errorf("%d of %d acknowledged", r.Acked, r.Sent)
			}
			if r.Rate > 0 && r.Latency.P50 <= 0 || r.Latency.P50 > r.Latency.P99 || r.Latency.P99 > r.Latency.Max {
				t.Errorf("%+v", r.Latency)
			}
			if most := l.Rate * time.Since(began).Seconds(); l.Rate > 0 && float64(r.Sent) > most {
				t.Errorf("%d messages sent, where the rate allows for %.0f", r.Sent, most)
			}
		})
	}
}

// What a broker does wrong is found, and how often.
func TestMeasureFinds(t *testing.T) {
	t.Parallel()
	var kept []byte
	for _, tc := range []struct {
		name  string
		treat func(n int, packet []byte) [][]byte
		check func(*Result) bool
	}{
		{"loss", func(n int, p []byte) [][]byte {
			if n == 5 || n == 7 {
				return nil
			}
			return [][]byte{p}
		}, func(r *Result) bool { return r.Lost == 2 && r.Duplicates == 0 && r.OutOfOrder == 0 }},
		{"doubles", func(n int, p []byte) [][]byte {
			if n == 5 {
				return [][]byte{p, p, p}
			}
			return [][]byte{p}
		}, func(r *Result) bool { return r.Lost == 0 && r.Duplicates == 2 && r.OutOfOrder == 0 }},
		{"disorder", func(n int, p []byte) [][]byte {
			switch n {
			case 5:
				kept = append([]byte(nil), p...)
				return nil
			case 8:
				return [][]byte{p, kept}
			}
			return [][]byte{p}
		}, func(r *Result) bool { return r.Lost == 0 && r.Duplicates == 0 && r.OutOfOrder == 1 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := measure(t, short(startBroker(t, &testBroker{treat: tc.treat}), nil))
			if r.OK() || r.Delivered < 10 || !tc.check(r) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A QoS 2 message that comes again before its PUBREL is no duplicate: that is how QoS 2 works.
func TestMeasureRepeated(t *testing.T) {
	t.Parallel()
	b := &testBroker{treat: func(n int, p []byte) [][]byte {
		if n == 3 {
			return [][]byte{p, p}
		}
		return [][]byte{p}
	}}
	r := measure(t, short(startBroker(t, b), func(l *Load) { l.QoS, l.Window = 2, 10 }))
	if !r.OK() || r.Repeated != 1 {
		t.Errorf("%+v", r)
	}
}

// What is lost does not use up the credit for ever.
func TestMeasureStalls(t *testing.T) {
	t.Parallel()
	b := &testBroker{treat: func(n int, p []byte) [][]byte {
		if n <= 10 {
			return nil
		}
		return [][]byte{p}
	}}
	r := measure(t, short(startBroker(t, b), func(l *Load) { l.Credit, l.Duration = 10, 2*stallAfter }))
	if r.Lost != 10 || r.Stalls < 1 || r.Delivered == 0 {
		t.Errorf("%+v", r)
	}
}

// A connection that breaks ends the run, and what was measured is there.
func TestMeasureBroken(t *testing.T) {
	t.Parallel()
	l := short(startBroker(t, &testBroker{refuse: 50}), func(l *Load) { l.Rate, l.Duration = 500, time.Minute })
	r := measure(t, l)
	if r.OK() || r.Delivered == 0 || len(r.Problems) == 0 || !strings.HasPrefix(r.Problems[0], "publisher 1: ") {
		t.Errorf("%+v", r)
	}
}

// At the end of the context there is what was measured until then; before there is anything, an error.
func TestMeasureInterrupted(t *testing.T) {
	l := short(startBroker(t, &testBroker{}), func(l *Load) { l.Rate, l.Duration = 500, time.Hour })
	if err := l.Complete(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r, err := Measure(ctx, l, func(p Progress) {
		if p.Delivered > 0 {
			cancel()
		}
	})
	if err != nil || !r.OK() || r.Delivered == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Measure(ctx, l, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Nobody there, nobody who speaks MQTT, and what the broker refuses.
func TestMeasureRefused(t *testing.T) {
	l := short("127.0.0.1:1", nil)
	if err := l.Complete(); err != nil {
		t.Fatal(err)
	}
	if _, err := Measure(context.Background(), l, nil); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("%v", err)
	}
}
