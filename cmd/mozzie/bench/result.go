package bench

import (
	"slices"
	"time"
)

// Result is what one run measured. A message counts once for each of its subscribers, but for what was sent.
type Result struct {
	Rate     float64 `json:"delivered_per_s"`
	SentRate float64 `json:"sent_per_s"`
	Window   float64 `json:"measured_s"`

	Sent       uint64 `json:"sent"`
	Acked      uint64 `json:"acked"` // QoS 1 and 2
	Due        uint64 `json:"due"`   // deliveries of what was sent
	Delivered  uint64 `json:"delivered"`
	Lost       uint64 `json:"lost"`
	Duplicates uint64 `json:"duplicates"`
	OutOfOrder uint64 `json:"out_of_order"`  // behind a later message of the same stream
	Repeated   uint64 `json:"qos2_repeated"` // sent again before their PUBREL, and not counted twice
	Stalls     uint64 `json:"stalls"`        // how often a publisher gave up what it had out

	Latency Latency `json:"latency_us"`
	// WorstTopic has the highest p50 and the highest p99 of a topic, which need not be of one and the same.
	WorstTopic Latency `json:"worst_topic_us"`
	// Ack is how long it took from the write of a message to the end of its exchange, PUBACK or PUBCOMP; of loads with a rate.
	Ack Latency `json:"ack_us"`

	GeneratorCPU float64   `json:"generator_cores"` // CPU time over time
	Brokers      []Process `json:"brokers,omitempty"`
	Problems     []string  `json:"problems,omitempty"` // what ended the run
}

// Latency is quantiles of it, µs.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Process is what a process used while it was measured.
type Process struct {
	PID int     `json:"pid"`
	CPU float64 `json:"cores"`
	RSS int64   `json:"rss_bytes"` // at the end
}

// OK reports whether everything came once and in order.
func (r *Result) OK() bool {
	return r.Lost == 0 && r.Duplicates == 0 && r.OutOfOrder == 0 && len(r.Problems) == 0
}

// point is what was counted up to a moment.
type point struct {
	at              time.Duration
	sent, delivered uint64
	generator       time.Duration // CPU time
	brokers         []usage
}

func (r *run) sample() (p point, err error) {
	p = point{at: r.now(), delivered: r.delivered(), generator: ownCPU()}
	for _, publisher := range r.publishers {
		p.sent += publisher.sent.Load()
	}
	for _, pid := range r.PIDs {
		u, err := usageOf(pid)
		if err != nil {
			return p, err
		}
		p.brokers = append(p.brokers, u)
	}
	return p, nil
}

// result sums up. The run is over.
func (r *run) result(before, after point) *Result {
	window := max(after.at-before.at, 1).Seconds() // it may have been broken from the start
	res := &Result{
		Rate:         float64(after.delivered-before.delivered) / window,
		SentRate:     float64(after.sent-before.sent) / window,
		Window:       window,
		GeneratorCPU: (after.generator - before.generator).Seconds() / window,
	}
	for i, u := range after.brokers {
		cpu := (u.cpu - before.brokers[i].cpu).Seconds() / window
		res.Brokers = append(res.Brokers, Process{PID: r.PIDs[i], CPU: cpu, RSS: u.rss})
	}
	for _, p := range r.publishers {
		res.Sent += p.sent.Load()
		res.Acked += p.acked.Load()
		res.Stalls += p.stalls
	}
	for _, s := range r.streams {
		res.Due += s.sent * s.fan
	}
	topics := make([]histogram, r.Topics)
	for _, s := range r.subscribers {
		res.Repeated += s.repeated
		for _, f := range s.flows {
			if f == nil {
				continue
			}
			res.Delivered += f.tally.Unique
			res.Duplicates += f.tally.Duplicates
			res.OutOfOrder += f.tally.Late
			topics[f.stream.topicNumber].merge(&f.took)
		}
	}
	res.Lost = res.Due - min(res.Due, res.Delivered)
	var all histogram
	for i := range topics {
		all.merge(&topics[i])
		res.WorstTopic = res.WorstTopic.worse(latencyOf(&topics[i]))
	}
	res.Latency = latencyOf(&all)
	var acks histogram
	for _, p := range r.publishers {
		acks.merge(&p.took)
	}
	res.Ack = latencyOf(&acks)
	for _, err := range r.problems {
		res.Problems = append(res.Problems, err.Error())
	}
	return res
}

func latencyOf(h *histogram) Latency {
	us := func(d time.Duration) float64 {
		return float64(d.Round(100*time.Nanosecond)) / float64(time.Microsecond)
	}
	return Latency{us(h.quantile(.5)), us(h.quantile(.99)), us(h.quantile(.999)), us(h.longest)}
}

func (l Latency) worse(o Latency) Latency {
	return Latency{max(l.P50, o.P50), max(l.P99, o.P99), max(l.P999, o.P999), max(l.Max, o.Max)}
}

// Summary is several runs of one load in one: rates, latencies and what processes used are medians, what was lost,
// doubled or out of order, and what else is counted, are sums.
type Summary struct {
	Result
	Runs    int     `json:"runs"`
	Lowest  float64 `json:"lowest_delivered_per_s"`
	Highest float64 `json:"highest_delivered_per_s"`
}

// Summarize sums up runs of one load, of which there is at least one.
func Summarize(runs []*Result) Summary {
	s := Summary{Runs: len(runs)}
	of := func(value func(*Result) float64) []float64 {
		var all []float64
		for _, r := range runs {
			all = append(all, value(r))
		}
		slices.Sort(all)
		return all
	}
	med := func(value func(*Result) float64) float64 { return median(of(value)) }
	latency := func(value func(*Result) Latency) Latency {
		return Latency{
			P50:  med(func(r *Result) float64 { return value(r).P50 }),
			P99:  med(func(r *Result) float64 { return value(r).P99 }),
			P999: med(func(r *Result) float64 { return value(r).P999 }),
			Max:  med(func(r *Result) float64 { return value(r).Max }),
		}
	}
	rates := of(func(r *Result) float64 { return r.Rate })
	s.Rate, s.Lowest, s.Highest = median(rates), rates[0], rates[len(rates)-1]
	s.SentRate = med(func(r *Result) float64 { return r.SentRate })
	s.GeneratorCPU = med(func(r *Result) float64 { return r.GeneratorCPU })
	s.Latency = latency(func(r *Result) Latency { return r.Latency })
	s.WorstTopic = latency(func(r *Result) Latency { return r.WorstTopic })
	s.Ack = latency(func(r *Result) Latency { return r.Ack })
	for i, p := range runs[0].Brokers {
		s.Brokers = append(s.Brokers, Process{
			PID: p.PID,
			CPU: med(func(r *Result) float64 { return r.Brokers[i].CPU }),
			RSS: int64(med(func(r *Result) float64 { return float64(r.Brokers[i].RSS) })),
		})
	}
	for _, r := range runs {
		s.Window += r.Window
		s.Sent += r.Sent
		s.Acked += r.Acked
		s.Due += r.Due
		s.Delivered += r.Delivered
		s.Lost += r.Lost
		s.Duplicates += r.Duplicates
		s.OutOfOrder += r.OutOfOrder
		s.Repeated += r.Repeated
		s.Stalls += r.Stalls
		s.Problems = append(s.Problems, r.Problems...)
	}
	return s
}

// median returns the middle of what is sorted.
func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
