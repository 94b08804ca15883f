package chaos

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mozzie-mqtt/mozzie/e2e/ether"
)

var (
	seed      = flag.Uint64("seed", 1, "what decides the faults")
	duration  = flag.Duration("duration", time.Minute, "how long faults go on")
	rate      = flag.Int("rate", 60, "messages a second")
	dir       = flag.String("dir", "", "`folder` for the history, and for logs and data of nodes, kept; else a temporary one, kept where the test fails")
	only      = flag.String("only", "", "`kinds` of faults, with commas between; all if empty")
	strict    = flag.Bool("strict", false, "what is known to be missing is a violation too")
	elsewhere = flag.Bool("elsewhere", false, "clients with lasting sessions come back at other nodes")
	history   = flag.String("history", "", "`file` of a history for TestHistory")
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(goleak.IgnoreTopFunction("github.com/mozzie-mqtt/mozzie/e2e/chaos.runSpawn")); err != nil {
			fmt.Fprintln(os.Stderr, "e2e/chaos:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func known() Known {
	if *strict {
		return Known{}
	}
	return KnownNow
}

// TestChaos runs a swarm under faults, see the package's comment.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs real nodes, and -short was given")
	}
	o := Options{Seed: *seed, Duration: *duration, Nodes: 5, Rate: *rate, Known: known(), Elsewhere: *elsewhere, Logf: t.Logf}
	for _, k := range strings.FieldsFunc(*only, func(r rune) bool { return r == ',' }) {
		o.Only = append(o.Only, FaultKind(k))
	}
	o.Dir = *dir
	var err error
	if o.Dir == "" {
		// Not t.TempDir: its path may be too long for sockets, and it goes where the test fails.
		if o.Dir, err = os.MkdirTemp("", "chaos-"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if !t.Failed() {
				os.RemoveAll(o.Dir)
			}
		}()
	} else if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if o.Program, err = build(o.Dir, raceEnabled); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), o)
	if errors.Is(err, ether.ErrNotPermitted) {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Error(err)
	}
	if r == nil {
		return
	}
	t.Logf("seed %d, %v\n%v", o.Seed, o.Duration, r)
	if len(r.Violations) > 0 {
		t.Errorf("seed %d: %d violations%s; the history and the nodes' logs are in %s", o.Seed, len(r.Violations), r.first(), o.Dir)
	}
}

// TestHistory checks the history of an earlier run again.
func TestHistory(t *testing.T) {
	if *history == "" {
		t.Skip("no -history was given")
	}
	f, err := os.Open(*history)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	events, err := Read(f)
	if err != nil {
		t.Error(err) // as when the test was killed: what is before can be checked
	}
	r := Check(events, known())
	t.Logf("%v", r)
	if len(r.Violations) > 0 {
		t.Errorf("%d violations", len(r.Violations))
	}
}
