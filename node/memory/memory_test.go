package memory

import (
	"io/fs"
	"math"
	"runtime"
	"testing"
	"testing/fstest"
	"time"
)

// system makes the files of a machine.
func system(files map[string]string) fs.FS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

const pi3 = "MemTotal:         930000 kB\nMemFree:          100000 kB\n"

func TestLimit(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
		from  Source
	}{
		"nothing is known": {nil, 0, ""},
		"a Pi 3":           {map[string]string{"proc/meminfo": pi3}, 930000 * 1024 / 100 * 60, FromMachine},
		"a tiny machine":   {map[string]string{"proc/meminfo": "MemTotal: 65536 kB\n"}, Least, FromMachine},
		"rubbish":          {map[string]string{"proc/meminfo": "MemTotal: many kB\n", "proc/self/cgroup": "0::\nx\n::\n"}, 0, ""},
		"version 2": {map[string]string{"proc/meminfo": pi3, "proc/self/cgroup": "0::/system.slice/mozzie.service\n",
			"sys/fs/cgroup/system.slice/mozzie.service/memory.max": "209715200\n"}, 200 * mib / 100 * 80, FromCgroup},
		"version 2, no limit": {map[string]string{"proc/meminfo": pi3, "proc/self/cgroup": "0::/system.slice/mozzie.service\n",
			"sys/fs/cgroup/system.slice/mozzie.service/memory.max": "max\n"}, 930000 * 1024 / 100 * 60, FromMachine},
		"version 2, nested": {map[string]string{"proc/self/cgroup": "0::/a/b/c\n", "sys/fs/cgroup/a/b/c/memory.max": "max\n",
			"sys/fs/cgroup/a/b/memory.max": "314572800\n", "sys/fs/cgroup/a/memory.max": "419430400\n"}, 300 * mib / 100 * 80, FromCgroup},
		"version 2, throttled": {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "419430400\n",
			"sys/fs/cgroup/a/memory.high": "314572800\n"}, 300 * mib / 100 * 80, FromCgroup},
		"version 2, in a container": {map[string]string{"proc/meminfo": pi3, "proc/self/cgroup": "0::/docker/1234/../../x\n",
			"sys/fs/cgroup/memory.max": "104857600\n"}, 100 * mib / 100 * 80, FromCgroup},
		"version 1": {map[string]string{"proc/meminfo": pi3, "proc/self/cgroup": "12:cpu,cpuacct:/x\n5:memory:/docker/abc\n",
			"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "268435456\n"}, 256 * mib / 100 * 80, FromCgroup},
		"version 1, no limit": {map[string]string{"proc/meminfo": pi3, "proc/self/cgroup": "5:memory:/docker/abc\n",
			"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "9223372036854771712\n"}, 930000 * 1024 / 100 * 60, FromMachine},
		"both": {map[string]string{"proc/self/cgroup": "5:cpuset,memory:/a\n0::/b\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n", "sys/fs/cgroup/b/memory.max": "max\n"}, 512 * mib / 100 * 80, FromCgroup},
		"more than the machine": {map[string]string{"proc/meminfo": pi3, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "8589934592\n"}, 930000 * 1024 / 100 * 60, FromMachine},
	} {
		if got, from := Limit(system(c.files)); got != c.want || from != c.from {
			t.Errorf("%s: %d (%s), want %d (%s)", name, got, from, c.want, c.from)
		}
	}
}

func TestChoose(t *testing.T) {
	pi := system(map[string]string{"proc/meminfo": pi3})
	for _, c := range []struct {
		setting, current int64
		env              string
		want             int64
		from             Source
	}{
		{0, math.MaxInt64, "", 930000 * 1024 / 100 * 60, FromMachine},
		{0, 100 << 20, "100MiB", 100 << 20, FromEnvironment},
		{0, math.MaxInt64, "off", 0, FromEnvironment},
		{200 << 20, 100 << 20, "100MiB", 200 << 20, FromSetting},
		{200 << 20, math.MaxInt64, "", 200 << 20, FromSetting},
	} {
		if got, from := Choose(c.setting, c.current, c.env, pi); got != c.want || from != c.from {
			t.Errorf("%+v: %d (%s)", c, got, from)
		}
	}
}

// TestMachine: this one says how much it has.
func TestMachine(t *testing.T) {
	if got, from := Limit(Root()); runtime.GOOS == "linux" && (got < Least || from == "") {
		t.Errorf("%d bytes (%s)", got, from)
	}
}

// TestNext: a level begins where it should, and ends lower.
func TestNext(t *testing.T) {
	level := OK
	for i, c := range []struct {
		percent int64
		want    Level
	}{
		{0, OK}, {64, OK}, {65, Tight}, {56, Tight}, {79, Tight}, {80, Critical}, {71, Critical}, {200, Critical}, {70, Critical},
		{69, Tight}, {79, Tight}, {55, Tight}, {54, OK}, {64, OK}, {90, Critical}, {10, OK},
	} {
		if level = Next(level, c.percent*1000, 100_000); level != c.want {
			t.Fatalf("step %d, at %d %%: %s, want %s", i, c.percent, level, c.want)
		}
	}
}

// TestWatch: it is told of changes, once each, and counts them.
func TestWatch(t *testing.T) {
	var told []Level
	w := &Watcher{limit: 100, told: func(l Level, _ int64) { told = append(told, l) }}
	for _, used := range []int64{10, 70, 72, 90, 91, 10, 70} {
		w.look(used)
	}
	want := []Level{Tight, Critical, OK, Tight}
	if len(told) != len(want) {
		t.Fatalf("told %v, want %v", told, want)
	}
	for i := range want {
		if told[i] != want[i] {
			t.Fatalf("told %v, want %v", told, want)
		}
	}
	if w.Rises(Tight) != 2 || w.Rises(Critical) != 1 || w.Level() != Tight || w.Used() != 70 {
		t.Errorf("counts %d and %d, at %s, %d", w.Rises(Tight), w.Rises(Critical), w.Level(), w.Used())
	}
}

// TestMeter: what is held is seen once the collector has been there, and what is not is not.
func TestMeter(t *testing.T) {
	var m meter
	runtime.GC()
	before, _ := m.read()
	during := func() int64 {
		held := make([]byte, 64<<20)
		defer runtime.KeepAlive(held)
		runtime.GC()
		used, _ := m.read()
		return used
	}()
	runtime.GC()
	after, _ := m.read()
	if during-before < 60<<20 || during-before > 80<<20 || after-before > 10<<20 {
		t.Errorf("%d bytes before, %d during, %d after", before, during, after)
	}
	levels := make(chan Level, 8)
	w := Watch(during*10/9, func(l Level, _ int64) { levels <- l })
	defer w.Close()
	held := make([]byte, 64<<20)
	runtime.GC()
	select {
	case l := <-levels:
		if l != Critical {
			t.Errorf("told of %s", l)
		}
	case <-time.After(10 * time.Second):
		t.Error("nobody is told")
	}
	runtime.KeepAlive(held)

	// Nothing is allocated from here on, so that nothing is collected unless the watcher sees to it.
	for level := Critical; level != OK; {
		select {
		case level = <-levels:
		case <-time.After(20 * time.Second):
			t.Fatalf("it is still %s", level)
		}
	}
}

func TestPacer(t *testing.T) {
	const half = busyWindow
	p := newPacer(time.Time{})
	var now time.Time
	var cycles uint64
	for i, step := range []struct {
		after   time.Duration
		cycles  uint64
		percent int
		release bool
	}{
		{half - 1, 1, 100, false}, {1, 2, 100, false}, // three at once
		{half, 1, 100, false}, {half, 0, 25, false}, // one in a second
		{half, 2, 25, false}, {half, 2, 25, false}, // more, but not often enough
		{half, 3, 100, false}, {half, 1, 100, false}, {half, 1, 100, false}, {half, 1, 100, false}, // two in a second
		{half, 0, 25, false}, {half, 0, 25, false}, {half, 0, 25, true}, // at rest
		{half, 1, 25, false}, {half, 0, 25, false}, {half, 0, 25, false}, {half, 0, 25, false}, // that was the giving back
		{half, 2, 25, false}, {half, 0, 25, false}, {half, 0, 25, false}, {half, 0, 25, false}, // two since then
		{half, 1, 25, false}, {half, 0, 25, false}, {half, 0, 25, false}, {half, 0, 25, true},
	} {
		now = now.Add(step.after)
		cycles += step.cycles
		if release := p.look(cycles, now); p.percent != step.percent || release != step.release {
			t.Errorf("step %d: %d %%, release %v; want %d %%, %v", i, p.percent, release, step.percent, step.release)
		}
	}
}
