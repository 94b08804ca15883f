package memory

import (
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

// Level is how much of its memory a node has taken.
type Level int32

// The levels.
const (
	// OK: there is enough.
	OK Level = iota
	// Tight: what may be shed is.
	Tight
	// Critical: nothing more is taken on that can be put off.
	Critical
)

// String returns the word that people and metrics see.
func (l Level) String() string { return [...]string{"ok", "tight", "critical"}[l] }

// Where a level begins, and where it ends when memory is given back, in percent of the limit. Between them it stays, so
// that it does not flicker. Beyond 80 % of a limit Go spends much of its time on collecting.
const (
	tightFrom, tightTo       = 65, 55
	criticalFrom, criticalTo = 80, 70
)

// Next returns the level that follows on one, at so many bytes of a limit.
func Next(now Level, used, limit int64) Level {
	switch percent := float64(used) * 100 / float64(limit); {
	case percent >= criticalFrom, now == Critical && percent >= criticalTo:
		return Critical
	case percent >= tightFrom, now != OK && percent >= tightTo:
		return Tight
	}
	return OK
}

const (
	// interval is how often is looked, which costs some microseconds. A flood over loopback brings 25 MiB meanwhile.
	interval = 50 * time.Millisecond
	// staleAfter is how long what is known may be from before: what is alive is known from the last garbage collection,
	// and where nothing more is taken on there may be none for two minutes, so that nothing ever would be again.
	staleAfter = time.Second
)

// Watcher looks at the memory in use again and again.
type Watcher struct {
	limit  int64
	level  atomic.Int32
	used   atomic.Int64
	rises  [Critical + 1]atomic.Uint64
	told   func(now Level, used int64)
	stop   chan struct{}
	done   sync.WaitGroup
	closed sync.Once
}

// Watch has told called with the level and what is in use when the level changes, from one goroutine. Close ends that.
// Meanwhile it says how much garbage may gather: see pace.go.
func Watch(limit int64, told func(now Level, used int64)) *Watcher {
	w := &Watcher{limit: limit, told: told, stop: make(chan struct{})}
	w.done.Go(w.runWatch)
	return w
}

// Close waits for told to return.
func (w *Watcher) Close() {
	w.closed.Do(func() { close(w.stop) })
	w.done.Wait()
}

// Limit returns the limit that is watched.
func (w *Watcher) Limit() int64 { return w.limit }

// Used returns the bytes that were in use when the watcher last looked.
func (w *Watcher) Used() int64 { return w.used.Load() }

// Level returns the level now.
func (w *Watcher) Level() Level { return Level(w.level.Load()) }

// Rises returns how often a level has been risen to.
func (w *Watcher) Rises(to Level) uint64 { return w.rises[to].Load() }

func (w *Watcher) runWatch() {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var m meter
	var cycles uint64
	since := time.Now()
	pace := newPace(since)
	defer pace.end()
	for {
		used, at := m.read()
		w.look(used)
		now := time.Now()
		pace.step(at, now)
		if at != cycles || w.Level() == OK {
			cycles, since = at, now
		} else if now.Sub(since) >= staleAfter {
			runtime.GC()
		}
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
	}
}

// look takes note of what is in use.
func (w *Watcher) look(used int64) {
	w.used.Store(used)
	before := w.Level()
	now := Next(before, used, w.limit)
	if now == before {
		return
	}
	w.level.Store(int32(now))
	if now > before {
		w.rises[now].Add(1)
	}
	w.told(now, used)
}

// meter reads what the runtime says.
type meter struct{ samples []metrics.Sample }

// read returns the bytes in use: what was alive at the last garbage collection, and all that is no heap; and how many
// collections there have been.
func (m *meter) read() (used int64, cycles uint64) {
	if m.samples == nil {
		for _, name := range []string{"/gc/cycles/total:gc-cycles", "/gc/heap/live:bytes", "/memory/classes/heap/stacks:bytes", "/memory/classes/os-stacks:bytes",
			"/memory/classes/metadata/mspan/inuse:bytes", "/memory/classes/metadata/mcache/inuse:bytes", "/memory/classes/metadata/other:bytes",
			"/memory/classes/other:bytes", "/memory/classes/profiling/buckets:bytes"} {
			m.samples = append(m.samples, metrics.Sample{Name: name})
		}
	}
	metrics.Read(m.samples)
	sum := uint64(0)
	for _, s := range m.samples[1:] {
		if s.Value.Kind() == metrics.KindUint64 {
			sum += s.Value.Uint64()
		}
	}
	if m.samples[0].Value.Kind() == metrics.KindUint64 {
		cycles = m.samples[0].Value.Uint64()
	}
	return int64(sum), cycles //nolint:gosec // bytes of memory
}
